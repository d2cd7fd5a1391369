"""The score of the classes, which relevance starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnxlrp.errors import InputError, ModelError
from onnxlrp.graph.canonical import Operation
from onnxlrp.graph.logits import Logits
from onnxlrp.graph.place import Place, guessed_axis, read_place
from onnxlrp.graph.quantised import READS
from onnxlrp.graph.shapes import Dim, dims_of

FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


@dataclass(frozen=True)
class Score:
    """Where relevance starts.

    Attributes
    ----------
    value : [N, classes], the logits, or [N, 1] with signs; of any shape with a place
    output : the model's output that it leads to
    signs : of a single logit z in the score of each class: (-1, 1) for the columns 1 - sigmoid(z)
        and sigmoid(z); empty where every class has a score of its own
    place : of a dense output, whose classes have scores at many places, those that count
    squashed : whether the value is seen to hold probabilities, and no logits of theirs are

    """

    value: ir.Value
    output: ir.Value
    signs: tuple[int, ...] = ()
    place: Place | None = None
    squashed: bool = False


def find_score(
    graph: ir.Graph,
    found: Sequence[Operation],
    name: str | None,
    at: str | None = None,
    class_axis: int | None = None,
) -> Score:
    """Find the value that relevance starts from, and the output it leads to.

    What makes probabilities of it at the end is set aside (`logits`). Without a name, the one
    output with a class axis is taken; with `at`, the one dense output.

    Parameters
    ----------
    graph, found : as `loading` leaves it, and its operations
    name : of the output
    at, class_axis : of a dense output, as `read_place` takes them

    Raises
    ------
    ModelError
        If the output, or not exactly one, has a class axis.
    InputError
        If the place is none of the output's, or the output has no places.

    """
    if at is None and class_axis is not None:
        raise InputError("--class-axis says where a dense output has its classes: add --at")
    suits = _has_class_axis if at is None else _is_dense
    if name is not None:
        chosen = [value for value in graph.outputs if value.name == name]
        if not suits(chosen[0]):
            raise _unsuited(chosen, at)
        return _placed(chosen[0], found, at, class_axis)
    candidates = [value for value in graph.outputs if suits(value) and not _is_picked(value)]
    # What is only handed through is no score.
    candidates = [value for value in candidates if value.producer()] or candidates
    scores = [_placed(value, found, at, class_axis) for value in candidates]
    starts = {(id(one.value), one.signs): one for one in scores}
    if not starts:
        raise _unsuited(graph.outputs, at)
    if len(starts) > 1:
        what = "a class axis" if at is None else "places"
        raise ModelError(
            f"several outputs have {what}: {', '.join(describe(v) for v in candidates)}; "
            "say which one to explain with --output"
        )
    return next(iter(starts.values()))


def make_output(graph: ir.Graph, name: str) -> None:
    """Make a value that a graph computes an output, if it is none yet.

    Raises
    ------
    ModelError
        If the graph computes no value of that name.

    """
    if any(value.name == name for value in graph.outputs):
        return
    value = next((v for node in graph for v in node.outputs if v.name == name), None)
    if value is None:
        listing = ", ".join(map(describe, graph.outputs))
        raise ModelError(
            f"the model has no output '{name}', and computes no value of that name; its outputs: "
            f"{listing}"
        )
    graph.outputs.append(value)


def _is_picked(value: ir.Value) -> bool:
    """Whether an output holds the largest scores, whatever their classes."""
    node = value.producer()
    return node is not None and node.op_type == "TopK"


def _scores_above(output: ir.Value) -> ir.Value | None:
    """Return the nearest value with a class axis that an output is made of, several classes."""
    todo, seen = [output], {output}
    for value in todo:
        node = value.producer()
        for source in () if node is None else node.inputs:
            if source is None or source in seen or source.const_value is not None:
                continue
            if source.producer() and _has_class_axis(source) and not _is_picked(source):
                return source
            seen.add(source)
            todo.append(source)
    return None


def _unsuited(outputs: Sequence[ir.Value], at: str | None) -> Exception:
    """Say why no score was found in outputs, and how one could be."""
    listing = ", ".join(describe(value) for value in outputs)
    if at is not None:
        return InputError(
            f"--at {at}: a classifier has no places, leave it out; outputs: {listing}"
        )
    advice = "only classifiers and single scores can be explained"
    above = next(filter(None, map(_scores_above, outputs)), None)
    if above is not None:
        advice = (
            f"convert with --output {above.name} to explain {describe(above)}, of which they are "
            "made"
        )
    dense = next((value for value in outputs if _is_dense(value)), None)
    if dense is not None and dense.shape is not None:
        rank = len(dense.shape)
        zeros = ",".join(["0"] * (rank - 2))
        advice = (
            f"of a dense output `convert` has to know where the score is: --at {zeros} is one "
            "place, --at all the sum over them; classes lie on axis "
            f"{guessed_axis(rank)} where --class-axis says nothing else"
        )
    node = next(filter(None, map(_losing_shape, outputs)), None)
    if node is not None:
        advice += (
            f"; what node '{node.name}' ({node.op_type}) computes has no known shape: declare it "
            "in the model, as the shape of its output, if that is a score"
        )
    return ModelError(f"no output has a class axis [N, classes]; outputs: {listing}; {advice}")


def _losing_shape(output: ir.Value) -> ir.Node | None:
    """Return the node behind which the shapes on the way to an output are unknown."""
    found, todo = None, [output]
    while todo:
        value = todo.pop()
        node = value.producer()
        if value.shape is None and node is not None:
            found, todo = node, [source for source in node.inputs if source is not None]
    return found


def _placed(
    output: ir.Value, found: Sequence[Operation], at: str | None, class_axis: int | None
) -> Score:
    if at is None:
        return score_of(output, found)
    assert output.shape is not None
    sizes = dims_of(output.shape)
    place = read_place(at, sizes, class_axis)
    if place.axis is not None and not isinstance(sizes[place.axis], int):
        raise ModelError(
            f"output {describe(output)} has classes on axis {place.axis}, whose size is not known: "
            "--class-axis moves them"
        )
    return score_of(output, found, place)


def score_of(output: ir.Value, found: Sequence[Operation], place: Place | None = None) -> Score:
    """Return the logits that an output's probabilities are made of; itself without any."""

    def fits(value: ir.Value) -> bool:
        """Whether a value has as many classes as the output, in the same place."""
        if place is not None:
            return value.dtype in FLOATS and value.shape is not None and len(value.shape) == rank
        return _has_class_axis(value) and _classes(value) == _classes(output)

    rank = 0 if output.shape is None else len(output.shape)
    axis = min(1, rank - 1) if place is None else place.axis
    # What is quantised is cut off, but no probability for that.
    handed = [
        replace(one, operator="Identity", inputs=one.inputs[:1])
        if READS in one.node.metadata_props
        else one
        for one in found
    ]
    logit = Logits(handed, axis, fits, moves=place is None).behind(output)
    if logit is None:
        return Score(output, output, place=place)
    return Score(logit.value, output, logit.signs, place, squashed=logit.value is output)


def _classes(value: ir.Value) -> Dim:
    assert value.shape is not None
    sizes = dims_of(value.shape)
    return sizes[1] if len(sizes) > 1 else 1


def _has_class_axis(value: ir.Value) -> bool:
    if value.dtype not in FLOATS or value.shape is None:
        return False
    sizes = dims_of(value.shape)
    if len(sizes) == 1:
        # One score per sample, or classes without a batch: only the former can be batched.
        return not isinstance(sizes[0], int) or sizes[0] == 1
    return len(sizes) >= 2 and isinstance(sizes[1], int) and all(s == 1 for s in sizes[2:])


def _is_dense(value: ir.Value) -> bool:
    """Whether an output has places: axes besides the batch and one for classes."""
    if value.dtype not in FLOATS or value.shape is None or len(value.shape) < 3:
        return False
    return not _has_class_axis(value)


def describe(value: ir.Value) -> str:
    """Name, type and shape of a value, for messages."""
    shape = "?" if value.shape is None else str(list(dims_of(value.shape))).replace("'", "")
    return f"{value.name} {'' if value.dtype is None else value.dtype.name.lower()}{shape}"
