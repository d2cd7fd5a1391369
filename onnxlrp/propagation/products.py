"""Products of two live values, and softmax inside a network.

A product is linear in each of its operands, with the other for weights. A rule says which part of
the relevance each operand answers for; among the elements of a matrix product that part is shared
out by the epsilon rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from onnxlrp.graph.canonical import Operation
from onnxlrp.propagation import layout
from onnxlrp.propagation.dense import Dense
from onnxlrp.propagation.expression import Sign, Tensor
from onnxlrp.propagation.formulas import Parameter, stabilised
from onnxlrp.propagation.registry import (
    Crossing,
    Relevance,
    cross_by_rule,
    fail,
    live_inputs,
    operator,
    static_shape,
)
from onnxlrp.propagation.sums import reduced_to

Result = Sequence[tuple[ir.Value, Relevance]]


def signal(operation: Operation) -> dict[int, float]:
    """All relevance is the signal's; the gate is held fixed.

    The product expanded in its signal alone. Of a mixture s @ v, all is v's.

    Equals: Arras et al. 2017 (signal-take-all) on gates; Ali et al. 2022 (CP-LRP) on attention
    weights. x sigmoid(x) passes relevance on, as an activation does.
    Use: gates by default: shared evenly, relevance explodes through squeeze-and-excitation.
    """
    return {int(operation.attributes["signal"]): 1.0}


def uniform(operation: Operation) -> dict[int, float]:
    """R / 2 for each operand; of a matrix product, shared out among its elements by epsilon.

    First-order Taylor expansion towards (0, 0), divided by its own sum (Binder et al. 2016, eqs. 3
    and 7): R_A = A (R/2 / stab(A B) Bᵀ) elementwise.

    Equals: Achtibat et al. 2024 (AttnLRP, prop. 3.3); LXT `matmul`, but for the sign of epsilon.
    Use: products and attention by default.
    """
    return {0: 0.5, 1: 0.5}


def taylor(operation: Operation) -> dict[int, float]:
    """Equal parts for the operands that are gone at the point expanded towards.

    Binder et al. 2016, eqs. 8 to 10, as for LRN: towards the point where nothing is left but the
    gate, the first-order term of the signal is the whole product; without a gate, towards (0, 0),
    that of each operand is, and they are divided by their sum (eqs. 3 and 7).

    Equals: `signal` on a Gate or Mixture, `uniform` on a Product or MatrixProduct.
    Use: one strategy for all that multiplies: LRN, gates, products, softmax, normalisations.
    """
    return signal(operation) if operation.operator in ("Gate", "Mixture") else uniform(operation)


TREATMENTS = {"signal": signal, "uniform": uniform, "taylor": taylor}
"""Which part of the relevance each operand of a product answers for, by its place."""


def _receivers(operation: Operation, live: frozenset[int], rule: str) -> Sequence[ir.Value]:
    places = (0, 1) if rule == "gradient" else TREATMENTS[rule](operation)
    return [value for place in places if (value := operation.inputs[place]) is not None]


def _check(operation: Operation, live: frozenset[int]) -> None:
    for value in (*live_inputs(operation, live), operation.outputs[0]):
        static_shape(value)
        assert value.shape is not None
        if operation.node.op_type == "MatMul" and len(value.shape) < 2:
            fail(f"'{value.name}' is a vector", "give it a second axis by an Unsqueeze")


def _elementwise(crossing: Crossing) -> Result:
    """Hand each operand its part: its one contribution to an output is the whole of it.

    Under a reference, where both operands change, a b - a⁰ b⁰ is the change of a times the middle
    of b and the change of b times the middle of a, and the two get their shares of it.
    """
    incoming, inputs = crossing.incoming, crossing.operation.inputs
    if crossing.rule == "gradient":
        return _product_rule(crossing)
    parts = TREATMENTS[crossing.rule](crossing.operation)
    shared = bool(crossing.root) and len(parts) > 1
    result = []
    for place, part in parts.items():
        value = inputs[place]
        assert value is not None
        own = incoming.tensor * part
        if shared:
            own = _change(crossing, incoming.tensor) * crossing.change(value)
            own = own * _middle(crossing, 1 - place)
        tensor = reduced_to(own, crossing.tensor(value))
        # A part of relevance that is 0 where the product is 0 need not be so where one factor is.
        grounded = incoming.grounded and tensor.shape == incoming.tensor.shape
        result.append((value, Relevance(tensor, grounded)))
    return result


def _product_rule(crossing: Crossing) -> Result:
    """Each operand gets the other times relevance; of a / b, R / b and -y / b R."""
    a, b, relevance = crossing.input(0), crossing.input(1), crossing.incoming.tensor
    if crossing.operation.node.op_type == "Div":
        backs = relevance / b, -(crossing.output() / b * relevance)
    else:
        backs = relevance * b, relevance * a
    return [
        (value, Relevance(reduced_to(back, own), False))
        for value, own, back in zip(crossing.operation.inputs, (a, b), backs, strict=True)
        if value is not None
    ]


def _change(crossing: Crossing, relevance: Tensor) -> Tensor:
    """Return relevance divided by how much the product changes from the reference."""
    stabiliser = crossing.parameters.get("stabiliser", crossing.parameters.get("epsilon", 0.0))
    assert isinstance(stabiliser, int | float)
    z = crossing.change(crossing.operation.outputs[0])
    return relevance / stabilised(z, float(stabiliser))


def _middle(crossing: Crossing, place: int) -> Tensor:
    value = crossing.operation.inputs[place]
    assert value is not None
    return crossing.middle(value)


_ELEMENTWISE: Mapping[str, Mapping[str, Parameter]] = {
    **{name: {"stabiliser": 1e-6} for name in TREATMENTS},
    "gradient": {},
}
_MATRICES: Mapping[str, Mapping[str, Parameter]] = {
    **{name: {"epsilon": 1e-6} for name in TREATMENTS},
    "gradient": {},
}


@operator("Gate", rules=_ELEMENTWISE, check=_check, default="signal", receivers=_receivers)
def gate(crossing: Crossing) -> Result:
    """y = a g, elementwise, g a gate: bounded by how it is computed, or a divisor."""
    return _elementwise(crossing)


@operator("Product", rules=_ELEMENTWISE, check=_check, default="uniform", receivers=_receivers)
def product(crossing: Crossing) -> Result:
    """y = a b, elementwise, neither more of a gate than the other."""
    return _elementwise(crossing)


def _matrices(crossing: Crossing) -> Result:
    """Share each operand's part out by the epsilon rule, with the other operand for weights."""
    operation = crossing.operation
    tensors = [crossing.input(0), crossing.input(1)]
    parts = {0: 1.0, 1: 1.0}
    if crossing.rule != "gradient":
        parts = TREATMENTS[crossing.rule](operation)
    shared = bool(crossing.root) and len(parts) > 1
    result: list[tuple[ir.Value, Relevance]] = []
    for place, part in parts.items():
        value = operation.inputs[place]
        assert value is not None
        other = _middle(crossing, 1 - place) if shared else tensors[1 - place]
        built = Dense(
            weights=other,
            twin=other,
            bias=crossing.emitter.zero,
            x=tensors[place],
            z=crossing.output(),
            transposed=False,
            left=place == 1,
        )
        if crossing.rule == "gradient":
            result += cross_by_rule(crossing, built, [value], "gradient")
            continue
        if shared:
            # Both share one denominator, the change of the product.
            s = _change(crossing, crossing.incoming.tensor)
            back = crossing.change(value) * built.adjoint(s).parts[0]
            result.append((value, Relevance(back, True)))
            continue
        own = Relevance(crossing.incoming.tensor * part, crossing.incoming.grounded)
        result += cross_by_rule(replace(crossing, relevance=[own]), built, [value], "epsilon")
    return result


@operator("Mixture", rules=_MATRICES, check=_check, default="uniform", receivers=_receivers)
def mixture(crossing: Crossing) -> Result:
    """y = s @ v, s shares such as attention weights: a mixture of the rows of v."""
    return _matrices(crossing)


@operator("MatrixProduct", rules=_MATRICES, check=_check, default="uniform", receivers=_receivers)
def matrix_product(crossing: Crossing) -> Result:
    """y = a @ b, neither more of a gate than the other."""
    return _matrices(crossing)


_SOFTMAX: Mapping[str, Mapping[str, Parameter]] = {
    "taylor": {"epsilon": 1e-6, "bias": "absorb"},
    "gradient": {},
    "zero": {},
}


@operator("Softmax", rules=_SOFTMAX, default="taylor")
def softmax(crossing: Crossing) -> Result:
    """R_i = x_i (R_i - s_i sum_j R_j) (Achtibat et al. 2024, prop. 3.1).

    First-order Taylor expansion at x (Binder et al. 2016, eqs. 8 to 10): s_j has the terms
    z_ji = s_j x_i (δ_ij - s_i), and what it is where x is gone, beside them, is a bias. `absorb`
    lets it keep its share; `exclude` divides by the terms' own sum as eqs. 3 and 7 ask, R_j
    becoming R_j / stab(x_j - sum_i s_i x_i). Where s_i = 0 (masked out, x_i = -inf) there is
    nothing to explain.

    Equals: LXT `softmax`, AttnLRP, with `bias = "absorb"`.
    Use: inside networks; a softmax at the end is set aside.
    """
    return _tangent(crossing, crossing.output(), divided=False)


@operator("LogSoftmax", rules=_SOFTMAX, default="taylor")
def log_softmax(crossing: Crossing) -> Result:
    """R_i = x_i (t_i - s_i sum_j t_j), t_j = R_j / stab(y_j), s = exp(y).

    First-order Taylor expansion at x, as for Softmax.
    """
    s = crossing.emitter.elementwise("Exp", crossing.output(), sign=Sign.NON_NEGATIVE)
    return _tangent(crossing, s, divided=True)


def _tangent(crossing: Crossing, s: Tensor, divided: bool) -> Result:
    """Share out along the terms x_i (δ_ij - s_i); `divided` where y_j is not a factor of them."""
    value = crossing.operation.inputs[0]
    assert value is not None
    relevance = crossing.incoming.tensor
    if crossing.rule == "zero":
        return [(value, Relevance(crossing.emitter.zero, True))]
    if crossing.rule == "gradient":
        if divided:
            back = relevance - s * _over(crossing, relevance)
        else:
            back = s * (relevance - _over(crossing, s * relevance))
        return [(value, Relevance(back, False))]
    if crossing.root:
        at_root = crossing.root[id(crossing.operation.outputs[0])]
        if divided:
            at_root = crossing.emitter.elementwise("Exp", at_root, sign=Sign.NON_NEGATIVE)
        return [(value, Relevance(_from_reference(crossing, s, at_root), True))]
    epsilon, bias = crossing.parameters["epsilon"], crossing.parameters["bias"]
    assert isinstance(epsilon, int | float)
    x = _seen(crossing, s)
    terms = x - _over(crossing, s * x)
    if bias == "exclude":
        relevance = relevance / stabilised(terms, float(epsilon))
    elif divided:
        relevance = relevance / stabilised(crossing.output(), float(epsilon))
    back = x * (relevance - s * _over(crossing, relevance))
    if bias != "distribute":
        return [(value, Relevance(back, True))]
    rest = (crossing.output() if divided else 1.0) - terms
    emitter = crossing.emitter
    nothing, one = emitter.scalar(0.0, s), emitter.scalar(1.0, s)
    seen = emitter.where(emitter.compare("Less", nothing, s), one, nothing, Sign.NON_NEGATIVE)
    each = _over(crossing, rest * relevance) / _over(crossing, seen)
    return [(value, Relevance(back + seen * each, False))]


def _from_reference(crossing: Crossing, s: Tensor, at_root: Tensor) -> Tensor:
    """R_i = d_i t_i - c_i sum_j t_j, t_j = R_j / stab(d_j - D): shares of the change of log s_j.

    d is the change of x from the reference and D that of log sum exp x, of which each x_i has

        c_i = (s_i e^(D/2) - s⁰_i e^(-D/2)) D / (e^(D/2) - e^(-D/2))

    exactly: d_i times the logarithmic mean of e^x_i at both points, over that of the sums. They add
    up to D, and the terms d_i δ_ij - c_i of log s_j to its change. Where no x_i changes by much,
    both differences would be nothing but rounding, and with h(d) = 2 sinh(d / 2) / d

        c_i = d_i sqrt(s_i s⁰_i) h(d_i) / h(D),    2 sinh(D / 2) = sum_i d_i sqrt(s_i s⁰_i) h(d_i)
    """
    emitter, (value,) = crossing.emitter, crossing.live_inputs
    x, root, epsilon = (
        crossing.tensor(value),
        crossing.root[id(value)],
        crossing.parameters["epsilon"],
    )
    assert isinstance(epsilon, int | float)
    axis = emitter.vector([int(crossing.attribute("axis", -1))])
    sums = [
        emitter.node("ReduceLogSumExp", t, axis, shape=_over(crossing, t).shape, dtype=t.dtype)
        for t in (x, root)
    ]
    change = _where_seen(s, x - root)
    size = emitter.elementwise("Abs", change)
    most = emitter.node("ReduceMax", size, axis, shape=sums[0].shape, dtype=size.dtype)
    alike = emitter.compare("Less", most, emitter.scalar(_ALIKE, most))
    near = change * emitter.elementwise("Sqrt", s * at_root) * _sinhc(change)
    summed = _over(crossing, near)
    square = summed**2
    arsinh = summed * (1.0 - square * (1 / 24) + square**2 * (3 / 640))
    total = emitter.where(alike, arsinh, sums[0] - sums[1], Sign.UNKNOWN)
    half = total * 0.5
    up, down = (emitter.elementwise("Exp", t, sign=Sign.NON_NEGATIVE) for t in (half, -half))
    one, size = emitter.scalar(1.0, half), emitter.elementwise("Abs", half)
    little = emitter.compare("Less", size, emitter.scalar(1e-4, size))
    width = emitter.where(little, one, up - down, Sign.UNKNOWN)
    factor = emitter.where(little, one, total / width, Sign.UNKNOWN)
    shares = crossing.incoming.tensor / stabilised(change - total, float(epsilon))
    shares = _where_seen(s, shares)
    far = (s * up - at_root * down) * factor
    c = emitter.where(alike, near / _sinhc(total), far, Sign.UNKNOWN)
    return change * shares - c * _over(crossing, shares)


_ALIKE = 0.1
"""Change of x up to which the series of `_from_reference` are exact in float32."""


def _sinhc(d: Tensor) -> Tensor:
    """2 sinh(d / 2) / d up to d⁴."""
    square = d**2
    return 1.0 + square * (1 / 24) + square**2 * (1 / 1920)


def _over(crossing: Crossing, tensor: Tensor) -> Tensor:
    """Sum along the axis of a softmax."""
    return layout.reduce_sum(tensor, [int(crossing.attribute("axis", -1))])


def _seen(crossing: Crossing, s: Tensor) -> Tensor:
    """Return x where its softmax s is not 0, else 0."""
    return _where_seen(s, crossing.input(0))


def _where_seen(s: Tensor, x: Tensor) -> Tensor:
    emitter = s.emitter
    nothing = emitter.scalar(0.0, x)
    return emitter.where(emitter.compare("Less", nothing, s), x, nothing, Sign.UNKNOWN)
