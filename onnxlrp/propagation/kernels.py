"""Support vector machines with a radial kernel, s = sum_j a_j exp(-gamma |x - s_j|²) + rho.

Shared out through the kernel as through a layer, what a support vector adds would go to the
features that differ from it most, which is what it does not add for. So it is split otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxlrp.graph.canonical import Operation
from onnxlrp.propagation import layout
from onnxlrp.propagation.expression import Sign, Tensor
from onnxlrp.propagation.formulas import Account, stabilised
from onnxlrp.propagation.registry import Crossing, Relevance, fail, operator, static_shape

Array = NDArray[np.float64]

_ALIKE = 1e-2
"""Difference of exponents up to which a series is exact in float32."""


@dataclass(frozen=True)
class _Side:
    """Support vectors of one sign: [n, F], [n] gammas, and [n] logarithms of |a_j|."""

    vectors: Array
    gammas: Array
    logarithms: Array


def _sides(operation: Operation) -> tuple[_Side, _Side]:
    """Part the support vectors by the sign of their weights.

    Where all have one sign, as of one class, rho is what they are held against: a vector that is
    always at x.
    """
    given = operation.attributes
    weights = np.asarray(given["coefficients"], np.float64)
    vectors = np.reshape(given["support_vectors"], (len(weights), -1)).astype(np.float64)
    gammas = np.full(len(weights), float(given["kernel_params"][0]))
    if (weights > 0).all() or (weights < 0).all():
        weights = np.append(weights, float(given["rho"][0]))
        vectors = np.concatenate([vectors, np.zeros((1, vectors.shape[1]))])
        gammas = np.append(gammas, 0.0)
    sides = []
    for sign in (1, -1):
        own = sign * weights > 0
        sides.append(_Side(vectors[own], gammas[own], np.log(np.abs(weights[own]))))
    return sides[0], sides[1]


def _check(operation: Operation, live: frozenset[int]) -> None:
    value = operation.inputs[0]
    assert value is not None
    static_shape(value)
    given = operation.attributes
    if given.get("kernel_type") != "RBF" or not given.get("n_supports"):
        fail("it is a support vector machine without support vectors", "export it with them")
    try:
        sides = _sides(operation)
    except (LookupError, ValueError, TypeError) as error:
        fail(f"its support vectors are incomplete: {error}", "export it again")
    if not all(len(side.gammas) for side in sides):
        fail("all of its support vectors and rho have one sign: it decides nothing", "leave it out")


@operator(
    "ai.onnx.ml::SVMRegressor",
    rules={"log-ratio": {"stabiliser": 1e-6}, "gradient": {}},
    check=_check,
    default="log-ratio",
)
def radial(crossing: Crossing) -> Sequence[tuple[ir.Value, Relevance]]:
    """phi_i = L (E_q gamma (x_i - s_ji)² - E_p gamma (x_i - s_ji)²): how much nearer is one side.

    With P and N the sums of |a_j| k(x, s_j) over the support vectors for and against, p and q their
    shares in them (softmaxes of log |a_j| - gamma |x - s_j|²) and L = (P - N) / (log P - log N),
    s = rho + L (log P - log N), and log P - log N is a softmax pooling of detectors
    gamma (|x - s_k|² - |x - s_j|²) + log |a_j| / |a_k|, each linear in x, whose parts by feature
    from the middle of s_j and s_k are averaged. R_i = phi_i R / stab(s); rho and the weights'
    logarithms are a bias. Of one class, whose weights have one sign, N or P is |rho|, and phi is
    -L E_p gamma (x_i - s_ji)².

    Under a reference each kernel's change is shared out in proportion to that of its exponent by
    features, (k_j - k⁰_j) / (e_j - e⁰_j) times -gamma ((x_i - s_ji)² - (x⁰_i - s_ji)²).

    Equals: Kauffmann et al. 2020, one-class SVM, up to L.
    Use: radial kernels.
    """
    (value,), relevance = crossing.live_inputs, crossing.incoming.tensor
    if relevance.is_zero:
        return [(value, Relevance(relevance, True))]
    emitter, x, sides = crossing.emitter, crossing.tensor(value), _sides(crossing.operation)
    if crossing.rule == "gradient":
        terms = None
        for side, sign in zip(sides, (-2.0, 2.0), strict=True):
            away = _apart(x, side)
            pull = emitter.elementwise("Exp", _exponents(away, side)) * _constant(x, side.gammas)
            part = _averaged(pull, away) * sign
            terms = part if terms is None else terms + part
        assert terms is not None
        return [(value, Relevance(terms * relevance, False))]
    stabiliser = crossing.parameters["stabiliser"]
    assert isinstance(stabiliser, int | float)
    z = crossing.change(crossing.operation.outputs[0])
    if crossing.root:
        terms, bias = _changes(x, crossing.root[id(value)], sides), emitter.zero
    else:
        terms = _nearer(x, sides)
        bias = z - layout.reduce_sum(terms, [1])
    share = relevance / stabilised(z, float(stabiliser))
    crossing.accounts.append(Account(relevance, z, bias, share))
    return [(value, Relevance(terms * share, False))]


def _constant(x: Tensor, array: Array) -> Tensor:
    return x.emitter.constant(array.astype(x.dtype.numpy()))


def _apart(x: Tensor, side: _Side) -> Tensor:
    """x - s_j: [N, n, F]."""
    # A reference that is 0 leaves the vectors' own shape.
    return layout.unsqueeze(x, [1]) - _constant(x, side.vectors[None])


def _exponents(away: Tensor, side: _Side) -> Tensor:
    """log |a_j| - gamma |x - s_j|²: [N, n]."""
    distances = layout.reduce_sum(away**2, [2], keepdims=False)
    return _constant(away, side.logarithms) - distances * _constant(away, side.gammas)


def _averaged(weights: Tensor, values: Tensor) -> Tensor:
    """Sum [N, n] times [N, n, F] over n."""
    column = layout.unsqueeze(weights, [2])
    return layout.reduce_sum(column * values, [1], keepdims=False)


def _nearer(x: Tensor, sides: tuple[_Side, _Side]) -> Tensor:
    emitter, sums, distances = x.emitter, [], []
    for side in sides:
        away = _apart(x, side)
        exponents = _exponents(away, side)
        kind, shape = exponents.dtype, (exponents.shape[0], 1)
        axis = emitter.vector([1])
        sums.append(emitter.node("ReduceLogSumExp", exponents, axis, shape=shape, dtype=kind))
        shares = emitter.node(
            "Softmax", exponents, shape=exponents.shape, dtype=kind, sign=Sign.NON_NEGATIVE, axis=1
        )
        distances.append(_averaged(shares * _constant(x, side.gammas), away**2))
    return (distances[1] - distances[0]) * _logarithmic_mean(*sums)


def _logarithmic_mean(a: Tensor, b: Tensor) -> Tensor:
    """(e^a - e^b) / (a - b), e^a where both are the same."""
    emitter, change = a.emitter, a - b
    near = emitter.compare(
        "Less", emitter.elementwise("Abs", change), emitter.scalar(_ALIKE, change)
    )
    middle = emitter.elementwise("Exp", (a + b) * 0.5) * (1.0 + change**2 * (1 / 24))
    apart = emitter.where(near, emitter.scalar(1.0, change), change, Sign.UNKNOWN)
    far = (emitter.elementwise("Exp", a) - emitter.elementwise("Exp", b)) / apart
    return emitter.where(near, middle, far, Sign.NON_NEGATIVE)


def _changes(x: Tensor, root: Tensor, sides: tuple[_Side, _Side]) -> Tensor:
    total = None
    for side, sign in zip(sides, (-1.0, 1.0), strict=True):
        away, before = _apart(x, side), _apart(root, side)
        mean = _logarithmic_mean(_exponents(away, side), _exponents(before, side))
        part = _averaged(mean * _constant(x, side.gammas), away**2 - before**2) * sign
        total = part if total is None else total + part
    assert total is not None
    return total
