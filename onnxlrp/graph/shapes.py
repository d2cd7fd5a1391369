"""Sizes of axes: known numbers, named symbols, or neither."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnx_ir as ir

from onnxlrp.graph.operators import Fact, has

Dim = int | str | None


def dims_of(shape: ir.Shape) -> tuple[Dim, ...]:
    """Sizes as int, name or None."""
    return tuple(d if isinstance(d, int) else d.value for d in shape)


REFERENCES = "references"
"""How many references are given: one, or as many as there are samples."""


def broadcast(*shapes: Sequence[Dim]) -> tuple[Dim, ...]:
    """Shape of an elementwise result, by ONNX's multidirectional broadcasting."""
    if all(shape == shapes[0] for shape in shapes):
        return tuple(shapes[0])
    rank = max(len(shape) for shape in shapes)
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    result: list[Dim] = []
    for sizes in zip(*padded, strict=True):
        known = [size for size in sizes if isinstance(size, int) and size != 1]
        other = sorted(
            (size for size in sizes if size != 1), key=lambda d: (d == REFERENCES, d is None)
        )
        result.append(known[0] if known else other[0] if other else 1)
    return tuple(result)


def alike(left: Sequence[Dim], right: Sequence[Dim]) -> bool:
    """Whether two shapes are the same as far as they are known."""
    return len(left) == len(right) and all(
        a == b or (isinstance(a, int) + isinstance(b, int) < 2 and 1 not in (a, b))
        for a, b in zip(left, right, strict=True)
    )


def inferred(proto: onnx.ModelProto, strict: bool = False) -> onnx.ModelProto:
    """Return a copy that has been through onnx's shape inference, its nodes not to be used.

    Operators that onnx cannot infer, though their result has their first input's shape, are written
    as Identity there, and trees and support vectors as a choice of columns.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    if any(node.op_type in _TABLES for node in copy.graph.node):
        nodes = [part for node in copy.graph.node for part in _columns(node)]
        del copy.graph.node[:]
        copy.graph.node.extend(nodes)
        if not {entry.domain for entry in copy.opset_import} & {"", "ai.onnx"}:
            copy.opset_import.append(onnx.helper.make_opsetid("", 18))
    for node in copy.graph.node:
        if node.domain in ("", "ai.onnx") and has(node.op_type, Fact.SHAPED):
            node.op_type = "Identity"
            del node.input[1:], node.attribute[:]
    return onnx.shape_inference.infer_shapes(
        copy, check_type=strict, strict_mode=strict, data_prop=True
    )


_TABLES = ("TreeEnsembleRegressor", "TreeEnsemble", "SVMRegressor")


def _columns(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Write what makes [N, targets] of [N, features] as a choice; other nodes as they are."""
    if node.op_type not in _TABLES or len(node.input) != 1:
        return [onnx.NodeProto.FromString(node.SerializeToString())]
    count = next((a.i for a in node.attribute if a.name == "n_targets"), 1)
    (x,), (y,) = node.input, node.output
    zeros = onnx.helper.make_node("Constant", [], [f"{y}/columns"], value_ints=[0] * count)
    chosen = onnx.helper.make_node("Gather", [x, f"{y}/columns"], [f"{y}/chosen"], axis=1)
    done = onnx.helper.make_node("Identity", [f"{y}/chosen"], [y])
    if node.op_type != "TreeEnsemble":
        done = onnx.helper.make_node("Cast", [f"{y}/chosen"], [y], to=onnx.TensorProto.FLOAT)
    return [zeros, chosen, done]


def signature(value: ir.Value) -> tuple[str, str, tuple[Dim, ...]]:
    """Name, type and shape of a value."""
    shape = () if value.shape is None else dims_of(value.shape)
    return value.name or "", "" if value.dtype is None else value.dtype.numpy().name, shape
