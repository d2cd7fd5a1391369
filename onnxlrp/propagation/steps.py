"""What a step of a recurrent layer is made of, and how relevance crosses it by the layer's rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

from onnxlrp.propagation.expression import Tensor
from onnxlrp.propagation.formulas import Account, stabilised
from onnxlrp.propagation.registry import Crossing
from onnxlrp.propagation.scan import Factor
from onnxlrp.propagation.slopes import SLOPES, where_above

R = TypeVar("R")


class Value(NamedTuple):
    """A value of every step, [T, N, H], and what it is at the reference; None without one."""

    now: Tensor
    root: Tensor | None

    @property
    def change(self) -> Tensor:
        return self.now if self.root is None else self.now - self.root

    @property
    def middle(self) -> Tensor:
        return self.now if self.root is None else (self.now + self.root) * 0.5


def of(function: Callable[..., Tensor], *values: Value) -> Value:
    """Apply a function to values, and to what they are at the reference."""
    roots = [value.root for value in values]
    root = None if roots[0] is None else function(*roots)
    return Value(function(*(value.now for value in values)), root)


def product(a: Value, b: Value) -> Value:
    """Multiply two values."""
    return of(lambda a, b: a * b, a, b)


@dataclass(frozen=True)
class Function:
    """A function by its name in ONNX, of what is cut at `clip`, if that is a number."""

    kind: str
    numbers: Mapping[str, float]
    clip: float | None

    def __call__(self, z: Tensor) -> Tensor:
        z = self._cut(z)
        if self.kind == "Affine":
            return z * self.numbers["alpha"] + self.numbers["beta"]
        if self.kind == "ScaledTanh":
            inner = z.emitter.elementwise("Tanh", z * self.numbers["beta"])
            return inner * self.numbers["alpha"]
        numbers: Mapping[str, Any] = self.numbers
        return z.emitter.node(self.kind, z, shape=z.shape, dtype=z.dtype, **numbers)

    def slope(self, z: Tensor, y: Tensor, crossing: Crossing) -> Factor:
        """Return f'(z)."""
        if self.kind == "Affine":
            inside: Factor = self.numbers["alpha"]
        elif self.kind == "ScaledTanh":
            alpha, beta = self.numbers["alpha"], self.numbers["beta"]
            inside = (1.0 - (y * (1 / alpha)) ** 2) * (alpha * beta)
        else:
            alone = replace(crossing.operation, operator=self.kind, attributes=self.numbers)
            inside = SLOPES[self.kind](self._cut(z), y, replace(crossing, operation=alone))
        if self.clip is None:
            return inside
        return where_above(self.clip, z, 0.0, where_above(-self.clip, z, inside, 0.0))

    def _cut(self, z: Tensor) -> Tensor:
        if self.clip is None:
            return z
        low, high = (z.emitter.scalar(bound, z) for bound in (-self.clip, self.clip))
        return z.emitter.node("Clip", z, low, high, shape=z.shape, dtype=z.dtype)


class Gate(NamedTuple):
    """y = f(z), z = x W + h_before R + bias, and what else stands in it."""

    z: Value
    y: Value
    bias: Tensor
    f: Function


@dataclass(frozen=True)
class Rule:
    """How relevance crosses what a step is made of, by the rule of the operator.

    Attributes
    ----------
    crossing : of the operator
    accounts : filled with the divisions made

    """

    crossing: Crossing
    accounts: list[Account]

    @property
    def is_gradient(self) -> bool:
        return self.crossing.rule == "gradient"

    def at_one(self, equations: Callable[[Factor], R]) -> R:
        """Return what equations make of a relevance of 1, which nothing accounts for."""
        count = len(self.accounts)
        result = equations(1.0)
        del self.accounts[count:]
        return result

    def share(self, relevance: Factor, z: Value, bias: Tensor) -> Factor:
        """R / stab(z), for all that z is the sum of."""
        if self.is_gradient or is_zero(relevance):
            return relevance
        epsilon = self.crossing.parameters["epsilon"]
        assert isinstance(epsilon, int | float)
        share = relevance / stabilised(z.change, epsilon)
        if isinstance(relevance, Tensor):
            own = bias if z.root is None else bias.emitter.zero
            self.accounts.append(Account(relevance, z.change, own, share))
        return share

    def contributed(self, x: Value, s: Factor) -> Factor:
        """x s: what a term x gets of the share s of its sum."""
        return s if self.is_gradient or is_zero(s) else x.change * s

    def product(self, relevance: Factor, a: Value, b: Value, y: Value) -> tuple[Factor, Factor]:
        """Part the relevance of y = a b between a, the gate, and b.

        Under a reference y changes by a (b - b⁰) + (a - a⁰) b⁰. A signal answers for the first
        term alone: of the second it has no share, for it would be lost where b does not change.
        """
        zero, even = self.crossing.emitter.zero, self.crossing.rule == "uniform"
        if self.is_gradient:
            return relevance * b.now, relevance * a.now
        if b.root is None:
            return (relevance * 0.5, relevance * 0.5) if even else (zero, relevance)
        if is_zero(relevance):
            return zero, zero
        s = self.share(relevance, y, zero)
        of_a, of_b = (b.middle, a.middle) if even else (b.root, a.now)
        return a.change * of_a * s, b.change * of_b * s

    def function(self, relevance: Factor, f: Function, z: Value, y: Value) -> Factor:
        """Cross y = f(z)."""
        if not self.is_gradient or is_zero(relevance):
            return relevance
        return relevance * f.slope(z.now, y.now, self.crossing)

    def gate(self, relevance: Factor, gate: Gate) -> Factor:
        """Return the share of all that a gate's z is the sum of."""
        return self.share(self.function(relevance, gate.f, gate.z, gate.y), gate.z, gate.bias)

    def complement(self, relevance: Factor, left: Value, z: Value) -> Factor:
        """Cross left = 1 - z."""
        one = left.now.emitter.scalar(1.0, left.now)
        return -1.0 * self.contributed(z, self.share(relevance, left, one))


def is_zero(factor: Factor) -> bool:
    """Whether a factor is known to be zero."""
    return isinstance(factor, Tensor) and factor.is_zero


def plus(a: Factor, b: Factor) -> Factor:
    """Add factors, to a zero nothing, not even a number's type."""
    return b if is_zero(a) else a if is_zero(b) else a + b
