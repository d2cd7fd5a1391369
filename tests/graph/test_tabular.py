"""Operators of ai.onnx.ml, written out: onnxruntime's own numbers, explained from the score."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from support import Array, explain, lines, normal, run
from zoo import TREE

import onnxlrp
from onnxlrp import ModelError, UnsupportedError
from onnxlrp.audit import check

ML = "ai.onnx.ml"
X = normal(5, 3)
W, B = normal(3, 3, seed=1), normal(3, seed=2)
EPSILON = lines(
    "Add,Sub,Mul preprocessing: pass", "Gemm: epsilon epsilon=1e-9", "*: norm", "*: treeshap"
)

FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64


def table(
    *nodes: onnx.NodeProto,
    outputs: tuple[str, ...] = ("scores",),
    kind: int = FLOAT,
    columns: int = 3,
    labels: int = INT64,
) -> onnx.ModelProto:
    """Build a model that may have no operator of ONNX's own, as CatBoost's exporter does."""
    graph = helper.make_graph(
        list(nodes),
        "table",
        [helper.make_tensor_value_info("x", kind, ["N", columns])],
        [
            helper.make_tensor_value_info("label", labels, ["N"])
            if name == "label"
            else helper.make_tensor_value_info(name, FLOAT, None)
            for name in outputs
        ],
    )
    opsets = [helper.make_opsetid(ML, 3)]
    if any(node.domain != ML for node in nodes):
        opsets.append(helper.make_opsetid("", 18))
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def ml(operator: str, *outputs: str, x: str = "x", **attributes: Any) -> onnx.NodeProto:
    made = outputs or ("scores",)
    return helper.make_node(
        operator, x.split(), made, name=f"node_{made[-1]}", domain=ML, **attributes
    )


def unchanged(proto: onnx.ModelProto, x: Array, tolerance: float = 2e-7, **options: Any) -> Any:
    """Explain, and compare every output with what onnxruntime makes of the model itself."""
    explained = explain(proto, EPSILON, {"x": x}, **options)
    for name, value in run(proto, {"x": x}).items():
        assert value.dtype == explained.values[name].dtype
        if value.dtype.kind == "f":
            np.testing.assert_allclose(explained.values[name], value, atol=tolerance, rtol=1e-6)
        else:
            np.testing.assert_array_equal(explained.values[name], value)
    return explained


# --- Features ------------------------------------------------------------------------------------

DENSE = helper.make_node(
    "LinearRegressor", ["h"], ["scores"], domain=ML, coefficients=W[0].tolist(), intercepts=[0.3]
)


@pytest.mark.parametrize(
    ("operator", "attributes"),
    [
        ("Scaler", {"offset": [0.1, -2.0, 0.3], "scale": [2.0, 0.5, -1.0]}),
        ("Scaler", {"offset": [0.1], "scale": [2.0]}),
        ("Normalizer", {"norm": "L1"}),
        ("Normalizer", {"norm": "L2"}),
        ("Normalizer", {"norm": "MAX"}),
        ("Normalizer", {}),
        ("Imputer", {"imputed_value_floats": [0.5], "replaced_value_float": 0.0}),
        ("Imputer", {"imputed_value_floats": [0.5, 1, 2], "replaced_value_float": float("nan")}),
        ("Binarizer", {"threshold": 0.2}),
        ("FeatureVectorizer", {"inputdimensions": [3]}),
    ],
)
def test_features_are_what_onnxruntime_makes_of_them(operator, attributes):
    """Also where nothing is divided by nothing, and where something is missing."""
    x = np.concatenate([X, np.zeros((1, 3), np.float32)])
    if operator == "Imputer":
        x[0, 1] = attributes["replaced_value_float"]
    proto = table(ml(operator, "h", **attributes), DENSE)
    unchanged(proto, x)


def test_a_scaler_in_front_is_preprocessing():
    """A feature's part is its weight times what the scaler makes of it."""
    offset, scale = normal(3, seed=3), normal(3, seed=4)
    scaler = ml("Scaler", "h", offset=offset.tolist(), scale=scale.tolist())
    explained = unchanged(table(scaler, DENSE), X)
    wanted = (X - offset) * scale * W[0]
    np.testing.assert_allclose(explained.values["relevance"], wanted, rtol=1e-4, atol=1e-6)


def test_relevance_of_a_missing_value_is_that_of_what_was_put_in_its_place():
    x = X.copy()
    x[0, 1] = np.nan
    nan = float("nan")
    imputer = ml("Imputer", "h", imputed_value_floats=[9.0], replaced_value_float=nan)
    explained = unchanged(table(imputer, DENSE), x)
    wanted = x * W[0]
    wanted[0, 1] = 0
    np.testing.assert_allclose(explained.values["relevance"], wanted, rtol=1e-4, atol=1e-6)


def test_chosen_columns_get_what_they_gave():
    places = helper.make_node("Constant", [], ["places"], value_ints=[2, 0])
    chosen = ml("ArrayFeatureExtractor", "h", x="x places")
    dense = ml("LinearRegressor", x="h", coefficients=[2.0, -3.0])
    explained = unchanged(table(places, chosen, dense), X)
    wanted = X * np.array([-3, 0, 2])
    np.testing.assert_allclose(explained.values["relevance"], wanted, rtol=1e-4, atol=1e-6)


def test_a_category_gets_what_its_row_got():
    x = np.array([[1, 5], [3, 1], [7, 3]], np.float32)
    encoder = ml("OneHotEncoder", "h", cats_int64s=[1, 3, 5])
    flat = helper.make_node("Flatten", ["h"], ["rows"])
    weights = np.arange(1.0, 7.0)
    dense = ml("LinearRegressor", x="rows", coefficients=weights.tolist())
    explained = unchanged(table(encoder, flat, dense, columns=2), x)
    # Of 7, no row is told of.
    np.testing.assert_allclose(explained.values["relevance"], [[1, 6], [2, 4], [0, 5]], rtol=1e-5)


def test_a_threshold_hands_on_what_its_feature_gets():
    """As naive Bayes of counts above a bound is exported: its comparison is a Binarizer."""
    nodes = [
        helper.make_node("Greater", ["x", "bound"], ["above"]),
        helper.make_node("Cast", ["above"], ["h"], to=FLOAT),
        DENSE,
    ]
    proto = table(*nodes)
    proto.graph.initializer.append(helper.make_tensor("bound", FLOAT, [], [0.2]))
    explained = unchanged(proto, X)
    wanted = (X > 0.2) * W[0]
    np.testing.assert_allclose(explained.values["relevance"], wanted, rtol=1e-4, atol=1e-6)


# --- Linear models -------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX"])
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_linear_classifier_is_explained_from_its_logits(rows, transform):
    """R_i = x_i w_i of the class that is asked for."""
    proto = table(
        ml(
            "LinearClassifier",
            "label",
            "scores",
            coefficients=W[:rows].reshape(-1).tolist(),
            intercepts=B[:rows].tolist(),
            classlabels_ints=[4, 7, 9][: max(rows, 2)],
            post_transform=transform,
        ),
        outputs=("label", "scores"),
    )
    for target in range(max(rows, 2)):
        explained = unchanged(proto, X, target=target)
        weights = W[target] if rows > 1 else W[0] * (1 if target else -1)
        np.testing.assert_allclose(explained.values["relevance"], X * weights, rtol=1e-4, atol=1e-6)


def test_the_first_of_two_classes_has_minus_the_logit():
    """The sign flip: all that speaks for the second speaks against the first, the bias as well."""
    proto = table(
        ml(
            "LinearClassifier",
            "label",
            "scores",
            coefficients=[2.0, -1.0, 0.5],
            intercepts=[0.25],
            classlabels_strings=["no", "yes"],
            post_transform="LOGISTIC",
        ),
        ml("Normalizer", "shares", x="scores", norm="L1"),
        outputs=("label", "shares"),
        labels=onnx.TensorProto.STRING,
    )
    x = np.array([[1, 1, 1]], np.float32)
    for target, sign in ((0, -1), (1, 1)):
        explained = unchanged(proto, x, target=target)
        np.testing.assert_allclose(
            explained.values["relevance"], [[sign * 2, -sign, sign * 0.5]], rtol=1e-5
        )


def test_probabilities_divided_by_their_sum_lead_to_the_logits():
    """As scikit-learn's exporter writes one-against-rest: sigmoids, and an L1 norm."""
    proto = table(
        ml(
            "LinearClassifier",
            "label",
            "raw",
            coefficients=W.reshape(-1).tolist(),
            intercepts=B.tolist(),
            classlabels_ints=[0, 1, 2],
            post_transform="LOGISTIC",
        ),
        ml("Normalizer", x="raw", norm="L1"),
    )
    explained = unchanged(proto, X, target=2)
    np.testing.assert_allclose(explained.values["relevance"], X * W[2], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("transform", ["PROBIT", "SOFTMAX_ZERO"])
def test_a_transform_without_a_score_is_refused_by_name(transform):
    proto = table(
        ml(
            "LinearClassifier",
            "label",
            "scores",
            coefficients=W.reshape(-1).tolist(),
            intercepts=B.tolist(),
            classlabels_ints=[0, 1, 2],
            post_transform=transform,
        )
    )
    with pytest.raises(
        UnsupportedError, match=r"node_scores \(LinearClassifier.*PROBIT.*raw scores"
    ):
        onnxlrp.convert(proto, EPSILON)


# --- Trees ---------------------------------------------------------------------------------------


def forest(ids: list[int], weights: list[float], labels: int, kind: int = FLOAT, **attributes: Any):
    nodes = {key: value for key, value in TREE.items() if key.startswith("nodes_")}
    return table(
        ml(
            "TreeEnsembleClassifier",
            "label",
            "scores",
            class_ids=ids,
            class_weights=weights,
            classlabels_int64s=[0, 1, 2][:labels],
            **nodes,
            **attributes,
        ),
        outputs=("label", "scores"),
        kind=kind,
    )


ONE = {"class_treeids": [0] * 4 + [1] * 2, "class_nodeids": [3, 4, 5, 6, 1, 2]}
MIXED = [0.5, -1.0, 2.0, 0.25, -0.75, 1.0]
POSITIVE = [0.1, 0.3, 0.0, 0.4, 0.5, 0.05]


def each(classes: int) -> dict[str, list[int]]:
    return {key: [n for n in value for _ in range(classes)] for key, value in ONE.items()}


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX"])
@pytest.mark.parametrize("base", [None, [0.1]])
@pytest.mark.parametrize("weights", [MIXED, POSITIVE])
def test_trees_of_two_classes_with_one_score(weights, base, transform):
    given = {} if base is None else {"base_values": base}
    proto = forest([0] * 6, weights, 2, post_transform=transform, **ONE, **given)
    x = normal(40, 3, seed=5)
    first, second = (unchanged(proto, x, target=target) for target in (0, 1))
    # Of a score that is 0 there is nothing to share out.
    some = np.abs(first.values["scores"]).min(axis=1) > 1e-4
    maps = first.values["relevance"][some], second.values["relevance"][some]
    np.testing.assert_allclose(maps[0], -maps[1], atol=1e-4)


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX"])
@pytest.mark.parametrize("classes", [2, 3])
def test_trees_with_a_score_for_each_class(classes, transform):
    weights = normal(6 * classes, seed=6).tolist()
    ids = list(range(classes)) * 6
    proto = forest(ids, weights, classes, post_transform=transform, **each(classes))
    unchanged(proto, normal(40, 3, seed=5))


def test_trees_that_leave_a_class_without_a_score_are_refused():
    proto = forest([0, 1, 2, 0, 1, 2], MIXED, 3, **ONE)
    with pytest.raises(UnsupportedError, match=r"not every leaf says something.*raw scores"):
        onnxlrp.convert(proto, EPSILON)


@pytest.mark.parametrize("base", [{}, {"base_values": [0.1]}])
def test_trees_of_one_class(base):
    unchanged(forest([0] * 6, MIXED, 1, **ONE, **base), normal(40, 3, seed=5))


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX"])
def test_a_class_without_a_leaf_has_its_base_value(transform):
    """The third class is in some leaves of one tree, the second in none."""
    base = [0.1, 0.2, 5.0]
    proto = forest([0, 0, 0, 2, 0, 2], MIXED, 3, post_transform=transform, base_values=base, **ONE)
    x = normal(40, 3, seed=5)
    explained = unchanged(proto, x, target=2)
    if transform == "NONE":
        scores = explained.values["scores"]
        assert (scores[:, 1] == np.float32(0.2)).all()
        assert {5.0, 5.25, 6.0, 6.25} >= set(scores[:, 2].tolist()) > {5.0}
    # What features change is told by the reference: nothing of a class that no leaf speaks of.
    other = {"x": x[0]}
    for target in (1, 2):
        referred = unchanged(proto, x, target=target, reference=other)
        total = referred.values["relevance"].sum(axis=1)
        raw = forest([0, 0, 0, 2, 0, 2], MIXED, 3, base_values=base, **ONE)
        score = run(raw, {"x": x})["scores"][:, target]
        np.testing.assert_allclose(total, score - score[0], atol=1e-5)


@pytest.mark.parametrize("name", ["class_treeids", "class_nodeids", "nodes_modes"])
def test_lists_of_several_lengths_are_told_by_the_node(name):
    proto = forest([0] * 6, MIXED, 2, **ONE)
    given = next(a for a in proto.graph.node[0].attribute if a.name == name)
    (given.ints or given.strings).pop()
    with pytest.raises(ModelError, match=rf"node_scores \(TreeEnsembleClassifier.*{name} has"):
        onnxlrp.convert(proto, EPSILON)


def test_whole_numbers_are_compared_as_real_ones():
    proto = forest([0] * 6, MIXED, 2, kind=INT64, **ONE)
    x = np.array([[0, 1, -1], [2, -1, 0], [1, 0, 3]], np.int64)
    explained = unchanged(proto, x, target=1, inputs=["x"])
    assert np.abs(explained.values["relevance"]).sum() > 0


def test_the_audit_compares_a_dictionary_by_what_it_holds():
    """ZipMap's list of dictionaries is not in the explainer; the tensor in its place is."""
    trees = forest([0] * 6, POSITIVE, 2, **ONE)
    zipped = helper.make_node(
        "ZipMap", ["scores"], ["zipped"], domain=ML, classlabels_int64s=[0, 1]
    )
    trees.graph.node.append(zipped)
    del trees.graph.output[1]
    kind = helper.make_map_type_proto(INT64, helper.make_tensor_type_proto(FLOAT, []))
    trees.graph.output.append(
        helper.make_value_info("zipped", helper.make_sequence_type_proto(kind))
    )
    explainer = onnxlrp.convert(trees, EPSILON).to_proto()
    audit = check(trees, explainer, {"x": X})
    assert audit.passed
    assert set(audit.outputs) == {"label", "scores"}


def test_a_score_of_votes_is_refused_by_what_counts_them():
    """As of AdaBoost and nearest neighbours: no number is a share of a vote."""
    nodes = [
        ml(
            "LinearClassifier",
            "label",
            "raw",
            coefficients=W.reshape(-1).tolist(),
            intercepts=B.tolist(),
            classlabels_ints=[0, 1, 2],
        ),
        helper.make_node("ArgMax", ["raw"], ["best"], name="best", axis=1),
        helper.make_node("Cast", ["best"], ["scores"], name="votes", to=FLOAT),
    ]
    with pytest.raises(ModelError, match=r"carries no relevance: best \(ArgMax\); --output"):
        onnxlrp.convert(table(*nodes), EPSILON)
    assert onnxlrp.convert(table(*nodes), EPSILON, output="raw").score == "raw"
