"""Operators that only move elements: relevance goes back to where they came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxlrp.graph.canonical import Operation, constant_of
from onnxlrp.graph.shapes import Dim, dims_of
from onnxlrp.propagation import layout
from onnxlrp.propagation.axes import unpadded
from onnxlrp.propagation.expression import Sign, Tensor
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


@operator("DepthToSpace", "SpaceToDepth", check=_check_shapes)
def rearrange(crossing: Crossing) -> Result:
    """Undo one with the other, and the order in which CRD takes the channels."""
    value = _data(crossing)
    x, relevance = crossing.tensor(value), crossing.incoming.tensor
    inverse = {"DepthToSpace": "SpaceToDepth", "SpaceToDepth": "DepthToSpace"}
    block = int(crossing.operation.attributes["blocksize"])
    result = crossing.emitter.node(
        inverse[crossing.operation.operator],
        relevance,
        shape=x.shape,
        dtype=x.dtype,
        sign=relevance.sign,
        blocksize=block,
    )
    if crossing.operation.attributes.get("mode", "DCR") == "CRD":
        apart = layout.split(result, 1, block * block)
        result = layout.join(layout.transpose(apart, [0, 2, 1, 3, 4]), 1)
    return [(value, Relevance(result, crossing.incoming.grounded))]


@operator("ReverseSequence", "Trilu", check=_check_shapes)
def itself(crossing: Crossing) -> Result:
    """Undo it by doing it again."""
    value, relevance = _data(crossing), crossing.incoming.tensor
    others = [
        None if other is None else Tensor(crossing.emitter, other)
        for other in crossing.operation.inputs[1:]
    ]
    result = crossing.emitter.node(
        crossing.operation.operator,
        relevance,
        *others,
        shape=relevance.shape,
        dtype=relevance.dtype,
        sign=relevance.sign,
        **crossing.operation.attributes,
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
            parts.append(layout.alongside(layout.expand(zero, part), known[0].tensor))
        else:
            parts.append(incoming.tensor)
    x = crossing.tensor(value)
    axis = int(crossing.attribute("axis", 0)) % x.rank
    result = emitter.concat(parts, axis, x.shape)
    return [(value, Relevance(result, all(incoming.grounded for incoming in known)))]


@dataclass(frozen=True)
class Cut:
    """What a Slice takes of one axis; a start and end that are computed stand in the graph.

    Attributes
    ----------
    axis, step : of the cut
    start, end : numbers, or None where they are computed
    position : among the starts and ends

    """

    axis: int
    step: int
    start: int | None
    end: int | None
    position: int

    def kept(self, size: Dim) -> range | None:
        """Return the places that are kept of an axis; None where that is not known."""
        if self.start is None or self.end is None or not isinstance(size, int):
            return None
        return range(*slice(self.start, self.end, self.step).indices(size))

    @property
    def whole(self) -> bool:
        """Whether all of the axis is kept, however long it is."""
        return self.step == 1 and self.start == 0 and self.end is not None and self.end >= 1 << 30


def _check_slice(operation: Operation, live: frozenset[int]) -> None:
    _check_shapes(operation, live)
    for index, what in ((3, "axes"), (4, "steps")):
        require_constant(operation, index, what)
    value = operation.inputs[0]
    assert value is not None
    assert value.shape is not None
    sizes = dims_of(value.shape)
    for cut in _cuts(operation, len(sizes)):
        if cut.step < 1 and cut.kept(sizes[cut.axis]) is None:
            fail(
                f"it cuts axis {cut.axis} in steps of {cut.step}, with computed bounds or of a "
                "symbolic size",
                "export that size as a number",
            )


def _cuts(operation: Operation, rank: int) -> list[Cut]:
    """What a Slice takes of every axis that it cuts."""
    starts, ends, axes, steps = (constant_of(operation.input(i)) for i in range(1, 5))
    given = operation.inputs[1]
    known = next((len(bounds) for bounds in (axes, starts, ends) if bounds is not None), None)
    if known is None:
        if given is None or given.shape is None or not isinstance(given.shape[0], int):
            fail("the number of axes that it cuts is not known", "export it with constant axes")
        known = int(given.shape[0])
    chosen = range(known) if axes is None else [int(axis) % rank for axis in axes]
    return [
        Cut(
            axis,
            1 if steps is None else int(steps[i]),
            None if starts is None else int(starts[i]),
            None if ends is None else int(ends[i]),
            i,
        )
        for i, axis in enumerate(chosen)
    ]


@operator("Slice", check=_check_slice)
def slice_(crossing: Crossing) -> Result:
    """Put relevance back where it was cut from; the rest gets none."""
    value = _data(crossing)
    x, relevance = crossing.tensor(value), crossing.incoming.tensor
    for cut in _cuts(crossing.operation, x.rank):
        size, kept = x.shape[cut.axis], cut.kept(x.shape[cut.axis])
        if cut.whole:
            continue
        if kept is not None and isinstance(size, int):
            relevance = place(relevance, cut.axis, kept, size)
        else:
            relevance = _put_back(relevance, x, cut, crossing.tensor(crossing.operation.inputs[1]))
    return [(value, Relevance(relevance, crossing.incoming.grounded))]


def _put_back(relevance: Tensor, x: Tensor, cut: Cut, starts: Tensor) -> Tensor:
    """Space out a cut from front to back, and pad it by what its bounds come to, once computed."""
    emitter = x.emitter
    relevance = _spaced(relevance, cut.axis, cut.step)
    size, length = layout.size(x, cut.axis), layout.size(relevance, cut.axis)
    long = emitter.vector([size])
    nothing = emitter.constant(np.zeros(1, np.int64))
    start = layout.slice(starts, [cut.position], [cut.position + 1], [0])
    behind = emitter.where(
        emitter.compare("Less", start, nothing), start + long, start, Sign.UNKNOWN
    )
    below = emitter.where(emitter.compare("Less", behind, nothing), nothing, behind, Sign.UNKNOWN)
    begin = emitter.where(emitter.compare("Less", long, below), long, below, Sign.UNKNOWN)
    begins: list[int | Tensor] = [0] * x.rank
    ends: list[int | Tensor] = [0] * x.rank
    begins[cut.axis] = begin
    ends[cut.axis] = long - (begin + emitter.vector([length]))
    shape = (*relevance.shape[: cut.axis], x.shape[cut.axis], *relevance.shape[cut.axis + 1 :])
    return layout.pad(relevance, begins, ends, shape)


def place(tensor: Tensor, axis: int, kept: range, size: int) -> Tensor:
    """Scatter along one axis to the positions of a range, with zeros between."""
    if kept.step < 0:
        tensor = layout.slice(tensor, [-1], [layout.BEFORE_ALL], [axis], [-1])
        kept = kept[::-1]
    tensor = _spaced(tensor, axis, kept.step)
    covered = len(kept) * kept.step
    begins, ends = [0] * tensor.rank, [0] * tensor.rank
    begins[axis] = kept.start
    ends[axis] = size - kept.start - covered
    shape = (*tensor.shape[:axis], size, *tensor.shape[axis + 1 :])
    return layout.pad(tensor, begins, ends, shape)


def _spaced(tensor: Tensor, axis: int, step: int) -> Tensor:
    """Put zeros behind each element along an axis, so that there are `step` for one."""
    if step == 1:
        return tensor
    column = layout.unsqueeze(tensor, [axis + 1])
    ends = [0] * column.rank
    ends[axis + 1] = step - 1
    wide = (*column.shape[: axis + 1], step, *column.shape[axis + 2 :])
    return layout.join(layout.pad(column, [0] * column.rank, ends, wide), axis)


def _check_pad(operation: Operation, live: frozenset[int]) -> None:
    _check_shapes(operation, live)
    require_constant(operation, 3, "axes")
    if constant_of(operation.input(1)) is None and operation.input(3) is not None:
        fail("its pads are computed for some axes only", "export them as constants")
    if operation.attributes.get("mode", "constant") != "constant":
        static_shape(operation.outputs[0])


@operator("Pad", check=_check_pad)
def pad(crossing: Crossing) -> Result:
    """Cut the padding off, what a constant other than 0 earned with it; add up what it repeats."""
    value = _data(crossing)
    if crossing.operation.attributes.get("mode", "constant") != "constant":
        result = unpadded(crossing, crossing.incoming.tensor)
        return [(value, Relevance(result, crossing.incoming.grounded))]
    x, relevance = crossing.tensor(value), crossing.incoming.tensor
    amounts, axes = (constant_of(crossing.operation.input(i)) for i in (1, 3))
    if amounts is None:
        back = -crossing.input(1)
        result = crossing.emitter.node(
            "Pad", relevance, back, shape=x.shape, dtype=relevance.dtype, mode="constant"
        )
        return [(value, Relevance(result, crossing.incoming.grounded))]
    chosen = range(x.rank) if axes is None else [int(axis) % x.rank for axis in axes]
    begins, ends = [0] * x.rank, [0] * x.rank
    for position, axis in enumerate(chosen):
        begins[axis] = -int(amounts[position])
        ends[axis] = -int(amounts[position + len(amounts) // 2])
    result = layout.pad(relevance, begins, ends, x.shape)
    return [(value, Relevance(result, crossing.incoming.grounded))]
