"""Points at which a gradient is taken and averaged, in place of the input alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxlrp.errors import InputError
from onnxlrp.inputs.preprocessing import Preprocessing
from onnxlrp.inputs.references import AT_INPUT, BLUR, NAMES, read_reference

Array = NDArray[Any]

BASELINES = tuple(name for name in NAMES if name not in (AT_INPUT, BLUR))


@dataclass(frozen=True)
class Way:
    """Integrated gradients: on the straight way from a baseline to the input, times the difference.

    The integral is taken by Gauss and Legendre's rule, as Captum does. The map adds up to
    f(x) - f(baseline), as far as `steps` are enough (Sundararajan et al. 2017, arXiv:1703.01365).

    Attributes
    ----------
    steps : points on the way
    baseline : one of `BASELINES`, or once it is known numbers that broadcast to a sample

    """

    steps: int
    baseline: Any = "zero"

    def check(self) -> None:
        """Raise `InputError` where it is no way."""
        _whole("steps", self.steps)
        if isinstance(self.baseline, str) and self.baseline not in BASELINES:
            raise InputError(f"'baseline' must be one of {', '.join(BASELINES)}")

    def known(self, preprocessing: Preprocessing | None) -> Way:
        """Return it with its baseline in numbers."""
        found = read_reference(self.baseline, preprocessing)
        assert not isinstance(found, str)
        return replace(self, baseline=found.tolist())

    def at(self, x: Array) -> Iterator[tuple[float, Array]]:
        """Yield weights that add up to 1, and points in the shape of x, [N, ...]."""
        base = np.asarray(self.baseline, x.dtype)
        nodes, weights = np.polynomial.legendre.leggauss(self.steps)
        for node, weight in zip(nodes, weights, strict=True):
            yield weight / 2, (base + (x - base) * ((node + 1) / 2)).astype(x.dtype)

    def map(self, mean: Array, x: Array) -> Array:
        """Make a map of the mean gradient."""
        return np.asarray(mean * (x - np.asarray(self.baseline)))

    def __str__(self) -> str:
        return f"integrated over {self.steps} steps from a baseline"


@dataclass(frozen=True)
class Around:
    """SmoothGrad: around the input, with noise added (Smilkov et al. 2017, arXiv:1706.03825).

    Attributes
    ----------
    samples : points
    noise : standard deviation as a part of the sample's largest value minus its smallest
    seed : of the noise, which is the same for every sample

    """

    samples: int
    noise: float = 0.15
    seed: int = 0

    def check(self) -> None:
        """Raise `InputError` where it is none."""
        _whole("samples", self.samples)
        _whole("seed", self.seed, least=0)
        if not isinstance(self.noise, int | float) or not 0 < self.noise < np.inf:
            raise InputError("'noise' must be a number greater than 0")

    def known(self, preprocessing: Preprocessing | None) -> Around:
        """Return it; nothing is left to find out."""
        return self

    def at(self, x: Array) -> Iterator[tuple[float, Array]]:
        """Yield weights that add up to 1, and points in the shape of x, [N, ...]."""
        random, axes = np.random.default_rng(self.seed), tuple(range(1, x.ndim))
        spread = self.noise * np.ptp(x, axis=axes, keepdims=True)
        for _ in range(self.samples):
            yield 1 / self.samples, (x + spread * random.normal(size=x.shape[1:])).astype(x.dtype)

    def map(self, mean: Array, x: Array) -> Array:
        """Make a map of the mean gradient."""
        return mean

    def __str__(self) -> str:
        return f"averaged over {self.samples} samples with noise"


Points = Way | Around


def read_points(table: Mapping[str, Any]) -> Points:
    """Read what a composite or an explainer says: `steps` of a `Way`, or `samples` `Around`.

    Raises
    ------
    InputError
        If it says neither, or something else besides.

    """
    try:
        found = Way(**table) if "steps" in table else Around(**table)
    except TypeError:
        raise InputError(
            "[points] holds steps and baseline, or samples, noise and seed, not "
            + (", ".join(table) or "nothing")
        ) from None
    found.check()
    return found


def _whole(name: str, value: Any, least: int = 1) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"'{name}' must be a whole number from {least} on")
