"""Relevance against a reference: every contribution is a difference from what it is there.

What is explained is f(x) - f(x⁰). A linear layer's contributions are z_ij = (x_i - x⁰_i) w_ij, and
its bias, the same at both points, has none (Shrikumar et al. 2017; Ancona et al. 2018). What is not
linear is split into terms that add up to its change exactly; here each term is written out.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from onnxlrp.reference.operators import Array, attributes_of, forward, lrn_window, normalised_groups
from onnxlrp.reference.rules import stab


def shared(terms: Array, change: Array, relevance: Array, epsilon: float = 1e-6) -> Array:
    """Share R_j, [L, J], out in proportion to the terms, [L, J, I], of what changes: [L, I]."""
    return np.asarray(np.einsum("lji,lj->li", terms, relevance / stab(change, epsilon)))


def cross_product(
    node: onnx.NodeProto,
    inputs: Sequence[Array],
    root: Sequence[Array],
    relevance: Array,
    at: int,
    stabiliser: float,
) -> Array:
    """a b - a⁰ b⁰ = (a - a⁰) b̄ + (b - b⁰) ā: the share of operand ``at``, in the product's shape.

    Of a matrix product, in the operand's own shape.
    """
    change = forward(node, inputs)[0] - forward(node, root)[0]
    own, middle = inputs[at] - root[at], (inputs[1 - at] + root[1 - at]) / 2
    ratio = relevance / stab(change, stabiliser)
    if node.op_type != "MatMul":
        return np.asarray(own * middle * ratio)
    turned = middle.swapaxes(-1, -2)
    return np.asarray(own * (ratio @ turned if at == 0 else turned @ ratio))


def _logarithmic_mean(a: Array, b: Array) -> Array:
    """(a - b) / (log a - log b); a where both are the same, 0 where one is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = (a - b) / (np.log(a) - np.log(b))
    same = np.isclose(a, b, rtol=1e-9, atol=0)
    return np.where(same, a, np.where((a == 0) | (b == 0), 0.0, mean))


def cross_softmax(
    node: onnx.NodeProto, x: Array, root: Array, relevance: Array, epsilon: float
) -> Array:
    """log s_j = x_j - log sum_i e^x_i; the sum's change has a term of each x_i.

    e^x_i changes by its logarithmic mean times d_i, and a logarithm by what is in it over that
    one's logarithmic mean. A masked entry (s = 0) has no terms and gets nothing.
    """
    axis = attributes_of(node).get("axis", -1)
    rows, base, r = (np.moveaxis(v, axis, -1) for v in (x, root, relevance))
    shape = rows.shape
    rows, base, r = (v.reshape(-1, shape[-1]) for v in (rows, base, r))
    seen = np.exp(rows - rows.max(axis=1, keepdims=True)) > 0
    highest = np.maximum(rows.max(axis=1), base.max(axis=1))[:, None]
    after, before = np.exp(rows - highest), np.exp(base - highest)
    with np.errstate(invalid="ignore"):
        d = np.where(seen, rows - base, 0.0)
    sums = _logarithmic_mean(after.sum(axis=1), before.sum(axis=1))[:, None]
    c = _logarithmic_mean(after, before) * d / sums
    terms = d[:, None, :] * np.eye(shape[-1]) - c[:, None, :]
    back = shared(terms, terms.sum(axis=2), np.where(seen, r, 0.0), epsilon)
    return np.moveaxis(back.reshape(shape), -1, axis)


def _divided(x: Array, root: Array, weights: Array, bias: Any, beta: float) -> tuple[Array, Array]:
    """Terms [L, K, J], and change, of y_k = x_k S_k^-beta, S_k = bias + sum_j c_kj x_j².

    y_k changes by (x_k - x⁰_k) times the middle of S_k^-beta, and by the middle of x_k times what
    that power changes by, which each x_j² has a part of as large as its part of the change of S_k.
    """
    after, before = (bias + v**2 @ weights.T for v in (x, root))
    power, root_power = after**-beta, before**-beta
    change = after - before
    slope = -beta * ((after + before) / 2) ** (-beta - 1)
    same = np.abs(change) < 1e-9 * after
    secant = np.where(same, slope, (power - root_power) / np.where(same, 1.0, change))
    terms = ((x + root) / 2 * secant)[:, :, None] * weights * (x**2 - root**2)[:, None, :]
    at = np.arange(x.shape[1])
    terms[:, at, at] += (x - root) * (power + root_power) / 2
    return terms, x * power - root * root_power


def cross_lrn(node: onnx.NodeProto, x: Array, root: Array, relevance: Array) -> Array:
    """Local response normalisation over channels."""
    a = attributes_of(node)
    channels = x.shape[1]
    weights = np.zeros((channels, channels))
    for k in range(channels):
        weights[k, list(lrn_window(k, a["size"], channels))] = a.get("alpha", 1e-4) / a["size"]
    rows, base, r = (np.moveaxis(v, 1, -1).reshape(-1, channels) for v in (x, root, relevance))
    terms, change = _divided(rows, base, weights, a.get("bias", 1.0), a.get("beta", 0.75))
    back = shared(terms, change, r)
    return np.moveaxis(back.reshape(*x.shape[:1], *x.shape[2:], channels), -1, 1)


def cross_normalisation(
    node: onnx.NodeProto,
    inputs: Sequence[Array | None],
    root: Array,
    relevance: Array,
    epsilon: float,
) -> Array:
    """A normalisation by ``taylor``: back across the division, and the mean by epsilon."""
    x = inputs[0]
    assert x is not None
    given = normalised_groups(node, list(inputs))
    rows, base, r = (v.reshape(-1)[given.index] for v in (x, root, relevance))
    size = rows.shape[1]
    centre = np.eye(size) - (1 / size if given.centred else 0.0)
    weights = np.full((size, size), 1.0 if given.norm else 1 / size)
    floor = given.epsilon + given.outside**2 or 1e-30
    terms, change = _divided(rows @ centre.T, base @ centre.T, weights, floor, 0.5)
    back = shared(terms, change, r)
    if given.centred:
        d = rows - base
        back = shared(centre[None] * d[:, None, :], d @ centre.T, back, epsilon)
    result = np.zeros(x.size)
    result[given.index] = back
    return result.reshape(x.shape)
