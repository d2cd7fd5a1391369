"""The page of a report: what is said of each item, and how it is shown, in one file."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from onnxlrp.audit import read
from onnxlrp.audit.origin import facts, nodes
from onnxlrp.drawing.sentence import Colour, ink_on, shade


def page(
    title: str,
    entries: Sequence[Mapping[str, Any]],
    cards: Sequence[Mapping[str, Any]],
    failures: Sequence[tuple[str, str]],
    colours: str,
    made: Mapping[str, str],
) -> str:
    """Write an HTML document that needs no other file and asks nobody for anything.

    Parameters
    ----------
    title : its heading
    entries : of each item, as `onnxlrp.reporting.entry` returns it
    cards : of each explainer, as `card` returns it
    failures : items that could not be explained, and why
    colours : those of the maps
    made : when, by what and how the page was made, in words

    """
    data = {
        "entries": entries,
        "cards": cards,
        "failures": [{"source": source, "reason": reason} for source, reason in failures],
        "made": made,
        # Of every strength that a text's tokens may have, -100 to 100, ground and letters.
        "shades": [
            [_css(ground), _css(ink_on(ground))]
            for ground in (shade(step / 100, 1.0, colours) for step in range(-100, 101))
        ],
    }
    # Nothing in it may look like the end of a script, or the start of a comment.
    held = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    zero = shade(0, 1, colours)
    looks = {
        "paper": _css(zero),
        "ink": _css(ink_on(zero)),
        "for": _css(shade(0.76, 1, colours)),
        "against": _css(shade(-0.76, 1, colours)),
        "gradient": ", ".join(_css(shade(step, 1, colours)) for step in np.linspace(-1, 1, 21)),
    }
    parts = {
        "title": escape(title),
        "style": re.sub(r"\$(\w+)", lambda place: looks[place[1]], _part("report.css")),
        "script": _part("report.js"),
        "data": held,
    }
    # At once, for a title may hold what looks like another part's place.
    return re.sub(r"\$(\w+)\$", lambda place: parts[place[1]], _part("report.html"))


def card(explainer: Path, audit: Sequence[str] = ()) -> dict[str, Any]:
    """Return what a report says of an explainer: where it is from, what it does, how it was judged.

    Parameters
    ----------
    explainer : its file
    audit : lines about it

    Raises
    ------
    ModelError
        It is no explainer, or damaged.

    """
    written = read(explainer)
    found = nodes(written)
    counts = Counter((node.operator, node.in_words()) for node in found)
    return {
        "name": explainer.name,
        "facts": {"explainer, SHA-256": hashlib.sha256(explainer.read_bytes()).hexdigest()}
        | facts(written)
        | {"inputs": ", ".join(f"{name} {tensor}" for name, tensor in written.inputs.items())},
        "rules": [[operator, rule, count] for (operator, rule), count in counts.items()],
        "nodes": [[node.name, node.operator, node.in_words()] for node in found],
        "composite": written.contract.composite.rstrip(),
        "audit": list(audit),
    }


def _css(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _part(name: str) -> str:
    return resources.files("onnxlrp.reporting").joinpath(name).read_text("utf-8")
