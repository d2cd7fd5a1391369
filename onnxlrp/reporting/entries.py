"""What a report says of each item: its picture, its maps, its scores, what speaks loudest."""

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
from onnxlrp.drawing.panels import seen, sheet
from onnxlrp.drawing.sentence import full_scale, in_words, ink_on, pieces, shade
from onnxlrp.evaluation.agreement import agreement
from onnxlrp.inputs.preprocessing import Layout, Preprocessing
from onnxlrp.inputs.text import Tokens
from onnxlrp.running.explanation import Account, is_flat, top_regions
from onnxlrp.running.stream import Explained, Result

NEXT = 5
"""So many classes of an item are listed."""

LOUDEST = 3
_WIDEST = 720
_BYTES = 36e6
_BYTES_PER_PIXEL = 0.22


@dataclass(frozen=True)
class Show:
    """How items are shown.

    Attributes
    ----------
    names : of the explainers, in the order of the results
    preprocessing : how pictures became the model's input; None where none did
    labels : names of the classes
    features : names of a table's; None where the model reads none
    logits : whether relevance adds up to the score, but for biases and stabiliser
    colours : a name that `onnxlrp.drawing.colours` knows
    side : pixels of a thumbnail's longer side

    """

    names: Sequence[str]
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


def entry(results: Sequence[Result], show: Show) -> dict[str, Any]:
    """Return what a report says of one item, in types that JSON has.

    Parameters
    ----------
    results : of the same item, by each explainer
    show : how

    Raises
    ------
    InputError
        A map holds NaN or infinity, or nothing can be drawn of an input of this rank.

    """
    first = results[0]
    aim = first.explained[0].aim
    order = np.argsort(-first.scores, kind="stable")[:NEXT]
    maps = [_map(result, show) for result in results]
    shares = [one["share"] for one in maps if one["share"] is not None]
    return {
        "name": first.sample.item.name,
        "source": first.sample.item.source,
        "label": aim.in_words(show.labels, numbers=False),
        "target": aim.key,
        "quantity": aim.quantity,
        "score": float(first.explained[0].score),
        "next": [
            {"label": _name(int(index), show.labels), "score": float(first.scores[index])}
            for index in order
        ],
        "flat": is_flat(first.scores, show.logits),
        "picture": _photograph(first, show),
        "maps": maps,
        "astray": max((abs(share - 1) for share in shares), default=None),
        "disagreement": _disagreement([result.explained[0] for result in results], show),
    }


def _name(number: int, labels: Sequence[str] | None) -> str:
    return labels[number] if labels else f"class {number}"


def _map(result: Result, show: Show) -> dict[str, Any]:
    explained = result.explained[0]
    account = Account.of(
        explained.aim, explained.score, [explained.relevance], show.logits, explained.padding
    )
    tokens = result.sample.tokens
    said: dict[str, Any] = {
        "share": account.share,
        "relevance": account.relevance,
        "doubt": account.doubt,
    }
    if tokens is not None:
        words = in_words(tokens, explained.relevance, LOUDEST)
        return said | {"loud": words, "pieces": _pieces(tokens, explained, show.colours)}
    regions = _regions(explained, show) if explained.relevance.ndim == 3 else []
    loud = "; ".join(region["text"] for region in regions) or _places(result, show)
    return said | {"loud": loud, "regions": regions, "picture": _drawn(result, show)}


def _pieces(tokens: Tokens, explained: Explained, colours: str) -> list[list[str]]:
    """Return a text's parts: what is written, the ground, the letters' colour, and what is told."""
    full = full_scale(tokens, explained.relevance)
    found = []
    for piece in pieces(tokens, explained.relevance):
        if piece.relevance is None or piece.special:
            found.append([piece.text, "", "", piece.told])
            continue
        ground = shade(piece.relevance, full, colours)
        found.append([piece.text, _css(ground), _css(ink_on(ground)), piece.told])
    return found


def _css(colour: Sequence[int]) -> str:
    return "rgb({},{},{})".format(*colour)


def _photograph(result: Result, show: Show) -> str:
    picture = result.sample.picture
    if picture is None or show.preprocessing is None:
        return ""
    return _embedded(seen(show.preprocessing, picture).convert("RGB"), show.side)


def _drawn(result: Result, show: Show) -> str:
    relevance, sample = result.explained[0].relevance, result.sample
    layout = show.layout
    if relevance.ndim != 3:
        drawn = sheet(
            relevance, sample.values, None, layout,
            title="", names=show.features, colours=show.colours,
        )  # fmt: skip
        return _embedded(drawn, _WIDEST)
    if sample.picture is None or show.preprocessing is None:
        return _embedded(heatmap(relevance, layout, colours=show.colours), show.side)
    photograph = seen(show.preprocessing, sample.picture)
    return _embedded(overlay(relevance, photograph, layout, colours=show.colours), show.side)


def _embedded(picture: Image.Image, side: int) -> str:
    """Return a picture, no larger than so many pixels, as an address that holds it."""
    if max(picture.size) > side:
        picture = picture.copy()
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, format="WEBP", quality=76, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def _regions(explained: Explained, show: Show) -> list[dict[str, Any]]:
    """List where in a picture the strongest relevance is, with a box in parts of its sides."""
    pixels = _pixels(explained.relevance, show)
    height, width = pixels.shape
    side = max(1, min(height, width) // 8)
    return [
        {
            "text": f"rows {found.row} to {found.row + side - 1}, columns {found.column} to "
            f"{found.column + side - 1}: {found.relevance:+.3g}",
            "box": [found.row / height, found.column / width, side / height, side / width],
        }
        for found in top_regions(pixels, LOUDEST, side)
    ]


def _places(result: Result, show: Show) -> str:
    """Say where in a signal or a row the strongest relevance is."""
    relevance = result.explained[0].relevance
    if relevance.ndim == 1:
        return bars.in_words(relevance, result.sample.values, show.features, LOUDEST)
    strongest = np.argsort(-np.abs(relevance), axis=None, kind="stable")[:LOUDEST]
    places = (np.unravel_index(int(index), relevance.shape) for index in strongest)
    return "; ".join(
        f"{', '.join(str(int(part)) for part in place)}: {relevance[place]:+.3g}"
        for place in places
        if relevance[place]
    )


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
    return 1 - min(found) if found else None
