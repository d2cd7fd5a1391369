"""Both ends of an explanation: the score it starts from, and the inputs it arrives at."""

from __future__ import annotations

from collections.abc import Sequence

import networkx as nx
import onnx_ir as ir

from onnxlrp.errors import ModelError
from onnxlrp.graph.analysis import dependencies, non_negative, reachable
from onnxlrp.graph.canonical import Network, Operation, constant_of, operations
from onnxlrp.graph.gates import bounded_values, named
from onnxlrp.graph.operators import Fact, has
from onnxlrp.graph.shapes import dims_of

FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_IMAGES = (*FLOATS, ir.DataType.UINT8, ir.DataType.INT8, ir.DataType.UINT16, ir.DataType.INT16)

_INTEGERS = (ir.DataType.INT64, ir.DataType.INT32)

_NORMALISERS = ("Softmax", "LogSoftmax", "Sigmoid")
_WRAPPERS = ("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Dropout")


def canonicalise(
    graph: ir.Graph, output: str | None = None, inputs: Sequence[str] | None = None
) -> Network:
    """Group a model's nodes into operations, and find both ends of the explanation.

    Parameters
    ----------
    graph : as `loading` leaves it
    output, inputs : names; found where none are given

    Raises
    ------
    ModelError
        As `find_score` and `explained_inputs`; or no node computes the score.

    """
    found = operations(graph)
    score, leads_to = find_score(graph, output)
    if score.producer() is None:
        raise ModelError(
            f"the score '{score.name}' is no result of the model, but given to it: there is "
            "nothing to explain"
        )
    return network_of(graph, found, score, leads_to, explained_inputs(graph, found, score, inputs))


def network_of(
    graph: ir.Graph,
    found: Sequence[Operation],
    score: ir.Value,
    output: ir.Value,
    inputs: Sequence[ir.Value],
) -> Network:
    """Give products of live values their names, now that it is known what is explained."""
    reached = reachable(dependencies(found), [id(value) for value in inputs], nx.descendants)
    live = frozenset(node for node in reached if isinstance(node, int))
    found = named(found, live, bounded_values(graph), non_negative(graph))
    return Network(graph, found, score, output, inputs)


def explained_inputs(
    graph: ir.Graph, found: Sequence[Operation], score: ir.Value, names: Sequence[str] | None
) -> list[ir.Value]:
    """Return the inputs to explain: those named, or all that look like images or signals.

    An input qualifies without being named if it holds floats or small integers, has at least two
    axes, and the score depends on its elements.

    Raises
    ------
    ModelError
        If a name is not an input, or no input qualifies.

    """
    depends = reachable(dependencies(found), [id(score)], nx.ancestors)
    by_name = {value.name: value for value in graph.inputs}
    listing = ", ".join(describe(value) for value in graph.inputs) or "none"
    if names:
        for name in names:
            if name not in by_name:
                raise ModelError(f"the model has no input '{name}'; it has {listing}")
            if id(by_name[name]) not in depends:
                raise ModelError(f"the score '{score.name}' does not depend on input '{name}'")
        return [by_name[name] for name in names]
    tokens = _tokens(graph)
    chosen = [
        value
        for value in graph.inputs
        if (value.dtype in _IMAGES or value in tokens)
        and value.shape is not None
        and len(value.shape) >= 2
        and id(value) in depends
    ]
    if not chosen:
        raise ModelError(
            f"no input looks like an image, signal or table (numbers, at least two axes); inputs: "
            f"{listing}; name one with --input if it is to be explained all the same"
        )
    return chosen


def _tokens(graph: ir.Graph) -> list[ir.Value]:
    """Return the integer inputs that choose rows of the largest constant table: tokens.

    Tables of positions and segments are smaller than the vocabulary.
    """
    rows: dict[ir.Value, int] = {}
    for source in graph.inputs:
        todo, seen = [source], {source}
        while todo:
            for node, index in todo.pop().uses():
                table = constant_of(node.inputs[0]) if node.op_type == "Gather" else None
                if index == 1 and table is not None and source.dtype in _INTEGERS:
                    rows[source] = max(rows.get(source, 0), len(table))
                elif index == 0 and (node.op_type == "Cast" or has(node.op_type, Fact.MOVES)):
                    new = [value for value in node.outputs if value not in seen]
                    todo += new
                    seen.update(new)
    return [value for value, count in rows.items() if count == max(rows.values())]


def find_score(graph: ir.Graph, name: str | None) -> tuple[ir.Value, ir.Value]:
    """Return the value that relevance starts from, [N, classes], and the output it leads to.

    A Softmax, LogSoftmax or Sigmoid at the end is set aside, through reshapes and casts around
    it. Without a name, the one output with a class axis is taken.

    Raises
    ------
    ModelError
        If the name is not an output, or not exactly one output has a class axis.

    """
    listing = ", ".join(describe(value) for value in graph.outputs)
    if name is not None:
        chosen = [value for value in graph.outputs if value.name == name]
        if not chosen:
            raise ModelError(f"the model has no output '{name}'; its outputs: {listing}")
        if not _has_class_axis(chosen[0]):
            raise ModelError(
                f"output {describe(chosen[0])} has no class axis: [N, classes] is needed"
            )
        return logits_of(chosen[0]), chosen[0]
    candidates = [value for value in graph.outputs if _has_class_axis(value)]
    starts = {id(start): (start, value) for value in candidates for start in [logits_of(value)]}
    if not starts:
        raise ModelError(
            f"no output has a class axis [N, classes]; outputs: {listing}; "
            "only classifiers and single scores can be explained"
        )
    if len(starts) > 1:
        raise ModelError(
            f"several outputs have a class axis: {', '.join(describe(v) for v in candidates)}; "
            "say which one to explain with --output"
        )
    return next(iter(starts.values()))


def logits_of(output: ir.Value) -> ir.Value:
    """Return what a trailing softmax or sigmoid was given; the output itself without one."""
    value = output
    while (node := value.producer()) is not None and node.domain in ("", "ai.onnx"):
        source = node.inputs[0] if node.inputs else None
        if source is None:
            break
        if node.op_type in _NORMALISERS and _over_classes(node):
            return source if _has_class_axis(source) else output
        if node.op_type not in _WRAPPERS:
            break
        value = source
    return output


def _over_classes(node: ir.Node) -> bool:
    value = node.inputs[0]
    if node.op_type == "Sigmoid":
        return True
    if value is None or value.shape is None:
        return False
    axis = node.attributes["axis"].value if "axis" in node.attributes else -1
    sizes = dims_of(value.shape)
    axis %= len(sizes)
    return axis >= 1 and all(size == 1 for size in sizes[axis + 1 :])


def _has_class_axis(value: ir.Value) -> bool:
    if value.dtype not in FLOATS or value.shape is None:
        return False
    sizes = dims_of(value.shape)
    if len(sizes) == 1:
        # One score per sample, or classes without a batch: only the former can be batched.
        return not isinstance(sizes[0], int) or sizes[0] == 1
    return len(sizes) >= 2 and isinstance(sizes[1], int) and all(s == 1 for s in sizes[2:])


def describe(value: ir.Value) -> str:
    """Name, type and shape of a value, for messages."""
    shape = "?" if value.shape is None else str(list(dims_of(value.shape))).replace("'", "")
    return f"{value.name} {'' if value.dtype is None else value.dtype.name.lower()}{shape}"
