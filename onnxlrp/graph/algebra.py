"""What nodes compute of one value, multiplied out: one normal form for all spellings of a formula.

A polynomial is a sum of monomials, each with a number in front; a monomial is a product of powers
of bases: the value itself, a constant tensor, a sum along axes, exp, erf, ... of a polynomial.
Sums are linear and exp(a + b) is exp(a) exp(b), so that x * x and Pow(x, 2), E[(x - E[x])^2] and
E[x^2] - E[x]^2, a softmax with and without its maximum subtracted are each the same polynomial.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxlrp.graph.operators import operator_of
from onnxlrp.graph.shapes import Dim, dims_of

Base = tuple[Any, ...]
"""Its kind, and what tells it from others of this kind: numbers, a value, polynomials."""

Monomial = frozenset[tuple[Base, float]]
Polynomial = frozenset[tuple[Monomial, float]]

ConstantOf = Callable[[ir.Value | None], "np.ndarray[Any, Any] | None"]

_MOST_TERMS = 12
_TOLERANCE = 5e-4
"""Relative; what half precision makes of 1 / sqrt(2) is still that."""

_FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_FUNCTIONS = {"Erf": "erf", "Tanh": "tanh", "Sigmoid": "sigmoid", "Softplus": "softplus"}
_POSITIVE = ("exp", "count", "sigmoid", "softplus", "window")

WINDOWS = ("AveragePool", "Conv")
"""Operators that add up what lies around each element."""


_MOST_VALUES = 64


class TooLargeError(Exception):
    """More terms, or more values in between, than any operator has."""


def number(value: float) -> Polynomial:
    """Return a constant."""
    return frozenset({(frozenset(), float(value))}) if value else frozenset()


def base(*parts: Any) -> Polynomial:
    """Return a base as a polynomial."""
    return frozenset({(frozenset({(parts, 1.0)}), 1.0)})


X = base("x")
"""The value of which all else is a function."""


def added(*terms: Polynomial) -> Polynomial:
    """Return a sum."""
    total: dict[Monomial, float] = {}
    for polynomial in terms:
        for monomial, factor in polynomial:
            total[monomial] = total.get(monomial, 0.0) + factor
    return frozenset((monomial, factor) for monomial, factor in total.items() if factor)


def times(*factors: Polynomial) -> Polynomial:
    """Return a product, multiplied out."""
    result = number(1)
    for other in factors:
        if len(result) * len(other) > _MOST_TERMS:
            raise TooLargeError
        result = added(
            *(
                frozenset({(_joined(left, right), a * b)})
                for left, a in result
                for right, b in other
            )
        )
    return result


def _joined(left: Monomial, right: Monomial) -> Monomial:
    powers = dict(left)
    for entry, exponent in right:
        powers[entry] = powers.get(entry, 0.0) + exponent
    return frozenset((entry, exponent) for entry, exponent in powers.items() if exponent)


def power(polynomial: Polynomial, exponent: float) -> Polynomial:
    """Return a power; of several terms only small whole ones are multiplied out."""
    whole = exponent == int(exponent)
    if len(polynomial) == 1:
        ((monomial, factor),) = polynomial
        # The root of a square is no power of what was squared.
        safe = all(_positive(b) or e % 2 for b, e in monomial) and (
            len(monomial) < 2 or all(_positive(b) for b, _ in monomial)
        )
        if whole or (factor > 0 and safe):
            raised = frozenset((b, e * exponent) for b, e in monomial)
            return frozenset({(raised, factor**exponent)})
    elif whole and 0 < exponent <= 3:
        return times(*[polynomial] * int(exponent))
    elif (inner := _logit(polynomial)) is not None:
        return power(base("sigmoid", times(number(-1), inner)), -exponent)
    return frozenset({(frozenset({(("of", polynomial), float(exponent))}), 1.0)})


def _positive(entry: Base) -> bool:
    if entry[0] == "sum":
        ((monomial, _),) = entry[2]
        return all(_positive(b) or e % 2 == 0 for b, e in monomial)
    return entry[0] in _POSITIVE


def _logit(polynomial: Polynomial) -> Polynomial | None:
    """Return p of 1 + exp(p)."""
    one = (frozenset[tuple[Base, float]](), 1.0)
    rest = polynomial - {one}
    if len(polynomial) != 2 or len(rest) != 1:
        return None
    ((monomial, factor),) = rest
    return log(rest) if factor > 0 and all(b[0] == "exp" for b, _ in monomial) else None


def exp(polynomial: Polynomial) -> Polynomial:
    """Return a product of exponentials, one of each term."""
    return times(
        *(
            power(base("exp", frozenset({(monomial, 1.0)})), factor)
            if monomial
            else number(math.exp(factor))
            for monomial, factor in polynomial
        )
    )


def log(polynomial: Polynomial) -> Polynomial:
    """Return a logarithm, that of a product as a sum."""
    if len(polynomial) == 1:
        ((monomial, factor),) = polynomial
        if factor > 0 and all(_positive(b) for b, _ in monomial):
            parts = [
                times(number(e), b[1] if b[0] == "exp" else base("log", base(*b)))
                for b, e in monomial
            ]
            return added(number(math.log(factor)), *parts)
    inner = _logit(polynomial)
    return base("log", polynomial) if inner is None else base("softplus", inner)


def clip(polynomial: Polynomial, low: float, high: float) -> Polynomial:
    """Return a polynomial kept between two numbers."""
    if len(polynomial) == 1:
        ((monomial, factor),) = polynomial
        if factor == 1 and len(monomial) == 1:
            (((kind, *rest), exponent),) = monomial
            if kind == "clip" and exponent == 1 and rest[0] <= high and low <= rest[1]:
                low, high, polynomial = max(low, rest[0]), min(high, rest[1]), rest[2]
    return base("clip", low, high, polynomial)


def summed(polynomial: Polynomial, axes: tuple[int, ...], count: Polynomial) -> Polynomial:
    """Return a sum along axes; what does not vary along them is a factor."""
    terms = []
    for monomial, factor in polynomial:
        fixed = frozenset((b, e) for b, e in monomial if _fixed(b, axes))
        rest = monomial - fixed
        over = base("sum", axes, frozenset({(rest, 1.0)})) if rest else count
        terms.append(times(frozenset({(fixed, factor)}), over))
    return added(*terms)


def _fixed(entry: Base, axes: tuple[int, ...]) -> bool:
    """Whether a base is the same all along some axes."""
    if entry[0] in ("sum", "max", "count"):
        return set(axes) <= set(entry[1])
    inner = [part for part in entry[1:] if isinstance(part, frozenset)]
    return bool(inner) and all(_fixed(b, axes) for p in inner for m, _ in p for b, _ in m)


def alike(left: Any, right: Any) -> bool:
    """Tell whether two polynomials are equal but for how numbers were rounded."""
    if isinstance(left, frozenset) and isinstance(right, frozenset):
        unmatched = list(right)
        for item in left:
            partner = next((other for other in unmatched if alike(item, other)), None)
            if partner is None:
                return False
            unmatched.remove(partner)
        return not unmatched
    if isinstance(left, tuple) and isinstance(right, tuple):
        return len(left) == len(right) and all(map(alike, left, right))
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=_TOLERANCE)
    return bool(left == right)


def ratio(polynomial: Polynomial, unit: Polynomial) -> float | None:
    """Return the number by which two polynomials differ; None where they differ otherwise."""
    (monomial, factor), *_ = unit
    found = next((own for other, own in polynomial if alike(other, monomial)), 0.0)
    scaled = times(number(found / factor), unit)
    return found / factor if found and alike(polynomial, scaled) else None


class Algebra:
    """Values as polynomials in one of them.

    Attributes
    ----------
    x : the value that all others are functions of
    opened : Expand nodes whose result was taken for what they expand

    """

    def __init__(self, x: ir.Value, constant_of: ConstantOf) -> None:
        self.x = x
        self._constant_of = constant_of
        self._known: dict[ir.Value, Polynomial] = {x: X}
        self._seen = 0
        self.opened: list[ir.Node] = []

    def of(self, value: ir.Value | None) -> Polynomial:
        """Return a value as a polynomial; what is not understood is a base of its own."""
        if value is None:
            return frozenset()
        if value not in self._known:
            self._seen += 1
            if self._seen > _MOST_VALUES:
                raise TooLargeError
            found = self._constant(value)
            node = value.producer()
            if found is None and node is not None:
                found = self._computed(node)
            self._known[value] = base("opaque", value) if found is None else found
        return self._known[value]

    def _constant(self, value: ir.Value) -> Polynomial | None:
        tensor = value.const_value
        if value.is_graph_input() or tensor is None or value.dtype not in _FLOATS:
            return None
        single = self._number(value)
        return base("constant", value) if single is None else number(single)

    def _number(self, value: ir.Value | None) -> float | None:
        tensor = None if value is None else value.const_value
        if tensor is None or tensor.size != 1 or len(tensor.shape) > self.rank:
            return None
        array = self._constant_of(value)
        return None if array is None else float(array.reshape(()))

    @property
    def rank(self) -> int:
        return 0 if self.x.shape is None else len(self.x.shape)

    @property
    def sizes(self) -> Sequence[Dim]:
        return () if self.x.shape is None else dims_of(self.x.shape)

    def count(self, axes: Sequence[int]) -> Polynomial:
        """Return how many elements of x lie along axes: a base where sizes are symbolic."""
        sizes = [self.sizes[axis] for axis in axes]
        if all(isinstance(size, int) for size in sizes):
            return number(math.prod(size for size in sizes if isinstance(size, int)))
        return base("count", tuple(axes))

    def mean(self, polynomial: Polynomial, axes: tuple[int, ...]) -> Polynomial:
        count = self.count(axes)
        return times(summed(polynomial, axes, count), power(count, -1))

    def _computed(self, node: ir.Node) -> Polynomial | None:
        operator, inputs = operator_of(node), node.inputs
        first = inputs[0] if inputs else None
        if operator in ("Add", "Sum"):
            return added(*map(self.of, inputs))
        if operator == "Sub":
            return added(self.of(first), times(number(-1), self.of(inputs[1])))
        if operator == "Mul":
            return times(*map(self.of, inputs))
        if operator == "Div":
            return times(self.of(first), power(self.of(inputs[1]), -1))
        if operator == "Neg":
            return times(number(-1), self.of(first))
        if operator == "Reciprocal":
            return power(self.of(first), -1)
        if operator == "Sqrt":
            return power(self.of(first), 0.5)
        if operator == "Pow":
            exponent = self._number(inputs[1])
            return None if exponent is None else power(self.of(first), exponent)
        if operator == "Identity" or (operator == "Cast" and node.outputs[0].dtype in _FLOATS):
            return self.of(first)
        if operator == "Expand":
            self.opened.append(node)
            return self.of(first)
        if operator in _FUNCTIONS:
            return base(_FUNCTIONS[operator], self.of(first))
        if operator == "Exp":
            return exp(self.of(first))
        if operator == "Log":
            return log(self.of(first))
        if operator in ("Clip", "Relu", "Min", "Max", "HardSigmoid"):
            return self._clipped(node)
        if operator in WINDOWS:
            return self._over_window(node)
        return self._regrouped(node) if operator == "Reshape" else self._reduced(node)

    def _clipped(self, node: ir.Node) -> Polynomial | None:
        operator, inputs = operator_of(node), node.inputs
        if operator == "Relu":
            return clip(self.of(inputs[0]), 0.0, math.inf)
        if operator == "HardSigmoid":
            alpha, beta = (_attribute(node, n, d) for n, d in (("alpha", 0.2), ("beta", 0.5)))
            line = added(times(number(alpha), self.of(inputs[0])), number(beta))
            return clip(line, 0.0, 1.0)
        ends: list[float | None]
        if operator == "Clip":
            low, high = (*inputs[1:3], None, None)[:2]
            ends = [-math.inf if low is None else self._number(low)]
            ends.append(math.inf if high is None else self._number(high))
            value = inputs[0]
        elif len(inputs) == 2:
            at = int(self._number(inputs[0]) is not None)
            value, end = inputs[at], self._number(inputs[1 - at])
            ends = [-math.inf, end] if operator == "Min" else [end, math.inf]
        else:
            return None
        if ends[0] is None or ends[1] is None:
            return None
        return clip(self.of(value), ends[0], ends[1])

    def _reduced(self, node: ir.Node) -> Polynomial | None:
        """Return what an operator that adds up along axes computes."""
        value = node.inputs[0] if node.inputs else None
        if value is None or value.shape is None or len(value.shape) != self.rank:
            return None
        operator, given = operator_of(node), None
        if operator == "Softmax":
            given = [int(_attribute(node, "axis", -1))]
        elif operator.startswith("Reduce") and _attribute(node, "keepdims", 1):
            axes = node.inputs[1] if len(node.inputs) > 1 else None
            array = self._constant_of(axes)
            given = None if array is None else [int(axis) for axis in array.reshape(-1)]
        if not given:
            return None
        along = tuple(sorted(axis % self.rank for axis in given))
        if any(dims_of(value.shape)[axis] != self.sizes[axis] for axis in along):
            return None
        inner, count = self.of(value), self.count(along)
        if operator == "Softmax":
            shares = exp(inner)
            return times(shares, power(summed(shares, along, count), -1))
        if operator == "ReduceMean":
            return self.mean(inner, along)
        if operator == "ReduceMax":
            return base("max", along, inner)
        if operator in ("ReduceSumSquare", "ReduceL2"):
            squares = summed(times(inner, inner), along, count)
            return squares if operator == "ReduceSumSquare" else power(squares, 0.5)
        if operator == "ReduceLogSumExp":
            return log(summed(exp(inner), along, count))
        return summed(inner, along, count) if operator == "ReduceSum" else None

    def _over_window(self, node: ir.Node) -> Polynomial | None:
        """Return a sum of squares over a window around each element, its weights constant."""
        weights = [self._constant_of(value) for value in node.inputs[1:3]]
        if any(array is None or (array < 0).any() for array in weights):
            return None
        if not alike(self.of(node.inputs[0]), times(X, X)):
            return None
        return base("window", node) if self._has_my_shape(node.outputs[0]) else None

    def _regrouped(self, node: ir.Node) -> Polynomial | None:
        """Return x normalised in groups of channels, as InstanceNormalization does it."""
        instance = _producer(node.inputs[0], "InstanceNormalization")
        reshape = None if instance is None else _producer(instance.inputs[0], "Reshape")
        if instance is None or reshape is None or reshape.inputs[0] is not self.x:
            return None
        scale, bias = map(self._constant_of, instance.inputs[1:3])
        grouped = reshape.outputs[0].shape
        if grouped is None or scale is None or bias is None or self.rank < 2:
            return None
        batch, groups, *_ = dims_of(grouped)
        if (scale != 1).any() or bias.any() or batch != self.sizes[0] or len(grouped) < 3:
            return None
        if not self._has_my_shape(node.outputs[0]) or not isinstance(groups, int):
            return None
        return base("groups", groups, _attribute(instance, "epsilon", 1e-5))

    def _has_my_shape(self, value: ir.Value) -> bool:
        if value.shape is None or len(value.shape) != self.rank:
            return False
        return all(
            a == b is not None for a, b in zip(dims_of(value.shape), self.sizes, strict=True)
        )


def _producer(value: ir.Value | None, operator: str) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and operator_of(node) == operator else None


def _attribute(node: ir.Node, name: str, default: float) -> float:
    return float(node.attributes[name].value) if name in node.attributes else default


def constants_of(monomial: Monomial) -> Mapping[ir.Value, float]:
    """Return the constant tensors of a product, with their exponents."""
    return {b[1]: e for b, e in monomial if b[0] == "constant"}
