"""Ensembles of decision trees: what each feature changes on the ways to the leaves.

No layer-wise relevance propagation: a tree has no weights that relevance could follow. Both rules
split the score of each sample into a mean and what features add to it, z_k = b_k + sum_i phi_ik,
and relevance is shared out along these terms, R_i = sum_k phi_ik R_k / stab(z_k), b_k taking its
share as a bias does. The mean is that of all leaves, weighted by `nodes_hitrates` where the file
has them: exporters write ones, and then all leaves count alike, which is not what SHAP or
treeinterpreter take from the training samples. Under a reference x0 there is no mean: the terms
add up to the change of the score, and nothing of training is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxlrp.graph.canonical import Operation
from onnxlrp.graph.shapes import Dim
from onnxlrp.graph.trees import TREES, Leaves, leaves_of
from onnxlrp.propagation import layout
from onnxlrp.propagation.expression import Sign, Tensor
from onnxlrp.propagation.formulas import Account, Parameter, stabilised
from onnxlrp.propagation.registry import Crossing, Relevance, fail, operator, static_shape

_NOWHERE = 1e-30
"""Lost in any factor that is not 0: for features whose demand holds at neither point."""


@dataclass(frozen=True)
class Ways:
    """The leaves of an ensemble, and which of their demands hold.

    Attributes
    ----------
    leaves : as tables
    holds : [N, L, D], 1 where what a leaf asks of a feature holds at x, else 0
    at_root : the same at the reference; None without one
    weighted : takes [L, ..., K] to [N, L, ...], the sum over k times R_k / stab(z_k)

    """

    leaves: Leaves
    holds: Tensor
    at_root: Tensor | None
    weighted: Callable[[NDArray[np.float64]], Tensor]


def saabas(ways: Ways) -> Tensor:
    """phi_i = sum over the splits by i on the way of x: change of the mean of the leaves below.

    Saabas 2014, "Interpreting random forests"; it favours what splits last. Under a reference the
    difference of both ways.

    Equals: treeinterpreter, `shap.TreeExplainer(approximate=True)` up to the means, which they take
    from training.
    Use: a tree read from its root, at a tenth of the price of `treeshap`.
    """
    reached = _all_of(ways.holds)
    if ways.at_root is not None:
        reached = reached - _all_of(ways.at_root)
    return reached * ways.weighted(ways.leaves.step)


def treeshap(ways: Ways) -> Tensor:
    """phi_i = sum over leaves v (o_i - q_i) ∫₀¹ prod_{j≠i} (t o_j + (1 - t) q_j) dt.

    Shapley values of the trees' own expectation (Lundberg et al. 2020): o_j is 1 where x does what
    the leaf asks of feature j, q_j which part of the samples does; ∫ t^s (1 - t)^(d-1-s) dt is the
    weight of a coalition of s, and Gauss and Legendre's points give the integral of the polynomial
    exactly. Under a reference x0, q_j is 1 where x0 does: the values of the game that replaces
    features of x0 by those of x.

    Equals: `shap.TreeExplainer`, "tree_path_dependent" with the same `nodes_hitrates`;
    "interventional" with the reference for its only background.
    Use: trees by default.
    """
    emitter = ways.holds.emitter
    part = ways.leaves.part[None].astype(ways.holds.dtype.numpy())
    other = emitter.constant(part, Sign.NON_NEGATIVE) if ways.at_root is None else ways.at_root
    total = None
    points, weights = np.polynomial.legendre.leggauss((part.shape[-1] + 1) // 2)
    for point, weight in zip(points, weights, strict=True):
        t = float(1 + point) / 2
        factor = ways.holds * t + other * (1 - t)
        term = _all_of(factor) * float(weight / 2) / (factor + _NOWHERE)
        total = term if total is None else total + term
    assert total is not None
    return (ways.holds - other) * total * ways.weighted(ways.leaves.value[:, None])


def _all_of(factors: Tensor) -> Tensor:
    """Multiply over the features that a leaf asks: [N, L, D] becomes [N, L, 1]."""
    return factors.emitter.node(
        "ReduceProd",
        factors,
        factors.emitter.vector([-1]),
        shape=(*factors.shape[:-1], 1),
        dtype=factors.dtype,
        sign=Sign.NON_NEGATIVE,
    )


TREATMENTS: Mapping[str, Callable[[Ways], Tensor]] = {"treeshap": treeshap, "saabas": saabas}
"""The terms of [N, L, D] that features get, each of one leaf and one feature that it asks."""

_RULES: Mapping[str, Mapping[str, Parameter]] = {
    **{name: {"stabiliser": 1e-6} for name in TREATMENTS},
    "gradient": {},
}


def _leaves(operation: Operation) -> Leaves:
    value = operation.inputs[0]
    assert value is not None
    return _read(operation.node, operation.operator, value.dtype is ir.DataType.DOUBLE)


# A check reads the trees, and a crossing once more.
@lru_cache(maxsize=2)
def _read(node: ir.Node, operator: str, double: bool) -> Leaves:
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    return leaves_of(operator, attributes, np.float64 if double else np.float32)


def _check(operation: Operation, live: frozenset[int]) -> None:
    value = operation.inputs[0]
    assert value is not None
    for known in (value, operation.outputs[0]):
        static_shape(known)
    assert value.shape is not None
    if len(value.shape) != 2:
        fail(f"its input has {len(value.shape)} axes", "trees take a table, [N, features]")
    if (operation.attributes.get("post_transform") or "NONE") not in ("NONE", 0):
        fail("of PROBIT and SOFTMAX_ZERO there is no score to start from", "export raw scores")
    try:
        _leaves(operation)
    except ValueError as error:
        fail(str(error), "export the trees again, their outputs added up")


@operator(*TREES, rules=_RULES, check=_check, default="treeshap")
def trees(crossing: Crossing) -> Sequence[tuple[ir.Value, Relevance]]:
    """Share relevance out among the features, by a rule of `TREATMENTS`; the derivative is 0."""
    emitter, (value,) = crossing.emitter, crossing.live_inputs
    if crossing.rule == "gradient":
        return [(value, Relevance(emitter.zero, True))]
    leaves, relevance = _leaves(crossing.operation), crossing.incoming.tensor
    if relevance.is_zero:
        return [(value, Relevance(relevance, True))]
    (output,) = crossing.operation.outputs
    stabiliser = crossing.parameters["stabiliser"]
    assert isinstance(stabiliser, int | float)
    z, bias = crossing.change(output), emitter.zero
    if not crossing.root:
        bias = emitter.constant(leaves.mean.astype(z.dtype.numpy()))
    share = relevance / stabilised(z, float(stabiliser))
    crossing.accounts.append(Account(relevance, z, bias, share))

    def weighted(numbers: NDArray[np.float64]) -> Tensor:
        table = numbers.reshape(-1, numbers.shape[-1]).T.astype(z.dtype.numpy())
        shape = (share.shape[0], table.shape[1])
        flat = emitter.node(
            "MatMul", share, emitter.constant(table), shape=shape, dtype=share.dtype
        )
        return layout.reshape(flat, (shape[0], *numbers.shape[:-1]))

    x = crossing.tensor(value)
    root = crossing.root.get(id(value))
    ways = Ways(
        leaves,
        _holds(leaves, x, z.dtype),
        None if root is None else _holds(leaves, root, z.dtype),
        weighted,
    )
    terms = TREATMENTS[crossing.rule](ways)
    return [(value, Relevance(_to_features(terms, leaves, x), False))]


def _holds(leaves: Leaves, x: Tensor, dtype: ir.DataType) -> Tensor:
    """Tell of every leaf and feature that it asks whether x does what it asks: 1 or 0."""
    emitter = x.emitter
    shape: tuple[Dim, ...] = (x.shape[0], *leaves.feature.shape)
    columns = emitter.constant(leaves.feature)
    seen = emitter.node("Gather", x, columns, shape=shape, dtype=x.dtype, axis=1)
    absent = emitter.node("IsNaN", seen, shape=shape, dtype=ir.DataType.BOOL)
    held = emitter.compare("And", absent, emitter.constant(leaves.missing))
    for low, high in zip(leaves.low, leaves.high, strict=True):
        above = emitter.compare("GreaterOrEqual", seen, emitter.constant(low))
        below = emitter.compare("LessOrEqual", seen, emitter.constant(high))
        held = emitter.compare("Or", held, emitter.compare("And", above, below))
    return layout.cast(held, dtype, Sign.NON_NEGATIVE)


def _to_features(terms: Tensor, leaves: Leaves, x: Tensor) -> Tensor:
    """Add up what each feature gets: [N, L, D] becomes the shape of x."""
    emitter, count = x.emitter, leaves.feature.size
    flat = layout.reshape(terms, (terms.shape[0], count))
    columns = emitter.constant(leaves.feature.reshape(1, -1))
    zeros = emitter.scalar(0.0, terms)
    shape = (terms.shape[0], x.shape[1])
    back = emitter.node(
        "ScatterElements",
        layout.alongside(layout.expand(zeros, x), terms),
        layout.expand(columns, flat),
        flat,
        shape=shape,
        dtype=terms.dtype,
        axis=1,
        reduction="add",
    )
    return layout.cast(back, x.dtype, Sign.UNKNOWN)
