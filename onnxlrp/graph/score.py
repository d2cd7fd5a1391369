"""The score of the classes, which relevance starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxlrp.errors import ModelError
from onnxlrp.graph.canonical import constant_of
from onnxlrp.graph.operators import operator_of
from onnxlrp.graph.shapes import Dim, dims_of

FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)

_NORMALISERS = ("Softmax", "LogSoftmax", "Sigmoid")
_WRAPPERS = ("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Dropout")


@dataclass(frozen=True)
class Score:
    """Where relevance starts.

    Attributes
    ----------
    value : [N, classes], the logits, or [N, 1] with signs
    output : the model's output that it leads to
    signs : of a single logit z in the score of each class: (-1, 1) for the columns 1 - sigmoid(z)
        and sigmoid(z); empty where every class has a score of its own

    """

    value: ir.Value
    output: ir.Value
    signs: tuple[int, ...] = ()


def find_score(graph: ir.Graph, name: str | None) -> Score:
    """Find the value that relevance starts from, and the output it leads to.

    A Softmax, LogSoftmax or Sigmoid at the end is set aside, also where it is written out, and
    through what only renames or casts it. Without a name, the one output with a class axis is
    taken.

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
        return score_of(chosen[0])
    candidates = [value for value in graph.outputs if _has_class_axis(value)]
    starts = {(id(one.value), one.signs): one for value in candidates for one in [score_of(value)]}
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


def score_of(output: ir.Value) -> Score:
    """Return what a softmax or sigmoid that leads to an output was given; itself without one."""
    value = output
    while (node := _maker(value)) is not None:
        source = node.inputs[0] if node.inputs else None
        if source is None:
            break
        logits = _normalised(node)
        if logits is not None:
            return Score(logits if _fits(logits, output) else output, output)
        binary = _binary(node, output)
        if binary is not None:
            return binary
        if operator_of(node) not in _WRAPPERS or not _fits(source, output):
            break
        value = source
    return Score(output, output)


def _maker(value: ir.Value | None) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and node.domain in ("", "ai.onnx") else None


def _fits(value: ir.Value, output: ir.Value) -> bool:
    """Whether a value has a class axis with as many classes as an output."""
    return _has_class_axis(value) and _classes(value) == _classes(output)


def _classes(value: ir.Value) -> Dim:
    assert value.shape is not None
    sizes = dims_of(value.shape)
    return sizes[1] if len(sizes) > 1 else 1


def _normalised(node: ir.Node) -> ir.Value | None:
    """Return the logits of a Softmax, LogSoftmax or Sigmoid, also of one that is written out."""
    source = node.inputs[0]
    if operator_of(node) in _NORMALISERS and source is not None:
        return source if operator_of(node) == "Sigmoid" or _over_classes(node, source) else None
    if operator_of(node) == "Log" and (inner := _maker(source)) is not None:
        return _normalised(inner) if operator_of(inner) in ("Softmax", "Div") else None
    if operator_of(node) != "Div":
        return None
    above, below = _maker(source), _maker(node.inputs[1])
    if (
        above is None
        or below is None
        or (operator_of(above), operator_of(below)) != ("Exp", "ReduceSum")
    ):
        return None
    if below.inputs[0] is not source or not _over_classes(below, source):
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


def _over_classes(node: ir.Node, value: ir.Value | None) -> bool:
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


def describe(value: ir.Value) -> str:
    """Name, type and shape of a value, for messages."""
    shape = "?" if value.shape is None else str(list(dims_of(value.shape))).replace("'", "")
    return f"{value.name} {'' if value.dtype is None else value.dtype.name.lower()}{shape}"
