"""The score of the classes, which relevance starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxlrp.errors import InputError, ModelError
from onnxlrp.graph.canonical import constant_of
from onnxlrp.graph.operators import operator_of
from onnxlrp.graph.place import Place, guessed_axis, read_place
from onnxlrp.graph.shapes import Dim, dims_of

FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)

_NORMALISERS = ("Softmax", "LogSoftmax", "Sigmoid")
_RENAMING = ("Identity", "Cast", "Dropout")
_WRAPPERS = (*_RENAMING, "Reshape", "Flatten", "Squeeze", "Unsqueeze")


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

    """

    value: ir.Value
    output: ir.Value
    signs: tuple[int, ...] = ()
    place: Place | None = None


def find_score(
    graph: ir.Graph, name: str | None, at: str | None = None, class_axis: int | None = None
) -> Score:
    """Find the value that relevance starts from, and the output it leads to.

    A Softmax, LogSoftmax or Sigmoid at the end is set aside, also where it is written out, and
    through what only renames or casts it. Without a name, the one output with a class axis is
    taken; with `at`, the one dense output.

    Parameters
    ----------
    graph : as `loading` leaves it
    name : of the output
    at, class_axis : of a dense output, as `read_place` takes them

    Raises
    ------
    ModelError
        If the name is not an output, or not exactly one output has a class axis.
    InputError
        If the place is none of the output's, or the output has no places.

    """
    if at is None and class_axis is not None:
        raise InputError("--class-axis says where a dense output has its classes: add --at")
    listing = ", ".join(describe(value) for value in graph.outputs)
    suits = _has_class_axis if at is None else _is_dense
    if name is not None:
        chosen = [value for value in graph.outputs if value.name == name]
        if not chosen:
            raise ModelError(f"the model has no output '{name}'; its outputs: {listing}")
        if not suits(chosen[0]):
            raise _unsuited(chosen, at)
        return _placed(chosen[0], at, class_axis)
    candidates = [value for value in graph.outputs if suits(value)]
    found = [_placed(value, at, class_axis) for value in candidates]
    starts = {(id(one.value), one.signs): one for one in found}
    if not starts:
        raise _unsuited(graph.outputs, at)
    if len(starts) > 1:
        what = "a class axis" if at is None else "places"
        raise ModelError(
            f"several outputs have {what}: {', '.join(describe(v) for v in candidates)}; "
            "say which one to explain with --output"
        )
    return next(iter(starts.values()))


def _unsuited(outputs: Sequence[ir.Value], at: str | None) -> Exception:
    """Say why no score was found in outputs, and how one could be."""
    listing = ", ".join(describe(value) for value in outputs)
    if at is not None:
        return InputError(
            f"--at {at}: a classifier has no places, leave it out; outputs: {listing}"
        )
    advice = "only classifiers and single scores can be explained"
    dense = next((value for value in outputs if _is_dense(value)), None)
    if dense is not None and dense.shape is not None:
        rank = len(dense.shape)
        zeros = ",".join(["0"] * (rank - 2))
        advice = (
            f"of a dense output `convert` has to know where the score is: --at {zeros} is one "
            "place, --at all the sum over them; classes lie on axis "
            f"{guessed_axis(rank)} where --class-axis says nothing else"
        )
    return ModelError(f"no output has a class axis [N, classes]; outputs: {listing}; {advice}")


def _placed(output: ir.Value, at: str | None, class_axis: int | None) -> Score:
    if at is None:
        return score_of(output)
    assert output.shape is not None
    sizes = dims_of(output.shape)
    place = read_place(at, sizes, class_axis)
    if place.axis is not None and not isinstance(sizes[place.axis], int):
        raise ModelError(
            f"output {describe(output)} has classes on axis {place.axis}, whose size is not known: "
            "--class-axis moves them"
        )
    return score_of(output, place)


def score_of(output: ir.Value, place: Place | None = None) -> Score:
    """Return what a softmax or sigmoid that leads to an output was given; itself without one."""
    value = output
    while (node := _maker(value)) is not None:
        source = node.inputs[0] if node.inputs else None
        if source is None:
            break
        logits = _normalised(node, place)
        if logits is not None:
            return Score(logits if _fits(logits, output, place) else output, output, place=place)
        binary = _binary(node, output) if place is None else None
        if binary is not None:
            return binary
        # What moves places about would make others of them.
        wrappers = _WRAPPERS if place is None else _RENAMING
        if operator_of(node) not in wrappers or not _fits(source, output, place):
            break
        value = source
    return Score(output, output, place=place)


def _maker(value: ir.Value | None) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and node.domain in ("", "ai.onnx") else None


def _fits(value: ir.Value, output: ir.Value, place: Place | None) -> bool:
    """Whether a value has a class axis with as many classes as an output."""
    if place is not None:
        if value.dtype not in FLOATS or value.shape is None or output.shape is None:
            return False
        return len(value.shape) == len(output.shape)
    return _has_class_axis(value) and _classes(value) == _classes(output)


def _classes(value: ir.Value) -> Dim:
    assert value.shape is not None
    sizes = dims_of(value.shape)
    return sizes[1] if len(sizes) > 1 else 1


def _normalised(node: ir.Node, place: Place | None) -> ir.Value | None:
    """Return the logits of a Softmax, LogSoftmax or Sigmoid, also of one that is written out."""
    source = node.inputs[0]
    if operator_of(node) in _NORMALISERS and source is not None:
        over = operator_of(node) == "Sigmoid" or _over_classes(node, source, place)
        return source if over else None
    if operator_of(node) == "Log" and (inner := _maker(source)) is not None:
        return _normalised(inner, place) if operator_of(inner) in ("Softmax", "Div") else None
    if operator_of(node) != "Div":
        return None
    above, below = _maker(source), _maker(node.inputs[1])
    if (
        above is None
        or below is None
        or (operator_of(above), operator_of(below)) != ("Exp", "ReduceSum")
    ):
        return None
    if below.inputs[0] is not source or not _over_classes(below, source, place):
        return None
    shifted = _maker(above.inputs[0])
    if shifted is not None and operator_of(shifted) == "Sub":
        most = _maker(shifted.inputs[1])
        if (
            most is not None
            and operator_of(most) == "ReduceMax"
            and most.inputs[0] is shifted.inputs[0]
        ):
            return shifted.inputs[0]
    return above.inputs[0]


def _over_classes(node: ir.Node, value: ir.Value | None, place: Place | None) -> bool:
    """Whether a softmax or a reduction goes over the class axis, and nothing else."""
    if value is None or value.shape is None:
        return False
    sizes = dims_of(value.shape)
    axes: Sequence[int] = [-1]
    if "axis" in node.attributes:
        axes = [node.attributes["axis"].value]
    elif len(node.inputs) > 1:
        given = constant_of(node.inputs[1])
        axes = [] if given is None else [int(axis) for axis in given.reshape(-1)]
    if len(axes) != 1:
        return False
    axis = axes[0] % len(sizes)
    if place is not None:
        return axis == place.axis
    return axis >= 1 and all(size == 1 for size in sizes[axis + 1 :])


def _binary(node: ir.Node, output: ir.Value) -> Score | None:
    """Recognise the two columns 1 - p and p, in either order, of p = sigmoid(z)."""
    if operator_of(node) != "Concat" or len(node.inputs) != 2 or _classes(output) != 2:
        return None
    for place in (0, 1):
        likely, rest = node.inputs[place], _maker(node.inputs[1 - place])
        one = None if rest is None or operator_of(rest) != "Sub" else constant_of(rest.inputs[0])
        if rest is None or one is None or (one != 1).any() or rest.inputs[1] is not likely:
            continue
        sigmoid = _maker(likely)
        if sigmoid is None or operator_of(sigmoid) != "Sigmoid" or sigmoid.inputs[0] is None:
            continue
        z = sigmoid.inputs[0]
        if _has_class_axis(z) and _classes(z) == 1:
            return Score(z, output, (1, -1) if place == 0 else (-1, 1))
    return None


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
