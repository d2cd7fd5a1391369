"""Functions of one live value pass relevance on; of several the largest takes it."""

import numpy as np
import pytest
from onnx import TensorProto
from support import close, crosses_as_defined, explain, lines, model, node, normal

import onnxlrp
from onnxlrp import reference

BEHIND = [node("GlobalAveragePool", ["a"], "p"), node("Flatten", ["p"], "logits")]
IMAGES = {"x": ["N", 3, 4, 4]}


SIGNED = (
    *("Abs", "Asinh", "Atan", "Ceil", "Celu", "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor", "Gelu"),
    *("HardSigmoid", "HardSwish", "Hardmax", "Mish", "Reciprocal", "Round", "Selu", "Shrink"),
    *("Sign", "Sin", "Sinh", "Softplus", "Softsign", "Tan", "ThresholdedRelu"),
)
BETWEEN = ("Acos", "Asin", "Atanh", "Log", "Sqrt")
"""Functions that are defined between 0 and 1, at least."""


@pytest.mark.parametrize("operator", [*SIGNED, *BETWEEN, "Acosh"])
def test_a_function_passes_relevance_on(operator):
    x = normal(2, 3, 4, seed=1)
    x = x if operator in SIGNED else 0.9 / (1 + np.exp(-x)) + (operator == "Acosh")
    opset = 20 if operator == "Gelu" else 18
    tested = node(operator, ["x"])
    crosses_as_defined(tested, x.astype(np.float32), "pass", spread=True, opset=opset)


def test_relevance_takes_the_precision_that_a_cast_left():
    """In double precision inside, as onnx defines ReduceL2; the sum behind divides in it."""
    body = [
        node("Cast", ["x"], "wide", to=TensorProto.DOUBLE),
        node("ReduceSum", ["wide", "axis"], "s", keepdims=0),
        node("Cast", ["s"], "y", to=TensorProto.FLOAT),
        node("Gemm", ["y", "r"], "logits"),
    ]
    weights = {"axis": np.array([2]), "r": normal(3, 3, seed=2)}
    proto = model(body, {"x": ["N", 3, 5]}, ["logits"], weights)
    x = normal(2, 3, 5, seed=1)
    explained = explain(proto, lines("*: epsilon epsilon=1e-12"), {"x": x}, target=1)
    expected = x * weights["r"][None, :, 1, None]
    assert explained.values["relevance"].dtype == np.float32
    close(explained.values["relevance"], expected)


WITH_CONSTANT = {
    "a power": ("Pow", ["x", "c"], 1.5, {}),
    "an exponent": ("Pow", ["c", "x"], 1.5, {}),
    "a divisor": ("Div", ["c", "x"], 1.5, {}),
    "a remainder": ("Mod", ["x", "c"], 0.4, {"fmod": 1}),
}


@pytest.mark.parametrize("shape", [(), (4,)], ids=["scalar", "row"])
@pytest.mark.parametrize("kind", WITH_CONSTANT)
def test_a_function_of_a_value_and_a_constant(kind, shape):
    operator, operands, number, attributes = WITH_CONSTANT[kind]
    x = np.abs(normal(2, 3, 4, seed=1)) + 0.1
    tested = node(operator, operands, **attributes)
    weights = {"c": np.full(shape, number, np.float32)}
    crosses_as_defined(tested, x, "pass", weights, spread=True)


def test_a_constant_that_is_larger_than_its_divisor():
    x, c = np.abs(normal(2, 1, 4, seed=1)) + 0.1, normal(3, 4, seed=2)
    tested = node("Div", ["c", "x"])
    crosses_as_defined(tested, x, "pass", {"c": c}, spread=True)


@pytest.mark.parametrize("operator", ["Max", "Min"])
@pytest.mark.parametrize("width", [4, 1])
def test_the_first_of_the_largest_takes_all(operator, width):
    """Of several live values, ties among them."""
    weights = {"w": normal(4, width, seed=1), "r": normal(4, 3, seed=2)}
    body = [
        node("Gemm", ["x", "w"], "p"),
        node("Relu", ["x"], "q"),
        node(operator, ["p", "q", "x"]),
        node("Gemm", ["y", "r"], "logits"),
    ]
    proto = model(body, {"x": ["N", 4]}, ["logits"], weights)
    x = normal(3, 4, seed=3)
    explained = explain(proto, lines("*: epsilon"), {"x": x}, target=1)
    rule = ("epsilon", {"epsilon": 1e-6})
    expected = reference.explain(proto, {"x": x}, lambda _: rule, ["x"], "logits", 1)
    close(explained.values["relevance"], expected["x"])


def test_several_values_and_a_constant_are_refused():
    body = [node("Relu", ["x"], "q"), node("Max", ["q", "x", "c"], "a"), *BEHIND]
    proto = model(body, IMAGES, ["logits"], {"c": np.array(0.5, np.float32)})
    with pytest.raises(onnxlrp.UnsupportedError, match=r"node_a .* as a Clip of its own"):
        onnxlrp.convert(proto, lines("*: epsilon"))


def test_a_power_whose_exponent_depends_on_the_input_too():
    proto = model([node("Pow", ["x", "x"], "a"), *BEHIND], IMAGES, ["logits"], {})
    with pytest.raises(onnxlrp.UnsupportedError, match=r"node_a .* both its operands"):
        onnxlrp.convert(proto, lines("*: epsilon"))


def test_a_slope_that_is_larger_than_its_input():
    """onnxruntime makes three samples of one here, ONNX forbids it."""
    first = node("PRelu", ["x", "slope"], "a")
    proto = model([first, *BEHIND], IMAGES, ["logits"], {"slope": normal(3, 1, 1, 1)})
    with pytest.raises(onnxlrp.UnsupportedError, match=r"node_a .* slope of shape \[3, 1, 1, 1\]"):
        onnxlrp.convert(proto, lines("*: epsilon"))


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Conv", ["x", "w"], "s"), node("PRelu", ["x", "s"], "a")],
        [
            node("ReduceMax", ["x"], "most", keepdims=0),
            node("Mul", ["most", "half"], "bound"),
            node("Clip", ["x", "", "bound"], "a"),
        ],
    ],
    ids=["slope", "bound"],
)
def test_slopes_and_bounds_that_depend_on_the_input(nodes):
    weights = {"w": normal(3, 3, 1, 1), "half": np.array(0.5, np.float32)}
    used = {name for one in nodes for name in one.input}
    weights = {name: array for name, array in weights.items() if name in used}
    proto = model([*nodes, *BEHIND], IMAGES, ["logits"], weights)
    with pytest.raises(onnxlrp.UnsupportedError, match=r"node_a .* depend on the explained input"):
        onnxlrp.convert(proto, lines("*: epsilon"))
