"""Symbolic tensors moved, cut, padded and summed."""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxlrp.graph.shapes import Dim
from onnxlrp.propagation.expression import Emitter, Sign, Tensor

BEFORE_ALL = -(1 << 62)
"""Where a slice backwards ends that takes the first element, too."""


def size(tensor: Tensor, axis: int) -> int | Tensor:
    """Size along an axis: an int where it is known, else an int64 tensor of shape [1]."""
    known = tensor.shape[axis]
    if isinstance(known, int):
        return known
    counted = tensor.emitter.node("Shape", tensor, shape=(tensor.rank,), dtype=ir.DataType.INT64)
    axis %= tensor.rank
    return slice(counted, [axis], [axis + 1], [0])


def count(emitter: Emitter, size: int | Tensor) -> Tensor:
    """Count from 0 up to a size, int64 [size]: a constant where it is known."""
    if isinstance(size, int):
        return emitter.constant(np.arange(size, dtype=np.int64), Sign.NON_NEGATIVE)
    first, step = (emitter.constant(np.array(n, np.int64)) for n in (0, 1))
    end = reshape(size, ())
    return emitter.node(
        "Range", first, end, step, shape=(None,), dtype=size.dtype, sign=Sign.NON_NEGATIVE
    )


def cast(tensor: Tensor, dtype: ir.DataType, sign: Sign) -> Tensor:
    """Convert to another type."""
    return tensor.emitter.node(
        "Cast", tensor, shape=tensor.shape, dtype=dtype, sign=sign, to=dtype.value
    )


def sizes(tensor: Tensor, rows: int | None = None) -> Tensor:
    """Shape of a tensor as an int64 vector: a constant where all of it is known.

    `rows` stands for the first size: -1 for what is left, 0 for that of what is reshaped.
    """
    emitter, shape = tensor.emitter, tensor.shape
    if all(isinstance(size, int) for size in shape):
        return emitter.constant(np.array(shape, np.int64))
    whole = emitter.node("Shape", tensor, shape=(tensor.rank,), dtype=ir.DataType.INT64)
    if rows is None:
        return whole
    behind = slice(whole, [1], [tensor.rank], [0])
    first = emitter.vector([rows])
    return emitter.node("Concat", first, behind, shape=whole.shape, dtype=whole.dtype, axis=0)


def reshape(tensor: Tensor, shape: Sequence[Dim], like: Tensor | None = None) -> Tensor:
    """Reshape to a shape with at most one unknown size, or to that of `like`."""
    if tensor.is_zero or tensor.shape == tuple(shape):
        return tensor
    front = 0
    while front < min(tensor.rank, len(shape)) and tensor.shape[front] == shape[front] is not None:
        front += 1
    unknown = [axis for axis, size in enumerate(shape) if not isinstance(size, int)]
    if sum(axis >= front for axis in unknown) <= 1:
        # What stands in front on both sides stays (0), however much of it relevance has.
        target = tensor.emitter.vector(
            [
                size if isinstance(size, int) else 0 if axis < front else -1
                for axis, size in enumerate(shape)
            ]
        )
    else:
        assert like is not None, "two sizes are unknown"
        # Relevance may have more rows than the value that it is of.
        same = shape[0] is not None and tensor.rank > 0 and tensor.shape[0] == shape[0]
        target = sizes(like, rows=None if 0 not in unknown else 0 if same else -1)
    return tensor.emitter.node(
        "Reshape", tensor, target, shape=shape, dtype=tensor.dtype, sign=tensor.sign
    )


def unsqueeze(tensor: Tensor, axes: Sequence[int]) -> Tensor:
    """Insert axes of size 1; they are counted in the result, in increasing order."""
    shape = list(tensor.shape)
    for axis in axes:
        shape.insert(axis, 1)
    return tensor.emitter.node(
        "Unsqueeze",
        tensor,
        tensor.emitter.vector(axes),
        shape=shape,
        dtype=tensor.dtype,
        sign=tensor.sign,
    )


def split(tensor: Tensor, axis: int, parts: int) -> Tensor:
    """Make of one axis of known size two, the first of `parts`; all other sizes stay."""
    shape = tensor.shape
    size = shape[axis]
    assert isinstance(size, int)
    result = (*shape[:axis], parts, size // parts, *shape[axis + 1 :])
    return _resized(tensor, result, axis, [parts, size // parts])


def regrouped(tensor: Tensor, groups: int) -> Tensor:
    """View [N, C, ...] as [N, groups, elements]; all sizes but the groups' may be unknown."""
    sizes = [size for size in tensor.shape[1:] if isinstance(size, int)]
    count = math.prod(sizes) // groups if len(sizes) == tensor.rank - 1 else None
    return _resized(tensor, (tensor.shape[0], groups, count), 1, [groups, -1])


def join(tensor: Tensor, axis: int) -> Tensor:
    """Make one axis of an axis and the next; all other sizes stay, known or not."""
    shape = tensor.shape
    pair = shape[axis], shape[axis + 1]
    size = pair[0] * pair[1] if isinstance(pair[0], int) and isinstance(pair[1], int) else None
    return _resized(tensor, (*shape[:axis], size, *shape[axis + 2 :]), axis, [-1])


def _resized(tensor: Tensor, shape: Sequence[Dim], axis: int, middle: Sequence[int]) -> Tensor:
    """Reshape what lies at `axis` into `middle`; all other sizes stay, known or not."""
    count = len(shape) - axis - len(middle)
    # 0 copies a size in front; behind, the places have moved.
    front = [d if isinstance(d, int) else 0 for d in shape[:axis]]
    behind = [
        d if isinstance(d, int) else size(tensor, tensor.rank - count + i)
        for i, d in enumerate(shape[len(shape) - count :])
    ]
    target = tensor.emitter.vector([*front, *middle, *behind])
    return tensor.emitter.node(
        "Reshape", tensor, target, shape=shape, dtype=tensor.dtype, sign=tensor.sign
    )


def expand(tensor: Tensor, like: Tensor) -> Tensor:
    """Repeat along axes of size 1 up to the shape of `like`."""
    if tensor.is_zero or tensor.shape == like.shape:
        return tensor
    return tensor.emitter.node(
        "Expand",
        tensor,
        sizes(like),
        shape=like.shape,
        dtype=tensor.dtype,
        sign=tensor.sign,
    )


def repeated(tensor: Tensor, counts: Tensor) -> Tensor:
    """Repeat along axes of size 1 up to sizes that are only known when it runs."""
    return tensor.emitter.node(
        "Expand", tensor, counts, shape=tensor.shape, dtype=tensor.dtype, sign=tensor.sign
    )


def alongside(tensor: Tensor, relevance: Tensor) -> Tensor:
    """Repeat a value of one sample for as many rows as relevance has."""
    rows = size(relevance, 0)
    if isinstance(rows, int) or isinstance(tensor.shape[0], int):
        return tensor
    return repeated(tensor, tensor.emitter.vector([rows, *(1,) * (tensor.rank - 1)]))


def filled(like: Tensor, value: float | Sequence[float], axis: int | None = None) -> Tensor:
    """One sample of the shape of `like` that holds a number, or one per channel, throughout.

    It is a constant wherever the sizes of a sample are known. Channels lie along `axis`: 1, or the
    last of a matrix, if None.
    """
    array = np.asarray(value, like.dtype.numpy())
    if array.ndim:
        along = 1 if axis is None and like.rank > 2 else -1 if axis is None else axis
        array = array.reshape(-1, *(1,) * (like.rank - 1 - along % like.rank))
    low = bool((array >= 0).all())
    constant = like.emitter.constant(array, Sign.NON_NEGATIVE if low else Sign.UNKNOWN)
    shape = (1, *like.shape[1:])
    if all(isinstance(size, int) for size in shape):
        target = like.emitter.vector([size for size in shape if isinstance(size, int)])
    else:
        target = sizes(slice(like, [0], [1], [0]))
    return like.emitter.node(
        "Expand", constant, target, shape=shape, dtype=like.dtype, sign=constant.sign
    )


def slice(
    tensor: Tensor,
    starts: Sequence[int | Tensor],
    ends: Sequence[int | Tensor],
    axes: Sequence[int],
    steps: Sequence[int] | None = None,
    sizes: Sequence[Dim] | None = None,
) -> Tensor:
    """Cut along some axes; `sizes` are the resulting ones (computed for known bounds)."""
    shape = list(tensor.shape)
    for position, axis in enumerate(axes):
        start, end = starts[position], ends[position]
        step = 1 if steps is None else steps[position]
        if sizes is not None:
            shape[axis] = sizes[position]
            continue
        known, shape[axis] = shape[axis], None
        if isinstance(start, int) and isinstance(end, int) and isinstance(known, int):
            shape[axis] = len(range(*builtins.slice(start, end, step).indices(known)))
    operands = [
        tensor.emitter.vector(starts),
        tensor.emitter.vector(ends),
        tensor.emitter.vector(axes),
    ]
    if steps is not None:
        operands.append(tensor.emitter.vector(steps))
    return tensor.emitter.node(
        "Slice", tensor, *operands, shape=shape, dtype=tensor.dtype, sign=tensor.sign
    )


def pad(
    tensor: Tensor,
    begins: Sequence[int | Tensor],
    ends: Sequence[int | Tensor],
    shape: Sequence[Dim],
    fill: float = 0.0,
) -> Tensor:
    """Pad every axis (negative: cut) to the given shape."""
    if tensor.is_zero or all(isinstance(p, int) and p == 0 for p in [*begins, *ends]):
        return tensor
    sign = tensor.sign if fill == 0 else Sign.UNKNOWN
    operands = [tensor.emitter.vector([*begins, *ends])]
    if fill:
        operands.append(tensor.emitter.scalar(fill, tensor))
    return tensor.emitter.node(
        "Pad", tensor, *operands, shape=shape, dtype=tensor.dtype, sign=sign, mode="constant"
    )


def moved(tensor: Tensor, axis: int, by: int, length: int | Tensor, fill: float = 0.0) -> Tensor:
    """Move along an axis, and cut or pad to a length: element i is what was element i - by."""
    begins: list[int | Tensor] = [0] * tensor.rank
    ends: list[int | Tensor] = [0] * tensor.rank
    begins[axis], ends[axis] = by, length - (size(tensor, axis) + by)
    known = length if isinstance(length, int) else None
    shape = [known if place == axis else d for place, d in enumerate(tensor.shape)]
    return pad(tensor, begins, ends, shape, fill)


def transpose(tensor: Tensor, order: Sequence[int]) -> Tensor:
    """Permute the axes."""
    if tensor.is_zero or list(order) == list(range(len(order))):
        return tensor
    shape = [tensor.shape[axis] for axis in order]
    return tensor.emitter.node(
        "Transpose",
        tensor,
        shape=shape,
        dtype=tensor.dtype,
        sign=tensor.sign,
        perm=list(order),
    )


def reduce_sum(tensor: Tensor, axes: Sequence[int], keepdims: bool = True) -> Tensor:
    """Sum over axes."""
    if tensor.is_zero or not axes:
        return tensor
    chosen = {axis % tensor.rank for axis in axes}
    shape = [1 if i in chosen else d for i, d in enumerate(tensor.shape)]
    if not keepdims:
        shape = [d for i, d in enumerate(tensor.shape) if i not in chosen]
    return tensor.emitter.node(
        "ReduceSum",
        tensor,
        tensor.emitter.vector(sorted(chosen)),
        shape=shape,
        dtype=tensor.dtype,
        sign=tensor.sign,
        keepdims=int(keepdims),
    )
