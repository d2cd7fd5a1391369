"""Perturbation curves: how a score falls, or holds, while parts of the input are replaced.

Bach et al. 2015, section "Pixel-flipping"; Samek et al. 2017, eqs. 12 and 13 (regions, AOPC).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from onnxlrp.errors import InputError

Size = tuple[int, ...]
Amount = int | str
"""So many flips, or a share of all that there can be, such as `20%`, rounded up."""
Order = Literal["descending", "ascending", "random"]
ORDERS: tuple[Order, ...] = get_args(Order)
KEPT = 65
"""So many points of a curve, evenly spread, are kept for drawing."""
RUNS = 100
"""About so often the score is taken along a curve, where nobody says how often."""


@dataclass(frozen=True)
class Flipping:
    """What a flip is, how many there are, and in which order.

    A flip replaces one place of what a sample has (a pixel, a moment of a signal, a feature, a
    token; all channels of it), or a region of several: a square of a picture, a window of a signal.

    Attributes
    ----------
    flips : L, how many, or which share of all; all if None
    region : side of a region in places; 1 flips single ones. Regions at the ends may be smaller
    stride : from one region's corner to the next one's; a region's side if None. Where regions
        overlap, a place goes with the first
    every : the curve is computed after every so many flips, and L; between them it is taken as a
        straight line, so that its mean is exact for 1 and an approximation beyond. None: so that
        it is computed `RUNS` times at most
    seed : of the random values and the random order, which are drawn by (`seed`, sample), the same
        for all methods

    Raises
    ------
    InputError
        A value is out of range.

    """

    flips: Amount | None = None
    region: int = 1
    stride: int | None = None
    every: int | None = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("region", "stride", "every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is at least 1, not {value}")
        if self.flips is not None and number_of(self.flips, 100) < 1:
            raise InputError(f"flips is at least 1, not {self.flips}")
        if self._step > self.region:
            raise InputError(
                f"a stride of {self.stride} leaves some out between regions of {self.region}"
            )

    def count(self, size: Size, spared: int = 0) -> int:
        """Return L for a sample of `size` places along each axis.

        Parameters
        ----------
        size : such as (height, width)
        spared : how many of the last flips are never done

        Raises
        ------
        InputError
            There are fewer places, or regions, than flips, or a region is larger than the sample.

        """
        most = int(np.prod(self._cells(size))) - spared
        if self.region > max(size):
            raise InputError(f"regions of {self.region} are larger than {_times(size)}")
        if self.flips is None:
            return most
        found = number_of(self.flips, most)
        if found > most:
            raise InputError(f"{found} flips where {_times(size)} make {most}: give fewer")
        return found

    def steps(self, size: Size, spared: int = 0) -> NDArray[np.int64]:
        """Return after how many flips the score is taken: 0, ..., L."""
        last = self.count(size, spared)
        every = ceil(last / RUNS) if self.every is None else self.every
        return np.unique([*range(0, last, max(1, every)), last])

    def ranks(self, relevance: NDArray[Any], order: Order, sample: int) -> NDArray[np.int64]:
        """Return with which flip each place goes, from 1, in the shape of `relevance`.

        Parameters
        ----------
        relevance : of each place, such as [H, W]; a region's is the sum over it
        order : most relevant first, least relevant first, or by chance; equal ones by index
        sample : its number, for the random order

        """
        cells = self._cells(relevance.shape)
        covered = [(n - 1) * self._step + self.region for n in cells]
        inside = tuple(slice(n) for n in relevance.shape)
        count = int(np.prod(cells))
        if order == "random":
            keys = self.random(sample, 1).permutation(count).astype(np.float64)
        else:
            padded = np.zeros(covered)
            padded[inside] = relevance
            sums = np.zeros(cells)
            for part in self._parts(padded):
                sums += part
            keys = -sums.ravel() if order == "descending" else sums.ravel()
        rank = np.empty(count, np.int64)
        rank[np.argsort(keys, kind="stable")] = np.arange(1, count + 1)
        first = np.full(covered, count)
        for part in self._parts(first):
            np.minimum(part, rank.reshape(cells), out=part)
        return first[inside]

    def random(self, sample: int, purpose: int = 0) -> np.random.Generator:
        """Return what draws values for a sample, by its number, or (`purpose` 1) its order."""
        return np.random.default_rng([self.seed, sample, purpose])

    @property
    def _step(self) -> int:
        return self.stride or self.region

    def _cells(self, size: Size) -> Size:
        """Return how many regions there are along each axis, so that every place is in one."""
        return tuple(max(0, -(-(n - self.region) // self._step)) + 1 for n in size)

    def _parts(self, covered: NDArray[Any]) -> Iterator[NDArray[Any]]:
        """Yield views that hold one place of every region each, in the shape of the regions."""
        for corner in np.ndindex(*[self.region] * covered.ndim):
            ends = (n - self.region + 1 for n in covered.shape)
            places = (
                slice(start, start + end, self._step)
                for start, end in zip(corner, ends, strict=True)
            )
            yield covered[tuple(places)]


def number_of(amount: Amount, most: int) -> int:
    """Return how many flips an amount is where there can be `most`.

    Raises
    ------
    InputError
        It is neither a number nor a share such as `20%`.

    """
    if isinstance(amount, int):
        return amount
    try:
        share = float(amount.removesuffix("%")) / 100
        # A third of 3 is 1, whatever the rounding of 33.3... says.
        count = ceil(share * most - 1e-9)
    except (ValueError, OverflowError):
        count = -1
    if count < 0 or share > 1 or not amount.endswith("%"):
        raise InputError(f"{amount} is neither a number nor a share such as 20%")
    return count


def _times(size: Size) -> str:
    return "x".join(map(str, size))


def curves(
    score: Callable[[NDArray[np.bool_]], NDArray[Any]],
    ranks: Mapping[str, NDArray[np.int64]],
    steps: NDArray[np.int64],
    batch: int,
) -> dict[str, NDArray[np.float64]]:
    """Return the score of a sample after each number of flips, for several orders.

    Parameters
    ----------
    score : from which places are gone, [B, ...], to the scores without them, [B]
    ranks : by name, with which flip each place goes
    steps : after how many flips the score is taken, ascending from 0, [K]
    batch : samples to a run

    Returns
    -------
    by name, [K]

    """
    # The untouched sample is the same for all; sentences are run with others of their length.
    untouched = np.zeros((1, *next(iter(ranks.values())).shape), dtype=bool)
    clean = float(score(untouched)[0])
    found = {name: np.full(len(steps), clean) for name in ranks}
    # Orders share no run: what else is in one may change the last bits.
    for name, rank in ranks.items():
        for first in range(1, len(steps), batch):
            part = steps[first : first + batch]
            gone = np.stack([rank <= step for step in part])
            found[name][first : first + batch] = score(gone)
    return found


def area(curve: NDArray[np.float64], steps: NDArray[np.int64], last: int) -> float:
    """Return the mean of a curve over 0..`last` flips.

    Between the steps it is a straight line; where the steps are all numbers, this is the mean.
    """
    every = np.arange(last + 1)
    return float(np.interp(every, steps, curve).mean())


def aopc(curve: NDArray[np.float64], steps: NDArray[np.int64], last: int) -> float:
    """Return the mean of f(x_0) - f(x_k) over k = 0..`last` (Samek et al. 2017, eq. 12)."""
    return float(curve[0]) - area(curve, steps, last)


def kept(steps: NDArray[np.int64], curves: Iterable[NDArray[np.float64]]) -> list[list[float]]:
    """Thin curves out to what a drawing needs."""
    places = np.linspace(0, steps[-1], min(KEPT, int(steps[-1]) + 1))
    return [[round(float(v), 5) for v in np.interp(places, steps, curve)] for curve in curves]
