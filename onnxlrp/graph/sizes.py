"""Sizes that onnx's inference leaves open, though the graph says what they are.

TorchScript writes a shape as numbers that are read from other shapes, and onnx gives whatever it
cannot compute of them a symbol of its own.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import onnx_ir as ir

from onnxlrp.graph.operators import operator_of
from onnxlrp.graph.shapes import Dim, dims_of

_MADE_UP = "unk__"
"""What the names of onnx's own symbols begin with."""

_ROUNDS = 8


def settle(model: ir.Model, infer: Callable[[ir.Model], None]) -> None:
    """Find the sizes that follow from weights, and from what a Reshape keeps.

    Parameters
    ----------
    model : with constants folded
    infer : onnx's shape inference

    """
    for _ in range(_ROUNDS):
        made_up = [v for node in model.graph for v in node.outputs if _is_made_up(v)]
        if not made_up:
            return
        # What was inferred before bounds were constants is in the way of what follows from them.
        held = {value: value.shape for value in made_up}
        for value in made_up:
            value.shape = None
        infer(model)
        for value, shape in held.items():
            if value.shape is None:
                value.shape = shape
        if not _solve(model.graph):
            return


def _is_made_up(value: ir.Value) -> bool:
    if value.shape is None or value.is_graph_output():
        return False
    return any(isinstance(d, str) and d.startswith(_MADE_UP) for d in dims_of(value.shape))


def _solve(graph: ir.Graph) -> bool:
    """Put numbers in the place of made-up symbols; tell whether one was found."""
    known: dict[str, int] = {}

    def is_open(size: Dim) -> bool:
        return size is None or (isinstance(size, str) and size.startswith(_MADE_UP))

    def settled(value: ir.Value) -> list[Dim]:
        assert value.shape is not None
        return [known.get(d, d) if isinstance(d, str) else d for d in dims_of(value.shape)]

    found = False

    def note(value: ir.Value, axis: int, size: int) -> None:
        nonlocal found
        sizes = settled(value)
        name = sizes[axis]
        if not is_open(name):
            return
        if isinstance(name, str):
            known[name] = size
        sizes[axis] = size
        value.shape = ir.Shape(sizes)
        found = True

    for node in graph:
        x = node.inputs[0] if node.inputs else None
        if x is None or x.shape is None:
            continue
        asked = _asked(node)
        if asked is not None and not x.is_graph_input():
            note(x, asked[0] % len(x.shape), asked[1])
        y = node.outputs[0]
        if operator_of(node) == "Reshape" and y.shape is not None and not y.is_graph_output():
            sizes = settled(y)
            left = [axis for axis, size in enumerate(sizes) if is_open(size)]
            if len(left) == 1:
                others = [size for axis, size in enumerate(sizes) if axis != left[0]]
                size = _quotient(settled(x), others)
                if size is not None:
                    note(y, left[0], size)
    for node in graph:
        for value in node.outputs:
            if value.shape is not None and not value.is_graph_output():
                value.shape = ir.Shape(settled(value))
    return found


def _asked(node: ir.Node) -> tuple[int, int] | None:
    """Return the axis and size that a layer's weights ask of its input."""
    weights = node.inputs[1] if len(node.inputs) > 1 else None
    if weights is None or weights.const_value is None or not weights.const_value.shape.rank():
        return None
    shape = weights.const_value.shape.numpy()
    operator = operator_of(node)
    if operator == "Conv":
        group = node.attributes.get("group")
        return 1, shape[1] * (1 if group is None else group.value)
    if operator == "MatMul" and len(shape) > 1:
        return -1, shape[-2]
    if operator in ("BatchNormalization", "InstanceNormalization"):
        return 1, shape[0]
    return None


def _quotient(sizes: list[Dim], others: list[Dim]) -> int | None:
    """Return what is left of a product of sizes without some others, where that is a number."""
    symbols = Counter(size for size in sizes if not isinstance(size, int))
    if None in symbols or symbols != Counter(size for size in others if not isinstance(size, int)):
        return None
    total, rest = (math.prod(s for s in of if isinstance(s, int)) for of in (sizes, others))
    return total // rest if rest and total % rest == 0 else None
