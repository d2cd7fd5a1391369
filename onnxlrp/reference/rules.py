"""The rules of Layer-wise Relevance Propagation, on their definition.

A rule says which share of the relevance R_j of an output j of a layer is handed to its input i. All
rules for linear layers are written here on the contributions z_ij = x_i w_ij themselves, with no
regard for cost. Equation numbers are those of Binder et al., "Layer-wise Relevance Propagation for
Neural Networks with Local Renormalization Layers" (2016).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnxlrp.reference.contributions import (
    LINEAR,
    Block,
    Inputs,
    gathered,
    live_values,
    window_index,
)
from onnxlrp.reference.operators import ACTIVATIONS, Array, attributes_of, forward, lrn_window

CHUNK = 2**18
"""How many contributions z_ij are held at a time."""

PASSED_ON = frozenset(ACTIVATIONS) | {"Identity", "Dropout", "Cast"}
"""Operators whose every output element has one input element, which receives its relevance."""

STRUCTURAL = {
    *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Concat", "Split", "Slice", "Pad"),
    *("Gather", "Expand", "Tile", "DepthToSpace", "SpaceToDepth"),
}
"""Operators that only move elements; relevance goes back to where its element came from."""


@dataclass(frozen=True)
class Propagated:
    """What became of the relevance of a node's outputs.

    ``relevance`` has one array per input, None where the input does not depend on the explained
    one. ``bias`` and ``stabiliser`` hold, per sample of axis 0, what constants and the stabiliser
    took: the three add up to what came in (for alpha-beta, alpha - beta times that). Of the LRN
    rules, ``taylor-unnormalised`` and ``gradient`` do not conserve and nobody took the difference.
    """

    relevance: list[Array | None]
    bias: Array
    stabiliser: Array


# --- Rules for linear layers ---------------------------------------------------------------------


@dataclass(frozen=True)
class Shares:
    """How R_j, [L, O], was divided: among the inputs, [L, K], the bias and the stabiliser."""

    inputs: Array
    bias: Array
    stabiliser: Array

    def __sub__(self, other: "Shares") -> "Shares":
        return Shares(
            self.inputs - other.inputs,
            self.bias - other.bias,
            self.stabiliser - other.stabiliser,
        )


@dataclass(frozen=True)
class Contributions:
    """The z_ij of some outputs j: z and connected [L, K, O], bias b_j and relevance R_j [L, O]."""

    z: Array
    connected: Array
    bias: Array
    relevance: Array


def stab(d: Array, epsilon: float) -> Array:
    """Move a denominator away from zero: d + epsilon s(d), s(d) = +1 for d >= 0 and else -1."""
    return d + epsilon * np.where(d >= 0, 1.0, -1.0)


def _proportional(
    c: Contributions, part: Array, bias: Array, relevance: Array, epsilon: float, treatment: str
) -> Shares:
    """Divide R_j in proportion to a part of the contributions, [L, K, O], and of the bias.

    The bias takes part and keeps its share ("absorb"), is left out ("exclude"), or takes part and
    its share is spread evenly over the inputs that are connected to j ("distribute").
    """
    if treatment not in ("absorb", "exclude", "distribute"):
        raise ValueError(f"no bias treatment {treatment!r}")
    if treatment == "exclude":
        bias = np.zeros_like(bias)
    total = part.sum(axis=1) + bias
    ratio = relevance / stab(total, epsilon)
    messages = (part @ ratio[:, :, None])[:, :, 0]
    bias_share = bias * ratio
    if treatment == "distribute":
        count = c.connected.sum(axis=1)
        each = np.divide(bias_share, count, out=np.zeros_like(bias_share), where=count > 0)
        messages = messages + (c.connected @ each[:, :, None])[:, :, 0]
        bias_share = np.where(count > 0, 0.0, bias_share)
    return Shares(messages, bias_share, (stab(total, epsilon) - total) * ratio)


def _epsilon(
    c: Contributions, epsilon: float = 1e-6, bias: str = "absorb", power: float = 1
) -> Shares:
    """R_i = sum_j z_ij / stab(sum_i z_ij + b_j) R_j, or (eq. 5) on z_ij^p without bias."""
    if power != 1:
        return _proportional(c, c.z**power, c.bias, c.relevance, epsilon, "exclude")
    return _proportional(c, c.z, c.bias, c.relevance, epsilon, bias)


def _norm(c: Contributions, stabiliser: float = 1e-6) -> Shares:
    """Epsilon with the bias absorbed; on average pools, epsilon is added to the mean."""
    return _proportional(c, c.z, c.bias, c.relevance, stabiliser, "absorb")


def _z_plus(c: Contributions, stabiliser: float = 1e-6, bias: str = "absorb") -> Shares:
    """Only what excites j counts: max(z_ij, 0) and max(b_j, 0)."""
    positive = np.maximum(c.z, 0), np.maximum(c.bias, 0)
    return _proportional(c, *positive, c.relevance, stabiliser, bias)


def _alpha_beta(
    c: Contributions, alpha: float, beta: float, stabiliser: float = 1e-6, bias: str = "absorb"
) -> Shares:
    """alpha R_j divided among what excites j, minus beta R_j among what inhibits it.

    No part steps in for another that is empty: the stabiliser takes all that the empty part had.
    """
    positive = np.maximum(c.z, 0), np.maximum(c.bias, 0)
    negative = np.minimum(c.z, 0), np.minimum(c.bias, 0)
    excited = _proportional(c, *positive, alpha * c.relevance, stabiliser, bias)
    return excited - _proportional(c, *negative, beta * c.relevance, stabiliser, bias)


def _beta(c: Contributions, beta: float, stabiliser: float = 1e-6, bias: str = "absorb") -> Shares:
    """Eq. 6, which is alpha-beta with alpha = 1 + beta."""
    return _alpha_beta(c, 1 + beta, beta, stabiliser, bias)


def _flat(c: Contributions, stabiliser: float = 1e-6) -> Shares:
    """Every input that is connected to j gets the same: z_ij = 1, no bias."""
    ones = c.connected.astype(np.float64)
    return _proportional(c, ones, c.bias, c.relevance, stabiliser, "exclude")


LINEAR_RULES: dict[str, Callable[..., Shares]] = {
    "epsilon": _epsilon,
    "norm": _norm,
    "z-plus": _z_plus,
    "alpha-beta": _alpha_beta,
    "beta": _beta,
    "flat": _flat,
}


def _chunks(block: Block) -> list[tuple[slice, slice]]:
    """Cut the outputs of a block so that no more than CHUNK contributions are held at a time."""
    rows, columns = block.output.shape
    inputs = max(block.index.shape[1], 1)
    wide = min(columns, max(1, CHUNK // inputs))
    high = max(1, CHUNK // (inputs * wide))
    return [
        (slice(r, r + high), slice(o, o + wide))
        for r in range(0, rows, high)
        for o in range(0, columns, wide)
    ]


def _samples(shape: Sequence[int]) -> int:
    return shape[0] if shape else 1


def _linear(
    node: onnx.NodeProto,
    inputs: Inputs,
    relevance: Array,
    rule: str,
    parameters: Mapping[str, Any],
    live: Sequence[bool],
    layer: Callable[..., Any],
) -> Propagated:
    values = live_values(inputs, live)
    # The element that index -1 finds is the padding: zero, and what it receives is dropped.
    x = np.concatenate([*(v.reshape(-1) for v in values), [0.0]])
    r_in, r_out = np.zeros_like(x), relevance.reshape(-1)
    samples = _samples(relevance.shape)
    bias, stabiliser = np.zeros(samples), np.zeros(samples)
    for block in layer(node, inputs, live):
        full = (*block.index.shape, block.output.shape[1])
        weight = np.broadcast_to(block.weight, full)
        connected = np.broadcast_to(block.connected, full)
        constant = np.broadcast_to(block.bias, block.output.shape)
        for rows, columns in _chunks(block):
            index, output = block.index[rows], block.output[rows, columns]
            shares = LINEAR_RULES[rule](
                Contributions(
                    z=x[index][:, :, None] * weight[rows, :, columns],
                    connected=connected[rows, :, columns],
                    bias=constant[rows, columns],
                    relevance=r_out[output],
                ),
                **parameters,
            )
            np.add.at(r_in, index, shares.inputs)
            sample = output // max(relevance.size // samples, 1)
            np.add.at(bias, sample, shares.bias)
            np.add.at(stabiliser, sample, shares.stabiliser)
    parts = np.split(r_in[:-1], np.cumsum([v.size for v in values])[:-1])
    shaped = iter(part.reshape(v.shape) for part, v in zip(parts, values, strict=True))
    return Propagated([next(shaped) if alive else None for alive in live], bias, stabiliser)


# --- Local response normalisation ----------------------------------------------------------------


def _normalization_shares(
    x: Array, k: int, others: Sequence[int], a: float, bias: float, beta: float, rule: str
) -> dict[int, Array]:
    """Return by channel the share that it gets of each unit of relevance of y_k.

    y_k = x_k / (bias + a sum_j x_j^2)^beta over the window. The first-order Taylor expansion
    (eqs. 10-15) gives z_kk = x_k u^-beta and z_kj = -2 a beta x_k x_j^2 S^-(beta+1), with S the
    whole base of the power and u the base with k alone in the window.
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


def _lrn(node: onnx.NodeProto, x: Array, relevance: Array, rule: str) -> Array:
    attributes = attributes_of(node)
    size, bias = attributes["size"], attributes.get("bias", 1.0)
    a, beta = attributes.get("alpha", 1e-4) / size, attributes.get("beta", 0.75)
    r_in = np.zeros_like(x)
    for k in range(x.shape[1]):
        others = [j for j in lrn_window(k, size, x.shape[1]) if j != k]
        for j, share in _normalization_shares(x, k, others, a, bias, beta, rule).items():
            r_in[:, j] += share * relevance[:, k]
    return r_in


# --- Max pooling, structure ----------------------------------------------------------------------


def _winner_takes_all(node: onnx.NodeProto, x: Array, relevance: Array) -> Array:
    """Give R_j to the first maximum, in row-major order, of the window of j."""
    index = window_index(attributes_of(node), x.shape)
    seen = np.where(index >= 0, x.reshape(-1)[index], -np.inf)
    winner = index[np.arange(len(index)), np.argmax(seen, axis=1)]
    r_in = np.zeros(x.size)
    np.add.at(r_in, winner, relevance.reshape(-1))
    return r_in.reshape(x.shape)


def _structural(
    node: onnx.NodeProto, inputs: Inputs, relevance: Sequence[Array | None], live: Sequence[bool]
) -> Propagated:
    """Send the positions of all elements through the operator and read where each one went."""
    constant = -1
    tracers, start = list(inputs), 0
    for t, (v, alive) in enumerate(zip(inputs, live, strict=True)):
        if v is not None and alive:
            tracers[t] = np.arange(start, start + v.size).reshape(v.shape)
            start += v.size
        elif v is not None and node.op_type == "Concat":
            tracers[t] = np.full(v.shape, constant)
    if node.op_type == "Pad":
        tracers[2:3] = [np.array(constant)]
    r_in = np.zeros(start + 1)
    samples = next(_samples(r.shape) for r in relevance if r is not None)
    bias = np.zeros(samples)
    for origin, r in zip(forward(node, tracers), relevance, strict=True):
        if r is not None:
            np.add.at(r_in, origin, r)
            lost = np.where(origin == constant, r, 0.0)
            # Only operators with one output bring in constants.
            bias += lost.reshape(samples, -1).sum(axis=1) if len(relevance) == 1 else 0.0
    values = live_values(inputs, live)
    parts = iter(np.split(r_in[:-1], np.cumsum([v.size for v in values])))
    back = [
        next(parts).reshape(v.shape) if alive and v is not None else None
        for v, alive in zip(inputs, live, strict=True)
    ]
    return Propagated(back, bias, np.zeros(samples))


def propagate(
    node: onnx.NodeProto,
    inputs: Inputs,
    relevance: Sequence[Array | None],
    rule: str,
    parameters: Mapping[str, Any],
    live: Sequence[bool],
    layer: Callable[..., Any] = gathered,
) -> Propagated:
    """Take relevance from the outputs of a node back to its inputs.

    Parameters
    ----------
    node, inputs
        The node and the values of all its inputs, weights included, None for absent ones.
    relevance
        One array per output of the node, None for outputs without relevance.
    rule, parameters
        The rule and its parameters; ignored where the operator leaves no choice.
    live
        Which inputs depend on the explained input.
    layer
        The way to the contributions of a linear layer, ``gathered`` or ``probed``.
    """
    if node.op_type in STRUCTURAL:
        return _structural(node, inputs, relevance, live)
    r, at = relevance[0], list(live).index(True)
    x = inputs[at]
    assert r is not None
    assert x is not None
    nothing = np.zeros(_samples(r.shape))
    if node.op_type in LINEAR and rule != "pass":
        return _linear(node, inputs, r, rule, parameters, live, layer)
    if node.op_type in PASSED_ON or node.op_type in LINEAR:
        if sum(live) != 1 or x.shape != r.shape:
            raise ValueError(f"relevance cannot pass {node.op_type} unchanged")
        back = r
    elif node.op_type == "MaxPool":
        if rule != "winner-takes-all":
            raise ValueError(f"no MaxPool rule {rule!r}")
        back = _winner_takes_all(node, x, r)
    elif node.op_type == "LRN":
        back = _lrn(node, x, r, rule)
    else:
        raise NotImplementedError(f"no rule for {node.op_type}")
    return Propagated([back if t == at else None for t in range(len(live))], nothing, nothing)
