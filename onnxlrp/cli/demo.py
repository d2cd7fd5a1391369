"""`onnxlrp demo`: the whole way, on what is bundled."""

from __future__ import annotations

from pathlib import Path

import click

from onnxlrp.cli.options import chosen_composite, composite_options, target_number
from onnxlrp.cli.terminal import echo
from onnxlrp.files import naming, write


@click.command(short_help="Explain a bundled photograph with a bundled network.")
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(path_type=Path),
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
@composite_options
def demo(
    folder: Path,
    target: int,
    composite: str,
    rules: tuple[str, ...],
    settings: tuple[str, ...],
    lrn: str | None,
    plugins: tuple[str, ...],
) -> None:
    """Explain a bundled photograph with a bundled network, and leave the files to look at."""
    from onnxlrp.cli import tables
    from onnxlrp.demo import demo as run

    shown = run(target, chosen_composite(composite, rules, settings, lrn, plugins))
    folder.mkdir(parents=True, exist_ok=True)
    with naming(folder / "explainer.onnx"):
        shown.conversion.save(folder / "explainer.onnx")
    write(folder / "heatmap.png", lambda buffer: shown.heatmap.save(buffer, format="PNG"))
    write(folder / "overlay.png", lambda buffer: shown.overlay.save(buffer, format="PNG"))

    for warning in shown.conversion.warnings:
        echo(f"Warning: {warning}", err=True)
    tables.show(tables.nodes(shown.conversion))
    explanation = shown.explanation
    said = explanation.account().in_words()
    echo(f"Why {shown.label}? class {explanation.target[0]}, {said}")
    echo(f"In {folder.resolve()}:")
    echo("  explainer.onnx  the network and its explanation, for any ONNX runtime")
    echo("  heatmap.png     red speaks for the class, blue against it")
    echo("  overlay.png     the same over the photograph")
    echo("The same for your own model and photograph:")
    echo("  onnxlrp convert MODEL.onnx EXPLAINER.onnx --preprocess imagenet")
    echo("  onnxlrp explain EXPLAINER.onnx PHOTO.jpg -o heatmaps")
