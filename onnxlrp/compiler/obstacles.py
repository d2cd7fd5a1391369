"""What cannot be explained, found before anything is written."""

from __future__ import annotations

import onnx_ir as ir

from onnxlrp.compiler.outside import why
from onnxlrp.errors import Obstacle, UnsupportedError
from onnxlrp.graph.analysis import Facts
from onnxlrp.graph.canonical import Operation
from onnxlrp.graph.editing import WHY
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
            told = operation.node.meta.get(WHY)
            problem = why(operation.operator) if told is None else (told[0], told[1])
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
