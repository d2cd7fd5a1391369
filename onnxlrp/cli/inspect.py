"""`onnxlrp inspect`: what `convert` would do, or what an explainer says about itself."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxlrp.cli.options import (
    composite_options,
    conversion_arguments,
    graph_options,
    preprocessing_options,
)
from onnxlrp.cli.terminal import dump, echo
from onnxlrp.errors import UnsupportedError

if TYPE_CHECKING:
    import onnx

    from onnxlrp.running.contract import Contract


@click.command(short_help="Show what convert would do, or what an explainer stores.")
@click.argument("model", type=click.Path(path_type=Path))
@composite_options
@graph_options
@preprocessing_options
@click.option("--nodes", "each", is_flag=True, help="List every node by its name.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def inspect(model: Path, each: bool, as_json: bool, **options: Any) -> None:
    """Show what `convert` would make of MODEL, without writing anything.

    A model that cannot be converted gets a table of every node that stands in the way, and exit
    status 1. An explainer shows what is stored in it.
    """
    stored = _stored(model)
    if stored is not None:
        _show_explainer(*stored, as_json)
        return

    import onnxlrp
    from onnxlrp.cli import tables

    try:
        conversion = onnxlrp.convert(model, **conversion_arguments(options))
    except UnsupportedError as error:
        if as_json:
            obstacles = [asdict(obstacle) for obstacle in error.obstacles]
            dump({"obstacles": obstacles})
        else:
            tables.show(tables.obstacles(error.obstacles))
        count = len(error.obstacles)
        echo(
            f"Error: {model} cannot be converted: {count} node{'s' * (count > 1)} in the way",
            err=True,
        )
        raise click.exceptions.Exit(1) from None
    for warning in conversion.warnings:
        echo(f"Warning: {warning}", err=True)
    if as_json:
        dump(tables.summary(conversion))
        return
    rules = tables.nodes(conversion) if each else tables.rules(conversion)
    tables.show(rules, tables.values(conversion.inputs, conversion.outputs))
    for line in tables.kinds(conversion):
        echo(line)
    echo(f"relevance starts from '{conversion.score}'")


def _stored(path: Path) -> tuple[onnx.ModelProto, Contract] | None:
    """Read an explainer and its contract; None where the file is anything else."""
    import onnx
    from google.protobuf.message import DecodeError

    from onnxlrp.running.contract import Contract

    try:
        proto = onnx.load(path, load_external_data=False)
    except (OSError, DecodeError):
        # The compiler says better what is the matter.
        return None
    contract = Contract.read({entry.key: entry.value for entry in proto.metadata_props})
    return None if contract is None else (proto, contract)


def _show_explainer(proto: onnx.ModelProto, contract: Contract, as_json: bool) -> None:
    from onnxlrp.cli import tables

    inputs = [tables.value(info) for info in proto.graph.input]
    outputs = [tables.value(info) for info in proto.graph.output]
    if as_json:
        summary = asdict(contract) | {
            "inputs": [item._asdict() for item in inputs],
            "outputs": [item._asdict() for item in outputs],
        }
        dump(summary)
        return
    preprocessing = contract.preprocessing
    echo(f"An explainer, written by onnxlrp {contract.version}")
    echo(f"of the model with SHA-256 {contract.model_sha256}")
    echo(f"relevance starts from '{contract.score}'")
    echo(f"target: {contract.explains}")
    if contract.features:
        echo(f"features: {', '.join(name for one in contract.features.values() for name in one)}")
    else:
        echo(f"pictures: {preprocessing.in_words() if preprocessing else 'not said how made'}")
    tables.show(tables.values(inputs, outputs))
    echo(contract.composite.rstrip())
