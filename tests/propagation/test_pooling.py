"""Means and maxima over windows and axes, against the definition."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from support import close, crosses_as_defined, explain, lines, model, node, normal

from onnxlrp import UnsupportedError, convert, reference
from onnxlrp.errors import OnnxlrpError

WINDOWS = {
    "2x2": ((2, 3, 6, 6), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "2x2 remainder": ((2, 3, 7, 5), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "3x3 dense": ((1, 2, 5, 6), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    "3x3 stride 2": ((1, 2, 9, 8), {"kernel_shape": [3, 3], "strides": [2, 2]}),
    "3x3 stride 2 padded": (
        (1, 2, 8, 8),
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    ),
    "ceil": ((1, 2, 8, 7), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    "ceil padded": (
        (1, 2, 8, 8),
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 1, 1, 1], "ceil_mode": 1},
    ),
    "ceil over padding": (
        (1, 2, 7, 6),
        {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1, 0, 1, 1], "ceil_mode": 1},
    ),
    "asymmetric": ((1, 2, 6, 8), {"kernel_shape": [2, 3], "strides": [1, 2], "pads": [1, 0, 0, 2]}),
    "stride over kernel": ((1, 2, 9, 9), {"kernel_shape": [2, 2], "strides": [3, 3]}),
    "same upper": (
        (1, 2, 6, 7),
        {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    ),
    "same lower": ((1, 2, 6, 7), {"kernel_shape": [2, 2], "auto_pad": "SAME_LOWER"}),
    "1-D": ((2, 2, 9), {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}),
    "3-D": ((1, 2, 4, 5, 4), {"kernel_shape": [2, 3, 2], "strides": [2, 2, 1]}),
    "large": ((1, 2, 12, 9), {"kernel_shape": [7, 5], "strides": [2, 1], "pads": [3, 2, 3, 1]}),
    "large ceil": ((1, 2, 14, 13), {"kernel_shape": [6, 7], "strides": [3, 4], "ceil_mode": 1}),
    "rows only": ((1, 2, 5, 6), {"kernel_shape": [3, 1], "pads": [1, 0, 1, 0]}),
    "elements": ((1, 2, 5, 6), {"kernel_shape": [1, 1]}),
    "every other element": ((1, 2, 5, 6), {"kernel_shape": [1, 1], "strides": [2, 1]}),
    "large dilated": (
        (1, 2, 13, 14),
        {"kernel_shape": [3, 9], "dilations": [4, 1], "strides": [3, 2], "pads": [2, 0, 1, 4]},
    ),
    "large 3-D": ((1, 1, 5, 6, 4), {"kernel_shape": [4, 3, 3], "strides": [1, 2, 1]}),
    "whole map": ((2, 2, 8, 6), {"kernel_shape": [8, 6]}),
    "whole padded map": ((2, 2, 5, 6), {"kernel_shape": [7, 7], "pads": [1, 0, 1, 1]}),
    "most of the map": ((2, 2, 5, 6), {"kernel_shape": [3, 6], "strides": [3, 1]}),
    "dilated": ((1, 2, 8, 8), {"kernel_shape": [2, 3], "dilations": [3, 2], "strides": [2, 1]}),
}
SIZES = [(0,), (), (0, 2, 3, 4)]


def axes(symbolic, x, attributes):
    if "auto_pad" in attributes and 2 in symbolic and max(attributes.get("strides", [1])) > 1:
        pytest.skip("auto_pad with a stride needs a known size")
    if symbolic == () and attributes == WINDOWS["ceil over padding"][1]:
        pytest.skip("onnx's shape inference counts a window that starts in the padding")
    return [axis for axis in symbolic if axis < x.ndim]


@pytest.mark.parametrize("symbolic", SIZES, ids=["batch", "static", "sizes"])
@pytest.mark.parametrize("values", ["distinct", "ties", "negative", "zeros"])
@pytest.mark.parametrize("geometry", WINDOWS)
def test_the_first_maximum_takes_all(geometry, values, symbolic):
    """Ties are broken in row-major order; relevance also sits on zeros here (`spread`)."""
    shape, attributes = WINDOWS[geometry]
    x = {
        "distinct": normal(*shape),
        "ties": np.random.default_rng(0).integers(-1, 2, shape).astype(np.float32),
        "negative": -np.abs(normal(*shape)) - 1,
        "zeros": np.zeros(shape, np.float32),
    }[values]
    crosses_as_defined(
        node("MaxPool", ["x"], **attributes),
        x,
        "winner-takes-all",
        spread=True,
        symbolic=axes(symbolic, x, attributes),
    )


@pytest.mark.parametrize("symbolic", SIZES, ids=["batch", "static", "sizes"])
@pytest.mark.parametrize("geometry", WINDOWS)
def test_maxima_shared_in_proportion(geometry, symbolic):
    shape, attributes = WINDOWS[geometry]
    x = np.abs(normal(*shape))
    tested = node("MaxPool", ["x"], **attributes)
    crosses_as_defined(tested, x, "proportional", symbolic=axes(symbolic, x, attributes))


@pytest.mark.parametrize("symbolic", SIZES, ids=["batch", "static", "sizes"])
@pytest.mark.parametrize("include", [0, 1], ids=["exclude pads", "include pads"])
@pytest.mark.parametrize("rule", ["norm", "flat"])
@pytest.mark.parametrize("geometry", WINDOWS)
def test_average_pool(geometry, rule, include, symbolic):
    shape, attributes = WINDOWS[geometry]
    x = normal(*shape)
    tested = node("AveragePool", ["x"], count_include_pad=include, **attributes)
    opset = 19 if "dilations" in attributes else 18
    crosses_as_defined(tested, x, rule, symbolic=axes(symbolic, x, attributes), opset=opset)


@pytest.mark.parametrize(
    ("rule", "parameters"),
    [
        ("norm", {"stabiliser": 0.1}),
        ("epsilon", {"epsilon": 0.5}),
        ("z-plus", {}),
        ("alpha-beta", {}),
        ("beta", {"beta": 0.5}),
    ],
)
@pytest.mark.parametrize("spread", [False, True])
@pytest.mark.parametrize("geometry", ["2x2", "3x3 stride 2 padded", "ceil padded"])
def test_every_rule_on_average_pools(geometry, spread, rule, parameters):
    shape, attributes = WINDOWS[geometry]
    tested = node("AveragePool", ["x"], **attributes)
    crosses_as_defined(tested, normal(*shape), rule, spread=spread, **parameters)


@pytest.mark.parametrize("rule", ["alpha-beta", "z-plus", "epsilon", "flat", "norm", "beta"])
@pytest.mark.parametrize("op", ["AveragePool", "GlobalAveragePool", "Add", "Gemm", "Conv", "Mul"])
def test_every_rule_behind_a_relu(op, rule):
    """No negative part of x, no negative weights: whole terms vanish while a rule is written."""
    weights = {
        "Gemm": {"w": normal(48, 4)},
        "Conv": {"w": normal(4, 3, 3, 3)},
        "Mul": {"w": normal(3, 1, 1)},
    }.get(op, {})
    attributes = {"kernel_shape": [3, 3], "strides": [2, 2]} if op == "AveragePool" else {}
    inputs = ["a", "a"] if op == "Add" else ["f" if op == "Gemm" else "a", *weights]
    tested = node(op, inputs, **attributes)
    body = [
        node("Relu", ["x"], "a"),
        node("Flatten", ["a"], "f"),
        tested,
        node("Flatten", ["y"], "g"),
        node("Gemm", ["g", "readout"], "logits"),
    ]
    x = normal(2, 3, 4, 4)
    values = reference.evaluate(model(body[:3], {"x": [2, 3, 4, 4]}, ["y"], weights), {"x": x})
    readout = normal(values["y"][0].size, 3, seed=1)
    proto = model(body, {"x": ["N", 3, 4, 4]}, ["logits"], {**weights, "readout": readout})
    composite = lines(f"name=node_y: {rule}", "Gemm: z-plus")
    explained = explain(proto, composite, {"x": x})
    rules = {e.name: (e.rule, dict(e.parameters)) for e in explained.conversion.nodes}
    expected = reference.explain(proto, {"x": x}, lambda n: rules[n.name], ["x"], "logits")
    close(explained.values["relevance"], expected["x"], 3e-5)


EXTREMA = [
    ("GlobalMaxPool", None, {}),
    ("ReduceMax", [2, 3], {}),
    ("ReduceMax", [1], {}),
    ("ReduceMin", [1, 3], {"keepdims": 0}),
    ("ReduceMin", [-1], {}),
    ("ReduceProd", [1, 3], {"keepdims": 0}),
    ("ReduceProd", [2], {}),
]


@pytest.mark.parametrize("symbolic", [(0,), (0, 1, 2, 3)], ids=["batch", "sizes"])
@pytest.mark.parametrize(("op", "over", "attributes"), EXTREMA, ids=str)
def test_extrema_and_products_over_axes(op, over, attributes, symbolic):
    """Ties are among the extrema: the first gets all."""
    x = np.random.default_rng(0).integers(-2, 3, (2, 3, 4, 5)).astype(np.float32)
    if op == "ReduceProd":
        x = normal(2, 3, 4, 5, seed=1)
    weights = {} if over is None else {"axes": np.array(over, np.int64)}
    tested = node(op, ["x", *weights], **attributes)
    rule = "pass" if op == "ReduceProd" else "winner-takes-all"
    crosses_as_defined(tested, x, rule, weights, spread=True, symbolic=symbolic)


@pytest.mark.parametrize("symbolic", [(0,), (0, 2, 3)], ids=["batch", "sizes"])
@pytest.mark.parametrize(("op", "over", "attributes"), [
    ("GlobalMaxPool", None, {}),
    ("ReduceMax", [2, 3], {"keepdims": 0}),
    ("ReduceMax", [-1], {}),
])  # fmt: skip
def test_global_maxima(op, over, attributes, symbolic):
    """A MaxPool whose window is everything, with ties."""
    x = np.random.default_rng(0).integers(-2, 3, (2, 3, 4, 5)).astype(np.float32)
    window = [1, 5] if over == [-1] else [4, 5]
    whole = node("MaxPool", ["x"], kernel_shape=window)
    weights = {} if over is None else {"axes": np.array(over, np.int64)}
    features = 12 if over == [-1] else 3
    tail = [node("Reshape", ["y", "rows"], "f"), node("Gemm", ["f", "r"], "logits")]
    constants = {"rows": np.array([-1, features], np.int64), "r": normal(features, 3)}
    shape = [f"d{axis}" if axis in symbolic else size for axis, size in enumerate(x.shape)]
    composite = lines("Gemm: flat", "*: winner-takes-all")
    maps = []
    for tested in (node(op, ["x", *weights], **attributes), whole):
        used = {**constants, **(weights if tested is not whole else {})}
        proto = model([tested, *tail], {"x": shape}, ["logits"], used)
        maps.append(explain(proto, composite, {"x": x}, 1).values["relevance"])
    np.testing.assert_array_equal(*maps)


REDUCTIONS = [
    pytest.param("GlobalAveragePool", None, {}, id="global"),
    pytest.param("ReduceMean", [2, 3], {"keepdims": 0}, id="mean spatial"),
    pytest.param("ReduceMean", [-1], {}, id="mean last"),
    pytest.param("ReduceMean", [1], {"keepdims": 0}, id="mean channels"),
    pytest.param("ReduceSum", [3, 2], {}, id="sum"),
]


@pytest.mark.parametrize("rule", ["norm", "epsilon", "z-plus", "flat"])
@pytest.mark.parametrize("symbolic", [(0,), (0, 2, 3)], ids=["batch", "sizes"])
@pytest.mark.parametrize(("op", "over", "attributes"), REDUCTIONS)
def test_reductions(op, over, attributes, symbolic, rule):
    weights = {} if over is None else {"axes": np.array(over, np.int64)}
    tested = node(op, ["x", *weights], **attributes)
    crosses_as_defined(tested, normal(2, 3, 4, 5), rule, weights, symbolic=symbolic)


@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [2, 2], "strides": [3, 3], "auto_pad": "SAME_UPPER"},
        {"kernel_shape": [3, 3], "dilations": [2, 2], "auto_pad": "SAME_LOWER"},
    ],
)
@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool"])
def test_what_runtimes_pad_otherwise_is_refused(operator, attributes):
    body = [node(operator, ["x"], **attributes), node("GlobalAveragePool", ["y"], "g")]
    proto = model(
        body, {"x": ["N", 3, 9, 9]}, ["g"], {}, opset=22 if "dilations" in attributes else 18
    )
    with pytest.raises(UnsupportedError, match="write its padding out"):
        convert(proto, lines("AveragePool: norm", "*: norm"))


@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"auto_pad": "VALID"}, "spans 4 elements, but its padded input has 3"),
        ({"dilations": [2, 1]}, "axes of a length below 1"),
    ],
    ids=["automatic", "dilated"],
)
def test_a_window_that_does_not_fit_is_refused(operator, attributes, reason):
    """ONNX has no output there; onnxruntime has one, of what it sees of the window."""
    tested = node(operator, ["x"], kernel_shape=[4, 2], strides=[4, 1], **attributes)
    graph = helper.make_graph(
        [tested, node("GlobalAveragePool", ["y"], "g")],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 3, 9])],
        [helper.make_tensor_value_info("g", TensorProto.FLOAT, None)],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    with pytest.raises(OnnxlrpError, match=reason):
        convert(proto, lines("AveragePool: norm", "*: norm"))


@pytest.mark.parametrize(
    ("size", "attributes", "most"),
    [(57, {}, 1000), (60, {"strides": [3, 3], "ceil_mode": 1}, 1000), (56, {}, 32)],
    ids=["two places", "ceil", "whole map"],
)
def test_a_large_window_is_visited_axis_by_axis(size, attributes, most):
    """56 + 56 positions instead of 3136; a map seen whole has one maximum."""
    tested = node("MaxPool", ["x"], kernel_shape=[56, 56], **attributes)
    body = [tested, node("Flatten", ["y"], "f")]
    proto = model(body, {"x": ["N", 2, size, size]}, ["f"], {})
    explainer = convert(proto, lines("MaxPool: winner-takes-all")).to_proto()
    assert len(explainer.graph.node) < most


@pytest.mark.parametrize("rule", ["epsilon", "flat", "w-square"])
def test_a_mean_over_a_stack_in_front_mixes_no_samples(rule):
    """Of several heads' scores, [2, N, 4]; each head adds up to what the input is given."""
    body = [
        node("Relu", ["x"], "r"),
        node("Unsqueeze", ["x", "front"], "a"),
        node("Unsqueeze", ["r", "front"], "b"),
        node("Concat", ["a", "b"], "stack", axis=0),
        node("ReduceMean", ["stack", "front"], "y", keepdims=0),
        node("Gemm", ["y", "w"], "logits"),
    ]
    weights = {"front": np.array([0]), "w": normal(4, 3, seed=1)}
    proto = model(body, {"x": ["N", 4]}, ["logits"], weights)
    explained = explain(
        proto,
        lines(f"name=node_y: {rule}", "*: epsilon"),
        {"x": normal(3, 4, seed=2)},
        inside=["y"],
        target=[0, 1, 2],
    )
    close(explained.values["relevance"], explained.relevance("y"))


def test_a_mean_over_the_samples_is_refused():
    body = [
        node("ReduceMean", ["x", "front"], "m", keepdims=1),
        node("Sub", ["x", "m"], "y"),
        node("Gemm", ["y", "w"], "logits"),
    ]
    weights = {"front": np.array([0]), "w": normal(4, 3, seed=1)}
    with pytest.raises(UnsupportedError, match="mixes the samples"):
        convert(model(body, {"x": ["N", 4]}, ["logits"], weights), lines("*: epsilon"))


def test_no_slice_along_one_axis_alone():
    """onnxruntime counts each element of that axis at load: 4 GB for a width of 2^31."""
    body = [
        node("MaxPool", ["x"], "p", kernel_shape=[3, 3], strides=[2, 2]),
        node("GlobalAveragePool", ["p"], "g"),
        node("Flatten", ["g"], "logits"),
    ]
    explainer = convert(model(body, {"x": ["N", 4, 9, 9]}, ["logits"], {})).to_proto()
    constants = {t.name: numpy_helper.to_array(t) for t in explainer.graph.initializer}
    slices = [n for n in explainer.graph.node if n.op_type == "Slice" and len(n.input) == 5]
    assert len(slices) == 4
    assert all(constants[n.input[3]].size == 2 for n in slices)
