"""Support vector machines written out: onnxruntime's numbers, the labels' votes, the logits."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from graph.test_tabular import EPSILON, ml, table, unchanged
from support import Array, normal

import onnxlrp
from onnxlrp import UnsupportedError

X = normal(6, 3, seed=4)
KERNELS = ["LINEAR", "POLY", "SIGMOID", "RBF"]
COUNTS = [2, 3, 1]
GAMMA, OFFSET, DEGREE = 0.4, 0.3, 2.0


def machine(classes: int, kernel: str, likely: bool = False, **attributes: Any) -> dict[str, Any]:
    counts = COUNTS[:classes]
    pairs = classes * (classes - 1) // 2
    given = {
        "kernel_type": kernel,
        "kernel_params": [GAMMA, OFFSET, DEGREE],
        "support_vectors": normal(sum(counts) * 3, seed=5).tolist(),
        "coefficients": normal((classes - 1) * sum(counts), seed=7).tolist(),
        "vectors_per_class": counts,
        "rho": normal(pairs, seed=8).tolist(),
        "classlabels_ints": list(range(classes)),
        **attributes,
    }
    if likely:
        given["prob_a"] = [-1.5, -0.7, -1.1][:pairs]
        given["prob_b"] = [0.2, -0.1, 0.3][:pairs]
    return given


def decided(given: dict[str, Any], x: Array) -> Array:
    """Every pair's decision, from the text of the operator."""
    counts = given["vectors_per_class"]
    vectors = np.reshape(given["support_vectors"], (-1, 3))
    dots = x.astype(float) @ vectors.T
    squares = ((x.astype(float)[:, None] - vectors) ** 2).sum(axis=2)
    kernel = {
        "LINEAR": dots,
        "POLY": (GAMMA * dots + OFFSET) ** DEGREE,
        "SIGMOID": np.tanh(GAMMA * dots + OFFSET),
        "RBF": np.exp(-GAMMA * squares),
    }[given["kernel_type"]]
    weights = np.reshape(given["coefficients"], (-1, len(vectors)))
    of = np.repeat(range(len(counts)), counts)
    found = []
    for (i, j), rho in zip(combinations(range(len(counts)), 2), given["rho"], strict=True):
        own = np.where(of == i, weights[j - 1], 0) + np.where(of == j, weights[i], 0)
        found.append(kernel @ own + rho)
    return np.stack(found, axis=1)


def classifier(given: dict[str, Any]) -> Any:
    return table(ml("SVMClassifier", "label", "scores", **given), outputs=("label", "scores"))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("classes", [2, 3])
def test_decisions_and_labels_are_onnxruntimes(classes, kernel):
    given = machine(classes, kernel)
    explained = unchanged(classifier(given), X, tolerance=2e-6)
    scores = decided(given, X)
    warned = any("opposite to that of the labels" in w for w in explained.conversion.warnings)
    assert warned == (classes == 2)
    if classes == 2:
        # As onnxruntime has it: the column of the first label speaks against it.
        np.testing.assert_array_equal(explained.values["label"], scores[:, 0] <= 0)
        scores = np.concatenate([-scores, scores], axis=1)
    np.testing.assert_allclose(explained.values["scores"], scores, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_are_explained_from_their_logits(classes, kernel):
    """They come of an iteration, and stay as they are to the last bit."""
    given = machine(classes, kernel, likely=True)
    name = onnxlrp.convert(classifier(given), EPSILON).score
    pairs = -np.array(given["prob_a"]) * decided(given, X) - np.array(given["prob_b"])
    for target in range(classes):
        logit = sum(
            (1 if i == target else -1) * pairs[:, place]
            for place, (i, j) in enumerate(combinations(range(classes), 2))
            if target in (i, j)
        )
        explained = unchanged(classifier(given), X, tolerance=0, target=target, inside=[name])
        begun = explained.relevance(name).sum(axis=1)
        np.testing.assert_allclose(begun, logit / (classes if classes > 2 else 1), atol=1e-5)


def test_a_linear_machine_is_a_dense_layer():
    given = machine(2, "LINEAR")
    vectors = np.reshape(given["support_vectors"], (-1, 3))
    weights = np.array(given["coefficients"]) @ vectors
    explained = unchanged(classifier(given), X, tolerance=2e-6, target=1)
    np.testing.assert_allclose(explained.values["relevance"], X * weights, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_regressor_of_one_class_says_on_which_side(kernel):
    given = machine(2, kernel)
    regressor = ml(
        "SVMRegressor",
        kernel_type=kernel,
        kernel_params=given["kernel_params"],
        support_vectors=given["support_vectors"],
        coefficients=given["coefficients"],
        rho=given["rho"],
        n_supports=5,
        one_class=1,
    )
    explained = unchanged(table(regressor), X)
    assert set(np.abs(explained.values["scores"]).reshape(-1)) == {1.0}


def test_probabilities_that_are_computed_with_are_refused():
    given = machine(3, "RBF", likely=True)
    nodes = [
        ml("SVMClassifier", "label", "shares", **given),
        ml("LinearRegressor", x="shares", coefficients=[1.0, 2.0, -1.0]),
    ]
    with pytest.raises(UnsupportedError, match=r"of an iteration.*raw scores"):
        onnxlrp.convert(table(*nodes), EPSILON)
