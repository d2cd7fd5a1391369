"""The explainer's contract: inputs, outputs, names, target, metadata."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support import close, explain, lines, model, node, normal, run

import onnxlrp
from onnxlrp import reference
from onnxlrp.errors import CompositeError, InputError, ModelError, UnsupportedError

W = {"w": normal(6, 5, seed=1), "b": normal(5, seed=2), "v": normal(5, 3, seed=3)}
BODY = [
    node("Gemm", ["x", "w", "b"], "z"),
    node("Relu", ["z"], "a"),
    node("Gemm", ["a", "v"], "logits"),
]
X = normal(4, 6, seed=4)
EPSILON = lines("*: epsilon")


def small(outputs=("logits",), extra=(), body=BODY, **options):
    return model([*body, *extra], {"x": ["N", 6]}, list(outputs), W, **options)


def expected(target, x=X, score="logits", proto=None):
    rule = ("epsilon", {"epsilon": 1e-6, "bias": "absorb", "power": 1})
    return reference.explain(proto or small(), {"x": x}, lambda _: rule, ["x"], score, target)


def test_inputs_and_outputs():
    conversion = onnxlrp.convert(small(), EPSILON)
    assert conversion.inputs == [("x", "float32", ("N", 6)), ("target", "int64", ("targets",))]
    assert conversion.outputs == [
        ("logits", "float32", ("N", 3)),
        ("relevance", "float32", ("explained_N", 6)),
    ]


@pytest.mark.parametrize("target", [0, 2, -1, [0, 1, 2, -1]])
def test_target(target):
    """One class for all, one each, or -1 for the best."""
    explained = explain(small(), EPSILON, {"x": X}, target)
    close(explained.values["relevance"], expected(target)["x"])


@pytest.mark.parametrize("target", [3, -2, -3, [0, 1, 2, -4]])
def test_a_class_that_does_not_exist_is_an_error_and_not_an_empty_map(target):
    with pytest.raises(Exception, match="GatherElements"):
        explain(small(), EPSILON, {"x": X}, target)


@pytest.mark.parametrize("target", [3, -1, 2**70, 0.5, "last"])
def test_a_target_that_is_none_is_not_written_in(target):
    with pytest.raises(onnxlrp.OnnxlrpError, match=f"target '?{target}'? is n"):
        onnxlrp.convert(small(), EPSILON, target=target)


@pytest.mark.parametrize(("target", "same_as"), [("top", -1), (1, 1), (np.int64(1), 1)])
def test_a_target_can_be_written_in(target, same_as):
    conversion = onnxlrp.convert(small(), EPSILON, target=target)
    assert [name for name, _, _ in conversion.inputs] == ["x"]
    values = run(conversion.to_proto(), {"x": X})
    close(values["relevance"], expected(same_as)["x"])


@pytest.mark.parametrize("target", [3, -1, -2])
def test_a_written_target_must_exist(target):
    with pytest.raises(InputError, match="classes 0 to 2"):
        onnxlrp.convert(small(), EPSILON, target=target)


def test_the_model_computes_what_it_computed():
    proto = small()
    explained = explain(proto, EPSILON, {"x": X})
    np.testing.assert_array_equal(explained.values["logits"], run(proto, {"x": X})["logits"])


def test_relevance_of_intermediate_values():
    explained = explain(small(), EPSILON, {"x": X}, inside=["z", "a"])
    wanted = expected(-1)
    close(explained.relevance("a"), wanted["a"])
    close(explained.relevance("z"), wanted["z"])


@pytest.mark.parametrize("value", ["nothing", "logit"])
def test_an_unknown_intermediate_value(value):
    with pytest.raises(InputError, match="computes no value"):
        onnxlrp.convert(small(), EPSILON, intermediates=[value])


def test_a_value_without_relevance_of_its_own():
    side = [node("Neg", ["x"], "side")]
    with pytest.raises(InputError, match="no relevance of its own"):
        onnxlrp.convert(
            small(["logits", "side"], side), EPSILON, output="logits", intermediates=["side"]
        )


def test_names_that_the_model_already_uses():
    body = [node("Identity", ["x"], "target"), node("Neg", ["target"], "relevance"), *BODY]
    proto = small(["logits", "target", "relevance"], body=body)
    conversion = onnxlrp.convert(proto, EPSILON, output="logits")
    assert "onnxlrp_target" in [name for name, _, _ in conversion.inputs]
    assert "onnxlrp_relevance" in [name for name, _, _ in conversion.outputs]
    assert len(conversion.warnings) == 2
    assert "onnxlrp_target" in conversion.warnings[0]


def test_several_inputs():
    """Both are explained, together they hold the score."""
    body = [
        node("Gemm", ["left", "w"], "p"),
        node("Gemm", ["right", "w"], "q"),
        node("Add", ["p", "q"], "s"),
        node("Gemm", ["s", "v"], "logits"),
    ]
    proto = model(body, {"left": ["N", 6], "right": ["N", 6]}, ["logits"], W)
    feeds = {"left": normal(2, 6, seed=5), "right": normal(2, 6, seed=6)}
    explained = explain(proto, EPSILON, feeds)
    rule = ("epsilon", {"epsilon": 1e-6, "bias": "absorb", "power": 1})
    wanted = reference.explain(proto, feeds, lambda _: rule, list(feeds), "logits")
    for name in feeds:
        close(explained.values[f"relevance_{name}"], wanted[name], 3e-5)
    alone = explain(proto, EPSILON, feeds, inputs=["right"])
    close(alone.values["relevance"], wanted["right"], 3e-5)


def test_metadata():
    explained = explain(small(), EPSILON, {"x": X})
    stored = {entry.key: entry.value for entry in explained.proto.metadata_props}
    assert stored["onnxlrp.score"] == "logits"
    assert stored["onnxlrp.target_input"] == "target"
    assert json.loads(stored["onnxlrp.relevance"]) == {"x": "relevance"}
    assert len(stored["onnxlrp.model_sha256"]) == 64
    assert 'rule = "epsilon"' in stored["onnxlrp.composite"]


def test_nodes_are_named_after_what_they_explain():
    explained = explain(small(), EPSILON, {"x": X})
    added = [n for n in explained.proto.graph.node if n.name not in {b.name for b in BODY}]
    assert len({n.name for n in explained.proto.graph.node}) == len(explained.proto.graph.node)
    assert all(n.name.startswith("onnxlrp/") for n in added)
    assert all(n.domain == "" for n in added)
    first = next(n for n in added if n.name == "onnxlrp/node_z/epsilon/1")
    stored = {entry.key: entry.value for entry in first.metadata_props}
    assert stored["onnxlrp.node"] == "node_z"
    assert stored["onnxlrp.rule"] == "epsilon"
    assert "epsilon=1e-06" in stored["onnxlrp.parameters"]


HEADS = {
    "softmax": [node("Softmax", ["logits"], "out")],
    "log-softmax": [node("LogSoftmax", ["logits"], "out")],
    "sigmoid": [node("Sigmoid", ["logits"], "out")],
    "behind a reshape": [
        node("Reshape", ["logits", "s"], "r"),
        node("Softmax", ["r"], "p"),
        node("Reshape", ["p", "s"], "out"),
    ],
    "in front of a cast": [
        node("Softmax", ["logits"], "p"),
        node("Cast", ["p"], "c", to=TensorProto.DOUBLE),
        node("Identity", ["c"], "out"),
    ],
}


@pytest.mark.parametrize("head", HEADS)
def test_relevance_starts_in_front_of_a_softmax(head):
    weights = {**W, "s": np.array([-1, 3], np.int64)}
    proto = model([*BODY, *HEADS[head]], {"x": ["N", 6]}, ["out"], weights)
    explained = explain(proto, EPSILON, {"x": X}, 1)
    close(explained.values["relevance"], expected(1)["x"])


def test_a_softmax_over_something_else_is_not_set_aside():
    head = [node("Softmax", ["logits"], "out", axis=0)]
    conversion = onnxlrp.convert(small(["out"], head), EPSILON)
    assert conversion.score == "out"
    assert conversion.nodes[-1].rule == "taylor"


@pytest.mark.parametrize("shape", [(-1, 1), (-1,)])
def test_a_single_output_unit_is_explained_as_it_is(shape):
    weights = {**W, "v": normal(5, 1, seed=3), "s": np.array(shape, np.int64)}
    head = [node("Gemm", ["a", "v"], "score"), node("Reshape", ["score", "s"], "out")]
    proto = model([*BODY[:2], *head], {"x": ["N", 6]}, ["out"], weights)
    explained = explain(proto, EPSILON, {"x": X})
    rule = ("epsilon", {"epsilon": 1e-6, "bias": "absorb", "power": 1})
    wanted = reference.explain(proto, {"x": X}, lambda _: rule, ["x"], "score", 0)
    close(explained.values["relevance"], wanted["x"])


def test_classes_with_trailing_axes_of_one():
    """SqueezeNet's scores are [N, classes, 1, 1]."""
    weights = {"w": normal(3, 2, 1, 1)}
    body = [node("Conv", ["x", "w"], "z"), node("GlobalAveragePool", ["z"], "logits")]
    proto = model(body, {"x": ["N", 2, 3, 3]}, ["logits"], weights)
    x = normal(2, 2, 3, 3, seed=1)
    explained = explain(proto, lines("*: epsilon"), {"x": x}, [0, 2])
    rule = ("epsilon", {"epsilon": 1e-6, "bias": "absorb", "power": 1})
    wanted = reference.explain(proto, {"x": x}, lambda _: rule, ["x"], "logits", [0, 2])
    close(explained.values["relevance"], wanted["x"])


def test_several_outputs_with_classes_ask_which():
    other = [node("Neg", ["logits"], "second")]
    proto = small(["logits", "second"], other)
    with pytest.raises(ModelError, match="--output"):
        onnxlrp.convert(proto, EPSILON)
    assert onnxlrp.convert(proto, EPSILON, output="logits").score == "logits"


def test_scores_and_their_softmax_are_one_choice():
    proto = small(["p", "logits"], [node("Softmax", ["logits"], "p")])
    assert onnxlrp.convert(proto, EPSILON).score == "logits"


def test_no_classes_and_no_image():
    flat = model([node("ReduceSum", ["x"], "y", keepdims=0)], {"x": [2, 3]}, ["y"], {})
    with pytest.raises(ModelError, match="class axis"):
        onnxlrp.convert(flat, EPSILON)
    text = model([node("Gather", ["w", "x"], "y")], {"x": [2]}, ["y"], W, dtype=TensorProto.INT64)
    with pytest.raises(ModelError, match="looks like an image"):
        onnxlrp.convert(text, EPSILON)


def test_every_obstacle_is_named():
    body = [
        node("Gemm", ["x", "w"], "z"),
        node("Bernoulli", ["z"], "s"),
        node("ReduceMax", ["s"], "t"),
        helper.make_node("Odd", ["s", "t"], ["o"], name="node_o", domain="com.example"),
        node("Relu", ["o"], "m"),
        node("Gemm", ["m", "v"], "logits"),
    ]
    graph = helper.make_graph(
        body,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        [onnx.numpy_helper.from_array(array, name) for name, array in W.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.example", 2)]
    with pytest.raises(UnsupportedError) as caught:
        onnxlrp.convert(helper.make_model(graph, opset_imports=opsets, ir_version=8), EPSILON)
    found = [(o.node, o.operator, o.domain, o.opset) for o in caught.value.obstacles]
    assert found == [
        ("node_s", "Bernoulli", "", 18),
        ("node_t", "ReduceMax", "", 18),
        ("node_o", "Odd", "com.example", 2),
    ]


@pytest.mark.parametrize(
    "attributes", [{"bias": 0.0}, {"bias": -1.0}, {"alpha": -1.0}, {"beta": -0.5}]
)
def test_lrn_outside_its_domain_is_refused_by_name(attributes):
    body = [
        node("LRN", ["x"], "y", size=3, **attributes),
        node("GlobalAveragePool", ["y"], "logits"),
    ]
    proto = model(body, {"x": ["N", 3, 4, 4]}, ["logits"], {})
    with pytest.raises(UnsupportedError, match=f"its {next(iter(attributes))} is"):
        onnxlrp.convert(proto)


def test_a_node_without_a_line_is_an_error():
    with pytest.raises(CompositeError, match=r"node_z \(Gemm\)"):
        onnxlrp.convert(small(), lines("Conv: epsilon"))


def test_a_line_that_matched_nothing_is_a_warning():
    conversion = onnxlrp.convert(small(), lines("Conv: flat", "name=none*: flat", "*: epsilon"))
    assert [w.split(":")[0] for w in conversion.warnings] == ["--rule 'Conv", "--rule 'name=none*"]


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16])
def test_other_float_types(kind):
    """float16 and bfloat16 inputs get float32 relevance, double gets double."""
    names = {TensorProto.FLOAT16: "float16", TensorProto.DOUBLE: "double"}
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    weights = {name: array.astype(dtype) for name, array in W.items()}
    proto = model(BODY, {"x": ["N", 6]}, ["logits"], weights, dtype=kind)
    conversion = onnxlrp.convert(proto, EPSILON)
    explainer = conversion.to_proto()
    onnx.checker.check_model(explainer, full_check=True)
    wanted_type = "float64" if kind == TensorProto.DOUBLE else "float32"
    assert conversion.outputs[-1][1] == wanted_type
    if kind in names:
        values = run(explainer, {"x": X.astype(dtype), "target": np.array([1])})
        tolerance = 1e-12 if kind == TensorProto.DOUBLE else 2e-2
        rule = ("epsilon", {"epsilon": 1e-6, "bias": "absorb", "power": 1})
        wanted = reference.explain(
            proto, {"x": X.astype(dtype)}, lambda _: rule, ["x"], "logits", 1
        )
        close(values["relevance"], wanted["x"], tolerance)


def test_integer_images():
    body = [node("Cast", ["x"], "f", to=TensorProto.FLOAT), *BODY]
    body[1] = node("Gemm", ["f", "w", "b"], "z")
    proto = model(body, {"x": ["N", 6]}, ["logits"], W, dtype=TensorProto.UINT8)
    x = np.random.default_rng(0).integers(0, 255, (2, 6)).astype(np.uint8)
    conversion = onnxlrp.convert(proto, EPSILON)
    assert conversion.outputs[-1] == ("relevance", "float32", ("explained_N", 6))
    explained = explain(proto, EPSILON, {"x": x})
    close(explained.values["relevance"], expected(-1, x.astype(np.float32))["x"])


def test_order_of_nodes_does_not_matter():
    """Two branches that are written down in either order."""
    branch = [
        node("Gemm", ["x", "w"], "p"),
        node("Gemm", ["x", "w2"], "q"),
    ]
    rest = [node("Add", ["p", "q"], "s"), node("Gemm", ["s", "v"], "logits")]
    weights = {**W, "w2": normal(6, 5, seed=9)}
    composite = lines("Gemm first: flat", "*: epsilon")
    results = [
        explain(
            model([*order, *rest], {"x": ["N", 6]}, ["logits"], weights), composite, {"x": X}
        ).values["relevance"]
        for order in (branch, branch[::-1])
    ]
    np.testing.assert_array_equal(*results)


def test_fold_weights_computes_what_is_known_and_changes_nothing():
    weights = {"w": normal(4, 3, 3, 3, seed=1), "r": normal(4, 3)}
    body = [
        node("Conv", ["x", "w"], "z", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("GlobalAveragePool", ["z"], "g"),
        node("Flatten", ["g"], "f"),
        node("Gemm", ["f", "r"], "logits"),
    ]
    proto = model(body, {"x": ["N", 3, 6, 6]}, ["logits"], weights)
    composite = lines("Conv: alpha-beta", "Gemm: epsilon", "*: norm")
    x = normal(2, 3, 6, 6)
    plain = explain(proto, composite, {"x": x})
    folded = explain(proto, composite, {"x": x}, fold_weights=True)
    close(folded.values["relevance"], plain.values["relevance"], 1e-6)
    initializers = {i.name for i in folded.proto.graph.initializer}
    constant = [n.name for n in folded.proto.graph.node if n.input and set(n.input) <= initializers]
    assert constant == []
    assert len(folded.proto.graph.node) < len(plain.proto.graph.node)


@pytest.mark.parametrize("geometry", [{"strides": [2, 2]}, {"strides": [1, 3]}])
def test_conv_and_conv_transpose_never_share_an_initializer(geometry):
    weights = {"w": normal(4, 3, 3, 3, seed=1), "r": normal(4, 3)}
    body = [
        node("Conv", ["x", "w"], "z", **geometry),
        node("GlobalAveragePool", ["z"], "g"),
        node("Flatten", ["g"], "f"),
        node("Gemm", ["f", "r"], "logits"),
    ]
    proto = model(body, {"x": ["N", 3, 7, 7]}, ["logits"], weights)
    explained = explain(proto, lines("*: epsilon"), {"x": normal(1, 3, 7, 7)})
    used = {
        op: {n.input[1] for n in explained.proto.graph.node if n.op_type == op}
        for op in ("Conv", "ConvTranspose")
    }
    assert used["Conv"]
    assert used["ConvTranspose"]
    assert not used["Conv"] & used["ConvTranspose"]


@pytest.mark.parametrize("op", ["Gemm", "MatMul"])
def test_a_square_matrix_is_not_read_both_ways(op):
    weights = {"w": normal(5, 5, seed=1), "b": normal(5, seed=2), "v": normal(5, 3)}
    body = [
        node(op, ["x", "w"], "z"),
        node("Add", ["z", "b"], "y"),
        node("Tanh", ["y"], "a"),
        node("Gemm", ["a", "v"], "logits"),
    ]
    proto = model(body, {"x": ["N", 5]}, ["logits"], weights)
    x = normal(2, 5)
    explained = explain(proto, EPSILON, {"x": x}, target=1)
    readers = [n.op_type for n in explained.proto.graph.node if "w" in n.input]
    assert readers == [op, "Slice", "Slice"]
    close(explained.values["relevance"], expected(1, x, proto=proto)["x"], 1e-6)


def test_more_classes_than_can_be_numbered_are_refused():
    body = [
        node("MatMul", ["x", "w"], "z"),
        node("ConstantOfShape", ["sizes"], "zeros"),
        node("Add", ["z", "zeros"], "logits"),
    ]
    weights = {"w": normal(6, 1), "sizes": np.array([1, 1 << 31], np.int64)}
    proto = model(body, {"x": [1, 6]}, ["logits"], weights)
    with pytest.raises(onnxlrp.OnnxlrpError, match="has 2147483648 classes; 1 to 16777216"):
        onnxlrp.convert(proto, "epsilon")
