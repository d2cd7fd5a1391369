"""A text with coloured tokens as a picture: lines broken, either direction of writing."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any, NamedTuple

from numpy.typing import NDArray
from PIL import Image, ImageDraw

from onnxlrp.drawing.default_colours import DEFAULT_COLOURS
from onnxlrp.drawing.sentence import Piece, aside, full_scale, ink_on, leftward, pieces, shade
from onnxlrp.drawing.sheet import (
    FAINT,
    INK,
    LINE,
    MARGIN,
    font,
    legible,
    scale_of_colours,
    wrapped,
)
from onnxlrp.inputs.text import Tokens

WIDTH = 800
LETTERS = 20
LEADING = 32
MOST_LINES = 1000
"""Of one picture; longer texts end in an ellipsis."""


class Part(NamedTuple):
    """Letters of one piece, within one word."""

    text: str
    piece: Piece

    @property
    def width(self) -> float:
        """In pixels."""
        return _width(self.text)


@lru_cache(4096)
def _width(text: str) -> float:
    return float(font(LETTERS).getlength(text))


Word = list[Part]


def sentence(
    tokens: Tokens,
    relevance: NDArray[Any],
    *,
    title: str,
    padding: float = 0.0,
    colours: str = DEFAULT_COLOURS,
    full: float | None = None,
) -> Image.Image:
    """Draw a text, each token on its colour, under a title and over the scale of colours.

    Signs that the font lacks are written by their codes. Hebrew and Arabic run from right to
    left; their letters are not joined from one token to the next.

    Parameters
    ----------
    tokens, relevance, title, padding, colours, full
        as for `onnxlrp.drawing.sentence.page`

    """
    key = "largest of a token" if full is None else "shared scale"
    full = full_scale(tokens, relevance) if full is None else full
    shown = pieces(tokens, relevance)
    turned = leftward(tokens.text)
    lines = list(_lines(_words(shown), WIDTH))
    if len(lines) > MOST_LINES:
        lines = [*lines[:MOST_LINES], [[Part("…", Piece("…", None))]]]
    heading, notes = wrapped(title, WIDTH), wrapped(aside(tokens, relevance, padding), WIDTH)
    top = MARGIN + LINE * len(heading) + MARGIN // 2
    under = top + LEADING * len(lines) + MARGIN // 2
    foot = scale_of_colours(colours, f"±{full:.3g} ({key})", WIDTH)
    height = under + LINE * len(notes) + MARGIN // 2 + foot.height + MARGIN // 2
    out = Image.new("RGB", (WIDTH + 2 * MARGIN, height), "white")
    pen = ImageDraw.Draw(out)
    zero = shade(0.0, 1.0, colours)
    if sum(zero) < 3 * 128:
        pen.rectangle((0, top - 2, out.width, under - MARGIN // 2), zero)
    for number, line in enumerate(heading):
        pen.text((MARGIN, MARGIN // 2 + number * LINE), line, INK, font(), anchor="la")
    for number, line in enumerate(notes):
        pen.text((MARGIN, under + number * LINE), line, FAINT, font(), anchor="la")
    for number, words in enumerate(lines):
        x = float(MARGIN)
        if turned:
            x += WIDTH - sum(part.width for word in words for part in word)
        for word in _seen(words, turned):
            for part in word:
                _draw(pen, part, (x, top + number * LEADING), full, colours)
                x += part.width
    out.paste(foot, (MARGIN, height - foot.height - MARGIN // 2))
    return out


def _draw(
    pen: ImageDraw.ImageDraw, part: Part, at: tuple[float, float], full: float, colours: str
) -> None:
    piece, (x, y) = part.piece, at
    if piece.relevance is None and part.text.isspace():
        return
    ground = shade(0.0, 1.0, colours)
    if piece.relevance is not None and not piece.special:
        ground = shade(piece.relevance, full, colours)
        pen.rectangle((round(x), y, round(x + part.width) - 1, y + LEADING - 5), ground)
    ink = FAINT if piece.special else ink_on(ground)
    pen.text((x, y + LEADING - 10), part.text, ink, font(LETTERS), anchor="ls")


def _words(shown: Iterable[Piece]) -> Iterator[Word]:
    """Cut pieces into what a line may break between: words, blanks, and single wide signs.

    The end of a line of the text is an empty word.
    """
    word: Word = []
    before = ""
    for piece in shown:
        for kind, signs in groupby(piece.text, _kind):
            for text in [*signs] if kind == "wide" else ["".join(signs)]:
                if word and (kind != before or kind == "wide"):
                    yield word
                    word = []
                before = kind
                if kind == "end":
                    yield from ([] for _ in text)
                else:
                    word.append(Part(legible(text.replace("\t", "    ")), piece))
    if word:
        yield word


def _kind(sign: str) -> str:
    if sign == "\n":
        return "end"
    if sign.isspace() and sign != "\u00a0":
        return "blank"
    # Chinese and Japanese have no blanks to break lines at.
    return "wide" if unicodedata.east_asian_width(sign) in "WF" else "word"


def _lines(words: Iterable[Word], width: float) -> Iterator[list[Word]]:
    """Fill lines of so many pixels; a word that is longer than a line is broken anywhere."""
    line: list[Word] = []
    left = width
    for word in words:
        if not word:
            yield line
            line, left = [], width
            continue
        needed = sum(part.width for part in word)
        blank = word[0].text.isspace()
        if needed > left and line and not (needed > width and not blank):
            yield line
            line, left = [], width
        if blank and (not line or needed > left):
            continue
        if needed <= left:
            line.append(word)
            left -= needed
            continue
        for sign in (Part(sign, part.piece) for part in word for sign in part.text):
            if sign.width > left:
                yield line
                line, left = [], width
            line.append([sign])
            left -= sign.width
    if line:
        yield line


def _seen(words: Sequence[Word], from_right: bool) -> list[Word]:
    """Put a line's words into the order they are seen in, from the left (cf. Unicode's UAX 9).

    Runs against the direction of the text are turned; so are parts of words from right to left.
    """
    turned: list[Word] = []
    run: list[Word] = []
    blanks: list[Word] = []
    for word in words:
        text = "".join(part.text for part in word)
        ordered = word[::-1] if leftward(text) else word
        if leftward(text, from_right) != from_right:
            run += [*blanks, ordered]
            blanks = []
        elif run and text.isspace():
            # Blanks inside a run turn with it, those behind it do not.
            blanks.append(word)
        else:
            turned += [*run[::-1], *blanks, ordered]
            run, blanks = [], []
    turned += [*run[::-1], *blanks]
    return turned[::-1] if from_right else turned
