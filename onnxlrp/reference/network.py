"""Layer-wise Relevance Propagation through a whole network, in float64."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import onnx

from onnxlrp.reference.contributions import LINEAR
from onnxlrp.reference.crossing import propagate
from onnxlrp.reference.operators import NORMALISATIONS, Array, evaluate

CHOICES = LINEAR | NORMALISATIONS | {"MaxPool", "LRN", "Softmax", "LogSoftmax"}
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


def start(logits: Array, target: Any) -> Array:
    """Return the relevance to start from: each sample's target keeps its logit, all else is 0.

    ``target`` is a class for all samples or one per sample; -1 is the top-scoring class.
    """
    scores = logits.reshape(len(logits), -1)
    target = np.broadcast_to(np.asarray(target, dtype=np.int64).reshape(-1), len(scores))
    column = np.where(target < 0, scores.argmax(axis=1), target)[:, None]
    relevance = np.zeros_like(scores)
    np.put_along_axis(relevance, column, np.take_along_axis(scores, column, axis=1), axis=1)
    return relevance.reshape(logits.shape)


def explain(
    model: onnx.ModelProto,
    feeds: Mapping[str, Any],
    rule_of: RuleOf,
    explained_inputs: Collection[str],
    score: str,
    target: Any = -1,
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
    """
    values = evaluate(model, feeds)
    live = live_names(model, explained_inputs)
    relevance = {score: start(values[score], target)}
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
