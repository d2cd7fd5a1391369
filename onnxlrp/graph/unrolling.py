"""Control flow written out: every step of a Loop or Scan, the branches of an If."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxlrp.graph.bodies import BODIES
from onnxlrp.graph.editing import WHY, Edit, RefusalError, subgraphs
from onnxlrp.graph.operators import operator_of
from onnxlrp.graph.score import FLOATS
from onnxlrp.graph.shapes import alike, dims_of

_FIXED = (
    "export the model for one length of its input, or fix it: "
    "`python -m onnxruntime.tools.make_dynamic_shape_fixed --help`"
)

_PICKY = {
    *("Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND", "Scatter"),
    *("Reshape", "Expand", "Tile", "Range", "ConstantOfShape", "Split", "TopK", "Pad", "Resize"),
    *("Compress", "ReverseSequence", "TensorScatter", "CenterCropPad", "Col2Im"),
}
"""Operators that refuse some of the whole numbers that they may be given."""


def loop(edit: Edit, node: ir.Node) -> None:
    """Write out the steps of a Loop, as long as it is known that it goes on.

    Raises
    ------
    RefusalError
        When it ends depends on more than constants, or it has too many steps.

    """
    (body,) = subgraphs(node)
    asked, condition = node.inputs[:2]
    trips = None if asked is None else edit.constant(asked)
    if asked is not None and trips is None:
        raise RefusalError("how many steps it takes is known only when it runs", _FIXED)
    count = None if trips is None else int(trips.reshape(-1)[0])
    goes_on = condition is None or _known(edit, condition)
    state: Sequence[ir.Value | None] = node.inputs[2:]
    slices: list[list[ir.Value]] = [[] for _ in body.outputs[1 + len(state) :]]
    step = 0
    while goes_on and (count is None or step < count):
        given = [_number(edit, body, step), edit.number(np.array(True)), *state]
        after, *made = edit.copy(node, body, given, f"{node.name}/{step}")
        state, new = made[: len(state)], made[len(state) :]
        for collected, value in zip(slices, new, strict=True):
            collected.append(value)
        step += 1
        goes_on = step == count or _known(edit, after)
    stacked = zip(node.outputs[len(state) :], slices, body.outputs[1 + len(state) :], strict=True)
    edit.replace(node, [*state, *(_stacked(edit, node, *each, 0) for each in stacked)])


def _number(edit: Edit, body: ir.Graph, step: int) -> ir.Value | None:
    """Return the number of a step, in the form that the body declares, as onnxruntime does."""
    (value, *_) = body.inputs
    if not value.uses() and not value.is_graph_output():
        return None
    scalar = value.shape is None or not len(value.shape)
    return edit.number(np.array(step if scalar else [step], np.int64))


def _known(edit: Edit, condition: ir.Value) -> bool:
    found = edit.constant(condition)
    if found is None:
        raise RefusalError(
            "when it ends depends on what it computes",
            "export the model with a fixed number of steps, or without the loop",
        )
    return bool(found.reshape(-1)[0])


def scan(edit: Edit, node: ir.Node) -> None:
    """Write out the steps of a Scan.

    Raises
    ------
    RefusalError
        How long the axis is that it goes along is not known, or it is too long.

    """
    (body,) = subgraphs(node)
    read = {name: a.value for name, a in node.attributes.items() if name != "body"}
    count = int(read["num_scan_inputs"])
    states = len(node.inputs) - count
    outputs = len(body.outputs) - states
    sources = node.inputs[states:]
    axes = read.get("scan_input_axes") or [0] * count
    backwards = read.get("scan_input_directions") or [0] * count
    made_axes = read.get("scan_output_axes") or [0] * outputs
    made_backwards = read.get("scan_output_directions") or [0] * outputs
    lengths = {_length(value, axis) for value, axis in zip(sources, axes, strict=True)} - {None}
    if len(lengths) != 1:
        raise RefusalError("how long the axis is that it goes along is not known", _FIXED)
    steps = lengths.pop()
    assert steps is not None
    edit.check(steps * len(body))
    given = []
    for index, (value, axis, backward) in enumerate(zip(sources, axes, backwards, strict=True)):
        assert value is not None
        assert value.shape is not None
        stem = f"{node.name}/input{index}"
        axis %= len(value.shape)
        parts = [
            edit.squeezed(node, part, axis, f"{stem}/{step}")
            for step, part in enumerate(edit.pieces(node, value, axis, steps, stem))
        ]
        given.append(parts[::-1] if backward else parts)
    state: Sequence[ir.Value | None] = node.inputs[:states]
    slices: list[list[ir.Value]] = [[] for _ in range(outputs)]
    for step in range(steps):
        parts = [each[step] for each in given]
        made = edit.copy(node, body, [*state, *parts], f"{node.name}/{step}")
        state, new = made[:states], made[states:]
        for collected, value in zip(slices, new, strict=True):
            collected.append(value)
    stacked = [
        _stacked(edit, node, output, each[::-1] if backward else each, inner, axis)
        for output, each, inner, axis, backward in zip(
            node.outputs[states:],
            slices,
            body.outputs[states:],
            made_axes,
            made_backwards,
            strict=True,
        )
    ]
    edit.replace(node, [*state, *stacked])


def _length(value: ir.Value | None, axis: int) -> int | None:
    if value is None or value.shape is None:
        return None
    size = dims_of(value.shape)[axis]
    return size if isinstance(size, int) else None


def _stacked(
    edit: Edit, node: ir.Node, output: ir.Value, slices: list[ir.Value], inner: ir.Value, axis: int
) -> ir.Value | None:
    """Return what the steps have made of an output, one behind the other; None if nobody reads."""
    if not edit.needed(output):
        return None
    if slices:
        return edit.joined(node, slices, axis, True, f"{node.name}/{output.name}")
    sizes = None if inner.shape is None else dims_of(inner.shape)
    if sizes is None or inner.dtype is None or not all(isinstance(size, int) for size in sizes):
        raise RefusalError("it takes no step, and of what size nothing is, is not known", _FIXED)
    return edit.number(np.zeros((0, *sizes), inner.dtype.numpy()))


def branch(edit: Edit, node: ir.Node) -> None:
    """Put the branch of an If in its place, or both, and what the condition chooses of them.

    Both are run then, so each must be one that may be; that which is not taken gets no relevance.

    Raises
    ------
    RefusalError
        The condition is known only when the model runs, and the branches differ in the sizes of
        what they make, or one may fail where the other is chosen.

    """
    condition = node.inputs[0]
    bodies = [node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]
    known = edit.constant(condition)
    if known is not None:
        chosen = bodies[0] if known.reshape(-1)[0] else bodies[1]
        edit.replace(node, edit.copy(node, chosen, [], node.name or ""))
        return
    for body in bodies:
        for inner in body:
            _check_runs(edit, inner)
    for output, *made in zip(node.outputs, *(body.outputs for body in bodies), strict=True):
        if edit.needed(output):
            _check_alike(output, *made)
    scalar = edit.number(np.zeros(0, np.int64))
    boolean = ir.TensorType(ir.DataType.BOOL)
    stem = f"{node.name}/condition"
    (one,) = edit.make(node, "Reshape", [condition, scalar], stem, like=boolean)
    each = []
    for name, body in zip(("then", "else"), bodies, strict=True):
        stem = f"{node.name}/{name}"
        each.append(edit.copy(node, body, [], stem, _guarded(edit, node, body, one, stem)))
    edit.replace(
        node,
        [
            edit.make(node, "Where", [one, *pair], f"{node.name}/{index}", like=pair[0].type)[0]
            if edit.needed(output)
            else None
            for index, (output, *pair) in enumerate(zip(node.outputs, *each, strict=True))
        ],
    )


def _guarded(
    edit: Edit, node: ir.Node, body: ir.Graph, condition: ir.Value, stem: str
) -> dict[ir.Value, ir.Value]:
    """Let a branch read 0 where the other is taken.

    Nothing of it reaches what it reads then: not even where it divides by 0.
    """
    inside = {value for inner in body for value in inner.outputs}
    read = dict.fromkeys(value for inner in body for value in inner.inputs if value is not None)
    found = {}
    for value in read:
        if value in inside or value.dtype not in FLOATS or not edit.varies(value):
            continue
        assert value.dtype is not None
        zero = edit.number(np.zeros((), value.dtype.numpy()))
        pair = [value, zero] if stem.endswith("/then") else [zero, value]
        at = f"{stem}/{value.name}"
        (found[value],) = edit.make(node, "Where", [condition, *pair], at, like=value.type)
    return found


_DEPENDS = "its condition is known only when the model runs"


def _check_alike(output: ir.Value, left: ir.Value, right: ir.Value) -> None:
    """Check that a branch makes a tensor of the sizes of the other's."""
    if not all(isinstance(value.type, ir.TensorType) for value in (left, right)):
        raise RefusalError(f"{_DEPENDS}, and '{output.name}' is no tensor", _FIXED)
    shapes = [None if value.shape is None else dims_of(value.shape) for value in (left, right)]
    first, second = shapes
    if first is None or second is None or not alike(first, second):
        raise RefusalError(
            f"{_DEPENDS}, and its branches give '{output.name}' other sizes: "
            f"{' or '.join(map(_written, shapes))}",
            "export the model for one size of its input, for which it takes one branch",
        )


def _written(shape: Sequence[int | str | None] | None) -> str:
    sizes = ["?" if size is None else str(size) for size in shape or ()]
    return "unknown ones" if shape is None else f"[{', '.join(sizes)}]"


def _check_runs(edit: Edit, node: ir.Node) -> None:
    """Check that a node of a branch does not fail where the other branch is chosen."""
    operator = operator_of(node)
    if WHY in node.metadata_props:
        reason, advice = json.loads(node.metadata_props[WHY])
        raise RefusalError(
            f"{_DEPENDS}, and of {operator} '{node.name}' in a branch: {reason}", advice
        )
    moved = node.inputs[1:] if operator in _PICKY else ()
    dtype = node.outputs[0].dtype
    if operator in ("Div", "Mod") and dtype is not None and dtype.is_integer():
        moved = node.inputs[1:]
    left = [value for value in moved if value is not None and edit.constant(value) is None]
    dropped = operator == "Squeeze" and not _drops_ones(edit, node)
    own = node.domain in ("", "ai.onnx") or operator in BODIES
    if left or dropped or not own or subgraphs(node):
        raise RefusalError(
            f"{_DEPENDS}, and {operator} '{node.name}' in a branch may fail where the other is "
            "chosen",
            "export the model for one case, in which it takes one branch",
        )


def _drops_ones(edit: Edit, node: ir.Node) -> bool:
    x = node.inputs[0]
    axes = edit.constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if x is None or x.shape is None or axes is None:
        return False
    sizes = dims_of(x.shape)
    return all(sizes[int(axis)] == 1 for axis in axes.reshape(-1))
