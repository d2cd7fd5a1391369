"""The LRP rules for linear layers, each as its equation.

Notation: a layer computes z_j = sum_i z_ij + b_j with z_ij = x_i w_ij; `layer(x)` is the sum
without bias, `layer.adjoint(s)` is sum_j w_ij s_j, `layer.plus` the same layer with
max(w, 0) for w. A rule turns the relevance R_j of the outputs into that of the inputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature

from onnxlrp.propagation import layout
from onnxlrp.propagation.expression import (
    Operands,
    Sign,
    Tensor,
    magnitude,
    negative,
    positive,
    signum,
)

Parameter = float | str | Sequence[float]
_TINY = 1e-12
"""Lost in any number that is not 0: for inputs that no output is connected to."""
BIAS_TREATMENTS = ("absorb", "exclude", "distribute")


class Layer(ABC):
    """A linear operator of its live inputs, and its transpose.

    Attributes
    ----------
    bias : constant term, one number per output channel or shaped like the output; may be zero
    operands : how many live inputs it has
    diagonal : whether z_i = w_i x_i + b_i, each output of one input of its own

    """

    bias: Tensor
    diagonal = False

    @property
    def operands(self) -> int:
        return 1

    def __call__(self, x: Operands) -> Tensor:
        """Return sum_i x_i w_ij, without bias."""
        if all(part.is_zero for part in x.parts):
            return self.bias.emitter.zero
        return self.forward(x)

    def adjoint(self, s: Tensor) -> Operands:
        """Return sum_j w_ij s_j, in the inputs' shapes."""
        if s.is_zero:
            return Operands((s,) * self.operands)
        return self.transpose(s)

    @abstractmethod
    def forward(self, x: Operands) -> Tensor:
        """Return sum_i x_i w_ij of an x that is not known to be zero."""

    @abstractmethod
    def transpose(self, s: Tensor) -> Operands:
        """Return sum_j w_ij s_j of an s that is not known to be zero."""

    @abstractmethod
    def by_sign(self, plus: float, minus: float) -> Layer:
        """Return the operator with plus * w for every w > 0 and minus * w for w < 0, no bias."""

    @property
    def plus(self) -> Layer:
        """The operator with max(w, 0) for w, without bias."""
        return self.by_sign(1, 0)

    @property
    def minus(self) -> Layer:
        """The operator with min(w, 0) for w, without bias."""
        return self.by_sign(0, 1)

    @property
    @abstractmethod
    def ones(self) -> Layer:
        """The operator with 1 for every w of a connected pair (padding is not connected)."""

    @abstractmethod
    def power(self, exponent: int) -> Layer:
        """Return the operator with w**exponent for w, without bias."""

    def biased(self, z: Tensor, bias: Tensor) -> Tensor:
        """Return z + bias, the bias along the output's channels."""
        return z + bias

    def filled(self, x: Operands, value: float | Sequence[float]) -> Operands:
        """Return inputs of one sample that hold a number, or one for each channel, throughout."""
        return x.map(lambda part: layout.filled(part, value))


class ReweightedLayer(Layer):
    """A layer whose form stays when a function is applied to its weights."""

    @abstractmethod
    def with_weights(self, function: Callable[[Tensor], Tensor]) -> Layer:
        """Return the operator with a function applied to its weights, without bias."""

    def by_sign(self, plus: float, minus: float) -> Layer:
        return self.with_weights(lambda w: positive(w) * plus + negative(w) * minus)

    @property
    def ones(self) -> Layer:
        return self.with_weights(lambda w: w.emitter.scalar(1.0, w))

    def power(self, exponent: int) -> Layer:
        return self.with_weights(lambda w: w**exponent)


class UniformLayer(Layer):
    """A layer whose weights are positive and alike: its own positive part, and its own ones."""

    def by_sign(self, plus: float, minus: float) -> Layer:
        return self if plus == 1 else Multiple(self, plus)

    @property
    def ones(self) -> Layer:
        return self

    def power(self, exponent: int) -> Layer:
        return self


class Multiple(UniformLayer):
    """A layer times a number, which may be 0."""

    def __init__(self, layer: Layer, factor: float) -> None:
        self.layer = layer
        self.factor = factor
        self.bias = layer.bias.emitter.zero

    @property
    def operands(self) -> int:
        return self.layer.operands

    def forward(self, x: Operands) -> Tensor:
        return self.layer(x) * self.factor if self.factor else self.bias

    def transpose(self, s: Tensor) -> Operands:
        return self.layer.adjoint(s * self.factor if self.factor else self.bias)


class Share:
    """Divides relevance by a denominator: where bias treatment and stabiliser act.

    s_j = R_j / stab(d_j), with stab(d) = d + epsilon * sign(d) and sign(0) = +1. The bias takes
    part in the denominator and keeps its share (`absorb`, as zennit), is left out of it
    (`exclude`, eq. 5 of Binder et al. 2016), or its share is spread evenly over the inputs that
    the output is connected to (`distribute`, Bach et al. 2015, eq. 58).

    Attributes
    ----------
    accounts : what was divided by what; an audit of conservation reads these terms

    """

    def __init__(
        self, layer: Layer, stabiliser: float, bias: str, stand_ins: Mapping[int, Tensor]
    ) -> None:
        """Prepare to share out one layer's relevance.

        Parameters
        ----------
        layer : whose bias is treated
        stabiliser : epsilon
        bias : one of `BIAS_TREATMENTS`
        stand_ins : by id of a denominator's value, a tensor that may be divided by in its stead

        """
        self._layer = layer
        self._stabiliser = stabiliser
        self._bias = bias
        self._stand_ins = stand_ins
        self.accounts: list[Account] = []

    def __call__(self, relevance: Tensor, denominator: Tensor, bias: Tensor) -> Tensor:
        """Return R_j / stab(denominator_j + bias_j), under the layer's bias treatment."""
        if self._bias == "exclude":
            bias = bias.emitter.zero
        total = self._layer.biased(denominator, bias)
        total = self._stand_ins.get(id(total.value), total)
        if relevance.is_zero or total.is_zero:
            return relevance.emitter.zero
        share = relevance / stabilised(total, self._stabiliser)
        self.accounts.append(Account(relevance, total, bias, share))
        return share

    def split_by_sign(self, relevance: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Part relevance into that of outputs z >= 0 and z < 0; the latter may be known to be 0."""
        if id(z.value) in self._stand_ins or z.sign is Sign.NON_NEGATIVE:
            return relevance, relevance.emitter.zero
        nothing = relevance.emitter.scalar(0.0, relevance)
        below = z.emitter.compare("Less", z, z.emitter.scalar(0.0, z))
        return (
            z.emitter.where(below, nothing, relevance, Sign.UNKNOWN),
            z.emitter.where(below, relevance, nothing, Sign.UNKNOWN),
        )

    def spread(self, x: Operands) -> Operands | None:
        """Return what every input gets of the biases' shares, or None where they keep it."""
        if self._bias != "distribute":
            return None
        spread = None
        ones = self._layer.ones
        fan_in = ones(self._layer.filled(x, 1.0))
        for account in self.accounts:
            if not account.bias.is_zero:
                part = self._layer.biased(account.share.emitter.zero, account.bias) * account.share
                each = ones.adjoint(part / fan_in)
                spread = each if spread is None else spread + each
        return spread


@dataclass(frozen=True)
class Account:
    """The terms of one division: sum_i R_i = sum_j (denominator_j - bias_j) share_j.

    Of relevance_j, the bias takes bias_j share_j and the stabiliser what is left of
    relevance_j - denominator_j share_j.
    """

    relevance: Tensor
    denominator: Tensor
    bias: Tensor
    share: Tensor


def stabilised(d: Tensor, epsilon: float) -> Tensor:
    """D + epsilon * sign(d), with sign(0) = +1."""
    if d.sign is Sign.NON_NEGATIVE:
        return d + epsilon
    if d.sign is Sign.NON_POSITIVE:
        # Where d = 0 every contribution is 0 and the stabiliser's sign has no effect.
        return d - epsilon
    return d + signum(d, epsilon)


Formula = Callable[..., Operands]


@dataclass(frozen=True)
class Rule:
    """A rule and what it takes.

    Attributes
    ----------
    formula : computes the inputs' relevance; None for `pass`, which hands relevance on
    defaults : its parameters; `epsilon` or `stabiliser` and `bias` are applied by `Share`
    grounded : an input that is 0 gets no relevance (unless the bias is distributed)
    absolute : it has a root point of its own, and takes inputs as they are under any reference

    """

    formula: Formula | None
    defaults: Mapping[str, Parameter]
    grounded: bool
    absolute: bool = False


RULES: dict[str, Rule] = {"pass": Rule(None, {}, True)}
"""Every rule for linear layers by the name that a composite gives it."""


def rule(
    name: str,
    *,
    grounded: bool = True,
    biased: bool = True,
    stabiliser: str | None = "stabiliser",
    absolute: bool = False,
) -> Callable[[Formula], Formula]:
    """Register a formula `(layer, x, relevance, share, **parameters) -> Operands` as a rule.

    Parameters
    ----------
    name : by which composites know it
    grounded : an input that is 0 gets no relevance
    biased : it hands the layer's bias to `share`, so that its treatment is a parameter
    stabiliser : what the parameter is called that `share` adds to denominators; None if it calls
        none
    absolute : it has a root point of its own

    """

    def register(formula: Formula) -> Formula:
        own = list(signature(formula).parameters.values())[4:]
        defaults: dict[str, Parameter] = {stabiliser: 1e-6} if stabiliser else {}
        if biased:
            defaults["bias"] = "absorb"
        defaults.update({parameter.name: parameter.default for parameter in own})
        RULES[name] = Rule(formula, defaults, grounded, absolute)
        return formula

    return register


@rule("epsilon", stabiliser="epsilon")
def epsilon_rule(
    layer: Layer, x: Operands, relevance: Tensor, share: Share, power: int = 1
) -> Operands:
    """R_i = sum_j z_ij / stab(z_j) R_j (Bach et al. 2015, eq. 58).

    With `power` p > 1, z_ij = (x_i w_ij)^p and the bias is left out (Binder et al. 2016, eq. 5).

    Equals: zennit `Epsilon`; Captum `EpsilonRule`. LXT adds epsilon without its sign.
    Use: dense layers near the score; everywhere for a map close to gradient times input.
    """
    if power != 1:
        raised = layer.power(power)
        s = share(relevance, raised(x**power), relevance.emitter.zero)
        return x**power * raised.adjoint(s)
    return x * layer.adjoint(share(relevance, layer(x), layer.bias))


@rule("norm", biased=False)
def norm(layer: Layer, x: Operands, relevance: Tensor, share: Share) -> Operands:
    """R_i = sum_j z_ij / stab(z_j) R_j, the bias absorbed.

    Equals: zennit `Norm`, with the stabiliser on the mean of an average pool.
    Use: means, sums, residual connections.
    """
    return epsilon_rule(layer, x, relevance, share)


@rule("alpha-beta")
def alpha_beta(
    layer: Layer,
    x: Operands,
    relevance: Tensor,
    share: Share,
    alpha: float = 2.0,
    beta: float = 1.0,
) -> Operands:
    """R_i = sum_j (alpha z_ij⁺ / z_j⁺ - beta z_ij⁻ / z_j⁻) R_j (Bach et al. 2015, eq. 60).

    The bias' positive part is in z_j⁺ and its negative part in z_j⁻. Where one part is empty the
    other does not make up for it, so that alpha 2, beta 1 doubles relevance where nothing
    inhibits.

    Equals: zennit `AlphaBeta`. iNNvestigate puts the whole bias into both denominators.
    Use: evidence for and against on convolutions.
    """
    xp, xn = positive(x), negative(x)
    plus, minus = layer.plus, layer.minus
    s = share(alpha * relevance, plus(xp) + minus(xn), positive(layer.bias))
    t = share(-beta * relevance, minus(xp) + plus(xn), negative(layer.bias))
    return xp * (plus.adjoint(s) + minus.adjoint(t)) + xn * (minus.adjoint(s) + plus.adjoint(t))


@rule("z-plus")
def z_plus(layer: Layer, x: Operands, relevance: Tensor, share: Share) -> Operands:
    """R_i = sum_j z_ij⁺ / z_j⁺ R_j, with b_j⁺ in z_j⁺ (Montavon et al. 2017).

    Equals: zennit `ZPlus`; with `bias = "exclude"` iNNvestigate `ZPlusRule`. Captum's leaves the
    bias unclipped.
    Use: convolutions: positive evidence only, stable, smooth.
    """
    return alpha_beta(layer, x, relevance, share, alpha=1, beta=0)


@rule("beta")
def beta_rule(
    layer: Layer, x: Operands, relevance: Tensor, share: Share, beta: float = 1.0
) -> Operands:
    """R_i = sum_j ((1 + beta) z_ij⁺ / z_j⁺ - beta z_ij⁻ / z_j⁻) R_j (Binder et al. 2016, eq. 6).

    Equals: `alpha-beta` with alpha = 1 + beta.
    Use: the paper's experiments.
    """
    return alpha_beta(layer, x, relevance, share, alpha=1 + beta, beta=beta)


@rule("flat", grounded=False, biased=False)
def flat(layer: Layer, x: Operands, relevance: Tensor, share: Share) -> Operands:
    """R_i = sum_j 1 / n_j R_j, n_j the inputs connected to j (Lapuschkin et al. 2019).

    Padding is not connected, and there is no bias.

    Equals: zennit `Flat`, with the padding inside the layer.
    Use: the first layer, for maps that show where rather than which edge.
    """
    ones = layer.ones
    return ones.adjoint(share(relevance, ones(layer.filled(x, 1.0)), relevance.emitter.zero))


@rule("even", grounded=False, biased=False)
def even(layer: Layer, x: Operands, relevance: Tensor, share: Share) -> Operands:
    """R_i = sum_j v_i / (sum_i v_i) R_j over connected pairs, v_i = 1 / what `flat` gives of R = 1.

    Where a stride does not divide a window, some pixels are in more windows than others, and `flat`
    draws that as a grid. Here what is even over the outputs is even over the inputs, but for
    those at the border.

    Equals: `flat` where every input is in equally many windows.
    Use: a first layer with a stride.
    """
    ones = layer.ones
    fan_in = ones(layer.filled(x, 1.0))
    one = layout.expand(relevance.emitter.scalar(1.0, relevance), relevance)
    seen = ones.adjoint(one / stabilised(fan_in, _TINY))
    weight = seen.map(lambda u: u.emitter.scalar(1.0, u) / stabilised(u, _TINY))
    return weight * ones.adjoint(share(relevance, ones(weight), relevance.emitter.zero))


@rule("gamma")
def gamma_rule(
    layer: Layer, x: Operands, relevance: Tensor, share: Share, gamma: float = 0.25
) -> Operands:
    """R_i = sum_j (z_ij + gamma z_ij⁺) / (z_j + gamma z_j⁺) R_j for z_j >= 0, with ⁻ below 0.

    Generalised to inputs of any sign (zennit); the gate z_j holds the bias in every treatment.

    Equals: zennit `Gamma`, but for z_j = 0: zennit drops that relevance, here it counts as
    positive, as in the stabiliser.
    Use: convolutions, between epsilon (gamma 0) and z-plus (gamma large).
    """
    if not gamma:
        return epsilon_rule(layer, x, relevance, share)
    z, bias = layer(x), layer.bias
    above, below = share.split_by_sign(relevance, layer.biased(z, bias))
    if below.is_zero and all(part.sign is Sign.NON_NEGATIVE for part in x.parts):
        return gamma_original(layer, x, above, share, gamma)
    # z_ij⁺ and z_ij⁻ are half of z_ij + |z_ij| and z_ij - |z_ij|: two layers, not eight.
    half, size = gamma / 2, magnitude(x)
    sizes = layer.by_sign(half, -half)
    more = sizes(size)
    if bias.is_zero:
        # The denominator has the sign of z, and so has what is divided by it.
        signed = layer.by_sign(1 + half, 1 + half)
        z = signed(x)
        t = share(relevance, magnitude(z) + more, bias)
        return x * signed.adjoint(signum(z) * t) + size * sizes.adjoint(t)
    z = (1 + half) * z
    s = share(above, z + more, bias + gamma * positive(bias))
    t = share(below, z - more, bias + gamma * negative(bias))
    return x * layer.adjoint((1 + half) * (s + t)) + size * sizes.adjoint(s - t)


@rule("gamma-original")
def gamma_original(
    layer: Layer, x: Operands, relevance: Tensor, share: Share, gamma: float = 0.25
) -> Operands:
    """R_i = sum_j x_i (w_ij + gamma w_ij⁺) / ... R_j (Montavon et al. 2019, section 10.2.2).

    Made for x >= 0; the bias is a neuron that is always 1, b_j + gamma b_j⁺.

    Equals: RelevancePropagation.jl `GammaRule`; `gamma` where x >= 0 and z_j >= 0. Captum leaves
    the bias unscaled.
    Use: comparison with maps made so.
    """
    up, bias = layer.by_sign(1 + gamma, 1), layer.bias
    return x * up.adjoint(share(relevance, up(x), bias + gamma * positive(bias)))


@rule("w-square", grounded=False)
def w_square(layer: Layer, x: Operands, relevance: Tensor, share: Share) -> Operands:
    """R_i = sum_j w_ij² / (sum_i w_ij² + b_j²) R_j (Montavon et al. 2017).

    Equals: zennit `WSquare`; with `bias = "exclude"` iNNvestigate `WSquareRule`.
    Use: a first layer whose input has no bounds.
    """
    squared = layer.power(2)
    return squared.adjoint(share(relevance, squared(layer.filled(x, 1.0)), layer.bias**2))


@rule("z-box", grounded=False, biased=False, absolute=True)
def z_box(
    layer: Layer,
    x: Operands,
    relevance: Tensor,
    share: Share,
    low: float | Sequence[float] | str = "preprocessing",
    high: float | Sequence[float] | str = "preprocessing",
) -> Operands:
    """R_i = sum_j (x_i w_ij - low_i w_ij⁺ - high_i w_ij⁻) / (sum_i ...) R_j.

    For inputs between the bounds (Montavon et al. 2017, z^B). The bias cancels, and padding has
    neither low nor high in it.

    Equals: zennit `ZBox`, with the padding inside the layer; iNNvestigate `BoundedRule`.
    Use: a first layer that reads pixels.
    """
    assert not isinstance(low, str)
    assert not isinstance(high, str)
    plus, minus = layer.plus, layer.minus
    bottom, top = layer.filled(x, low), layer.filled(x, high)
    s = share(relevance, layer(x) - plus(bottom) - minus(top), relevance.emitter.zero)
    return x * layer.adjoint(s) - bottom * plus.adjoint(s) - top * minus.adjoint(s)


@rule("gradient", grounded=False, biased=False, stabiliser=None)
def gradient(layer: Layer, x: Operands, relevance: Tensor, share: Share) -> Operands:
    """R_i = sum_j w_ij R_j, the transposed Jacobian times relevance (Simonyan et al. 2014).

    On every operator that is not linear it is that, too: f'(x) R for a function of one value, at a
    kink by the slope on its left; b R and a R for a b; s (R - sum(s R)) for a softmax; the exact
    derivative of normalisations. What moves elements, and what picks an extremum, has no rule but
    its gradient. It does not conserve relevance.

    Equals: torch autograd; Captum `Saliency(abs=False)`.
    Use: comparison; sensitivity.
    """
    return layer.adjoint(relevance)


@rule("zero", biased=False)
def zero(layer: Layer, x: Operands, relevance: Tensor, share: Share) -> Operands:
    """R_i = 0.

    Equals: RelevancePropagation.jl `ZeroRule`.
    Use: what should not be followed further.
    """
    return x.map(lambda part: part.emitter.zero)


def apply_rule(
    layer: Layer,
    x: Operands,
    relevance: Tensor,
    rule: str,
    parameters: Mapping[str, Parameter],
    stand_ins: Mapping[int, Tensor],
) -> tuple[Operands, list[Account], bool]:
    """Apply a rule to a layer.

    Returns
    -------
    relevance of each live input, the accounts of the divisions, and whether an input that is 0
    is sure to get none

    """
    chosen = RULES[rule]
    assert chosen.formula is not None
    own = dict(parameters)
    stabiliser = own.pop("epsilon", own.pop("stabiliser", 0.0))
    assert isinstance(stabiliser, float | int)
    bias = str(own.pop("bias", "absorb"))
    share = Share(layer, stabiliser, bias, stand_ins)
    result = chosen.formula(layer, x, relevance, share, **own)
    spread = share.spread(x)
    if spread is not None:
        return result + spread, share.accounts, False
    return result, share.accounts, chosen.grounded
