"""Puts the emitted nodes into the model: names, outputs, metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from onnxlrp.compiler.naming import free, value_names
from onnxlrp.compiler.several import depending, give_own_batch
from onnxlrp.compiler.walk import Flow
from onnxlrp.errors import InputError
from onnxlrp.graph.analysis import reads, within
from onnxlrp.graph.canonical import Network
from onnxlrp.graph.loading import METADATA_PREFIX
from onnxlrp.propagation import layout
from onnxlrp.propagation.expression import Emitter, Tensor

ACCOUNT = METADATA_PREFIX + "account"
"""Where a node says, as JSON, by which tensors' names or numbers divisions were made."""


@dataclass(frozen=True)
class OutputNames:
    """What the explainer's additional outputs are called.

    Attributes
    ----------
    relevance : by the name of the explained input
    intermediates : by the name of the model's value
    scores : those of the classes; "" where an output of the model is they
    root_scores : the scores at the reference; "" without one

    """

    relevance: Mapping[str, str]
    intermediates: Mapping[str, str]
    scores: str
    root_scores: str


def _renamed(
    chooser: ir.Value | None, usual: str, sources: Sequence[ir.Value], names: Mapping[str, str]
) -> list[str]:
    """Tell which names of the explainer differ from the usual because the model has them."""
    changed = [(chooser.name or "", usual)] if chooser is not None else []
    changed += [(names[value.name or ""], _wanted(value, len(sources))) for value in sources]
    return [
        f"the model has a value '{usual}' of its own, so the explainer's is called '{name}'"
        for name, usual in changed
        if name != usual
    ]


def _wanted(source: ir.Value, count: int) -> str:
    return "relevance" if count == 1 else f"relevance_{source.name}"


def assemble(
    model: ir.Model,
    network: Network,
    flow: Flow,
    intermediates: Sequence[str],
    metadata: Mapping[str, str],
) -> list[str]:
    """Append what was emitted, and is needed, to the model's graph, with inputs and metadata.

    The relevance of value v is named `onnxlrp/relevance/<v>`, that of an explained input is the
    output `relevance`, or `relevance_<input>` where there are several; `scores` are those of the
    places of a dense output.

    Parameters
    ----------
    model : whose graph is completed
    network, flow : what was explained, and the relevance that was written
    intermediates : names of values whose relevance becomes an output
    metadata : what else the explainer says about itself

    Returns
    -------
    what the user should know of names that differ from the usual

    Raises
    ------
    InputError
        If no relevance of its own arrives at an intermediate value, or it does not exist.

    """
    names = _append(network, flow, _values(network.graph, intermediates))
    network.graph.inputs.extend(flow.inputs)
    usual = "weights" if flow.start.weights else "target"
    facts = {
        **metadata,
        "score": network.score.name or "",
        "output": network.output.name or "",
        "several": json.dumps(flow.several),
        "masks": json.dumps({value.name: mask.name for value, mask in flow.masks.items()}),
        "signs": json.dumps(network.signs),
        "silent": json.dumps(_silent(network, flow)),
        "target": str(flow.start),
        "contrast": flow.start.contrast or "",
        f"{usual}_input": "" if flow.chooser is None else flow.chooser.name or "",
        "scores": names.scores,
        "reference_scores": names.root_scores,
        "scaled": json.dumps(flow.scaled),
        "references": json.dumps({v.name: given.name for v, given in flow.roots.inputs.items()}),
    }
    _describe(model, names, facts)
    return _renamed(flow.chooser, usual, network.inputs, names.relevance)


def _silent(network: Network, flow: Flow) -> dict[str, str]:
    """Return the rules of the operations that relevance crossed without a node of their own."""
    written = {node.metadata_props.get(METADATA_PREFIX + "node") for node in network.graph}
    return {name: rule for name, rule in flow.rules.items() if name not in written}


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


def _append(network: Network, flow: Flow, intermediates: Sequence[ir.Value]) -> OutputNames:
    """Append nodes, initializers and outputs to the graph."""
    graph, emitter, relevance, sources = network.graph, flow.emitter, flow.relevance, network.inputs
    taken = value_names(graph)
    outputs: list[ir.Value] = []
    by_input: dict[str, str] = {}
    emitter.explain("outputs", "relevance", {})
    for source in sources:
        name = free(_wanted(source, len(sources)), taken)
        tensor = relevance.get(source, emitter.zero)
        if tensor.is_zero:
            like = emitter.tensor(source)
            zeros = layout.expand(emitter.scalar(0.0, like), like)
            tensor = layout.alongside(zeros, relevance[network.score]) if flow.several else zeros
        outputs.append(_named(emitter, tensor, name))
        by_input[source.name or ""] = name
    by_value: dict[str, str] = {}
    for value in intermediates:
        if value not in relevance or relevance[value].is_zero:
            raise InputError(
                f"no relevance of its own arrives at '{value.name}': it does not lie between an "
                "explained input and the score, or is merged into its layer"
            )
    wanted = {id(value) for value in intermediates}
    for value, tensor in relevance.items():
        if value in sources or tensor.is_zero:
            continue
        name = free(f"onnxlrp/relevance/{value.name}", taken)
        named = _named(emitter, tensor, name)
        if id(value) in wanted:
            outputs.append(named)
            by_value[value.name or ""] = name
    scores = ""
    if flow.scores is not None:
        scores = free("scores", taken)
        outputs.append(_named(emitter, flow.scores, scores))
    root_scores = ""
    if flow.root_scores is not None:
        root_scores = free("reference_scores", taken)
        outputs.append(_named(emitter, flow.root_scores, root_scores))
    kept = _needed(emitter.nodes, outputs)
    if flow.several and flow.chooser is not None:
        give_own_batch(kept, [flow.chooser], sources)
    used = {id(value) for node in kept for value in reads(node)}
    for initializer in emitter.initializers:
        if id(initializer) in used:
            graph.register_initializer(initializer)
    _label(kept, taken)
    _write_accounts(kept, {id(value) for value in emitter.initializers} - used)
    graph.extend(_relevance_last(kept, flow, network.score))
    graph.outputs.extend(outputs)
    return OutputNames(by_input, by_value, scores, root_scores)


def _named(emitter: Emitter, tensor: Tensor, name: str) -> ir.Value:
    """Give a tensor a name; one that has a name already is handed through an Identity."""
    value = tensor.value
    assert value is not None
    if value.name is not None:
        node = ir.node("Identity", [value], outputs=[ir.Value(shape=value.shape, type=value.type)])
        node.meta["label"] = ("relevance", "identity")
        emitter.nodes.append(node)
        value = node.outputs[0]
    value.name = name
    return value


def _needed(nodes: Sequence[ir.Node], outputs: Iterable[ir.Value]) -> list[ir.Node]:
    """Drop what no output depends on, and detach it from the model's values."""
    needed = {id(value) for value in outputs}
    kept = []
    for node in reversed(nodes):
        if any(id(value) in needed for value in node.outputs):
            kept.append(node)
            needed.update(id(value) for value in reads(node))
            accounts = node.meta.get("accounts", {}).values()
            needed.update(id(account.bias.value) for account, _ in accounts)
        else:
            for step in (node, *within(node)):
                for index in range(len(step.inputs)):
                    step.replace_input_with(index, None)
    return kept[::-1]


def _relevance_last(nodes: Sequence[ir.Node], flow: Flow, score: ir.Value) -> list[ir.Node]:
    """Put what does not depend on the explained class in front of all that does.

    onnxruntime runs a node's inputs in the order of their places in the file, the last first: it
    then computes each denominator when relevance arrives there, and keeps none from the start.
    """
    first = flow.relevance.get(score, flow.emitter.zero).value
    late = depending(nodes, [value for value in (flow.chooser, first) if value is not None])
    asked = set(late)
    return [*(node for node in nodes if node not in asked), *late]


def _label(nodes: Iterable[ir.Node], taken: set[str]) -> None:
    """Name nodes `onnxlrp/<explained node>/<rule>/<running number>`, and values after them.

    `taken` are the names that the model's values have.
    """
    counts: dict[tuple[str, str], int] = {}
    for node in nodes:
        label = node.meta.pop("label")
        counts[label] = counts.get(label, 0) + 1
        _name(node, f"onnxlrp/{label[0]}/{label[1]}/{counts[label]}", taken)
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                for index, value in enumerate(attribute.value.inputs):
                    value.name = free(f"{node.name}/{index}", taken)
                for index, step in enumerate(attribute.value):
                    step.meta.pop("label")
                    for value in step.outputs:
                        # onnx_ir has named it as torch names values of a model.
                        value.name = None
                    _name(step, f"{node.name}/step/{index + 1}", taken)


def _name(node: ir.Node, name: str, taken: set[str]) -> None:
    node.name = name
    for index, value in enumerate(node.outputs):
        if value.name is None:
            value.name = free(name if index == 0 else f"{name}:{index}", taken)
    node.meta.pop("key", None)


def _write_accounts(nodes: Iterable[ir.Node], unused: set[int]) -> None:
    """Note the terms of each division, by the names of the values that hold them.

    A bias that no node reads, for the model adds it by itself, is noted as a list of numbers: an
    initializer that nothing reads would make onnxruntime warn at every load.
    """
    for node in nodes:
        accounts = []
        for account, times in node.meta.pop("accounts", {}).values():
            terms: dict[str, Any] = {} if times == 1 else {"times": times}
            for name, tensor in vars(account).items():
                value = tensor.value
                terms[name] = "" if value is None else value.name
                if value is not None and id(value) in unused:
                    terms[name] = value.const_value.numpy().tolist()
            accounts.append(terms)
        if accounts:
            node.metadata_props[ACCOUNT] = json.dumps(accounts)


def _describe(model: ir.Model, names: OutputNames, facts: Mapping[str, str]) -> None:
    """Write the explainer's metadata."""
    entries = {
        **facts,
        "relevance": json.dumps(dict(names.relevance)),
        "intermediates": json.dumps(dict(names.intermediates)),
    }
    model.metadata_props.update({METADATA_PREFIX + key: text for key, text in entries.items()})
    model.producer_name = "onnxlrp"
    model.producer_version = facts["version"]
