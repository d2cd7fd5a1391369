"""One operation of the model as a node of its own, with what is merged into it in its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import helper

from onnxlrp.graph.canonical import EXPLICIT_WEIGHTS, Operation, constant_of

Array = NDArray[Any]


class NotRecomputableError(Exception):
    """An operation that cannot be written as one node; the text says why."""


@dataclass(frozen=True)
class Standalone:
    """A node and the values of its inputs.

    Attributes
    ----------
    node : an operator of ONNX
    inputs : one array for each input of the node, real numbers in float64; None for absent ones
    rows : the node wants all axes of x in front of the last as one

    """

    node: onnx.NodeProto
    inputs: list[Array | None]
    rows: bool = False


def standalone(operation: Operation, values: Mapping[str, Array]) -> Standalone:
    """Write an operation as one node.

    Parameters
    ----------
    operation : with all that is merged into it
    values : of the inputs that are not initializers, by name

    Raises
    ------
    NotRecomputableError
        If ONNX has no single operator for it.

    """
    if operation.node.domain not in ("", "ai.onnx", "ai.onnx.ml"):
        raise NotRecomputableError(f"{operation.operator} is no operator of ONNX")
    inputs = [_widened(value, values) for value in operation.inputs]
    if operation.operator == "LRN" and operation.node.op_type != "LRN":
        return Standalone(_lrn(operation), inputs)
    if len(operation.nodes) > 1 and operation.operator not in EXPLICIT_WEIGHTS:
        return _spelled(operation, inputs)
    if operation.operator == "Identity":
        return Standalone(helper.make_node("Identity", ["x"], ["y"], name=operation.name), inputs)
    node: onnx.NodeProto = ir.to_proto(operation.node)
    _take_attributes(node, operation)
    if operation.scale is None or operation.shift is None:
        return Standalone(node, inputs)
    return _affine(operation, Standalone(node, inputs), operation.scale, operation.shift)


def unmoved(operation: Operation, values: Mapping[str, Array], array: Array) -> Array:
    """Take an array in the shape of the output back to where the operation's moves start.

    `values` are of the inputs of its moves, by name.
    """
    for move in reversed(operation.moves):
        source = move.inputs[0]
        assert source is not None
        shape = values[source.name or ""].shape
        order = move.attributes.get("perm") or range(len(shape))[::-1]
        transposed = move.operator == "Transpose"
        array = array.transpose(np.argsort(order)) if transposed else array.reshape(shape)
    return array


def _widened(value: ir.Value | None, values: Mapping[str, Array]) -> Array | None:
    if value is None:
        return None
    constant = constant_of(value)
    array = values[value.name or ""] if constant is None else np.asarray(constant)
    real = np.issubdtype(array.dtype, np.floating) or array.dtype.name == "bfloat16"
    return array.astype(np.float64) if real else array


def _take_attributes(node: onnx.NodeProto, operation: Operation) -> None:
    """Replace the attributes that merging a Pad has changed."""
    own = operation.node.attributes
    for name, value in operation.attributes.items():
        if name not in own or own[name].value != value:
            kept = [attribute for attribute in node.attribute if attribute.name != name]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute(name, value)])


def _lrn(operation: Operation) -> onnx.NodeProto:
    wanted = dict(operation.attributes)
    if "window" in wanted:
        raise NotRecomputableError("its window is not along the channels, as that of ONNX's LRN is")
    size, before, after = wanted["size"], wanted.pop("before"), wanted.pop("after")
    if (before, after) != ((size - 1) // 2, size // 2):
        raise NotRecomputableError(
            f"its window, {before} channels before and {after} after, is not that of ONNX's LRN"
        )
    return helper.make_node("LRN", ["x"], ["y"], name=operation.name, **wanted)


def _spelled(operation: Operation, inputs: list[Array | None]) -> Standalone:
    """Write an operator that the model writes out; `axes` say what no `axis` of ONNX can."""
    factors = [factor for factor in (operation.scale, operation.shift) if factor is not None]
    (x,) = inputs
    if operation.operator == "GroupNormalization" and x is not None:
        factors = [np.broadcast_to(factor.reshape(-1), x.shape[1:2]) for factor in factors]
    node = helper.make_node(
        operation.operator, ["x", "scale", "bias"][: 1 + len(factors)], ["y"],
        name=operation.name, **operation.attributes,
    )  # fmt: skip
    return Standalone(node, [x, *factors])


def _affine(operation: Operation, plain: Standalone, scale: Array, shift: Array) -> Standalone:
    """Put scale and shift of the output's channels into weights and bias."""
    node, (x, weights, *rest) = plain.node, plain.inputs
    assert weights is not None
    old = rest[0] if rest and rest[0] is not None else np.zeros(1)
    operator = operation.operator
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if operator == "Conv":
        axis, channels = 0, weights.shape[0]
    elif operator == "ConvTranspose":
        axis, channels = 1, weights.shape[1] * attributes.get("group", 1)
        if attributes.get("group", 1) > 1 and scale.size > 1:
            raise NotRecomputableError("a scale of each channel behind a grouped ConvTranspose")
    elif operator == "Gemm":
        axis = 0 if attributes.get("transB", 0) else 1
        channels = weights.shape[axis]
        old = old * attributes.get("beta", 1.0)
    elif weights.ndim == 2 and x is not None and plain.node.op_type == "MatMul":
        axis, channels = 1, weights.shape[1]
        attributes = {}
        node = helper.make_node("Gemm", ["x", "w"], ["y"], name=operation.name)
    else:
        raise NotRecomputableError(f"what is merged into {operator} is not in weights of its own")
    extent = [1] * weights.ndim
    extent[axis] = -1
    bias = np.broadcast_to(old * scale + shift, (*old.shape[:-1], channels))
    merged = onnx.NodeProto()
    merged.CopyFrom(node)
    merged.input[:] = ["x", "w", "b"]
    kept = [attribute for attribute in merged.attribute if attribute.name != "beta"]
    del merged.attribute[:]
    merged.attribute.extend(kept)
    return replace(
        plain,
        node=merged,
        inputs=[x, weights * scale.reshape(extent), bias],
        rows=operator == "MatMul",
    )
