"""Texts have no relevance: what reads them is named, and where the numbers begin."""

import re

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper
from support import explain, lines, node, normal, run

import onnxlrp
from onnxlrp.errors import ModelError

EPSILON = lines("*: epsilon")
X = normal(2, 4, seed=1)
NAMES = ["cat", "dog", "owl"]


def read(text, **weights):
    opsets = '"" : 20, "ai.onnx.ml" : 3'
    proto = onnx.parser.parse_model(f"<ir_version: 9, opset_import: [{opsets}]> {text}")
    for name, array in weights.items():
        proto.graph.initializer.append(
            helper.make_tensor(name, TensorProto.STRING, array.shape, list(array))
            if array.dtype.kind == "S"
            else numpy_helper.from_array(array, name)
        )
    return proto


LABELS = {
    "Gather": "label = Gather(names, i)",
    "ArrayFeatureExtractor": "l = ai.onnx.ml.ArrayFeatureExtractor(names, i) "
    "label = Reshape(l, flat)",
    "LabelEncoder": "label = ai.onnx.ml.LabelEncoder<keys_int64s = [0, 1, 2], "
    'values_strings = ["cat", "dog", "owl"]>(i)',
}


@pytest.mark.parametrize("operator", LABELS)
def test_names_of_classes_are_no_obstacle(operator):
    weights = {"names": np.array(NAMES, "S"), "flat": np.array([-1])}
    proto = read(
        f"""g (float[N, 4] x) => (string[N] label, float[N, 3] p) {{
            y = MatMul(x, w) p = Softmax(y) i = ArgMax<axis = 1, keepdims = 0>(y) {LABELS[operator]}
        }}""",
        w=normal(4, 3),
        **{name: array for name, array in weights.items() if name in LABELS[operator]},
    )
    values = explain(proto, EPSILON, {"x": X}, target=[-1, -1]).values
    best = (X @ normal(4, 3)).argmax(1)
    assert list(values["label"]) == [NAMES[i] for i in best]
    scores = (X @ normal(4, 3)).max(1)
    np.testing.assert_allclose(values["relevance"].sum(1), scores, rtol=1e-4)


TFIDF = read(
    """g (string[1, K] s) => (float[1, 3] y) {
        n = StringNormalizer<case_change_action = "LOWER">(s)
        t = TfIdfVectorizer<max_gram_length = 1, max_skip_count = 0, min_gram_length = 1,
            mode = "TF", ngram_counts = [0], ngram_indexes = [0, 1, 2, 3],
            pool_strings = ["a", "b", "c", "d"]>(n)
        y = MatMul(t, w)
    }""",
    w=normal(4, 3),
)
ROWS = read(
    """g (string[N, 5] s, float[N, 3] x) => (float[N, 3] y) {
        n = ai.onnx.ml.LabelEncoder<keys_strings = ["a", "b"], values_int64s = [0, 1],
            default_int64 = 2>(s)
        e = Gather(table, n) m = ReduceMean<keepdims = 0>(e, one) h = Add(m, x) y = MatMul(h, w)
    }""",
    w=normal(3, 3), table=normal(3, 3), one=np.array([1]),
)  # fmt: skip


@pytest.mark.parametrize(
    ("proto", "maker", "inputs"),
    [(TFIDF, "TfIdfVectorizer", None), (ROWS, "LabelEncoder", ["s"])],
    ids=["TfIdfVectorizer", "LabelEncoder"],
)
def test_a_text_is_refused_and_what_is_advised_works(proto, maker, inputs, tmp_path):
    with pytest.raises(ModelError) as caught:
        onnxlrp.convert(proto, EPSILON, inputs=inputs)
    told = str(caught.value)
    assert "texts, which 's' holds" in told
    assert maker in told
    onnx.save(proto, tmp_path / "model.onnx")
    path, call = str(tmp_path / "network.onnx"), re.search(r"extract_model\((.*?\])\)", told)[1]
    call = call.replace("MODEL", repr(str(tmp_path / "model.onnx"))).replace(
        "'network.onnx'", "path"
    )
    eval(f"onnx.utils.extract_model({call})", {"onnx": onnx, "path": path})
    inner = onnxlrp.convert(path, EPSILON)
    assert [name for name, _, _ in inner.outputs] == ["y", *inner_relevance(inner)]


def inner_relevance(conversion):
    return [name for name, _, _ in conversion.outputs if name.startswith("relevance")]


def test_a_text_beside_numbers_gets_nothing_and_that_is_said():
    conversion = onnxlrp.convert(ROWS, EPSILON)
    assert [w for w in conversion.warnings if "'s' holds texts, which get no relevance" in w]
    feeds = {"s": np.array([["a", "b", "?", "a", "a"]] * 2, object), "x": normal(2, 3)}
    found = run(conversion.to_proto(), {**feeds, "target": np.array([1])})
    np.testing.assert_array_equal(found["y"], run(ROWS, feeds)["y"])
    share = feeds["x"] @ normal(3, 3)[:, 1]
    np.testing.assert_allclose(found["relevance"].sum(1), share, rtol=1e-3)


def test_a_dictionary_is_refused():
    vectorise = helper.make_node(
        "DictVectorizer", ["d"], ["v"], "count", domain="ai.onnx.ml", string_vocabulary=["a", "b"]
    )
    kind = helper.make_map_type_proto(
        TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    )
    graph = helper.make_graph(
        [vectorise, node("MatMul", ["v", "w"])],
        "g",
        [helper.make_value_info("d", kind)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(normal(2, 3), "w")],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    with pytest.raises(ModelError, match=r"'d' is a dictionary.* 'v' \(DictVectorizer count\)"):
        onnxlrp.convert(proto, EPSILON)


def categories(zeros: int = 1):
    """Build a linear model of a category among three, and two numbers."""
    return read(
        f"""g (string[N, 1] sex, float[N, 2] x) => (float[N, 2] y) {{
            hot = ai.onnx.ml.OneHotEncoder<cats_strings = ["cat", "dog", "owl"], zeros = {zeros}>
                (sex)
            rows = Reshape(hot, shape) joined = Concat<axis = 1>(rows, x) y = MatMul(joined, w)
        }}""",
        shape=np.array([-1, 3]),
        w=normal(5, 2),
    )


def test_a_category_gets_what_its_column_got():
    proto, weights = categories(), normal(5, 2)
    kinds, x = np.array([["owl"], ["cat"], ["elk"]], object), normal(3, 2, seed=1)
    values = explain(proto, EPSILON, {"sex": kinds, "x": x}, target=[1, 1, 1]).values
    wanted = np.array([[weights[2, 1]], [weights[0, 1]], [0]])
    np.testing.assert_allclose(values["relevance_sex"], wanted, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(values["relevance_x"], x * weights[3:, 1], rtol=1e-4)


def test_a_category_is_counted_from_none_under_a_reference():
    proto, weights = categories(), normal(5, 2)
    kinds, x = np.array([["dog"]], object), normal(1, 2, seed=1)
    root = {"sex": "zero", "x": np.array([1.0, 2.0])}
    conversion = onnxlrp.convert(proto, EPSILON, reference=root)
    run = onnxlrp.Explainer(conversion.to_proto().SerializeToString())
    found = run({"sex": kinds, "x": x}, 0).relevance
    np.testing.assert_allclose(found["sex"], weights[1:2, :1], rtol=1e-4)
    np.testing.assert_allclose(found["x"], (x - [1, 2]) * weights[3:, 0], rtol=1e-4)
    with pytest.raises(onnxlrp.InputError, match="'sex' holds texts: its reference is zero"):
        onnxlrp.convert(proto, EPSILON, reference=root | {"sex": np.ones(1)})


def test_a_category_that_the_model_does_not_know_fails_in_one_line():
    run = onnxlrp.Explainer(
        onnxlrp.convert(categories(zeros=0), EPSILON).to_proto().SerializeToString()
    )
    with pytest.raises(onnxlrp.InputError, match=r"onnxruntime failed: .*Unknown Category"):
        run({"sex": np.array([["elk"]]), "x": normal(1, 2)})
    with pytest.raises(onnxlrp.InputError, match=r"'sex' takes string \[N, 1\], not float32"):
        run({"sex": normal(1, 1), "x": normal(1, 2)})
