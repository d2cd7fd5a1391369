"""What probabilities are made of: the logits behind an output, however it is written.

From an output one goes back through functions of one value that rise or fall everywhere, the same
for all classes, and through what makes of each class's value its share. What they make together is
evaluated: where it comes near to an end as a class grows likelier, and has one sign, the output is
a probability, or the logarithm of one, and what it is made of is the logit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxlrp.graph.canonical import Operation, constant_of, zero_padding
from onnxlrp.graph.shapes import dims_of

Array = np.ndarray[Any, Any]
Function = Callable[[Array], Array]
Fits = Callable[[ir.Value], bool]


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


_OF_ALL: Mapping[str, Function] = {
    "Sigmoid": _sigmoid,
    "HardSigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "Tanh": np.tanh,
    "Erf": np.vectorize(math.erf, [float]),
    "Softsign": lambda x: np.sign(x) / (1 + 1 / np.abs(x)),
    "Atan": np.arctan,
    "Softplus": lambda x: np.logaddexp(0, x),
    "Exp": np.exp,
    "Neg": np.negative,
    # Of one class's value, whatever the others are.
    "Softmax": _sigmoid,
    "LogSoftmax": lambda x: -np.logaddexp(0, -x),
}
"""Functions that rise or fall everywhere."""

_OF_POSITIVE: Mapping[str, Function] = {"Log": np.log, "Sqrt": np.sqrt, "Reciprocal": np.reciprocal}
"""Those that do so from 0 on."""

_OF_TWO: Mapping[str, Callable[[Array, Array], Array]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Pow": np.power,
    "Max": np.maximum,
    "Min": np.minimum,
}
"""Operators that make such a function with a number as one operand."""

_HANDED_ON = ("Identity", "Cast", "Dropout")
_MOVED = (*_HANDED_ON, "Unsqueeze", "Squeeze", "Reshape", "Flatten")
_MOVED_ALONE = (*_MOVED, "Transpose", "Slice", "Gather", "Expand")
_STATISTICS = ("ReduceSum", "ReduceL1", "ReduceMax", "ReduceMean")

_POSITIVE = np.concatenate([[0.0], np.geomspace(1e-4, 1e4, 81), [np.inf]])
_REAL = np.concatenate([-_POSITIVE[:0:-1], _POSITIVE])


@dataclass(frozen=True)
class Logit:
    """What a probability rises with.

    Attributes
    ----------
    value : the logits of all classes, or a single one; the probabilities where no value holds any
    signs : of a single one in the score of each class; empty where each has its own

    """

    value: ir.Value
    signs: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Step:
    """One operation on the way back, as a function of what it reads.

    Attributes
    ----------
    source : what it reads
    function : of that, element by element
    positive : whether that is never negative
    share : whether the result is a class's share of all
    shift : whether the same is subtracted from all classes, of which a share does not depend

    """

    source: ir.Value
    function: Function
    positive: bool = False
    share: bool = False
    shift: bool = False


@dataclass(frozen=True)
class _Seen:
    """A value on the way back.

    Attributes
    ----------
    value : what was reached
    made : the output as a function of it, or of what is squashed last
    direction : 1 where that rises, -1 where it falls, 0 where it does neither everywhere
    squashed : whether that alone makes a probability of it
    share : whether that is a class's share of all

    """

    value: ir.Value
    made: Function
    direction: int
    squashed: bool
    share: bool


class Logits:
    """Looks for the logits of one output.

    Parameters
    ----------
    found : a graph's operations
    axis : of the classes; None where there are none
    fits : whether a value has its classes where the output has them
    moves : whether what only rearranges may lie between

    """

    def __init__(
        self, found: Sequence[Operation], axis: int | None, fits: Fits, moves: bool
    ) -> None:
        self._makers = {id(op.outputs[0]): op for op in found}
        self._axis, self._fits, self._moves = axis, fits, moves

    def behind(self, output: ir.Value) -> Logit | None:
        """Return the logits behind an output; None where it holds no probabilities."""
        begin = _Seen(output, _same, 1, squashed=False, share=False)
        seen = [begin, *self._walk(output, _same, self._fits)]
        two = self._of_two(seen[-1])
        if two is not None:
            return two
        found, turn = None, False
        for step in seen:
            if step.direction > 0 and (step.squashed or turn):
                found, turn = step.value, False
            else:
                turn = turn or step.squashed
        if found is None and (any(step.squashed for step in seen) or self._mixes(seen[-1].value)):
            return Logit(output)
        return None if found is None else Logit(found)

    def _mixes(self, value: ir.Value) -> bool:
        """Whether a value is probabilities added up, as of coarse classes from fine ones."""
        operation = self._makers.get(id(value))
        if operation is None or operation.operator != "MatMul":
            return False
        weights, source = constant_of(operation.input(1)), operation.input(0)
        if weights is None or source is None or (weights < 0).any():
            return False
        return any(step.squashed for step in self._walk(source, _same, _is_table))

    def _walk(self, value: ir.Value, made: Function, fits: Fits) -> Iterator[_Seen]:
        share = False
        while (step := self._step(value, fits)) is not None:
            value, made = step.source, _composed(made, step.function)
            direction, squashed = _course(made, _POSITIVE if step.positive else _REAL)
            share = share or step.share
            yield _Seen(value, made, direction, squashed or (step.shift and share), share)
            # An exponential in a share is the share's: a softmax.
            if squashed and not step.positive:
                made = np.negative if direction < 0 else _same

    def _of_two(self, seen: _Seen) -> Logit | None:
        """Return the one logit of two columns, of which one falls where the other rises."""
        columns = self._columns(seen.value)
        if len(columns) != 2:
            return None
        signs = [_is_live(source) * _course(function, _REAL)[0] for source, function in columns]
        if seen.share and signs.count(0) == 1 and seen.direction > 0:
            one = int(signs[0] == 0)
            return Logit(columns[one][0], (signs[0] or -signs[1], signs[1] or -signs[0]))
        ways: list[dict[ir.Value, int]] = []
        for source, function in columns:
            made, way = _composed(seen.made, function), dict[ir.Value, int]()
            for step in self._walk(source, made, is_one):
                if way or step.squashed:
                    way[step.value] = step.direction
            ways.append(way)
        for value, direction in ways[0].items():
            if ways[1].get(value, 0) * direction == -1:
                return Logit(value, (direction, -direction))
        return None

    def _columns(self, value: ir.Value) -> list[tuple[ir.Value, Function]]:
        """Return what the columns of a value are made of, each of a value of its own or of one."""
        operation = self._makers.get(id(value))
        if operation is None or self._axis is None or not self._moves or value.shape is None:
            return []
        inputs = [v for v in operation.inputs if v is not None]
        if operation.operator == "Concat":
            along = operation.attributes["axis"] % len(value.shape) == self._axis
            return [(v, _same) for v in inputs] if along and all(map(is_one, inputs)) else []
        if operation.operator == "Pad" and is_one(inputs[0]):
            begins, ends = zero_padding(operation.node) or ((), ())
            if sum(begins) + sum(ends) != 1:
                return []
            return [(inputs[0], _same if end else _none) for end in (sum(ends), sum(begins))]
        function = _OF_TWO.get(operation.operator)
        if function is None or len(inputs) != 2:
            return []
        constants = [constant_of(v) for v in inputs]
        for source, constant in zip(inputs, constants[::-1], strict=True):
            if constant is None or constant.size != 2:
                continue
            each = [_with(function, float(c), source is inputs[0]) for c in constant.reshape(-1)]
            if is_one(source):
                return [(source, one) for one in each]
            columns = self._columns(source)
            if len(columns) == 2:
                return [(v, _composed(f, g)) for f, (v, g) in zip(each, columns, strict=True)]
        return []

    def _step(self, value: ir.Value, fits: Fits) -> _Step | None:
        operation = self._makers.get(id(value))
        if operation is None or not operation.inputs or operation.inputs[0] is None:
            return None
        operator, first, second = operation.operator, operation.inputs[0], operation.input(1)
        if operator == "Sub" and fits(first) and self._log_of_sum(second, first):
            return _Step(first, _OF_ALL["LogSoftmax"], share=True)
        if operator in ("Div", "Sub") and fits(first):
            if operator == "Sub" and self._of_all_classes(second, first):
                return _Step(first, _same, shift=True)
            first = self._unguarded(first)
            of_all = self._of_all_classes(second, first)
            if operator == "Div" and (of_all or self._and_one(second, first)):
                return _Step(first, lambda x: 1 / (1 + 1 / x), positive=True, share=of_all)
        if operator == "Where" and (chosen := constant_of(first)) is not None and not chosen.any():
            # What is never taken says what the other is, as beside an SVM's probabilities.
            return _Step(second, _same) if second is not None and fits(second) else None
        live = [v for v in operation.inputs if v is not None and constant_of(v) is None]
        # Sizes are whole numbers.
        live = [v for v in live if v.dtype != ir.DataType.INT64]
        if len(live) != 1 or not fits(live[0]):
            return None
        moved = _MOVED_ALONE if fits is is_one else _MOVED if self._moves else _HANDED_ON
        if operator in moved:
            return _Step(first, _same) if live[0] is first else None
        share = operator in ("Softmax", "LogSoftmax")
        if share and not self._over_classes(operation):
            return None
        if operator in _OF_ALL:
            return _Step(first, _OF_ALL[operator], share=share)
        if operator in _OF_POSITIVE:
            return _Step(first, _OF_POSITIVE[operator], positive=True)
        return _with_number(operation, live[0])

    def _unguarded(self, value: ir.Value) -> ir.Value:
        """Return what a truth, such as that a sum is 0, is added to."""
        operation = self._makers.get(id(value))
        if operation is None or operation.operator != "Add":
            return value
        kept, guard = operation.inputs
        cast = self._makers.get(id(guard))
        if kept is None or cast is None or cast.operator != "Cast" or cast.inputs[0] is None:
            return value
        return kept if cast.inputs[0].dtype is ir.DataType.BOOL else value

    def _log_of_sum(self, value: ir.Value | None, x: ir.Value) -> bool:
        """Whether a value is log sum exp x over the classes."""
        steps: list[str] = []
        while value is not x and (operation := self._makers.get(id(value))) is not None:
            if operation.operator not in _MOVED:
                steps.append(operation.operator)
            if steps == ["Log", "ReduceSum"] and not self._over_classes(operation):
                return False
            value = operation.input(0)
        return value is x and steps == ["Log", "ReduceSum", "Exp"]

    def _and_one(self, value: ir.Value | None, x: ir.Value) -> bool:
        """Whether a value is x + 1."""
        operation = self._makers.get(id(value))
        if operation is None or x not in operation.inputs:
            return False
        step = _with_number(operation, x)
        return step is not None and bool(step.function(np.ones(1)) == 2)

    def _of_all_classes(self, value: ir.Value | None, x: ir.Value) -> bool:
        """Whether a value is a sum, mean or maximum of x over the classes, perhaps kept from 0."""
        while value is not None and (operation := self._makers.get(id(value))) is not None:
            # Where a sum is 0, nothing is divided by it.
            value = operation.input(int(operation.operator == "Where"))
            if operation.operator in _STATISTICS:
                size = self._makers.get(id(value))
                if size is not None and size.operator == "Abs":
                    value = size.input(0)
                return value is x and self._over_classes(operation)
            if operation.operator not in (*_MOVED_ALONE, "Clip", "Add", "Max", "Where"):
                return False
        return False

    def _over_classes(self, operation: Operation) -> bool:
        """Whether a softmax or a reduction goes over the class axis, and nothing else."""
        source = operation.input(0)
        if source is None or source.shape is None or self._axis is None:
            return False
        sizes = dims_of(source.shape)
        given = constant_of(operation.input(1))
        axes = [int(axis) for axis in given.reshape(-1)] if given is not None else []
        axes = axes or [operation.attributes.get("axis", -1)]
        if len(axes) != 1:
            return False
        axis = axes[0] % len(sizes)
        if not self._moves:
            return axis == self._axis
        return axis >= 1 and all(size == 1 for size in sizes[axis + 1 :])


def is_one(value: ir.Value) -> bool:
    """Whether a value is one number for each sample."""
    if value.shape is None or not len(value.shape):
        return False
    return all(size == 1 for size in dims_of(value.shape)[1:])


def _is_table(value: ir.Value) -> bool:
    return value.shape is not None and len(value.shape) == 2


def _is_live(value: ir.Value) -> bool:
    """Whether a value depends on anything but sizes."""
    if constant_of(value) is not None:
        return False
    node = value.producer()
    if node is None or node.op_type == "ConstantOfShape":
        return node is None
    return node.op_type != "Expand" or node.inputs[0] is None or _is_live(node.inputs[0])


def _with_number(operation: Operation, source: ir.Value) -> _Step | None:
    """Return what an operator does whose other operands are the same number for all classes."""
    others = [constant_of(v) for v in operation.inputs if v is not None and v is not source]
    numbers = [
        float(c.flat[0])
        for c in others
        if c is not None and c.size and c.dtype.kind not in "OSU" and (c == c.flat[0]).all()
    ]
    if len(numbers) != len(others):
        return None
    if operation.operator == "Clip":
        ends = [constant_of(operation.input(index)) for index in (1, 2)]
        low, high = (None if end is None else float(end.flat[0]) for end in ends)
        return _Step(source, lambda x: np.clip(x, low, high))
    function = _OF_TWO.get(operation.operator)
    if function is None or len(numbers) != 1:
        return None
    first = operation.inputs[0] is source
    positive = operation.operator == ("Pow" if first else "Div")
    return _Step(source, _with(function, numbers[0], first), positive)


def _same(x: Array) -> Array:
    return x


def _none(x: Array) -> Array:
    return np.zeros_like(x)


def _with(function: Callable[[Array, Array], Array], number: float, first: bool) -> Function:
    constant = np.array(number)
    return lambda x: function(x, constant) if first else function(constant, x)


def _composed(outer: Function, inner: Function) -> Function:
    return lambda x: outer(inner(x))


def _course(made: Function, at: Array) -> tuple[int, bool]:
    """Tell where a function goes: up 1, down -1, neither 0; and whether it makes probabilities.

    Those come near to a number as they grow, and have one sign, but for what keeps a logarithm from
    that of 0; a function that is as much below 0 as above is none.
    """
    with np.errstate(all="ignore"):
        y = np.asarray(made(at))
    if np.isnan(y).any() or y[0] == y[-1]:
        return 0, False
    direction = 1 if y[-1] > y[0] else -1
    low, high = sorted((y[0], y[-1]))
    slack = 1e-9 * (np.abs(y[np.isfinite(y)]).max(initial=0) + 1)
    if (direction * y[1:] < direction * y[:-1] - slack).any():
        return 0, False
    some = 0.1 * min(high - low, 1)
    return direction, bool(np.isfinite(high) and (low >= -some or high <= some))
