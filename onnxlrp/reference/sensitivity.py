"""The rule ``gradient`` where an operator is not linear: the transposed Jacobian times relevance.

The slope of a function of one value is measured on its forward pass; other Jacobians are written
out, and the reference's own tests hold them against differences of the forward pass.
"""

from collections.abc import Sequence

import numpy as np
import onnx

from onnxlrp.reference.operators import (
    ACTIVATIONS,
    NORMALISATIONS,
    Array,
    attributes_of,
    forward,
    normalised_groups,
    reduced_axes,
)
from onnxlrp.reference.products import PRODUCTS, summed_to

RULES = ("gradient", "guided", "deconvnet")

_STEPS = ("Sign", "Floor", "Ceil", "Round", "Hardmax", "Binarizer", "LabelEncoder")
"""Functions that are constant but where they jump."""

_POWERS = ("Sqrt", "Log", "Pow", "Div", "Reciprocal")
"""Functions whose slope changes by as much as x changes in proportion."""


def slopes(
    node: onnx.NodeProto, inputs: Sequence[Array | None], at: int, shape: Sequence[int]
) -> Array:
    """Measure df/dx of a function of one value, x broadcast to the output's shape, on x's left.

    So a ReLU has none at 0; of ``|x|`` it is the mean of both sides.
    """
    x = np.broadcast_to(np.asarray(inputs[at], np.float64), shape)
    if node.op_type in _STEPS:
        return np.zeros(x.shape)
    size = np.abs(x)
    step = 1e-8 * (size if node.op_type in _POWERS else np.maximum(size, 1.0))

    def value(there: Array) -> Array:
        given = [there if place == at else v for place, v in enumerate(inputs)]
        return forward(node, given)[0].astype(np.float64)

    below, above = x - step, x + step if node.op_type == "Abs" else x
    return np.asarray((value(above) - value(below)) / (above - below))


def _of_product(node: onnx.NodeProto, a: Array, b: Array, r: Array) -> list[Array | None]:
    if node.op_type == "MatMul":
        return [r @ b.swapaxes(-1, -2), a.swapaxes(-1, -2) @ r]
    backs = (r / b, -r * a / b**2) if node.op_type == "Div" else (r * b, r * a)
    return [summed_to(back, v.shape) for back, v in zip(backs, (a, b), strict=True)]


def _of_softmax(node: onnx.NodeProto, x: Array, r: Array) -> Array:
    axis, (y,) = attributes_of(node).get("axis", -1), forward(node, [x])
    if node.op_type == "LogSoftmax":
        return np.asarray(r - np.exp(y) * r.sum(axis=axis, keepdims=True))
    return np.asarray(y * r - y * (y * r).sum(axis=axis, keepdims=True))


def _of_normalisation(node: onnx.NodeProto, inputs: Sequence[Array | None], r: Array) -> Array:
    """J_kj = scale_k (C_kj / d - p_k p_j w / (d^2 root)), with p = C x and d = root + outside."""
    x, given = inputs[0], normalised_groups(node, inputs)
    assert x is not None
    rows, g = x.reshape(-1)[given.index], (r * given.scale).reshape(-1)[given.index]
    part = rows - rows.mean(axis=1, keepdims=True) if given.centred else rows
    count = 1 if given.norm else rows.shape[1]
    root = np.sqrt((part**2).sum(axis=1, keepdims=True) / count + given.epsilon)
    deviation = root + given.outside
    along = (g * part).sum(axis=1, keepdims=True) / count
    back = g / deviation - part * along / (deviation**2 * root)
    if given.centred:
        back = back - back.mean(axis=1, keepdims=True)
    result = np.zeros(x.size)
    result[given.index] = back
    return result.reshape(x.shape)


def _of_whole_product(node: onnx.NodeProto, x: Array, axes: Array | None, r: Array) -> Array:
    """Each factor has the product of all others for its slope."""
    over = reduced_axes(attributes_of(node), x.ndim, axes)
    kept = [axis for axis in range(x.ndim) if axis not in over]
    place = np.arange(x.size).reshape(x.shape).transpose(*kept, *over).reshape(r.size, -1)
    rows, result = x.reshape(-1)[place], np.zeros(x.size)
    for k in range(rows.shape[1]):
        result[place[:, k]] = np.delete(rows, k, axis=1).prod(axis=1) * r.reshape(-1)
    return result.reshape(x.shape)


def cross(
    node: onnx.NodeProto,
    inputs: Sequence[Array | None],
    relevance: Array,
    rule: str,
    live: Sequence[bool],
) -> list[Array | None] | None:
    """Return what each input gets; None of operators whose gradient is crossed as relevance is."""
    at = list(live).index(True)
    x, back = inputs[at], None
    assert x is not None
    if node.op_type in PRODUCTS and sum(live) == 2:
        a, b = inputs
        assert a is not None
        assert b is not None
        return _of_product(node, a, b, relevance)
    if node.op_type in ("Softmax", "LogSoftmax"):
        back = _of_softmax(node, x, relevance)
    elif node.op_type in NORMALISATIONS:
        back = _of_normalisation(node, inputs, relevance)
    elif node.op_type == "ReduceProd":
        back = _of_whole_product(node, x, (*inputs, None)[1], relevance)
    elif node.op_type == "OneHotEncoder":
        back = np.zeros_like(x)
    elif sum(live) == 1 and (
        node.op_type in (*ACTIVATIONS, *_STEPS, "Cast", "Pow", "Mod", "Max", "Min")
        or (node.op_type == "Div" and at == 1)
    ):
        through = relevance if rule == "gradient" else np.maximum(relevance, 0.0)
        if rule != "deconvnet":
            through = through * slopes(node, inputs, at, relevance.shape)
        back = summed_to(through, x.shape)
    else:
        return None
    return [back if place == at else None for place in range(len(live))]
