"""What cannot be explained, found before anything is written."""

from __future__ import annotations

import onnx_ir as ir

from onnxlrp.errors import Obstacle, UnsupportedError
from onnxlrp.graph.analysis import Facts
from onnxlrp.graph.canonical import Operation
from onnxlrp.graph.loading import OPSETS
from onnxlrp.propagation.registry import OPERATORS, ObstacleError


class Obstacles:
    """What relevance meets on its way from the score that it cannot cross."""

    def __init__(self, facts: Facts, graph: ir.Graph) -> None:
        self._facts = facts
        self._graph = graph
        self._problems: dict[Operation, tuple[str, str]] = {}

    def crossable(self, operation: Operation) -> bool:
        """Tell whether relevance can cross an operation, and remember why not."""
        problem: tuple[str, str] | None = None
        if operation.operator not in OPERATORS:
            problem = "no rule is known for this operator", _advice(operation.node)
        else:
            try:
                OPERATORS[operation.operator].check(operation, self._facts.live)
            except ObstacleError as error:
                problem = error.args[0], error.args[1]
        if problem is not None:
            self._problems[operation] = problem
        return problem is None

    def check(self) -> None:
        """Check that there were none.

        Raises
        ------
        UnsupportedError
            If there were; every operation concerned is listed.

        """
        obstacles = []
        # Nothing is known of the shapes behind an unknown operator, and that is its fault alone.
        obscured: set[int] = set()
        for operation in self._facts.operations:
            problem = self._problems.get(operation)
            behind = any(id(value) in obscured for value in operation.inputs)
            if problem is not None or behind:
                obscured.update(id(v) for v in operation.outputs if v.shape is None)
            if problem is not None and not (behind and operation.operator in OPERATORS):
                obstacles.append(obstacle_of(operation, self._graph, *problem))
        if obstacles:
            raise UnsupportedError(obstacles)


def obstacle_of(operation: Operation, graph: ir.Graph, reason: str, advice: str) -> Obstacle:
    """Name an operation that stands in the way."""
    node = operation.node
    imported = graph.meta.get(OPSETS, graph.opset_imports)
    opset = imported.get(node.domain, 0)
    return Obstacle(operation.name, node.op_type, node.domain, opset, reason, advice)


def _advice(node: ir.Node) -> str:
    domain = node.domain
    if any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values()):
        return "export the model without control flow: traced for one size of input, or simplified"
    if domain == "com.microsoft.nchwc" or domain == "com.microsoft":
        return "give the original model, not one optimised or quantised by onnxruntime"
    if node.op_type == "Einsum":
        return "write it out in the model: it takes a diagonal, or has too many operands"
    if domain == "ai.onnx.ml":
        return "trees and feature pipelines are outside LRP; give the network alone"
    return "replace it in the model, or say how relevance crosses it in a --plugin"
