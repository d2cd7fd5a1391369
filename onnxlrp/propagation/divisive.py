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

from onnxlrp.propagation.expression import Tensor


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
