"""Relevance of a text's tokens: what is coloured of it, and how strongly, and that as HTML."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnxlrp.drawing.colours import coloured
from onnxlrp.drawing.default_colours import DEFAULT_COLOURS
from onnxlrp.errors import InputError
from onnxlrp.inputs.text import Tokens, Word, attached

WEAK = 0.05
"""Words with less of the strongest one's relevance are not named."""

PLAIN, TINTED = 0.15, 0.5
"""On a terminal weaker relevance is not coloured, and weaker than the second colours letters."""

Colour = tuple[int, int, int]

# What no document may hold; lines and tabs stay.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff\ud800-\udfff]")

_PAGE = """<!doctype html>
<html>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 50em; margin: 2em auto; padding: 0 1em;
  color: #141414; background: white; color-scheme: light }}
h1 {{ font-size: 1em }}
.text {{ font-size: 1.2em; line-height: 1.7; white-space: pre-wrap; overflow-wrap: anywhere;
  padding: .4em; color: {ink}; background: {zero} }}
.special {{ opacity: .5; font-size: .75em }}
.note {{ font-size: .85em; color: #6e6e6e }}
.scale {{ display: inline-block; width: 8em; height: .8em; margin: 0 .5em;
  background: linear-gradient(90deg, {gradient}) }}
</style>
<h1 dir="auto">{title}</h1>
<p class="text" dir="{direction}">{body}</p>
<p class="note">{note}</p>
<p class="note">against<span class="scale"></span>for · ±{full:.3g}</p>
</html>
"""


class Piece(NamedTuple):
    """A part of a text that has one colour.

    Attributes
    ----------
    text : as it stands in the text; of a special token its name
    relevance : of the tokens that it is of; None between tokens
    special : whether the tokenizer put it there
    told : the tokens and what they got, in words

    """

    text: str
    relevance: float | None
    special: bool = False
    told: str = ""


def pieces(tokens: Tokens, relevance: NDArray[Any]) -> list[Piece]:
    """Cut a text into what its tokens stand for and what is between them.

    Tokens that stand for the same characters, such as the bytes of an emoji, are one piece; an
    accent is of one piece with its letter.

    Parameters
    ----------
    tokens : T of them
    relevance : floating [T]

    Raises
    ------
    InputError
        There is not one relevance for each token, or it is NaN or infinite.

    """
    if relevance.shape != (len(tokens),) or not np.isfinite(relevance).all():
        raise InputError("the relevance of a text is one finite number for each of its tokens")
    found: list[Piece] = []
    end = 0
    for token, amount, special, (start, stop) in zip(
        tokens.pieces,
        relevance.tolist(),
        tokens.special.tolist(),
        tokens.offsets.tolist(),
        strict=True,
    ):
        told = f"{token} {amount:+.3g}"
        if special:
            if found and not found[-1].text[-1:].isspace():
                found.append(Piece(" ", None))
            found += [Piece(token, amount, True, told), Piece(" ", None)]
            continue
        last = found[-1] if found else None
        new = tokens.text[max(start, end) : stop]
        joined = not new or (start <= end and attached(new))
        if joined and last is not None and last.relevance is not None:
            found[-1] = Piece(
                last.text + new, last.relevance + amount, False, f"{last.told}, {told}"
            )
            end = max(end, stop)
            continue
        if start > end:
            found.append(Piece(tokens.text[end:start], None))
        found.append(Piece(new, amount, False, told))
        end = max(end, stop)
    if tokens.cut:
        found.append(Piece(" …", None))
    elif end < len(tokens.text):
        found.append(Piece(tokens.text[end:], None))
    return found


def full_scale(tokens: Tokens, relevance: NDArray[Any]) -> float:
    """Return the largest |relevance| of a piece; special tokens count where there are no others."""
    found = [piece for piece in pieces(tokens, relevance) if piece.relevance is not None]
    inside = [piece for piece in found if not piece.special] or found
    return max((abs(piece.relevance or 0.0) for piece in inside), default=0.0)


def aside(tokens: Tokens, relevance: NDArray[Any], padding: float = 0.0) -> str:
    """Say what no word got: special tokens, and the padding, if it got anything."""
    said = [
        f"{token} {amount:+.3g}"
        for token, amount, special in zip(
            tokens.pieces, relevance.tolist(), tokens.special.tolist(), strict=True
        )
        if special
    ]
    return ", ".join([*said, *([f"padding {padding:+.3g}"] if padding else [])])


def in_words(
    tokens: Tokens, relevance: NDArray[Any], most: int = 5, *, isolated: bool = False
) -> str:
    """Name the words that speak most for the class and most against it, strongest first.

    Parameters
    ----------
    tokens, relevance : as for `pieces`
    most : of each kind
    isolated : whether to add Unicode's isolates, which keep the numbers behind words that are
        written from right to left in their places

    """
    before, behind = ("\u2068", "\u2069") if isolated else ("", "")
    return "; ".join(
        f"{kind}: "
        + ", ".join(f"{before}{quoted(word.text)}{behind} {word.relevance:+.3g}" for word in words)
        for kind, words in zip(("for", "against"), loudest(tokens, relevance, most), strict=True)
        if words
    )


def loudest(
    tokens: Tokens, relevance: NDArray[Any], most: int = 5
) -> tuple[list[Word], list[Word]]:
    """Return the words that speak most for the class, and most against it, strongest first.

    Arguments are those of `in_words`.
    """
    ranked = sorted(tokens.words(relevance), key=lambda word: -abs(word.relevance))
    least = WEAK * abs(ranked[0].relevance) if ranked else 0.0
    ranked = [word for word in ranked if abs(word.relevance) >= least]
    return (
        [word for word in ranked if word.relevance > 0][:most],
        [word for word in ranked if word.relevance < 0][:most],
    )


def quoted(word: str) -> str:
    """Tell a comma that is a word from those between words."""
    return word if any(map(str.isalnum, word)) else f"'{word}'"


def leftward(text: str, otherwise: bool = False) -> bool:
    """Tell by its first letter whether a text is written from right to left."""
    found = (unicodedata.bidirectional(sign) for sign in text)
    first = next((direction for direction in found if direction in ("L", "R", "AL")), None)
    return otherwise if first is None else first != "L"


def shade(relevance: float, full: float, colours: str) -> Colour:
    """Look up the colour of relevance in units of `full`."""
    strength = np.clip(relevance / (full or 1.0), -1, 1)
    red, green, blue = coloured(np.array(strength), colours).tolist()
    return red, green, blue


def ink_on(ground: Colour) -> Colour:
    """Return black or white, whichever is easier to read on a ground."""
    # Rec. 709's weights on linear light; the contrast with either is equal at 0.18 (WCAG 2.1).
    light = np.dot([0.2126, 0.7152, 0.0722], (np.array(ground) / 255) ** 2.2)
    return (0, 0, 0) if light > 0.18 else (255, 255, 255)


def styles(
    tokens: Tokens,
    relevance: NDArray[Any],
    *,
    colours: str = DEFAULT_COLOURS,
    full: float | None = None,
) -> list[tuple[str, str]]:
    """Return parts of the text with rich's styles, on dark terminals as legible as on light ones.

    What is weak stays as it is, what is stronger has coloured letters, what is strong a coloured
    ground; special tokens are dim.

    Parameters
    ----------
    tokens, relevance : as for `pieces`
    colours : a name that `onnxlrp.drawing.colours` knows
    full : relevance at which colours are full; `full_scale` if None

    """
    full = full_scale(tokens, relevance) if full is None else full
    found = []
    for piece in pieces(tokens, relevance):
        style = "dim" if piece.special else ""
        strength = (piece.relevance or 0.0) / (full or 1.0)
        if not piece.special and abs(strength) >= TINTED:
            ground = shade(np.sign(strength) * (0.5 + 0.4 * abs(strength)), 1.0, colours)
            style = f"{_hex(ink_on(ground))} on {_hex(ground)}"
        elif not piece.special and abs(strength) >= PLAIN:
            style = _hex(shade(np.sign(strength) * 0.6, 1.0, colours))
        found.append((" ".join(piece.text.splitlines()) or " ", style))
    return found


def page(
    tokens: Tokens,
    relevance: NDArray[Any],
    *,
    title: str,
    padding: float = 0.0,
    colours: str = DEFAULT_COLOURS,
    full: float | None = None,
) -> str:
    """Write an HTML document that needs no other file: the text, each token on its colour.

    Parameters
    ----------
    tokens, relevance, colours, full : as for `styles`
    title : the heading
    padding : relevance that no token of the text got

    """
    full = full_scale(tokens, relevance) if full is None else full
    zero = shade(0.0, 1.0, colours)
    said = [in_words(tokens, relevance, isolated=True), aside(tokens, relevance, padding)]
    return _PAGE.format(
        title=_escaped(title),
        body="".join(_span(piece, full, colours) for piece in pieces(tokens, relevance)),
        note=_escaped("; ".join(filter(None, said))),
        direction="rtl" if leftward(tokens.text) else "ltr",
        ink=_hex(ink_on(zero)),
        zero=_hex(zero),
        gradient=", ".join(_hex(shade(step, 1.0, colours)) for step in np.linspace(-1, 1, 21)),
        full=full,
    )


def _span(piece: Piece, full: float, colours: str) -> str:
    text = _escaped(piece.text)
    if piece.relevance is None:
        return text
    told = f'title="{_escaped(piece.told)}"'
    if piece.special:
        return f'<span class="special" {told}>{text}</span>'
    ground = shade(piece.relevance, full, colours)
    style = f"background: {_hex(ground)}; color: {_hex(ink_on(ground))}"
    return f'<span {told} style="{style}">{text}</span>'


def _escaped(text: str) -> str:
    return escape(_CONTROLS.sub("\ufffd", text))


def _hex(colour: Sequence[int]) -> str:
    return "#" + "".join(f"{part:02x}" for part in colour)
