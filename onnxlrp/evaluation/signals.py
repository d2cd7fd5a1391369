"""Signals, whose moments or windows of time are flipped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from onnxlrp.errors import InputError
from onnxlrp.evaluation.flipping import Flipping, Size
from onnxlrp.evaluation.medium import Feeds, Replacing, Sample, constant_of


@dataclass(frozen=True)
class Signals:
    """Signals: content `values`, floats [T], [C, T] or [T, C]; all channels are flipped together.

    Attributes
    ----------
    input : name of the model's input
    axis : which of a signal's axes, without the batch's, is time
    replacement : `mean`, the channel's own; `zero`, or another number; `linear`, a straight line
        between the nearest moments that are left, at the ends the nearest one, or the mean where
        none is left; `noise`, normal, with the channel's mean and deviation; `blur`, the signal
        blurred along time by a Gaussian whose deviation is an eighth of its length

    Raises
    ------
    InputError
        The replacement is none of these.

    """

    input: str
    axis: int = -1
    replacement: str = "mean"
    samples: ClassVar[str] = "signals"
    places: ClassVar[str] = "moments"
    even: ClassVar[bool] = True

    def __post_init__(self) -> None:
        named = ("mean", "zero", "linear", "noise", "blur")
        if self.replacement not in named and constant_of(self.replacement) is None:
            raise InputError(
                f"moments of a signal are replaced by {', '.join(named)} or a number, "
                f"not {self.replacement}"
            )

    @property
    def settings(self) -> Mapping[str, Any]:
        """What results depend on besides the signal."""
        return {"replacement": self.replacement, "axis": self.axis}

    def feeds(self, sample: Sample) -> Feeds:
        """Return what the model reads of a signal, a batch of one."""
        return {self.input: sample.content["values"][None]}

    def size(self, sample: Sample) -> Size:
        """Return T."""
        return (sample.content["values"].shape[self.axis],)

    def spared(self, sample: Sample) -> int:
        """Return 0: all of a signal can be replaced."""
        return 0

    def of_places(self, array: NDArray[Any], sample: Sample) -> NDArray[np.float64]:
        """Return the relevance of each moment, summed over channels, [T]."""
        values = sample.content["values"]
        if array.shape == self.size(sample):
            return array.astype(np.float64)
        if array.shape != values.shape:
            raise InputError(f"a map {list(array.shape)} for a signal {list(values.shape)}")
        channels = tuple(np.delete(np.arange(values.ndim), self.axis))
        return np.asarray(array.sum(axis=channels, dtype=np.float64))

    def replacing(self, sample: Sample, flipping: Flipping) -> Replacing:
        """Return a function from which moments are gone, [B, T], to what the model then reads."""
        last = np.moveaxis(sample.content["values"], self.axis, -1)
        before = last.reshape(-1, last.shape[-1])
        after = None
        if self.replacement != "linear":
            after = self.replaced(before.astype(np.float64), flipping.random(sample.number))

        def exchange(gone: NDArray[np.bool_]) -> Iterator[Feeds]:
            if after is None:
                made = np.stack([joined(before, one) for one in gone])
            else:
                made = np.where(gone[:, None], after.astype(before.dtype), before)
            shaped = made.reshape(len(gone), *last.shape)
            # Of the batch, too.
            axis = self.axis if self.axis < 0 else self.axis + 1
            yield {self.input: np.ascontiguousarray(np.moveaxis(shaped, -1, axis))}

        return exchange

    def replaced(self, values: NDArray[np.float64], random: np.random.Generator) -> NDArray[Any]:
        """Return what moments become when they are flipped, from and to [C, T].

        Not for `linear`, where that depends on the moments that are left.
        """
        mean = values.mean(axis=1, keepdims=True)
        if self.replacement == "mean":
            return np.broadcast_to(mean, values.shape)
        if self.replacement == "noise":
            deviation = values.std(axis=1, keepdims=True)
            return np.asarray(mean + deviation * random.normal(size=values.shape))
        if self.replacement == "blur":
            from scipy.ndimage import gaussian_filter1d

            return np.asarray(gaussian_filter1d(values, values.shape[1] / 8, mode="nearest"))
        return np.full(values.shape, constant_of(self.replacement))


def joined(values: NDArray[Any], gone: NDArray[np.bool_]) -> NDArray[Any]:
    """Return a signal in which what is gone lies on straight lines between what is left.

    Parameters
    ----------
    values : [C, T]
    gone : [T]

    """
    if gone.all():
        return np.broadcast_to(values.mean(axis=1, keepdims=True), values.shape)
    left = np.flatnonzero(~gone)
    every = np.arange(len(gone))
    drawn = np.stack([np.interp(every, left, channel[left]) for channel in values])
    return drawn.astype(values.dtype)
