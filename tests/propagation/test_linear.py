"""Conv, ConvTranspose, Gemm and MatMul against z_ij written out."""

import numpy as np
import pytest
from support import close, crosses_as_defined, explain, lines, model, node, normal, operators

import onnxlrp
from onnxlrp import reference
from onnxlrp.propagation import convolution

RULES = [
    ("epsilon", {}),
    ("epsilon", {"epsilon": 0.5}),
    ("epsilon", {"bias": "exclude"}),
    ("epsilon", {"bias": "distribute"}),
    ("epsilon", {"power": 2}),
    ("epsilon", {"power": 3}),
    ("norm", {}),
    ("z-plus", {}),
    ("z-plus", {"bias": "exclude"}),
    ("z-plus", {"bias": "distribute"}),
    ("alpha-beta", {"alpha": 2, "beta": 1}),
    ("alpha-beta", {"alpha": 1.5, "beta": 0.5, "bias": "exclude"}),
    ("alpha-beta", {"alpha": 2, "beta": 1, "bias": "distribute"}),
    ("beta", {"beta": 1}),
    ("beta", {"beta": 0}),
    ("flat", {}),
    ("even", {}),
    ("gamma", {}),
    ("gamma", {"gamma": 1.0, "bias": "exclude"}),
    ("gamma", {"gamma": 0.5, "bias": "distribute"}),
    ("gamma-original", {"gamma": 0.5, "stabiliser": 0.1}),
    ("w-square", {}),
    ("w-square", {"bias": "exclude"}),
    ("z-box", {"low": -3, "high": 3}),
    ("zero", {}),
]
BY_NAME = [pytest.param(rule, p, id=f"{rule}-{p}") for rule, p in RULES]

CONVOLUTIONS = {
    "1x1": ((2, 3, 5, 5), (4, 3, 1, 1), {}),
    "3x3 padded": ((2, 3, 6, 5), (4, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
    "stride 2": ((2, 3, 7, 8), (4, 3, 3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "stride over kernel": ((1, 2, 9, 9), (3, 2, 2, 2), {"strides": [3, 3]}),
    "asymmetric": ((1, 2, 6, 7), (3, 2, 3, 2), {"pads": [0, 1, 2, 0], "strides": [2, 1]}),
    "padding over kernel": ((1, 2, 4, 4), (3, 2, 2, 2), {"pads": [2, 2, 2, 2]}),
    "dilated": ((1, 2, 8, 8), (3, 2, 3, 3), {"dilations": [2, 2], "pads": [2, 1, 1, 2]}),
    "dilated strides": ((1, 2, 9, 9), (3, 2, 3, 3), {"dilations": [2, 1], "strides": [2, 3]}),
    "groups": ((2, 4, 5, 5), (6, 2, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}),
    "groups strided": ((2, 4, 5, 6), (6, 2, 3, 3), {"group": 2, "strides": [2, 2]}),
    "depthwise": ((1, 3, 6, 6), (3, 1, 3, 3), {"group": 3, "pads": [1, 1, 1, 1]}),
    "same upper": ((1, 2, 6, 7), (3, 2, 3, 4), {"auto_pad": "SAME_UPPER", "strides": [2, 1]}),
    "same lower": ((1, 2, 6, 7), (3, 2, 4, 4), {"auto_pad": "SAME_LOWER", "strides": [1, 3]}),
    "valid": ((1, 2, 6, 7), (3, 2, 3, 3), {"auto_pad": "VALID", "strides": [2, 2]}),
    "1-D": ((2, 3, 9), (4, 3, 3), {"strides": [2], "pads": [1, 0]}),
    "1-D dense": ((2, 3, 9), (4, 3, 3), {"pads": [1, 1]}),
    "3-D": ((1, 2, 5, 4, 5), (3, 2, 3, 2, 3), {"strides": [2, 1, 2], "pads": [1, 0, 1, 0, 1, 1]}),
    "3-D dense": ((1, 2, 4, 4, 4), (3, 2, 3, 3, 3), {"pads": [1, 1, 1, 1, 1, 1]}),
}


def conv(shape, kernel, attributes, bias):
    weights = {"w": normal(*kernel, seed=1)}
    if bias:
        weights["b"] = normal(kernel[0], seed=2)
    return node("Conv", ["x", *weights], **attributes), normal(*shape, seed=3), weights


@pytest.mark.parametrize(("rule", "parameters"), BY_NAME)
@pytest.mark.parametrize("bias", [False, True], ids=["plain", "biased"])
@pytest.mark.parametrize("geometry", ["3x3 padded", "stride 2", "groups"])
def test_every_rule_on_convolutions(geometry, bias, rule, parameters):
    tested, x, weights = conv(*CONVOLUTIONS[geometry], bias)
    crosses_as_defined(tested, x, rule, weights, **parameters)


@pytest.mark.parametrize("rule", ["epsilon", "z-plus", "alpha-beta", "flat", "gamma", "w-square"])
@pytest.mark.parametrize("symbolic", [(0,), (), (0, 2, 3, 4)], ids=["batch", "static", "sizes"])
@pytest.mark.parametrize("geometry", CONVOLUTIONS)
def test_every_geometry(geometry, symbolic, rule):
    if "same" in geometry and 2 in symbolic:
        pytest.skip("auto_pad with a stride needs a known size")
    tested, x, weights = conv(*CONVOLUTIONS[geometry], bias=True)
    axes = [axis for axis in symbolic if axis < x.ndim]
    crosses_as_defined(tested, x, rule, weights, symbolic=axes)


@pytest.mark.parametrize("rule", ["epsilon", "gamma"])
@pytest.mark.parametrize("symbolic", [(0,), (0, 2, 3, 4)], ids=["batch", "sizes"])
@pytest.mark.parametrize("geometry", [name for name, given in CONVOLUTIONS.items() if given[2]])
def test_every_geometry_as_if_of_many_channels(monkeypatch, geometry, symbolic, rule):
    """Strided convolutions to few channels are transposed otherwise than those to many."""
    monkeypatch.setattr(convolution, "_FEW", 0)
    test_every_geometry(geometry, symbolic, rule)


def strided(groups):
    nodes = [
        node("Conv", ["x", "w"], "c", strides=[2, 2], pads=[1, 1, 1, 1], group=groups),
        node("Relu", ["c"], "a"),
        node("GlobalAveragePool", ["a"], "g"),
        node("Flatten", ["g"], "logits"),
    ]
    return model(
        nodes, {"x": ["N", 16, 9, 9]}, ["logits"], {"w": normal(32, 16 // groups, 3, 3, seed=1)}
    )


@pytest.mark.parametrize("groups", [1, 4, 16])
def test_strided_weights_are_written_once(groups):
    explainer = onnxlrp.convert(strided(groups), lines("*: norm", "Conv: z-plus")).to_proto()
    assert "ConvTranspose" not in {entry.op_type for entry in explainer.graph.node}
    sizes = [int(np.prod(tensor.dims)) for tensor in explainer.graph.initializer]
    assert sum(size > 32 * 16 // groups for size in sizes) == 1


@pytest.mark.parametrize("rule", ["z-plus", "alpha-beta"])
def test_relevance_where_the_output_is_small_or_negative(rule):
    """An unsigned stabiliser, or a division by the activation, shows here."""
    tested, x, weights = conv(*CONVOLUTIONS["3x3 padded"], bias=True)
    crosses_as_defined(tested, x, rule, weights, spread=True)
    crosses_as_defined(tested, x, "epsilon", weights, spread=True, epsilon=0.3)


TRANSPOSED = {
    "plain": ((2, 3, 4, 4), (3, 4, 3, 3), {}),
    "stride 2": ((1, 3, 4, 5), (3, 4, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "output padding": (
        (1, 3, 4, 5),
        (3, 4, 3, 3),
        {"strides": [2, 3], "output_padding": [1, 2], "pads": [1, 0, 0, 1]},
    ),
    "groups": ((1, 4, 4, 4), (4, 3, 2, 2), {"group": 2, "strides": [2, 2]}),
    "1-D": ((1, 2, 5), (2, 3, 4), {"strides": [2], "dilations": [2]}),
}


@pytest.mark.parametrize(("rule", "parameters"), BY_NAME)
@pytest.mark.parametrize("geometry", TRANSPOSED)
def test_transposed_convolutions(geometry, rule, parameters):
    shape, kernel, attributes = TRANSPOSED[geometry]
    weights = {
        "w": normal(*kernel, seed=1),
        "b": normal(kernel[1] * attributes.get("group", 1), seed=2),
    }
    tested = node("ConvTranspose", ["x", "w", "b"], **attributes)
    crosses_as_defined(tested, normal(*shape, seed=3), rule, weights, **parameters)


GEMMS = [
    pytest.param({}, (5, 4), (4,), id="plain"),
    pytest.param({"transB": 1}, (4, 5), (4,), id="transposed"),
    pytest.param({"alpha": 0.5, "beta": 2.0}, (5, 4), (1, 4), id="alpha-beta"),
    pytest.param({"alpha": -0.5, "transB": 1}, (4, 5), None, id="no bias"),
]


@pytest.mark.parametrize(("rule", "parameters"), BY_NAME)
@pytest.mark.parametrize(("attributes", "kernel", "bias"), GEMMS)
def test_gemm(attributes, kernel, bias, rule, parameters):
    weights = {"w": normal(*kernel, seed=1)}
    if bias:
        weights["b"] = normal(*bias, seed=2)
    tested = node("Gemm", ["x", *weights], **attributes)
    crosses_as_defined(tested, normal(3, 5, seed=3), rule, weights, **parameters)


@pytest.mark.parametrize(("rule", "parameters"), BY_NAME)
@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 5), (2, 2, 3, 5)])
def test_matmul(shape, rule, parameters):
    tested = node("MatMul", ["x", "w"])
    weights = {"w": normal(5, 4, seed=1)}
    crosses_as_defined(tested, normal(*shape, seed=3), rule, weights, **parameters)


@pytest.mark.parametrize("rule", ["epsilon", "z-plus", "flat"])
def test_matmul_by_a_constant_on_the_left(rule):
    tested = node("MatMul", ["w", "x"])
    crosses_as_defined(tested, normal(2, 5, 3, seed=3), rule, {"w": normal(4, 5, seed=1)})


@pytest.mark.parametrize("rule", ["epsilon", "z-plus", "flat", "w-square"])
@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
def test_matmul_by_what_is_computed_of_sizes(left, rule):
    """Weights of two heads, cut to the length of the input as relative positions are."""
    axis, length = (2, 5) if left else (1, 5)
    table = normal(2, 4, 8, seed=1) if left else normal(2, 8, 4, seed=1)
    x = normal(2, 1, length, 4, seed=2) if left else normal(2, 1, 4, length, seed=2)
    tested = node("MatMul", ["w", "x"] if left else ["x", "w"])
    body = [
        node("Shape", ["x"], "end", start=2 if left else 3, end=3 if left else 4),
        node("Slice", ["table", "start", "end", "axis"], "w"),
        tested,
        node("Reshape", ["y", "rows"], "flat"),
        node("Gemm", ["flat", "readout"], "logits"),
    ]
    weights = {
        "table": table, "start": np.array([0]), "axis": np.array([axis]),
        "rows": np.array([-1, 32]), "readout": normal(32, 3, seed=3),
    }  # fmt: skip
    shape = ["N", 1, *(("length", 4) if left else (4, "length"))]
    proto = model(body, {"x": shape}, ["logits"], weights)
    composite = lines(f"name=node_y: {rule}", "Gemm: epsilon")
    explained = explain(proto, composite, {"x": x}, target=1, inside=["y"])
    applied = next(entry for entry in explained.conversion.nodes if entry.name == "node_y")
    operands = {"w": np.take(table, range(length), axis).astype(float), "x": x.astype(float)}
    wanted = reference.propagate(
        tested,
        [operands[name] for name in tested.input],
        [explained.relevance("y")],
        rule,
        dict(applied.parameters),
        [name == "x" for name in tested.input],
    )
    close(explained.values["relevance"], wanted.relevance[left])


def test_non_negative_input_needs_one_convolution_each_way():
    """z-plus behind a ReLU has no use for negative weights."""
    tested, x, weights = conv(*CONVOLUTIONS["3x3 padded"], bias=True)
    unsigned = np.abs(x).astype(np.uint8)
    signed = crosses_as_defined(tested, x, "z-plus", weights)
    assert operators(signed.proto, "node_y").count("Conv") == 4
    assert unsigned.dtype == np.uint8
