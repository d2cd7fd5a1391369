"""Draw relevance as what it is of: a picture, a signal or a table's row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from onnxlrp.drawing.bars import bars
from onnxlrp.drawing.chart import signal
from onnxlrp.drawing.default_colours import DEFAULT_COLOURS
from onnxlrp.drawing.heatmap import enlarging
from onnxlrp.drawing.sheet import side_by_side
from onnxlrp.errors import InputError
from onnxlrp.inputs.preprocessing import Layout, Preprocessing


def sheet(
    relevance: NDArray[Any],
    values: NDArray[Any],
    picture: Image.Image | None,
    layout: Layout = "NCHW",
    *,
    title: str,
    names: Sequence[str] | None = None,
    colours: str = DEFAULT_COLOURS,
    full: float | None = None,
) -> Image.Image:
    """Draw relevance beside what it is of, under a title.

    Parameters
    ----------
    relevance, values : of one sample in the model's input shape: a picture, [C, H, W] or
        [H, W, C], a signal, [C, L], or a table's row, [F]
    picture : what the model saw, H x W pixels or a multiple; a map without it stands alone
    layout : where a picture's channel axis is
    title : the heading
    names : of the features of a table's row; their numbers if None
    colours : a name that `onnxlrp.drawing.colours` knows
    full : relevance at which colours are full, of a row that of the longest bar; the 99.9th
        percentile, or the largest, if None

    Raises
    ------
    InputError
        Nothing can be drawn of that many axes, or the colours are unknown.

    """
    if relevance.ndim == 3:
        return side_by_side(relevance, picture, layout, title=title, colours=colours, full=full)
    if relevance.ndim == 2:
        return signal(relevance, values, title=title, colours=colours, full=full)
    if relevance.ndim == 1:
        return bars(relevance, values, title=title, names=names, colours=colours, full=full)
    raise InputError(
        f"an input with {relevance.ndim} axes besides the batch cannot be drawn: pictures have 3, "
        "signals 2, rows of a table 1"
    )


def seen(preprocessing: Preprocessing, picture: Image.Image) -> Image.Image:
    """Cut out what the model saw of a picture, in as many pixels as its heatmap is drawn with."""
    size = preprocessing.crop_of(picture).size
    return preprocessing.crop_of(picture, enlarging(size))
