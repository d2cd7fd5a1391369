"""Small cases of every operator, for tests: name, inputs and attributes, with random numbers.

The first input is the live one, unless a test says otherwise.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxlrp.reference.operators import Array

Case = tuple[str, list[Array | None], dict[str, Any]]
StructuralCase = tuple[str, list[Array | None], list[str], dict[str, Any]]

SAME_UPPER, SAME_LOWER, VALID = "SAME_UPPER", "SAME_LOWER", "VALID"

LINEAR_RULES: list[tuple[str, dict[str, Any]]] = [
    ("epsilon", {}),
    ("epsilon", {"epsilon": 0.25, "bias": "exclude"}),
    ("epsilon", {"epsilon": 0.25, "bias": "distribute"}),
    ("epsilon", {"power": 2}),
    ("norm", {"stabiliser": 0.1}),
    ("z-plus", {}),
    ("z-plus", {"stabiliser": 0.1, "bias": "distribute"}),
    ("alpha-beta", {"alpha": 2.0, "beta": 1.0}),
    ("alpha-beta", {"alpha": 1.5, "beta": 0.5, "stabiliser": 0.1, "bias": "distribute"}),
    ("beta", {"beta": 0.5, "bias": "exclude"}),
    ("flat", {"stabiliser": 0.1}),
    ("even", {"stabiliser": 0.1}),
    ("gamma", {}),
    ("gamma", {"gamma": 2.0, "stabiliser": 0.1, "bias": "exclude"}),
    ("gamma", {"gamma": 0.5, "bias": "distribute"}),
    ("gamma-original", {"stabiliser": 0.1}),
    ("gamma-original", {"gamma": 1.0, "bias": "distribute"}),
    ("w-square", {}),
    ("w-square", {"stabiliser": 0.1, "bias": "exclude"}),
    ("w-square", {"bias": "distribute"}),
    ("z-box", {"low": -4.0, "high": 5.0}),
    ("zero", {}),
]


def normal(*shape: int, seed: int = 0) -> Array:
    """Return random numbers that float32 holds exactly, so that a runtime sees the same ones."""
    generator = np.random.default_rng([seed, *shape])
    return generator.standard_normal(shape, dtype=np.float32).astype(np.float64)


def named(some: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Name cases after their operator and their place in the list."""
    return [pytest.param(*case, id=f"{case[0]}-{i}") for i, case in enumerate(some)]


def per_sample(array: Array) -> Array:
    """Add up all but axis 0."""
    total: Array = array.reshape(len(array), -1).sum(axis=1)
    return total


def node(
    op_type: str, inputs: Sequence[Array | None], outputs: Sequence[str] = ("y",), **attributes: Any
) -> onnx.NodeProto:
    """Make a node with inputs named x0, x1, ... where there is one."""
    names = ["" if v is None else f"x{i}" for i, v in enumerate(inputs)]
    return helper.make_node(op_type, names, list(outputs), **attributes)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    feeds: Mapping[str, Array],
    outputs: Sequence[str],
    constants: Mapping[str, Array] | None = None,
    opset: int = 22,
) -> onnx.ModelProto:
    """Build a model of nodes; feeds are its inputs, and real numbers in it are float32."""

    def narrow(v: Array) -> Array:
        return v.astype(np.float32) if v.dtype == np.float64 else v

    graph = helper.make_graph(
        nodes,
        "test",
        [
            helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(narrow(v).dtype), None)
            for k, v in feeds.items()
        ],
        [helper.make_empty_tensor_value_info(k) for k in outputs],
        [numpy_helper.from_array(narrow(v), k) for k, v in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 10
    return model


X1, X2, X3 = normal(2, 4, 9), normal(2, 4, 7, 6), normal(1, 2, 4, 5, 4)

CONVOLUTIONS: list[Case] = [
    ("Conv", [X1, normal(6, 4, 3), normal(6)], {"strides": [2], "pads": [2, 1]}),
    ("Conv", [X2, normal(6, 4, 3, 2), normal(6)], {}),
    ("Conv", [X2, normal(6, 4, 3, 2)], {"strides": [2, 3], "pads": [0, 2, 1, 3]}),
    ("Conv", [X2, normal(6, 2, 3, 3), normal(6)], {"group": 2, "dilations": [2, 1]}),
    ("Conv", [X2, normal(4, 1, 3, 3), normal(4)], {"group": 4, "pads": [1, 1, 1, 1]}),
    ("Conv", [X2, normal(3, 4, 2, 4), normal(3)], {"auto_pad": SAME_UPPER, "strides": [2, 2]}),
    ("Conv", [X2, normal(3, 4, 2, 4), normal(3)], {"auto_pad": SAME_LOWER, "strides": [2, 2]}),
    ("Conv", [X2, normal(3, 4, 2, 4), normal(3)], {"auto_pad": VALID, "strides": [2, 1]}),
    ("Conv", [X3, normal(3, 2, 2, 3, 2), normal(3)], {"pads": [1, 0, 1, 0, 1, 1]}),
    ("ConvTranspose", [X1, normal(4, 3, 3), normal(3)], {"strides": [2], "pads": [1, 0]}),
    ("ConvTranspose", [X2, normal(4, 3, 3, 2), normal(3)], {}),
    (
        "ConvTranspose",
        [X2, normal(4, 2, 3, 3), normal(4)],
        {"strides": [3, 2], "output_padding": [2, 1], "pads": [1, 1, 0, 2], "group": 2},
    ),
    ("ConvTranspose", [X2, normal(4, 2, 2, 3)], {"dilations": [2, 3], "strides": [2, 1]}),
    ("ConvTranspose", [X2, normal(4, 2, 3, 3)], {"output_shape": [14, 11], "strides": [2, 2]}),
    ("ConvTranspose", [X2, normal(4, 2, 3, 3)], {"auto_pad": SAME_UPPER, "strides": [2, 2]}),
    ("ConvTranspose", [X2, normal(4, 2, 3, 3)], {"auto_pad": SAME_LOWER, "strides": [2, 2]}),
    ("ConvTranspose", [X3, normal(2, 2, 2, 3, 2), normal(2)], {"strides": [1, 2, 2]}),
]

POOLINGS: list[dict[str, Any]] = [
    {"kernel_shape": [3, 2]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1},
    {"kernel_shape": [2, 3], "strides": [3, 2], "pads": [1, 0, 1, 2], "ceil_mode": 1},
    {"kernel_shape": [2, 2], "strides": [3, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1},
    {"kernel_shape": [2, 3], "dilations": [2, 2], "pads": [1, 2, 0, 1]},
    {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": SAME_UPPER},
    {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": SAME_LOWER},
    {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": VALID},
]
MAX_POOLS: list[Case] = [("MaxPool", [X2], p) for p in POOLINGS]
AVERAGE_POOLS: list[Case] = [
    ("AveragePool", [X2], {**p, "count_include_pad": c}) for p in POOLINGS for c in (0, 1)
]
POOL_1D: dict[str, Any] = {"kernel_shape": [3], "strides": [2], "pads": [1, 0], "ceil_mode": 1}
AVERAGE_POOLS.append(("AveragePool", [X1], POOL_1D))
MAX_POOLS.append(("MaxPool", [X1], POOL_1D))

STATISTICS = [normal(4), normal(4, seed=1), normal(4, seed=2), np.abs(normal(4, seed=3)) + 0.5]
LINEAR: list[Case] = [
    *CONVOLUTIONS,
    *AVERAGE_POOLS,
    ("Gemm", [normal(3, 5), normal(5, 4), normal(4)], {}),
    ("Gemm", [normal(5, 3), normal(4, 5), normal(3, 1)], {"transA": 1, "transB": 1, "alpha": 0.5}),
    ("Gemm", [normal(3, 5), normal(4, 5), normal(1)], {"transB": 1, "beta": 0.25}),
    ("Gemm", [normal(3, 5), normal(5, 4)], {"alpha": 2.0}),
    ("MatMul", [normal(3, 5), normal(5, 4)], {}),
    ("MatMul", [normal(2, 3, 5), normal(5, 4)], {}),
    ("MatMul", [normal(2, 1, 3, 5), normal(4, 5, 2)], {}),
    ("MatMul", [normal(2, 3, 5), normal(5)], {}),
    ("GlobalAveragePool", [X2], {}),
    ("ReduceMean", [X2, np.array([2, -1])], {}),
    ("ReduceMean", [X2, np.array([1])], {"keepdims": 0}),
    ("ReduceSum", [X2, np.array([1, 3])], {"keepdims": 0}),
    ("ReduceSum", [normal(3, 4)], {"keepdims": 1}),
    ("ReduceSum", [normal(3, 4)], {"noop_with_empty_axes": 1}),
    ("BatchNormalization", [X2, *STATISTICS], {"epsilon": 0.25}),
    ("BatchNormalization", [normal(3, 4), *STATISTICS], {}),
    ("Add", [X2, normal(4, 1, 1)], {}),
    ("Sub", [X2, normal(6)], {}),
    ("Sum", [normal(2, 3), normal(3), normal(2, 1)], {}),
    ("Mean", [normal(2, 3), normal(3), normal(2, 1)], {}),
    ("CumSum", [normal(2, 3, 4), np.array(1)], {"exclusive": 1}),
    ("CumSum", [normal(2, 3), np.array(-1)], {"reverse": 1}),
    ("Col2Im", [normal(2, 8, 4), np.array([3, 3]), np.array([2, 2])], {}),
    ("Resize", [X2, None, None, np.array([2, 4, 5, 9])], {"mode": "cubic"}),
    ("Resize", [X2, None, np.array([1, 1, 2.5, 0.5], np.float32)], {"mode": "linear"}),
    ("Resize", [X2, None, None, np.array([3, 8])], {"mode": "nearest", "axes": [3, 2]}),
    ("Mul", [normal(2, 3, 1), normal(3, 4)], {}),
    ("Div", [normal(2, 3), normal(1, 3)], {}),
]
# Every factor of these products and every operand of these sums can be the live one.
BOTH_WAYS = [c for c in LINEAR if c[0] in ("Gemm", "MatMul", "Add", "Sub", "Sum", "Mul")]

NORMALIZATIONS: list[dict[str, Any]] = [
    {"size": 3},
    {"size": 5, "alpha": 0.75, "beta": 0.5, "bias": 1.5},
    {"size": 1, "alpha": 0.5},
    {"size": 13, "alpha": 2.0, "bias": 0.25},
]

ACTIVATIONS: list[Case] = [
    ("Relu", [X2], {}),
    ("Clip", [X2, np.array(-0.5), np.array(0.75)], {}),
    ("Clip", [X2, None, np.array(0.75)], {}),
    ("LeakyRelu", [X2], {"alpha": 0.25}),
    ("PRelu", [X2, normal(4, 1, 1)], {}),
    ("ThresholdedRelu", [X2], {"alpha": 0.5}),
    ("Sigmoid", [X2], {}),
    ("HardSigmoid", [X2], {"alpha": 0.5}),
    ("HardSwish", [3 * X2], {}),
    ("Tanh", [X2], {}),
    ("Elu", [X2], {"alpha": 0.5}),
    ("Selu", [X2], {}),
    ("Celu", [X2], {"alpha": 0.5}),
    ("Gelu", [X2], {}),
    ("Gelu", [X2], {"approximate": "tanh"}),
    ("Mish", [X2], {}),
    ("Softplus", [X2], {}),
    ("Softsign", [X2], {}),
]

PADS = np.array([0, 1, 2, 0, 0, 1])
STRUCTURAL: list[StructuralCase] = [
    ("Concat", [normal(2, 3), normal(2, 4)], ["y"], {"axis": 1}),
    ("Split", [normal(2, 7)], ["y", "z", "w"], {"axis": 1, "num_outputs": 3}),
    ("Split", [normal(2, 7), np.array([3, 4])], ["y", "z"], {"axis": -1}),
    ("Pad", [normal(2, 3, 4), PADS, np.array(0.5)], ["y"], {}),
    ("Pad", [normal(2, 3, 4), np.array([1, -1]), None, np.array([2])], ["y"], {}),
    ("Pad", [normal(2, 3, 4), PADS, None], ["y"], {"mode": "reflect"}),
    ("Pad", [normal(2, 3, 4), PADS, None], ["y"], {"mode": "edge"}),
    ("Pad", [normal(2, 3, 4), PADS, None], ["y"], {"mode": "wrap"}),
    ("Slice", [normal(2, 8), *(np.array([v]) for v in (6, 1, 1, -2))], ["y"], {}),
    ("Reshape", [normal(2, 3, 4), np.array([0, -1])], ["y"], {}),
    ("Flatten", [normal(2, 3, 4)], ["y"], {"axis": 2}),
    ("Transpose", [normal(2, 3, 4)], ["y"], {"perm": [0, 2, 1]}),
    ("Squeeze", [normal(2, 1, 4), np.array([1])], ["y"], {}),
    ("Unsqueeze", [normal(2, 4), np.array([1, -1])], ["y"], {}),
    ("Identity", [normal(2, 4)], ["y"], {}),
    ("Dropout", [normal(2, 4)], ["y"], {}),
    ("Gather", [normal(2, 4), np.array([0, 3, 3])], ["y"], {"axis": 1}),
    ("Cast", [normal(2, 4)], ["y"], {"to": TensorProto.FLOAT}),
]

OTHERS: list[Case] = [
    ("Softmax", [X2], {}),
    ("Softmax", [X2], {"axis": 1}),
    ("LogSoftmax", [X2], {"axis": 1}),
    ("Pow", [np.abs(X2), np.array(0.75)], {}),
    ("Erf", [X2], {}),
    ("Shape", [X2], {}),
    ("Div", [np.array([7, -7]), np.array([2, 2])], {}),
    ("Cast", [3 * X2], {"to": TensorProto.INT64}),
    ("Cast", [np.array([1, 2])], {"to": TensorProto.FLOAT}),
]

LRNS: list[Case] = [("LRN", [X2], attributes) for attributes in NORMALIZATIONS]

NUMERIC = [*LINEAR, *MAX_POOLS, *LRNS, *ACTIVATIONS, *OTHERS]


def residual_network(opset: int = 22) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Return a classifier with a fork, a sum, an LRN and a shape computed on the way; its input."""
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["z1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["z1"], ["a1"]),
        helper.make_node("LRN", ["a1"], ["n1"], size=3, alpha=1.0),
        helper.make_node("Conv", ["n1", "w2"], ["z2"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["z2", "n1"], ["sum"]),
        helper.make_node("MaxPool", ["sum"], ["pool"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Shape", ["pool"], ["shape"], end=1),
        helper.make_node("Concat", ["shape", "rest"], ["flat_shape"], axis=0),
        helper.make_node("Reshape", ["pool", "flat_shape"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w3"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    constants = {
        "w1": normal(4, 3, 3, 3),
        "w2": normal(4, 4, 3, 3),
        "w3": normal(36, 5),
        "rest": np.array([-1]),
    }
    feeds = {"image": normal(2, 3, 6, 6)}
    return model_of(nodes, feeds, ["probabilities"], constants, opset), feeds
