"""What several composites say of the same pictures or texts, on one sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from onnxlrp.compiler.composite import Composite
from onnxlrp.compiler.conversion import convert
from onnxlrp.drawing.default_colours import DEFAULT_COLOURS
from onnxlrp.drawing.heatmap import enlarged, heatmap
from onnxlrp.drawing.panels import seen
from onnxlrp.drawing.sheet import grid
from onnxlrp.drawing.typeset import sentence
from onnxlrp.errors import InputError
from onnxlrp.inputs.items import collect
from onnxlrp.inputs.passages import Passage
from onnxlrp.inputs.preprocessing import Preprocessing
from onnxlrp.inputs.targets import Difference, Wanted, read_targets
from onnxlrp.running.explainer import Explainer
from onnxlrp.running.explanation import Account, title
from onnxlrp.running.stream import Failure, explain
from onnxlrp.telling import counted


def gallery(
    model: Path,
    composites: Mapping[str, Composite],
    pictures: Sequence[str | Path],
    preprocessing: Preprocessing,
    *,
    target: str = "top",
    labels: Sequence[str] | None = None,
    colours: str = DEFAULT_COLOURS,
    photographs: bool = True,
) -> Image.Image:
    """Draw a grid: a row for each picture and class, the photograph and a column a composite.

    Each map has a scale of colours of its own, for composites differ in what their maps add up to.

    Parameters
    ----------
    model : an ONNX classifier of pictures
    composites : by heading
    pictures : files and folders
    preprocessing : how pictures become the model's input
    target : which classes, as `onnxlrp.inputs.targets.read_targets` reads it
    labels : names of the classes
    colours : a name that `onnxlrp.drawing.colours` knows
    photographs : whether the first column shows the pictures

    Raises
    ------
    InputError
        A picture cannot be explained, or a class does not exist.
    ModelError, UnsupportedError, CompositeError
        The model cannot be converted.

    """
    rows: dict[tuple[str, int | str], list[Image.Image]] = {}
    captions: dict[tuple[str, int | str], list[str]] = {}
    # A class by itself takes no weights, which cost a run more where the best one is asked for.
    asked = {type(one) for one in _wanted(target, pictures, labels)}
    start = "weights" if asked & {Difference, tuple} else None
    for name, composite in composites.items():
        composite.check_alone()
        conversion = convert(model, composite, preprocessing=preprocessing, target=start)
        conversion.warn()
        with Explainer(conversion.to_proto().SerializeToString()) as run:
            items = collect(pictures, 3)
            names = [item.name for item in items]
            targets = read_targets(target, names, labels, run.classes)
            results = explain(run, items, targets, preprocessing, batch=1)
            for result in counted(results, f"pictures by {name}", len(items)):
                if isinstance(result, Failure):
                    raise InputError(result.told)
                picture = result.sample.picture
                if picture is None:
                    raise InputError(f"{result.sample.item.source} is no picture")
                for one in result.explained:
                    key = result.sample.item.name, one.aim.key
                    if key not in rows:
                        photograph = seen(preprocessing, picture).convert("RGB")
                        rows[key] = [enlarged(np.asarray(photograph))]
                        said = f"{one.aim.in_words(labels, numbers=False)}, {one.aim.quantity}"
                        captions[key] = [f"{key[0]}: {said} {one.score:.4g}; the maps hold"]
                    drawn = heatmap(one.relevance, preprocessing.layout, colours=colours)
                    rows[key].append(drawn)
                    captions[key].append(f"{one.relevance.sum():.4g}")
    lines = [f"{first} {', '.join(sums)}" for first, *sums in captions.values()]
    shown = 0 if photographs else 1
    return grid(
        [row[shown:] for row in rows.values()],
        ["photograph", *composites][shown:],
        lines,
        key=(colours, "each map on a scale of its own"),
    )


def _wanted(
    target: str, pictures: Sequence[str | Path], labels: Sequence[str] | None
) -> list[Wanted | None]:
    """Return what is asked of each picture, as far as that is known without the model."""
    names = [item.name for item in collect(pictures, 3)]
    targets = read_targets(target, names, labels, None)
    return [targets.one, *(targets.each or {}).values()]


def text_gallery(
    model: Path,
    composites: Mapping[str, Composite],
    texts: Sequence[Passage],
    tokenizer: Path | None,
    *,
    target: str = "top",
    labels: Sequence[str] | None = None,
    colours: str = DEFAULT_COLOURS,
) -> Image.Image:
    """Draw each text and class once for each composite, one below the other.

    Parameters
    ----------
    model : an ONNX classifier that reads tokens
    texts : as `onnxlrp.inputs.passages.collect_texts` lists them
    tokenizer : the model's, a `tokenizer.json`
    composites, target, labels, colours : as for `gallery`

    Raises
    ------
    InputError, ModelError, UnsupportedError, CompositeError
        As `gallery`.

    """
    drawn: dict[tuple[str, str], list[Image.Image]] = {}
    for name, composite in composites.items():
        composite.check_alone()
        conversion = convert(model, composite)
        conversion.warn()
        with Explainer(conversion.to_proto().SerializeToString(), tokenizer=tokenizer) as run:
            targets = read_targets(target, [text.name for text in texts], labels, run.classes)
            results = explain(run, texts, targets, run.reader, batch=1)
            for result in counted(results, f"texts by {name}", len(texts)):
                if isinstance(result, Failure):
                    raise InputError(result.told)
                assert result.sample.tokens is not None
                for one in result.explained:
                    account = Account.of(
                        one.aim, one.score, [one.relevance], run.score_is_output, one.padding
                    )
                    heading = f"{name} · {title(one.aim.in_words(labels), account)}"
                    picture = sentence(
                        result.sample.tokens,
                        one.relevance,
                        title=heading,
                        padding=one.padding,
                        colours=colours,
                    )
                    drawn.setdefault((result.sample.item.name, str(one.aim.key)), []).append(
                        picture
                    )
    panels = [picture for pictures in drawn.values() for picture in pictures]
    out = Image.new("RGB", (panels[0].width, sum(panel.height for panel in panels)), "white")
    top = 0
    for panel in panels:
        out.paste(panel, (0, top))
        top += panel.height
    return out
