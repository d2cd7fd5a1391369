"""Which of an explainer's nodes fail in a browser: by a table, nothing is run."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from operator import eq, gt, lt

import onnx

from onnxlrp.audit.kernels import element_types
from onnxlrp.audit.written import Written

_CONDITION = re.compile(r"(\w+)(?:%(\d+))?([<=>])(\w+)")
_COMPARED: Mapping[str, Callable[[int, int], bool]] = {"<": lt, "=": eq, ">": gt}
Shapes = Mapping[str, Sequence[int]]
"""Of values by name, sizes by axis, 0 where they are not known."""


@dataclass(frozen=True)
class Limit:
    """Nodes that a browser cannot run, or runs wrongly.

    Attributes
    ----------
    package : `onnxruntime-web` or `onnxruntime-web/webgpu`, by WebGPU, or `WebAssembly`
    operator : what the nodes compute, `*` where that does not matter
    condition : what they have in common, such as `inputs>7`
    outcome : "refused" when they run, or "refused-without-f16", where the GPU lacks shader-f16;
        "wrong" numbers; "none", no session at all
    nodes : their names

    """

    package: str
    operator: str
    condition: str
    outcome: str
    nodes: tuple[str, ...]


def limits(written: Written) -> list[Limit]:
    """Look every node of the file up that depends on an input, the model's own, too."""
    graph = written.proto.graph
    constant = {tensor.name for tensor in graph.initializer}
    types = element_types(written.proto)
    shapes: Shapes = {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
        for values in (graph.input, graph.output, graph.value_info)
        for value in values
    } | {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        if all(name in constant or not name for name in node.input):
            constant.update(node.output)
        else:
            nodes.append(node)
    found = []
    for row in _table():
        fitting = tuple(
            node.name or node.output[0]
            for node in nodes
            if row["operator"] in ("*", node.op_type) and not node.domain.removeprefix("ai.onnx")
            if all(_holds(one, node, types, shapes) for one in row["condition"].split())
        )
        if fitting:
            found.append(Limit(**row, nodes=fitting))
    return found


def _holds(condition: str, node: onnx.NodeProto, types: Mapping[str, str], shapes: Shapes) -> bool:
    name, divisor, sign, wanted = _CONDITION.fullmatch(condition).groups()  # type: ignore[union-attr]
    if name == "T":
        return wanted in (types.get(node.input[0]), types.get(node.output[0]))
    size, made = (shapes.get(values[0], ()) for values in (node.input, node.output))
    known = {
        "inputs": len(node.input),
        "outputs": sum(map(bool, node.output)),
        "rank": len(size),
        "channels": size[1] if len(size) > 1 else 0,
        "maps": made[1] if len(made) > 1 else 0,
        "product": int(_is_product(node, shapes)),
        "group": 1,
    }
    given = {attribute.name: attribute.i for attribute in node.attribute}
    value = (known | given).get(name, 0)
    return _COMPARED[sign](value % int(divisor) if divisor else value, int(wanted))


def _is_product(node: onnx.NodeProto, shapes: Shapes) -> bool:
    """Tell whether a convolution multiplies by one matrix each position, or the whole map."""
    if node.op_type != "Conv":
        return False
    size, kernel = (list(shapes.get(name, ()))[2:] for name in node.input[:2])
    given = {attribute.name: list(attribute.ints) for attribute in node.attribute}
    pointwise = {1}.issuperset(kernel + given.get("strides", []))
    return not any(given.get("pads", [])) and (pointwise or kernel == size)


@cache
def _table() -> list[dict[str, str]]:
    text = (resources.files("onnxlrp.audit") / "limits.tsv").read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines, delimiter="\t"))
