"""Linear layers as their contributions z_ij = x_i w_ij, written out one by one.

There are two independent ways to them, which the reference's own tests hold against each other:
``gathered`` says, for every output, which inputs it is connected to and with which weight;
``probed`` asks the forward pass for its answer to every basis vector, for tiny operators only.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxlrp.reference.axes import along_axes, connections, joined_weights
from onnxlrp.reference.operators import Array, attributes_of, forward, gemm_operands, reduced_axes
from onnxlrp.reference.windows import Attributes, Windows, transposed_windows, windows

Inputs = Sequence[Array | None]


@dataclass(frozen=True)
class Block:
    """Outputs y[l, o] = sum_k x[index[l, k]] * weight[l, k, o] + bias[l, o] of a linear layer.

    Attributes
    ----------
    index
        [L, K], positions in x, which is the layer's live inputs flattened, one after the other. -1
        is padding: it contributes nothing, receives nothing and is not an input.
    weight
        Broadcastable to [L, K, O].
    bias
        Broadcastable to [L, O].
    output
        [L, O], positions in the flattened output.
    connection
        Broadcastable to [L, K, O]; whether input and output are connected, be the weight zero or
        not. None: all but the padding.
    """

    index: Array
    weight: Array
    bias: Array
    output: Array
    connection: Array | None = None

    @property
    def connected(self) -> Array:
        """Which inputs are connected to which outputs, broadcastable to [L, K, O]."""
        return self.index[:, :, None] >= 0 if self.connection is None else self.connection


def live_values(inputs: Inputs, live: Sequence[bool]) -> list[Array]:
    """Return the inputs that depend on the explained input."""
    return [v for v, alive in zip(inputs, live, strict=True) if alive and v is not None]


def _only_live(node: onnx.NodeProto, live: Sequence[bool]) -> int:
    if sum(live) != 1:
        raise NotImplementedError(f"{node.op_type} of {sum(live)} live inputs")
    return list(live).index(True)


def _positions(shape: Sequence[int], start: int = 0) -> Array:
    return np.arange(start, start + math.prod(shape)).reshape(shape)


# --- Convolutions and pools ----------------------------------------------------------------------


def _seen(w: Windows, size: Sequence[int]) -> list[Array]:
    """Per axis, [outputs, kernel]: the input position under each kernel offset, or -1."""
    axes = []
    for n, k, s, d, b, o in zip(
        size, w.kernel, w.strides, w.dilations, w.begin, w.outputs, strict=True
    ):
        position = np.arange(o)[:, None] * s + np.arange(k) * d - b
        axes.append(np.where((position >= 0) & (position < n), position, -1))
    return axes


def _seen_transposed(w: Windows, size: Sequence[int]) -> list[Array]:
    """The same for a transposed convolution, whose input position i writes i * s + k * d - b."""
    axes = []
    for n, k, s, d, b, o in zip(
        size, w.kernel, w.strides, w.dilations, w.begin, w.outputs, strict=True
    ):
        scaled = np.arange(o)[:, None] + b - np.arange(k) * d
        hit = (scaled % s == 0) & (scaled >= 0) & (scaled // s < n)
        axes.append(np.where(hit, scaled // s, -1))
    return axes


def _joined(axes: Sequence[Array], size: Sequence[int]) -> Array:
    """Combine the positions on each axis into positions in the image, [outputs, kernel]."""
    index = np.zeros((1, 1), dtype=np.int64)
    for axis, n in zip(axes, size, strict=True):
        outer, inner = index[:, None, :, None], axis[None, :, None, :]
        both = np.where((outer < 0) | (inner < 0), -1, outer * n + inner)
        index = both.reshape(len(index) * len(axis), -1)
    return index


def _in_channels(index: Array, channels: Sequence[int] | Array, area: int) -> Array:
    """Repeat positions in one image for each of these channels: [channels, outputs, kernel]."""
    start = np.asarray(channels)[:, None, None] * area
    return np.where(index < 0, -1, index + start)


def window_index(a: Attributes, shape: Sequence[int]) -> Array:
    """Return the positions in x of this shape that each window of a pool sees: [L, K]."""
    size = shape[2:]
    index = _joined(_seen(windows(a, size, a["kernel_shape"]), size), size)
    images = range(shape[0] * shape[1])
    return _in_channels(index, images, math.prod(size)).reshape(-1, index.shape[1])


def _convolution(
    node: onnx.NodeProto, inputs: Inputs, live: Sequence[bool], transposed: bool
) -> Iterator[Block]:
    if _only_live(node, live) != 0:
        raise NotImplementedError(f"{node.op_type} with weights that depend on the input")
    x, weight, bias = (*inputs, None)[:3]
    assert x is not None
    assert weight is not None
    a, size = attributes_of(node), x.shape[2:]
    groups, inner = a.get("group", 1), x.shape[1] // a.get("group", 1)
    kernel = weight.shape[2:]
    if transposed:
        w = transposed_windows(a, size, kernel)
        index = _joined(_seen_transposed(w, size), size)
        per_group = weight.reshape(groups, inner, -1, math.prod(kernel)).transpose(0, 1, 3, 2)
    else:
        w = windows(a, size, kernel)
        index = _joined(_seen(w, size), size)
        per_group = weight.reshape(groups, -1, inner, math.prod(kernel)).transpose(0, 2, 3, 1)
    outer = per_group.shape[-1]
    output = _positions((len(x), groups, outer, len(index)))
    shift = np.zeros(groups * outer) if bias is None else bias
    for n, g in np.ndindex(len(x), groups):
        channels = (n * groups + g) * inner + np.arange(inner)
        everywhere = _in_channels(index, channels, math.prod(size))
        yield Block(
            index=everywhere.swapaxes(0, 1).reshape(len(index), -1),
            weight=per_group[g].reshape(1, -1, outer),
            bias=shift.reshape(groups, 1, outer)[g],
            output=output[n, g].T,
        )


def _average_pool(node: onnx.NodeProto, inputs: Inputs, live: Sequence[bool]) -> Iterator[Block]:
    (x,) = live_values(inputs, live)
    a, size = attributes_of(node), x.shape[2:]
    index = window_index(a, x.shape)
    count = np.sum(index >= 0, axis=1)
    if a.get("count_include_pad", 0):
        w = windows(a, size, a["kernel_shape"])
        whole = [b + n + e for b, n, e in zip(w.begin, size, w.end, strict=True)]
        unpadded = Windows(w.kernel, w.strides, w.dilations, (0,) * len(size), w.end, w.outputs)
        inside = np.sum(_joined(_seen(unpadded, whole), whole) >= 0, axis=1)
        count = np.tile(inside, x.shape[0] * x.shape[1])
    yield Block(index, 1 / count[:, None, None], np.zeros((1, 1)), _positions((len(index), 1)))


# --- Everything else -----------------------------------------------------------------------------


def _reduction(node: onnx.NodeProto, inputs: Inputs, live: Sequence[bool]) -> Iterator[Block]:
    _only_live(node, live)
    x, axes = (*inputs, None)[:2]
    assert x is not None
    if node.op_type == "GlobalAveragePool":
        over = tuple(range(2, x.ndim))
    else:
        over = reduced_axes(attributes_of(node), x.ndim, axes)
    count = math.prod(x.shape[i] for i in over)
    kept = [i for i in range(x.ndim) if i not in over]
    index = _positions(x.shape).transpose(*kept, *over).reshape(-1, count)
    weight = 1.0 if node.op_type == "ReduceSum" else 1 / count
    yield Block(index, np.full((1, 1, 1), weight), np.zeros((1, 1)), _positions((len(index), 1)))


def _along_axes(node: onnx.NodeProto, inputs: Inputs, live: Sequence[bool]) -> Iterator[Block]:
    (x,) = live_values(inputs, live)
    index = [np.arange(size)[:, None] for size in x.shape]
    weights = [np.ones((size, 1)) for size in x.shape]
    for axis, matrix in along_axes(node, inputs):
        index[axis], weights[axis] = connections(matrix)
    everywhere, weight = _joined(index, x.shape), joined_weights(weights)
    yield Block(everywhere, weight[:, :, None], np.zeros((1, 1)), _positions((len(weight), 1)))


def _product(node: onnx.NodeProto, inputs: Inputs, live: Sequence[bool]) -> Iterator[Block]:
    """Gemm and MatMul, y = left right, with a constant factor on either side."""
    at = _only_live(node, live)
    if at > 1:
        raise NotImplementedError(f"{node.op_type} with a bias that depends on the input")
    factors = [
        v if t != at else _positions(v.shape) for t, v in enumerate(inputs[:2]) if v is not None
    ]
    left, right = factors
    output = _positions(forward(node, inputs)[0].shape)
    bias, scale = np.zeros_like(output, dtype=np.float64), 1.0
    if node.op_type == "Gemm":
        a = attributes_of(node)
        left, right = gemm_operands(a, left, right)
        scale = a.get("alpha", 1.0)
        if len(inputs) > 2 and inputs[2] is not None:
            bias = bias + a.get("beta", 1.0) * inputs[2]
    # A vector is a matrix with one row or one column, as in numpy.
    left = left[None] if left.ndim == 1 else left
    right = right[:, None] if right.ndim == 1 else right
    batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    left = np.broadcast_to(left, batch + left.shape[-2:])
    right = np.broadcast_to(right, batch + right.shape[-2:])
    matrices = (*batch, left.shape[-2], right.shape[-1])
    output, bias = output.reshape(matrices), bias.reshape(matrices)
    for b in np.ndindex(*batch):
        if at == 0:
            yield Block(left[b], scale * right[b][None], bias[b], output[b])
        else:
            # y^T = right^T left^T: the columns of the live factor meet the rows of the constant.
            yield Block(right[b].T, scale * left[b].T[None], bias[b].T, output[b].T)


def _sum(node: onnx.NodeProto, inputs: Inputs, live: Sequence[bool]) -> Iterator[Block]:
    """Sums: weights 1, -1, or of a mean 1/n, on the live operands; the constant ones are bias."""
    operands = [v for v in inputs if v is not None]
    flipped = {"Sub": 1, "Neg": 0}.get(node.op_type)
    size = 1 / len(operands) if node.op_type == "Mean" else 1.0
    signs = [-size if t == flipped else size for t in range(len(operands))]
    shape = np.broadcast_shapes(*(v.shape for v in operands))
    bias, columns, start = np.zeros(shape), [], 0
    for v, sign, alive in zip(operands, signs, live, strict=True):
        if alive:
            columns.append(np.broadcast_to(_positions(v.shape, start), shape).reshape(-1))
            start += v.size
        else:
            bias = bias + sign * v
    weight = np.array([sign for sign, alive in zip(signs, live, strict=True) if alive])
    yield Block(
        np.stack(columns, axis=1),
        weight[None, :, None],
        bias.reshape(-1, 1),
        _positions((bias.size, 1)),
    )


def _scattered(node: onnx.NodeProto, inputs: Inputs, live: Sequence[bool]) -> Iterator[Block]:
    """What was there and the updates that are added to it, one column for each."""
    data, places, updates = inputs
    assert data is not None
    assert updates is not None
    read = "GatherElements" if node.op_type == "ScatterElements" else "GatherND"
    a = {"axis": attributes_of(node).get("axis", 0)} if read == "GatherElements" else {}
    finding = onnx.helper.make_node(read, ["x", "places"], ["y"], **a)
    (target,) = forward(finding, [_positions(data.shape), places])
    target = target.reshape(-1).astype(np.int64)
    # How many updates of the same place stand in front of each.
    rank = np.array([(target[:k] == place).sum() for k, place in enumerate(target)], np.int64)
    index = np.full((data.size, 1 + int(rank.max(initial=-1)) + 1), -1)
    bias = np.zeros((data.size, 1))
    start = 0
    if live[0]:
        index[:, 0], start = np.arange(data.size), data.size
    else:
        bias[:, 0] = data.reshape(-1)
    if live[2]:
        index[target, 1 + rank] = start + np.arange(updates.size)
    else:
        np.add.at(bias[:, 0], target, updates.reshape(-1))
    yield Block(index, np.ones((1, 1, 1)), bias, _positions((data.size, 1)))


def _scaling(node: onnx.NodeProto, inputs: Inputs, live: Sequence[bool]) -> Iterator[Block]:
    """Mul and Div by a constant."""
    at = _only_live(node, live)
    x, factor = inputs[at], inputs[1 - at]
    assert x is not None
    assert factor is not None
    if node.op_type == "Div":
        if at == 1:
            raise NotImplementedError("Div by a value that depends on the input is not linear")
        factor = 1 / factor
    shape = np.broadcast_shapes(x.shape, factor.shape)
    index = np.broadcast_to(_positions(x.shape), shape).reshape(-1, 1)
    weight = np.broadcast_to(factor, shape).reshape(-1, 1, 1)
    yield Block(index, weight, np.zeros((1, 1)), _positions((len(index), 1)))


def _batch_normalization(
    node: onnx.NodeProto, inputs: Inputs, live: Sequence[bool]
) -> Iterator[Block]:
    """An affine map of each channel."""
    if _only_live(node, live) != 0:
        raise NotImplementedError("BatchNormalization with live statistics")
    x, scale, bias, mean, variance = (np.asarray(v) for v in inputs)
    weight = scale / np.sqrt(variance + attributes_of(node).get("epsilon", 1e-5))
    channel = np.arange(x.size) // math.prod(x.shape[2:]) % x.shape[1]
    index = _positions((x.size, 1))
    shift = bias - mean * weight
    yield Block(index, weight[channel][:, None, None], shift[channel][:, None], index)


def _overlap(node: onnx.NodeProto, inputs: Inputs, live: Sequence[bool]) -> Iterator[Block]:
    """Blocks added up: of each channel of each sample what the operator makes of one block."""
    x, picture, block = inputs
    assert x is not None
    assert block is not None
    count = int(np.prod(block)) * x.shape[2]
    basis = np.eye(count).reshape(count, -1, x.shape[2])
    index, weight = connections(forward(node, [basis, picture, block])[0].reshape(count, -1))
    start = np.arange(0, x.size, count)[:, None, None]
    places = np.where(index >= 0, index + start, -1).reshape(-1, index.shape[1])
    weights = np.tile(weight, (len(start), 1))[:, :, None]
    yield Block(places, weights, np.zeros((1, 1)), _positions((len(places), 1)))


_LAYERS: dict[str, Callable[[onnx.NodeProto, Inputs, Sequence[bool]], Iterator[Block]]] = {
    "Conv": lambda node, inputs, live: _convolution(node, inputs, live, transposed=False),
    "ConvTranspose": lambda node, inputs, live: _convolution(node, inputs, live, transposed=True),
    "Gemm": _product,
    "MatMul": _product,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _reduction,
    "ReduceMean": _reduction,
    "ReduceSum": _reduction,
    "BatchNormalization": _batch_normalization,
    "Add": _sum,
    "Sub": _sum,
    "ScatterElements": _scattered,
    "ScatterND": _scattered,
    "Neg": _sum,
    "Sum": _sum,
    "Mean": _sum,
    "Resize": _along_axes,
    "CumSum": _along_axes,
    "Col2Im": _overlap,
    "Mul": _scaling,
    "Div": _scaling,
}

LINEAR = frozenset(_LAYERS) - {"ScatterElements", "ScatterND"}
"""Operators that are linear in their live inputs."""


def gathered(node: onnx.NodeProto, inputs: Inputs, live: Sequence[bool]) -> Iterator[Block]:
    """Yield the layer in blocks that together hold every output once."""
    yield from _LAYERS[node.op_type](node, inputs, live)


def probed(node: onnx.NodeProto, inputs: Inputs, live: Sequence[bool]) -> Iterator[Block]:
    """Yield the layer as one dense block, its weights found by brute force."""
    bias, matrix = _responses(node, inputs, live)
    # Among weights of one, a zero response means that there is no connection.
    has_weights = node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")
    ones = [
        v if v is None or alive or not has_weights else np.ones_like(v)
        for v, alive in zip(inputs, live, strict=True)
    ]
    _, connection = _responses(node, ones, live)
    yield Block(
        _positions((1, len(matrix))),
        matrix[None],
        bias[None],
        _positions((1, len(bias))),
        (connection != 0)[None],
    )


def _responses(node: onnx.NodeProto, inputs: Inputs, live: Sequence[bool]) -> tuple[Array, Array]:
    """Return f(0), [J], and the answers f(e_i) - f(0) to every basis vector, [I, J]."""
    values = live_values(inputs, live)
    cuts = np.cumsum([v.size for v in values])[:-1]

    def answer(x: Array) -> Array:
        parts = iter(np.split(x, cuts))
        replaced = [
            next(parts).reshape(v.shape) if alive and v is not None else v
            for v, alive in zip(inputs, live, strict=True)
        ]
        return forward(node, replaced)[0].reshape(-1)

    count = sum(v.size for v in values)
    bias = answer(np.zeros(count))
    return bias, np.stack([answer(basis) for basis in np.eye(count)]) - bias
