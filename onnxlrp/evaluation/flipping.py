"""Perturbation curves: how a score falls, or holds, while pixels are replaced.

Bach et al. 2015, section "Pixel-flipping"; Samek et al. 2017, eqs. 12 and 13 (regions, AOPC).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from onnxlrp.errors import InputError
from onnxlrp.evaluation.inpainting import inpainted
from onnxlrp.inputs.preprocessing import Preprocessing

Replacement = Literal["uniform", "mean", "blur", "inpainting"]
Order = Literal["descending", "ascending", "random"]
ORDERS: tuple[Order, ...] = get_args(Order)
KEPT = 65
"""So many points of a curve, evenly spread, are kept for drawing."""


@dataclass(frozen=True)
class Flipping:
    """What a flip is, and how many there are.

    A flip replaces all channels of a pixel, or of a square region of a grid, in the picture that
    the model sees, before scaling. Values are drawn by (`seed`, image), the same for all methods.

    Attributes
    ----------
    flips : L, how many; all if None
    region : side of a region in pixels; 1 flips single pixels. Regions at the right and lower
        edges may be smaller
    stride : from one region's corner to the next one's; a region's side if None. Where regions
        overlap, a pixel goes with the first
    replacement : `uniform`, random values of 0..255; `mean`, the picture's mean colour; `blur`,
        the picture blurred by a Gaussian whose deviation is an eighth of its shorter side;
        `inpainting`, what the pixels that are left suggest (`inpainted`)
    every : the curve is computed after every so many flips, and L; between them it is taken as a
        straight line, so that its mean is exact for 1 and an approximation beyond
    seed : of the random values and the random order

    Raises
    ------
    InputError
        A value is out of range.

    """

    flips: int | None = None
    region: int = 1
    stride: int | None = None
    replacement: Replacement = "uniform"
    every: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.replacement not in get_args(Replacement):
            raise InputError(
                f"replacement is one of {', '.join(get_args(Replacement))}, not {self.replacement}"
            )
        for name in ("flips", "region", "stride", "every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is at least 1, not {value}")
        if self._step > self.region:
            raise InputError(
                f"a stride of {self.stride} leaves pixels out between regions of {self.region}"
            )

    def count(self, size: tuple[int, int]) -> int:
        """Return L for a picture of (height, width).

        Raises
        ------
        InputError
            There are fewer pixels, or regions, than flips, or a region is larger than the picture.

        """
        most = int(np.prod(self._cells(size)))
        if self.region > max(size):
            raise InputError(f"regions of {self.region} are larger than {size[0]}x{size[1]} pixels")
        if self.flips is not None and self.flips > most:
            raise InputError(
                f"{self.flips} flips where {size[0]}x{size[1]} pixels make {most}: give fewer"
            )
        return most if self.flips is None else self.flips

    def steps(self, size: tuple[int, int]) -> NDArray[np.int64]:
        """Return after how many flips the score is taken: 0, ..., L."""
        last = self.count(size)
        return np.unique([*range(0, last, self.every), last])

    def ranks(self, relevance: NDArray[Any], order: Order, image: int) -> NDArray[np.int64]:
        """Return with which flip each pixel goes, from 1, [H, W].

        Parameters
        ----------
        relevance : of each pixel, channels summed, [H, W]; a region's is the sum over it
        order : most relevant first, least relevant first, or by chance; equal ones by index
        image : number of the picture, for the random order

        """
        height, width = relevance.shape
        rows, columns = cells = self._cells((height, width))
        covered = [(n - 1) * self._step + self.region for n in cells]
        if order == "random":
            keys = self._random(image, 1).permutation(rows * columns).astype(np.float64)
        else:
            padded = np.zeros(covered)
            padded[:height, :width] = relevance
            sums = np.zeros(cells)
            for part in self._parts(padded):
                sums += part
            keys = -sums.ravel() if order == "descending" else sums.ravel()
        rank = np.empty(rows * columns, np.int64)
        rank[np.argsort(keys, kind="stable")] = np.arange(1, rows * columns + 1)
        first = np.full(covered, rank.max())
        for part in self._parts(first):
            np.minimum(part, rank.reshape(cells), out=part)
        return first[:height, :width]

    def replacing(
        self, pixels: NDArray[np.uint8], image: int, preprocessing: Preprocessing
    ) -> Callable[[NDArray[np.bool_]], NDArray[np.float32]]:
        """Return a function from which pixels are gone, [B, H, W], to what the model then reads.

        Preprocessing acts on each pixel alone and is linear, so that pixels can be replaced after
        it as well as before.
        """
        first = preprocessing.layout == "NCHW"
        before = preprocessing.values(pixels)
        if self.replacement == "inpainting":
            whole = np.moveaxis(before, 0, -1) if first else before

            def fill(gone: NDArray[np.bool_]) -> NDArray[np.float32]:
                filled = np.stack([inpainted(whole, one) for one in gone])
                return np.ascontiguousarray(np.moveaxis(filled, -1, 1)) if first else filled

            return fill
        after = preprocessing.values(self.replaced(pixels, image))
        return lambda gone: np.where(np.expand_dims(gone, 1 if first else -1), after, before)

    def replaced(self, pixels: NDArray[np.uint8], image: int) -> NDArray[np.uint8]:
        """Return what pixels become when they are flipped, uint8 [H, W, C].

        Not for `inpainting`, where that depends on the pixels that are left.
        """
        if self.replacement == "uniform":
            return self._random(image, 0).integers(0, 256, pixels.shape, dtype=np.uint8)
        if self.replacement == "mean":
            mean = np.rint(pixels.mean(axis=(0, 1))).astype(np.uint8)
            return np.broadcast_to(mean, pixels.shape).copy()
        grey = pixels.shape[2] == 1
        picture = Image.fromarray(pixels[..., 0] if grey else pixels)
        blurred = picture.filter(ImageFilter.GaussianBlur(min(pixels.shape[:2]) / 8))
        return np.asarray(blurred).reshape(pixels.shape)

    @property
    def _step(self) -> int:
        return self.stride or self.region

    def _cells(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return how many regions there are in (rows, columns), so that every pixel is in one."""
        rows, columns = (max(0, -(-(n - self.region) // self._step)) + 1 for n in size)
        return rows, columns

    def _parts(self, covered: NDArray[Any]) -> Iterator[NDArray[Any]]:
        """Yield views that hold one pixel of every region each, [rows, columns]."""
        for down, right in np.ndindex(self.region, self.region):
            ends = (n - self.region + 1 for n in covered.shape)
            places = (
                slice(start, start + end, self._step)
                for start, end in zip((down, right), ends, strict=True)
            )
            yield covered[tuple(places)]

    def _random(self, image: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, image, purpose])


def curves(
    score: Callable[[NDArray[np.float32]], NDArray[Any]],
    replacing: Callable[[NDArray[np.bool_]], NDArray[np.float32]],
    ranks: Mapping[str, NDArray[np.int64]],
    steps: NDArray[np.int64],
    batch: int,
) -> dict[str, NDArray[np.float64]]:
    """Return the score of a picture after each number of flips, for several orders.

    Parameters
    ----------
    score : the score of each of [B, ...], what the model reads
    replacing : as from `Flipping.replacing`
    ranks : by name, with which flip each pixel goes, [H, W]
    steps : after how many flips the score is taken, ascending from 0, [K]
    batch : pictures to a run

    Returns
    -------
    by name, [K]

    """
    # The untouched picture is the same for all.
    whole = [(name, index) for name in ranks for index in range(1, len(steps))]
    untouched = np.zeros((1, *next(iter(ranks.values())).shape), dtype=bool)
    clean = float(score(replacing(untouched))[0])
    found = {name: np.full(len(steps), clean) for name in ranks}
    for first in range(0, len(whole), batch):
        part = whole[first : first + batch]
        gone = np.stack([ranks[name] <= steps[index] for name, index in part])
        for (name, index), value in zip(part, score(replacing(gone)), strict=True):
            found[name][index] = value
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
