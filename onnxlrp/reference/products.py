"""Products of live values, softmax, and normalisation by statistics, on their definition.

Each is a linear layer near the values that it was given: a product with the other operand for
weights, a softmax by its tangent, a normalisation with its deviation held fixed.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx

from onnxlrp.reference.contributions import Block
from onnxlrp.reference.normalization import cross_divisive
from onnxlrp.reference.operators import Array, attributes_of, forward, normalised_groups
from onnxlrp.reference.rules import stab

PRODUCTS = ("Mul", "Div", "MatMul")
"""Operators that are products where two of their inputs are live."""


def parts_of(node: onnx.NodeProto, rule: str) -> dict[int, float]:
    """Which operand of a product answers for which part of the relevance.

    ``taylor`` expands towards the point where all but a gate is gone; each operand that is gone
    there has the whole product for its first-order term, and these are divided by their sum.
    """
    if rule == "taylor":
        gone = [int(attributes_of(node)["signal"])] if "signal" in attributes_of(node) else [0, 1]
        return {at: 1.0 / len(gone) for at in gone}
    if rule == "signal":
        return {int(attributes_of(node).get("signal", 0)): 1.0}
    if rule == "uniform":
        return {0: 0.5, 1: 0.5}
    raise ValueError(f"no rule {rule!r} for a product")


def summed_to(array: Array, shape: tuple[int, ...]) -> Array:
    """Sum over the axes along which an operand of this shape was broadcast."""
    array = array.sum(axis=tuple(range(array.ndim - len(shape))))
    axes = tuple(i for i, (a, b) in enumerate(zip(array.shape, shape, strict=True)) if a != b)
    return np.asarray(array.sum(axis=axes, keepdims=True))


def softmax_tangent(node: onnx.NodeProto, x: Array) -> tuple[Array, Array, Array]:
    """Rows of x that are normalised together, [L, K], and the Jacobian there, [L, K, K].

    Also the outputs, [L, K]. Entries with a softmax of 0 count as 0: they were masked out.
    """
    axis = attributes_of(node).get("axis", -1)
    y = np.moveaxis(forward(node, [x])[0], axis, -1)
    y = y.reshape(-1, y.shape[-1])
    s = np.exp(y) if node.op_type == "LogSoftmax" else y
    rows = np.where(s > 0, np.moveaxis(x, axis, -1).reshape(s.shape), 0.0)
    eye = np.eye(s.shape[1])
    slope = eye - s[:, None, :]
    if node.op_type == "Softmax":
        slope = s[:, :, None] * slope
    return rows, slope, y


def cross_softmax(
    node: onnx.NodeProto, x: Array, relevance: Array, parameters: Mapping[str, Any]
) -> tuple[Array, Array, Array]:
    """R_i = sum_j x_i J_ji / d_j R_j; what the expansion has beside x_i is a bias.

    Returns the relevance of x, and per output what bias and stabiliser took. The denominator d_j is
    y_j, or without the bias (`exclude`) stab(sum_i x_i J_ji); where a softmax is 0 it has no
    contributions.
    """
    axis, treatment = attributes_of(node).get("axis", -1), parameters.get("bias", "absorb")
    rows, slope, y = softmax_tangent(node, x)
    moved = np.moveaxis(relevance, axis, -1)
    r = moved.reshape(y.shape)
    own = np.einsum("lji,li->lj", slope, rows)
    plain = node.op_type == "Softmax"
    # The slopes of a softmax have the factor y_j, which cancels.
    factor = np.where(y > 0, y, 1.0) if plain else np.ones_like(y)
    whole = (own if treatment == "exclude" else y) / factor
    if plain and treatment != "exclude":
        stabilised = np.ones_like(y)
    else:
        stabilised = stab(whole, parameters.get("epsilon", 1e-6))
    ratio = np.where(y > 0, r / (stabilised * factor), 0.0) if plain else r / stabilised
    back = rows * np.einsum("lji,lj->li", slope, ratio)
    bias = (0.0 if treatment == "exclude" else y - own) * ratio
    if treatment == "distribute":
        seen = np.exp(y) > 0 if not plain else y > 0
        back = back + seen * (bias.sum(axis=1) / seen.sum(axis=1))[:, None]
        bias = np.zeros_like(bias)
    stabiliser = r - (own if treatment == "exclude" else y) * ratio
    shape = moved.shape

    def placed(part: Array) -> Array:
        return np.moveaxis(np.broadcast_to(part, y.shape).reshape(shape), -1, axis)

    return placed(back), placed(bias), placed(stabiliser)


def expanded_normalisation(
    node: onnx.NodeProto,
    inputs: list[Array | None],
    relevance: Array,
    parameters: Mapping[str, Any],
) -> tuple[Array, Array]:
    """A normalisation by ``taylor``: back across scale and bias, the division, and the mean.

    Returns the relevance of x, and what the bias took of each output; the epsilon rule crosses what
    is linear in it.
    """
    x, epsilon = inputs[0], parameters.get("epsilon", 1e-6)
    assert x is not None
    given = normalised_groups(node, inputs)
    rows, r = x.reshape(-1)[given.index], relevance.reshape(-1)[given.index]
    size = rows.shape[1]
    centre = np.eye(size) - (1 / size if given.centred else 0.0)
    part = rows @ centre.T
    weights = np.full((size, size), 1.0 if given.norm else 1 / size)
    # A vector of zeros gets what is sent to it: 0.
    floor = given.epsilon + given.outside**2 or 1e-30
    unit = part / np.sqrt(floor + part**2 @ weights.T)
    scaled = unit * given.scale.reshape(-1)[given.index]
    bias = given.bias.reshape(-1)[given.index]
    if parameters.get("bias", "absorb") == "exclude":
        bias = np.zeros_like(bias)
    took = np.zeros_like(r)
    if given.bias.any():
        ratio = r / stab(scaled + bias, epsilon)
        took = bias * ratio
        spread = took if parameters.get("bias") == "distribute" else 0.0
        r, took = scaled * ratio + spread, took - spread
    divided = cross_divisive(part, weights, floor, 0.5, r)
    back = rows * ((divided / stab(part, epsilon)) @ centre) if given.centred else divided
    result, taken = np.zeros(x.size), np.zeros(x.size)
    result[given.index] = back
    taken[given.index] = took
    return result.reshape(x.shape), taken.reshape(x.shape)


def frozen_normalisation(node: onnx.NodeProto, inputs: list[Array | None]) -> Iterator[Block]:
    """(x - mean) / deviation * scale + bias, with the deviation held fixed."""
    x = inputs[0]
    assert x is not None
    given = normalised_groups(node, inputs)
    size = given.index.shape[1]
    centre = np.eye(size) - (1 / size if given.centred else 0.0)
    connection = None if given.centred else np.eye(size, dtype=bool)[None]
    for index in given.index:
        part = centre @ x.reshape(-1)[index]
        squares = float((part**2).sum() if given.norm else (part**2).mean())
        deviation = math.sqrt(squares + given.epsilon) + given.outside
        # The slope of x / |x| grows without limit towards 0, where it has none.
        weight = centre / (deviation or 1e-9) * given.scale.reshape(-1)[index]
        yield Block(
            index[None], weight[None], given.bias.reshape(-1)[index][None], index[None], connection
        )
