"""Operators that have no rule, written out as what they compute."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.inliner
from onnx import helper

from onnxlrp.graph import (
    attention,
    einsum,
    fused,
    packed,
    plain,
    sampling,
    spectra,
    support_vectors,
    tabular,
)
from onnxlrp.graph.bodies import BODIES, MICROSOFT, ML, Call, written_out
from onnxlrp.graph.recurrent import time_first
from onnxlrp.graph.shapes import inferred
from onnxlrp.graph.tensors import SMALL, elements

__all__ = [
    "INLINED",
    "attention",
    "einsum",
    "expand",
    "fused",
    "packed",
    "plain",
    "rename",
    "sampling",
    "spectra",
    "support_vectors",
    "tabular",
]

INLINED = (
    *("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"),
    *("CastLike", "CenterCropPad", "SwiGLU"),
    *("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"),
    "ai.onnx.preview::FlexAttention",
)
"""Operators that onnx itself has a body for, which serves."""

_LEAST = 18
"""The opset of a model that has used no operator of ONNX's own so far."""

_OLD = 17
"""The first opset that has a LayerNormalization; onnxruntime's optimisers write it below, too."""


def rename(graph: onnx.GraphProto, opset: int) -> bool:
    """Give onnxruntime's operators that it puts into ONNX's domain its own; tell whether any."""
    found = [
        node
        for node in graph.node
        if node.domain in ("", "ai.onnx")
        and (
            node.op_type == "SimplifiedLayerNormalization"
            or (node.op_type == "LayerNormalization" and opset < _OLD)
        )
    ]
    for node in found:
        node.domain = MICROSOFT
    return bool(found)


def expand(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Write out what can be; the rest stays, for there is nothing wrong with it as such.

    What a body needs of shapes may be known only once what lies in front is written out.
    """
    _columns(proto.graph)
    if any(entry.domain == ML for entry in proto.opset_import):
        tabular.thresholds(proto.graph)
    while _written_out(proto):
        pass
    time_first(proto.graph)
    return _inlined(proto)


def _columns(graph: onnx.GraphProto) -> None:
    """Write a product with a constant vector as one with a matrix of one column, or row."""
    vectors = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 1}
    result: list[onnx.NodeProto] = []
    for node in graph.node:
        at = [place for place, name in enumerate(node.input) if name in vectors]
        copy = onnx.NodeProto.FromString(node.SerializeToString())
        result.append(copy)
        if node.op_type != "MatMul" or node.domain not in ("", "ai.onnx") or len(at) != 1:
            continue
        (place,) = at
        made = node.output[0]
        names = [f"{made}/{name}" for name in ("axis", "matrix", "last", "product")]
        axis, matrix, last, product = names
        for name, value in ((axis, place), (last, -1 if place else -2)):
            constant = helper.make_tensor(name, onnx.TensorProto.INT64, [1], [value])
            graph.initializer.append(constant)
        unsqueezed = helper.make_node("Unsqueeze", [node.input[place], axis], [matrix])
        copy.input[place], copy.output[0] = matrix, product
        squeezed = helper.make_node("Squeeze", [product, last], [made])
        result[-1:] = [unsqueezed, copy, squeezed]
    if len(result) > len(graph.node):
        del graph.node[:]
        graph.node.extend(result)


def _key(node: onnx.NodeProto) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"


def _written_out(proto: onnx.ModelProto) -> bool:
    """Replace the nodes that have bodies; tell whether there were any."""
    graph = proto.graph
    if not any(_key(node) in BODIES for node in graph.node):
        return False
    typed = inferred(proto).graph
    types = {
        value.name: value.type.tensor_type
        for value in (*typed.input, *typed.output, *typed.value_info)
        if value.type.tensor_type.HasField("shape")
    }
    for tensor in graph.initializer:
        info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        types[tensor.name] = info.type.tensor_type
    opset = next((e.version for e in proto.opset_import if e.domain in ("", "ai.onnx")), 0)
    if not opset:
        opset = _LEAST
        proto.opset_import.append(helper.make_opsetid("", opset))
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer if _held(t)}
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            given = helper.get_node_attr_value(node, node.attribute[0].name)
            if isinstance(given, onnx.TensorProto) and _held(given):
                constants[node.output[0]] = onnx.numpy_helper.to_array(given)
            elif isinstance(given, (int, float, list)):
                constants[node.output[0]] = np.asarray(given)
    result: list[onnx.NodeProto] = []
    changed = False
    for node in graph.node:
        body = written_out(Call(node, types, opset, constants))
        changed |= body is not None
        result += [onnx.NodeProto.FromString(node.SerializeToString())] if body is None else body
    del graph.node[:]
    graph.node.extend(result)
    return changed


def _held(tensor: onnx.TensorProto) -> bool:
    """Whether a tensor is small, and in the file."""
    inside = tensor.data_location != onnx.TensorProto.EXTERNAL
    return inside and tensor.data_type != onnx.TensorProto.STRING and elements(tensor) <= SMALL


def _inlined(proto: onnx.ModelProto) -> onnx.ModelProto:
    if not any(_key(node) in INLINED for node in proto.graph.node):
        return proto
    graph = proto.graph
    typed = {value.name for value in (*graph.input, *graph.value_info)}
    # The inliner asks for the types of all that a body reads, initializers not among them.
    graph.value_info.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in graph.initializer
        if tensor.name not in typed
    )
    return onnx.inliner.inline_selected_functions(
        proto, [_identifier(name) for name in INLINED], exclude=False, inline_schema_functions=True
    )


def _identifier(operator: str) -> tuple[str, str]:
    domain, _, name = operator.rpartition("::")
    return domain, name
