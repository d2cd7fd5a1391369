"""What an explainer should start from, by definition: its class, difference, contrast, weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxlrp import reference
from onnxlrp.audit.written import Written
from onnxlrp.errors import InputError
from onnxlrp.graph.place import read_place
from onnxlrp.graph.shapes import dims_of
from onnxlrp.inputs.targets import TOP, Difference, read_difference

Array = NDArray[Any]


@dataclass(frozen=True)
class Beginning:
    """The relevance of the score.

    Attributes
    ----------
    relevance : float64, in the score's shape
    targets : of each sample, the class explained, or the difference of two, such as "3-5"
    total : sum of what is explained: the scores, or their differences; of contrasts it is 0
    scale : sum of the samples' magnitudes of that; of contrasts, of what speaks for the class; of
        gradients, of the derivatives by the scores

    """

    relevance: Array
    targets: tuple[int | str, ...]
    total: float
    scale: float


def chosen(written: Written, target: int | Difference) -> int | Difference:
    """Return what an explainer is asked to explain, or has written in.

    Raises
    ------
    InputError
        It is no class, or cannot be chosen.

    """
    contract = written.contract
    if contract.target:
        if target != TOP and str(target) != contract.target:
            raise InputError(
                f"'{contract.target}' is written into this explainer: no other can be chosen"
            )
        if contract.target == "top":
            return TOP
        return read_difference(contract.target) or int(contract.target)
    classes = _classes(written)
    numbers = (target.plus, target.minus) if isinstance(target, Difference) else (target,)
    for number in numbers:
        if number < TOP or number >= classes:
            raise InputError(f"{number} is not a class: the model has {classes}, counted from 0")
    if isinstance(target, Difference) and not contract.weights_input:
        raise InputError(f"to explain {target}, convert with --target {target} or --target weights")
    return target


def weights(written: Written, target: int | Difference, score: Array) -> Array:
    """Return the weights of the scores that explain a class or a difference, [N, classes]."""
    totals = _totals(written, score)
    rows = np.arange(len(totals))
    plus, minus = _numbers(target, totals)
    found = np.zeros(totals.shape, np.float32)
    found[rows, plus] = 1
    if minus is not None:
        found[rows, minus] -= 1
    return found


def begin(
    written: Written, target: int | Difference, score: Array, root: Array | None = None
) -> Beginning:
    """Compute what relevance should start from, given the score's values, also at a reference."""
    contract = written.contract
    totals = _totals(written, score)
    plus, minus = _numbers(target, totals)
    axis, places = _place(written, score)
    # The gradient of a softmax is that at the scores themselves.
    change = score
    if root is not None and contract.contrast != "softmax":
        change = score.astype(np.float64) - root
    if contract.sensitivity and contract.contrast != "softmax":
        change = np.ones_like(score)
    relevance = reference.start(
        _signed(written, change), plus, minus, None, contract.contrast, axis, places
    )
    each = relevance.reshape(len(totals), -1)
    sizes = np.abs(each).sum(axis=1)
    if not contract.sensitivity:
        sizes = sizes / 2 if contract.contrast else np.abs(each.sum(axis=1))
    if contract.signs:
        relevance = relevance.sum(axis=1).reshape(score.shape)
    targets: list[int | str] = [int(number) for number in plus]
    if minus is not None:
        targets = [f"{one}-{other}" for one, other in zip(plus, minus, strict=True)]
    return Beginning(relevance, tuple(targets), float(each.sum()), float(sizes.sum()))


def _classes(written: Written) -> int:
    contract = written.contract
    assert written.score.shape is not None
    sizes = dims_of(written.score.shape)
    axis = 1
    if contract.at:
        axis = read_place(contract.at, sizes, _class_axis(written)).axis or 0
    found = len(contract.signs) or (sizes[axis] if 0 < axis < len(sizes) else 1)
    assert isinstance(found, int)
    return found


def _class_axis(written: Written) -> int | None:
    return int(written.contract.class_axis) if written.contract.class_axis else None


def _place(written: Written, score: Array) -> tuple[int | None, tuple[slice, ...]]:
    """Return the class axis of a score, and a slice of each of its axes."""
    if not written.contract.at:
        return (1 if score.ndim > 1 else None), ()
    place = read_place(written.contract.at, score.shape, _class_axis(written))
    return place.axis, place.slices(score.ndim)


def _signed(written: Written, score: Array) -> Array:
    """Return the score of each class in float64, where one logit stands for both."""
    wide = score.astype(np.float64)
    signs = written.contract.signs
    return wide.reshape(len(wide), 1) * np.array(signs) if signs else wide


def _totals(written: Written, score: Array) -> Array:
    """Return the score of each class, summed over the places that count, [N, classes]."""
    axis, places = _place(written, score)
    part = _signed(written, score)[places]
    moved = part[:, None] if axis is None else np.moveaxis(part, axis, 1)
    totals: Array = moved.reshape(*moved.shape[:2], -1).sum(axis=2)
    return totals


def _numbers(target: int | Difference, totals: Array) -> tuple[Array, Array | None]:
    """Return each sample's class, and the one that is subtracted."""
    top = totals.argmax(axis=1)

    def number(wanted: int) -> Array:
        return top if wanted == TOP else np.full(len(totals), wanted)

    if isinstance(target, Difference):
        return number(target.plus), number(target.minus)
    return number(target), None
