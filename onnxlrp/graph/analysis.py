"""What is known of every value before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import networkx as nx
import onnx_ir as ir

from onnxlrp.graph.canonical import Network, Operation, constant_of
from onnxlrp.graph.operators import Fact, has, operator_of
from onnxlrp.graph.tensors import SMALL

_FLOATS = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
_UNSIGNED = {ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.BOOL}


@dataclass(frozen=True)
class Facts:
    """Static facts of a model.

    Attributes
    ----------
    operations : those on a path from an explained input to the score, in topological order
    relevant : ids of the values on such a path; relevance is propagated to these
    live : ids of the values that depend on an explained input
    non_negative : ids of the values that are never below zero
    graph : values (by id) and operations, an edge from each to what reads or follows it

    """

    operations: Sequence[Operation]
    relevant: frozenset[int]
    live: frozenset[int]
    non_negative: frozenset[int]
    graph: nx.DiGraph[int | Operation]


def analyse(network: Network) -> Facts:
    """Find out what relevance has to cross between the score and the explained inputs."""
    graph = dependencies(network.operations)
    sources = [id(value) for value in network.inputs]
    live = reachable(graph, sources, nx.descendants)
    used = reachable(graph, [id(network.score)], nx.ancestors)
    path = live & used
    return Facts(
        [operation for operation in network.operations if operation in path],
        frozenset(node for node in path if isinstance(node, int)),
        frozenset(node for node in live if isinstance(node, int)),
        non_negative(network.graph),
        graph,
    )


def dependencies(found: Sequence[Operation]) -> nx.DiGraph[int | Operation]:
    """Which operation reads which value, as far as relevance could follow.

    Reading only a value's shape is no dependency, and neither is what a comparison, a count or a
    position says: whole numbers depend on what they are moved or cast from alone.
    """
    graph: nx.DiGraph[int | Operation] = nx.DiGraph()
    for operation in found:
        graph.add_node(operation)
        for value in operation.inputs:
            if value is not None and not has(operation.operator, Fact.UNREAD):
                graph.add_edge(id(value), operation)
        for node in within(operation.node):
            for value in node.inputs:
                graph.add_edge(id(value), operation)
        carries = has(operation.operator, Fact.MOVES) or operation.operator == "Cast"
        for value in operation.outputs:
            if carries or value.dtype is None or value.dtype in _FLOATS:
                graph.add_edge(operation, id(value))
    return graph


def within(node: ir.Node) -> Iterator[ir.Node]:
    """Yield the nodes of the subgraphs of an If, Loop or Scan."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield from attribute.value.all_nodes()


def reads(node: ir.Node) -> Iterator[ir.Value]:
    """Yield what a node reads; its subgraphs, too, read values outside."""
    for step in (node, *within(node)):
        yield from (value for value in step.inputs if value is not None)


def reachable(
    graph: nx.DiGraph[int | Operation],
    sources: Iterable[int | Operation],
    search: Callable[[nx.DiGraph[int | Operation], int | Operation], set[int | Operation]],
) -> set[int | Operation]:
    """Return the sources and all that `networkx.descendants` or `ancestors` finds from them."""
    result: set[int | Operation] = set()
    for source in sources:
        result.add(source)
        if source in graph:
            result |= search(graph, source)
    return result


def non_negative(graph: ir.Graph) -> frozenset[int]:
    """Ids of the values of which the operators guarantee that no element is below zero.

    An operator that is not listed guarantees nothing.
    """
    known: set[int] = set()
    for value in graph.inputs:
        if value.dtype in _UNSIGNED:
            known.add(id(value))
    for node in graph:
        if _guarantees(node, known):
            known.update(id(output) for output in node.outputs)
    return frozenset(known)


def _guarantees(node: ir.Node, known: set[int]) -> bool:
    def holds(index: int) -> bool:
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None:
            return False
        constant = constant_of(value)
        if constant is None:
            return id(value) in known
        if value.dtype == ir.DataType.STRING:
            return False
        # The first row of an embedding says it already: the rest may lie on the disk.
        return bool((constant.flat[:SMALL] >= 0).all() and (constant >= 0).all())

    operator = operator_of(node)
    if node.domain not in ("", "ai.onnx"):
        return False
    if has(operator, Fact.NON_NEGATIVE):
        return True
    if has(operator, Fact.CARRIES_SIGN):
        return holds(0)
    if operator == "Mul" and node.inputs[0] is node.inputs[1]:
        return True
    if operator == "Sub" and node.inputs[1] is not None:
        # What a gate leaves: 1 less what lies between 0 and 1.
        whole, gate = constant_of(node.inputs[0]), node.inputs[1].producer()
        unit = gate is not None and operator_of(gate) in ("Sigmoid", "HardSigmoid")
        return unit and whole is not None and bool((whole >= 1).all())
    if has(operator, Fact.JOINS_SIGN):
        return all(holds(index) for index in range(len(node.inputs)))
    if operator == "Cast":
        # An integer may overflow into the negative.
        return node.outputs[0].dtype in _FLOATS and holds(0)
    if operator == "Where":
        return holds(1) and holds(2)
    if operator == "Max":
        return any(holds(index) for index in range(len(node.inputs)))
    if operator == "Clip":
        high = node.inputs[2] if len(node.inputs) > 2 else None
        capped = high is not None and not holds(2)
        return not capped and (holds(1) or holds(0))
    if operator == "Pad":
        mode = node.attributes["mode"].value if "mode" in node.attributes else "constant"
        fill = node.inputs[2] if len(node.inputs) > 2 else None
        return holds(0) and (mode != "constant" or fill is None or holds(2))
    if operator == "Resize":
        mode = node.attributes["mode"].value if "mode" in node.attributes else "nearest"
        return mode != "cubic" and holds(0)
    if operator == "LRN":
        bias = node.attributes["bias"].value if "bias" in node.attributes else 1.0
        alpha = node.attributes["alpha"].value if "alpha" in node.attributes else 1e-4
        return bool(bias > 0 and alpha >= 0) and holds(0)
    return False
