"""A model in canonical form, with both ends of its explanation."""

from __future__ import annotations

import re
from collections.abc import Sequence

import networkx as nx
import onnx_ir as ir

from onnxlrp.errors import ModelError
from onnxlrp.graph.analysis import dependencies, non_negative, reachable
from onnxlrp.graph.canonical import Network, Operation, constant_of, operations
from onnxlrp.graph.gates import bounded_values, named
from onnxlrp.graph.operators import Fact, has
from onnxlrp.graph.score import FLOATS, Score, describe, find_score, make_output
from onnxlrp.graph.shapes import dims_of
from onnxlrp.graph.texts import is_category, refusal, texts_read

_IMAGES = (*FLOATS, ir.DataType.UINT8, ir.DataType.INT8, ir.DataType.UINT16, ir.DataType.INT16)

_PLACES = re.compile("position|type|segment", re.IGNORECASE)

_INTEGERS = (ir.DataType.INT64, ir.DataType.INT32)


def canonicalise(
    graph: ir.Graph,
    output: str | None = None,
    inputs: Sequence[str] | None = None,
    at: str | None = None,
    class_axis: int | None = None,
) -> Network:
    """Group a model's nodes into operations, and find both ends of the explanation.

    Parameters
    ----------
    graph : as `loading` leaves it
    output, inputs : names; found where none are given
    at, class_axis : where in a dense output the score is, as `read_place` takes them

    Raises
    ------
    ModelError, InputError
        As `find_score` and `explained_inputs`; or no node computes the score.

    """
    if output is not None:
        make_output(graph, output)
    found = operations(graph)
    score = find_score(graph, found, output, at, class_axis)
    # The -1 of 1 / (1 + exp(-z)), merged into the layer in front of it, would hide z.
    apart = find_score(graph, operations(graph, merging=False), output, at, class_axis)
    if apart.value is not score.value and apart.value.name:
        make_output(graph, apart.value.name)
        found, score = operations(graph), apart
    if score.value.producer() is None:
        raise ModelError(
            f"the score '{score.value.name}' is no result of the model, but given to it: there is "
            "nothing to explain"
        )
    return network_of(graph, found, score, explained_inputs(graph, found, score.value, inputs))


def network_of(
    graph: ir.Graph,
    found: Sequence[Operation],
    score: Score,
    inputs: Sequence[ir.Value],
) -> Network:
    """Give products of live values their names, now that it is known what is explained."""
    reached = reachable(dependencies(found), [id(value) for value in inputs], nx.descendants)
    live = frozenset(node for node in reached if isinstance(node, int))
    found = named(found, live, bounded_values(graph, found), non_negative(graph))
    signs, place, squashed = score.signs, score.place, score.squashed
    return Network(graph, found, score.value, score.output, inputs, signs, place, squashed)


def explained_inputs(
    graph: ir.Graph, found: Sequence[Operation], score: ir.Value, names: Sequence[str] | None
) -> list[ir.Value]:
    """Return the inputs to explain: those named, or all that look like images or signals.

    An input qualifies without being named if it holds floats or small integers, has at least two
    axes, and the score depends on its elements; so do those that choose rows of tables, and where
    these are no texts columns of whole numbers, [N, 1], and of categories.

    Raises
    ------
    ModelError
        If a name is not an input, or no input qualifies.

    """
    depends = reachable(dependencies(found), [id(score)], nx.ancestors)
    by_name = {value.name: value for value in graph.inputs}
    listing = ", ".join(describe(value) for value in graph.inputs) or "none"
    texts = texts_read(graph, score)
    if names:
        for name in names:
            if name not in by_name:
                raise ModelError(f"the model has no input '{name}'; it has {listing}")
            if by_name[name] in texts:
                raise ModelError(refusal(graph, score, texts))
            if id(by_name[name]) not in depends:
                raise ModelError(f"the score '{score.name}' does not depend on input '{name}'")
        return [by_name[name] for name in names]
    tokens = _tokens(graph)
    if not [value for value in tokens if not _is_column(value)]:
        tokens = [value for value in graph.inputs if _is_column(value)]
        tokens += [v for v in graph.inputs if v.dtype is ir.DataType.STRING and is_category(v)]
    chosen = [
        value
        for value in graph.inputs
        if (value.dtype in _IMAGES or value in tokens)
        and value.shape is not None
        and len(value.shape) >= 2
        and id(value) in depends
    ]
    if not chosen and texts:
        raise ModelError(refusal(graph, score, texts))
    if not chosen and not any(id(value) in depends for value in graph.inputs):
        raise ModelError(_cut_off(found, score, depends))
    if not chosen:
        raise ModelError(
            f"no input that the score '{score.name}' depends on looks like an image, signal or "
            f"table (numbers, at least two axes); inputs: {listing}; name one with --input if it "
            "is to be explained all the same"
        )
    return chosen


def _cut_off(found: Sequence[Operation], score: ir.Value, depends: set[int | Operation]) -> str:
    """Say what relevance of a score that reaches no input ends at."""
    ends = [
        f"{operation.name} ({operation.operator})"
        for operation in found
        if operation not in depends and any(id(value) in depends for value in operation.outputs)
    ]
    listing = ", ".join(ends[:4]) + (f" and {len(ends) - 4} more" if len(ends) > 4 else "")
    return (
        f"the score '{score.name}' depends on its inputs only through what compares, counts or "
        f"tells a place, which carries no relevance: {listing or 'nothing at all'}; --output names "
        "a value in front of it that is to be explained in its stead"
    )


def _is_column(value: ir.Value) -> bool:
    sizes = () if value.shape is None else dims_of(value.shape)
    return value.dtype in _INTEGERS and len(sizes) == 2 and sizes[1] == 1


def channels_last(source: ir.Value) -> bool:
    """Whether the graph turns an input's last axis to the place of channels."""
    rank = len(source.shape or ())
    turned = [0, rank - 1, *range(1, rank - 1)]
    return any(
        use.node.op_type == "Transpose" and list(use.node.attributes["perm"].value) == turned
        for use in source.uses()
    )


def _tokens(graph: ir.Graph) -> list[ir.Value]:
    """Return the integer inputs that choose rows of the largest constant table: tokens.

    Tables of positions and segments are smaller than the vocabulary, unless that is of letters:
    then their inputs' names tell them.
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
    rows = {value: rows[value] for value in rows if not _PLACES.search(value.name or "")} or rows
    return [value for value, count in rows.items() if count == max(rows.values())]
