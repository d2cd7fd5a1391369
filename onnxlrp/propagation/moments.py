"""Layers that normalise by their own mean and deviation.

The deviation is a gate: it is held fixed, and what is left is linear, c (x - mean) + bias, on which
every rule for linear layers works (Achtibat et al. 2024, prop. 3.4; Ali et al. 2022). Or it is
expanded as the seed paper expands LRN's (`taylor`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxlrp.graph.canonical import Operation
from onnxlrp.propagation import layout
from onnxlrp.propagation.divisive import Divisive, secant_shares, slopes, taylor_shares
from onnxlrp.propagation.expression import Emitter, Operands, Sign, Tensor
from onnxlrp.propagation.formulas import Layer, ReweightedLayer, apply_rule
from onnxlrp.propagation.registry import (
    Crossing,
    Relevance,
    fail,
    known_channels,
    layer,
    only_first_live,
    require_constant,
    static_shape,
)
from onnxlrp.propagation.sums import Diagonal


@dataclass(frozen=True)
class Group:
    """The elements of x that are normalised together.

    Attributes
    ----------
    x : for its shape
    axes : along which they lie
    groups : number of parts that the channels fall into, for a normalisation by such; else None

    """

    x: Tensor
    axes: tuple[int, ...]
    groups: int | None = None

    @property
    def count(self) -> int | Tensor:
        """Return how many elements a group has; a tensor of x's type where sizes are symbolic."""
        whole, total = self._seen(self.x), 1
        unknown = []
        for axis in self.axes:
            size = layout.size(whole, axis)
            if isinstance(size, int):
                total *= size
            else:
                unknown.append(layout.cast(size, self.x.dtype, Sign.NON_NEGATIVE))
        return math.prod(unknown, start=total) if unknown else total

    @property
    def part(self) -> float | Tensor:
        """Return 1 / count."""
        count = self.count
        return 1 / count if isinstance(count, int) else self.x.emitter.scalar(1.0, self.x) / count

    def others(self, tensor: Tensor) -> Tensor:
        """Sum over all others of each element's group; exactly 0 where all others are."""
        if tensor.is_zero:
            return tensor
        return replace(self.total(tensor) - tensor, sign=tensor.sign)

    def total(self, tensor: Tensor) -> Tensor:
        """Sum over each group, in a shape that broadcasts to x's."""
        if self.groups is None:
            return layout.reduce_sum(layout.expand(tensor, self.x), self.axes)
        summed = layout.reduce_sum(self._seen(layout.expand(tensor, self.x)), self.axes)
        wide = layout.expand(summed, self._seen(self.x))
        return layout.reshape(wide, self.x.shape, self.x)

    def _seen(self, tensor: Tensor) -> Tensor:
        return tensor if self.groups is None else layout.regrouped(tensor, self.groups)


@dataclass(frozen=True)
class Centred(ReweightedLayer):
    """z_k = own_k x_k + rest_k sum of the others of its group, + bias.

    With own = c (1 - 1/D) and rest = -c/D it is c (x - mean); what the rules make of weights keeps
    the form.
    """

    own: Tensor
    rest: Tensor
    group: Group
    bias: Tensor

    def forward(self, x: Operands) -> Tensor:
        (part,) = x.parts
        return self.own * part + self.rest * self.group.others(part)

    def transpose(self, s: Tensor) -> Operands:
        return Operands((s * self.own + self.group.others(s * self.rest),))

    def filled(self, x: Operands, value: float | Sequence[float]) -> Operands:
        # A group may reach over samples.
        return super().filled(x, value).map(lambda part: layout.expand(part, self.group.x))

    def with_weights(self, function: Callable[[Tensor], Tensor]) -> Centred:
        zero = self.bias.emitter.zero
        return replace(self, own=function(self.own), rest=function(self.rest), bias=zero)


def _check(operation: Operation, live: frozenset[int]) -> None:
    only_first_live(operation, live)
    value = operation.inputs[0]
    assert value is not None
    static_shape(value)
    if operation.operator in ("InstanceNormalization", "GroupNormalization"):
        known_channels(value)
    for index, what in ((1, "scale"), (2, "bias")):
        require_constant(operation, index, what)
    if operation.operator == "LpNormalization" and operation.attributes.get("p", 2) != 2:
        fail("it divides by the sum of absolute values", "only p = 2 is supported")


def _group(crossing: Crossing) -> Group:
    """Which elements an operator normalises together."""
    operation, x = crossing.operation, crossing.input(0)
    operator = operation.operator
    if "axes" in operation.attributes:
        return Group(x, tuple(sorted(int(axis) % x.rank for axis in operation.attributes["axes"])))
    if operator in ("LayerNormalization", "RMSNormalization"):
        first = int(crossing.attribute("axis", -1)) % x.rank
        return Group(x, tuple(range(first, x.rank)))
    if operator == "InstanceNormalization":
        return Group(x, tuple(range(2, x.rank)))
    if operator == "MeanVarianceNormalization":
        return Group(x, (0, 2, 3))
    if operator == "LpNormalization":
        return Group(x, (int(crossing.attribute("axis", -1)) % x.rank,))
    return Group(x, (2,), int(crossing.attribute("num_groups", 1)))


_EXACT = ("LpNormalization", "MeanVarianceNormalization")
"""Operators that add nothing to the mean of squares."""

_FLOOR = 1e-9


def _factors(crossing: Crossing, group: Group) -> tuple[Tensor, Tensor]:
    """Scale and bias of an operator, in shapes that broadcast to its input's."""
    operation, x, emitter = crossing.operation, crossing.input(0), crossing.emitter
    if operation.scale is not None and operation.shift is not None:
        return _written(emitter, operation.scale, x), _written(emitter, operation.shift, x)
    scale = emitter.scalar(1.0, x) if operation.input(1) is None else crossing.input(1)
    bias = crossing.input(2)
    if operation.operator not in ("InstanceNormalization", "GroupNormalization"):
        return scale, bias

    def along_channels(tensor: Tensor) -> Tensor:
        if tensor.is_zero:
            return tensor
        channels = x.shape[1]
        if tensor.shape[0] != channels:
            # Up to opset 20 there is one number for each group.
            assert isinstance(channels, int)
            (count,) = tensor.shape
            assert isinstance(count, int)
            column = layout.unsqueeze(tensor, [1])
            ones = np.ones((1, channels // count), tensor.dtype.numpy())
            tensor = layout.reshape(column * emitter.constant(ones), (channels,))
        return layout.reshape(tensor, (channels, *(1,) * (x.rank - 2)))

    return along_channels(scale), along_channels(bias)


def _written(emitter: Emitter, factor: np.ndarray[Any, Any], x: Tensor) -> Tensor:
    """Return a factor of a normalisation that is written out in several nodes."""
    if not factor.any():
        return emitter.zero
    return emitter.constant(np.asarray(factor.astype(x.dtype.numpy())))


@dataclass(frozen=True)
class _Terms:
    """What a normalisation computes: scale * part / deviation + bias.

    Attributes
    ----------
    group : what is normalised together
    part : x, or x - mean where `centred`
    centred : whether the mean is taken off
    weight : of each square in the sum that divides
    squares : that sum
    epsilon : that is added to it
    scale, bias : of shapes that broadcast to x's

    """

    group: Group
    part: Tensor
    centred: bool
    weight: float | Tensor
    squares: Tensor
    epsilon: float
    scale: Tensor
    bias: Tensor


def _terms(crossing: Crossing, root: Tensor | None = None) -> _Terms:
    x, group = crossing.input(0) if root is None else root, _group(crossing)
    operator = crossing.operation.operator
    scale, bias = _factors(crossing, group)
    centred = operator not in ("RMSNormalization", "LpNormalization")
    part = x - group.total(x) * group.part if centred else x
    weight = 1.0 if operator == "LpNormalization" else group.part
    epsilon = 0.0 if operator in _EXACT else float(crossing.attribute("epsilon", 1e-5))
    squares = group.total(part**2) * weight
    return _Terms(group, part, centred, weight, squares, epsilon, scale, bias)


def _divisive(terms: _Terms) -> Divisive:
    # x / |x| where everything is 0 is 0, and no 0 / 0.
    floor = terms.epsilon or _FLOOR**2
    squared = terms.part**2
    u = squared * terms.weight + floor
    others = terms.group.others(squared) * terms.weight
    return Divisive(
        terms.part, squared, 0.5, terms.weight, u, others, u + others,
        lambda tensor: terms.group.others(tensor) * terms.weight,
    )  # fmt: skip


def taylor(crossing: Crossing) -> Sequence[tuple[ir.Value, Relevance]]:
    """First-order Taylor shares of x / deviation, as for LRN, everything being a neighbour.

    Binder et al. 2016, eqs. 8 to 10, 3 and 7 (`divisive.taylor_shares`, with beta = 1/2); scale and
    bias behind the division, and the mean in front of it, are linear and take the epsilon rule.

    Equals: no peer; LRN's `taylor` where the two are the same function.
    Use: to treat a deviation as the paper treats LRN's denominator instead of holding it fixed.
    """
    value = crossing.operation.inputs[0]
    assert value is not None
    terms, x = _terms(crossing), crossing.change(value)
    emitter, parameters = crossing.emitter, crossing.parameters
    divided = _divisive(terms)

    def crossed(built: Layer, at: Tensor, relevance: Tensor) -> Tensor:
        result, accounts, _ = apply_rule(
            built, Operands((at,)), relevance, "epsilon", parameters, crossing.stand_ins
        )
        crossing.accounts.extend(accounts)
        return result.parts[0]

    relevance = crossing.incoming.tensor
    if crossing.root:
        # The scale takes nothing, and the bias is at both points.
        before = _divisive(_terms(crossing, crossing.root[id(value)]))
        relevance = secant_shares(divided, before, relevance)
    else:
        if not terms.bias.is_zero:
            deviation = emitter.elementwise("Sqrt", divided.total, sign=Sign.NON_NEGATIVE)
            behind = Diagonal(x, terms.scale, terms.bias)
            relevance = crossed(behind, terms.part / deviation, relevance)
        relevance = taylor_shares(divided, relevance)
    if terms.centred:
        rest = emitter.scalar(-1.0, x) * terms.group.part
        centring = Centred(rest + 1.0, rest, terms.group, emitter.zero)
        relevance = crossed(centring, x, relevance)
    return [(value, Relevance(relevance, parameters["bias"] != "distribute"))]


def gradient(crossing: Crossing) -> Sequence[tuple[ir.Value, Relevance]]:
    """The transposed Jacobian times relevance: of the scale, the division, and the mean."""
    (value,), terms = crossing.live_inputs, _terms(crossing)
    back = slopes(_divisive(terms), crossing.incoming.tensor * terms.scale)
    if terms.centred:
        back = back - terms.group.total(back) * terms.group.part
    return [(value, Relevance(back, False))]


@layer(
    "LayerNormalization", "RMSNormalization", "InstanceNormalization", "GroupNormalization",
    "MeanVarianceNormalization", "LpNormalization", check=_check, default="epsilon", exact=False,
    beside={
        "taylor": (taylor, {"epsilon": 1e-6, "bias": "absorb"}),
        "gradient": (gradient, {}),
    },
)  # fmt: skip
def normalisation(crossing: Crossing) -> tuple[Layer, list[ir.Value]]:
    """Build what is left of a normalisation once its deviation is fixed."""
    emitter, x, terms = crossing.emitter, crossing.input(0), _terms(crossing)
    total = terms.squares + terms.epsilon
    deviation = emitter.elementwise("Sqrt", total, sign=Sign.NON_NEGATIVE)
    if crossing.operation.operator in _EXACT:
        # Where every element is 0 there is nothing to explain, and no 0 / 0 either.
        deviation = deviation + _FLOOR
    factor = terms.scale / deviation
    if not terms.centred:
        return Diagonal(x, factor, terms.bias), crossing.live_inputs
    rest = -(factor * terms.group.part)
    return Centred(factor + rest, rest, terms.group, terms.bias), crossing.live_inputs
