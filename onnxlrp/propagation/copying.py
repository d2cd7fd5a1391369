"""Operators that choose and copy elements: relevance goes back to what was chosen, added up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxlrp.graph.canonical import Array, Operation, constant_of
from onnxlrp.propagation import layout
from onnxlrp.propagation.expression import Sign, Tensor
from onnxlrp.propagation.registry import (
    Crossing,
    Relevance,
    fail,
    live_inputs,
    only_first_live,
    operator,
    require_constant,
    static_shape,
)
from onnxlrp.propagation.structural import place
from onnxlrp.propagation.sums import reduced_to

Result = Sequence[tuple[ir.Value, Relevance]]


def _check_gather(operation: Operation, live: frozenset[int]) -> None:
    for value in (*operation.inputs[:2], operation.outputs[0]):
        assert value is not None
        static_shape(value)
    table = operation.inputs[0]
    if id(table) not in live:
        require_constant(operation, 0, "table")
        if operation.attributes.get("axis", 0) != 0:
            fail("it looks tokens up along an inner axis", "look them up along axis 0")
        return
    require_constant(operation, 1, "list of indices")
    assert table is not None
    assert table.shape is not None
    axis = int(operation.attributes.get("axis", 0)) % len(table.shape)
    if not isinstance(table.shape[axis], int):
        fail(f"it chooses along axis {axis}, whose size is symbolic", "export it as a number")


@operator("Gather", check=_check_gather)
def gather(crossing: Crossing) -> Result:
    """An element gets what its copies got; a token what its row of the table got."""
    table, indices = crossing.operation.inputs[:2]
    assert table is not None
    assert indices is not None
    relevance, grounded = crossing.incoming.tensor, crossing.incoming.grounded
    if id(table) not in crossing.live:
        assert indices.shape is not None
        row = range(len(indices.shape), relevance.rank)
        summed = layout.reduce_sum(relevance, list(row), keepdims=False)
        return [(indices, Relevance(summed, False))]
    x = crossing.tensor(table)
    axis = int(crossing.attribute("axis", 0)) % x.rank
    size, chosen = x.shape[axis], constant_of(indices)
    assert isinstance(size, int)
    assert chosen is not None
    back = _chosen(relevance, x, axis, chosen.astype(np.int64) % size)
    return [(table, Relevance(back, grounded))]


def _chosen(relevance: Tensor, x: Tensor, axis: int, chosen: Array) -> Tensor:
    """Put relevance back where an axis was chosen from, adding up what was chosen often."""
    emitter, size = relevance.emitter, x.shape[axis]
    assert isinstance(size, int)
    if chosen.ndim == 0:
        relevance = layout.unsqueeze(relevance, [axis])
    for _ in range(chosen.ndim - 1):
        relevance = layout.join(relevance, axis)
    indices = chosen.reshape(-1)
    steps = np.diff(indices)
    if len(steps) == 0 or (steps[0] > 0 and (steps == steps[0]).all()):
        step = int(steps[0]) if len(steps) else 1
        start = int(indices[0])
        return place(relevance, axis, range(start, start + step * len(indices), step), size)
    # No scatter: a product with which element was chosen where runs on every device.
    copies = emitter.constant(np.eye(size, dtype=x.dtype.numpy())[indices], Sign.NON_NEGATIVE)
    last = [a for a in range(x.rank) if a != axis] + [axis]
    moved = layout.transpose(relevance, last)
    spread = emitter.node(
        "MatMul",
        moved,
        copies,
        shape=(*moved.shape[:-1], size),
        dtype=x.dtype,
        sign=relevance.sign,
    )
    return layout.transpose(spread, [int(a) for a in np.argsort(last)])


def _check_where(operation: Operation, live: frozenset[int]) -> None:
    for value in (*operation.inputs, operation.outputs[0]):
        assert value is not None
        static_shape(value)


def _branches(operation: Operation, live: frozenset[int], rule: str) -> Sequence[ir.Value]:
    return [value for value in operation.inputs[1:] if value is not None and id(value) in live]


@operator("Where", check=_check_where, receivers=_branches)
def where(crossing: Crossing) -> Result:
    """Relevance goes to the branch that was taken, none to the condition."""
    condition, *branches = crossing.operation.inputs
    assert condition is not None
    emitter, incoming = crossing.emitter, crossing.incoming
    taken, nothing = Tensor(emitter, condition), emitter.scalar(0.0, incoming.tensor)
    result = []
    for position, value in enumerate(branches):
        if value is None or id(value) not in crossing.live:
            continue
        pair = (incoming.tensor, nothing) if position == 0 else (nothing, incoming.tensor)
        part = emitter.where(taken, *pair, incoming.tensor.sign)
        back = reduced_to(part, crossing.tensor(value))
        result.append((value, Relevance(back, incoming.grounded)))
    return result


def _check_copies(operation: Operation, live: frozenset[int]) -> None:
    only_first_live(operation, live)
    for value in (*live_inputs(operation, live), operation.outputs[0]):
        static_shape(value)


@operator("Expand", check=_check_copies)
def expand(crossing: Crossing) -> Result:
    """Add up the relevance of the copies."""
    (value,) = crossing.live_inputs
    back = reduced_to(crossing.incoming.tensor, crossing.tensor(value))
    return [(value, Relevance(back, crossing.incoming.grounded))]


def _check_tile(operation: Operation, live: frozenset[int]) -> None:
    _check_copies(operation, live)
    require_constant(operation, 1, "number of repeats")
    repeats, value = constant_of(operation.input(1)), operation.inputs[0]
    assert repeats is not None
    assert value is not None
    assert value.shape is not None
    for axis, (count, size) in enumerate(zip(repeats, value.shape, strict=True)):
        if count != 1 and not isinstance(size, int):
            fail(f"it repeats axis {axis}, whose size is symbolic", "export it as a number")


@operator("Tile", check=_check_tile)
def tile(crossing: Crossing) -> Result:
    """Add up the relevance of the repeats."""
    (value,) = crossing.live_inputs
    relevance, repeats = crossing.incoming.tensor, constant_of(crossing.operation.input(1))
    assert repeats is not None
    for axis, count in enumerate(repeats):
        if count != 1:
            relevance = layout.split(relevance, axis, int(count))
            relevance = layout.reduce_sum(relevance, [axis], keepdims=False)
    return [(value, Relevance(relevance, crossing.incoming.grounded))]
