"""From a model with control flow, sequences and optionals to a flat graph of tensors."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from types import MappingProxyType

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes

from onnxlrp.graph import sequences, unrolling
from onnxlrp.graph.constants import fold
from onnxlrp.graph.editing import WHY, Edit, RefusalError, subgraphs
from onnxlrp.graph.operators import operator_of

_HANDLERS: Mapping[str, Callable[[Edit, ir.Node], None]] = MappingProxyType(
    {
        "Loop": unrolling.loop,
        "Scan": unrolling.scan,
        "If": unrolling.branch,
        "SequenceInsert": sequences.insert,
        "SequenceErase": sequences.erase,
        "SequenceAt": sequences.at,
        "SequenceLength": sequences.length,
        "SplitToSequence": sequences.split,
        "ConcatFromSequence": sequences.concat,
        "SequenceMap": sequences.each,
        "OptionalGetElement": sequences.get,
        "OptionalHasElement": sequences.has,
    }
)

FLATTENED = frozenset({*_HANDLERS, "SequenceConstruct", "SequenceEmpty", "Optional"})
"""The operators that are written out where it is known what they do."""


def is_flat(proto: onnx.ModelProto) -> bool:
    """Tell whether a model holds tensors alone, and its graph all that it computes."""
    return not any(node.op_type in _HANDLERS for node in proto.graph.node)


def flatten(
    proto: onnx.ModelProto,
    weights: Collection[str],
    infer: Callable[[onnx.ModelProto], onnx.ModelProto],
) -> onnx.ModelProto:
    """Write out control flow, sequences and optionals as far as it is known what they do.

    What is not known stays, and says why: whether relevance has to cross it is found out later.

    Parameters
    ----------
    proto : of opset 18 or later
    weights : names of those of its inputs that hold weights
    infer : infers the types of all values

    """
    told = onnx.GraphProto.FromString(proto.graph.SerializeToString())
    model = ir.from_proto(proto)
    _go_on(model.graph, Edit(model.graph, weights, _visit).number(np.array(True)))
    _name(model)
    proto = ir.to_proto(model)
    changed = True
    while changed and not is_flat(proto):
        _forget(proto.graph)
        proto, changed = _pass(infer(proto), weights)
    del proto.graph.output[:]
    proto.graph.output.extend(told.output)
    proto.graph.value_info.extend(told.value_info)
    return proto


def _go_on(graph: ir.Graph, always: ir.Value) -> None:
    """Give a Loop without a condition one: onnx cannot infer what has a length and nothing else."""
    for node in graph.all_nodes():
        if operator_of(node) == "Loop" and node.inputs[1] is None:
            node.replace_input_with(1, always)


def _forget(graph: onnx.GraphProto) -> None:
    """Forget the sizes that a file tells of what it holds inside, and of what lies behind.

    They may be those of one sample, or of one step.
    """
    behind: set[str] = set()
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _forget_all(inner, 2 if node.op_type == "Loop" else 0)
        if node.op_type in FLATTENED or behind.intersection(node.input):
            behind.update(node.output)
    kept = [value for value in graph.value_info if value.name not in behind]
    del graph.value_info[:]
    graph.value_info.extend(kept)
    for value in graph.output:
        if value.name in behind:
            value.type.tensor_type.ClearField("shape")


def _forget_all(graph: onnx.GraphProto, keep: int) -> None:
    for value in (*graph.input[keep:], *graph.output):
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    del graph.value_info[:]
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _forget_all(inner, 2 if node.op_type == "Loop" else 0)


def _pass(proto: onnx.ModelProto, weights: Collection[str]) -> tuple[onnx.ModelProto, bool]:
    """Write out what can be; tell whether anything has changed."""
    model = ir.from_proto(proto)
    passes.RemoveInitializersFromInputsPass()(model)
    _own(model)
    fold(model)
    _own(model)
    _name(model)
    changed = _visit_all(Edit(model.graph, weights, _visit), model.graph)
    _name(model)
    return ir.to_proto(model), changed


def _name(model: ir.Model) -> None:
    """Give all nodes names, and all values names that no other has.

    Those of two branches may share them, but onnx, which infers what values hold, mistakes them.
    """
    passes.LiftSubgraphInitializersToMainGraphPass()(model)
    for node in model.graph.all_nodes():
        node.name = node.name or next((v.name for v in node.outputs if v.name), None)
    passes.NameFixPass()(model)
    # Which names what is left out, too.
    passes.RemoveUnusedNodesPass()(model)
    taken = {value.name for value in _values(model.graph)}
    counts: Counter[str] = Counter()
    for graph in model.graphs():
        for value in () if graph is model.graph else _values(graph):
            name = value.name or ""
            while value.name in taken:
                counts[name] += 1
                value.name = f"{name}_{counts[name]}"
            taken.add(value.name)


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from (*graph.inputs, *graph.initializers.values())
    yield from (value for node in graph for value in node.outputs if value.name)


def _own(model: ir.Model) -> None:
    """Let every output of a branch or body be computed in it, or be an input of it."""
    for graph in model.graphs():
        if graph is model.graph:
            continue
        inside = {value for node in graph for value in node.outputs} | set(graph.inputs)
        for index, value in enumerate(graph.outputs):
            if value not in inside:
                copy = ir.node("Identity", [value])
                copy.outputs[0].type, copy.outputs[0].shape = value.type, value.shape
                graph.append(copy)
                graph.outputs[index] = copy.outputs[0]


def _visit_all(edit: Edit, graph: ir.Graph) -> bool:
    """Write out all that is in a graph; tell whether anything has changed."""
    changed = False
    for node in tuple(graph):
        changed |= _visit(edit, node)
    return changed


def _visit(edit: Edit, node: ir.Node) -> bool:
    """Write out a node and what is inside it; tell whether anything has changed."""
    graph = node.graph
    if graph is None:
        return False
    changed = False
    for inner in subgraphs(node):
        changed |= _visit_all(edit, inner)
    handler = _HANDLERS.get(operator_of(node))
    if handler is None:
        return changed
    written = edit.written
    try:
        handler(edit, node)
    except RefusalError as refusal:
        edit.undo(written, graph)
        node.metadata_props[WHY] = json.dumps([refusal.reason, refusal.advice])
        return changed
    return True
