"""Which line of a composite decides over which operation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain

import networkx as nx
import onnx_ir as ir

from onnxlrp.compiler.bounds import with_bounds
from onnxlrp.compiler.composite import Composite, Line
from onnxlrp.compiler.obstacles import Obstacles
from onnxlrp.errors import CompositeError
from onnxlrp.graph.analysis import Facts
from onnxlrp.graph.canonical import EXPLICIT_WEIGHTS, Network, Operation, constant_of
from onnxlrp.graph.recurrent import RECURRENT
from onnxlrp.graph.shapes import alike, dims_of
from onnxlrp.graph.trees import TREES
from onnxlrp.inputs.preprocessing import Preprocessing
from onnxlrp.propagation.formulas import Parameter
from onnxlrp.propagation.registry import OPERATORS, Operator, live_inputs

_LAYERS = (*EXPLICIT_WEIGHTS, *RECURRENT, *TREES)


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
    composite: Composite, network: Network, facts: Facts, preprocessing: Preprocessing | None
) -> tuple[Facts, dict[Operation, Assignment]]:
    """Choose the rule of every operation that relevance reaches under these rules.

    The first line that matches an operation, with a rule that its operator takes, decides, else
    the operator's default. From the score on, an operation is asked about only if some rule sends
    relevance to it: behind a gate may lie anything.

    Returns
    -------
    the facts, narrowed to what relevance reaches, and the rules

    Raises
    ------
    UnsupportedError
        If relevance cannot cross an operation that it reaches; all such are named.
    CompositeError
        If an operation that needs a rule is matched by no line; all such are named.
    InputError
        If the bounds of a rule do not suit its layer, or nothing says what they are.

    """
    positions = _positions(facts, network)
    kinds = kinds_of(facts)
    result: dict[Operation, Assignment] = {}
    missing, obstacles = [], Obstacles(facts, network.graph)
    reached = {id(network.score)}
    for operation in reversed(facts.operations):
        if not any(id(value) in reached for value in operation.outputs):
            continue
        if not obstacles.crossable(operation):
            reached.update(id(value) for value in live_inputs(operation, facts.live))
            continue
        known = OPERATORS[operation.operator]
        chosen = _choose(composite, operation, known, positions[operation] | kinds.keys())
        if chosen is None:
            missing.append(f"{operation.name} ({operation.operator})")
            chosen = Assignment("", {}, None)
        result[operation] = chosen
        receivers = known.receivers(operation, facts.live, chosen.rule)
        reached.update(id(value) for value in receivers)
    obstacles.check()
    if missing:
        raise CompositeError(
            f"{composite.name} has no line for {', '.join(reversed(missing))}; add one to the "
            "file, or with --rule 'OPERATOR: RULE'"
        )
    crossed = [operation for operation in facts.operations if operation in result]
    narrowed = replace(facts, operations=crossed, relevant=facts.relevant & reached)
    bounded = {}
    for operation in crossed:
        chosen = result[operation]
        origin = "" if chosen.line is None else chosen.line.origin
        parameters = with_bounds(
            operation, chosen.parameters, network, facts.live, preprocessing, origin
        )
        bounded[operation] = replace(chosen, parameters=parameters)
    return narrowed, bounded


def kinds_of(facts: Facts) -> dict[str, str]:
    """Return the kinds of a network, each with the node that makes it one."""
    for kind, shows in (("attention", _weighs), ("depthwise", _keeps_channels_apart)):
        for operation in facts.operations:
            if shows(operation):
                return {kind: operation.name}
    return {}


def _weighs(operation: Operation) -> bool:
    return operation.operator == "Mixture"


def _keeps_channels_apart(operation: Operation) -> bool:
    """Whether it is a convolution whose outputs see one of several channels each."""
    weights = operation.input(1) if operation.operator == "Conv" else None
    several = operation.attributes.get("group", 1) > 1
    return several and weights is not None and weights.shape is not None and weights.shape[1] == 1


def _choose(
    composite: Composite, operation: Operation, known: Operator, places: set[str]
) -> Assignment | None:
    """Return the rule of an operation; None where one is needed and nothing names it."""
    if not known.rules:
        return Assignment("", {}, None)
    for line in composite.lines:
        if line.rule in known.rules and line.matches(operation.name, operation.operator, places):
            parameters = composite.parameters_of(line, known.rules[line.rule])
            return Assignment(line.rule, parameters, line)
    if known.default is None:
        return None
    defaults = known.rules.get(known.default, {})
    return Assignment(known.default, composite.parameters_of(None, defaults), None)


def unmatched(
    composite: Composite, facts: Facts, assigned: Mapping[Operation, Assignment]
) -> list[tuple[Line, str]]:
    """Lines written by the user that decided over nothing, and why."""
    used = {id(assignment.line) for assignment in assigned.values()}
    result = []
    for line in composite.lines:
        if not line.by_user or id(line) in used:
            continue
        matched = [
            operation
            for operation in facts.operations
            if line.matches(
                operation.name, operation.operator, [line.position or "", line.network or ""]
            )
        ]
        reason = "this line matches no node that relevance crosses"
        if matched and line.position:
            reason = f"no {line.position} layer is among the {len(matched)} nodes it matches"
        elif matched:
            reason = f"earlier lines have decided over the {len(matched)} nodes it matches"
        result.append((line, reason))
    return result


def _positions(facts: Facts, network: Network) -> dict[Operation, set[str]]:
    on_path = set(facts.operations)
    first, before = _until_layers(facts, [id(v) for v in network.inputs], on_path, forward=True)
    last, _ = _until_layers(facts, [id(network.score)], on_path, forward=False)
    layers = {operation for operation in on_path if operation.operator in _LAYERS}
    result: dict[Operation, set[str]] = {operation: set() for operation in on_path}
    for operation in first:
        result[operation].add("first")
    for operation in last:
        result[operation].add("last")
    behind = set(chain.from_iterable(nx.bfs_layers(facts.graph, layers)))
    for operation in before - behind:
        inputs = live_inputs(operation, facts.live)
        if len(inputs) == 1 and _same_shape(inputs[0], operation.outputs[0]):
            result[operation].add("preprocessing")
    return result


def _same_shape(source: ir.Value, result: ir.Value) -> bool:
    if source.shape is None or result.shape is None:
        return source.shape is result.shape
    return alike(dims_of(source.shape), dims_of(result.shape))


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
                if there.operator in _LAYERS or (
                    there.operator == "Gather" and (constant_of(there.inputs[0]) is not None)
                ):
                    met.add(there)
                    continue
                crossed.add(there)
            todo.append(there)
    return met, crossed
