"""Sheets of several drawings with words: one map beside its picture, or a grid of many."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from onnxlrp.drawing.colours import coloured
from onnxlrp.drawing.default_colours import DEFAULT_COLOURS
from onnxlrp.drawing.heatmap import enlarged, full_scale, heatmap, overlay
from onnxlrp.errors import InputError
from onnxlrp.inputs.preprocessing import Layout

MARGIN = 12
TEXT = 14
LINE = 20
BAR = 120
INK, FAINT = (20, 20, 20), (110, 110, 110)


def side_by_side(
    relevance: NDArray[Any],
    picture: Image.Image | None,
    layout: Layout = "NCHW",
    *,
    title: str,
    colours: str = DEFAULT_COLOURS,
    full: float | None = None,
) -> Image.Image:
    """Draw the photograph, its heatmap, and both, under headings and over the scale of colours.

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
    scale = full_scale(relevance, layout) if full is None else full
    drawn = {"relevance": heatmap(relevance, layout, colours=colours, full=scale)}
    if picture is not None:
        drawn = {
            "photograph": enlarged(np.asarray(picture.convert("RGB"))),
            **drawn,
            "both": overlay(relevance, picture, layout, colours=colours, full=scale),
        }
    said = "99.9th percentile" if full is None else "shared scale"
    key = colours, f"±{scale:.3g} ({said})"
    return grid([[*drawn.values()]], [*drawn], title=title, key=key)


def grid(
    panels: Sequence[Sequence[Image.Image]],
    columns: Sequence[str],
    rows: Sequence[str] | None = None,
    title: str = "",
    *,
    key: tuple[str, str] | None = None,
) -> Image.Image:
    """Lay drawings out in rows and columns of one size, with headings.

    Parameters
    ----------
    panels : by row; all enlarged or shrunk to the size of the first
    columns : a heading for each column
    rows : a caption under each row; none if None
    title : over all, shortened where it does not fit
    key : colours, whose scale is drawn below all, and what is said beside it; none if None

    Raises
    ------
    InputError
        There are no panels, rows of different lengths, or the colours are unknown.

    """
    if not panels or {len(row) for row in panels} != {len(columns)}:
        raise InputError("a grid needs as many headings as every row has panels")
    width, height = panels[0][0].size
    whole = len(columns) * (width + MARGIN) - MARGIN
    words = [wrapped(heading, width) for heading in columns]
    captions = [wrapped(caption, whole) for caption in rows or [""] * len(panels)]
    above = LINE + MARGIN // 2 if title else 0
    head = LINE * max(len(lines) for lines in words) + MARGIN // 2
    under = LINE * max(len(lines) for lines in captions) + MARGIN
    foot = None if key is None else scale_of_colours(*key, whole)
    size = (
        whole + 2 * MARGIN,
        above + head + len(panels) * (height + under) + (foot.height + MARGIN // 2 if foot else 0),
    )
    out = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(out)

    def say(lines: Sequence[str], left: int, top: int, colour: tuple[int, int, int]) -> None:
        for index, line in enumerate(lines):
            pen.text((left, top + index * LINE), line, colour, font(), anchor="la")

    say([shortened(title, whole)], MARGIN, MARGIN // 2, INK)
    for column, lines in enumerate(words):
        say(lines, MARGIN + column * (width + MARGIN), above + 4, INK)
    for number, row in enumerate(panels):
        top = above + head + number * (height + under)
        for column, panel in enumerate(row):
            fitted = panel.convert("RGB")
            if fitted.size != (width, height):
                fitted = fitted.resize((width, height), Image.Resampling.NEAREST)
            out.paste(fitted, (MARGIN + column * (width + MARGIN), top))
        say(captions[number], MARGIN, top + height + 2, FAINT)
    if foot:
        out.paste(foot, (MARGIN, size[1] - foot.height - MARGIN // 2))
    return out


def scale_of_colours(colours: str, words: str, width: int) -> Image.Image:
    """Draw the scale of colours between what its ends speak for, and words beside or below it."""
    against, for_ = "against ", " for"
    start = round(font().getlength(against))
    end = start + BAR + round(font().getlength(for_)) + MARGIN
    beside = end + font().getlength(words) <= width
    out = Image.new("RGB", (width, LINE if beside else 2 * LINE), "white")
    pen = ImageDraw.Draw(out)
    pen.text((0, 0), against, INK, font(), anchor="la")
    bar = np.tile(coloured(np.linspace(-1, 1, BAR), colours), (LINE - 6, 1, 1))
    out.paste(Image.fromarray(bar), (start, 2))
    pen.text((start + BAR, 0), for_, INK, font(), anchor="la")
    at = (end, 0) if beside else (0, LINE)
    pen.text(at, shortened(words, width - at[0]), FAINT, font(), anchor="la")
    return out


def shortened(text: str, width: int) -> str:
    """Cut a text with an ellipsis to what fits in so many pixels."""
    text = legible(text)
    if font().getlength(text) <= width:
        return text
    while text and font().getlength(text + "...") > width:
        text = text[:-1]
    return text.rstrip() + "..."


def wrapped(text: str, width: int) -> list[str]:
    """Break a text between words into lines of at most so many pixels."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font().getlength(legible(longer)) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return [shortened(line, width) for line in lines]


@cache
def font(size: int = TEXT) -> Any:
    """Load the font of all words, for letters of so many pixels."""
    # Not above: whoever only keeps arrays imports this file, too.
    from matplotlib import get_data_path

    # Pillow's own font lacks umlauts, Greek and Cyrillic.
    return ImageFont.truetype(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)


@cache
def _missing() -> bytes:
    """Return what the font draws for a sign that it lacks."""
    return bytes(font().getmask("\uffff"))


@cache
def _has(sign: str) -> bool:
    return sign.isspace() or bytes(font().getmask(sign)) != _missing()


def legible(text: str) -> str:
    """Write signs that the font lacks by their codes, U+6F22, instead of boxes, on one line."""
    # At a break within a line raqm fails.
    line = " ".join(text.splitlines())
    return "".join(sign if _has(sign) else f"U+{ord(sign):04X} " for sign in line)
