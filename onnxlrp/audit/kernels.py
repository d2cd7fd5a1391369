"""Which of an explainer's nodes onnxruntime has no kernel for: by its tables, nothing is run."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from functools import cache
from importlib import resources

import onnx
from onnx import defs

from onnxlrp.audit.written import Written

PROVIDERS = {"cpu": "CPU", "cuda": "CUDA", "webgpu": "WebGPU"}
"""Execution providers of onnxruntime that the table covers, and what they are called."""

_SHORT = {
    "float": "f32",
    "double": "f64",
    "float16": "f16",
    "bfloat16": "bf16",
    "string": "str",
    **{f"int{bits}": f"i{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"u{bits}" for bits in (8, 16, 32, 64)},
}


@dataclass(frozen=True)
class Missing:
    """Nodes that a provider has no kernel for.

    Attributes
    ----------
    provider : "cpu", "cuda" or "webgpu"
    operator, version : what the nodes compute, by that version of the operator
    types : of the constrained inputs and outputs, such as `T=f64`
    count : of nodes
    cause : "operator", "version" or "types": what the provider lacks

    """

    provider: str
    operator: str
    version: int
    types: str
    count: int
    cause: str


@dataclass(frozen=True)
class _Kernel:
    first: int
    last: int
    types: dict[str, frozenset[str]]


def run_each_time(written: Written) -> list[onnx.NodeProto]:
    """Return the nodes written that depend on an input, those of a Scan's step behind it.

    What depends on weights alone runtimes compute once, at load, and on the CPU.
    """
    constant = {tensor.name for tensor in written.proto.graph.initializer}
    found = []
    for node in written.emitted:
        if all(name in constant or not name for name in node.input):
            constant.update(node.output)
        else:
            found += [node, *(step for graph in _subgraphs(node) for step in graph.node)]
    return found


def _subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [attribute.g for attribute in node.attribute if attribute.HasField("g")]


def missing(written: Written) -> list[Missing]:
    """Look every node that runs each time up in the table."""
    opsets = {entry.domain: entry.version for entry in written.proto.opset_import}
    opsets |= {"": opsets.get("", opsets.get("ai.onnx", 0))}
    found: Counter[tuple[str, str, int, str, str]] = Counter()
    types = element_types(written.proto)
    for node in run_each_time(written):
        domain = node.domain.removesuffix("ai.onnx")
        schema = defs.get_schema(node.op_type, opsets[domain], domain)
        operator = f"{domain}::{node.op_type}" if domain else node.op_type
        actual = _constrained(node, schema, types)
        for provider in PROVIDERS:
            cause = _cause(provider, operator, schema.since_version, actual)
            if cause:
                text = " ".join(f"{key}={value}" for key, value in sorted(actual.items()))
                found[provider, operator, schema.since_version, text, cause] += 1
    return [Missing(*key[:4], count, key[4]) for key, count in sorted(found.items())]


def _cause(provider: str, operator: str, version: int, actual: dict[str, str]) -> str:
    kernels = _table().get((provider, operator), [])
    if not kernels:
        return "operator"
    fitting = [kernel for kernel in kernels if kernel.first <= version <= kernel.last]
    if not fitting:
        return "version"
    for kernel in fitting:
        if all(actual.get(key) in {None, *allowed} for key, allowed in kernel.types.items()):
            return ""
    return "types"


@cache
def _table() -> dict[tuple[str, str], list[_Kernel]]:
    text = (resources.files("onnxlrp.audit") / "kernels.tsv").read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    table: dict[tuple[str, str], list[_Kernel]] = {}
    for row in csv.DictReader(lines, delimiter="\t"):
        types = dict(entry.split("=") for entry in row["types"].split())
        kernel = _Kernel(
            int(row["first"]),
            int(row["last"] or row["first"]),
            {key: frozenset(names.split(",")) for key, names in types.items()},
        )
        table.setdefault((row["provider"], row["operator"]), []).append(kernel)
    return table


def element_types(proto: onnx.ModelProto) -> dict[str, str]:
    """Return the element type of every value, as the tables write it."""
    graphs = [proto.graph, *(graph for node in proto.graph.node for graph in _subgraphs(node))]
    codes = {
        value.name: value.type.tensor_type.elem_type
        for graph in graphs
        for values in (graph.input, graph.output, graph.value_info)
        for value in values
    }
    codes |= {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
    names = {code: name.lower() for name, code in onnx.TensorProto.DataType.items()}
    return {name: _SHORT.get(names[code], names[code]) for name, code in codes.items()}


def _constrained(
    node: onnx.NodeProto, schema: defs.OpSchema, types: dict[str, str]
) -> dict[str, str]:
    """Return the type of each of the operator's constraints, where it is known."""
    actual: dict[str, str] = {}
    names = {constraint.type_param_str for constraint in schema.type_constraints}
    for values, formal in ((node.input, schema.inputs), (node.output, schema.outputs)):
        for index, name in enumerate(values):
            parameter = formal[min(index, len(formal) - 1)].type_str
            if parameter in names and name in types:
                actual.setdefault(parameter, types[name])
    return actual
