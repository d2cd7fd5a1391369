"""What a conversion did, as tables and as one JSON object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from onnxlrp.cli.layout import Table, lines, table
from onnxlrp.cli.terminal import screen

if TYPE_CHECKING:
    from onnxlrp.audit.origin import Port
    from onnxlrp.compiler.composite import Composite
    from onnxlrp.compiler.conversion import Conversion, ExplainedNode
    from onnxlrp.errors import Obstacle

Shape = tuple[int | str | None, ...]


class Value(NamedTuple):
    """An input or output of a graph; symbolic sizes are names, unknown ones None."""

    name: str
    dtype: str
    shape: Shape


def show(*tables: Table) -> None:
    """Print tables on stdout, each with an empty line below."""
    for one in tables:
        click.echo("\n".join(lines(one, screen())) + "\n")


def rules(nodes: Iterable[ExplainedNode]) -> Table:
    """Count nodes by operator: how many got which rule, by which line of the composite."""
    counts = Counter((node.operator, node.in_words(), node.line) for node in nodes)
    rows = [(operator, str(count), rule, line) for (operator, rule, line), count in counts.items()]
    if any(line for *_, line in rows):
        return table("operator nodes> rule line", rows)
    return table("operator nodes> rule", [row[:3] for row in rows])


def nodes(nodes: Iterable[ExplainedNode]) -> Table:
    """List every node with its rule."""
    rows = ((node.name, node.operator, node.value, node.in_words()) for node in nodes)
    return table("node operator computes rule", rows)


def values(
    inputs: Iterable[tuple[str, str, Shape]], outputs: Iterable[tuple[str, str, Shape]]
) -> Table:
    """List inputs and outputs with types and shapes."""
    rows = [
        (kind, name, dtype, shape_text(shape))
        for kind, group in (("input", inputs), ("output", outputs))
        for name, dtype, shape in group
    ]
    return table("value name dtype shape", rows)


def ports(found: Iterable[Port]) -> Table:
    """List an explainer's inputs and outputs, and what they mean."""
    rows = ((p.kind, p.name, p.tensor.dtype, shape_text(p.tensor.shape), p.meaning) for p in found)
    return table("value name dtype shape meaning", rows)


def obstacles(found: Sequence[Obstacle]) -> Table:
    """List every node that stands in the way of a conversion."""
    rows = (
        (
            obstacle.node,
            obstacle.operator,
            f"{obstacle.domain or 'ai.onnx'} {obstacle.opset}",
            f"{obstacle.reason}: {obstacle.advice}",
        )
        for obstacle in found
    )
    return table("node operator opset what_to_do", rows)


def composites(shipped: Iterable[Composite]) -> Table:
    """List what ships."""
    rows = ((item.name, item.good_for, item.source) for item in shipped)
    return table("name good_for source", rows)


def kinds(conversion: Conversion) -> list[str]:
    """Say what kind of network it is, by which node that is known, and what follows from it."""
    said, words = [], {"depthwise": "depthwise convolutions"}
    for kind, node in conversion.kinds.items():
        composite = conversion.composite
        lines = [line for line in composite.lines if line.network == kind]
        follows = [f"{','.join(line.operators) or '*'}: {line.rule}" for line in lines]
        if kind in composite.reference:
            follows.append(f"reference {composite.reference[kind]} (where --reference names none)")
        so = f"so {composite.name} has {'; '.join(follows)}"
        none = f"for which {composite.name} has no lines"
        where = f"a network with {words.get(kind, kind)} (at {node})"
        said.append(f"{where}, {so if follows else none}")
    return said


def summary(conversion: Conversion) -> dict[str, Any]:
    """Return what the tables show, node by node, in types that JSON has."""
    return {
        "composite": conversion.composite.name,
        "score": conversion.score,
        "network": dict(conversion.kinds),
        "nodes": listed(conversion.nodes),
        "inputs": [Value(*item)._asdict() for item in conversion.inputs],
        "outputs": [Value(*item)._asdict() for item in conversion.outputs],
        "warnings": list(conversion.warnings),
    }


def listed(nodes: Iterable[ExplainedNode]) -> list[dict[str, Any]]:
    """Return nodes with their rules in types that JSON has."""
    return [
        {
            "name": node.name,
            "operator": node.operator,
            "rule": node.rule,
            "parameters": dict(node.parameters),
            "line": node.line,
            "merged": list(node.merged),
            "value": node.value,
        }
        for node in nodes
    ]


def shape_text(shape: Shape) -> str:
    """Write a shape as [N, 3, ?]."""
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def file_size(path: Path) -> int:
    """Return the bytes of a model's file, and of the data files that `convert` writes beside it."""
    from onnxlrp.compiler.writing import data_of

    return sum(file.stat().st_size for file in (path, *data_of(path)))


def size_text(path: Path) -> str:
    """Write a model's size for people."""
    size = file_size(path)
    return f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
