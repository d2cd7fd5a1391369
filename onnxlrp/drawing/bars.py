"""Relevance of a table's row: the strongest features as bars, and in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from onnxlrp.drawing.chart import check
from onnxlrp.drawing.colours import coloured
from onnxlrp.drawing.default_colours import DEFAULT_COLOURS
from onnxlrp.drawing.sheet import FAINT, INK, LINE, MARGIN, font, legible, shortened, wrapped

FEATURES = 20
WIDTH = 800
STEP = 24
LETTERS = 20
"""Of a value that is a text so many are shown."""
WORDS = 380
"""Pixels that names and values take at most."""


def bars(
    relevance: NDArray[Any],
    values: NDArray[Any],
    *,
    title: str,
    names: Sequence[str] | None = None,
    colours: str = DEFAULT_COLOURS,
    full: float | None = None,
) -> Image.Image:
    """Draw the strongest features as bars, the strongest on top, and the rest as one.

    What speaks for the class is to the right.

    Parameters
    ----------
    relevance, values : [F], numbers, or texts that are categories; of more than 20 features the
        others are one bar, their sum
    title : the heading
    names : of the features; their numbers if None
    colours : as for `onnxlrp.drawing.heatmap.heatmap`
    full : relevance of the longest bar; the largest here if None

    Raises
    ------
    InputError
        The arrays have other axes, or relevance holds NaN or infinity.

    """
    check(relevance, values, 1)
    found = strongest(relevance, values, names)
    lengths = [length for *_, length in found]
    words = [(name, value) for name, value, _ in found]
    numbers = [f"{length:+.3g}" if length else "0" for length in lengths]
    left = round(max(_width(legible(name) + value) for name, value in words)) + 1
    left = MARGIN + min(left, WORDS)
    # A number stands beyond the end of each bar, on either side.
    beside = max(map(_width, numbers)) + MARGIN
    low, high = (
        (min(0.0, *lengths, 0.0), max(0.0, *lengths, 0.0)) if full is None else (-full, full)
    )
    start = left + MARGIN + (beside if low else 0)
    scale = (MARGIN + WIDTH - beside * bool(high) - start) / ((high - low) or 1.0)
    zero = start - low * scale
    heading = wrapped(title, WIDTH)
    top = MARGIN + LINE * len(heading)
    bottom = top + STEP * len(lengths)
    out = Image.new("RGB", (WIDTH + 2 * MARGIN, bottom + LINE + MARGIN), "white")
    pen = ImageDraw.Draw(out)
    for number, line in enumerate(heading):
        pen.text((MARGIN, MARGIN // 2 + number * LINE), line, INK, font(), anchor="la")
    against, speaks_for = (
        tuple(map(int, one)) for one in coloured(np.array([-0.76, 0.76]), colours)
    )
    for number, (length, (name, value)) in enumerate(zip(lengths, words, strict=True)):
        middle = top + number * STEP + STEP // 2
        other = number == FEATURES
        ink = FAINT if other else INK
        said = shortened(name, round(left - MARGIN - _width(value)) + 1) + value
        pen.text((left, middle), said, ink, font(), anchor="rm")
        end = zero + length * scale
        colour = speaks_for if length > 0 else against
        if other:
            # Paler: no bar like the others, and its parts may cancel.
            colour = tuple((part + 255) // 2 for part in colour)
        if length:
            box = (round(min(zero, end)), middle - 8, round(max(zero, end)), middle + 8)
            pen.rectangle(box, colour)
        beyond, anchor = (end + 6, "lm") if length >= 0 else (end - 6, "rm")
        pen.text((beyond, middle), numbers[number], ink, font(), anchor=anchor)
    pen.line((round(zero), top, round(zero), bottom), INK)
    foot = "relevance: to the right for it, to the left against it"
    pen.text((MARGIN + WIDTH, bottom + 4), foot, FAINT, font(), anchor="ra")
    return out


def strongest(
    relevance: NDArray[Any],
    values: NDArray[Any],
    names: Sequence[str] | None = None,
    most: int = FEATURES,
) -> list[tuple[str, str, float]]:
    """Return name, value and relevance of so many features, strongest first, and the others' sum.

    The value is in words, such as ` = 3`, and that of the others "".
    """
    lengths = _lengths(relevance, most)
    shown, rest = np.split(_ranked(relevance), [most])
    words = [_named(names, index, values[index]) for index in shown]
    if len(rest):
        words.append((f"sum of the other {len(rest)}", ""))
    return [(*said, length) for said, length in zip(words, lengths, strict=True)]


def longest(relevance: NDArray[Any]) -> float:
    """Return the relevance of the longest bar."""
    return max(map(abs, _lengths(relevance)), default=0.0)


def in_words(
    relevance: NDArray[Any],
    values: NDArray[Any],
    names: Sequence[str] | None = None,
    most: int = 5,
) -> str:
    """Name the features that speak most for the class and most against it, strongest first."""
    ranked = [index for index in _ranked(relevance) if relevance[index]]
    said = []
    for kind, sign in (("for", 1), ("against", -1)):
        of_kind = [index for index in ranked if relevance[index] * sign > 0][:most]
        listed = ", ".join(
            f"{''.join(_named(names, index, values[index]))} {relevance[index]:+.3g}"
            for index in of_kind
        )
        said += [f"{kind}: {listed}"] if listed else []
    return "; ".join(said)


def _lengths(relevance: NDArray[Any], most: int = FEATURES) -> list[float]:
    """Return the relevance of each bar; of more features than `most` the last is the others'."""
    order = _ranked(relevance)
    found = [float(relevance[index]) for index in order[:most]]
    rest = relevance[order[most:]]
    return [*found, float(rest.sum(dtype=np.float64))] if len(rest) else found


def _ranked(relevance: NDArray[Any]) -> NDArray[np.intp]:
    return np.argsort(-np.abs(relevance), kind="stable")


def _named(names: Sequence[str] | None, index: int, value: Any) -> tuple[str, str]:
    """Return what a feature is called, and its value."""
    name = f"feature {index}" if names is None else names[index]
    if isinstance(value, str):
        return name, f" = {value if len(value) <= LETTERS else value[:LETTERS] + '...'}"
    if np.isnan(value):
        return name, " is missing"
    # Adding takes the sign from zero.
    number = float(value) + 0.0
    whole = number.is_integer() and abs(number) < 1e7
    return name, f" = {number:.0f}" if whole else f" = {number:.4g}"


def _width(text: str) -> float:
    return float(font().getlength(text))
