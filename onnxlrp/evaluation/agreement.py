"""How much two relevance maps agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxlrp.errors import InputError

TOP = (0.01, 0.05)


def agreement(
    one: NDArray[Any], other: NDArray[Any], top: Sequence[float] = TOP
) -> dict[str, float]:
    """Compare two maps of one sample, entry by entry.

    Parameters
    ----------
    one : floating, the map that the other is measured against
    other : floating, of the same shape
    top : shares of the entries, for the intersections of the strongest

    Returns
    -------
    `pearson`, `spearman`, `cosine`
        -1 to 1. Two maps of which one is constant (for cosine: zero) correlate by 1 if they are
        equal, else by 0
    `relative L2`
        ||other - one|| / ||one||; 0 if both are zero, infinite if only `one` is
    `relative max`
        max |other - one| / max |one|, likewise
    `top 1%`, ...
        share of the entries with the largest |relevance| of one map that the other has among as
        many of its own; of equal ones the first in row-major order are taken
    `signs`
        share of the entries on whose sign the maps agree, among those where either is larger than
        a thousandth of its map's maximum; 1 if there are none

    Raises
    ------
    InputError
        The shapes differ, or a map holds NaN or infinity.

    """
    if one.shape != other.shape or one.size == 0:
        raise InputError(f"maps of {list(one.shape)} and {list(other.shape)} cannot be compared")
    a, b = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError("a map holds NaN or infinity")
    from scipy.stats import rankdata

    equal = bool((a == b).all())
    difference = b - a
    rank_a, rank_b = rankdata(a), rankdata(b)
    found = {
        "pearson": _cosine(a - a.mean(), b - b.mean(), equal),
        "spearman": _cosine(rank_a - rank_a.mean(), rank_b - rank_b.mean(), equal),
        "cosine": _cosine(a, b, equal),
        "relative L2": _ratio(float(np.linalg.norm(difference)), float(np.linalg.norm(a))),
        "relative max": _ratio(float(np.abs(difference).max()), float(np.abs(a).max())),
    }
    order_a, order_b = (np.argsort(-np.abs(map_), kind="stable") for map_ in (a, b))
    for share in top:
        count = max(1, round(share * a.size))
        common = np.intersect1d(order_a[:count], order_b[:count], assume_unique=True)
        found[f"top {100 * share:g}%"] = len(common) / count
    large = (np.abs(a) > 1e-3 * np.abs(a).max()) | (np.abs(b) > 1e-3 * np.abs(b).max())
    found["signs"] = float((np.sign(a) == np.sign(b))[large].mean()) if large.any() else 1.0
    return found


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64], equal: bool) -> float:
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(equal) if lengths == 0 else float(np.clip(a @ b / lengths, -1, 1))


def _ratio(part: float, whole: float) -> float:
    if whole == 0:
        return 0.0 if part == 0 else float("inf")
    return part / whole
