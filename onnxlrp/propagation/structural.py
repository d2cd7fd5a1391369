"""Operators that only move elements: relevance goes back to where they came from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxlrp.graph.canonical import Operation, constant_of
from onnxlrp.graph.shapes import dims_of
from onnxlrp.propagation import layout
from onnxlrp.propagation.expression import Tensor
from onnxlrp.propagation.registry import (
    Crossing,
    Relevance,
    fail,
    only_first_live,
    operator,
    require_constant,
    static_shape,
)

Result = Sequence[tuple[ir.Value, Relevance]]


def _data(crossing: Crossing) -> ir.Value:
    value = crossing.operation.inputs[0]
    assert value is not None
    return value


def _check_shapes(operation: Operation, live: frozenset[int]) -> None:
    only_first_live(operation, live)
    value = operation.inputs[0]
    assert value is not None
    static_shape(value)


@operator("Reshape", "Flatten", "Squeeze", "Unsqueeze", check=_check_shapes)
def reshape(crossing: Crossing) -> Result:
    """Give relevance the input's shape."""
    value = _data(crossing)
    x = crossing.tensor(value)
    result = layout.reshape(crossing.incoming.tensor, x.shape, like=x)
    return [(value, Relevance(result, crossing.incoming.grounded))]


@operator("Transpose", check=_check_shapes)
def transpose(crossing: Crossing) -> Result:
    """Permute the axes back."""
    value = _data(crossing)
    rank = crossing.tensor(value).rank
    order = crossing.operation.attributes.get("perm") or list(reversed(range(rank)))
    back = [int(axis) for axis in np.argsort(order)]
    result = layout.transpose(crossing.incoming.tensor, back)
    return [(value, Relevance(result, crossing.incoming.grounded))]


def _check_depth_to_space(operation: Operation, live: frozenset[int]) -> None:
    _check_shapes(operation, live)
    mode = operation.attributes.get("mode", "DCR")
    if mode != "DCR":
        fail(f"mode {mode!r} is not supported", "only DCR is")


@operator("DepthToSpace", "SpaceToDepth", check=_check_depth_to_space)
def rearrange(crossing: Crossing) -> Result:
    """Undo one with the other."""
    value = _data(crossing)
    x = crossing.tensor(value)
    inverse = {"DepthToSpace": "SpaceToDepth", "SpaceToDepth": "DepthToSpace"}
    result = crossing.emitter.node(
        inverse[crossing.operation.operator],
        crossing.incoming.tensor,
        shape=x.shape,
        dtype=x.dtype,
        blocksize=crossing.operation.attributes["blocksize"],
    )
    return [(value, Relevance(result, crossing.incoming.grounded))]


def _check_concat(operation: Operation, live: frozenset[int]) -> None:
    for value in operation.inputs:
        assert value is not None
        static_shape(value)


@operator("Concat", check=_check_concat)
def concat(crossing: Crossing) -> Result:
    """Cut relevance into the operands' parts."""
    operation, emitter = crossing.operation, crossing.emitter
    relevance = crossing.incoming.tensor
    operands = [crossing.tensor(value) for value in operation.inputs]
    axis = int(operation.attributes["axis"]) % relevance.rank
    parts = emitter.nodes_of(
        "Split",
        [relevance, emitter.vector([layout.size(part, axis) for part in operands])],
        [part.shape for part in operands],
        relevance.dtype,
        relevance.sign,
        {"axis": axis},
    )
    grounded = crossing.incoming.grounded
    return [
        (value, Relevance(part, grounded))
        for value, part in zip(operation.inputs, parts, strict=True)
        if value is not None and id(value) in crossing.live
    ]


@operator("Split", check=_check_shapes)
def split(crossing: Crossing) -> Result:
    """Join the parts' relevance; a part that nobody used gets none."""
    value = _data(crossing)
    emitter = crossing.emitter
    known = [incoming for incoming in crossing.relevance if incoming is not None]
    parts: list[Tensor] = []
    for incoming, output in zip(crossing.relevance, crossing.operation.outputs, strict=True):
        if incoming is None or incoming.tensor.is_zero:
            part = crossing.tensor(output)
            zero = emitter.scalar(0.0, known[0].tensor)
            parts.append(layout.expand(zero, part))
        else:
            parts.append(incoming.tensor)
    x = crossing.tensor(value)
    axis = int(crossing.attribute("axis", 0)) % x.rank
    result = emitter.node("Concat", *parts, shape=x.shape, dtype=parts[0].dtype, axis=axis)
    return [(value, Relevance(result, all(incoming.grounded for incoming in known)))]


def _check_slice(operation: Operation, live: frozenset[int]) -> None:
    _check_shapes(operation, live)
    for index, what in enumerate(("starts", "ends", "axes", "steps"), 1):
        require_constant(operation, index, what)
    value = operation.inputs[0]
    assert value is not None
    assert value.shape is not None
    sizes = dims_of(value.shape)
    for axis, start, end, step in _bounds(operation, len(sizes)):
        whole = start == 0 and end >= 1 << 30 and step == 1
        if not whole and not isinstance(sizes[axis], int):
            fail(f"it cuts axis {axis}, whose size is symbolic", "export that size as a number")


def _bounds(operation: Operation, rank: int) -> list[tuple[int, int, int, int]]:
    """(axis, start, end, step) of every axis that a Slice cuts."""
    starts, ends, axes, steps = (constant_of(operation.input(i)) for i in range(1, 5))
    assert starts is not None
    assert ends is not None
    count = len(starts)
    chosen = range(count) if axes is None else [int(axis) % rank for axis in axes]
    by = [1] * count if steps is None else [int(step) for step in steps]
    return [(axis, int(starts[i]), int(ends[i]), by[i]) for i, axis in enumerate(chosen)]


@operator("Slice", check=_check_slice)
def slice_(crossing: Crossing) -> Result:
    """Put relevance back where it was cut from; the rest gets none."""
    value = _data(crossing)
    x, relevance = crossing.tensor(value), crossing.incoming.tensor
    for axis, start, end, step in _bounds(crossing.operation, x.rank):
        size = x.shape[axis]
        if not isinstance(size, int):
            continue
        kept = range(*slice(start, end, step).indices(size))
        relevance = place(relevance, axis, kept, size)
    return [(value, Relevance(relevance, crossing.incoming.grounded))]


def place(tensor: Tensor, axis: int, kept: range, size: int) -> Tensor:
    """Scatter along one axis to the positions of a range, with zeros between."""
    if kept.step < 0:
        tensor = layout.slice(tensor, [-1], [-(1 << 62)], [axis], [-1])
        kept = kept[::-1]
    if kept.step > 1:
        column = layout.unsqueeze(tensor, [axis + 1])
        ends = [0] * column.rank
        ends[axis + 1] = kept.step - 1
        wide = (*column.shape[: axis + 1], kept.step, *column.shape[axis + 2 :])
        spaced = layout.pad(column, [0] * column.rank, ends, wide)
        tensor = layout.join(spaced, axis)
    covered = len(kept) * kept.step
    begins, ends = [0] * tensor.rank, [0] * tensor.rank
    begins[axis] = kept.start
    ends[axis] = size - kept.start - covered
    shape = (*tensor.shape[:axis], size, *tensor.shape[axis + 1 :])
    return layout.pad(tensor, begins, ends, shape)


def _check_pad(operation: Operation, live: frozenset[int]) -> None:
    _check_shapes(operation, live)
    require_constant(operation, 1, "pads")
    require_constant(operation, 3, "axes")
    mode = operation.attributes.get("mode", "constant")
    if mode != "constant":
        fail(f"mode '{mode}' repeats elements", "only constant padding is supported")


@operator("Pad", check=_check_pad)
def pad(crossing: Crossing) -> Result:
    """Cut the padding off; what a constant other than 0 earned is not handed on."""
    value = _data(crossing)
    x, relevance = crossing.tensor(value), crossing.incoming.tensor
    amounts, axes = (constant_of(crossing.operation.input(i)) for i in (1, 3))
    assert amounts is not None
    chosen = range(x.rank) if axes is None else [int(axis) % x.rank for axis in axes]
    begins, ends = [0] * x.rank, [0] * x.rank
    for position, axis in enumerate(chosen):
        begins[axis] = -int(amounts[position])
        ends[axis] = -int(amounts[position + len(amounts) // 2])
    result = layout.pad(relevance, begins, ends, x.shape)
    return [(value, Relevance(result, crossing.incoming.grounded))]
