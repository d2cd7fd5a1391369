"""Which of an explainer's nodes fail in a browser: by a table, nothing is run."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from operator import eq, gt

import onnx

from onnxlrp.audit.kernels import element_types
from onnxlrp.audit.written import Written

_CONDITION = re.compile(r"(\w+)([=>])(\w+)")
_COMPARED: Mapping[str, Callable[[int, int], bool]] = {"=": eq, ">": gt}


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
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for values in (graph.input, graph.output, graph.value_info)
        for value in values
    } | {tensor.name: len(tensor.dims) for tensor in graph.initializer}
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
            if all(_holds(one, node, types, ranks) for one in row["condition"].split())
        )
        if fitting:
            found.append(Limit(**row, nodes=fitting))
    return found


def _holds(
    condition: str, node: onnx.NodeProto, types: Mapping[str, str], ranks: Mapping[str, int]
) -> bool:
    name, sign, wanted = _CONDITION.fullmatch(condition).groups()  # type: ignore[union-attr]
    if name == "T":
        return wanted in (types.get(node.input[0]), types.get(node.output[0]))
    counted = {"inputs": len(node.input), "outputs": sum(map(bool, node.output))}
    if name in counted:
        value = counted[name]
    elif name == "rank":
        value = ranks.get(node.input[0], 0)
    else:
        given = {attribute.name: attribute.i for attribute in node.attribute}
        value = given.get(name, int(name == "group"))
    return _COMPARED[sign](value, int(wanted))


@cache
def _table() -> list[dict[str, str]]:
    text = (resources.files("onnxlrp.audit") / "limits.tsv").read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines, delimiter="\t"))
