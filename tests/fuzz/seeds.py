"""Small sound models that the fuzzer spoils."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from support import model, node, normal


def pictures() -> onnx.ModelProto:
    """Classify pictures with convolution, pools and normalisation."""
    return model(
        [
            node("Conv", ["x", "k", "b"], "c", pads=[1] * 4, kernel_shape=[3, 3]),
            node("BatchNormalization", ["c", "g", "b", "b", "v"], "n"),
            node("Relu", ["n"], "a"),
            node("MaxPool", ["a"], "p", kernel_shape=[2, 2], strides=[2, 2]),
            node("LRN", ["p"], "l", size=3),
            node("GlobalAveragePool", ["l"], "m"),
            node("Flatten", ["m"], "f"),
            node("Gemm", ["f", "w"], "logits"),
            node("Softmax", ["logits"], "probability"),
        ],
        {"x": ["N", 3, 8, 8]},
        ["probability"],
        {
            "k": normal(4, 3, 3, 3, seed=1),
            "b": normal(4, seed=2),
            "g": normal(4, seed=3),
            "v": np.abs(normal(4, seed=4)) + 0.1,
            "w": normal(4, 3, seed=5),
        },
    )


def attention() -> onnx.ModelProto:
    """Classify sequences with attention."""
    return model(
        [
            node("MatMul", ["x", "q"], "queries"),
            node("Transpose", ["queries"], "keys", perm=[0, 2, 1]),
            node("MatMul", ["queries", "keys"], "scores"),
            node("Softmax", ["scores"], "shares"),
            node("MatMul", ["shares", "x"], "mixed"),
            node("LayerNormalization", ["mixed", "s"], "n"),
            node("ReduceMean", ["n", "axis"], "f", keepdims=0),
            node("Gemm", ["f", "w"], "logits"),
        ],
        {"x": ["N", 5, 6]},
        ["logits"],
        {
            "q": normal(6, 4, seed=1),
            "s": normal(6, seed=2),
            "axis": np.array([1]),
            "w": normal(6, 3, seed=3),
        },
    )


def gated() -> onnx.ModelProto:
    """Classify pictures as mobile networks do: preprocessing, depth-wise, gates, a sum."""
    return model(
        [
            node("Sub", ["x", "mean"], "shifted"),
            node("Div", ["shifted", "std"], "scaled"),
            node("Pad", ["scaled", "pads"], "padded"),
            node("Conv", ["padded", "k"], "c", strides=[2, 2]),
            node("Clip", ["c", "", "six"], "a"),
            node("Conv", ["a", "d", "b"], "d1", group=4, auto_pad="SAME_UPPER"),
            node("ReduceMean", ["d1", "axes"], "squeezed", keepdims=1),
            node("Conv", ["squeezed", "e", "b"], "excited"),
            node("HardSigmoid", ["excited"], "gate"),
            node("Mul", ["d1", "gate"], "g"),
            node("Add", ["g", "a"], "sum"),
            node("AveragePool", ["sum"], "p", kernel_shape=[2, 2], count_include_pad=1,
                 pads=[1, 1, 1, 1], strides=[2, 2]),
            node("Reshape", ["p", "row"], "r"),
            node("MatMul", ["r", "w"], "m"),
            node("Add", ["m", "v"], "logits"),
        ],
        {"x": ["N", 3, 9, 9]},
        ["logits"],
        {
            "mean": normal(1, 3, 1, 1, seed=1),
            "std": np.abs(normal(1, 3, 1, 1, seed=2)) + 0.5,
            "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
            "k": normal(4, 3, 3, 3, seed=3),
            "six": np.array(6, np.float32),
            "d": normal(4, 1, 3, 3, seed=4),
            "b": normal(4, seed=5),
            "axes": np.array([2, 3]),
            "e": normal(4, 4, 1, 1, seed=6),
            "row": np.array([0, -1]),
            "w": normal(36, 3, seed=7),
            "v": normal(3, seed=8),
        },
    )  # fmt: skip


def functions() -> onnx.ModelProto:
    """Classify rows with functions of the model's own, one of which calls the other."""
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    weight = numpy_helper.from_array(normal(6, 6, seed=1), "inside")
    dense = [
        helper.make_node("Constant", [], ["w"], value=weight),
        helper.make_node("MatMul", ["i", "w"], ["o"]),
    ]
    block = [
        helper.make_node("Dense", ["i"], ["d"], domain="own"),
        helper.make_node("LeakyRelu", ["d"], ["a"]),
        helper.make_node("Add", ["a", "i"], ["o"]),
    ]
    block[1].attribute.append(
        onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    )
    graph = helper.make_graph(
        [
            helper.make_node("Block", ["x"], ["h"], "first", domain="own", slope=0.1),
            helper.make_node("Block", ["h"], ["f"], "second", domain="own", slope=0.2),
            helper.make_node("Gemm", ["f", "u"], ["logits"], "last"),
        ],
        "functions",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(normal(6, 3, seed=2), "u")],
    )
    return helper.make_model(
        graph,
        opset_imports=opsets,
        ir_version=10,
        functions=[
            helper.make_function("own", "Dense", ["i"], ["o"], dense, opsets),
            helper.make_function("own", "Block", ["i"], ["o"], block, opsets, ["slope"]),
        ],
    )


def old() -> onnx.ModelProto:
    """Classify pictures in an opset that has to be lifted, of a fixed batch."""
    return model(
        [
            node("Conv", ["x", "k"], "c"),
            node("PRelu", ["c", "slope"], "a"),
            node("Slice", ["a"], "s", axes=[2, 3], starts=[0, 0], ends=[4, -1]),
            node("ConvTranspose", ["s", "t"], "up", strides=[2, 2]),
            node("Dropout", ["up"], "dropped"),
            node("MaxPool", ["dropped"], "p", kernel_shape=[3, 3], strides=[2, 2]),
            node("ReduceSum", ["p"], "r", axes=[2, 3], keepdims=0),
            node("Gemm", ["r", "w", "v"], "logits", transB=1),
            node("Softmax", ["logits"], "probability"),
        ],
        {"x": [1, 2, 7, 7]},
        ["probability", "logits"],
        {
            "k": normal(3, 2, 3, 3, seed=1),
            "slope": np.abs(normal(3, 1, 1, seed=2)),
            "t": normal(3, 2, 2, 2, seed=3),
            "w": normal(4, 2, seed=4),
            "v": normal(4, seed=5),
        },
        opset=9,
    )


def tokens() -> onnx.ModelProto:
    """Classify tokens by a table, a convolution along them, and their mean."""
    return model(
        [
            node("Gather", ["table", "x"], "rows"),
            node("Add", ["rows", "places"], "placed"),
            node("Transpose", ["placed"], "t", perm=[0, 2, 1]),
            node("Conv", ["t", "k"], "c", pads=[1, 1]),
            node("Sigmoid", ["c"], "gate"),
            node("Mul", ["c", "gate"], "a"),
            node("ReduceMean", ["a", "axis"], "f", keepdims=0),
            node("Gemm", ["f", "w"], "logits"),
        ],
        {"x": ["N", 5]},
        ["logits"],
        {
            "table": normal(9, 4, seed=1),
            "places": normal(5, 4, seed=2),
            "k": normal(6, 4, 3, seed=3),
            "axis": np.array([2]),
            "w": normal(6, 3, seed=4),
        },
        dtype=TensorProto.INT64,
    )


def seeds() -> list[onnx.ModelProto]:
    """Return them all, each to be changed at will."""
    return [onnx.ModelProto.FromString(content) for content in _contents()]


@cache
def _contents() -> list[bytes]:
    built = pictures(), attention(), gated(), functions(), old(), tokens()
    return [proto.SerializeToString() for proto in built]
