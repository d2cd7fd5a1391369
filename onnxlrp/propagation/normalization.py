"""Local response normalisation and its relatives, by first-order Taylor expansion and otherwise.

The window lies along the channels; or it is that of a pool or a convolution of the model that adds
up squares, in space (Caffe's within-channel normalisation) or over weighted channels (GDN).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxlrp.graph.canonical import Operation, constant_of
from onnxlrp.propagation import layout
from onnxlrp.propagation.convolution import Convolution, convolution
from onnxlrp.propagation.divisive import Divisive, secant_shares, slopes, taylor_shares
from onnxlrp.propagation.expression import Emitter, Operands, Sign, Tensor
from onnxlrp.propagation.formulas import Layer, Parameter, stabilised
from onnxlrp.propagation.pooling import WindowMean, average_pool
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
    if "window" not in operation.attributes and int(operation.attributes["size"]) < 1:
        fail("its size is below 1", "the model is invalid")
    for name, default in _DEFAULTS.items():
        number = np.asarray(operation.attributes.get(name, default))
        # onnxruntime runs none with alpha or beta 0, which would only scale.
        if not ((number > 0) & (number < math.inf)).all():
            fail(
                f"its {name} is {number.min():g}, and relevance is only defined for {name} > 0",
                "retrain or remove the normalisation",
            )


def _terms(crossing: Crossing, root: Tensor | None = None) -> Divisive:
    """Return the quantities of an operation at its input, or at its reference."""
    x = crossing.input(0) if root is None else root
    if "window" in crossing.operation.attributes:
        return _over_window(crossing, x, None if root is None else root**2)
    operation = crossing.operation
    size = int(operation.attributes["size"])
    alpha, beta, bias = (
        float(operation.attributes.get(name, default)) for name, default in _DEFAULTS.items()
    )
    before = int(operation.attributes.get("before", (size - 1) // 2))
    after = int(operation.attributes.get("after", size // 2))
    channels = x.shape[1]
    assert isinstance(channels, int)
    a = alpha / size
    band = np.zeros((channels, channels), x.dtype.numpy())
    for k in range(channels):
        band[k, max(0, k - before) : k + after + 1] = a
    np.fill_diagonal(band, 0)
    squared = x**2
    window = crossing.emitter.constant(band, Sign.NON_NEGATIVE)
    transposed = crossing.emitter.constant(np.ascontiguousarray(band.T), Sign.NON_NEGATIVE)
    others = _banded(squared, window)
    u = squared * a + bias
    return Divisive(
        x, squared, beta, a, u, others, u + others, lambda tensor: _banded(tensor, transposed)
    )


def _over_window(crossing: Crossing, x: Tensor, squared: Tensor | None) -> Divisive:
    """Return the terms of a sum of squares that a pool or a convolution of the model adds up."""
    attributes, emitter = crossing.operation.attributes, crossing.emitter
    window: Operation = attributes["window"]
    alpha, beta = float(attributes["alpha"]), float(attributes["beta"])
    squared = crossing.tensor(window.inputs[0]) if squared is None else squared
    inner = replace(crossing, operation=window, live=crossing.live | {id(window.inputs[0])})
    built, _ = (average_pool if window.operator == "AveragePool" else convolution)(inner)
    own = _own(window, built, emitter, x)
    bias = emitter.constant(np.asarray(attributes["bias"], x.dtype.numpy()), Sign.NON_NEGATIVE)
    summed = built(Operands((squared,)))
    others = replace(summed - squared * own, sign=Sign.NON_NEGATIVE) * alpha
    u = squared * own * alpha + bias

    def neighbours(tensor: Tensor) -> Tensor:
        (back,) = built.adjoint(Operands((tensor,)).parts[0]).parts
        return (back - tensor * own) * alpha

    return Divisive(x, squared, beta, own * alpha, u, others, u + others, neighbours)


def _own(window: Operation, built: Layer, emitter: Emitter, x: Tensor) -> Tensor:
    """Return the weight that each element's own square has in its sum, broadcasting to x."""
    if isinstance(built, WindowMean):
        return emitter.scalar(1.0, x) / built.count
    assert isinstance(built, Convolution)
    weights = constant_of(window.input(1))
    assert weights is not None
    at = [b // d for b, d in zip(built.window.begins, built.window.dilations, strict=True)]
    own = [row[(k % weights.shape[1], *at)] for k, row in enumerate(weights)]
    shaped = np.reshape(own, (-1, *(1,) * (x.rank - 2))).astype(x.dtype.numpy())
    return emitter.constant(shaped, Sign.NON_NEGATIVE)


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

    Binder et al. 2016, eqs. 8-15, divided by their own sum as eqs. 3 and 7 ask, x_k cancelled:
    with c the weight of a square (alpha / size), u = bias + c x_k², S the base of the power, T the
    neighbours' part of it, r = (u / S)^beta / S and g = R / (1 - 2 beta T r),

        R_in = g - 2 beta x² (sum of c r g over the others that have x in their window)

    It conserves relevance exactly, and 1 - 2 beta T r > 0 needs no stabiliser. The same on x / |x|,
    RMS-, Layer-, Group- and InstanceNormalization, where everything is a neighbour.

    Equals: the paper as written; no peer.
    Use: by default.
    """
    return taylor_shares(_terms(crossing), relevance)


def taylor_unnormalised(crossing: Crossing, relevance: Tensor) -> Tensor:
    """R_i = sum_k z_ki R_k with eq. 15's terms, not divided by their sum.

    It multiplies relevance by the activation.

    Equals: LRP Toolbox for Caffe.
    Use: comparison with maps made so; the paper's figures may be.
    """
    t = _terms(crossing)
    own = t.x * t.u ** (-t.beta) * relevance
    slope = t.x * t.total ** (-t.beta - 1) * relevance
    return own - t.squared * t.neighbours(slope) * (2 * t.beta)


def taylor_2(crossing: Crossing, relevance: Tensor) -> Tensor:
    """Second-order Taylor shares, cross terms halved between their two neighbours.

    The expansion of eq. 10 one order further: with r as for `taylor` and
    c = r (1 + 2 (beta + 1) T / S), the neighbours' part of the sum is beta T c,
    q = 1 - beta T c, and R_in = g - beta x² (sum of c g over the transposed window) with
    g = R / stab(q).

    Equals: no peer; the paper names it as future work.
    Use: to see what the first order leaves out.
    """
    t = _terms(crossing)
    r = (t.u / t.total) ** t.beta / t.total
    c = r * (t.others / t.total * (2 * (t.beta + 1)) + 1.0)
    q = 1.0 - t.others * c * t.beta
    g = relevance / stabilised(q, float(crossing.parameters["stabiliser"]))  # type: ignore[arg-type]
    return g - t.squared * t.neighbours(c * g) * t.beta


def gradient(crossing: Crossing, relevance: Tensor) -> Tensor:
    """The transposed Jacobian times relevance, R_in = J^T R_out.

    It does not conserve relevance.

    Equals: zennit, iNNvestigate and SHAP, which have no rule for LRN and do not say so.
    Use: comparison with them.
    """
    return slopes(_terms(crossing), relevance)


def from_reference(crossing: Crossing, relevance: Tensor) -> Tensor:
    """`taylor` under a reference: shares of the change, exactly (`divisive.secant_shares`)."""
    value = crossing.operation.inputs[0]
    assert value is not None
    before = _terms(crossing, replace(crossing.root[id(value)], sign=Sign.UNKNOWN))
    return secant_shares(_terms(crossing), before, relevance)


def path_integral(crossing: Crossing, relevance: Tensor) -> Tensor:
    """What the neighbours took away is shared among them in proportion to x_j².

    y_k without neighbours stays with k, the rest is theirs, all divided by y_k: with
    own = (S / u)^beta, R_in = own R + x² (sum of R (1 - own) / T over the transposed window).
    Exact, but the own share is unbounded.

    Equals: no peer.
    Use: where the normalisation is weak.
    """
    t = _terms(crossing)
    own = (t.total / t.u) ** t.beta
    # Where T = 0 no neighbour has anything to share, and own = 1.
    tiny = t.others.emitter.scalar(float(np.finfo(np.float32).tiny), t.others)
    bounded = t.others.emitter.elementwise("Max", t.others, tiny, sign=Sign.NON_NEGATIVE)
    return own * relevance + t.squared * t.neighbours(relevance * (1.0 - own) / bounded)


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
    treatment = TREATMENTS[crossing.rule]
    if crossing.root and treatment is not identity:
        if treatment is not taylor:
            fail(f"rule '{crossing.rule}' knows no reference", "give it rule taylor or identity")
        treatment = from_reference
    result = treatment(crossing, incoming.tensor)
    # At x = 0 an element gets a multiple of its own R_out, which is 0 if that was grounded.
    return [(value, Relevance(result, incoming.grounded))]
