"""LSTM, GRU and RNN: both directions, samples of different length, and states at the start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np
import onnx_ir as ir

from onnxlrp.graph.canonical import Operation, constant_of
from onnxlrp.graph.shapes import dims_of
from onnxlrp.propagation import layout
from onnxlrp.propagation.cells import (
    Came,
    Cell,
    Weights,
    before,
    gru,
    lstm,
    rnn,
    summed,
)
from onnxlrp.propagation.expression import Sign, Tensor
from onnxlrp.propagation.formulas import Account, Parameter
from onnxlrp.propagation.registry import (
    Crossing,
    Relevance,
    fail,
    live_inputs,
    operator,
    static_shape,
)
from onnxlrp.propagation.steps import Function, Rule, Value, of

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_USUAL = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
_NUMBERS: Mapping[str, Mapping[str, float | None]] = {
    "LeakyRelu": {"alpha": 0.01},
    "ThresholdedRelu": {"alpha": None},
    "Elu": {"alpha": 1.0},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    "Affine": {"alpha": None, "beta": None},
    "ScaledTanh": {"alpha": None, "beta": None},
}
"""Numbers that a function takes, and ONNX's defaults.

None where there is none, or where onnxruntime takes another: of ThresholdedRelu 0, not 1.
"""

_PLAIN = ("Relu", "Tanh", "Sigmoid", "Softsign", "Softplus")
_KINDS = {kind.lower(): kind for kind in (*_NUMBERS, *_PLAIN)}


_CROSSINGS = {"LSTM": lstm, "GRU": gru, "RNN": rnn}


def _picked(tensor: Tensor, index: int, axis: int) -> Tensor:
    """Take one element of an axis, which is gone then."""
    if tensor.is_zero:
        return tensor
    place = tensor.emitter.constant(np.array(index, np.int64))
    shape = [size for at, size in enumerate(tensor.shape) if at != axis]
    return tensor.emitter.node("Gather", tensor, place, shape=shape, dtype=tensor.dtype, axis=axis)


def _cut(tensor: Tensor, count: int, size: int, first: int = 0) -> list[Tensor]:
    """Cut what holds one part for each gate, of a size along axis 0."""
    if tensor.is_zero:
        return [tensor] * count
    places = range(first, first + count)
    return [layout.slice(tensor, [k * size], [(k + 1) * size], [0]) for k in places]


@dataclass(frozen=True)
class _Time:
    """The axis of time of one direction.

    Attributes
    ----------
    backwards : whether steps go from the last element to the first
    lengths : of the samples, int64 [N]; None where all are as long as the axis

    """

    backwards: bool
    lengths: Tensor | None

    def turned(self, x: Tensor) -> Tensor:
        """Put steps in their order, or elements in theirs."""
        if not self.backwards or x.is_zero:
            return x
        if self.lengths is None:
            size = x.shape[:1]
            return layout.slice(x, [-1], [layout.BEFORE_ALL], [0], [-1], sizes=size)
        return x.emitter.node(
            "ReverseSequence", x, self.lengths,
            shape=x.shape, dtype=x.dtype, sign=x.sign, time_axis=0, batch_axis=1,
        )  # fmt: skip

    def within(self, like: Tensor, ahead: int) -> Tensor:
        """1 where the step `ahead` of this one is within a sample's length, else 0: [T, N, 1]."""
        assert self.lengths is not None
        emitter = like.emitter
        steps = layout.count(emitter, layout.size(like, 0)) + ahead
        after = layout.unsqueeze(steps, [1])
        inside = emitter.compare("Less", after, layout.unsqueeze(self.lengths, [0]))
        return layout.unsqueeze(layout.cast(inside, like.dtype, Sign.NON_NEGATIVE), [2])

    def came(self, h: Tensor, last_h: Tensor, last_c: Tensor, like: Tensor) -> Came:
        """Put the relevance of the last states where a sample ends; what is behind gets none."""
        rows = last_h if h.is_zero else _picked(h, 0, 0)
        rows = last_c if rows.is_zero else rows
        zero = h.emitter.zero
        if self.lengths is None:
            return Came(h, zero, last_h, last_c, rows)
        now, later = (self.within(like, ahead) for ahead in (0, 1))
        ends = now - later
        return Came(h * now + ends * last_h, ends * last_c, zero, zero, rows)


def _direction(
    crossing: Crossing, rule: Rule, d: int, time: _Time, functions: Sequence[Function]
) -> tuple[Tensor, Tensor, Tensor]:
    """Cross one direction: relevance of x, of the initial h and of the initial c."""
    operation, emitter = crossing.operation, crossing.emitter
    zero, gates = emitter.zero, _GATES[operation.operator]
    r = _picked(crossing.input(2), d, 0)
    size = r.shape[1]
    assert isinstance(size, int)
    w, bias = (_picked(crossing.input(k), d, 0) for k in (1, 3))
    peepholes = _picked(crossing.input(7), d, 0)

    def value(of: ir.Value | None, *places: tuple[int, int]) -> Value:
        tensors = [crossing.tensor(of)]
        if crossing.root:
            at_root = tensors[0] if of is None else crossing.root.get(id(of), tensors[0])
            tensors.append(
                at_root if at_root.value is None else replace(at_root, sign=Sign.UNKNOWN)
            )
        for index, axis in places:
            tensors = [_picked(tensor, index, axis) for tensor in tensors]
        return Value(tensors[0], tensors[1] if crossing.root else None)

    y = operation.outputs[0]
    h = of(time.turned, value(y, (d, 1)))
    first = _picked(h.now, 0, 0)
    none = layout.expand(emitter.scalar(0.0, first), first)
    h0, c0 = (value(operation.input(k), (d, 0)) for k in (5, 6))
    h0, c0 = (of(lambda s: none if s.is_zero else s, state) for state in (h0, c0))
    cell = Cell(
        crossing,
        rule,
        Weights(w, size),
        Weights(r, size),
        _cut(bias, gates, size),
        _cut(bias, gates, size, gates),
        _cut(peepholes, 3, size),
        functions,
        of(time.turned, value(operation.inputs[0])),
        h,
        of(before, h, h0),
        c0,
    )
    of_y, of_h, of_c = (
        *(zero if came is None else came.tensor for came in crossing.relevance),
        zero,
        zero,
    )[:3]
    of_y, of_h, of_c = time.turned(_picked(of_y, d, 1)), _picked(of_h, d, 0), _picked(of_c, d, 0)
    sent = _CROSSINGS[operation.operator](cell, time.came(of_y, of_h, of_c, h.now))
    of_x = rule.contributed(cell.x, summed(sent.shares, cell.w, zero))
    assert isinstance(of_x, Tensor)
    return time.turned(of_x), sent.h0, sent.c0


def _functions(operation: Operation, directions: int) -> list[Function]:
    """Return the functions of all directions, one after the other, as ONNX lists them."""
    attributes = operation.attributes
    names = attributes.get("activations") or _USUAL[operation.operator] * directions
    each = len(_USUAL[operation.operator])
    if len(names) != each * directions:
        fail(
            f"it names {len(names)} functions, and each of its {directions} directions has {each}",
            "export the model again",
        )
    left = {n: list(attributes.get(f"activation_{n}") or ()) for n in ("alpha", "beta")}
    found = []
    for name in names:
        kind = _KINDS.get(name.lower())
        if kind is None:
            fail(f"its function {name} is none of ONNX's", "export the model again")
        numbers = {}
        for number, default in _NUMBERS.get(kind, {}).items():
            taken = left[number].pop(0) if left[number] else default
            if taken is None:
                fail(f"nothing says what {number} of its {kind} is", "give it in the attributes")
            numbers[number] = float(taken)
        found.append(Function(kind, numbers, attributes.get("clip")))
    return found


def _check(operation: Operation, live: frozenset[int]) -> None:
    for place, what in ((1, "weight"), (2, "weight"), (3, "bias"), (7, "peephole weight")):
        value = operation.input(place)
        if value is not None and id(value) in live:
            fail(
                f"its {what} '{value.name}' depends on the explained input",
                "export the model with fixed weights, or write each step as MatMuls",
            )
    w, r = operation.input(1), operation.input(2)
    if w is None or r is None:
        fail("it has no weights", "export the model again")
    for value in (*live_inputs(operation, live), *operation.outputs, w, r):
        if value is not None:
            static_shape(value)
    assert w.shape is not None
    assert r.shape is not None
    found = dims_of(r.shape)
    if not all(isinstance(size, int) for size in found):
        fail("the number of its units is not known", "export the model with fixed weights")
    directions = 1 + (operation.attributes.get("direction") == "bidirectional")
    size = found[-1] if found else 0
    wanted = (directions, _GATES[operation.operator] * size if isinstance(size, int) else 0, size)
    of_w = zip(dims_of(w.shape), wanted[:2], strict=False)
    fits = found == wanted and size and len(w.shape) == 3
    if not fits or any(isinstance(has, int) and has != size for has, size in of_w):
        fail(
            f"its weights W {list(dims_of(w.shape))} and R {list(found)} are not those of "
            f"{directions} x {_GATES[operation.operator]} gates",
            "export the model again",
        )
    _functions(operation, directions)


_RULES: Mapping[str, Mapping[str, Parameter]] = {
    "signal": {"epsilon": 1e-6},
    "uniform": {"epsilon": 1e-6},
    "taylor": {"epsilon": 1e-6},
    "gradient": {},
}


@operator("LSTM", "GRU", "RNN", rules=_RULES, check=_check, default="signal")
def recurrent(crossing: Crossing) -> Sequence[tuple[ir.Value, Relevance]]:
    """Back through time: sums and layers by epsilon, products by the rule, functions unchanged.

    `signal` gives gates nothing (Arras et al. 2017), under a reference what they change of the
    signal that is there; `uniform` half of each product; `gradient` is back-propagation through
    time.
    """
    operation = crossing.operation
    weights = crossing.input(2)
    directions = weights.shape[0]
    assert isinstance(directions, int)
    given = operation.input(4)
    functions = _functions(operation, directions)
    each = len(functions) // directions
    rule = Rule(crossing, [])
    lengths = None
    if given is not None and not _whole(given, operation):
        lengths = layout.cast(Tensor(crossing.emitter, given), ir.DataType.INT64, Sign.NON_NEGATIVE)
    result = []
    for d in range(directions):
        backwards = d == 1 or operation.attributes.get("direction", "forward") == "reverse"
        result.append(
            _direction(
                crossing, rule, d, _Time(backwards, lengths), functions[d * each : (d + 1) * each]
            )
        )
    crossing.accounts.extend(rule.accounts)
    of_x, of_h, of_c = zip(*result, strict=True)
    sent = [(operation.inputs[0], reduce(add, of_x))]
    for place, states in ((5, of_h), (6, of_c)):
        value = operation.input(place)
        if value is None:
            continue
        if id(value) in crossing.live:
            sent.append((value, _stacked(states)))
        elif not rule.is_gradient:
            # What arrives at a constant is a bias'.
            for state in states:
                one = crossing.emitter.scalar(1.0, state)
                crossing.accounts.append(Account(state, one, one, state))
    return [
        (value, Relevance(tensor, not rule.is_gradient))
        for value, tensor in sent
        if value is not None and id(value) in crossing.live
    ]


def _whole(lengths: ir.Value, operation: Operation) -> bool:
    """Tell whether all samples are sure to be as long as the axis of time."""
    constant, x = constant_of(lengths), operation.inputs[0]
    return (
        constant is not None
        and x is not None
        and x.shape is not None
        and (bool((constant == x.shape[0]).all()))
    )


def _stacked(states: Sequence[Tensor]) -> Tensor:
    parts = [layout.unsqueeze(state, [0]) for state in states]
    shape = (len(parts), *states[0].shape)
    first = parts[0]
    return first.emitter.node("Concat", *parts, shape=shape, dtype=first.dtype, axis=0)
