"""Small networks of tables, and their relevance by hand."""

import numpy as np
import onnx
from onnx import TensorProto, helper
from support import model, node, normal

HIDDEN, READOUT = normal(4, 8, seed=1), normal(8, 3, seed=2)
_BODY = [
    node("Gemm", ["x", "hidden"], "h"),
    node("Relu", ["h"], "active"),
    node("Gemm", ["active", "readout"], "logits"),
]
_WEIGHTS = {"hidden": HIDDEN, "readout": READOUT}


def matrix() -> onnx.ModelProto:
    """Build a network of four features, x [N, 4], with three classes and no biases."""
    return model(_BODY, {"x": ["N", 4]}, ["logits"], _WEIGHTS)


def several() -> onnx.ModelProto:
    """Build the same of age int64 [N, 1], pay [N, 1] and rest [N, 2], its first two features last.

    The matrix is rest, age, pay.
    """
    joined = [
        node("Cast", ["age"], "years", to=TensorProto.FLOAT),
        node("Concat", ["rest", "years", "pay"], "x", axis=1),
    ]
    inputs = {"age": ["N", 1], "pay": ["N", 1], "rest": ["N", 2]}
    built = model([*joined, *_BODY], inputs, ["logits"], _WEIGHTS)
    built.graph.input[0].CopyFrom(helper.make_tensor_value_info("age", TensorProto.INT64, ["N", 1]))
    return built


def scores(x: np.ndarray) -> np.ndarray:
    """Compute the logits, [N, 3]."""
    return np.maximum(x @ HIDDEN.astype(float), 0) @ READOUT


def relevance(x: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Compute LRP-0 of a network of ReLU without biases: gradient times input."""
    hidden, readout = HIDDEN.astype(float), READOUT.astype(float)
    active = x @ hidden > 0
    return x * ((active * readout[:, target].T) @ hidden.T)
