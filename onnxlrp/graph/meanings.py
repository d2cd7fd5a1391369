"""What operators on quantised numbers mean, each as operators on real ones, in a model's twin."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import onnx

from onnxlrp.graph.bodies import MICROSOFT
from onnxlrp.graph.quantised import (
    DEQUANTISE,
    DYNAMIC,
    OPEN,
    QUANTISE,
    Twin,
    attribute_of,
    input_of,
    key_of,
)


def _quantise(twin: Twin, node: onnx.NodeProto) -> None:
    scale, zero = node.input[1], input_of(node, 2)
    dims = twin.constant[scale].dims if scale in twin.constant else ()
    axis = attribute_of(node, "axis", 1) if np.prod(dims, dtype=int) > 1 else None
    kind = attribute_of(node, "output_dtype", 0)
    x, (q,) = twin.name(node.input[0]), node.output
    twin.round(x, q, scale, zero, node.name, axis, kind, node.domain)


def _dequantise(twin: Twin, node: onnx.NodeProto) -> None:
    q, scale, zero = (input_of(node, place) for place in range(3))
    dims = twin.constant[scale].dims if scale in twin.constant else ()
    single = np.prod(dims, dtype=int) == 1
    axis = None if single else attribute_of(node, "axis", 1)
    more = {n: v for n in ("block_size", "output_dtype") if (v := attribute_of(node, n, 0))}
    d = node.output[0]
    twin.names[d] = twin.dequantised(
        q, scale, zero, axis, twin.name(d), name=node.name, domain=node.domain, **more
    )


def _dynamic(twin: Twin, node: onnx.NodeProto) -> None:
    x, (q, scale, zero) = node.input[0], node.output
    twin.scales[q] = (scale, zero)
    twin.absent.update((scale, zero))
    twin.add(OPEN, [twin.name(x)], twin.name(q), name=node.name, reads=(DYNAMIC, [x]))


def _form(op: str, *operands: int, result: int, **given: Any) -> Callable[..., None]:
    """Return how an operator is written whose operands' scales stand behind each of them."""

    def write(twin: Twin, node: onnx.NodeProto) -> None:
        inputs = [twin.real(node, index) for index in operands]
        twin.compute(node, op, inputs, result, **given)

    return write


def _conv(twin: Twin, node: onnx.NodeProto) -> None:
    inputs = [twin.real(node, 0), twin.real(node, 3, twin.axis_of(node.input[4], 0))]
    inputs += twin.bias(node, 8, node.input[1], node.input[4])
    twin.compute(node, "Conv", inputs, 6)


def _matmul(twin: Twin, node: onnx.NodeProto) -> None:
    weights = twin.real(node, 3, twin.axis_of(node.input[4], -1))
    twin.compute(node, "MatMul", [twin.real(node, 0), weights], 6)


def _gemm(twin: Twin, node: onnx.NodeProto) -> None:
    turned = attribute_of(node, "transB", 0)
    weights = twin.real(node, 3, twin.axis_of(node.input[4], 0 if turned else 1))
    bias = twin.bias(node, 6, node.input[1], node.input[4])
    if bias and attribute_of(node, "alpha", 1.0) != 1:
        twin.refuse(node)
    twin.compute(node, "Gemm", [twin.real(node, 0), weights, *bias], 7)


def _concat(twin: Twin, node: onnx.NodeProto) -> None:
    parts = [twin.real(node, index) for index in range(2, len(node.input), 3)]
    twin.compute(node, "Concat", parts, 0)


def _where(twin: Twin, node: onnx.NodeProto) -> None:
    branches = [twin.real(node, 1), twin.real(node, 4)]
    twin.compute(node, "Where", [twin.name(node.input[0]), *branches], 7)


def _softmax(twin: Twin, node: onnx.NodeProto) -> None:
    if attribute_of(node, "opset", 13) < 13 and attribute_of(node, "axis", 1) not in (-1,):
        twin.refuse(node)
    twin.compute(node, "Softmax", [twin.real(node, 0)], 3)


def _to_float(twin: Twin, node: onnx.NodeProto) -> None:
    a, b, a_scale, b_scale, a_zero, b_zero, bias = (input_of(node, i) for i in range(7))
    weights = twin.dequantised(b, b_scale, b_zero, twin.axis_of(b_scale, -1))
    _multiplied(twin, node, twin.dequantised(a, a_scale, a_zero, None), weights, bias)


def _dynamic_matmul(twin: Twin, node: onnx.NodeProto) -> None:
    a, b, scale, zero, bias = (input_of(node, i) for i in range(5))
    rounded = f"{node.output[0]}_input"
    twin.add(OPEN, [twin.name(a)], rounded, reads=(DYNAMIC, [a]))
    weights = twin.dequantised(b, scale, zero, twin.axis_of(scale, -1))
    _multiplied(twin, node, rounded, weights, bias)


def _multiplied(twin: Twin, node: onnx.NodeProto, a: str, b: str, bias: str) -> None:
    y = node.output[0]
    if not bias:
        twin.compute(node, "MatMul", [a, b], None)
        return
    z = twin.add("MatMul", [a, b], f"{y}_product", name=node.name)
    twin.add("Add", [z, bias], twin.name(y), name=f"{node.name or y}/bias")


def _of_whole(twin: Twin, node: onnx.NodeProto) -> None:
    if node.input[0] not in twin.scales:
        twin.refuse(node)
    twin.sums[node.output[0]] = node
    twin.absent.update(node.output)


WRITERS: dict[str, Callable[[Twin, onnx.NodeProto], None]] = {
    **dict.fromkeys(QUANTISE, _quantise),
    **dict.fromkeys(DEQUANTISE, _dequantise),
    **dict.fromkeys(("ConvInteger", "MatMulInteger"), _of_whole),
    "DynamicQuantizeLinear": _dynamic,
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
    f"{MICROSOFT}::QLinearConv": _conv,
    f"{MICROSOFT}::QGemm": _gemm,
    f"{MICROSOFT}::QLinearAdd": _form("Add", 0, 3, result=6),
    f"{MICROSOFT}::QLinearMul": _form("Mul", 0, 3, result=6),
    f"{MICROSOFT}::QLinearSigmoid": _form("Sigmoid", 0, result=3),
    f"{MICROSOFT}::QLinearLeakyRelu": _form("LeakyRelu", 0, result=3),
    f"{MICROSOFT}::QLinearGlobalAveragePool": _form("GlobalAveragePool", 0, result=3),
    f"{MICROSOFT}::QLinearAveragePool": _form("AveragePool", 0, result=3),
    f"{MICROSOFT}::QLinearConcat": _concat,
    f"{MICROSOFT}::QLinearWhere": _where,
    f"{MICROSOFT}::QLinearSoftmax": _softmax,
    f"{MICROSOFT}::MatMulIntegerToFloat": _to_float,
    f"{MICROSOFT}::DynamicQuantizeMatMul": _dynamic_matmul,
}
"""By operator: how what it means is written."""

PACKED = (f"{MICROSOFT}::MatMulNBits", f"{MICROSOFT}::GatherBlockQuantized")
"""Operators that have a body (`graph.packed`), for the twin alone."""


def split(proto: onnx.ModelProto, weights: Iterable[onnx.TensorProto]) -> onnx.GraphProto | None:
    """Replace a quantised model by its twin; return what it was, without initializers.

    Parameters
    ----------
    proto : as `lifting` has it, its large weights set aside
    weights : those

    Returns
    -------
    None for a model without anything quantised, which stays as it is

    Raises
    ------
    ModelError
        Integers are computed with in a way that says nothing of real numbers.

    """
    graph = proto.graph
    if not any(key_of(node) in (*WRITERS, *PACKED) for node in graph.node):
        return None
    _hold(graph)
    own = onnx.GraphProto()
    own.CopyFrom(graph)
    constant = {t.name: t for t in (*graph.initializer, *weights)}
    twin = Twin(graph, constant, WRITERS)
    for node in own.node:
        twin.take(node)
    outputs = twin.outputs()
    del graph.node[:], graph.output[:], graph.value_info[:], own.initializer[:]
    graph.node.extend(twin.nodes)
    graph.output.extend(outputs)
    graph.value_info.extend(twin.typed)
    graph.value_info.extend(v for v in own.value_info if v.name not in twin.scales)
    graph.initializer.extend(twin.constants)
    return own


def _hold(graph: onnx.GraphProto) -> None:
    """Make initializers of tensors that nodes hold: how a scale is read depends on its sizes."""
    put_out = {value.name for value in graph.output}
    nodes = []
    for node in graph.node:
        tensor = attribute_of(node, "value", None)
        if key_of(node) == "Constant" and tensor is not None and node.output[0] not in put_out:
            graph.initializer.add().CopyFrom(tensor)
            graph.initializer[-1].name = node.output[0]
        else:
            nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
    del graph.node[:]
    graph.node.extend(nodes)
