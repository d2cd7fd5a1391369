"""Does relevance add up? Read from an explainer's own values, layer by layer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from support import Array, run, with_outputs

PREFIX = "onnxlrp/relevance/"


@dataclass(frozen=True)
class Entry:
    """One step: nodes that share an input or hold values without relevance between them.

    `leak` is what remains unexplained of the difference between the relevance that came in at the
    outputs and what went on to the inputs, as a part of the sum of |R|.
    """

    nodes: tuple[str, ...]
    leak: float
    taken_by_bias: float
    taken_by_stabiliser: float


def balance(explainer: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Entry]:
    """Account for all relevance of an explainer on one input."""
    stored = {entry.key: entry.value for entry in explainer.metadata_props}
    by_input = json.loads(stored["onnxlrp.relevance"])
    relevance_of = dict(by_input)
    accounts: dict[str, list[dict[str, Any]]] = {}
    model_nodes = []
    for node in explainer.graph.node:
        notes = {entry.key: entry.value for entry in node.metadata_props}
        if "onnxlrp.account" in notes:
            accounts.setdefault(notes["onnxlrp.node"], []).append(
                json.loads(notes["onnxlrp.account"])
            )
        for name in node.output:
            if name.startswith(PREFIX):
                relevance_of[name.removeprefix(PREFIX)] = name
        if not node.name.startswith("onnxlrp/"):
            model_nodes.append(node)
    terms = {
        term
        for group in accounts.values()
        for account in group
        for term in account.values()
        if term and isinstance(term, str)
    }
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in explainer.graph.initializer}
    wanted = sorted((terms | set(relevance_of.values())) - set(constants))
    values = {**constants, **run(with_outputs(explainer, wanted), feeds)}
    return [
        _entry(group, relevance_of, accounts, values)
        for group in _groups(model_nodes, set(relevance_of), stored["onnxlrp.score"])
    ]


def _groups(
    nodes: list[onnx.NodeProto], relevant: set[str], score: str
) -> list[list[onnx.NodeProto]]:
    """Unite nodes that share a relevant input, or hand each other a value without relevance."""
    leader = list(range(len(nodes)))

    def find(index: int) -> int:
        while leader[index] != index:
            index = leader[index]
        return index

    # What only the score leads to, such as a softmax, gets no relevance.
    on_path = _ancestors(nodes, score)
    last: dict[str, int] = {}
    made = {name: i for i, node in enumerate(nodes) for name in node.output}
    for index, node in enumerate(nodes):
        if index not in on_path:
            continue
        for name in node.input:
            if name in relevant and name in last:
                leader[find(index)] = find(last[name])
            elif name in relevant:
                last[name] = index
            elif name in made and made[name] in on_path:
                leader[find(index)] = find(made[name])
    groups: dict[int, list[onnx.NodeProto]] = {}
    for index in sorted(on_path):
        groups.setdefault(find(index), []).append(nodes[index])
    return [
        group for group in groups.values() if any(n in relevant for g in group for n in g.input)
    ]


def _ancestors(nodes: list[onnx.NodeProto], score: str) -> set[int]:
    needed, found = {score}, set()
    for index in reversed(range(len(nodes))):
        if needed.intersection(nodes[index].output):
            found.add(index)
            needed.update(nodes[index].input)
    return found


def _entry(
    group: list[onnx.NodeProto],
    relevance_of: Mapping[str, str],
    accounts: Mapping[str, list[dict[str, Any]]],
    values: Mapping[str, Array],
) -> Entry:
    read = {name for node in group for name in node.input if name in relevance_of}
    made = {name for node in group for name in node.output if name in relevance_of}

    def total(names: set[str]) -> float:
        return sum(float(values[relevance_of[n]].sum(dtype=np.float64)) for n in names)

    bias = stabiliser = 0.0
    for node in group:
        for account in accounts.get(node.name, []):
            terms = {
                key: np.asarray(values[term] if isinstance(term, str) else term, np.float64)
                for key, term in account.items()
                if term
            }
            share, denominator = terms["share"], terms["denominator"]
            stabiliser += float((terms["relevance"] - denominator * share).sum())
            if "bias" in terms:
                offset = terms["bias"]
                if offset.ndim == 1 and share.ndim > 2 and node.op_type.startswith("Conv"):
                    offset = offset.reshape(-1, *(1,) * (share.ndim - 2))
                bias += float((offset * share).sum())
    size = sum(float(np.abs(values[relevance_of[n]]).sum(dtype=np.float64)) for n in made | read)
    leak = total(made - read) - total(read - made) - bias - stabiliser
    return Entry(tuple(node.name for node in group), abs(leak) / max(size, 1e-30), bias, stabiliser)
