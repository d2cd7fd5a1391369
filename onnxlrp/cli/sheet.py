"""`onnxlrp sheet`: what several composites say, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxlrp.cli.options import (
    Sectioned,
    chosen_preprocessing,
    colours_option,
    labels_option,
    preprocessing_options,
    refuse_tables,
)
from onnxlrp.cli.paths import Made, Place
from onnxlrp.cli.progress import shown
from onnxlrp.cli.terminal import echo
from onnxlrp.compiler.default_composite import DEFAULT_COMPOSITE
from onnxlrp.errors import InputError
from onnxlrp.files import write

if TYPE_CHECKING:
    from PIL import Image


@click.command(cls=Sectioned, short_help="Draw what several composites say of the same pictures.")
@click.argument("model", type=Place())
@click.argument("pictures", metavar="[PICTURE]...", nargs=-1)
@click.option(
    "--text", "sentences", multiple=True, metavar="TEXT", help="A text to explain. Repeatable."
)
@click.option(
    "--tokenizer",
    type=Place(),
    metavar="FILE",
    help="Splits texts. By default MODEL's name with .tokenizer.json, or tokenizer.json, beside "
    "it.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=Made(".png", dir_okay=False),
    metavar="FILE.png",
    help="The sheet.",
)
@click.option(
    "--composite",
    "composites",
    multiple=True,
    default=(DEFAULT_COMPOSITE,),
    metavar="NAME|FILE",
    help="A column; also with additions, as in 'binder2016_epsilon; epsilon=1; LRN: identity'. "
    "Repeatable.",
)
@click.option(
    "--target",
    default="top",
    metavar="N|NAME|top|top:K|FILE",
    help="The classes to explain, a row for each.",
)
@labels_option
@colours_option
@preprocessing_options
def sheet(
    model: Path,
    pictures: tuple[str, ...],
    sentences: tuple[str, ...],
    tokenizer: Path | None,
    output: Path,
    composites: tuple[str, ...],
    target: str,
    labels: Path | None,
    colours: str,
    **options: Any,
) -> None:
    """Draw a grid: a row for each PICTURE and class, a column for each composite.

    MODEL is the classifier itself. Of texts, by --text or in files with one a line (.txt), the
    composites' maps are one below the other. Each map has a scale of colours of its own; what the
    maps add up to is written beside them.
    """
    from onnxlrp.compiler.composite import Composite
    from onnxlrp.inputs.passages import collect_texts
    from onnxlrp.inputs.targets import load_labels
    from onnxlrp.inputs.tokens import beside
    from onnxlrp.running.gallery import gallery, text_gallery

    loaded = {name: Composite.load(name) for name in composites}
    named = load_labels(labels) if labels else None
    texts = [name for name in pictures if Path(name).suffix.lower() == ".txt"]
    if not pictures and not sentences:
        raise click.UsageError("Nothing is given to explain: PICTURE, or --text TEXT.")
    refuse_tables(pictures, "a sheet is of pictures, or of texts in .txt")
    preprocessing = chosen_preprocessing(options)
    if sentences or texts:
        if preprocessing is not None:
            raise InputError("texts are read by a tokenizer: leave out how pictures are made")
        found = collect_texts(pictures, sentences)
        with shown():
            drawn = text_gallery(
                model,
                loaded,
                found,
                tokenizer or beside(model),
                target=target,
                labels=named,
                colours=colours,
            )
        _save(drawn, output)
        return
    if preprocessing is None:
        raise InputError("say how pictures are made, as in --preprocess imagenet")
    with shown():
        drawn = gallery(
            model,
            loaded,
            pictures,
            preprocessing,
            target=target,
            labels=named,
            colours=colours,
        )
    _save(drawn, output)


def _save(drawn: Image.Image, output: Path) -> None:
    write(output, lambda file: drawn.save(file, format="PNG"))
    echo(f"{output}: {drawn.width}x{drawn.height} pixels")
