"""`onnxlrp inspect`: what `convert` would do, or what an explainer says about itself."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxlrp.cli.options import (
    Sectioned,
    composite_options,
    conversion_arguments,
    graph_options,
    preprocessing_options,
)
from onnxlrp.cli.paths import Place
from onnxlrp.cli.progress import shown
from onnxlrp.cli.terminal import clean, dump, echo, screen
from onnxlrp.errors import UnsupportedError

if TYPE_CHECKING:
    from onnxlrp.audit.written import Written


@click.command(cls=Sectioned, short_help="Show what convert would do, or what an explainer stores.")
@click.argument("model", type=Place())
@composite_options
@graph_options
@preprocessing_options
@click.option("--nodes", "each", is_flag=True, help="List every node by its name.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def inspect(model: Path, each: bool, as_json: bool, **options: Any) -> None:
    """Show what `convert` would make of MODEL, without writing anything.

    A model that cannot be converted gets a table of every node that stands in the way, and exit
    status 1. Of an explainer it tells of what model it is, by which rules, what goes in and comes
    out, and how to use it.
    """
    if _is_explainer(model):
        _show_explainer(model, each, as_json)
        return

    import onnxlrp
    from onnxlrp.cli import tables

    try:
        with shown():
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
    rules = tables.nodes(conversion.nodes) if each else tables.rules(conversion.nodes)
    tables.show(rules, tables.values(conversion.inputs, conversion.outputs))
    for line in tables.kinds(conversion):
        echo(line)
    echo(f"relevance starts from '{conversion.score}'")


def _is_explainer(path: Path) -> bool:
    """Tell whether a file is one that onnxlrp wrote; no where it cannot be read."""
    import onnx
    from google.protobuf.message import DecodeError

    from onnxlrp.running.contract import Contract

    try:
        proto = onnx.load(path, load_external_data=False)
    except (OSError, DecodeError):
        # The compiler says better what is the matter.
        return False
    return Contract.read({entry.key: entry.value for entry in proto.metadata_props}) is not None


def _show_explainer(path: Path, each: bool, as_json: bool) -> None:
    from onnxlrp.audit import origin, read
    from onnxlrp.cli import tables
    from onnxlrp.cli.layout import record

    written = read(path)
    nodes, ports = origin.nodes(written), origin.ports(written)
    if as_json:
        sides: dict[str, list[dict[str, Any]]] = {"inputs": [], "outputs": []}
        for port in ports:
            value = {"name": port.name, **port.tensor._asdict(), "meaning": port.meaning}
            sides[f"{port.kind}s"].append(value)
        size = {"nodes": tables.listed(nodes), "bytes": tables.file_size(path)}
        dump(asdict(written.contract) | sides | size)
        return
    facts = {"explainer": f"{path} ({tables.size_text(path)})"} | origin.facts(written)
    click.echo("\n".join(record(facts, screen())) + "\n")
    tables.show(tables.nodes(nodes) if each else tables.rules(nodes), tables.ports(ports))
    # Not wrapped, to be copied.
    click.echo(clean("\n".join(_usage(path, written))))


def _usage(path: Path, written: Written) -> list[str]:
    """Return commands that may come next."""
    from onnxlrp.audit.origin import reads

    contract, kind = written.contract, reads(written)
    given = {"texts": "--text 'A text.'", "tables": "data.csv", "pictures": "photo.jpg"}
    file = shlex.quote(str(path))
    explain = f"onnxlrp explain {file} {given.get(kind, 'data.npy')} -o maps"
    if kind == "pictures" and contract.preprocessing is None:
        explain += " --preprocess imagenet"
    if contract.references:
        explain += " --reference zero"
    model = shlex.quote(contract.model_file or "MODEL")
    return [explain, f"onnxlrp check {model} {file}"]
