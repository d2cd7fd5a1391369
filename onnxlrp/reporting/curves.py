"""A signal as a page draws it: its curves as one path, its relevance as stripes of colour."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxlrp.drawing.chart import CHANNELS, check
from onnxlrp.drawing.colours import coloured

COLUMNS = 360
"""Of longer signals several moments share a column."""
HEIGHT = 100


def curves(
    relevance: NDArray[Any], values: NDArray[Any], colours: str
) -> tuple[dict[str, Any], Image.Image]:
    """Draw the most relevant channels below each other.

    Parameters
    ----------
    relevance, values : [C, L]; of more than 8 channels those with the most |relevance| are drawn
    colours : a name that `onnxlrp.drawing.colours` knows

    Returns
    -------
    drawn
        `path`, of SVG, in units of which a column has 2 and a channel 100; where several moments
        share a column it goes from their least value to their greatest; `channels`, the number,
        least and greatest value of each; `of`, how many there are; `length`, L; `full`, max
        |relevance|, at which colours are full; `columns`
    stripes
        a row for each channel, a pixel for each column: its relevance, of several moments the
        strongest

    Raises
    ------
    InputError
        The arrays have other axes, or relevance holds NaN or infinity.

    """
    check(relevance, values, 2)
    length = relevance.shape[1]
    shown = np.sort(np.argsort(-np.abs(relevance).sum(axis=1), kind="stable")[:CHANNELS])
    full = float(np.abs(relevance).max())
    starts = np.linspace(0, length, min(length, COLUMNS), endpoint=False).astype(np.intp)
    found = np.nan_to_num(values[shown].astype(np.float64))
    low, high = found.min(axis=1), found.max(axis=1)
    ends = np.stack([np.minimum.reduceat(found, starts, 1), np.maximum.reduceat(found, starts, 1)])
    flat = (high == low)[:, None]
    heights = np.where(flat, 0.5, (ends - low[:, None]) / np.where(flat, 1, (high - low)[:, None]))
    # A tenth of the room is left above and below.
    lines = np.rint(HEIGHT * (np.arange(len(shown))[:, None] + 0.9 - 0.8 * heights)).astype(int)
    ends = np.stack(
        [
            np.minimum.reduceat(relevance[shown], starts, 1),
            np.maximum.reduceat(relevance[shown], starts, 1),
        ]
    )
    strongest = np.where(-ends[0] > ends[1], ends[0], ends[1])
    return {
        "path": "".join(_path(*channel) for channel in zip(*lines, strict=True)),
        "channels": [
            [int(channel), float(f"{a:.3g}"), float(f"{b:.3g}")]
            for channel, a, b in zip(shown, low, high, strict=True)
        ],
        "of": len(relevance),
        "length": length,
        "full": float(f"{full:.3g}"),
        "columns": len(starts),
    }, Image.fromarray(coloured(strongest / (full or 1.0), colours))


def _path(low: NDArray[Any], high: NDArray[Any]) -> str:
    points = [
        f"{2 * column + 1} {height}"
        for column, pair in enumerate(zip(low.tolist(), high.tolist(), strict=True))
        for height in dict.fromkeys(pair)
    ]
    return "M" + " ".join(points)
