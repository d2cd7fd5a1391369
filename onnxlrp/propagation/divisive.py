"""Layers that divide each value by what surrounds it, and the seed paper's rule for all of them.

A value is divided by a power of a weighted sum of squares,

    y_k = x_k S_k^-beta,    S_k = u_k + T_k,    u_k = b + c_kk x_k²,    T_k = sum_{j≠k} c_kj x_j²

with weights c >= 0: local response normalisation over channels or over a window in space, divisive
normalisation (GDN), x / |x|, and what is left of RMS-, Layer-, Group- and InstanceNormalization
once the mean is taken off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnxlrp.propagation.expression import Sign, Tensor
from onnxlrp.propagation.formulas import stabilised


@dataclass(frozen=True)
class Divisive:
    """The quantities of the module's docstring at one operation.

    Attributes
    ----------
    x, squared : x_k and its square
    beta : the exponent
    own : c_kk
    u, others, total : u_k, T_k and S_k
    neighbours : of t_k, sum_{k≠j} c_kj t_k over all whose sum has x_j in it

    """

    x: Tensor
    squared: Tensor
    beta: float
    own: Tensor | float
    u: Tensor
    others: Tensor
    total: Tensor
    neighbours: Callable[[Tensor], Tensor]


def taylor_shares(layer: Divisive, relevance: Tensor) -> Tensor:
    """First-order Taylor shares (Binder et al. 2016, eqs. 8 to 15).

    Expanded at x (eq. 8), towards the point where k alone is left of all it is divided by: what
    y_k is there belongs to x_k, and each slope times x_j to its neighbour j (eqs. 9 and 10):

        z_kk = x_k u_k^-beta,    z_kj = -2 beta c_kj x_k x_j² S_k^-(beta + 1)

    divided by their own sum as eqs. 3 and 7 ask. x_k cancels: with r = (u / S)^beta / S and
    g = R / (1 - 2 beta T r),

        R_j = g_j - 2 beta x_j² (sum over k≠j of c_kj r_k g_k)

    It conserves relevance exactly, and 1 - 2 beta T r > 0 needs no stabiliser.
    """
    r = (layer.u / layer.total) ** layer.beta / layer.total
    factor = 2 * layer.beta
    g = relevance / (1.0 - layer.others * r * factor)
    return g - layer.squared * layer.neighbours(r * g) * factor


def slopes(layer: Divisive, relevance: Tensor) -> Tensor:
    """Return the transposed Jacobian times relevance.

    R_j = S_j^-beta R_j - 2 beta x_j sum_k c_kj x_k S_k^-(beta + 1) R_k.
    """
    slope = layer.x * layer.total ** (-layer.beta - 1) * relevance
    back = slope * layer.own + layer.neighbours(slope)
    return relevance * layer.total ** (-layer.beta) - layer.x * back * (2 * layer.beta)


def secant_shares(after: Divisive, before: Divisive, relevance: Tensor) -> Tensor:
    """Shares of how much y changes from a reference x⁰ to x, without a remainder.

    With P = S^-beta, a bar for the middle of both points, and Δ for the change between them,

        Δy_k = P̄_k Δx_k + x̄_k q_k sum_j c_kj Δ(x_j²),    q_k = ΔP_k / ΔS_k

    exactly, and relevance is shared out in proportion to these terms: with g = R / stab(Δy),
    R_j = P̄_j Δx_j g_j + Δ(x_j²) sum_k c_kj x̄_k q_k g_k. It conserves relevance.
    """
    emitter, moved, twice = after.x.emitter, after.x - before.x, after.x + before.x
    squares = moved * twice
    # As sums of changes: a difference of what is nearly alike is little but rounding.
    change = squares * after.own + after.neighbours(squares)
    power, root_power = (t.total**-t.beta for t in (after, before))
    mean = (after.total + before.total) * 0.5
    # Where S hardly changes, the secant of its power is the slope, and what it bends.
    size = emitter.elementwise("Abs", change, sign=Sign.NON_NEGATIVE)
    alike = emitter.compare("Less", size, mean * _ALIKE)
    width = emitter.where(alike, emitter.scalar(1.0, change), change, Sign.UNKNOWN)
    third = (after.beta + 1) * (after.beta + 2) / 24
    slope = mean ** (-after.beta - 1) * -after.beta * (1.0 + (change / mean) ** 2 * third)
    q = emitter.where(alike, slope, (power - root_power) / width, Sign.UNKNOWN)
    own, bent = moved * (power + root_power) * 0.5, twice * q * 0.5
    g = relevance / stabilised(own + bent * change, _STABILISER)
    back = bent * g
    return own * g + squares * (back * after.own + after.neighbours(back))


_ALIKE = 0.05
_STABILISER = 1e-6
