"""Relevance across local response normalisation.

y_k = x_k / (bias + a sum_j x_j^2)^beta over the window of k. Throughout, S is the whole base of the
power and u the base with k alone in the window; T is the sum of x_j^2 over the others. Equation
numbers are those of Binder et al. (2016).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from onnxlrp.reference.operators import Array, attributes_of, lrn_window
from onnxlrp.reference.rules import stab


def _shares(
    x: Array, k: int, others: Sequence[int], a: float, bias: float, beta: float, rule: str
) -> dict[int, Array]:
    """Return by channel the share that it gets of each unit of relevance of y_k.

    The first-order Taylor expansion around x itself (eqs. 10-15) gives z_kk = x_k u^-beta and
    z_kj = -2 a beta x_k x_j^2 S^-(beta+1).
    """
    neighbours = sum((x[:, j] ** 2 for j in others), start=np.zeros_like(x[:, k]))
    u = bias + a * x[:, k] ** 2
    s = u + a * neighbours
    if rule == "identity":
        return {k: np.ones_like(u)}
    if rule == "gradient":
        slope = -2 * a * beta * x[:, k] * s ** -(beta + 1)
        own = s**-beta + slope * x[:, k]
        return {k: own} | {j: slope * x[:, j] for j in others}
    if rule == "path-integral":
        # Along a path to z_2, where the neighbours are gone, y_k changes by y_k(z_1) - y_k(z_2).
        own = (s / u) ** beta
        safe = np.where(neighbours > 0, neighbours, 1.0)
        return {k: own} | {j: (1 - own) * x[:, j] ** 2 / safe for j in others}
    z = {k: u**-beta} | {j: -2 * a * beta * x[:, j] ** 2 * s ** -(beta + 1) for j in others}
    if rule == "taylor-unnormalised":
        return {j: x[:, k] * z_kj for j, z_kj in z.items()}
    if rule == "taylor":
        # x_k, a factor of every z_kj, cancels in eq. 7, which leaves the limit where x_k is zero.
        total = sum(z.values())
        return {j: z_kj / total for j, z_kj in z.items()}
    raise ValueError(f"no LRN rule {rule!r}")


def second_order(
    x: Array, k: int, others: Sequence[int], a: float, bias: float, beta: float
) -> dict[int, Array]:
    """Return the z_kj over x_k u^-beta of the second-order Taylor expansion around x.

    With d_j = -x_j for the others and d_k = 0, y_k(x) = y_k(x + d) - grad y_k d - d H d / 2. Of the
    term x_i H_ij x_j, i and j get one half each, so that

        z_kj = -a beta x_k x_j^2 S^-(beta+1) (1 + 2 a (beta + 1) T / S)
    """
    neighbours = sum((x[:, j] ** 2 for j in others), start=np.zeros_like(x[:, k]))
    u = bias + a * x[:, k] ** 2
    s = u + a * neighbours
    curved = -a * beta * (u / s) ** beta / s * (1 + 2 * a * (beta + 1) * neighbours / s)
    return {k: np.ones_like(u)} | {j: curved * x[:, j] ** 2 for j in others}


def cross_divisive(
    x: Array, weights: Array, bias: Array | float, beta: float, relevance: Array
) -> Array:
    """Return the relevance of x across y_k = x_k / (bias_k + sum_j c_kj x_j^2)^beta by ``taylor``.

    All are [rows, D] but the weights c, [D, D]. Eqs. 8 to 10 on any weights: z_kk = x_k u_k^-beta,
    what is left of y_k without its neighbours, and z_kj = x_j times the slope of y_k in x_j.
    """
    s = bias + x**2 @ weights.T
    u = bias + np.diag(weights) * x**2
    # x_k, a factor of every z_kj, is left out, as in `_shares`.
    z = -2 * beta * weights * (x**2)[:, None, :] * (s ** -(beta + 1))[:, :, None]
    at = np.arange(x.shape[1])
    z[:, at, at] = u**-beta
    return np.asarray(np.einsum("rkj,rk->rj", z / z.sum(axis=2, keepdims=True), relevance))


def cross_lrn(
    node: onnx.NodeProto, x: Array, relevance: Array, rule: str, parameters: Mapping[str, Any]
) -> tuple[Array, Array]:
    """Return the relevance of x, and of each element of y what the stabiliser took.

    ``taylor`` and ``path-integral`` conserve by themselves; ``taylor-2`` is divided by a sum that
    can cancel, and so takes a ``stabiliser``.
    """
    attributes = attributes_of(node)
    size, bias = attributes["size"], attributes.get("bias", 1.0)
    a, beta = attributes.get("alpha", 1e-4) / size, attributes.get("beta", 0.75)
    epsilon = parameters.get("stabiliser", 1e-6)
    r_in, taken = np.zeros_like(x), np.zeros_like(x)
    for k in range(x.shape[1]):
        others = [j for j in lrn_window(k, size, x.shape[1]) if j != k]
        if rule == "taylor-2":
            z = second_order(x, k, others, a, bias, beta)
            total: Array = sum(z.values(), start=np.zeros_like(x[:, k]))
            shares = {j: z_kj / stab(total, epsilon) for j, z_kj in z.items()}
            taken[:, k] = (1 - total / stab(total, epsilon)) * relevance[:, k]
        else:
            shares = _shares(x, k, others, a, bias, beta, rule)
        for j, share in shares.items():
            r_in[:, j] += share * relevance[:, k]
    return r_in, taken
