"""Numbers that judge one heatmap, by the literature's names."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxlrp.errors import InputError


def summed(relevance: NDArray[Any], size: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the relevance of each pixel of (height, width): the sum over channels.

    Parameters
    ----------
    relevance : [H, W], [C, H, W] or [H, W, C]
    size : H and W

    Raises
    ------
    InputError
        It is none of these.

    """
    for axes in ((), (0,), (-1,)):
        if relevance.ndim == 2 + len(axes):
            found: NDArray[np.float64] = relevance.sum(axis=axes, dtype=np.float64)
            if found.shape == size:
                return found
    raise InputError(f"a map {list(relevance.shape)} for a picture of {size[0]}x{size[1]} pixels")


def sparseness(relevance: NDArray[Any]) -> float:
    """Return the Gini index of |relevance|: 0 if all are equal, towards 1 if few have all.

    Chalasani et al. 2020, section 5. Of a map of zeros it is 0.
    """
    sizes = np.sort(np.abs(relevance.astype(np.float64)).ravel())
    total = sizes.sum()
    if total == 0:
        return 0.0
    count = len(sizes)
    return float(1 - 2 * (sizes / total * (count - np.arange(1, count + 1) + 0.5)).sum() / count)


def complexity(relevance: NDArray[Any]) -> float:
    """Return the entropy of |relevance| / sum |relevance|, in nats (Bhatt et al. 2020, eq. 4).

    Of a map of zeros it is 0.
    """
    sizes = np.abs(relevance.astype(np.float64)).ravel()
    total = sizes.sum()
    if total == 0:
        return 0.0
    parts = sizes[sizes > 0] / total
    return float(-(parts * np.log(parts)).sum())


def mass_accuracy(relevance: NDArray[Any], mask: NDArray[Any]) -> float:
    """Return the share of positive relevance inside a mask (Arras et al. 2022, section 3.3).

    Parameters
    ----------
    relevance : [H, W]
    mask : [H, W], true inside

    Raises
    ------
    InputError
        The shapes differ, or nothing is inside.

    """
    inside = _inside(relevance, mask)
    positive = np.maximum(relevance.astype(np.float64), 0)
    total = positive.sum()
    return float(positive[inside].sum() / total) if total else 0.0


def rank_accuracy(relevance: NDArray[Any], mask: NDArray[Any]) -> float:
    """Return how many of the K most relevant pixels lie inside a mask of K (Arras et al. 2022).

    Of equal ones the first in row-major order counts as more relevant.

    Raises
    ------
    InputError
        As for `mass_accuracy`.

    """
    inside = _inside(relevance, mask).ravel()
    count = int(inside.sum())
    strongest = np.argsort(-relevance.astype(np.float64).ravel(), kind="stable")[:count]
    return float(inside[strongest].mean())


def box_mask(box: NDArray[Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask of a box in a picture of (height, width).

    Parameters
    ----------
    box : left, top, right, bottom in pixels, of which the last two are outside
    size : of the picture that the model sees, [height, width]

    """
    left, top, right, bottom = box
    rows, columns = (np.arange(n) for n in size)
    mask: NDArray[np.bool_] = np.logical_and.outer(
        (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
    )
    return mask


def _inside(relevance: NDArray[Any], mask: NDArray[Any]) -> NDArray[np.bool_]:
    if mask.shape != relevance.shape:
        raise InputError(f"a mask {list(mask.shape)} for relevance {list(relevance.shape)}")
    if not np.isfinite(mask).all() or not mask.any():
        raise InputError("nothing is inside its mask or box, or it holds NaN or infinity")
    return mask.astype(bool)
