"""Support vector machines with a radial kernel: decisions, and what features add to them."""

import numpy as np
import onnx
from onnx import helper

from onnxlrp.reference.trees import Array

MACHINE = "SVMRegressor"


def _given(node: onnx.NodeProto) -> tuple[Array, Array, float, float]:
    """Return the weights, the support vectors, gamma and rho."""
    a = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    weights = np.array(a["coefficients"], np.float64)
    vectors = np.array(a["support_vectors"], np.float64).reshape(len(weights), -1)
    return weights, vectors, float(a["kernel_params"][0]), float(a["rho"][0])


def decisions(node: onnx.NodeProto, x: Array) -> Array:
    """sum_j a_j exp(-gamma |x - s_j|²) + rho: [N, 1]."""
    weights, vectors, gamma, rho = _given(node)
    squares = ((x[:, None] - vectors) ** 2).sum(axis=2)
    return np.asarray(np.exp(-gamma * squares) @ weights[:, None] + rho)


def slopes(node: onnx.NodeProto, x: Array) -> Array:
    """Return the derivative of the decision by each feature."""
    weights, vectors, gamma, _ = _given(node)
    found = np.zeros_like(x)
    for weight, vector in zip(weights, vectors, strict=True):
        away = x - vector
        kernel = np.exp(-gamma * (away**2).sum(axis=1, keepdims=True))
        found += -2 * gamma * weight * kernel * away
    return found


def terms(node: onnx.NodeProto, x: Array, root: Array | None) -> Array:
    """Return what each feature adds to the decision; with a reference, to its change from there."""
    weights, vectors, gamma, rho = _given(node)
    if root is not None:
        return _changes(weights, vectors, gamma, x, root)
    pairs = [
        (weight, -gamma * (x - vector) ** 2)
        for weight, vector in zip(weights, vectors, strict=True)
    ]
    if len({weight > 0 for weight in weights}) == 1:
        pairs.append((rho, np.zeros_like(x)))
    found = np.zeros_like(x)
    for row in range(len(x)):
        first = [(w, e[row]) for w, e in pairs if w > 0]
        second = [(-w, e[row]) for w, e in pairs if w < 0]
        # Every pair of a vector for and one against is a detector, with the part of the evidence
        # that its two vectors have.
        (up, plus), (down, minus) = (
            (np.array([w * np.exp(e.sum()) for w, e in side]), np.array([e for _, e in side]))
            for side in (first, second)
        )
        total, rest = up.sum(), down.sum()
        mean = total if total == rest else (total - rest) / (np.log(total) - np.log(rest))
        for part, exponents in zip(up / total, plus, strict=True):
            pairs_of = (down / rest)[:, None] * (exponents - minus)
            found[row] += mean * part * pairs_of.sum(axis=0)
    return found


def _changes(weights: Array, vectors: Array, gamma: float, x: Array, root: Array) -> Array:
    """Share each kernel's change out in proportion to that of its exponent."""
    found = np.zeros_like(x)
    root = np.broadcast_to(root, x.shape)
    for weight, vector in zip(weights, vectors, strict=True):
        by_feature = -gamma * ((x - vector) ** 2 - (root - vector) ** 2)
        after, before = (-gamma * ((at - vector) ** 2).sum(axis=1) for at in (x, root))
        apart = np.where(after == before, 1.0, after - before)
        ratio = np.where(
            after == before, np.exp(after), np.exp(before) * np.expm1(after - before) / apart
        )
        found += weight * ratio[:, None] * by_feature
    return found
