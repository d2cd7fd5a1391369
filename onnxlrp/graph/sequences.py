"""Sequences and optionals whose elements are known, replaced by the tensors that they hold.

Every sequence that is understood becomes a SequenceConstruct of its elements, or a SequenceEmpty,
and what reads one at a known position reads the element itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxlrp.graph.editing import Edit, RefusalError, subgraphs
from onnxlrp.graph.shapes import dims_of

TENSORS = "let the model pass the tensors themselves, or positions that are constants"
"""What to do where it is not known what a sequence holds, or what is read of it."""


def insert(edit: Edit, node: ir.Node) -> None:
    """Add an element."""
    held, tensor = list(_elements(edit, node.inputs[0])), node.inputs[1]
    assert tensor is not None
    place = _position(edit, node, 2, len(held), len(held), len(held))
    _rewrite(edit, node, [*held[:place], tensor, *held[place:]])


def erase(edit: Edit, node: ir.Node) -> None:
    """Drop an element."""
    held = list(_elements(edit, node.inputs[0]))
    del held[_position(edit, node, 1, len(held), len(held) - 1, len(held) - 1)]
    _rewrite(edit, node, held)


def at(edit: Edit, node: ir.Node) -> None:
    """Read one element."""
    held = _elements(edit, node.inputs[0])
    edit.replace(node, [held[_position(edit, node, 1, len(held), 0, len(held) - 1)]])


def length(edit: Edit, node: ir.Node) -> None:
    """Count the elements."""
    held = _elements(edit, node.inputs[0])
    edit.replace(node, [edit.number(np.array(len(held), np.int64))])


def split(edit: Edit, node: ir.Node) -> None:
    """Cut a tensor into the elements of a sequence."""
    x = node.inputs[0]
    assert x is not None
    if x.shape is None:
        raise RefusalError("the size of what it splits is not known", TENSORS)
    axis = int(_attribute(node, "axis", 0)) % len(x.shape)
    size = dims_of(x.shape)[axis]
    asked = node.inputs[1] if len(node.inputs) > 1 else None
    sizes = np.array(1) if asked is None else edit.constant(asked)
    if sizes is None or (sizes.ndim == 0 and not isinstance(size, int)):
        raise RefusalError("into how many parts it splits is known only when it runs", TENSORS)
    if sizes.ndim == 0:
        assert isinstance(size, int)
        step = int(sizes)
        parts = [min(step, size - start) for start in range(0, size, step)]
    else:
        parts = [int(one) for one in sizes]
    stem = f"{node.name}/parts"
    elements = list(edit.pieces(node, x, axis, parts, stem))
    if asked is None and not _attribute(node, "keepdims", 1):
        elements = [
            edit.squeezed(node, part, axis, f"{stem}/{step}") for step, part in enumerate(elements)
        ]
    _rewrite(edit, node, elements)


def concat(edit: Edit, node: ir.Node) -> None:
    """Concatenate or stack the elements."""
    held = _elements(edit, node.inputs[0])
    if not held:
        raise RefusalError("it concatenates an empty sequence", TENSORS)
    axis, new = int(_attribute(node, "axis", 0)), bool(_attribute(node, "new_axis", 0))
    edit.replace(node, [edit.joined(node, held, axis, new, node.name or "")])


def each(edit: Edit, node: ir.Node) -> None:
    """Do to every element what the body of a SequenceMap does."""
    (body,) = subgraphs(node)
    lists = [
        _elements(edit, value)
        if value is not None and (index == 0 or isinstance(value.type, ir.SequenceType))
        else [value] * len(_elements(edit, node.inputs[0]))
        for index, value in enumerate(node.inputs)
    ]
    made = [
        edit.copy(node, body, list(given), f"{node.name}/{step}")
        for step, given in enumerate(zip(*lists, strict=True))
    ]
    if not made:
        raise RefusalError("it maps an empty sequence", TENSORS)
    sequences = [
        edit.make(node, "SequenceConstruct", values, f"{node.name}/{index}", like=output.type)[0]
        for index, (output, *values) in enumerate(zip(node.outputs, *made, strict=True))
    ]
    edit.replace(node, sequences)


def get(edit: Edit, node: ir.Node) -> None:
    """Read what an optional holds."""
    held = _held(node.inputs[0])
    if held is None:
        raise RefusalError("it reads an optional that is empty", TENSORS)
    edit.replace(node, [held])


def has(edit: Edit, node: ir.Node) -> None:
    """Tell whether an optional holds something."""
    asked = node.inputs[0] if node.inputs else None
    found = asked is not None and _held(asked) is not None
    edit.replace(node, [edit.number(np.array(found))])


def _held(value: ir.Value | None) -> ir.Value | None:
    """Return what an optional holds, None for nothing; any other value is itself."""
    assert value is not None
    node = value.producer()
    if node is not None and node.op_type == "Optional":
        return node.inputs[0] if node.inputs else None
    if node is not None and node.op_type == "Identity":
        return _held(node.inputs[0])
    if isinstance(value.type, ir.OptionalType):
        raise RefusalError("what its optional holds is known only when it runs", TENSORS)
    return value


def _elements(edit: Edit, value: ir.Value | None) -> Sequence[ir.Value]:
    assert value is not None
    node = edit.now(value).producer()
    if node is not None and node.op_type == "Identity":
        return _elements(edit, node.inputs[0])
    if node is not None and node.op_type == "SequenceEmpty":
        return []
    if node is None or node.op_type != "SequenceConstruct":
        raise RefusalError("what its sequence holds is known only when it runs", TENSORS)
    return [one for one in node.inputs if one is not None]


def _position(edit: Edit, node: ir.Node, index: int, size: int, default: int, last: int) -> int:
    """Return the place that an input says, counted from the front; `last` is the last allowed."""
    asked = node.inputs[index] if len(node.inputs) > index else None
    known = edit.constant(asked)
    if asked is not None and known is None:
        raise RefusalError("its position is known only when the model runs", TENSORS)
    place = default if known is None else int(known.reshape(-1)[0])
    if place < 0:
        place += size
    if not 0 <= place <= last:
        raise RefusalError(f"its sequence has no position {place}", "correct it in the model")
    return place


def _rewrite(edit: Edit, node: ir.Node, elements: Sequence[ir.Value]) -> None:
    operator = "SequenceConstruct" if elements else "SequenceEmpty"
    kind = node.outputs[0].type
    edit.replace(node, edit.make(node, operator, elements, node.name or "", like=kind))


def _attribute(node: ir.Node, name: str, default: int) -> int:
    return int(node.attributes[name].value) if name in node.attributes else default
