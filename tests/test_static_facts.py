"""An activation stands for its pre-activation in a denominator only where nothing changes.

Each test but the first breaks exactly one condition; dividing by the activation all the same gave
relevance wrong by up to a factor of 1e5. All are compared with the definition.
"""

import numpy as np
import pytest
from support import close, explain, lines, model, node, normal, operators

from onnxlrp import reference

W = {"w": normal(6, 8, seed=1), "b": normal(8, seed=2), "v": normal(8, 3, seed=3)}
X = normal(4, 6, seed=4)
DENSE = node("Gemm", ["x", "w", "b"], "z")
READOUT = node("Gemm", ["a", "v"], "logits")


def check(body, composite, weights=W, outputs=("logits",), x=X, tolerance=1e-5):
    """Compare with the definition, and return whether `node_z` was divided without a sign."""
    proto = model(body, {"x": ["N", *x.shape[1:]]}, list(outputs), weights)
    explained = explain(proto, composite, {"x": x}, target=1, output="logits")
    rules = {e.name: (e.rule, dict(e.parameters)) for e in explained.conversion.nodes}
    expected = reference.explain(proto, {"x": x}, lambda n: rules[n.name], ["x"], "logits", 1)
    close(explained.values["relevance"], expected["x"], tolerance)
    return "Clip" not in operators(explained.proto, "node_z")


@pytest.mark.parametrize("rule", ["epsilon epsilon=0.25", "norm stabiliser=0.25"])
def test_a_relu_stands_for_its_layer(rule):
    composite = lines(f"name=node_z: {rule}", "*: epsilon")
    assert check([DENSE, node("Relu", ["z"], "a"), READOUT], composite)


def test_not_where_the_activation_is_something_else():
    """Clip(0, 6) of z = 9 is 6: R/z = 0.111 R, R/a = 0.167 R."""
    weights = {**W, "w": W["w"] * 10, "low": np.float32(0), "high": np.float32(6)}
    weights = {name: np.asarray(array) for name, array in weights.items()}
    body = [DENSE, node("Clip", ["z", "low", "high"], "a"), READOUT]
    assert not check(body, lines("*: epsilon epsilon=0.25"), weights)


@pytest.mark.parametrize("activation", ["LeakyRelu", "HardSwish"])
def test_not_for_an_activation_that_is_not_z_or_0(activation):
    body = [DENSE, node(activation, ["z"], "a"), READOUT]
    assert not check(body, lines("*: epsilon epsilon=0.25"))


@pytest.mark.parametrize("parameters", ["bias=exclude", "power=2"])
def test_not_where_the_denominator_is_not_z(parameters):
    body = [DENSE, node("Relu", ["z"], "a"), READOUT]
    composite = lines(f"name=node_z: epsilon epsilon=0.25 {parameters}", "*: epsilon")
    stood_in = check(body, composite)
    # Even powers are non-negative by themselves, and need no sign either.
    assert stood_in is (parameters == "power=2")


@pytest.mark.parametrize("passed", ["Conv", "AveragePool", "LayerNormalization"])
def test_not_where_pass_crosses_a_layer_that_mixes_places(passed):
    """Relevance of y_i is handed to x_i, which may be 0 where y_i is not."""
    weights = {
        "k": normal(3, 3, 1, 1, seed=1),
        "l": normal(3, 3, 1, 1, seed=2),
        "s": np.ones(5, np.float32),
        "v": normal(75, 3, seed=3),
    }
    attributes = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]} if passed == "AveragePool" else {}
    operands = {"Conv": ["a", "l"], "AveragePool": ["a"], "LayerNormalization": ["a", "s"]}
    body = [
        node("Conv", ["x", "k"], "z"),
        node("Relu", ["z"], "a"),
        node(passed, operands[passed], "p", **attributes),
        node("Flatten", ["p"], "f"),
        node("Gemm", ["f", "v"], "logits"),
    ]
    used = {name for one in body for name in one.input}
    weights = {name: array for name, array in weights.items() if name in used}
    composite = lines("name=node_p: pass", "*: epsilon")
    check(body, composite, weights, x=normal(2, 3, 5, 5, seed=4))


@pytest.mark.parametrize("above", ["flat", "epsilon bias=distribute"])
def test_not_where_relevance_sits_on_zeros(above):
    """Flat, and a distributed bias, put relevance where the activation is 0."""
    weights = {**W, "c": normal(3, seed=5)}
    body = [DENSE, node("Relu", ["z"], "a"), node("Gemm", ["a", "v", "c"], "logits")]
    composite = lines("name=node_z: epsilon epsilon=0.25", f"name=node_logits: {above}")
    assert not check(body, composite, weights)


def test_not_where_z_has_another_reader():
    body = [
        DENSE,
        node("Relu", ["z"], "r"),
        node("Add", ["r", "z"], "a"),
        READOUT,
    ]
    assert not check(body, lines("*: epsilon epsilon=0.25"))


def test_not_where_the_sum_over_all_readers_is_not_grounded():
    """One of the activation's two readers is flat."""
    weights = {**W, "u": normal(8, 3, seed=6)}
    body = [
        DENSE,
        node("Relu", ["z"], "a"),
        node("Gemm", ["a", "v"], "p"),
        node("Gemm", ["a", "u"], "q"),
        node("Add", ["p", "q"], "logits"),
    ]
    composite = lines("name=node_q: flat", "*: epsilon epsilon=0.25")
    assert not check(body, composite, weights)


def test_not_through_a_sum_in_between():
    """Conv -> Add -> Relu: relevance sits where the convolution's own output is negative."""
    weights = {**W, "u": normal(6, 8, seed=6)}
    body = [
        DENSE,
        node("Gemm", ["x", "u"], "p"),
        node("Add", ["z", "p"], "s"),
        node("Relu", ["s"], "a"),
        READOUT,
    ]
    assert not check(body, lines("*: epsilon epsilon=0.25"), weights, tolerance=1e-4)


def test_z_as_an_output_changes_nothing():
    body = [DENSE, node("Relu", ["z"], "a"), READOUT]
    assert not check(body, lines("*: epsilon epsilon=0.25"), outputs=("logits", "z"))


@pytest.mark.parametrize("between", ["Sigmoid", "Clip", "Add"])
def test_not_where_an_operator_makes_zeros_into_something(between):
    """`pass` through f(0) != 0 leaves relevance on zeros of the value in front."""
    weights = {
        **W,
        "low": np.asarray(np.float32(0.3)),
        "t": normal(4, 8, seed=8),
        "u": normal(8, 8, seed=9),
    }
    middle = {
        "Sigmoid": node("Sigmoid", ["r"], "a"),
        "Clip": node("Clip", ["r", "low"], "a"),
        "Add": node("Add", ["r", "t"], "a"),
    }[between]
    body = [DENSE, node("Relu", ["z"], "r"), middle, READOUT]
    assert not check(body, lines("Add: pass", "*: epsilon epsilon=0.25"), weights)


CONV = {"w": normal(4, 3, 3, 3, seed=1), "v": normal(4, 4, 3, 3, seed=2), "r": normal(4, 3)}


def z_plus_convolutions(activation):
    body = [
        node("Conv", ["x", "w"], "p", pads=[1, 1, 1, 1]),
        node(activation, ["p"], "a"),
        node("Conv", ["a", "v"], "z", pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["z"], "g"),
        node("Flatten", ["g"], "f"),
        node("Gemm", ["f", "r"], "logits"),
    ]
    proto = model(body, {"x": ["N", 3, 6, 6]}, ["logits"], CONV)
    composite = lines("Conv: z-plus", "Gemm: epsilon", "*: norm")
    return operators(explain(proto, composite, {"x": normal(1, 3, 6, 6)}).proto, "node_z")


def test_z_plus_behind_a_relu_is_one_convolution_and_one_transposed():
    assert z_plus_convolutions("Relu").count("Conv") == 2


def test_z_plus_on_a_signed_input_is_two_of_each():
    assert z_plus_convolutions("Tanh").count("Conv") == 4


GAMMA = [
    DENSE,
    node("Relu", ["z"], "a"),
    READOUT,
]


def gamma_products(body, *rules, weights=W, outputs=("logits",)):
    """How many dense products gamma emits for `node_z`, all compared with the definition."""
    composite = lines("name=node_z: gamma stabiliser=0.01", *rules, "*: epsilon epsilon=0.25")
    check(body, composite, weights, outputs=outputs, x=np.abs(X), tolerance=3e-5)
    proto = model(body, {"x": ["N", 6]}, list(outputs), weights)
    explained = explain(proto, composite, {"x": np.abs(X)}, 1, output="logits")
    return operators(explained.proto, "node_z").count("Gemm")


def test_gamma_on_signed_inputs_is_two_products_each_way():
    """Of z_ij and of |z_ij|, whichever signs outputs have."""
    assert gamma_products(GAMMA) == 4
    assert gamma_products(GAMMA, "name=node_logits: flat") == 4
    body = [DENSE, node("Relu", ["z"], "r"), node("Add", ["r", "z"], "a"), READOUT]
    assert gamma_products(body) == 4
    assert gamma_products(GAMMA, outputs=("logits", "z")) == 4


def test_gamma_between_relus_is_one_product_each_way():
    """Neither inputs nor outputs with relevance are below zero: the other branch is dead."""
    body = [
        node("Relu", ["x"], "h"),
        node("Gemm", ["h", "w", "b"], "z"),
        node("Relu", ["z"], "a"),
        READOUT,
    ]
    assert gamma_products(body) == 2
    assert gamma_products(body, "name=node_logits: flat") == 4


def test_flat_is_a_sum_over_channels_and_one_small_convolution():
    """All channels of the input get the same; the denominator is a constant."""
    body = [
        node("Conv", ["x", "w"], "z", pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["z"], "g"),
        node("Flatten", ["g"], "f"),
        node("Gemm", ["f", "r"], "logits"),
    ]
    proto = model(body, {"x": ["N", 3, 6, 6]}, ["logits"], CONV)
    composite = lines("Conv: flat", "Gemm: epsilon", "*: norm")
    explained = explain(proto, composite, {"x": normal(1, 3, 6, 6)})
    convolutions = [n for n in explained.proto.graph.node if n.op_type == "Conv"]
    sizes = {i.name: list(i.dims) for i in explained.proto.graph.initializer}
    used = sorted(sizes[n.input[1]] for n in convolutions if n.input[1] in sizes)
    assert used == [[1, 1, 3, 3], [4, 3, 3, 3]]
