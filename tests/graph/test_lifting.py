"""What is malformed is told in one line; what is only unusual is made usual."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support import close, explain, lines, node, normal, run

import onnxlrp
from onnxlrp.errors import OnnxlrpError
from onnxlrp.graph.loading import load
from onnxlrp.graph.shapes import dims_of

X = {"x": ["N", 6]}
PICTURE = {"x": ["N", 3, 8, 8]}
EPSILON = lines("*: epsilon")
W = normal(6, 3)


def unchecked(nodes, inputs=X, weights=None, output=("N", 3), opset=18):
    """Build a model that nobody has looked at."""
    weights = {"w": W} if weights is None else weights
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, s) for name, s in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def read_by_classifier(first, weights=None):
    """Classify what one node makes of a picture."""
    rest = [node("GlobalAveragePool", ["c"], "g"), node("Flatten", ["g"])]
    return unchecked([first, *rest], PICTURE, weights or {})


def without_name():
    proto = unchecked([node("MatMul", ["x", "w"])])
    proto.graph.initializer[0].name = ""
    return proto


def twice():
    proto = unchecked([node("MatMul", ["x", "w"])])
    proto.graph.initializer.append(proto.graph.initializer[0])
    return proto


def calling_itself():
    call = helper.make_node("F", ["x"], ["a"], domain="own")
    proto = unchecked([call, node("MatMul", ["a", "w"])])
    opsets = [helper.make_opsetid("own", 1)]
    inner = helper.make_node("F", ["i"], ["o"], domain="own")
    proto.functions.append(helper.make_function("own", "F", ["i"], ["o"], [inner], opsets))
    proto.opset_import.extend(opsets)
    return proto


def circle():
    return [node("Add", ["x", "b"], "a"), node("Relu", ["a"], "b"), node("MatMul", ["b", "w"])]


MALFORMED = {
    "MatMul": unchecked([node("MatMul", ["x", "w"])], weights={"w": normal(5, 3)}),
    "Gemm bias": unchecked([node("Gemm", ["x", "w", "b"])], weights={"w": W, "b": normal(4)}),
    "Gemm rank": unchecked([node("Gemm", ["x", "w"])], weights={"w": normal(6, 3, 2)}),
    "types": unchecked([node("MatMul", ["x", "w"])], weights={"w": np.ones((6, 3), np.int64)}),
    "scalar": unchecked([node("MatMul", ["x", "w"])], weights={"w": np.float32(3)}),
    "circle": unchecked(circle()),
    "output given": unchecked([node("Relu", ["x"], "a")], {"y": ["N", 6]}, {}, ("N", 6)),
    "softmax of input": unchecked([node("Softmax", ["x"])], X, {}, ("N", 6)),
    "output missing": unchecked([node("Relu", ["x"], "a")]),
    "Conv rank": read_by_classifier(node("Conv", ["x", "w"], "c"), {"w": normal(3, 3, 3)}),
    "Conv channels": read_by_classifier(node("Conv", ["x", "w"], "c"), {"w": normal(3, 4, 3, 3)}),
    "Conv bias": read_by_classifier(
        node("Conv", ["x", "w", "b"], "c"), {"w": normal(3, 3, 3, 3), "b": normal(4)}
    ),
    "Conv size": read_by_classifier(node("Conv", ["x", "w"], "c"), {"w": normal(3, 3, 13, 13)}),
    "strides": read_by_classifier(
        node("Conv", ["x", "w"], "c", strides=[0, 0]), {"w": normal(3, 3, 3, 3)}
    ),
    "pool axes": read_by_classifier(node("MaxPool", ["x"], "c", kernel_shape=[2])),
    "pool kernel": read_by_classifier(node("MaxPool", ["x"], "c")),
    "pool size": read_by_classifier(node("AveragePool", ["x"], "c", kernel_shape=[20, 20])),
    "LRN": read_by_classifier(node("LRN", ["x"], "c", size=0)),
    "same output": unchecked(
        [node("Relu", ["x"], "a"), node("Relu", ["x"], "a"), node("MatMul", ["a", "w"])]
    ),
    "operator": unchecked([node("Reluu", ["x"], "a"), node("MatMul", ["a", "w"])]),
    "inputs": unchecked([node("MatMul", ["x"])], weights={}),
    "attribute": unchecked([node("Flatten", ["x"], "a", axis=1.5), node("MatMul", ["a", "w"])]),
    "axis": unchecked([node("MatMul", ["x", "w"], "a"), node("Softmax", ["a"], axis=9)]),
    "no classes": unchecked([node("MatMul", ["x", "w"])], weights={"w": normal(6, 0)}),
    "opset": unchecked([node("MatMul", ["x", "w"])], opset=-3),
    "initializer": without_name(),
    "initializers": twice(),
    "recursion": calling_itself(),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_model_is_one_line(name):
    with pytest.raises(OnnxlrpError) as caught:
        onnxlrp.convert(MALFORMED[name], "epsilon")
    first, *rest = str(caught.value).split("\n")
    assert len(first) > 20
    assert "%s" not in str(caught.value)
    assert not rest or (first == "1 node cannot be explained:" and len(rest) == 1)


def test_a_circle_names_its_nodes():
    with pytest.raises(OnnxlrpError, match=r"read each other: node_[ab], node_[ab]"):
        load(MALFORMED["circle"])


def test_nodes_in_any_order():
    """onnxruntime runs them."""
    ordered = [node("Relu", ["x"], "a"), node("MatMul", ["a", "w"])]
    wanted, got = (
        explain(unchecked(nodes), EPSILON, {"x": normal(2, 6)}).values["relevance"]
        for nodes in (ordered, ordered[::-1])
    )
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("shape", [(1, 3), ("N", 4), ("N", 3, 1), (-1, 3)])
def test_the_shapes_that_a_file_tells_may_be_stale(shape):
    proto = unchecked([node("Relu", ["x"], "a"), node("MatMul", ["a", "w"])], output=shape)
    proto.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, [7, 7]))
    proto.graph.value_info.append(helper.make_tensor_value_info("none", TensorProto.FLOAT, [7]))
    explained = explain(proto, EPSILON, {"x": normal(2, 6)})
    assert explained.conversion.outputs == [
        ("y", "float32", ("N", 3)),
        ("relevance", "float32", ("explained_N", 6)),
    ]


def test_what_only_the_file_knows_of_a_shape_is_kept():
    """Of an operator that onnx does not know, and what follows from it."""
    own = helper.make_node("Own", ["x"], ["a"], domain="own", name="own")
    proto = unchecked([own, node("MatMul", ["a", "w"])])
    proto.opset_import.append(helper.make_opsetid("own", 1))
    proto.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, ["N", 6]))
    graph = load(proto).model.graph
    assert str(graph.outputs[0].shape) == "[N,3]"
    assert str(graph.node("own").outputs[0].shape) == "[N,6]"


def test_a_size_below_zero_is_one_that_is_not_known():
    proto = unchecked([node("MatMul", ["x", "w"])], {"x": [-1, 6]})
    assert explain(proto, EPSILON, {"x": normal(2, 6)}).values["relevance"].shape == (2, 6)


def with_function(own, whole, body, count=1):
    """Put a function of one opset into a model of another."""
    call = helper.make_node("F", ["x", "w"], ["a"], domain="own", name="call")
    function = helper.make_function(
        "own", "F", ["i", "k"], ["o"], body, [helper.make_opsetid("", own)]
    )
    proto = unchecked(
        [call, node("MatMul", ["a", "v"])], weights={"w": W, "v": normal(3, 3)}, opset=whole
    )
    proto.functions.append(function)
    proto.opset_import.append(helper.make_opsetid("own", 1))
    return proto


@pytest.mark.parametrize(
    ("own", "whole"), [(9, 9), (13, 13), (18, 18), (13, 18), (18, 13), (9, 20)]
)
def test_functions_of_any_opset(own, whole):
    body = [helper.make_node("MatMul", ["i", "k"], ["m"]), helper.make_node("Relu", ["m"], ["o"])]
    plain = [node("MatMul", ["x", "w"], "z"), node("Relu", ["z"], "a"), node("MatMul", ["a", "v"])]
    x = normal(2, 6, seed=5)
    wanted = explain(unchecked(plain, weights={"w": W, "v": normal(3, 3)}), EPSILON, {"x": x})
    got = explain(with_function(own, whole, body), EPSILON, {"x": x})
    close(got.values["relevance"], wanted.values["relevance"], 1e-6)


def test_a_model_without_operators_of_onnx_is_refused_by_the_node():
    dense = helper.make_node("LinearRegressor", ["x"], ["y"], domain="ai.onnx.ml", name="dense")
    dense.attribute.append(helper.make_attribute("coefficients", [2.0] * 6))
    dense.attribute.append(helper.make_attribute("post_transform", "PROBIT"))
    proto = unchecked([dense], output=("N", 1))
    del proto.opset_import[:]
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    with pytest.raises(onnxlrp.UnsupportedError, match=r"dense \(LinearRegressor, ai.onnx"):
        onnxlrp.convert(proto, "epsilon")


def with_list(read):
    """Add an output that is a sequence."""
    proto = unchecked([node("MatMul", ["x", "w"]), node("SplitToSequence", [read], "list")])
    proto.graph.output.append(helper.make_tensor_sequence_value_info("list", 1, None))
    return proto


@pytest.mark.parametrize("read", ["x", "w", "y"])
def test_outputs_that_are_no_tensors_are_left_out(read):
    explained = explain(with_list(read), EPSILON, {"x": normal(2, 6)})
    assert [name for name, *_ in explained.conversion.outputs] == ["y", "relevance"]
    assert explained.conversion.warnings == ("output 'list' is left out, for it is no tensor",)


def test_a_model_of_nothing_but_lists_is_refused():
    proto = with_list("y")
    del proto.graph.output[0]
    with pytest.raises(OnnxlrpError, match="no outputs that hold scores: output 'list'"):
        load(proto)


def test_a_classifier_as_scikit_learn_exports_it():
    """Its probabilities are a list of dictionaries; the tensor in front of it takes their place."""
    skl2onnx = pytest.importorskip("skl2onnx")
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, labels = normal(40, 6), np.arange(40) % 3
    fitted = linear_model.LogisticRegression().fit(x, labels)
    proto = skl2onnx.to_onnx(fitted, x[:1])
    loaded = load(proto)
    assert [value.name for value in loaded.model.graph.outputs] == [
        "output_label",
        "probabilities",
    ]
    assert loaded.notes == (
        "'probabilities' is in place of 'output_probability', which is no tensor",
    )


def test_a_model_that_onnx_does_not_lift(monkeypatch):
    """What changed between opset 13 and 18 is then written out, with the same results."""

    def fail(*_):
        raise RuntimeError("assertion failed")

    body = [
        node("ReduceMean", ["x"], "m", axes=[2, 3], keepdims=0),
        helper.make_node("Split", ["m"], ["a", "b"], axis=1, name="halves"),
        node("Sub", ["a", "b"], "d"),
        node("MatMul", ["d", "w"]),
    ]
    weights = {"w": normal(2, 3)}
    proto = unchecked(body, {"x": ["N", 4, 5, 5]}, weights, opset=17)
    x = normal(2, 4, 5, 5)
    wanted = explain(proto, EPSILON, {"x": x})
    monkeypatch.setattr(onnx.version_converter, "convert_version", fail)
    got = explain(proto, EPSILON, {"x": x})
    for name in ("y", "relevance"):
        np.testing.assert_array_equal(got.values[name], wanted.values[name])
    np.testing.assert_array_equal(got.values["y"], run(proto, {"x": x})["y"])
    with pytest.raises(OnnxlrpError, match="cannot lift the model from opset 12"):
        load(unchecked([node("MatMul", ["x", "w"])], opset=12))


@pytest.mark.parametrize(
    ("operator", "others", "attributes"),
    [
        ("GroupNormalization", ["c", "c"], {"num_groups": 2}),
        ("MeanVarianceNormalization", [], {}),
    ],
)
def test_shapes_behind_what_onnx_cannot_infer(operator, others, attributes):
    """The result has its first input's shape, also where onnx fails or says nothing."""
    inputs = [helper.make_tensor_value_info("x", 1, ["N", 4, 5, 5])]
    nodes = [
        helper.make_node(operator, ["x", *others], ["n"], **attributes),
        helper.make_node("MaxPool", ["n"], ["y"], kernel_shape=[2, 2]),
    ]
    ones = [onnx.numpy_helper.from_array(np.ones(4, np.float32), "c")] if others else []
    outputs = [helper.make_tensor_value_info("y", 1, None)]
    graph = helper.make_graph(nodes, "test", inputs, outputs, ones)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    assert dims_of(load(proto).model.graph.outputs[0].shape) == ("N", 4, 4, 4)


@pytest.mark.parametrize("first", ["", "ai.onnx"])
@pytest.mark.parametrize("opsets", [(12, 13), (17, 17)])
def test_of_a_domain_that_is_imported_twice_the_last_counts(opsets, first):
    """As skl2onnx writes it; of opset 13 on, Softmax is along one axis."""
    x = normal(5, 2, 3)
    nodes = [node("Softmax", ["x"], "s"), node("Flatten", ["s"], "f"), node("MatMul", ["f", "w"])]
    proto = unchecked(nodes, {"x": ["N", 2, 3]}, opset=opsets[0])
    proto.opset_import[0].domain = first
    proto.opset_import.append(helper.make_opsetid("", opsets[1]))
    assert load(proto).model.opset_imports[""] == 18
    explained = explain(proto, EPSILON, {"x": x})
    softmax = np.exp(x) / np.exp(x).sum(axis=2, keepdims=True)
    np.testing.assert_allclose(explained.values["y"], softmax.reshape(5, 6) @ W, rtol=1e-5)
    np.testing.assert_array_equal(explained.values["y"], run(proto, {"x": x})["y"])


def test_a_size_that_nothing_holds_ends_before_anyone_counts_up_to_it():
    with pytest.raises(OnnxlrpError, match="'y' has an axis of size 4611686018427387904"):
        load(unchecked([node("Gemm", ["x", "w"])], output=("N", 2**62)))


def test_a_stride_beyond_all_pictures_is_refused():
    pool = node("AveragePool", ["x"], "p", kernel_shape=[1, 1], strides=[10**7, 1])
    body = [pool, node("Flatten", ["p"], "f"), node("Gemm", ["f", "w"])]
    proto = unchecked(body, {"x": ["N", 1, 2, 3]}, {"w": normal(3, 3)})
    with pytest.raises(onnxlrp.UnsupportedError, match="moves by 10000000 at a time"):
        onnxlrp.convert(proto)
