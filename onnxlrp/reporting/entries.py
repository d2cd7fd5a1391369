"""What a report says of each item: its maps, its scores, what speaks loudest."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxlrp.drawing import bars
from onnxlrp.drawing.heatmap import heatmap, overlay
from onnxlrp.drawing.panels import seen
from onnxlrp.drawing.sentence import WEAK, full_scale, loudest, pieces, quoted
from onnxlrp.errors import InputError
from onnxlrp.evaluation.agreement import agreement
from onnxlrp.inputs.preprocessing import Layout, Preprocessing
from onnxlrp.inputs.text import Tokens
from onnxlrp.reporting.curves import curves
from onnxlrp.running.explanation import Account, is_flat, top_regions
from onnxlrp.running.stream import Explained, Result

NEXT = 5
"""So many classes of an item are listed."""

LOUDEST = 3
FEATURES = 10
_BYTES = 36e6
_BYTES_PER_PIXEL = 0.22


@dataclass(frozen=True)
class Show:
    """How items are shown.

    Attributes
    ----------
    preprocessing : how pictures became the model's input; None where none did
    labels : names of the classes
    features : names of a table's; None where the model reads none
    logits : whether relevance adds up to the score, but for biases and stabiliser
    colours : a name that `onnxlrp.drawing.colours` knows
    side : pixels of a thumbnail's longer side

    """

    preprocessing: Preprocessing | None
    labels: Sequence[str] | None
    features: Sequence[str] | None
    logits: bool
    colours: str
    side: int

    @property
    def layout(self) -> Layout:
        """Where the channel axis of pictures is; NCHW where no preprocessing says so."""
        return "NCHW" if self.preprocessing is None else self.preprocessing.layout


def thumbnail_side(items: int, maps: int) -> int:
    """Return the longer side of a thumbnail with which so many items stay below 50 MB."""
    pixels = _BYTES / _BYTES_PER_PIXEL / max(1, items * (1 + maps))
    return int(min(224, max(64, math.isqrt(int(pixels)))))


def entry(results: Sequence[Result], show: Show, truth: int | None = None) -> dict[str, Any]:
    """Return what a report says of one item, in types that JSON has.

    Parameters
    ----------
    results : of the same item, by each explainer
    show : how
    truth : the class that it is of, if that is known

    Raises
    ------
    InputError
        A map holds NaN or infinity, or nothing can be drawn of an input of this rank.

    """
    first = results[0]
    aim = first.explained[0].aim
    scores = first.scores
    order = np.argsort(-scores, kind="stable")[:NEXT]
    maps = [_map(result, show) for result in results]
    shares = [one["share"] for one in maps if one["share"] is not None]
    return {
        "name": first.sample.item.name,
        "source": first.sample.item.source,
        "label": aim.in_words(show.labels, numbers=False),
        "target": aim.key,
        "quantity": aim.quantity,
        "score": _number(first.explained[0].score),
        "best": int(order[0]),
        "next": [
            {"label": _name(int(index), show.labels), "score": _number(scores[index])}
            for index in order
        ],
        "margin": _number(scores[order[0]] - scores[order[1]]) if len(order) > 1 else None,
        "truth": None if truth is None else _name(truth, show.labels),
        "right": None if truth is None else bool(order[0] == truth),
        "flat": is_flat(scores, show.logits),
        "picture": _photograph(first, show),
        "maps": maps,
        "astray": max((abs(share - 1) for share in shares), default=None),
        "disagreement": _disagreement([result.explained[0] for result in results], show),
    }


def _name(number: int, labels: Sequence[str] | None) -> str:
    return labels[number] if labels else f"class {number}"


def _number(value: float) -> float | None:
    """Shorten a number; None where it is NaN or infinite, for which JSON has no word."""
    return float(f"{value:.7g}") if math.isfinite(value) else None


def _map(result: Result, show: Show) -> dict[str, Any]:
    explained, values = result.explained[0], result.sample.values
    relevance = explained.relevance
    account = Account.of(
        explained.aim, explained.score, [relevance], show.logits, explained.padding
    )
    tokens = result.sample.tokens
    said: dict[str, Any] = {
        "share": None if account.share is None else _number(account.share),
        "relevance": _number(account.relevance),
        "doubt": account.doubt,
    }
    if tokens is not None:
        words = loudest(tokens, relevance, LOUDEST)
        for_, against = ([[quoted(w.text), _number(w.relevance)] for w in kind] for kind in words)
        return said | {"pieces": _pieces(tokens, explained), "for": for_, "against": against}
    if relevance.ndim == 3:
        return said | {"picture": _drawn(result, show), "regions": _regions(explained, show)}
    if relevance.ndim == 2:
        drawn, stripes = curves(relevance, values, show.colours)
        for_, against = _moments(relevance)
        return said | drawn | {"picture": embedded(stripes), "for": for_, "against": against}
    if relevance.ndim == 1:
        strongest = bars.strongest(relevance, values, show.features, FEATURES)
        return said | {"bars": [[*words, _number(length)] for *words, length in strongest]}
    raise InputError(
        f"an input with {relevance.ndim} axes besides the batch cannot be shown: pictures have 3, "
        "signals 2, rows of a table 1"
    )


def _pieces(tokens: Tokens, explained: Explained) -> list[list[Any]]:
    """Return a text's parts: what is written, its strength of -100..100 or None, what is told."""
    full = full_scale(tokens, explained.relevance) or 1.0
    return [
        [piece.text, None, piece.told]
        if piece.relevance is None or piece.special
        else [piece.text, round(100 * min(1, max(-1, piece.relevance / full))), piece.told]
        for piece in pieces(tokens, explained.relevance)
    ]


def _photograph(result: Result, show: Show) -> str:
    picture = result.sample.picture
    if picture is None or show.preprocessing is None or result.explained[0].relevance.ndim != 3:
        return ""
    return _thumbnail(seen(show.preprocessing, picture).convert("RGB"), show.side)


def _drawn(result: Result, show: Show) -> str:
    relevance, sample = result.explained[0].relevance, result.sample
    if sample.picture is None or show.preprocessing is None:
        return _thumbnail(heatmap(relevance, show.layout, colours=show.colours), show.side)
    photograph = seen(show.preprocessing, sample.picture)
    drawn = overlay(relevance, photograph, show.layout, colours=show.colours)
    return _thumbnail(drawn, show.side)


def _thumbnail(picture: Image.Image, side: int) -> str:
    if max(picture.size) > side:
        picture = picture.copy()
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return embedded(picture, quality=76, method=4)


def embedded(picture: Image.Image, **options: int) -> str:
    """Return a picture as an address that holds it; without loss where no quality is given."""
    file = io.BytesIO()
    picture.save(file, format="WEBP", **{"lossless": not options, **options})
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def _regions(explained: Explained, show: Show) -> list[dict[str, Any]]:
    """List where in a picture the strongest relevance is, with a box in parts of its sides."""
    pixels = _pixels(explained.relevance, show)
    height, width = pixels.shape
    side = max(1, min(height, width) // 8)
    return [
        {
            "text": f"rows {_span(found.row, side)}, columns {_span(found.column, side)}",
            "relevance": _number(found.relevance),
            "box": [found.row / height, found.column / width, side / height, side / width],
        }
        for found in top_regions(pixels, LOUDEST, side, side)
    ]


def _moments(relevance: NDArray[Any]) -> list[list[list[Any]]]:
    """Say in which windows of a signal, [C, L], the most is for the class, and most against it."""
    summed = relevance.sum(axis=0, dtype=np.float64)[None]
    width = max(1, summed.shape[1] // 16)
    found = [
        [
            (one.column, sign * one.relevance)
            for one in top_regions(sign * summed, LOUDEST, 1, width)
        ]
        for sign in (1, -1)
    ]
    least = WEAK * max((abs(amount) for kind in found for _, amount in kind), default=0.0)
    return [
        [[_span(start, width), _number(amount)] for start, amount in kind if abs(amount) >= least]
        for kind in found
    ]


def _span(start: int, length: int) -> str:
    return f"{start}–{start + length - 1}" if length > 1 else f"{start}"


def _pixels(relevance: NDArray[Any], show: Show) -> NDArray[np.float64]:
    """Sum a picture's relevance over its channels, [H, W]."""
    summed: NDArray[np.float64] = relevance.sum(
        axis=0 if show.layout == "NCHW" else 2, dtype=np.float64
    )
    return summed


def _disagreement(maps: Sequence[Explained], show: Show) -> float | None:
    """Return 1 less the smallest rank correlation of two maps; None of a single one."""
    seen_maps = [
        _pixels(one.relevance, show) if one.relevance.ndim == 3 else one.relevance for one in maps
    ]
    found = [agreement(one, other)["spearman"] for one, other in combinations(seen_maps, 2)]
    return round(1 - min(found), 6) if found else None
