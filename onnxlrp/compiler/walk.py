"""The walk in reverse: relevance from the score to the inputs, added up at forks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import networkx as nx
import onnx_ir as ir

from onnxlrp.compiler.assignment import Assignment
from onnxlrp.compiler.naming import mask_input, value_names
from onnxlrp.compiler.obstacles import obstacle_of
from onnxlrp.compiler.roots import Roots, roots
from onnxlrp.compiler.several import takes_several
from onnxlrp.compiler.start import Start, start_relevance
from onnxlrp.errors import InputError, UnsupportedError
from onnxlrp.graph.analysis import Facts, reachable
from onnxlrp.graph.canonical import Array, Network, Operation
from onnxlrp.graph.operators import Fact, has
from onnxlrp.graph.quantised import READS
from onnxlrp.graph.score import FLOATS
from onnxlrp.propagation import layout
from onnxlrp.propagation.expression import Emitter, Sign, Tensor
from onnxlrp.propagation.formulas import Account
from onnxlrp.propagation.registry import OPERATORS, Crossing, ObstacleError, Relevance, fail
from onnxlrp.telling import counted

_SENSITIVE = ("gradient", "guided", "deconvnet")
"""Rules that are about the slope at the input, and not about what has changed from a reference."""


@dataclass(frozen=True)
class Flow:
    """Relevance as it was written, and what it asks of whoever runs it.

    Attributes
    ----------
    emitter : holds the nodes
    relevance : of every value on a path from an explained input to the score
    rules : of every operation that it crossed, by name; the operator's where there is no choice
    start : what of the score is explained
    chooser : the input that chooses the class, or weights all; None where the class is written in
    several : whether that input may ask for several classes of one sample
    scores : of a dense output, what relevance starts from in sum, [N, classes]
    masks : by value of the model, the input that multiplies the relevance passing through it
    scaled : names of the values whose relevance is a gradient times what they hold
    roots : what the network's values are at the reference; empty without one
    root_scores : the scores there, [1, classes] or [N, classes]; None without one

    """

    emitter: Emitter
    relevance: Mapping[ir.Value, Tensor]
    rules: Mapping[str, str]
    start: Start
    chooser: ir.Value | None
    several: bool
    scores: Tensor | None
    masks: Mapping[ir.Value, ir.Value]
    scaled: Sequence[str]
    roots: Roots
    root_scores: Tensor | None

    @property
    def inputs(self) -> list[ir.Value]:
        """Return the inputs that an explainer has besides the model's own."""
        chosen = [] if self.chooser is None else [self.chooser]
        return [*chosen, *self.masks.values(), *self.roots.inputs.values()]


def propagate(
    network: Network,
    facts: Facts,
    assigned: Mapping[Operation, Assignment],
    start: Start,
    scaled: bool,
    masks: Sequence[str],
    reference: Mapping[str, Array | str],
    together: bool = True,
) -> Flow:
    """Write relevance from the score back to the explained inputs.

    Parameters
    ----------
    network, facts : of the model
    assigned : the rule of every operation that relevance crosses
    start : what of the score is explained
    scaled : whether relevance is multiplied by what it is of, at the explained inputs
    masks : names, with shell wildcards, of values whose relevance an input multiplies
    reference : by explained input, what every contribution is a difference from; empty for none
    together : whether what lies before the network takes a sample of several classes

    Raises
    ------
    UnsupportedError
        If relevance cannot cross an operation by the rule that it got.
    InputError
        If the target is no class, or a mask matches no value.

    """
    emitter = Emitter()
    for node in network.graph:
        if node.domain in ("", "ai.onnx"):
            emitter.known(node)
    root = roots(emitter, network, reference, value_names(network.graph)) if reference else Roots()
    # A reference may have as many rows as there are samples.
    several = together and start.target is None and not reference
    several = several and takes_several(network, facts)
    first = start_relevance(emitter, network, start, root.values.get(id(network.score)), several)
    masked = _masks(facts, network.graph, masks)
    entries = _entries(network, facts, scaled) if start.slope else []
    factors = masked | {value: value for value in entries if scaled}
    relevance, rules = _relevance(emitter, network, facts, assigned, first.relevance, factors, root)
    return Flow(
        emitter,
        relevance,
        rules,
        start,
        first.input,
        several,
        first.scores,
        masked,
        [value.name or "" for value in entries if scaled],
        root,
        first.root,
    )


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
        found |= {value: mask_input(value, graph) for value in matching}
    return found


def _entries(network: Network, facts: Facts, scaled: bool) -> list[ir.Value]:
    """Return where the network can be differentiated first: at its inputs, tokens at their rows."""
    looked_up = [
        operation
        for operation in facts.operations
        if operation.operator == "Gather" and id(operation.inputs[0]) not in facts.live
    ]
    if looked_up and not scaled:
        raise InputError(
            f"{looked_up[0].name}: a token chooses a row, and has no gradient; take composite "
            "gradient_x_input, which multiplies the row's gradient by the row"
        )
    tokens = reachable(facts.graph, looked_up, nx.ancestors)
    for value in network.inputs:
        if id(value) in tokens and value.dtype in FLOATS:
            raise InputError(
                f"'{value.name}' holds tokens as real numbers, of which whole ones are made, with "
                "no gradient: let the model take whole numbers"
            )
    inputs = [value for value in network.inputs if id(value) not in tokens]
    return [*inputs, *(operation.outputs[0] for operation in looked_up)]


def _relevance(
    emitter: Emitter,
    network: Network,
    facts: Facts,
    assigned: Mapping[Operation, Assignment],
    start: Relevance,
    factors: Mapping[ir.Value, ir.Value],
    root: Roots,
) -> tuple[dict[ir.Value, Tensor], dict[str, str]]:
    """Relevance of every value on its way from the score, and the rules that it crossed by."""
    activated = _activations(facts)
    messages: dict[ir.Value, list[Relevance]] = {network.score: [start]}
    result: dict[ir.Value, Relevance] = {}
    rules: dict[str, str] = {}

    def collected(value: ir.Value) -> Relevance | None:
        """Add up what a value got from all that consume it."""
        if value not in result and value in messages:
            total, grounded = emitter.zero, True
            for message in messages[value]:
                total = total + message.tensor
                grounded = grounded and (message.grounded or message.tensor.is_zero)
            if value in factors and not total.is_zero:
                factor = emitter.tensor(factors[value])
                total = total * layout.cast(factor, total.dtype, factor.sign)
            result[value] = Relevance(total, grounded)
        return result.get(value)

    for operation in counted(facts.operations[::-1], "layers crossed"):
        relevance = [collected(value) for value in operation.outputs]
        if all(incoming is None or incoming.tensor.is_zero for incoming in relevance):
            continue
        assignment = assigned[operation]
        rule = rules[operation.name] = assignment.rule or operation.operator
        metadata = {"onnxlrp.node": operation.name, "onnxlrp.rule": rule}
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
            None if root.values else _stand_in(operation, activated, result, emitter),
            [],
            root.values,
        )
        try:
            if root.values and assignment.rule in _SENSITIVE:
                fail(f"rule '{assignment.rule}' knows no reference", "convert without one")
            sent = OPERATORS[operation.operator].propagate(crossing)
        except ObstacleError as error:
            raise UnsupportedError([obstacle_of(operation, network.graph, *error.args)]) from None
        # What is read of a quantised model may be there where the twin has a zero.
        read = READS in operation.node.metadata_props
        for value, one in sent:
            message = replace(one, grounded=one.grounded and not read)
            if id(value) in facts.relevant:
                messages.setdefault(value, []).append(message)
        _record(crossing.accounts)
    totals = {value: collected(value) for value in messages}
    return {v: total.tensor for v, total in totals.items() if total is not None}, rules


def _activations(facts: Facts) -> dict[ir.Value, ir.Value]:
    """Values that only an activation with f(z) = z or 0 reads, with what it makes of them."""
    return {
        value: operation.outputs[0]
        for operation in facts.operations
        if has(operation.operator, Fact.KEEPS)
        and (value := operation.inputs[0]) is not None
        and not value.is_graph_output()
        and len(value.uses()) == 1
    }


def _stand_in(
    operation: Operation,
    activated: Mapping[ir.Value, ir.Value],
    relevance: Mapping[ir.Value, Relevance],
    emitter: Emitter,
) -> Tensor | None:
    """Divide by the activation instead of the pre-activation where relevance allows it.

    Where the activation is 0 there is no relevance (it is grounded), elsewhere the two are the
    same; the activation is never negative, so its stabiliser needs no sign.
    """
    value = operation.outputs[0]
    active = activated.get(value)
    if active is None or active not in relevance or not relevance[active].grounded:
        return None
    return emitter.tensor(active, Sign.NON_NEGATIVE)


def _record(accounts: Iterable[Account]) -> None:
    """Attach divisions' terms to their nodes, for audits; two alike are one node."""
    for account in accounts:
        node = account.share.value.producer() if account.share.value is not None else None
        if node is not None:
            held = node.meta.setdefault("accounts", {})
            times = held[id(account.share.value)][1] if id(account.share.value) in held else 0
            held[id(account.share.value)] = account, times + 1
