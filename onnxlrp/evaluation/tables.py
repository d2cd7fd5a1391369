"""Rows of a table, whose features are flipped."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from onnxlrp.errors import InputError
from onnxlrp.evaluation.flipping import Flipping, Size
from onnxlrp.evaluation.medium import Feeds, Replacing, Sample, constant_of
from onnxlrp.inputs.columns import Columns


@dataclass(frozen=True)
class Tables:
    """Rows of a table: content `values`, floats [F].

    Attributes
    ----------
    columns : which of the model's inputs takes which feature
    background : the whole table, [N, F]
    replacement : `mean` or `median` of the feature's column; `column`, the value of a row drawn by
        chance for each feature, so that it has the column's distribution and depends on no other;
        or a number

    Raises
    ------
    InputError
        The replacement is none of these.

    """

    columns: Columns
    background: NDArray[Any] = field(repr=False)
    replacement: str = "mean"
    samples: ClassVar[str] = "rows"
    places: ClassVar[str] = "features"
    even: ClassVar[bool] = True

    def __post_init__(self) -> None:
        named = ("mean", "median", "column")
        if self.replacement not in named and constant_of(self.replacement) is None:
            raise InputError(
                f"features are replaced by {', '.join(named)} or a number, not {self.replacement}"
            )

    @property
    def settings(self) -> Mapping[str, Any]:
        """What results depend on besides the row."""
        table = hashlib.sha256(np.ascontiguousarray(self.background).data).hexdigest()
        return {"replacement": self.replacement, "table": table}

    def feeds(self, sample: Sample) -> Feeds:
        """Return what the model reads of a row, [1, F], or [1, 1] for inputs of one column."""
        return self.columns.feeds(sample.content["values"][None])

    def size(self, sample: Sample) -> Size:
        """Return F."""
        return sample.content["values"].shape

    def spared(self, sample: Sample) -> int:
        """Return 0: all features can be replaced."""
        return 0

    def of_places(self, array: NDArray[Any], sample: Sample) -> NDArray[np.float64]:
        """Return the relevance of each feature, [F]."""
        if array.shape != self.size(sample):
            raise InputError(f"a map {list(array.shape)} for {self.size(sample)[0]} features")
        return array.astype(np.float64)

    def replacing(self, sample: Sample, flipping: Flipping) -> Replacing:
        """Return a function from which features are gone, [B, F], to what the model then reads."""
        before = sample.content["values"]
        after = self.replaced(flipping.random(sample.number)).astype(before.dtype)

        def exchange(gone: NDArray[np.bool_]) -> Iterator[Feeds]:
            yield self.columns.feeds(np.where(gone, after, before))

        return exchange

    def replaced(self, random: np.random.Generator) -> NDArray[Any]:
        """Return what features become when they are flipped, [F]."""
        rows, features = self.background.shape
        if self.replacement == "mean":
            return np.asarray(self.background.mean(axis=0, dtype=np.float64))
        if self.replacement == "median":
            return np.asarray(np.median(self.background, axis=0))
        if self.replacement == "column":
            drawn = random.integers(0, rows, features)
            return np.asarray(self.background[drawn, np.arange(features)])
        return np.full(features, constant_of(self.replacement))
