"""`onnxlrp demo`: the whole way, on what is bundled."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxlrp.cli.options import Sectioned, chosen_composite, composite_options, target_number
from onnxlrp.cli.paths import Place
from onnxlrp.cli.terminal import echo
from onnxlrp.files import naming, write

if TYPE_CHECKING:
    from onnxlrp.compiler.composite import Composite


@click.command(
    cls=Sectioned, short_help="Explain a bundled photograph, or a sentence, with a bundled network."
)
@click.option(
    "-o",
    "--output",
    "folder",
    type=Place(file_okay=False),
    metavar="FOLDER",
    default=Path("onnxlrp-demo"),
    show_default=True,
    help="Folder for the results; made if missing.",
)
@click.option(
    "--target",
    type=target_number,
    metavar="N|top",
    default="top",
    help="The class to explain, 0 to 9; the top one by default.",
)
@click.option(
    "--text",
    is_flag=False,
    flag_value="",
    metavar="[TEXT]",
    help="Explain a sentence of a film review, a bundled one or yours, with a network that tells "
    "negative ones, 0, from positive, 1.",
)
@composite_options
def demo(
    folder: Path,
    target: int,
    text: str | None,
    composite: str,
    rules: tuple[str, ...],
    settings: tuple[str, ...],
    lrn: str | None,
    plugins: tuple[str, ...],
) -> None:
    """Explain a bundled photograph with a bundled network, and leave the files to look at."""
    from onnxlrp.cli import tables
    from onnxlrp.demo import CLASSES, MODEL, PHOTOGRAPH, PREPROCESSING
    from onnxlrp.demo import demo as run

    chosen = chosen_composite(composite, rules, settings, lrn, plugins)
    if text is not None:
        _demo_text(text, folder, target, chosen)
        return
    shown = run(target, chosen)
    folder.mkdir(parents=True, exist_ok=True)
    with naming(folder / "explainer.onnx"):
        shown.conversion.save(folder / "explainer.onnx")
    write(folder / "heatmap.png", lambda buffer: shown.heatmap.save(buffer, format="PNG"))
    write(folder / "overlay.png", lambda buffer: shown.overlay.save(buffer, format="PNG"))
    _leave(MODEL, folder / MODEL)
    _leave(PHOTOGRAPH, folder / "cat.png")
    _leave(CLASSES, folder / "classes.txt")
    _leave([PREPROCESSING.to_json()], folder / "preprocessing.json")

    for warning in shown.conversion.warnings:
        echo(f"Warning: {warning}", err=True)
    tables.show(tables.nodes(shown.conversion.nodes))
    explanation = shown.explanation
    said = explanation.account().in_words()
    echo(f"Why {shown.label}? class {explanation.target[0]}, {said}")
    echo(f"In {folder.resolve()}:")
    echo("  explainer.onnx  the network and its explanation, for any ONNX runtime")
    echo("  heatmap.png     orange speaks for the class, blue against it")
    echo("  overlay.png     the same over the photograph")
    echo("  cifar10_lrn.onnx, preprocessing.json, classes.txt, cat.png   what it was made of")
    echo("The same for your own model and photograph:")
    echo("  onnxlrp convert MODEL.onnx EXPLAINER.onnx --preprocess imagenet")
    echo("  onnxlrp explain EXPLAINER.onnx PHOTO.jpg -o heatmaps")


def _demo_text(text: str, folder: Path, target: int, composite: Composite) -> None:
    from onnxlrp.cli import sentences, tables
    from onnxlrp.demo import OPINIONS, REVIEW, REVIEWS, TOKENIZER, demo_text
    from onnxlrp.drawing.sentence import page
    from onnxlrp.running.explanation import title

    shown = demo_text(text or REVIEW, target, composite)
    explanation = shown.explanation
    relevance, _ = explanation.of(0)
    tokens, account = explanation.texts[0], explanation.account()
    written = page(tokens, relevance, title=title(shown.label, account)).encode()
    folder.mkdir(parents=True, exist_ok=True)
    with naming(folder / "explainer.onnx"):
        shown.conversion.save(folder / "explainer.onnx")
    write(folder / "explainer.tokenizer.json", lambda buffer: buffer.write(shown.tokenizer))
    write(folder / "sentence.html", lambda buffer: buffer.write(written))
    _leave(REVIEWS, folder / REVIEWS)
    _leave(TOKENIZER, folder / TOKENIZER)
    _leave(OPINIONS, folder / "opinions.txt")
    drawn = explanation.plot(labels=OPINIONS)
    write(folder / "sentence.png", lambda buffer: drawn.save(buffer, format="PNG"))

    for warning in shown.conversion.warnings:
        echo(f"Warning: {warning}", err=True)
    tables.show(tables.rules(shown.conversion.nodes))
    echo(f"Why {shown.label}? class {explanation.target[0]}, {account.in_words()}")
    sentences.show(tokens, relevance)
    echo(f"In {folder.resolve()}:")
    echo("  explainer.onnx            the network and its explanation, for any ONNX runtime")
    echo("  explainer.tokenizer.json  what makes tokens of a text")
    echo("  sentence.png, .html       orange speaks for the class, blue against it")
    echo("  reviews.onnx, reviews.tokenizer.json, opinions.txt   what it was made of")
    echo("The same for more texts, and for your own model with its tokenizer.json beside it:")
    echo(f"  onnxlrp explain {folder / 'explainer.onnx'} --text 'Dull and far too long.' -o why")
    echo("  onnxlrp convert MODEL.onnx EXPLAINER.onnx")
    echo("  onnxlrp explain EXPLAINER.onnx reviews.txt -o why")


def _leave(what: str | Sequence[str], path: Path) -> None:
    """Write a bundled file, by its name, or lines."""
    if isinstance(what, str):
        content = (files("onnxlrp.bundled") / what).read_bytes()
    else:
        content = "".join(f"{line}\n" for line in what).encode()
    write(path, lambda buffer: buffer.write(content))
