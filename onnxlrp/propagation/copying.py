"""Operators that copy, choose and replace: relevance goes back to what was read, added up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxlrp.graph.canonical import Array, Operation, constant_of
from onnxlrp.graph.shapes import Dim
from onnxlrp.propagation import layout
from onnxlrp.propagation.axes import selection
from onnxlrp.propagation.expression import Operands, Sign, Tensor
from onnxlrp.propagation.formulas import Layer, UniformLayer
from onnxlrp.propagation.registry import (
    Crossing,
    Relevance,
    fail,
    layer,
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
    axis, chosen = int(crossing.attribute("axis", 0)) % x.rank, constant_of(indices)
    if chosen is None:
        back = _spread(relevance, x, axis, crossing.tensor(indices))
    else:
        back = _chosen(relevance, x, axis, chosen.astype(np.int64))
    return [(table, Relevance(back, grounded))]


def _check_copies(operation: Operation, live: frozenset[int]) -> None:
    only_first_live(operation, live)
    for value in (*live_inputs(operation, live), operation.outputs[0]):
        static_shape(value)


@operator("ai.onnx.ml::OneHotEncoder", rules={"gradient": {}}, check=_check_copies, default="")
def one_hot(crossing: Crossing) -> Result:
    """A category gets what its row got; a gradient there is none."""
    (value,), relevance = crossing.live_inputs, crossing.incoming.tensor
    if crossing.rule == "gradient" or relevance.is_zero:
        return [(value, Relevance(crossing.emitter.zero, True))]
    summed = layout.reduce_sum(relevance, [relevance.rank - 1], keepdims=False)
    if value.dtype is ir.DataType.DOUBLE:
        summed = layout.cast(summed, ir.DataType.DOUBLE, Sign.UNKNOWN)
    return [(value, Relevance(summed, False))]


def _chosen(relevance: Tensor, x: Tensor, axis: int, chosen: Array) -> Tensor:
    """Put relevance back where an axis was chosen from, adding up what was chosen often."""
    size = x.shape[axis]
    if chosen.ndim == 0 and not isinstance(size, int):
        return _single(layout.unsqueeze(relevance, [axis]), x, axis, int(chosen))
    if not isinstance(size, int):
        return _spread(relevance, x, axis, x.emitter.constant(chosen))
    indices = chosen.reshape(-1) % size
    steps = np.diff(indices)
    if len(steps) == 0 or (steps[0] > 0 and (steps == steps[0]).all()):
        step = int(steps[0]) if len(steps) else 1
        start = int(indices[0])
        kept = range(start, start + step * len(indices), step)
        return place(_in_a_row(relevance, axis, chosen.ndim), axis, kept, size)
    copies = np.eye(size, dtype=x.dtype.numpy())[indices]
    return _summed(relevance, x, axis, chosen.ndim, x.emitter.constant(copies, Sign.NON_NEGATIVE))


def _single(relevance: Tensor, x: Tensor, axis: int, place: int) -> Tensor:
    """Pad one element to an axis of symbolic size."""
    others = layout.size(x, axis) - (place + 1 if place >= 0 else -place)
    begins: list[int | Tensor] = [0] * x.rank
    ends: list[int | Tensor] = [0] * x.rank
    begins[axis], ends[axis] = (place, others) if place >= 0 else (others, -place - 1)
    return layout.pad(relevance, begins, ends, x.shape)


def _spread(relevance: Tensor, x: Tensor, axis: int, indices: Tensor) -> Tensor:
    """Put relevance back to places that are computed: a product with which element is which."""
    emitter, size = x.emitter, layout.size(x, axis)
    rank = indices.rank
    flat = layout.reshape(indices, (None,))
    places = _from_front(layout.cast(flat, ir.DataType.INT64, Sign.UNKNOWN), size)
    numbers = layout.cast(layout.count(emitter, size), x.dtype, Sign.NON_NEGATIVE)
    copies = selection(layout.cast(places, x.dtype, Sign.UNKNOWN), numbers)
    return _summed(relevance, x, axis, rank, copies)


def _from_front(indices: Tensor, size: int | Tensor) -> Tensor:
    """Count indices that are counted from the end from the front."""
    emitter = indices.emitter
    nothing = emitter.scalar(0, indices)
    below = emitter.compare("Less", indices, nothing)
    return emitter.where(below, indices + size, indices, Sign.UNKNOWN)


def _in_a_row(relevance: Tensor, axis: int, rank: int) -> Tensor:
    """Make one axis of those that indices of a rank chose in place of one."""
    if rank == 0:
        return layout.unsqueeze(relevance, [axis])
    for _ in range(rank - 1):
        relevance = layout.join(relevance, axis)
    return relevance


def _summed(relevance: Tensor, x: Tensor, axis: int, rank: int, copies: Tensor) -> Tensor:
    """Add up relevance by [chosen, size], 1 where an element was chosen.

    No scatter: a product runs on every device.
    """
    row = _in_a_row(relevance, axis, rank)
    last = [a for a in range(x.rank) if a != axis] + [axis]
    moved = layout.transpose(row, last)
    spread = x.emitter.node(
        "MatMul",
        moved,
        copies,
        shape=(*moved.shape[:-1], x.shape[axis]),
        dtype=x.dtype,
        sign=relevance.sign,
    )
    return layout.transpose(spread, [int(a) for a in np.argsort(last)])


def _check_read(operation: Operation, live: frozenset[int]) -> None:
    only_first_live(operation, live)
    for value in (*operation.inputs, *operation.outputs[:1]):
        if value is not None:
            static_shape(value)


def _scattered(x: Tensor, indices: Tensor, relevance: Tensor, operator: str, **axis: int) -> Tensor:
    """Add relevance up where indices of elements say, in the shape of x."""
    emitter = x.emitter
    zeros = layout.alongside(layout.expand(emitter.scalar(0.0, x), x), relevance)
    places = layout.alongside(layout.cast(indices, ir.DataType.INT64, Sign.UNKNOWN), relevance)
    return emitter.node(
        operator, zeros, places, relevance,
        shape=x.shape, dtype=x.dtype, sign=relevance.sign, reduction="add", **axis,
    )  # fmt: skip


@operator("GatherElements", check=_check_read)
def gather_elements(crossing: Crossing) -> Result:
    """An element gets what its copies got."""
    (value,), indices = crossing.live_inputs, crossing.input(1)
    x, axis = crossing.tensor(value), int(crossing.attribute("axis", 0))
    back = _scattered(x, indices, crossing.incoming.tensor, "ScatterElements", axis=axis)
    return [(value, Relevance(back, crossing.incoming.grounded))]


@operator("GatherND", check=_check_read)
def gather_parts(crossing: Crossing) -> Result:
    """A part of a tensor gets what its copies got."""
    (value,) = crossing.live_inputs
    relevance = crossing.incoming.tensor
    x, batch = crossing.tensor(value), int(crossing.attribute("batch_dims", 0))
    indices = layout.cast(crossing.input(1), ir.DataType.INT64, Sign.UNKNOWN)
    if batch:
        indices = layout.alongside(indices, relevance)
    # A scatter knows no batch: the places of its axes are written out.
    own = layout.slice(indices, [0], [1], [-1])
    for axis in reversed(range(batch)):
        row = layout.count(x.emitter, layout.size(relevance, axis))
        shape: list[Dim] = [1] * indices.rank
        shape[axis] = x.shape[axis]
        column = layout.reshape(row, shape)
        wide = layout.expand(column, own)
        indices = x.emitter.node(
            "Concat", wide, indices, axis=-1, dtype=indices.dtype,
            shape=(*indices.shape[:-1], int(indices.shape[-1] or 0) + 1),
        )  # fmt: skip
    back = _scattered(x, indices, relevance, "ScatterND")
    return [(value, Relevance(back, crossing.incoming.grounded))]


def _check_replaced(operation: Operation, live: frozenset[int]) -> None:
    for value in operation.inputs:
        assert value is not None
        static_shape(value)
    if operation.attributes.get("reduction", "none") != "none":
        fail("it computes with what it replaces", "only reduction 'none' and 'add' are supported")


@operator("ScatterElements", "ScatterND", check=_check_replaced)
def replaced(crossing: Crossing) -> Result:
    """What was put in gets the relevance of its places; what it replaced gets none."""
    operation, relevance = crossing.operation, crossing.incoming.tensor
    data, _, updates = operation.inputs
    emitter = crossing.emitter
    elements = operation.operator == "ScatterElements"
    axis = {"axis": int(crossing.attribute("axis", 0))} if elements else {}
    places, put, result = crossing.input(1), crossing.tensor(updates), []
    assert data is not None
    assert updates is not None
    nothing = layout.expand(emitter.scalar(0.0, relevance), put)
    if elements:
        places, nothing = (layout.alongside(part, relevance) for part in (places, nothing))
    if id(data) in crossing.live:
        kept = emitter.node(
            operation.operator, relevance, places, nothing,
            shape=relevance.shape, dtype=relevance.dtype, sign=relevance.sign, **axis,
        )  # fmt: skip
        result.append((data, Relevance(kept, crossing.incoming.grounded)))
    if id(updates) in crossing.live:
        taken = emitter.node(
            "GatherElements" if elements else "GatherND", relevance, places,
            shape=put.shape, dtype=relevance.dtype, sign=relevance.sign, **axis,
        )  # fmt: skip
        result.append((updates, Relevance(taken, crossing.incoming.grounded)))
    return result


@dataclass(frozen=True)
class Scattered(UniformLayer):
    """z = x, and updates added to it where indices say; one of both may be a constant.

    Attributes
    ----------
    elements : the indices are those of elements, not of parts
    axis : attribute of the operator, if it has one
    places : the indices
    parts : data and updates, for their shapes
    live : which of them depend on the explained input

    """

    elements: bool
    axis: Mapping[str, int]
    places: Tensor
    parts: tuple[Tensor, Tensor]
    live: tuple[bool, bool]
    bias: Tensor

    @property
    def operands(self) -> int:
        return sum(self.live)

    def forward(self, x: Operands) -> Tensor:
        data = x.parts[0] if self.live[0] else x.parts[0].emitter.zero
        added = x.parts[-1] if self.live[1] else x.parts[0].emitter.zero
        return self.put(data, added)

    def put(self, data: Tensor, added: Tensor) -> Tensor:
        """Add, of which either may be zero."""
        if added.is_zero:
            return data
        like = self.parts[0]
        if data.is_zero:
            data = layout.expand(like.emitter.scalar(0.0, like), like)
        return like.emitter.node(
            "ScatterElements" if self.elements else "ScatterND", data, self.places, added,
            shape=like.shape, dtype=like.dtype, sign=data.sign + added.sign, reduction="add",
            **self.axis,
        )  # fmt: skip

    def filled(self, x: Operands, value: float | Sequence[float]) -> Operands:
        # Indices are those of all samples.
        one = super().filled(x, value)
        return Operands(tuple(map(layout.expand, one.parts, x.parts)))

    def transpose(self, s: Tensor) -> Operands:
        places, like = self.places, self.parts[1]
        if self.elements:
            places = layout.alongside(places, s)
        back = s.emitter.node(
            "GatherElements" if self.elements else "GatherND", s, places,
            shape=like.shape, dtype=s.dtype, sign=s.sign, **self.axis,
        )  # fmt: skip
        both = zip((s, back), self.live, strict=True)
        return Operands(tuple(part for part, live in both if live))


def _check_added(operation: Operation, live: frozenset[int]) -> None:
    for value in operation.inputs:
        assert value is not None
        static_shape(value)


@layer("ScatterSum", check=_check_added, default="norm")
def added(crossing: Crossing) -> tuple[Layer, list[ir.Value]]:
    """Build the sum of what was there and all that is put to it; a constant is its bias."""
    data, places, updates = crossing.operation.inputs
    assert places is not None
    emitter, elements = crossing.emitter, crossing.operation.node.op_type == "ScatterElements"
    built = Scattered(
        elements,
        {"axis": int(crossing.attribute("axis", 0))} if elements else {},
        emitter.tensor(places),
        (crossing.tensor(data), crossing.tensor(updates)),
        (id(data) in crossing.live, id(updates) in crossing.live),
        emitter.zero,
    )
    constant, (x, u) = constant_of(data), built.parts
    if not built.live[0] and (constant is None or constant.any()):
        built = replace(built, bias=x)
    elif not built.live[1]:
        built = replace(built, bias=built.put(emitter.zero, u))
    inputs = zip((data, updates), built.live, strict=True)
    return built, [value for value, live in inputs if value is not None and live]


@operator("TopK", check=only_first_live)
def largest(crossing: Crossing) -> Result:
    """Relevance of the values goes to the elements that they are; none to their places."""
    operation, (value,) = crossing.operation, crossing.live_inputs
    x, axis = crossing.tensor(value), int(crossing.attribute("axis", -1))
    places = Tensor(crossing.emitter, operation.outputs[1])
    back = _scattered(x, places, crossing.incoming.tensor, "ScatterElements", axis=axis)
    return [(value, Relevance(back, crossing.incoming.grounded))]


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
