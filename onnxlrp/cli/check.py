"""`onnxlrp check`: whether an explainer is right, and where relevance goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from onnxlrp.cli.options import Sectioned, target_number
from onnxlrp.cli.paths import Made, Place
from onnxlrp.cli.progress import shown
from onnxlrp.cli.terminal import dump, echo
from onnxlrp.errors import InputError
from onnxlrp.files import write

if TYPE_CHECKING:
    from onnxlrp.audit import Audit, Layer
    from onnxlrp.cli.layout import Table
    from onnxlrp.inputs.targets import Difference


@click.command(
    cls=Sectioned, short_help="Audit an explainer: outputs, conservation, every layer in float64."
)
@click.argument("model", type=Place())
@click.argument("explainer", type=Place())
@click.option(
    "--inputs",
    type=Place(),
    metavar="FILE",
    help="What to explain: .npy, or .npz with an array for each input.",
)
@click.option(
    "--random",
    type=click.IntRange(min=1),
    metavar="N",
    help="Or that many random inputs; 1 by default. Preprocessed pixels if the explainer knows how "
    "its pictures are made, else normal.",
)
@click.option(
    "--target",
    type=target_number,
    metavar="N|top|N-M",
    default="top",
    help="The class to explain, the top one by default; N-M of an explainer that takes weights.",
)
@click.option(
    "--provider",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where it runs.",
)
@click.option(
    "--layers",
    metavar="GLOB",
    default="",
    help="Recompute only the layers of that name; they may be of any size.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option(
    "--plot",
    type=Made(".png", dir_okay=False),
    metavar="FILE.png",
    help="Draw relevance layer by layer, split by where it went.",
)
def check(
    model: Path,
    explainer: Path,
    inputs: Path | None,
    random: int | None,
    target: int | Difference,
    provider: Literal["cpu", "cuda"],
    layers: str,
    as_json: bool,
    plot: Path | None,
) -> None:
    """Audit EXPLAINER, which was made of MODEL.

    Fails, with exit status 1, if the model's outputs change, if relevance goes missing other than
    by bias and stabiliser, if a layer is not what its rule's definition says in float64, or if
    relevance is not finite. What biases and stabilisers absorb is told, and is no fault.
    """
    if inputs is not None and random is not None:
        raise InputError("--inputs and --random exclude each other")

    audit = audited(
        model,
        explainer,
        inputs=inputs,
        random=random or 1,
        target=target,
        provider=provider,
        layers=layers,
    )
    if plot is not None:
        from onnxlrp.audit.chart import draw

        write(plot, lambda buffer: draw(audit, buffer))
    if as_json:
        dump(as_object(audit))
    else:
        show(audit)
    if not audit.passed:
        raise click.exceptions.Exit(1)


def audited(model: Path, explainer: Path, **options: Any) -> Audit:
    """Audit, showing what is under way."""
    from onnxlrp import audit

    with shown():
        return audit.check(model, explainer, **options)


def _layers(audit: Audit) -> Table:
    """List the layers that do something to relevance, from the score to the input."""
    from onnxlrp.audit.words import percent
    from onnxlrp.cli.layout import table

    columns = "node rule in> out> bias> stabiliser> unexplained> off_float64>"
    beyond = any(layer.beyond for layer in audit.layers)
    if beyond:
        columns = columns.replace("stabiliser>", "stabiliser> by_rule>")

    def row(layer: Layer) -> tuple[str, ...]:
        amounts = [layer.incoming, layer.outgoing, layer.bias, layer.stabiliser]
        amounts += [layer.beyond] * beyond
        off = "?" if layer.difference is None else f"{layer.difference:.0e}"
        return (
            layer.name,
            layer.rules,
            *(percent(audit.share(amount)) for amount in amounts),
            f"{layer.leak:.0e}",
            off,
        )

    rows = [row(layer) for layer in audit.layers if layer.acts]
    return table(columns, rows)


def as_object(audit: Audit) -> dict[str, Any]:
    """Return an audit and its findings in types that JSON has."""
    from onnxlrp.audit import findings

    told = [{"kind": finding.kind, "text": finding.text} for finding in findings(audit)]
    return audit.to_json() | {"findings": told}


def show(audit: Audit) -> None:
    """Print an audit."""
    from onnxlrp.audit import findings
    from onnxlrp.audit.words import verdict
    from onnxlrp.cli import tables

    tables.show(_layers(audit))
    passive = sum(not layer.acts for layer in audit.layers)
    if passive:
        echo(f"Not shown: {passive} that only hand{'s' * (passive == 1)} relevance on")
    for line in verdict(audit):
        echo(line)
    for finding in findings(audit):
        echo(f"{finding.kind.capitalize()}: {finding.text}")
    echo(f"{'PASSED' if audit.passed else 'FAILED'} in {audit.seconds:.1f} s")
