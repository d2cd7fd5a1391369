"""Products of live values, softmax, and normalisation by statistics, on their definition.

Each is a linear layer near the values that it was given: a product with the other operand for
weights, a softmax by its tangent, a normalisation with its deviation held fixed.
"""

import math
from collections.abc import Iterator

import numpy as np
import onnx

from onnxlrp.reference.contributions import Block
from onnxlrp.reference.operators import Array, attributes_of, forward, normalised_groups

PRODUCTS = ("Mul", "Div", "MatMul")
"""Operators that are products where two of their inputs are live."""


def parts_of(node: onnx.NodeProto, rule: str) -> dict[int, float]:
    """Which operand of a product answers for which part of the relevance."""
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
    node: onnx.NodeProto, x: Array, relevance: Array, epsilon: float
) -> tuple[Array, Array, Array]:
    """R_i = sum_j x_i J_ji / stab(y_j) R_j; what the expansion has beside x_i is a bias.

    Returns the relevance of x, and per output what bias and stabiliser took. A softmax has no
    stabiliser: where it is 0 it has no contributions.
    """
    axis = attributes_of(node).get("axis", -1)
    rows, slope, y = softmax_tangent(node, x)
    moved = np.moveaxis(relevance, axis, -1)
    r = moved.reshape(y.shape)
    if node.op_type == "Softmax":
        ratio = np.divide(r, y, out=np.zeros_like(r), where=y > 0)
    else:
        ratio = r / (y + epsilon * np.where(y >= 0, 1.0, -1.0))
    back = rows * np.einsum("lji,lj->li", slope, ratio)
    bias = (y - np.einsum("lji,li->lj", slope, rows)) * ratio
    stabiliser = r - y * ratio
    shape = moved.shape

    def placed(part: Array) -> Array:
        return np.moveaxis(part.reshape(shape), -1, axis)

    return placed(back), placed(bias), placed(stabiliser)


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
        weight = centre / deviation * given.scale.reshape(-1)[index]
        yield Block(
            index[None], weight[None], given.bias.reshape(-1)[index][None], index[None], connection
        )
