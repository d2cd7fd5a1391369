"""Replace pixels by what their neighbours suggest."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray


def inpainted(values: NDArray[np.float32], gone: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return a picture in which every pixel that is gone is the weighted mean of its neighbours.

    The four beside it weigh twice what the four diagonal ones do, and neighbours that are gone
    count with what they become: a linear system (Rong et al. 2022, ROAD, section 4.3, without the
    noise added there). Where all pixels are gone, they become the mean.

    Parameters
    ----------
    values : [H, W, C]
    gone : [H, W]

    """
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import spsolve

    if gone.all():
        return np.broadcast_to(values.mean(axis=(0, 1)), values.shape).copy()
    height, width = gone.shape
    rows, columns = np.nonzero(gone)
    number = np.full(gone.shape, -1)
    number[rows, columns] = np.arange(len(rows))
    diagonal = np.zeros(len(rows))
    known = np.zeros((len(rows), values.shape[2]))
    each = np.arange(len(rows))
    entries: list[NDArray[np.float64]] = []
    for down, right in product((-1, 0, 1), repeat=2):
        if down == right == 0:
            continue
        weight = 1.0 if down and right else 2.0
        y, x = rows + down, columns + right
        here = np.nonzero((y >= 0) & (y < height) & (x >= 0) & (x < width))[0]
        y, x = y[here], x[here]
        diagonal[here] += weight
        missing = gone[y, x]
        known[here[~missing]] += weight * values[y[~missing], x[~missing]]
        between = number[y, x][missing]
        entries.append(np.stack([np.full(len(between), -weight), here[missing], between]))
    entries.append(np.stack([diagonal, each, each]))
    weights, *places = np.concatenate(entries, axis=1)
    system = coo_array((weights, tuple(np.asarray(places, int))), shape=2 * (len(rows),)).tocsc()
    out = values.copy()
    out[rows, columns] = spsolve(system, known).reshape(known.shape)
    return out
