"""Small networks, their explainers, and ways to break these, for the tests of the audit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper, numpy_helper
from support import lines, model, node, normal

import onnxlrp

RULES = (
    "Conv: z-plus",
    "Gemm,MatMul,ConvTranspose: epsilon",
    "Add,AveragePool,GlobalAveragePool: norm",
    "BatchNormalization,Mul: epsilon",
    "LRN: taylor",
    "MaxPool: winner-takes-all",
)

STATISTICS = {
    "gamma": normal(4, seed=11),
    "beta": normal(4, seed=12),
    "mean": normal(4, seed=13),
    "variance": np.abs(normal(4, seed=14)) + 0.5,
}


def residual(opset: int = 18, dtype: int = onnx.TensorProto.FLOAT) -> onnx.ModelProto:
    """Conv with BatchNormalization, LRN, MaxPool, a block with a sum around it, pools, a Gemm."""
    nodes = [
        node("Conv", ["x", "w1", "b1"], "c1", pads=[1] * 4, kernel_shape=[3, 3]),
        node("BatchNormalization", ["c1", "gamma", "beta", "mean", "variance"], "n1"),
        node("Relu", ["n1"], "a1"),
        node("LRN", ["a1"], "l1", size=3, alpha=0.5),
        node("MaxPool", ["l1"], "p1", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p1", "w2", "b2"], "c2", pads=[1] * 4, kernel_shape=[3, 3]),
        node("Add", ["c2", "p1"], "s"),
        node("Relu", ["s"], "a2"),
        node("GlobalAveragePool", ["a2"], "g"),
        node("Flatten", ["g"], "f"),
        node("Gemm", ["f", "w3", "b3"], "logits"),
        node("Softmax", ["logits"], "probability"),
    ]
    weights = {
        "w1": normal(4, 3, 3, 3, seed=1),
        "b1": normal(4, seed=2),
        "w2": normal(4, 4, 3, 3, seed=3, scale=0.3),
        "b2": normal(4, seed=4),
        "w3": normal(4, 3, seed=5),
        "b3": normal(3, seed=6),
        **STATISTICS,
    }
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    weights = {name: array.astype(kind) for name, array in weights.items()}
    return model(nodes, {"x": ["N", 3, 8, 8]}, ["probability"], weights, opset, dtype)


def explained(proto: onnx.ModelProto, *rules: str, **options: object) -> onnx.ModelProto:
    """Convert a model with `RULES` below the given lines."""
    return onnxlrp.convert(proto, lines(*rules, *RULES), **options).to_proto()


def dense(weights: list[list[float]], bias: list[float]) -> onnx.ModelProto:
    """One Gemm: x [1, inputs] -> logits [1, outputs]."""
    arrays = {"w": np.array(weights, np.float32), "b": np.array(bias, np.float32)}
    return model(
        [node("Gemm", ["x", "w", "b"], "logits")], {"x": [1, len(weights)]}, ["logits"], arrays
    )


def applied(proto: onnx.ModelProto, value: str, change: Callable[[str], list[onnx.NodeProto]]):
    """Put nodes behind the one that computes a value; they read `before`."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    nodes = copy.graph.node
    producer = next(entry for entry in nodes if value in entry.output)
    producer.output[list(producer.output).index(value)] = "before"
    position = list(nodes).index(producer)
    for offset, entry in enumerate(change("before"), 1):
        nodes.insert(position + offset, entry)
    return copy


def multiplied(proto: onnx.ModelProto, value: str, factor: float) -> onnx.ModelProto:
    """Multiply what an explainer computes for one value by a number."""
    copy = applied(
        proto,
        value,
        lambda before: [helper.make_node("Mul", [before, "factor"], [value], "onnxlrp/broken")],
    )
    copy.graph.initializer.append(numpy_helper.from_array(np.float32(factor), "factor"))
    return copy


def with_weight(proto: onnx.ModelProto, name: str, factor: float) -> onnx.ModelProto:
    """Multiply an initializer by a number."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    tensor = next(entry for entry in copy.graph.initializer if entry.name == name)
    array = numpy_helper.to_array(tensor) * np.float32(factor)
    tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float32), name))
    return copy


def with_metadata(proto: onnx.ModelProto, key: str, text: str) -> onnx.ModelProto:
    """Change an entry of an explainer's metadata."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    next(entry for entry in copy.metadata_props if entry.key == key).value = text
    return copy
