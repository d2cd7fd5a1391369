"""Trees: path attribution against a walk, TreeSHAP against all coalitions, by brute force."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from support import Array, explain, lines, normal, run
from zoo import TREE

import onnxlrp
from onnxlrp import UnsupportedError
from onnxlrp.audit import check
from onnxlrp.graph.trees import TREES, leaves_of

ML = "ai.onnx.ml"
TREESHAP, SAABAS = lines("*: treeshap stabiliser=1e-9"), lines("*: saabas stabiliser=1e-9")


def table(kind: str, features: int, ml: int = 3, **attributes: Any) -> onnx.ModelProto:
    trees = helper.make_node(kind, ["x"], ["scores"], name="trees", domain=ML, **attributes)
    graph = helper.make_graph(
        [trees],
        "table",
        [helper.make_tensor_value_info("x", 1, ["N", features])],
        [helper.make_tensor_value_info("scores", 1, ["N", attributes.get("n_targets", 1)])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(ML, ml)], ir_version=10)


# --- One tree, written as Python ------------------------------------------------------------------
#
#            x0 <= 0 ?
#        yes /       \ no
#      x1 > 1 ?     x0 < 2 ?
#     yes/  \no    yes/   \no
#     3.0   1.0   -2.0   x2 = 4 ?
#                       yes/  \no
#                       5.0   0.5

LEAVES = {"a": (3.0, 10), "b": (1.0, 30), "c": (-2.0, 5), "d": (5.0, 20), "e": (0.5, 35)}
TESTS: dict[str, tuple[int, Callable[[Any], Any], str, str]] = {
    "root": (0, lambda v: v <= 0, "left", "right"),
    "left": (1, lambda v: v > 1, "a", "b"),
    "right": (0, lambda v: v < 2, "c", "last"),
    "last": (2, lambda v: v == 4, "d", "e"),
}
ORDER = ["root", "left", "right", "last", *LEAVES]
MODES = {"root": "BRANCH_LEQ", "left": "BRANCH_GT", "right": "BRANCH_LT", "last": "BRANCH_EQ"}
NUMBERS = {"root": 0.0, "left": 1.0, "right": 2.0, "last": 4.0}
X = np.array([[-1, 2, 4], [-1, 0, 4], [1, 2, 4], [2, 2, 4], [3, 0, 5], [0, 1, 0]], np.float32)


def attributes(covers: bool, missing: Mapping[str, int] | None = None) -> dict[str, Any]:
    place = {name: i for i, name in enumerate(ORDER)}
    children = [(place[TESTS[n][2]], place[TESTS[n][3]]) if n in TESTS else (0, 0) for n in ORDER]
    return {
        "nodes_treeids": [0] * len(ORDER),
        "nodes_nodeids": list(range(len(ORDER))),
        "nodes_modes": [MODES.get(name, "LEAF") for name in ORDER],
        "nodes_featureids": [TESTS[name][0] if name in TESTS else 0 for name in ORDER],
        "nodes_values": [NUMBERS.get(name, 0.0) for name in ORDER],
        "nodes_truenodeids": [yes for yes, _ in children],
        "nodes_falsenodeids": [no for _, no in children],
        "nodes_missing_value_tracks_true": [(missing or {}).get(name, 0) for name in ORDER],
        "nodes_hitrates": [
            float(LEAVES[name][1]) if covers and name in LEAVES else 1.0 for name in ORDER
        ],
        "target_treeids": [0] * len(LEAVES),
        "target_nodeids": [place[name] for name in LEAVES],
        "target_ids": [0] * len(LEAVES),
        "target_weights": [value for value, _ in LEAVES.values()],
        "base_values": [0.25],
        "n_targets": 1,
    }


def mean(name: str, covers: bool = True) -> tuple[float, float]:
    """Return the mean of the leaves below, and how many samples reach them."""
    if name in LEAVES:
        value, cover = LEAVES[name]
        return value, cover if covers else 1
    (left, n), (right, m) = (mean(child, covers) for child in TESTS[name][2:])
    return (left * n + right * m) / (n + m), n + m


def expected(name: str, x: Array, known: Sequence[int], other: Array | None = None) -> float:
    """Expect the score of a sample of which some features are known (Lundberg 2020, algorithm 1).

    The others go as the training samples do, or as another sample.
    """
    if name in LEAVES:
        return LEAVES[name][0]
    feature, question, yes, no = TESTS[name]
    if feature in known:
        return expected(yes if question(x[feature]) else no, x, known, other)
    if other is not None:
        return expected(yes if question(other[feature]) else no, x, known, other)
    sizes = [mean(child)[1] for child in (yes, no)]
    values = [expected(child, x, known, other) for child in (yes, no)]
    return float(np.average(values, weights=sizes))


def shapley(x: Array, other: Array | None = None, features: int = 3) -> Array:
    """Average what a feature adds over all orders in which features become known."""
    result = np.zeros(features)
    for i in range(features):
        rest = [j for j in range(features) if j != i]
        for size in range(features):
            weight = factorial(size) * factorial(features - 1 - size) / factorial(features)
            for known in combinations(rest, size):
                gain = expected("root", x, (*known, i), other) - expected("root", x, known, other)
                result[i] += weight * gain
    return result


def walked(x: Array, covers: bool) -> Array:
    """Add up how the mean changes at each step of the way of one sample."""
    result, name = np.zeros(3), "root"
    while name in TESTS:
        feature, question, yes, no = TESTS[name]
        after = yes if question(x[feature]) else no
        result[feature] += mean(after, covers)[0] - mean(name, covers)[0]
        name = after
    return result


@pytest.mark.parametrize("covers", [True, False])
def test_saabas_is_what_a_walk_adds_up(covers):
    proto = table("TreeEnsembleRegressor", 3, **attributes(covers))
    explained = explain(proto, SAABAS, {"x": X})
    wanted = [walked(x, covers) for x in X]
    np.testing.assert_allclose(explained.values["relevance"], wanted, atol=1e-5)


def test_treeshap_is_the_average_over_all_coalitions():
    proto = table("TreeEnsembleRegressor", 3, **attributes(covers=True))
    explained = explain(proto, TREESHAP, {"x": X})
    np.testing.assert_allclose(explained.values["relevance"], [shapley(x) for x in X], atol=1e-5)


def test_treeshap_against_a_reference_needs_no_samples_of_training():
    other = np.array([1, 2, 5], np.float32)
    proto = table("TreeEnsembleRegressor", 3, **attributes(covers=False))
    explained = explain(proto, TREESHAP, {"x": X}, reference={"x": other})
    wanted = [shapley(x, other) for x in X]
    np.testing.assert_allclose(explained.values["relevance"], wanted, atol=1e-5)
    changes = [expected("root", x, (0, 1, 2)) - expected("root", other, (0, 1, 2)) for x in X]
    np.testing.assert_allclose(explained.values["relevance"].sum(1), changes, atol=1e-5)


def test_saabas_against_a_reference_is_the_difference_of_two_ways():
    other = np.array([1, 2, 5], np.float32)
    proto = table("TreeEnsembleRegressor", 3, **attributes(covers=True))
    explained = explain(proto, SAABAS, {"x": X}, reference={"x": other})
    wanted = [walked(x, True) - walked(other, True) for x in X]
    np.testing.assert_allclose(explained.values["relevance"], wanted, atol=1e-5)


@pytest.mark.parametrize("rule", ["treeshap", "saabas"])
def test_the_mean_of_the_leaves_takes_what_a_bias_takes(rule):
    proto = table("TreeEnsembleRegressor", 3, **attributes(covers=True))
    explainer = onnxlrp.convert(proto, lines(f"*: {rule}")).to_proto()
    audit = check(proto, explainer, {"x": X})
    assert audit.passed
    (layer,) = (layer for layer in audit.layers if layer.operations[0].operator == TREES[0])
    assert layer.bias == pytest.approx(len(X) * (mean("root")[0] + 0.25), rel=1e-5)
    assert layer.operations[0].skipped == ""


def test_the_derivative_of_a_tree_is_zero():
    proto = table("TreeEnsembleRegressor", 3, **attributes(covers=True))
    explained = explain(proto, lines("*: gradient"), {"x": X})
    assert not explained.values["relevance"].any()


@pytest.mark.parametrize("missing", [{}, {"root": 1, "last": 1}])
def test_a_missing_value_goes_where_the_node_says(missing):
    x = X.copy()
    x[0, 0], x[3, 2], x[4, 2] = np.nan, np.nan, np.nan
    proto = table("TreeEnsembleRegressor", 3, **attributes(True, missing))
    explained = explain(proto, SAABAS, {"x": x})
    # onnxruntime goes the same way, so that the terms add up to its score.
    rest = explained.values["scores"][:, 0] - explained.values["relevance"].sum(axis=1)
    np.testing.assert_allclose(rest, mean("root")[0] + 0.25, atol=1e-5)


def test_several_trees_and_outputs_are_recomputed_by_the_audit():
    proto = table("TreeEnsembleRegressor", 4, **TREE)
    x = normal(16, 4, seed=3)
    for composite in (TREESHAP, SAABAS):
        audit = check(proto, onnxlrp.convert(proto, composite).to_proto(), {"x": x}, target=1)
        assert audit.passed
        assert max(layer.difference or 0 for layer in audit.layers) < 1e-5


@pytest.mark.parametrize("aggregate", ["SUM", "AVERAGE"])
def test_how_trees_are_added_up(aggregate):
    proto = table("TreeEnsembleRegressor", 4, **TREE, aggregate_function=aggregate)
    audit = check(proto, onnxlrp.convert(proto, TREESHAP).to_proto(), {"x": normal(9, 4)})
    assert audit.passed


def test_the_extremum_of_trees_is_refused():
    proto = table("TreeEnsembleRegressor", 4, **TREE, aggregate_function="MAX")
    with pytest.raises(UnsupportedError, match="extremum of several trees is no sum"):
        onnxlrp.convert(proto, TREESHAP)


def test_nodes_that_lead_in_a_circle_are_refused():
    circle = {**TREE, "nodes_truenodeids": [1, 0, 5, 0, 0, 0, 0, 1, 0, 0]}
    with pytest.raises(UnsupportedError, match="they are no trees"):
        onnxlrp.convert(table("TreeEnsembleRegressor", 4, **circle), TREESHAP)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (
            {"nodes_modes": ["BRANCH_LEQ"] * 3 + ["LEAF"] * 4 + ["BRANCH_WORD", "LEAF", "LEAF"]},
            "WORD",
        ),
        ({"nodes_featureids": [0, 1]}, "incomplete"),
        ({"target_ids": [0, 0, 0, 0, 0, 0, 7]}, "incomplete"),
        ({"nodes_treeids": [0] * 9}, "treeids has 9, nodes_nodeids has 10"),
        ({"target_ids": [0]}, "differ in length: .* target_ids has 1, target_weights has"),
    ],
)
def test_what_is_incomplete_is_refused_by_the_node(changed, reason):
    proto = table("TreeEnsembleRegressor", 4, **{**TREE, **changed})
    with pytest.raises(UnsupportedError, match=rf"trees \(TreeEnsembleRegressor.*{reason}"):
        onnxlrp.convert(proto, TREESHAP)


def tensor(name: str, values: Sequence[float], kind: type) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, kind), name)


def newer(**attributes: Any) -> onnx.ModelProto:
    """Of opset 5; x0 in {1, 3, 7}, then x1 != 2, or x0 >= 4."""
    nan = float("nan")
    return table(
        "TreeEnsemble",
        2,
        ml=5,
        aggregate_function=1,
        nodes_splits=tensor("s", [0, 2, 4], np.float32),
        nodes_featureids=[0, 1, 0],
        nodes_modes=tensor("m", [6, 5, 2], np.uint8),
        nodes_truenodeids=[1, 0, 2],
        nodes_falsenodeids=[2, 1, 3],
        nodes_trueleafs=[0, 1, 1],
        nodes_falseleafs=[0, 1, 1],
        leaf_weights=tensor("w", [1, -2, 4, 8], np.float32),
        membership_values=tensor("v", [1, 3, 7, nan], np.float32),
        tree_roots=[0],
        **attributes,
    )


MEMBERS = np.array([[1, 2], [3, 0], [2, 2], [7, 2], [5, 0], [9, 9]], np.float32)


@pytest.mark.parametrize("rule", ["treeshap", "saabas"])
def test_the_newer_operator_whose_nodes_may_ask_for_one_of_many(rule):
    proto = newer(n_targets=1, leaf_targetids=[0, 0, 0, 0])
    explainer = onnxlrp.convert(proto, lines(f"*: {rule}")).to_proto()
    audit = check(proto, explainer, {"x": MEMBERS})
    assert audit.passed
    assert max(layer.difference or 0 for layer in audit.layers) < 1e-5


@pytest.mark.parametrize("transform", [0, 1, 2])
def test_the_newer_operators_probabilities_are_explained_from_its_scores(transform):
    proto = newer(n_targets=2, leaf_targetids=[0, 1, 0, 1], post_transform=transform)
    plain = newer(n_targets=2, leaf_targetids=[0, 1, 0, 1])
    for target in (0, 1):
        found, wanted = (explain(p, TREESHAP, {"x": MEMBERS}, target) for p in (proto, plain))
        np.testing.assert_allclose(found.values["relevance"], wanted.values["relevance"], atol=1e-6)
    np.testing.assert_allclose(
        found.values["scores"], run(proto, {"x": MEMBERS})["scores"], atol=1e-6
    )


def test_a_split_asked_twice_leaves_the_numbers_between():
    """x0 > 0 and x0 < 2, both ends open: the nearest normal float32 inside."""
    leaves = leaves_of(TREES[0], attributes(covers=True), np.float32)
    row = leaves.value[:, 0].tolist().index(-2.0)
    assert leaves.low[0, row, 0] == np.finfo(np.float32).smallest_normal
    assert leaves.high[0, row, 0] == np.nextafter(np.float32(2), np.float32(0))
    # 60 of 100 samples, then 5 of 60.
    assert leaves.part[row, 0] == pytest.approx(0.05)


def test_no_bound_is_denormal():
    """Where denormals count as 0, 0 would else go both ways of a node that parts at 0."""
    written = onnxlrp.convert(
        table("TreeEnsembleRegressor", 3, **attributes(covers=True)), SAABAS
    ).to_proto()
    arrays = [numpy_helper.to_array(one) for one in written.graph.initializer]
    arrays += [
        numpy_helper.to_array(attribute.t)
        for one in written.graph.node
        for attribute in one.attribute
        if attribute.HasField("t")
    ]
    numbers = np.concatenate([one.ravel() for one in arrays if one.dtype == np.float32])
    least = np.finfo(np.float32).smallest_normal
    assert np.count_nonzero(np.abs(numbers) == least) > 0
    assert not np.any((numbers != 0) & (np.abs(numbers) < least))
