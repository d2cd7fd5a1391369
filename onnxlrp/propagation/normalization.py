"""Local response normalisation, by first-order Taylor expansion and otherwise.

With a = alpha / size, u = bias + a x_k², T the window's sum of x_j² without x_k, and
S = u + a T, the operator computes y_k = x_k S^-beta.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxlrp.graph.canonical import Operation
from onnxlrp.propagation import layout
from onnxlrp.propagation.expression import Sign, Tensor
from onnxlrp.propagation.formulas import Parameter, stabilised
from onnxlrp.propagation.registry import (
    Crossing,
    Relevance,
    fail,
    known_channels,
    only_first_live,
    operator,
)

_DEFAULTS = {"alpha": 1e-4, "beta": 0.75, "bias": 1.0}


def _check(operation: Operation, live: frozenset[int]) -> None:
    only_first_live(operation, live)
    value = operation.inputs[0]
    assert value is not None
    known_channels(value)
    if int(operation.attributes["size"]) < 1:
        fail("its size is below 1", "the model is invalid")
    for name, default in _DEFAULTS.items():
        number = float(operation.attributes.get(name, default))
        # onnxruntime runs none with alpha or beta 0, which would only scale.
        if not 0 < number < math.inf:
            fail(
                f"its {name} is {number:g}, and relevance is only defined for {name} > 0",
                "retrain or remove the normalisation",
            )


@dataclass(frozen=True)
class _Terms:
    """The quantities of the module's docstring, for one LRN node."""

    x: Tensor
    squared: Tensor
    a: float
    beta: float
    u: Tensor
    others: Tensor
    total: Tensor
    transposed: Tensor

    def neighbours(self, tensor: Tensor) -> Tensor:
        """Sum over the channels in whose windows each channel is, without itself."""
        return _banded(tensor, self.transposed)


def _terms(crossing: Crossing) -> _Terms:
    operation = crossing.operation
    x = crossing.input(0)
    size = int(operation.attributes["size"])
    alpha, beta, bias = (
        float(operation.attributes.get(name, default)) for name, default in _DEFAULTS.items()
    )
    before = int(operation.attributes.get("before", (size - 1) // 2))
    after = int(operation.attributes.get("after", size // 2))
    channels = x.shape[1]
    assert isinstance(channels, int)
    band = np.zeros((channels, channels), x.dtype.numpy())
    for k in range(channels):
        band[k, max(0, k - before) : k + after + 1] = 1
    np.fill_diagonal(band, 0)
    a = alpha / size
    squared = x**2
    window = crossing.emitter.constant(band, Sign.NON_NEGATIVE)
    transposed = crossing.emitter.constant(np.ascontiguousarray(band.T), Sign.NON_NEGATIVE)
    others = _banded(squared, window)
    u = squared * a + bias
    return _Terms(x, squared, a, beta, u, others, u + others * a, transposed)


def _banded(tensor: Tensor, band: Tensor) -> Tensor:
    """Weighted sums over the channels: a convolution of size 1."""
    emitter = tensor.emitter
    if tensor.is_zero:
        return tensor
    ones = (1,) * (max(tensor.rank, 3) - 2)
    # Conv wants a spatial axis.
    lifted = tensor if tensor.rank > 2 else layout.reshape(tensor, (*tensor.shape, 1))
    weights = layout.reshape(band, (*band.shape, *ones))
    result = emitter.node(
        "Conv",
        lifted,
        weights,
        shape=lifted.shape,
        dtype=tensor.dtype,
        sign=tensor.sign * band.sign,
        kernel_shape=list(ones),
    )
    return layout.reshape(result, tensor.shape)


def taylor(crossing: Crossing, relevance: Tensor) -> Tensor:
    """First-order Taylor shares around the activation without neighbours.

    Binder et al. 2016, eqs. 10-15, divided by their own sum as eqs. 3 and 7 ask, x_k cancelled:
    with r = (u / S)^beta / S, Q = 2 a beta T r and g = R / (1 - Q),

        R_in = g - 2 a beta x² (sum of r g over the channels that have x in their window)

    It conserves relevance exactly, and 1 - Q > 0 needs no stabiliser.

    Equals: the paper as written; no peer.
    Use: by default.
    """
    terms = _terms(crossing)
    r = (terms.u / terms.total) ** terms.beta / terms.total
    factor = 2 * terms.a * terms.beta
    g = relevance / (1.0 - terms.others * r * factor)
    return g - terms.squared * terms.neighbours(r * g) * factor


def taylor_unnormalised(crossing: Crossing, relevance: Tensor) -> Tensor:
    """R_i = sum_k z_ki R_k with eq. 15's terms, not divided by their sum.

    It multiplies relevance by the activation.

    Equals: LRP Toolbox for Caffe.
    Use: comparison with maps made so; the paper's figures may be.
    """
    terms = _terms(crossing)
    own = terms.x * terms.u ** (-terms.beta) * relevance
    slope = terms.x * terms.total ** (-terms.beta - 1) * relevance
    return own - terms.squared * terms.neighbours(slope) * (2 * terms.a * terms.beta)


def taylor_2(crossing: Crossing, relevance: Tensor) -> Tensor:
    """Second-order Taylor shares, cross terms halved between their two neighbours.

    The expansion of eq. 10 one order further: with r as for `taylor` and
    c = r (1 + 2 a (beta + 1) T / S), the neighbours' part of the sum is a beta T c,
    q = 1 - a beta T c, and R_in = g - a beta x² (sum of c g over the transposed window) with
    g = R / stab(q).

    Equals: no peer; the paper names it as future work.
    Use: to see what the first order leaves out.
    """
    terms = _terms(crossing)
    r = (terms.u / terms.total) ** terms.beta / terms.total
    c = r * (terms.others / terms.total * (2 * terms.a * (terms.beta + 1)) + 1.0)
    factor = terms.a * terms.beta
    q = 1.0 - terms.others * c * factor
    g = relevance / stabilised(q, float(crossing.parameters["stabiliser"]))  # type: ignore[arg-type]
    return g - terms.squared * terms.neighbours(c * g) * factor


def gradient(crossing: Crossing, relevance: Tensor) -> Tensor:
    """The transposed Jacobian times relevance, R_in = J^T R_out.

    It does not conserve relevance.

    Equals: zennit, iNNvestigate and SHAP, which have no rule for LRN and do not say so.
    Use: comparison with them.
    """
    terms = _terms(crossing)
    slope = terms.x * terms.total ** (-terms.beta - 1) * relevance
    windows = slope + terms.neighbours(slope)
    return relevance * terms.total ** (-terms.beta) - terms.x * windows * (2 * terms.a * terms.beta)


def path_integral(crossing: Crossing, relevance: Tensor) -> Tensor:
    """What the neighbours took away is shared among them in proportion to x_j².

    y_k without neighbours stays with k, the rest is theirs, all divided by y_k: with
    own = (S / u)^beta, R_in = own R + x² (sum of R (1 - own) / T over the transposed window).
    Exact, but the own share is unbounded.

    Equals: no peer.
    Use: where the normalisation is weak.
    """
    terms = _terms(crossing)
    own = (terms.total / terms.u) ** terms.beta
    # Where T = 0 no neighbour has anything to share, and own = 1.
    tiny = terms.others.emitter.scalar(float(np.finfo(np.float32).tiny), terms.others)
    bounded = terms.others.emitter.elementwise("Max", terms.others, tiny, sign=Sign.NON_NEGATIVE)
    rest = relevance * (1.0 - own) / bounded
    return own * relevance + terms.squared * terms.neighbours(rest)


def identity(crossing: Crossing, relevance: Tensor) -> Tensor:
    """R_in = R_out.

    Equals: the paper's baseline; zennit told `Pass`.
    Use: to see what a treatment of LRN changes.
    """
    return relevance


TREATMENTS = {
    "taylor": taylor,
    "identity": identity,
    "taylor-unnormalised": taylor_unnormalised,
    "path-integral": path_integral,
    "taylor-2": taylor_2,
    "gradient": gradient,
}
"""The treatments of LRN by the name that a composite gives them."""


_PARAMETERS: dict[str, dict[str, Parameter]] = {"taylor-2": {"stabiliser": 1e-6}}


@operator("LRN", rules={name: _PARAMETERS.get(name, {}) for name in TREATMENTS}, check=_check)
def local_response_normalisation(crossing: Crossing) -> Sequence[tuple[ir.Value, Relevance]]:
    """Propagate through LRN by one of `TREATMENTS`."""
    value = crossing.operation.inputs[0]
    assert value is not None
    incoming = crossing.incoming
    result = TREATMENTS[crossing.rule](crossing, incoming.tensor)
    # At x = 0 an element gets a multiple of its own R_out, which is 0 if that was grounded.
    return [(value, Relevance(result, incoming.grounded))]
