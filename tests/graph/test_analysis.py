"""Static facts: what is known of a value's sign before anything runs."""

import numpy as np
import pytest
from onnx import TensorProto
from support import model, node

import onnxlrp
from onnxlrp.graph.analysis import non_negative
from onnxlrp.graph.loading import load

ONE = np.float32(1)
POSITIVE = [node("Relu", ["x"], "p")]
CASES = [
    # operator on a non-negative p, its constants, whether it stays non-negative
    (node("MaxPool", ["p"], kernel_shape=[2, 2]), {}, True),
    (node("AveragePool", ["p"], kernel_shape=[2, 2]), {}, True),
    (node("LRN", ["p"], size=3), {}, True),
    (node("LRN", ["p"], size=3, bias=-1.0), {}, False),
    (node("Clip", ["p", "c"]), {"c": ONE * -1}, True),
    (node("Clip", ["x", "c"]), {"c": ONE * -1}, False),
    (node("Clip", ["x", "c"]), {"c": ONE * 0}, True),
    (node("Clip", ["p", "", "c"]), {"c": ONE * -1}, False),
    (node("Pad", ["p", "a"]), {"a": np.ones(8, np.int64)}, True),
    (node("Pad", ["p", "a", "c"]), {"a": np.ones(8, np.int64), "c": -ONE}, False),
    (node("Pad", ["p", "a"], mode="reflect"), {"a": np.ones(8, np.int64)}, True),
    (node("Add", ["p", "c"]), {"c": ONE}, True),
    (node("Add", ["p", "c"]), {"c": -ONE}, False),
    (node("Add", ["p", "x"]), {}, False),
    (node("Mul", ["x", "x"]), {}, True),
    (node("Mul", ["p", "x"]), {}, False),
    (node("Concat", ["p", "p"], axis=1), {}, True),
    (node("Concat", ["p", "x"], axis=1), {}, False),
    (node("Max", ["p", "x"]), {}, True),
    (node("Neg", ["p"]), {}, False),
    (node("Sub", ["p", "p"]), {}, False),
    (node("Conv", ["p", "w"]), {"w": np.ones((1, 2, 1, 1), np.float32)}, False),
    (node("Cast", ["p"], to=TensorProto.INT8), {}, False),
    (
        node("Resize", ["p", "", "s"], mode="cubic"),
        {"s": np.array([1, 1, 2, 2], np.float32)},
        False,
    ),
]


@pytest.mark.parametrize(("tested", "weights", "expected"), CASES)
def test_sign(tested, weights, expected):
    weights = {name: np.asarray(array) for name, array in weights.items()}
    proto = model([*POSITIVE, tested], {"x": [1, 2, 4, 4]}, ["y", "p"], weights)
    graph = load(proto).model.graph
    known = non_negative(graph)
    by_name = {value.name: value for value in graph.outputs}
    assert (id(by_name["y"]) in known) is expected
    assert id(by_name["p"]) in known


def test_unsigned_integers_are_non_negative():
    cast = node("Cast", ["x"], to=TensorProto.FLOAT)
    proto = model([cast], {"x": [1, 2]}, ["y"], {}, dtype=TensorProto.UINT8)
    graph = load(proto).model.graph
    assert id(graph.outputs[0]) in non_negative(graph)


@pytest.mark.parametrize(
    ("gate", "whole", "expected"),
    [
        ("Sigmoid", 1.0, True),
        ("HardSigmoid", 2.0, True),
        ("Sigmoid", 0.9, False),
        ("Tanh", 1.0, False),
    ],
)
def test_what_a_gate_leaves(gate, whole, expected):
    """1 - z of a GRU: a gate, too, and (1 - z) tanh(...) no product of two equals."""
    body = [
        node(gate, ["x"], "g"),
        node("Sub", ["whole", "g"], "left"),
        node("Tanh", ["x"], "t"),
        node("Mul", ["left", "t"]),
    ]
    proto = model(body, {"x": [1, 3]}, ["y", "left"], {"whole": np.float32(whole).reshape(())})
    graph = load(proto).model.graph
    assert (id(graph.outputs[1]) in non_negative(graph)) is expected
    kind = next(n.operator for n in onnxlrp.convert(proto, output="y").nodes if n.name == "node_y")
    assert (kind == "Gate") is expected
