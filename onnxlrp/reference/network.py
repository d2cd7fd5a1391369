"""Layer-wise Relevance Propagation through a whole network, in float64."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import onnx

from onnxlrp.reference.beginning import start
from onnxlrp.reference.contributions import LINEAR
from onnxlrp.reference.crossing import propagate
from onnxlrp.reference.operators import NORMALISATIONS, Array, evaluate
from onnxlrp.reference.recurrent import GATES

CHOICES = LINEAR | NORMALISATIONS | {"MaxPool", "LRN", "Softmax", "LogSoftmax", *GATES}
"""Operators for which there is a choice of rules."""

_NOT_DIFFERENTIABLE = ("Shape", "Size", "ArgMax")

RuleOf = Callable[[onnx.NodeProto], tuple[str, dict[str, Any]]]


def live_names(model: onnx.ModelProto, explained_inputs: Collection[str]) -> set[str]:
    """Return the values that depend on the explained inputs other than by their shape."""
    live = set(explained_inputs)
    for node in model.graph.node:
        if node.op_type not in _NOT_DIFFERENTIABLE and live.intersection(node.input):
            live.update(name for name in node.output if name)
    return live


def explain(
    model: onnx.ModelProto,
    feeds: Mapping[str, Any],
    rule_of: RuleOf,
    explained_inputs: Collection[str],
    score: str,
    target: Any = -1,
    **begin: Any,
) -> dict[str, Array]:
    """Return the relevance of every value that has some, by name.

    Parameters
    ----------
    model, feeds
        The network and its inputs.
    rule_of
        The rule and its parameters for a node; asked only where there is a choice.
    explained_inputs
        The inputs of the network to explain.
    score
        The value that holds the logits, [N, C].
    target
        The class to explain, or one per sample; -1 is the top-scoring class.
    begin
        What else `start` takes.
    """
    values = evaluate(model, feeds)
    live = live_names(model, explained_inputs)
    relevance = {score: start(values[score], target, **begin)}
    for node in reversed(model.graph.node):
        alive = [name in live for name in node.input]
        if not any(alive) or not any(name in relevance for name in node.output):
            continue
        rule, parameters = rule_of(node) if node.op_type in CHOICES else ("pass", {})
        propagated = propagate(
            node,
            [values[name] if name else None for name in node.input],
            [relevance.get(name) for name in node.output],
            rule,
            parameters,
            alive,
        )
        for name, r in zip(node.input, propagated.relevance, strict=True):
            if r is not None:
                # At a fork, a value receives relevance from each of its consumers.
                relevance[name] = relevance[name] + r if name in relevance else r
    return relevance
