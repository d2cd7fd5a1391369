"""The rules of Layer-wise Relevance Propagation for linear layers, on their definition.

A rule says which share of the relevance R_j of an output j of a layer is handed to its input i. All
are written here on the contributions z_ij = x_i w_ij themselves, with no regard for cost. Where no
source is named, equation numbers are those of Binder et al., "Layer-wise Relevance Propagation for
Neural Networks with Local Renormalization Layers" (2016).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxlrp.reference.operators import Array

Bound = float | Sequence[float]
"""A number, or one for each channel."""


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
    """What makes up some outputs z_j = sum_i x_i w_ij + b_j.

    Attributes
    ----------
    x
        [L, K, 1], the inputs; 0 for padding.
    channel
        [L, K, 1], the channel of each input: its place on axis 1, or on the last of fewer axes
        than three.
    weight
        [L, K, O], the w_ij; 0 where input and output are not connected.
    connected
        [L, K, O], whether they are.
    bias, relevance
        [L, O], the b_j and R_j.
    """

    x: Array
    channel: Array
    weight: Array
    connected: Array
    bias: Array
    relevance: Array

    @cached_property
    def z(self) -> Array:
        """Return the contributions z_ij = x_i w_ij."""
        product: Array = self.x * self.weight
        return product


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


def _even(c: Contributions, stabiliser: float = 1e-6) -> Shares:
    """Flat, but for what inputs weigh, which stands in x: `evened`."""
    return _proportional(c, c.connected * c.x, c.bias, c.relevance, stabiliser, "exclude")


def evened(flat: Array) -> Array:
    """Return 1 / what the flat rule gives each input where every R_j is 1; 0 where nothing."""
    return np.divide(1, flat, out=np.zeros_like(flat), where=flat > 0)


def _gamma(
    c: Contributions, gamma: float = 0.25, stabiliser: float = 1e-6, bias: str = "absorb"
) -> Shares:
    """Favour what has the sign of the output (Andéol et al. 2021's generalised gamma; zennit).

    z_ij + gamma max(z_ij, 0) where z_j >= 0, z_ij + gamma min(z_ij, 0) elsewhere, and b_j likewise.
    A bias that is left out of the denominator still counts in z_j. zennit drops R_j where z_j = 0.
    """
    excited = c.z.sum(axis=1) + c.bias >= 0

    def favoured(part: Array, up: Array) -> Array:
        return part + gamma * np.where(up, np.maximum(part, 0), np.minimum(part, 0))

    part, constant = favoured(c.z, excited[:, None, :]), favoured(c.bias, excited)
    return _proportional(c, part, constant, c.relevance, stabiliser, bias)


def _gamma_original(
    c: Contributions, gamma: float = 0.25, stabiliser: float = 1e-6, bias: str = "absorb"
) -> Shares:
    """Favour positive weights, x_i (w_ij + gamma max(w_ij, 0)) (Montavon et al. 2019, LRP-gamma).

    The bias is the weight of a neuron whose activation is 1.
    """
    part = c.x * (c.weight + gamma * np.maximum(c.weight, 0))
    constant = c.bias + gamma * np.maximum(c.bias, 0)
    return _proportional(c, part, constant, c.relevance, stabiliser, bias)


def _w_square(c: Contributions, stabiliser: float = 1e-6, bias: str = "absorb") -> Shares:
    """Squared weights for contributions, be the inputs what they are, and b_j^2 (zennit `WSquare`).

    Montavon et al. 2017 have no bias in the rule, which is "exclude".
    """
    return _proportional(c, c.weight**2, c.bias**2, c.relevance, stabiliser, bias)


def _z_box(c: Contributions, low: Bound, high: Bound, stabiliser: float = 1e-6) -> Shares:
    """Distance from the box's far corner, for inputs within low and high (Montavon et al. 2017).

    x_i w_ij - low_i max(w_ij, 0) - high_i min(w_ij, 0), without bias: b - max(b, 0) - min(b, 0) is
    nothing.
    """
    lowest = _per_input(low, c) * np.maximum(c.weight, 0)
    highest = _per_input(high, c) * np.minimum(c.weight, 0)
    part = c.z - lowest - highest
    return _proportional(c, part, c.bias, c.relevance, stabiliser, "exclude")


def _per_input(bound: Bound, c: Contributions) -> Array:
    numbers: Array = np.asarray(bound, dtype=np.float64)
    return numbers if numbers.size == 1 else numbers[c.channel]


def _gradient(c: Contributions) -> Shares:
    """sum_j w_ij R_j; what is lost or gained by it, nobody took."""
    nothing = np.zeros_like(c.bias)
    return Shares((c.weight @ c.relevance[:, :, None])[:, :, 0], nothing, nothing)


def _zero(c: Contributions, stabiliser: float = 0.0) -> Shares:
    """Hand nothing on; the stabiliser takes all, whatever its size."""
    return Shares(np.zeros(c.x.shape[:2]), np.zeros_like(c.bias), c.relevance)


LINEAR_RULES: dict[str, Callable[..., Shares]] = {
    "epsilon": _epsilon,
    "norm": _norm,
    "z-plus": _z_plus,
    "alpha-beta": _alpha_beta,
    "beta": _beta,
    "gamma": _gamma,
    "gamma-original": _gamma_original,
    "flat": _flat,
    "even": _even,
    "w-square": _w_square,
    "z-box": _z_box,
    "gradient": _gradient,
    "zero": _zero,
}
"""Every rule for linear layers but ``pass``, which needs no contributions."""
