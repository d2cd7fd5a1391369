"""What relevance starts from: one score, a difference, a contrast, weights; at some places."""

from typing import Any

import numpy as np

from onnxlrp.reference.operators import Array


def start(
    logits: Array,
    target: Any = -1,
    minus: Any = None,
    weights: Any = None,
    contrast: str = "",
    class_axis: int | None = 1,
    places: tuple[slice, ...] = (),
) -> Array:
    """Return the relevance to start from, in the shape of the logits.

    Parameters
    ----------
    logits
        The scores, [N, C], or dense: with more axes of places.
    target
        The class to explain, or one per sample; -1 is the one whose scores have the largest sum.
    minus
        The class whose score is subtracted, likewise; None for none.
    weights
        [N, C] or [1, C], what multiplies all scores, in place of a class.
    contrast
        "others" (Gu et al. 2018) or "softmax" (Iwana et al. 2019).
    class_axis
        Where the classes lie; None where all axes but the batch's are places of a single one.
    places
        A slice for each axis: outside, relevance is 0.
    """
    inside = np.zeros(logits.shape, bool)
    inside[places] = True
    rows, held = (_rows(array, class_axis) for array in (logits.astype(np.float64), inside))
    totals = np.where(held, rows, 0).sum(axis=2)
    plus, other = (_classes(number, totals) for number in (target, minus))
    relevance = np.zeros_like(rows)
    for n, f in enumerate(rows):
        c, d = plus[n], None if minus is None else other[n]
        if weights is not None:
            relevance[n] = np.broadcast_to(weights, totals.shape)[n][:, None] * f
        elif contrast == "others":
            relevance[n] = -f[c] / (len(f) - 1)
            relevance[n, c] = f[c]
        elif contrast == "softmax":
            exponential = np.exp(f - f.max(axis=0))
            y = exponential / exponential.sum(axis=0)
            relevance[n] = -y[c] * y
            relevance[n, c] = y[c] * (1 - y[c])
        else:
            relevance[n, c] = f[c]
            if d is not None:
                relevance[n, d] -= f[d]
    kept = np.where(held, relevance, 0)
    if class_axis is None:
        return kept.reshape(logits.shape)
    moved = np.moveaxis(logits, class_axis, 1).shape
    return np.moveaxis(kept.reshape(moved), 1, class_axis)


def _rows(array: Array, class_axis: int | None) -> Array:
    """View an array as [N, classes, places]."""
    count = len(array)
    if class_axis is None:
        return array.reshape(count, 1, -1)
    moved = np.moveaxis(array, class_axis, 1)
    return moved.reshape(count, moved.shape[1], -1)


def _classes(target: Any, totals: Array) -> Array:
    """Return each sample's class, the best where -1 says so."""
    asked = np.broadcast_to(np.asarray(-1 if target is None else target).reshape(-1), len(totals))
    return np.where(asked < 0, totals.argmax(axis=1), asked).astype(np.int64)
