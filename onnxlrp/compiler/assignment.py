"""Which line of a composite decides over which operation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import networkx as nx
import onnx_ir as ir

from onnxlrp.compiler.composite import Composite, Line
from onnxlrp.errors import CompositeError
from onnxlrp.graph.analysis import Facts, reachable
from onnxlrp.graph.canonical import EXPLICIT_WEIGHTS, Operation
from onnxlrp.propagation.formulas import Parameter
from onnxlrp.propagation.registry import OPERATORS, live_inputs


@dataclass(frozen=True)
class Assignment:
    """The rule of one operation.

    Attributes
    ----------
    rule : its name; "" where the operator leaves no choice
    parameters : all the rule's parameters
    line : of the composite; None where the operator leaves no choice

    """

    rule: str
    parameters: Mapping[str, Parameter]
    line: Line | None


def assign(
    composite: Composite, facts: Facts, inputs: Sequence[ir.Value], score: ir.Value
) -> dict[Operation, Assignment]:
    """Find the first line that matches each operation with a rule its operator takes.

    Raises
    ------
    CompositeError
        If an operation that needs a rule is matched by no line; all such are named.

    """
    positions = _positions(facts, inputs, score)
    result: dict[Operation, Assignment] = {}
    missing = []
    for operation in facts.operations:
        rules = OPERATORS[operation.operator].rules
        if not rules:
            result[operation] = Assignment("", {}, None)
            continue
        line = next(
            (
                line
                for line in composite.lines
                if line.rule in rules
                and line.matches(operation.name, operation.operator, positions[operation])
            ),
            None,
        )
        if line is None:
            missing.append(f"{operation.name} ({operation.operator})")
        else:
            result[operation] = Assignment(line.rule, composite.parameters_of(line), line)
    if missing:
        raise CompositeError(
            f"{composite.name} has no line for {', '.join(missing)}; add one to the file, or with "
            "--rule 'OPERATOR: RULE'"
        )
    return result


def unmatched(
    composite: Composite, facts: Facts, assigned: Mapping[Operation, Assignment]
) -> list[tuple[Line, str]]:
    """Lines written by the user that decided over nothing, and why."""
    used = {id(assignment.line) for assignment in assigned.values()}
    result = []
    for line in composite.lines:
        if not line.by_user or id(line) in used:
            continue
        alike = [
            operation
            for operation in facts.operations
            if line.matches(operation.name, operation.operator, [line.position or ""])
        ]
        reason = "this line matches no node that relevance crosses"
        if alike and line.position:
            reason = f"no {line.position} layer is among the {len(alike)} nodes it matches"
        elif alike:
            reason = f"earlier lines have decided over the {len(alike)} nodes it matches"
        result.append((line, reason))
    return result


def _positions(
    facts: Facts, inputs: Sequence[ir.Value], score: ir.Value
) -> dict[Operation, set[str]]:
    on_path = set(facts.operations)
    first, before = _until_layers(facts, [id(v) for v in inputs], on_path, forward=True)
    last, _ = _until_layers(facts, [id(score)], on_path, forward=False)
    layers = {operation for operation in on_path if operation.operator in EXPLICIT_WEIGHTS}
    result: dict[Operation, set[str]] = {operation: set() for operation in on_path}
    for operation in first:
        result[operation].add("first")
    for operation in last:
        result[operation].add("last")
    for operation in before:
        constant = len(live_inputs(operation, facts.live)) == 1
        if constant and layers.isdisjoint(reachable(facts.graph, [operation], nx.ancestors)):
            result[operation].add("preprocessing")
    return result


def _until_layers(
    facts: Facts, sources: Iterable[int], on_path: set[Operation], forward: bool
) -> tuple[set[Operation], set[Operation]]:
    """Layers that are met first on some way from the sources, and what lies in front of them."""
    step = facts.graph.successors if forward else facts.graph.predecessors
    met: set[Operation] = set()
    crossed: set[Operation] = set()
    todo: list[int | Operation] = list(sources)
    seen: set[int | Operation] = set(todo)
    while todo:
        here = todo.pop()
        for there in step(here):
            if there in seen or (isinstance(there, Operation) and there not in on_path):
                continue
            seen.add(there)
            if isinstance(there, Operation):
                if there.operator in EXPLICIT_WEIGHTS:
                    met.add(there)
                    continue
                crossed.add(there)
            todo.append(there)
    return met, crossed
