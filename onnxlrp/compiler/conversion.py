"""From a model to its explainer: walks the graph in reverse and adds up relevance at forks."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import onnx
import onnx_ir as ir

from onnxlrp.compiler import assembly
from onnxlrp.compiler.assignment import Assignment, assign, unmatched
from onnxlrp.compiler.composite import FROM_PREPROCESSING, Composite
from onnxlrp.compiler.default_composite import DEFAULT_COMPOSITE
from onnxlrp.compiler.obstacles import check_operators, obstacle_of
from onnxlrp.compiler.start import check_target, start_relevance
from onnxlrp.errors import InputError, UnsupportedError
from onnxlrp.graph.analysis import Facts, analyse
from onnxlrp.graph.canonical import Operation, operations
from onnxlrp.graph.head import explained_inputs, find_score
from onnxlrp.graph.loading import load
from onnxlrp.graph.shapes import signature
from onnxlrp.inputs.preprocessing import Preprocessing
from onnxlrp.inputs.presets import doubts
from onnxlrp.propagation.elementwise import KEEPS_NON_ZERO
from onnxlrp.propagation.expression import Emitter, Sign, Tensor
from onnxlrp.propagation.formulas import Parameter
from onnxlrp.propagation.registry import OPERATORS, Crossing, ObstacleError, Relevance


@dataclass(frozen=True)
class ExplainedNode:
    """A node of the model and the rule it got.

    Attributes
    ----------
    name, operator : of the node; `merged` names the nodes that were taken together with it
    value : name of what it computes
    rule, parameters : the rule's name, "" where the operator leaves no choice
    line : the line of the composite that decided, `file:line`

    """

    name: str
    operator: str
    rule: str
    parameters: Mapping[str, Parameter]
    line: str
    merged: tuple[str, ...]
    value: str


@dataclass(frozen=True)
class Conversion:
    """An explainer, and how it came about.

    Attributes
    ----------
    model : the explainer in memory
    nodes : what relevance crosses, in the model's order
    composite : the effective composite
    score : name of the value that relevance starts from
    warnings : what the user should know
    source : path of the model; None if it was in memory

    """

    model: ir.Model = field(repr=False)
    nodes: tuple[ExplainedNode, ...] = field(repr=False)
    composite: Composite = field(repr=False)
    score: str
    warnings: tuple[str, ...]
    source: Path | None

    @property
    def inputs(self) -> list[tuple[str, str, tuple[int | str | None, ...]]]:
        """Name, type and shape of the explainer's inputs."""
        return [signature(value) for value in self.model.graph.inputs]

    @property
    def outputs(self) -> list[tuple[str, str, tuple[int | str | None, ...]]]:
        """Name, type and shape of the explainer's outputs."""
        return [signature(value) for value in self.model.graph.outputs]

    def to_proto(self) -> onnx.ModelProto:
        """Return the explainer as a protobuf, all weights in it."""
        return ir.to_proto(ir.external_data.load_to_model(self.model))

    def save(self, path: str | os.PathLike[str], *, external_data: bool = False) -> None:
        """Write the explainer; a file is only there once it is complete.

        Parameters
        ----------
        path : of the .onnx file
        external_data : put the weights into a file beside it, `<name>.data`

        Raises
        ------
        OSError
            If it cannot be written.
        InputError
            If `path` is the model itself.
        ModelError
            If it is larger than 2 GB, which a protobuf cannot hold, without external data.

        """
        if self.source is not None and Path(path).resolve() == self.source.resolve():
            raise InputError(f"{path} is the model itself; write the explainer to another file")
        assembly.save(self.model, Path(path), external_data)


def convert(
    model: str | os.PathLike[str] | onnx.ModelProto,
    composite: str | Path | Composite = DEFAULT_COMPOSITE,
    *,
    inputs: Sequence[str] | None = None,
    output: str | None = None,
    target: int | Literal["top"] | None = None,
    intermediates: Sequence[str] = (),
    masks: Sequence[str] = (),
    dynamic_batch: bool = False,
    fold_weights: bool = False,
    preprocessing: Preprocessing | None = None,
) -> Conversion:
    """Compile a classifier into an explainer.

    Parameters
    ----------
    model : path of an ONNX file, or the model itself; it is not changed
    composite : which rule each node gets: a name, a TOML file, or a `Composite`
    inputs : names of the inputs to explain; by default all that look like images or signals
    output : name of the output to explain; by default the one with a class axis
    target : class written into the explainer, or "top"; None makes it the input `target`
    intermediates : values of the model whose relevance becomes an output too
    masks : names, with shell wildcards, of values inside; each gets an input `mask_<value>` that
        multiplies the relevance passing through it, for concept-conditional relevance (Achtibat
        et al. 2023); float32, of any shape that broadcasts to the value's
    dynamic_batch : make a fixed batch symbolic, and prove with onnxruntime that two samples at
        once give what they give one by one
    fold_weights : write out tensors derived from weights, for runtimes that do not fold constants
    preprocessing : stored in the explainer, for whoever feeds it images

    Raises
    ------
    ModelError
        If the model cannot be read, or has no input or output to explain.
    UnsupportedError
        If relevance would have to cross an operator that it cannot; it lists every such node.
    CompositeError
        If the composite is malformed or has no line for a node.
    InputError
        If `target`, `intermediates` or `masks` name what does not exist, or the rule z-box
        has no bounds.

    """
    loaded = load(model, dynamic_batch)
    graph = loaded.model.graph
    found = operations(graph)
    score, leads_to = find_score(graph, output)
    sources = explained_inputs(graph, found, score, inputs)
    facts = analyse(graph, found, sources, score)
    chosen = Composite.load(composite)
    check_operators(facts, graph)
    assigned = _with_bounds(assign(chosen, facts, sources, score), preprocessing)
    classes = check_target(target, score)

    emitter = Emitter()
    for node in graph:
        if node.domain in ("", "ai.onnx"):
            emitter.known(node)
    target_input = assembly.target_input(graph) if target is None else None
    start = start_relevance(emitter, score, target_input, target, classes)
    masked = _masks(facts, graph, masks)
    relevance = _propagate(emitter, graph, facts, assigned, score, start, masked)
    names = assembly.assemble(
        loaded.model, emitter, relevance, sources, _values(graph, intermediates)
    )
    added = [*masked.values()] if target_input is None else [target_input, *masked.values()]
    graph.inputs.extend(added)
    assembly.describe(
        loaded.model,
        names,
        {
            "version": version("onnxlrp"),
            "composite": chosen.to_toml(),
            "model_sha256": loaded.sha256,
            "score": score.name or "",
            "output": leads_to.name or "",
            "target": "" if target is None else str(target),
            "masks": json.dumps({value.name: mask.name for value, mask in masked.items()}),
            "target_input": target_input.name or "" if target_input is not None else "",
            **({} if preprocessing is None else {"preprocessing": preprocessing.to_json()}),
        },
    )
    if fold_weights:
        assembly.fold_weights(loaded.model, emitter)
    warnings = doubts(loaded.model.metadata_props, preprocessing)
    warnings += [f"{line.origin}: {reason}" for line, reason in unmatched(chosen, facts, assigned)]
    warnings += sorted(
        f"{op.name}: alpha - beta is {difference:g}, and relevance is multiplied by it"
        for op, entry in assigned.items()
        if entry.rule == "alpha-beta"
        and (difference := _number(entry, "alpha") - _number(entry, "beta")) != 1
    )
    warnings += assembly.renamed(target_input, sources, names.relevance)
    result = Conversion(
        loaded.model,
        tuple(_explained(operation, assigned[operation]) for operation in facts.operations),
        chosen,
        score.name or "",
        tuple(warnings),
        None if isinstance(model, onnx.ModelProto) else Path(model),
    )
    if dynamic_batch:
        from onnxlrp.compiler.batching import prove_batch

        prove_batch(result.to_proto(), target_input.name if target_input is not None else None)
    return result


def _number(assignment: Assignment, name: str) -> float:
    value = assignment.parameters[name]
    assert isinstance(value, int | float)
    return value


def _explained(operation: Operation, assignment: Assignment) -> ExplainedNode:
    return ExplainedNode(
        operation.name,
        operation.operator,
        assignment.rule,
        assignment.parameters,
        assignment.line.origin if assignment.line is not None else "",
        tuple(node.name or "" for node in operation.nodes if node is not operation.node),
        operation.outputs[0].name or "",
    )


def _values(graph: ir.Graph, names: Sequence[str]) -> list[ir.Value]:
    by_name = {value.name: value for node in graph for value in node.outputs}
    for name in names:
        if name not in by_name:
            close = [known for known in by_name if known and name.lower() in known.lower()][:5]
            raise InputError(
                f"the model computes no value '{name}'"
                + (f"; did you mean {', '.join(close)}?" if close else "")
                + "; `onnxlrp inspect MODEL --nodes` lists them"
            )
    return [by_name[name] for name in names]


def _masks(facts: Facts, graph: ir.Graph, patterns: Sequence[str]) -> dict[ir.Value, ir.Value]:
    """Make an input for each value that relevance passes through and a pattern matches."""
    passed = [v for op in facts.operations for v in op.outputs if id(v) in facts.relevant]
    found: dict[ir.Value, ir.Value] = {}
    for pattern in patterns:
        matching = [v for v in passed if fnmatchcase(v.name or "", pattern)]
        if not matching:
            raise InputError(
                f"--mask {pattern} matches no value that relevance passes through; there are "
                f"{', '.join(v.name or '' for v in passed[:8])}, ..."
            )
        found |= {value: assembly.mask_input(value, graph) for value in matching}
    return found


def _with_bounds(
    assigned: Mapping[Operation, Assignment], preprocessing: Preprocessing | None
) -> dict[Operation, Assignment]:
    """Fill in z-box bounds that are to follow from the preprocessing."""
    result = dict(assigned)
    for operation, assignment in assigned.items():
        wanted = [k for k, v in assignment.parameters.items() if v == FROM_PREPROCESSING]
        if not wanted:
            continue
        if preprocessing is None:
            raise InputError(
                f"rule {assignment.rule} at {operation.name} needs bounds of its input: store the "
                "preprocessing (--preprocess ...), or give --set low=... and --set high=..."
            )
        bounds = dict(zip(("low", "high"), preprocessing.bounds, strict=True))
        parameters = {**assignment.parameters, **{name: bounds[name] for name in wanted}}
        result[operation] = replace(assignment, parameters=parameters)
    return result


def _propagate(
    emitter: Emitter,
    graph: ir.Graph,
    facts: Facts,
    assigned: Mapping[Operation, Assignment],
    score: ir.Value,
    start: Tensor,
    masked: Mapping[ir.Value, ir.Value],
) -> dict[ir.Value, Tensor]:
    """Relevance of every value on a path from an explained input to the score."""
    activated = _activations(facts)
    messages: dict[ir.Value, list[Relevance]] = {score: [Relevance(start, True)]}
    result: dict[ir.Value, Relevance] = {}

    def collected(value: ir.Value) -> Relevance | None:
        """Add up what a value got from all that consume it."""
        if value not in result and value in messages:
            total, grounded = emitter.zero, True
            for message in messages[value]:
                total = total + message.tensor
                grounded = grounded and (message.grounded or message.tensor.is_zero)
            if value in masked and not total.is_zero:
                total = total * emitter.tensor(masked[value])
            result[value] = Relevance(total, grounded)
        return result.get(value)

    for operation in reversed(facts.operations):
        relevance = [collected(value) for value in operation.outputs]
        if all(incoming is None or incoming.tensor.is_zero for incoming in relevance):
            continue
        assignment = assigned[operation]
        metadata = {
            "onnxlrp.node": operation.name,
            "onnxlrp.rule": assignment.rule or operation.operator,
        }
        if assignment.parameters:
            pairs = (f"{key}={value}" for key, value in assignment.parameters.items())
            metadata["onnxlrp.parameters"] = " ".join(pairs)
        emitter.explain(operation.name, assignment.rule or operation.operator.lower(), metadata)
        crossing = Crossing(
            operation,
            relevance,
            assignment.rule,
            assignment.parameters,
            emitter,
            facts.live,
            facts.non_negative,
            _stand_ins(operation, activated, result, emitter),
            [],
        )
        try:
            sent = OPERATORS[operation.operator].propagate(crossing)
        except ObstacleError as error:
            raise UnsupportedError([obstacle_of(operation, graph, *error.args)]) from None
        for value, message in sent:
            if id(value) in facts.relevant:
                messages.setdefault(value, []).append(message)
        assembly.record(crossing.accounts)
    totals = {value: collected(value) for value in messages}
    return {value: total.tensor for value, total in totals.items() if total is not None}


def _activations(facts: Facts) -> dict[ir.Value, ir.Value]:
    """Values that only an activation with f(z) = z or 0 reads, with what it makes of them."""
    return {
        value: operation.outputs[0]
        for operation in facts.operations
        if operation.operator in KEEPS_NON_ZERO
        and (value := operation.inputs[0]) is not None
        and not value.is_graph_output()
        and len(value.uses()) == 1
    }


def _stand_ins(
    operation: Operation,
    activated: Mapping[ir.Value, ir.Value],
    relevance: Mapping[ir.Value, Relevance],
    emitter: Emitter,
) -> dict[int, Tensor]:
    """Divide by the activation instead of the pre-activation where relevance allows it.

    Where the activation is 0 there is no relevance (it is grounded), elsewhere the two are the
    same; the activation is never negative, so its stabiliser needs no sign.
    """
    value = operation.outputs[0]
    active = activated.get(value)
    if active is None or active not in relevance or not relevance[active].grounded:
        return {}
    return {id(value): emitter.tensor(active, Sign.NON_NEGATIVE)}
