"""One spelling for each thing: which nodes together are one operation.

Nothing is rewritten. The model stays in the explainer as its author wrote it, so what it
computes cannot change; an `Operation` only says which of its nodes relevance crosses in one step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxlrp.graph.local_response import recognise_lrn
from onnxlrp.graph.operators import operator_of
from onnxlrp.graph.place import Place
from onnxlrp.graph.shapes import Dim, dims_of
from onnxlrp.graph.spellings import Spelled, recognise

Array = np.ndarray[Any, Any]

EXPLICIT_WEIGHTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators whose weights are an input; those that composites call layers, first and last."""


@dataclass(frozen=True, eq=False)
class Operation:
    """What relevance crosses in one step: one node, or several that spell one operator.

    Attributes
    ----------
    node : by whose name and operator a composite matches
    operator : ONNX operator type, also where it is written out in several nodes
    inputs, outputs : values of the model
    attributes : of the operator, by name
    nodes : all nodes that it stands for
    scale, shift : what a merged BatchNormalization, Mul, Add, ... does to the output's channels,
        `scale * z + shift`; float64 of shape [channels] or [1], or None; of a normalisation that is
        written out, its own, of a shape that broadcasts to x's
    moves : what stands between the layer and the last node that is merged into it, and only
        rearranges: as if each stood behind that node, in this order

    """

    node: ir.Node
    operator: str
    inputs: tuple[ir.Value | None, ...]
    outputs: tuple[ir.Value, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    nodes: tuple[ir.Node, ...] = ()
    scale: Array | None = None
    shift: Array | None = None
    moves: tuple[Operation, ...] = ()

    @property
    def name(self) -> str:
        return self.node.name or ""

    def input(self, index: int) -> ir.Value | None:
        """Return an input, or None where it is absent."""
        return self.inputs[index] if index < len(self.inputs) else None


@dataclass(frozen=True)
class Network:
    """A model in canonical form: what is explained, and all that may lie between.

    Attributes
    ----------
    graph : the model's, not rewritten
    operations : all of the graph's, in topological order
    score : the value that relevance starts from, [N, classes], or of any shape with a place
    output : the model's output that the score leads to
    inputs : the inputs that relevance arrives at
    signs : of a single logit in the score of each class; empty where each has its own
    place : of a dense output, what part of it the score is the sum of
    squashed : whether the score is seen to be a probability, and no logit of it is

    """

    graph: ir.Graph
    operations: Sequence[Operation]
    score: ir.Value
    output: ir.Value
    inputs: Sequence[ir.Value]
    signs: tuple[int, ...] = ()
    place: Place | None = None
    squashed: bool = False


def constant_of(value: ir.Value | None) -> Array | None:
    """Elements of an initializer; None for anything else."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def operations(graph: ir.Graph, *, merging: bool = True) -> list[Operation]:
    """Group a model's nodes into operations, in the order of the nodes; 1 only with `merging`.

    1. A BatchNormalization or an elementwise Add, Sub, Mul or Div with a constant per channel
       that alone consumes a layer's output is merged into the layer, again and again; also where
       a Transpose or Reshape between them leaves the channels an axis of their own.
    2. A Pad with zeros along spatial axes is merged into each Conv that consumes it.
    3. The nodes by which PyTorch writes a local response normalisation are one LRN, and other
       operators that are written out are one too (`spellings`).
    4. A sum with a constant that is 0 throughout (a mask that masks nothing) is an Identity: no
       stabiliser acts there.
    """
    merged: set[ir.Node] = set()
    result: list[Operation] = []
    # A pattern is recognised by its last node, which stands after those it swallows.
    patterns = {found.node: found for node in graph if (found := _lrn(node)) is not None}
    patterns |= {found.node: _spelled(found) for found in recognise(graph, constant_of)}
    for found in patterns.values():
        merged.update(node for node in found.nodes if _only_within(node, found.nodes))
    for node in graph:
        if node in patterns:
            result.append(patterns[node])
        elif node not in merged:
            operation = _handed_on(node) or _merge_pad(_single(node))
            if merging:
                operation = _merge_affine(operation)
            merged.update(operation.nodes)
            result.append(operation)
    return _without_merged_pads(result)


def _single(node: ir.Node) -> Operation:
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    return Operation(
        node, operator_of(node), tuple(node.inputs), tuple(node.outputs), attributes, (node,)
    )


def _handed_on(node: ir.Node) -> Operation | None:
    """Take x + 0 and x - 0, in the shape of x, for x."""
    if operator_of(node) not in ("Add", "Sub") or node.outputs[0].shape is None:
        return None
    orders = [node.inputs, node.inputs[::-1]] if operator_of(node) == "Add" else [node.inputs]
    for x, other in orders:
        constant = constant_of(other)
        if constant is None or constant.any() or x is None or x.shape != node.outputs[0].shape:
            continue
        return Operation(node, "Identity", (x,), (node.outputs[0],), {}, (node,))
    return None


def _lrn(node: ir.Node) -> Operation | None:
    found = recognise_lrn(node, constant_of)
    if found is None:
        return None
    return Operation(node, "LRN", (found.x,), (node.outputs[0],), found.attributes, found.nodes)


def _spelled(found: Spelled) -> Operation:
    attributes, scale, shift = found.attributes, found.scale, found.shift
    if "window" in attributes:
        window = _single(attributes["window"])
        own = constant_of(window.input(2))
        assert shift is not None
        if own is not None:
            shift = shift + attributes["alpha"] * own.reshape(-1, *(1,) * (shift.ndim - 2))
        attributes, scale, shift = {**attributes, "window": window, "bias": shift}, None, None
    output = found.node.outputs[0]
    return Operation(
        found.node, found.operator, (found.x,), (output,), attributes, found.nodes, scale, shift
    )


def _only_within(node: ir.Node, nodes: Sequence[ir.Node]) -> bool:
    """Tell whether nothing outside `nodes` consumes what `node` computes."""
    return all(
        not value.is_graph_output() and all(user in nodes for user, _ in value.uses())
        for value in node.outputs
    )


def _merge_pad(operation: Operation) -> Operation:
    value = operation.input(0)
    pad = None if value is None else value.producer()
    if operation.operator != "Conv" or pad is None or operator_of(pad) != "Pad":
        return operation
    amounts = zero_padding(pad)
    if amounts is None or operation.attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return operation
    begins, ends = amounts
    if any(begins[:2]) or any(ends[:2]) or min(begins + ends) < 0:
        return operation
    own = operation.attributes.get("pads") or [0] * (2 * len(begins[2:]))
    pads = [a + b for a, b in zip(own, begins[2:] + ends[2:], strict=True)]
    return replace(
        operation,
        inputs=(pad.inputs[0], *operation.inputs[1:]),
        attributes={**operation.attributes, "pads": pads, "auto_pad": "NOTSET"},
        nodes=(*operation.nodes, pad),
    )


def zero_padding(pad: ir.Node) -> tuple[list[int], list[int]] | None:
    """What a Pad with constant zeros adds before and after each axis; None for other Pads."""
    mode = pad.attributes["mode"].value if "mode" in pad.attributes else "constant"
    amounts = constant_of(pad.inputs[1])
    fill = constant_of(pad.inputs[2]) if len(pad.inputs) > 2 else np.zeros(())
    data = pad.inputs[0]
    if mode != "constant" or amounts is None or fill is None or fill.any():
        return None
    if data is None or data.shape is None:
        return None
    rank = len(data.shape)
    axes = constant_of(pad.inputs[3]) if len(pad.inputs) > 3 and pad.inputs[3] else None
    chosen = list(range(rank)) if axes is None else [int(axis) % rank for axis in axes]
    begins, ends = [0] * rank, [0] * rank
    for position, axis in enumerate(chosen):
        begins[axis] = int(amounts[position])
        ends[axis] = int(amounts[position + len(chosen)])
    return begins, ends


def _without_merged_pads(found: list[Operation]) -> list[Operation]:
    used = {id(v) for operation in found for v in operation.inputs if v is not None}
    return [
        operation
        for operation in found
        if operation.operator != "Pad"
        or id(operation.outputs[0]) in used
        or operation.outputs[0].is_graph_output()
    ]


def _merge_affine(operation: Operation) -> Operation:
    weights, output = constant_of(operation.input(1)), operation.outputs[0]
    if operation.operator not in EXPLICIT_WEIGHTS or weights is None or not output.shape:
        return operation
    axis = 1 if operation.operator.startswith("Conv") else len(output.shape) - 1
    while (found := _affine_behind(operation.outputs[0], axis)) is not None:
        nodes, axis, scale, shift = found
        old_scale = np.ones(1) if operation.scale is None else operation.scale
        old_shift = np.zeros(1) if operation.shift is None else operation.shift
        operation = replace(
            operation,
            outputs=(nodes[-1].outputs[0],),
            nodes=(*operation.nodes, *nodes),
            scale=old_scale * scale,
            shift=old_shift * scale + shift,
            moves=(*operation.moves, *map(_single, nodes[:-1])),
        )
    return operation


def _affine_behind(x: ir.Value, axis: int) -> tuple[tuple[ir.Node, ...], int, Array, Array] | None:
    """Find what scales and shifts x along its channels, perhaps once they have been moved.

    Returns
    -------
    the nodes that move x, and the one that scales and shifts, each the only one that reads what it
    does; the axis along which it does so; scale and shift
    """
    nodes: tuple[ir.Node, ...] = ()
    moved: int | None = axis
    while moved is not None:
        users = x.consumers()
        if x.is_graph_output() or len(users) != 1 or x.shape is None:
            return None
        nodes = (*nodes, users[0])
        affine = affine_of(users[0], x, moved)
        if affine is not None:
            return nodes, moved, *affine
        moved = _moved(users[0], x, moved)
        x = users[0].outputs[0]
    return None


def _moved(node: ir.Node, x: ir.Value, axis: int) -> int | None:
    """Where an axis of x is in what a node makes of x; None unless it only rearranges."""
    y = node.outputs[0]
    if node.inputs[0] is not x or x.shape is None or y.shape is None:
        return None
    before, after = dims_of(x.shape), dims_of(y.shape)
    if operator_of(node) == "Transpose":
        order = node.attributes["perm"].value if "perm" in node.attributes else ()
        return list(order or reversed(range(len(before)))).index(axis)
    if operator_of(node) not in ("Reshape", "Flatten", "Squeeze", "Unsqueeze"):
        return None
    # Elements keep their order: it is the same axis if as many are in front of it, or behind.
    for place, size in enumerate(after):
        if isinstance(size, int) and size == before[axis]:
            sides = (before[:axis], after[:place]), (before[axis + 1 :], after[place + 1 :])
            if any(None not in old and _count(old) == _count(new) for old, new in sides):
                return place
    return None


def _count(sizes: Sequence[Dim]) -> tuple[int, list[Dim]]:
    """The product of the sizes that are numbers, and the names of the others."""
    numbers = [size for size in sizes if isinstance(size, int)]
    return math.prod(numbers), sorted((s for s in sizes if not isinstance(s, int)), key=str)


def affine_of(node: ir.Node, x: ir.Value, axis: int) -> tuple[Array, Array] | None:
    """Scale and shift, float64 [channels] or [1], that a node applies along an axis of x.

    None where the node does something else, or varies along another axis.
    """
    if operator_of(node) == "BatchNormalization":
        training = node.attributes.get("training_mode")
        if axis != 1 or (training is not None and training.value):
            return None
        parameters = [constant_of(value) for value in node.inputs[1:5]]
        gamma, beta, mean, variance = (
            None if p is None else p.astype(np.float64) for p in parameters
        )
        if gamma is None or beta is None or mean is None or variance is None:
            return None
        epsilon = node.attributes["epsilon"].value if "epsilon" in node.attributes else 1e-5
        scale = gamma / np.sqrt(variance + epsilon)
        return scale, beta - mean * scale
    if operator_of(node) not in ("Add", "Sub", "Mul", "Div") or node.inputs[0] is node.inputs[1]:
        return None
    first = node.inputs[0] is x
    constant = _per_channel(constant_of(node.inputs[1 if first else 0]), x, axis)
    if constant is None:
        return None
    one, zero = np.ones(1), np.zeros(1)
    if operator_of(node) == "Add":
        return one, constant
    if operator_of(node) == "Sub":
        return (one, -constant) if first else (-one, constant)
    if operator_of(node) == "Mul":
        return constant, zero
    return (1 / constant, zero) if first else None


def _per_channel(constant: Array | None, x: ir.Value, axis: int) -> Array | None:
    """Flatten a constant that varies along one axis of x only; None if it varies elsewhere."""
    if constant is None or x.shape is None or constant.ndim > len(x.shape):
        return None
    padded = constant.reshape((1,) * (len(x.shape) - constant.ndim) + constant.shape)
    if any(size != 1 for i, size in enumerate(padded.shape) if i != axis):
        return None
    flat = padded.reshape(-1).astype(np.float64)
    if flat.size > 1 and x.shape[axis] != flat.size:
        return None
    return flat
