"""Writes nodes into a graph in the place of one, and knows what is constant meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxlrp.graph.constants import Array, computed
from onnxlrp.graph.shapes import dims_of
from onnxlrp.graph.tensors import SMALL

WHY = "onnxlrp.why"
"""Where a node that could not be written out says why, and what to do: JSON, two texts."""

MOST_NODES = 20_000
"""Nodes up to which control flow is written out."""

_RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli")

# What they compute may be much larger than what they are given.
_GROWING = ("ConstantOfShape", "Expand", "Tile", "Range", "Resize", "OneHot", "EyeLike", "Pad")


_HOLE = np.iinfo(np.int64).min

# They put the sizes that they are given elsewhere, whatever those are.
_MOVING = ("Gather", "Slice", "Squeeze", "Unsqueeze", "Concat", "Reshape")


def _has_holes(array: Array) -> bool:
    return array.dtype == np.int64 and bool((array == _HOLE).any())


class RefusalError(Exception):
    """Why a node stays as it is: the reason, and what the user can do."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(reason, advice)
        self.reason, self.advice = reason, advice


class Edit:
    """Changes to one model's graph.

    Parameters
    ----------
    graph : the model's own, not that of a branch
    weights : names of those of its inputs that hold weights
    visit : what is done to every node that `copy` writes

    """

    def __init__(
        self,
        graph: ir.Graph,
        weights: Collection[str],
        visit: Callable[[Edit, ir.Node], bool],
    ) -> None:
        self._graph = graph
        self._weights = weights
        self._visit = visit
        self._nodes: list[ir.Node] = []
        self._replaced: dict[ir.Value, ir.Value] = {}
        self._awaited: set[ir.Value] = set()
        self._constants: dict[ir.Value, Array | None] = {}
        self._numbers: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    @property
    def written(self) -> int:
        """How many nodes have been written."""
        return len(self._nodes)

    def undo(self, written: int, graph: ir.Graph) -> None:
        """Drop what has been written in a graph since there were so many."""
        graph.remove([node for node in self._nodes[written:] if node.graph is graph], safe=True)
        del self._nodes[written:]

    def check(self, count: int) -> None:
        """Check that there is room for so many nodes; a step without any takes some, too."""
        if self.written + max(1, count) > MOST_NODES:
            raise RefusalError(
                f"written out, it would be more than {MOST_NODES} nodes",
                "export the model for a shorter input, or with fewer steps",
            )

    def _write(self, place: ir.Node, node: ir.Node) -> None:
        self._nodes.append(node)
        _graph_of(place).insert_before(place, node)

    def constant(self, value: ir.Value | None) -> Array | None:
        """Return what a value holds; None where that is not known, or too much to look at."""
        held = None if value is None else self._held(value)
        return None if held is None or _has_holes(held) else held

    def varies(self, value: ir.Value) -> bool:
        """Whether what a value holds depends on what the model is given, or may."""
        if value.const_value is not None or value.name in self._weights:
            return value.is_graph_input() and value.name not in self._weights
        return self.constant(value) is None

    def _held(self, value: ir.Value) -> Array | None:
        """Return what a value holds, with holes in the place of sizes that are not known."""
        if value not in self._constants:
            self._constants[value] = self._computed(value)
        return self._constants[value]

    def _computed(self, value: ir.Value) -> Array | None:
        if value.const_value is not None:
            tensor = value.const_value
            return None if value.is_graph_input() or tensor.size > SMALL else tensor.numpy()
        node = value.producer()
        if node is None or node.domain not in ("", "ai.onnx") or subgraphs(node):
            return None
        if node.op_type in _GROWING or node.op_type in _RANDOM:
            return None
        if isinstance(value.type, ir.SequenceType | ir.OptionalType):
            return None
        x = node.inputs[0] if node.inputs else None
        if node.op_type == "Shape" and x is not None and x.shape is not None:
            sizes = [size if isinstance(size, int) else _HOLE for size in dims_of(x.shape)]
            read = {name: node.attributes[name].value for name in node.attributes}
            return np.array(sizes[read.get("start", 0) : read.get("end")], np.int64)
        # The condition of a Loop, step after step.
        if node.op_type == "Identity" and x is not None:
            return self._held(x)
        held = {one.name or "": self._held(one) for one in node.inputs if one is not None}
        given = {name: array for name, array in held.items() if array is not None}
        moves = node.op_type in _MOVING
        if len(given) < len(held) or (not moves and any(map(_has_holes, given.values()))):
            return None
        arrays = computed(node, self._graph.opset_imports, given)
        self._constants.update(zip(node.outputs, arrays, strict=True))
        return self._constants[value]

    def number(self, array: Array) -> ir.Value:
        """Return an initializer that holds an array; equal ones are one."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._numbers:
            name = f"known_{len(self._graph.initializers)}"
            while name in self._graph.initializers:
                name += "_"
            tensor = ir.Tensor(array, name=name)
            kind = ir.TensorType(tensor.dtype)
            value = ir.Value(name=name, const_value=tensor, shape=tensor.shape, type=kind)
            self._graph.register_initializer(value)
            self._numbers[key] = value
        return self._numbers[key]

    def make(
        self,
        place: ir.Node,
        operator: str,
        inputs: Sequence[ir.Value | None],
        stem: str,
        outputs: int = 1,
        like: ir.TypeProtocol | None = None,
        **attributes: Any,
    ) -> Sequence[ir.Value]:
        """Write a node in front of another, named after what is computed; return its outputs."""
        self.check(1)
        inputs = [None if value is None else self.now(value) for value in inputs]
        made = ir.node(operator, inputs, attributes, num_outputs=outputs, name=f"{stem}/{operator}")
        for number, value in enumerate(made.outputs):
            value.name = f"{made.name}_{number}" if outputs > 1 else made.name
            value.type = like
        self._write(place, made)
        return made.outputs

    def squeezed(self, place: ir.Node, value: ir.Value, axis: int, stem: str) -> ir.Value:
        """Drop an axis of size 1."""
        axes = self.number(np.array([axis], np.int64))
        return self.make(place, "Squeeze", [value, axes], stem, like=value.type)[0]

    def joined(
        self, place: ir.Node, values: Sequence[ir.Value], axis: int, new: bool, stem: str
    ) -> ir.Value:
        """Concatenate, or stack along an axis that is new."""
        if new:
            axes = self.number(np.array([axis], np.int64))
            values = [
                self.make(place, "Unsqueeze", [one, axes], f"{stem}/{i}", like=one.type)[0]
                for i, one in enumerate(values)
            ]
        if len(values) == 1:
            return values[0]
        return self.make(place, "Concat", values, stem, like=values[0].type, axis=axis)[0]

    def pieces(
        self, place: ir.Node, value: ir.Value, axis: int, sizes: Sequence[int] | int, stem: str
    ) -> Sequence[ir.Value]:
        """Split along an axis: into as many equal parts, or into parts of these sizes."""
        if isinstance(sizes, int):
            return self.make(
                place, "Split", [value], stem, sizes, value.type, axis=axis, num_outputs=sizes
            )
        given = self.number(np.array(sizes, np.int64))
        return self.make(place, "Split", [value, given], stem, len(sizes), value.type, axis=axis)

    def copy(
        self,
        place: ir.Node,
        body: ir.Graph,
        given: Sequence[ir.Value | None],
        stem: str,
        captured: Mapping[ir.Value, ir.Value] | None = None,
    ) -> list[ir.Value]:
        """Write a subgraph's nodes in front of a node; return what its outputs are there.

        Parameters
        ----------
        place : in front of which they are written
        body : the subgraph
        given : its inputs
        stem : what names of nodes and values begin with
        captured : what it reads in the place of values around it

        Raises
        ------
        RefusalError
            That would be too many nodes.

        """
        self.check(len(body))
        inside = {**(captured or {}), **dict(zip(body.inputs, given, strict=True))}
        copies = []
        for node in body:
            new = _copied(node, inside, stem)
            copies.append(new)
            self._write(place, new)
        outputs = [inside.get(value, value) for value in body.outputs]
        assert None not in outputs
        self._awaited.update(value for value in outputs if value is not None)
        for new in copies:
            self._visit(self, new)
        return [self.now(value) for value in outputs if value is not None]

    def needed(self, value: ir.Value) -> bool:
        """Whether anything reads a value, or will."""
        read = value.is_graph_output() or bool(value.uses())
        return bool(value.name) and (read or value in self._awaited)

    def now(self, value: ir.Value) -> ir.Value:
        """Return what stands in the place of a value."""
        while value in self._replaced:
            value = self._replaced[value]
        return value

    def replace(self, node: ir.Node, values: Iterable[ir.Value | None]) -> None:
        """Put values in the place of what a node computes, and drop it."""
        graph = _graph_of(node)
        for old, given in zip(node.outputs, values, strict=True):
            if given is None:
                continue
            new = self.now(given)
            if old.is_graph_output():
                renamed = ir.node("Identity", [new], name=f"{node.name}/{old.name}")
                renamed.outputs[0].name, renamed.outputs[0].type = old.name, old.type
                renamed.outputs[0].shape = old.shape
                graph.insert_before(node, renamed)
                graph.outputs[list(graph.outputs).index(old)] = renamed.outputs[0]
            ir.convenience.replace_all_uses_with(old, new)
            self._replaced[old] = new
        graph.remove(node, safe=True)


def subgraphs(node: ir.Node) -> list[ir.Graph]:
    """Return the bodies and branches of a node."""
    found: list[ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            found.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            found += attribute.as_graphs()
    return found


def _graph_of(node: ir.Node) -> ir.Graph:
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    return graph


def _copied(node: ir.Node, inside: dict[ir.Value, ir.Value | None], stem: str) -> ir.Node:
    """Return a copy of a node that reads what `inside` says, and enter its outputs there."""
    attributes = []
    for name, attribute in node.attributes.items():
        if attribute.type == ir.AttributeType.GRAPH:
            graph = attribute.as_graph().clone(allow_outer_scope_values=True)
            _reread(graph, inside)
            attribute = ir.AttrGraph(name, graph)
        attributes.append(attribute)
    new = ir.Node(
        node.domain,
        node.op_type,
        [None if value is None else inside.get(value, value) for value in node.inputs],
        attributes,
        num_outputs=len(node.outputs),
        name=f"{stem}/{node.name or node.outputs[0].name}",
    )
    for old, made in zip(node.outputs, new.outputs, strict=True):
        made.name = f"{stem}/{old.name}" if old.name else ""
        # Shapes may change from one step to the next.
        made.type = old.type
        inside[old] = made
    return new


def _reread(graph: ir.Graph, inside: Mapping[ir.Value, ir.Value | None]) -> None:
    """Let a subgraph read the copies of what it captured."""
    for node in graph.all_nodes():
        for index, value in enumerate(node.inputs):
            if value is not None and value in inside:
                node.replace_input_with(index, inside[value])
