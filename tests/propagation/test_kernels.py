"""Radial kernels: by features, how much nearer are the support vectors of one side."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from support import Array, explain, lines, normal

import onnxlrp
from onnxlrp import UnsupportedError
from onnxlrp.audit import check

RATIO = lines("*: log-ratio stabiliser=1e-9")
GAMMA, RHO = 0.5, 0.2
VECTORS = normal(5, 3, seed=1).astype(np.float64)
WEIGHTS = np.array([1.5, -0.5, 0.7, -1.0, 0.3])
X = normal(6, 3, seed=2)


def machine(vectors: Array = VECTORS, weights: Array = WEIGHTS, rho: float = RHO) -> Any:
    node = helper.make_node(
        "SVMRegressor",
        ["x"],
        ["score"],
        name="machine",
        domain="ai.onnx.ml",
        kernel_type="RBF",
        kernel_params=[GAMMA, 0.0, 3.0],
        support_vectors=vectors.reshape(-1),
        coefficients=weights,
        n_supports=len(weights),
        rho=[rho],
    )
    graph = helper.make_graph(
        [node],
        "machine",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", vectors.shape[1]])],
        [helper.make_tensor_value_info("score", onnx.TensorProto.FLOAT, ["N", 1])],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("ai.onnx.ml", 3)], ir_version=8
    )


def kernel(x: Array, vector: Array) -> float:
    return float(np.exp(-GAMMA * ((x - vector) ** 2).sum()))


def detected(x: Array) -> Array:
    """Average over all pairs of a vector for and one against, each a linear detector of x.

    w = 2 gamma (s_j - s_k), and its part by features counts from the middle of s_j and s_k.
    """
    parts = WEIGHTS * [kernel(x, vector) for vector in VECTORS]
    up, down = parts[parts > 0].sum(), -parts[parts < 0].sum()
    found = np.zeros(len(x))
    for j in np.flatnonzero(WEIGHTS > 0):
        for k in np.flatnonzero(WEIGHTS < 0):
            detector = 2 * GAMMA * (VECTORS[j] - VECTORS[k])
            found += (
                parts[j] / up * -parts[k] / down * detector * (x - (VECTORS[j] + VECTORS[k]) / 2)
            )
    return found * (up - down) / (np.log(up) - np.log(down))


def test_detectors_of_pairs_are_averaged():
    explained = explain(machine(), RATIO, {"x": X})
    wanted = [detected(x) for x in X.astype(float)]
    np.testing.assert_allclose(explained.values["relevance"], wanted, rtol=1e-4, atol=1e-6)


def test_moving_everything_moves_no_relevance():
    """A kernel knows differences alone; products with weights would not have it so."""
    far = np.array([3.0, -2.0, 5.0])
    here = explain(machine(), RATIO, {"x": X}).values["relevance"]
    there = explain(machine(VECTORS + far), RATIO, {"x": (X + far).astype(np.float32)})
    np.testing.assert_allclose(there.values["relevance"], here, rtol=1e-3, atol=1e-5)


def test_a_feature_that_tells_the_sides_apart_has_the_relevance():
    """Two clouds that differ in the first feature; the second is noise, and larger."""
    draw = np.random.default_rng(0)
    sides = np.repeat([1.0, -1.0], 20)
    cloud = np.stack([2 * sides + draw.normal(size=40) * 0.2, draw.normal(size=40)], axis=1)
    explained = explain(machine(cloud, sides), RATIO, {"x": cloud.astype(np.float32)})
    first, second = np.abs(explained.values["relevance"]).T
    assert (first > 5 * second).all()
    # Its sign is that of the side, as the score's.
    assert (np.sign(explained.values["relevance"][:, 0]) == sides).all()


def test_of_one_class_what_deviates_speaks_against():
    """Kauffmann et al. 2020: an outlier is explained by its distances from the nearest vectors."""
    x = np.array([[0.1, 3.0], [0.0, 0.0]], np.float32)
    cloud = normal(10, 2, seed=3, scale=0.3).astype(np.float64)
    explained = explain(machine(cloud, np.full(10, 0.1), -0.3), RATIO, {"x": x})
    parts = np.array([[kernel(row, vector) for vector in cloud] for row in x.astype(float)])
    shares = parts / parts.sum(axis=1, keepdims=True)
    distances = np.einsum("nj,njf->nf", shares, GAMMA * (x[:, None] - cloud) ** 2)
    total = 0.1 * parts.sum(axis=1)
    mean = (total - 0.3) / (np.log(total) - np.log(0.3))
    wanted = -mean[:, None] * distances
    np.testing.assert_allclose(explained.values["relevance"], wanted, rtol=1e-3, atol=1e-6)
    outlier = explained.values["relevance"][0]
    assert outlier[1] < 20 * outlier[0] < 0


@pytest.mark.parametrize("other", [[0.5, -1.0, 0.3], [0.0, 0.0, 0.0]])
def test_against_a_reference_all_of_the_change_is_shared_out(other: list[float]):
    other = np.array(other, np.float32)
    explained = explain(machine(), RATIO, {"x": X}, reference={"x": other})
    wanted = np.zeros(X.shape)
    for weight, vector in zip(WEIGHTS, VECTORS, strict=True):
        for row, x in enumerate(X.astype(float)):
            exponent = -GAMMA * ((x - vector) ** 2 - (other - vector) ** 2)
            change = kernel(x, vector) - kernel(other, vector)
            wanted[row] += weight * change / exponent.sum() * exponent
    np.testing.assert_allclose(explained.values["relevance"], wanted, rtol=1e-3, atol=1e-5)


def test_the_derivative_is_that_of_the_kernels():
    explained = explain(machine(), lines("*: gradient"), {"x": X})
    score = explained.values["score"]
    slope = np.array(
        [
            sum(
                -2 * GAMMA * w * kernel(x, v) * (x - v)
                for w, v in zip(WEIGHTS, VECTORS, strict=True)
            )
            for x in X.astype(float)
        ]
    )
    np.testing.assert_allclose(explained.values["relevance"], slope * score, rtol=1e-3, atol=1e-5)


def test_the_audit_books_what_is_no_features():
    audit = check(machine(), onnxlrp.convert(machine(), RATIO).to_proto(), {"x": X})
    assert audit.passed
    (layer,) = (layer for layer in audit.layers if layer.bias)
    assert layer.operations[0].operator == "ai.onnx.ml::SVMRegressor"
    assert max(layer.difference or 0 for layer in audit.layers) < 1e-5


@pytest.mark.parametrize("rho", [0.0, 0.3])
def test_vectors_of_one_sign_that_nothing_is_held_against_are_refused(rho):
    with pytest.raises(UnsupportedError, match="one sign: it decides nothing"):
        onnxlrp.convert(machine(VECTORS, np.abs(WEIGHTS), rho), RATIO)


def test_what_is_incomplete_is_refused_by_the_node():
    proto = machine()
    (node,) = proto.graph.node
    node.attribute.remove(next(a for a in node.attribute if a.name == "kernel_params"))
    with pytest.raises(UnsupportedError, match=r"machine \(SVMRegressor.*incomplete"):
        onnxlrp.convert(proto, RATIO)
