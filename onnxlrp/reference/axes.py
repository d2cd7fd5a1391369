"""Operators that are a matrix along each axis: Resize, CumSum.

The matrix of an axis is found by asking the forward pass of that axis alone for its answer to every
basis vector.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from onnx import helper

from onnxlrp.reference.operators import Array, attributes_of, forward

LEAST = 1e-5
"""A weight of an interpolation below this is 0, rounded: there is no connection."""

Inputs = Sequence[Array | None]


def along_axes(node: onnx.NodeProto, inputs: Inputs) -> Iterator[tuple[int, Array]]:
    """Yield the axes that an operator changes, each with its matrix [in, out]."""
    x = inputs[0]
    assert x is not None
    if node.op_type == "CumSum":
        axis = int(np.asarray(inputs[1]).reshape(())) % x.ndim
        (rows,) = forward(node, [np.eye(x.shape[axis]), np.array(1)])
        yield axis, rows
        return
    a = attributes_of(node)
    axes = [axis % x.ndim for axis in a.pop("axes", range(x.ndim))]
    result = forward(node, inputs)[0].shape
    for place, axis in enumerate(axes):
        region, scales, sizes = (*inputs[1:], None, None, None)[:3]
        one = helper.make_node(node.op_type, ["x", "roi", "scales", "sizes"], ["y"], **a)
        given = [
            np.eye(x.shape[axis]),
            None
            if region is None or not region.size
            else np.array([0, region[place], 1, region[place + len(axes)]]),
            None if scales is None or not scales.size else np.array([1, scales[place]]),
            None if sizes is None or not sizes.size else np.array([x.shape[axis], result[axis]]),
        ]
        one.input[:] = [
            name if v is not None else "" for name, v in zip(one.input, given, strict=True)
        ]
        (rows,) = forward(one, given)
        if rows.shape != (x.shape[axis],) * 2 or (rows != np.eye(x.shape[axis])).any():
            yield axis, rows


def connections(matrix: Array) -> tuple[Array, Array]:
    """Return where each output's inputs are, [out, most], -1 where there are fewer; and weights."""
    connected = np.abs(matrix) > LEAST
    most = max(int(connected.sum(axis=0).max()), 1)
    order = np.argsort(~connected, axis=0, kind="stable")[:most].T
    seen = np.take_along_axis(connected.T, order, 1)
    weight = np.take_along_axis(matrix.T, order, 1)
    return np.where(seen, order, -1), np.where(seen, weight, 0.0)


def joined_weights(weights: Sequence[Array]) -> Array:
    """Combine the weights along each axis to those of all, [outputs, inputs]."""
    result = np.ones((1, 1))
    for weight in weights:
        both = result[:, None, :, None] * weight[None, :, None, :]
        result = both.reshape(len(result) * len(weight), -1)
    return result
