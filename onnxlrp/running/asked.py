"""What a caller asks of a batch: a class of each sample, or the difference of two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxlrp.errors import InputError
from onnxlrp.inputs.targets import TOP, Aim, Difference, read_difference

Target = int | str | Difference | Sequence[int | str | Difference] | NDArray[np.integer[Any]]

NONE = -2
"""The class that is subtracted where none is."""


@dataclass(frozen=True, eq=False)
class Asked:
    """Two classes of each sample.

    Attributes
    ----------
    plus, minus : int64 [N], -1 the class with the highest score; -2 where nothing is subtracted

    """

    plus: NDArray[np.int64]
    minus: NDArray[np.int64]

    @classmethod
    def read(
        cls, target: Target, count: int, classes: int | None = None, *, several: bool = False
    ) -> Asked:
        """Read one target for all of `count` samples, one for each, or `several` for one.

        Raises
        ------
        InputError
            It is neither, or a class does not exist.

        """
        given: Any = target
        single = isinstance(target, str | Difference) or np.ndim(given) == 0
        try:
            listed = [given] if single else list(given)
            pairs = np.array([_pair(one) for one in listed])
        except (TypeError, ValueError):
            pairs = np.empty(0)
        lengths = (1, len(pairs) or 1) if several and count == 1 else (1, count)
        if pairs.dtype.kind not in "iu" or pairs.ndim != 2 or len(pairs) not in lengths:
            raise InputError(
                f"target is a class number, or one for each of the {count} inputs, not {target!r}"
            )
        plus, minus = np.broadcast_to(pairs.astype(np.int64), (max(count, len(pairs)), 2)).T
        for number in (*plus, *minus[minus != NONE]):
            if number < TOP:
                raise InputError(
                    f"{number} is not a class: -1 is the top class, the others start at 0"
                )
            if classes is not None and number >= classes:
                raise InputError(f"{number} is not a class: the model's are 0 to {classes - 1}")
        return cls(np.ascontiguousarray(plus), np.ascontiguousarray(minus))

    @property
    def open(self) -> bool:
        """Whether it takes scores to know the classes."""
        return TOP in self.plus or TOP in self.minus

    @property
    def differs(self) -> bool:
        """Whether any is a difference."""
        return bool((self.minus != NONE).any())

    def same(self, other: Asked) -> bool:
        """Whether the same is asked of every sample."""
        return bool((self.plus == other.plus).all() and (self.minus == other.minus).all())

    def resolved(self, scores: NDArray[Any]) -> Asked:
        """Put the best class in where -1 stands for it, given the scores [N, classes].

        Raises
        ------
        InputError
            The best class was to be held against one that is it.

        """
        top = scores.argmax(axis=1)
        plus, minus = (np.where(side == TOP, top, side) for side in (self.plus, self.minus))
        for number in plus[plus == minus]:
            raise InputError(
                f"class {number} has the best score itself: its difference from that is nothing to "
                "explain"
            )
        return Asked(plus, minus)

    def weights(self, classes: int) -> NDArray[np.float32]:
        """Return the weights of the scores, [N, classes], once it is resolved."""
        numbers = np.arange(classes)
        plus, minus = (numbers == side[:, None] for side in (self.plus, self.minus))
        found: NDArray[np.float32] = plus.astype(np.float32) - minus.astype(np.float32)
        return found

    def score(self, scores: NDArray[Any]) -> NDArray[Any]:
        """Return what is explained of the scores [N, classes], once it is resolved."""
        rows = np.arange(len(scores))
        own: NDArray[Any] = scores[rows, self.plus]
        taken = scores[rows, np.maximum(self.minus, 0)] * (self.minus != NONE)
        return own - taken if self.differs else own

    def aims(self, contrast: str, at: str) -> tuple[Aim, ...]:
        """Say what is explained of each sample, once it is resolved."""
        return tuple(
            Aim(int(plus), None if minus == NONE else int(minus), contrast, at)
            for plus, minus in zip(self.plus, self.minus, strict=True)
        )


def _pair(one: Any) -> tuple[Any, int]:
    """Read one target as two classes."""
    if isinstance(one, bool | np.bool_):
        raise TypeError
    found = read_difference(one) if isinstance(one, str) else one
    if isinstance(found, Difference):
        return found.plus, found.minus
    return TOP if isinstance(one, str) and one == "top" else one, NONE
