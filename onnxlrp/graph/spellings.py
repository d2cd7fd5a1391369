"""Operators that exporters write out in several nodes, recognised by what these compute.

The nodes between a value and what is computed of it alone are multiplied out (`algebra`), and the
polynomial is compared with the operator's. So the order of factors, Pow or Mul, Div or Reciprocal,
and how a variance is written make no difference, and nothing that is only nearly the operator is
taken for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import networkx as nx
import numpy as np
import onnx_ir as ir

from onnxlrp.graph import algebra
from onnxlrp.graph.algebra import (
    Algebra,
    ConstantOf,
    Polynomial,
    X,
    added,
    alike,
    base,
    number,
    power,
    ratio,
    times,
)
from onnxlrp.graph.operators import operator_of
from onnxlrp.graph.shapes import Dim, dims_of

Array = np.ndarray[Any, Any]

_CROSSED = {
    *("Add", "Sub", "Mul", "Div", "Neg", "Reciprocal", "Sqrt", "Pow", "Identity", "Cast", "Expand"),
    *("Erf", "Tanh", "Sigmoid", "HardSigmoid", "Softplus", "Exp", "Log", "Clip", "Relu", "Min"),
    *("Max", "Sum", "ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2", "ReduceMax"),
    *("ReduceLogSumExp", "Reshape", "InstanceNormalization", "Softmax"),
}
_LAST = ("Add", "Sub", "Mul", "Div", "Log")
"""What an operator that is written out can end with."""

_FARTHEST = 12
_NORM_AT_LEAST = 1e-6
"""Below this, the bound that keeps a norm from 0 does nothing else."""


@dataclass(frozen=True)
class Spelled:
    """Nodes that are together one operator.

    Attributes
    ----------
    operator : ONNX operator type
    x : its input
    node : the last of the nodes
    nodes : all of them, in topological order
    attributes : of the operator; `axes` where a normalisation is not over the last axes
    scale, shift : what a normalisation multiplies by and adds, broadcasting to x; float64, or None

    """

    operator: str
    x: ir.Value
    node: ir.Node
    nodes: tuple[ir.Node, ...]
    attributes: Mapping[str, Any]
    scale: Array | None = None
    shift: Array | None = None


def recognise(graph: ir.Graph, constant_of: ConstantOf) -> list[Spelled]:
    """Find the operators that are written out, the longest spelling of each."""
    order = {node: i for i, node in enumerate(graph)}
    above = _dominators(graph)
    found: list[Spelled] = []
    inside: set[ir.Node] = set()
    for node in reversed(graph):
        if operator_of(node) not in _LAST or node in inside:
            continue
        for x in reversed(_only_sources(node.outputs[0], above)):
            spelled = _spelled(node, x, order, constant_of)
            if spelled is not None:
                found.append(spelled)
                inside.update(spelled.nodes)
                break
    return found


def _dominators(graph: ir.Graph) -> Mapping[ir.Value, ir.Value]:
    """Return for values the one value nearest to them of which they are a function."""
    flow: nx.DiGraph[ir.Value | ir.Graph] = nx.DiGraph()
    flow.add_node(graph)
    for node in graph:
        crossed = operator_of(node) in _CROSSED or _sums_squares(node)
        live = [v for v in _data(node) if v.const_value is None] if crossed else []
        flow.add_edges_from((graph, v) for v in live if v.producer() is None)
        sources: Sequence[ir.Value | ir.Graph] = live or [graph]
        flow.add_edges_from((source, v) for source in sources for v in node.outputs)
    found = nx.immediate_dominators(flow, graph)
    return {
        value: nearest
        for value, nearest in found.items()
        if isinstance(value, ir.Value) and isinstance(nearest, ir.Value)
    }


def _sums_squares(node: ir.Node) -> bool:
    """Whether a window may add up squares, as some normalisations do."""
    square = _producer(node.inputs[0]) if operator_of(node) in algebra.WINDOWS else None
    if square is None:
        return False
    return operator_of(square) == "Pow" or (
        operator_of(square) == "Mul" and square.inputs[0] is square.inputs[1]
    )


def _data(node: ir.Node) -> list[ir.Value]:
    """Return what a node computes with; the shape that it gives to it is none of this."""
    shaped = node.op_type in ("Reshape", "Expand")
    return [v for v in (node.inputs[:1] if shaped else node.inputs) if v is not None]


def _only_sources(value: ir.Value, above: Mapping[ir.Value, ir.Value]) -> list[ir.Value]:
    """Return the values of which another is a function, the nearest first."""
    result: list[ir.Value] = []
    while value in above and len(result) < _FARTHEST:
        value = above[value]
        result.append(value)
    return result


def _spelled(
    node: ir.Node, x: ir.Value, order: Mapping[ir.Node, int], constant_of: ConstantOf
) -> Spelled | None:
    output = node.outputs[0]
    if x.shape is None or output.shape is None or len(output.shape) != len(x.shape):
        return None
    seen = Algebra(x, constant_of)
    try:
        matched = next(_matches(seen, seen.of(output)), None)
    # Of numbers that overflow no operator is made.
    except (algebra.TooLargeError, ArithmeticError, ValueError):
        return None
    if matched is None or not _same_shape(output, x, seen):
        return None
    operator, attributes, *affine = matched
    nodes = tuple(sorted(_between(x, output), key=order.__getitem__))
    try:
        scale, shift = (_evaluated(p, constant_of, seen.sizes) for p in affine or (None, None))
    except ValueError:
        return None
    return Spelled(operator, x, node, nodes, attributes, scale, shift)


def _between(x: ir.Value, output: ir.Value) -> set[ir.Node]:
    """Return the nodes that compute one value of another."""
    todo, found = [output], set[ir.Node]()
    while todo:
        value = todo.pop()
        node = value.producer()
        if value is x or node is None or node in found or value.const_value is not None:
            continue
        found.add(node)
        todo += _data(node)
    return found


def _same_shape(output: ir.Value, x: ir.Value, seen: Algebra) -> bool:
    """Whether no Expand in between has broadcast x to a larger shape."""
    assert output.shape is not None
    if all(a == b is not None for a, b in zip(dims_of(output.shape), seen.sizes, strict=True)):
        return True
    shapes = [_producer(node.inputs[1]) for node in seen.opened]
    return all(s is not None and s.op_type == "Shape" and s.inputs[0] is x for s in shapes)


def _producer(value: ir.Value | None) -> ir.Node | None:
    return None if value is None else value.producer()


def _evaluated(
    polynomial: Polynomial | None, constant_of: ConstantOf, sizes: Sequence[Dim]
) -> Array | None:
    """Return the value of a polynomial in constants, with all axes of x; None for none.

    Raises
    ------
    ValueError
        If a constant would broadcast x to a larger shape.

    """
    if polynomial is None:
        return None
    rank = len(sizes)
    total = np.zeros((1,) * rank)
    for monomial, factor in polynomial:
        term = np.full((1,) * rank, factor)
        for value, exponent in algebra.constants_of(monomial).items():
            array = constant_of(value)
            assert array is not None
            padded = (1,) * (rank - array.ndim) + array.shape
            if any(n not in (1, size) for n, size in zip(padded, sizes, strict=True)):
                raise ValueError
            term = term * array.astype(np.float64) ** exponent
        total = total + term
    return total


Match = tuple[Any, ...]
"""Operator, its attributes, and for normalisations scale and shift as polynomials."""


def _matches(seen: Algebra, polynomial: Polynomial) -> Iterator[Match]:
    kinds = {b[0] for monomial, _ in polynomial for b, _ in monomial}
    if "opaque" in kinds or not polynomial:
        return
    if kinds & {"sum", "of", "clip"} and any(
        e < 0 and b[0] in ("sum", "of", "clip") for m, _ in polynomial for b, e in m
    ):
        yield from _normalisation(seen, polynomial)
        yield from _softmax(seen, polynomial)
    if "log" in kinds:
        yield from _softmax(seen, polynomial)
    if any(e < 0 and b[0] in ("of", "window") for m, _ in polynomial for b, e in m):
        yield from _local_response(polynomial)
    if "groups" in kinds:
        yield from _group_normalisation(seen, polynomial)
    if kinds & {"erf", "tanh", "sigmoid", "clip"}:
        yield from _activation(polynomial)


def _split(polynomial: Polynomial) -> tuple[Polynomial, Polynomial, Polynomial] | None:
    """Write a polynomial as constants times a variable part, plus constants."""
    variable: dict[Polynomial, list[Polynomial]] = {}
    shift = []
    for monomial, factor in polynomial:
        fixed = frozenset((b, e) for b, e in monomial if b[0] == "constant")
        if fixed == monomial:
            shift.append(frozenset({(monomial, factor)}))
            continue
        scale = frozenset({(fixed, 1.0)})
        variable.setdefault(scale, []).append(frozenset({(monomial - fixed, factor)}))
    if len(variable) != 1:
        return None
    ((scale, terms),) = variable.items()
    return scale, added(*terms), added(*shift)


def _normalisation(seen: Algebra, polynomial: Polynomial) -> Iterator[Match]:
    """x or x - mean, over the root of its mean square and epsilon, times scale, plus shift."""
    split = _split(polynomial)
    divisors = {
        (b, e) for m, _ in polynomial for b, e in m if b[0] in ("of", "sum", "clip") and e < 0
    }
    if split is None or len(divisors) != 1:
        return
    scale, variable, shift = split
    ((divisor, exponent),) = divisors
    whole = frozenset({(frozenset({(divisor, exponent)}), 1.0)})
    numerator = times(variable, power(whole, -1))
    bound = 0.0
    inner = divisor[-1] if divisor[0] != "sum" else base(*divisor)
    if divisor[0] == "clip":
        _, bound, high, inner = divisor
        if high != np.inf or bound < 0:
            return
    axes = _axes(inner)
    if axes is None:
        return
    squares = times(seen.mean(times(X, X), axes), seen.count(axes))
    if _is_norm(inner, exponent, bound, squares):
        plain = scale == number(1) and not shift and len(axes) == 1
        if plain and alike(numerator, X):
            yield "LpNormalization", {"axis": axes[0], "p": 2}
        return
    if divisor[0] != "of" or exponent != -0.5:
        return
    epsilon = sum(factor for monomial, factor in inner if not monomial)
    spread = frozenset((monomial, factor) for monomial, factor in inner if monomial)
    mean = seen.mean(X, axes)
    square = seen.mean(times(X, X), axes)
    for operator, variance, part in (
        ("RMSNormalization", square, X),
        ("LayerNormalization", _minus(square, times(mean, mean)), _minus(X, mean)),
    ):
        spreads, parts = ratio(spread, variance), ratio(numerator, part)
        if operator == "RMSNormalization" and shift:
            continue
        if spreads is None or parts is None or spreads <= 0 or epsilon <= 0:
            continue
        attributes = {"epsilon": epsilon / spreads, **_placed(axes, seen.rank)}
        yield operator, attributes, times(scale, number(parts * spreads**-0.5)), shift


def _local_response(polynomial: Polynomial) -> Iterator[Match]:
    """x / (bias + alpha (sum of x^2 over a window))^beta."""
    if len(polynomial) != 1:
        return
    ((monomial, factor),) = polynomial
    divisors = [(b, e) for b, e in monomial if b[0] in ("of", "window") and e < 0]
    if factor != 1 or monomial - {*divisors} != {(("x",), 1.0)} or len(divisors) != 1:
        return
    ((divisor, exponent),) = divisors
    inner = divisor[1] if divisor[0] == "of" else base(*divisor)
    windows = {b for m, _ in inner for b, _ in m if b[0] == "window"}
    if len(windows) != 1:
        return
    (window,) = windows
    inside = frozenset((m, f) for m, f in inner if window in dict(m))
    alpha, offset = ratio(inside, base(*window)), inner - inside
    if alpha is not None and all(b[0] == "constant" for m, _ in offset for b, _ in m):
        yield "LRN", {"alpha": alpha, "beta": -exponent, "window": window[1]}, number(1), offset


def _minus(left: Polynomial, right: Polynomial) -> Polynomial:
    return added(left, times(number(-1), right))


def _is_norm(inner: Polynomial, exponent: float, bound: float, squares: Polynomial) -> bool:
    """Whether a divisor is sqrt(sum x^2), or that kept from 0 before or after the root."""
    if exponent == -0.5:
        return alike(inner, squares) and bound <= _NORM_AT_LEAST**2
    return exponent == -1 and alike(inner, power(squares, 0.5)) and bound <= _NORM_AT_LEAST


def _placed(axes: tuple[int, ...], rank: int) -> dict[str, Any]:
    """Name the axes of a normalisation as ONNX does, by the first, where they are the last."""
    if axes == tuple(range(axes[0], rank)):
        return {"axis": axes[0]}
    return {"axes": list(axes)}


def _axes(polynomial: Polynomial) -> tuple[int, ...] | None:
    """Return the axes along which all sums in a polynomial are."""
    found = {b[1] for m, _ in polynomial for b, _ in m if b[0] == "sum"}
    return found.pop() if len(found) == 1 else None


def _softmax(seen: Algebra, polynomial: Polynomial) -> Iterator[Match]:
    sums = {b for m, _ in polynomial for b, _ in m if b[0] == "sum"}
    logs = [b[1] for m, _ in polynomial for b, _ in m if b[0] == "log"]
    sums |= {b for p in logs for m, _ in p for b, _ in m if b[0] == "sum"}
    if len(sums) != 1:
        return
    ((_, axes, _),) = sums
    if len(axes) != 1:
        return
    shares = algebra.exp(X)
    total = algebra.summed(shares, axes, seen.count(axes))
    attributes = {"axis": axes[0]}
    if alike(polynomial, times(shares, power(total, -1))):
        yield "Softmax", attributes
    if alike(polynomial, _minus(X, algebra.log(total))):
        yield "LogSoftmax", attributes


def _group_normalisation(seen: Algebra, polynomial: Polynomial) -> Iterator[Match]:
    split = _split(polynomial)
    if split is None:
        return
    scale, variable, shift = split
    bases = [b for m, _ in variable for b, _ in m]
    if len(bases) != 1 or bases[0][0] != "groups":
        return
    factor = ratio(variable, base(*bases[0]))
    if factor is not None:
        attributes = {"num_groups": bases[0][1], "epsilon": bases[0][2]}
        yield "GroupNormalization", attributes, times(scale, number(factor)), shift


@cache
def _activations() -> dict[str, tuple[str, dict[str, Any], Polynomial]]:
    half = times(number(0.5), X)
    root = (2 / np.pi) ** 0.5
    cubic = added(times(number(root), X), times(number(root * 0.044715), X, X, X))
    sixth = added(times(number(1 / 6), X), number(0.5))
    inner = base("erf", times(number(0.5**0.5), X))
    return {
        "erf": ("Gelu", {"approximate": "none"}, added(half, times(half, inner))),
        "tanh": ("Gelu", {"approximate": "tanh"}, added(half, times(half, base("tanh", cubic)))),
        "mish": ("Mish", {}, times(X, base("tanh", base("softplus", X)))),
        "hard": ("HardSwish", {}, times(X, algebra.clip(sixth, 0.0, 1.0))),
        "relu6": (
            "HardSwish",
            {},
            times(number(1 / 6), X, algebra.clip(added(X, number(3)), 0.0, 6.0)),
        ),
    }


def _activation(polynomial: Polynomial) -> Iterator[Match]:
    """x times a bounded function of x."""
    for operator, attributes, expected in _activations().values():
        if alike(polynomial, expected):
            yield operator, attributes
    inner = [b[1] for m, _ in polynomial for b, _ in m if b[0] == "sigmoid"]
    alpha = ratio(inner[0], X) if len(inner) == 1 else None
    if alpha is not None and alike(polynomial, times(X, base("sigmoid", times(number(alpha), X)))):
        yield "Swish", {"alpha": alpha}
