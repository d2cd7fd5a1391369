"""Sheets of several drawings with words: one map beside its picture, or a grid of many."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import get_data_path
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from onnxlrp.drawing.colours import coloured
from onnxlrp.drawing.heatmap import enlarged, full_scale, heatmap, overlay
from onnxlrp.errors import InputError
from onnxlrp.inputs.preprocessing import Layout

MARGIN = 12
TEXT = 14
LINE = 20
INK, FAINT = (20, 20, 20), (110, 110, 110)


def side_by_side(
    relevance: NDArray[Any],
    picture: Image.Image | None,
    layout: Layout = "NCHW",
    *,
    title: str,
    colours: str = "red-blue",
    full: float | None = None,
) -> Image.Image:
    """Draw the photograph, its heatmap, and both, under a title and over the scale of colours.

    Parameters
    ----------
    relevance, layout, colours, full : as for `onnxlrp.drawing.heatmap.heatmap`
    picture : as for `onnxlrp.drawing.heatmap.overlay`; the heatmap stands alone if None
    title : shortened where it does not fit

    Raises
    ------
    InputError
        As for `onnxlrp.drawing.heatmap.overlay`.

    """
    drawn = [heatmap(relevance, layout, colours=colours, full=full)]
    if picture is not None:
        over = overlay(relevance, picture, layout, colours=colours, full=full)
        drawn = [enlarged(np.asarray(picture.convert("RGB"))), *drawn, over]
    scale = full_scale(relevance, layout) if full is None else full
    said = "99.9th percentile" if full is None else "shared scale"
    panels = _joined(drawn)
    out = Image.new("RGB", (panels.width, panels.height + 2 * LINE + 3 * MARGIN), "white")
    pen = ImageDraw.Draw(out)
    pen.text(
        (MARGIN, MARGIN // 2), shortened(title, out.width - 2 * MARGIN), INK, _font(), anchor="la"
    )
    out.paste(panels, (0, LINE + MARGIN))
    top = panels.height + LINE + 2 * MARGIN
    words = f"±{scale:.3g} ({said})"
    bar = Image.fromarray(np.tile(coloured(np.linspace(-1, 1, 120), colours), (LINE - 6, 1, 1)))
    out.paste(bar, (MARGIN, top + 2))
    pen.text(
        (2 * MARGIN + bar.width, top),
        shortened(words, out.width - 160),
        FAINT,
        _font(),
        anchor="la",
    )
    return out


def grid(
    panels: Sequence[Sequence[Image.Image]],
    columns: Sequence[str],
    rows: Sequence[str] | None = None,
    title: str = "",
) -> Image.Image:
    """Lay drawings out in rows and columns of one size, with headings.

    Parameters
    ----------
    panels : by row; all enlarged or shrunk to the size of the first
    columns : a heading for each column
    rows : a caption under each row; none if None
    title : over all

    Raises
    ------
    InputError
        There are no panels, or rows of different lengths.

    """
    if not panels or {len(row) for row in panels} != {len(columns)}:
        raise InputError("a grid needs as many headings as every row has panels")
    width, height = panels[0][0].size
    words = [wrapped(heading, width - MARGIN) for heading in columns]
    head = LINE * max(len(lines) for lines in words) + MARGIN
    above = LINE + MARGIN if title else 0
    under = LINE + MARGIN if rows is not None else MARGIN // 2
    size = (
        len(columns) * (width + MARGIN) + MARGIN,
        above + head + len(panels) * (height + under),
    )
    out = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(out)
    if title:
        pen.text(
            (MARGIN, MARGIN // 2), shortened(title, size[0] - 2 * MARGIN), INK, _font(), anchor="la"
        )
    for column, lines in enumerate(words):
        left = MARGIN + column * (width + MARGIN)
        for index, line in enumerate(lines):
            pen.text((left, above + 4 + index * LINE), line, INK, _font(), anchor="la")
    for number, row in enumerate(panels):
        top = above + head + number * (height + under)
        for column, panel in enumerate(row):
            fitted = panel.convert("RGB")
            if fitted.size != (width, height):
                fitted = fitted.resize((width, height), Image.Resampling.NEAREST)
            out.paste(fitted, (MARGIN + column * (width + MARGIN), top))
        if rows is not None:
            caption = shortened(rows[number], size[0] - 2 * MARGIN)
            pen.text((MARGIN, top + height + 2), caption, FAINT, _font(), anchor="la")
    return out


def shortened(text: str, width: int) -> str:
    """Cut a text with an ellipsis to what fits in so many pixels."""
    text = _legible(text)
    if _font().getlength(text) <= width:
        return text
    while text and _font().getlength(text + "...") > width:
        text = text[:-1]
    return text.rstrip() + "..."


def wrapped(text: str, width: int) -> list[str]:
    """Break a text between words into lines of at most so many pixels."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _font().getlength(_legible(longer)) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return [shortened(line, width) for line in lines]


def _joined(drawn: Sequence[Image.Image]) -> Image.Image:
    out = Image.new(
        "RGB", (sum(d.width for d in drawn) + MARGIN * (len(drawn) - 1), drawn[0].height), "white"
    )
    left = 0
    for panel in drawn:
        out.paste(panel, (left, 0))
        left += panel.width + MARGIN
    return out


@cache
def _font() -> Any:
    # Pillow's own font lacks umlauts, Greek and Cyrillic.
    return ImageFont.truetype(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), TEXT)


@cache
def _missing() -> bytes:
    """Return what the font draws for a sign that it lacks."""
    return bytes(_font().getmask("\uffff"))


@cache
def _has(sign: str) -> bool:
    return sign.isspace() or bytes(_font().getmask(sign)) != _missing()


def _legible(text: str) -> str:
    """Write signs that the font lacks by their codes, U+6F22, instead of boxes."""
    return "".join(sign if _has(sign) else f"U+{ord(sign):04X} " for sign in text)
