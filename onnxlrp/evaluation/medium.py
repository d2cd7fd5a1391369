"""What samples are made of: what a study needs to know of pictures, signals, tables or text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxlrp.evaluation.flipping import Flipping, Size

Maps = Mapping[str, NDArray[Any]]
Feeds = Mapping[str, NDArray[Any]]
Replacing = Callable[[NDArray[np.bool_]], Iterator[Feeds]]


@dataclass(frozen=True)
class Sample:
    """One thing to judge on.

    Attributes
    ----------
    name : unique
    number : its place in the whole set, which its random values depend on
    content : what its `Medium` makes the model's input of, by name
    maps : relevance computed elsewhere, by method
    mask : what the relevance should lie in, of the shape of its places

    """

    name: str
    number: int
    content: Maps
    maps: Maps
    mask: NDArray[Any] | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of all that its results depend on."""
        found = hashlib.sha256(repr((self.name, self.number)).encode())
        arrays = {**self.content, "mask": self.mask, **self.maps}
        for name, array in arrays.items():
            if array is not None:
                found.update(repr((name, array.dtype.str, array.shape)).encode())
                found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()


class Medium(Protocol):
    """What a sample is made of, and what its places become when they are flipped."""

    samples: ClassVar[str]
    """What they are called, such as `pictures`."""
    places: ClassVar[str]
    """What is flipped, such as `pixels`."""
    even: ClassVar[bool]
    """Whether all samples have as many places."""

    @property
    def replacement(self) -> str:
        """What a place becomes when it is flipped."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """What results depend on besides the sample, in types that JSON has."""
        ...

    def feeds(self, sample: Sample) -> Feeds:
        """Return what the model reads of a sample, a batch of one."""
        ...

    def size(self, sample: Sample) -> Size:
        """Return how many places can be flipped, along each axis."""
        ...

    def spared(self, sample: Sample) -> int:
        """Return how many places must stay for anything to be left."""
        ...

    def of_places(self, array: NDArray[Any], sample: Sample) -> NDArray[np.float64]:
        """Return the relevance of each place, of `size`, from that of the input or of each place.

        Raises
        ------
        InputError
            Its shape is neither's.

        """
        ...

    def replacing(self, sample: Sample, flipping: Flipping) -> Replacing:
        """Return a function from which places are gone, [B, *size], to what the model then reads.

        It yields all B in order, in one batch or, where their lengths differ, in several.
        """
        ...


def constant_of(replacement: str) -> float | None:
    """Read a replacement that is a number, or `zero`; None where it is none."""
    try:
        number = float("0" if replacement == "zero" else replacement)
    except ValueError:
        return None
    return number if np.isfinite(number) else None
