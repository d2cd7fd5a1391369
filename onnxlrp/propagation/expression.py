"""Symbolic tensors: arithmetic that writes ONNX nodes.

A `Tensor` stands for a value of the explainer under construction. Adding, multiplying or
dividing tensors writes the node that computes the result, with its type and shape, unless the
result is known: what is zero is never computed, what has been written once is not written again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxlrp.graph.shapes import Dim, dims_of

if TYPE_CHECKING:
    from onnxlrp.propagation.emitter import Emitter


class Sign(Enum):
    """What is known of a tensor's elements before anything runs."""

    ZERO = 0
    NON_NEGATIVE = 1
    NON_POSITIVE = -1
    UNKNOWN = None

    def __neg__(self) -> Sign:
        return self if self.value is None else Sign(-self.value)

    def __mul__(self, other: Sign) -> Sign:
        if Sign.ZERO in (self, other):
            return Sign.ZERO
        if self.value is None or other.value is None:
            return Sign.UNKNOWN
        return Sign(self.value * other.value)

    def __add__(self, other: Sign) -> Sign:
        if Sign.ZERO in (self, other):
            return other if self is Sign.ZERO else self
        return self if self is other else Sign.UNKNOWN


@dataclass(frozen=True, eq=False)
class Tensor:
    """A value of the explainer: float (relevance and what it is made of) or int64 (sizes).

    Attributes
    ----------
    emitter : writes the nodes that arithmetic on this tensor asks for
    value : the ONNX value; None for a tensor known to be zero
    sign : what is known of its elements

    """

    emitter: Emitter
    value: ir.Value | None
    sign: Sign = Sign.UNKNOWN

    @property
    def is_zero(self) -> bool:
        return self.sign is Sign.ZERO

    @property
    def dtype(self) -> ir.DataType:
        assert self.value is not None
        assert self.value.dtype is not None
        return self.value.dtype

    @property
    def shape(self) -> tuple[Dim, ...]:
        """Sizes of the axes: int, the name of a symbolic size, or None."""
        assert self.value is not None
        assert self.value.shape is not None
        return dims_of(self.value.shape)

    @property
    def rank(self) -> int:
        return len(self.shape)

    def size(self, axis: int) -> int | Tensor:
        """Size along an axis: an int where it is known, else an int64 tensor of shape [1]."""
        size = self.shape[axis]
        if isinstance(size, int):
            return size
        sizes = self.emitter.node("Shape", self, shape=(self.rank,), dtype=ir.DataType.INT64)
        axis %= self.rank
        return self.emitter.slice(sizes, [axis], [axis + 1], [0])

    def __add__(self, other: Tensor | float) -> Tensor:
        other = self._operand(other)
        if self.is_zero or other.is_zero:
            return other if self.is_zero else self
        return self.emitter.elementwise("Add", self, other, sign=self.sign + other.sign)

    def __radd__(self, other: float) -> Tensor:
        return self._operand(other) + self

    def __sub__(self, other: Tensor | float) -> Tensor:
        other = self._operand(other)
        if other.is_zero:
            return self
        if self.is_zero:
            return -other
        return self.emitter.elementwise("Sub", self, other, sign=self.sign + -other.sign)

    def __rsub__(self, other: float) -> Tensor:
        return self._operand(other) - self

    def __neg__(self) -> Tensor:
        if self.is_zero:
            return self
        return self.emitter.elementwise("Neg", self, sign=-self.sign)

    def __mul__(self, other: Tensor | float) -> Tensor:
        if self.is_zero:
            return self
        if isinstance(other, int | float) and other == 1:
            return self
        if isinstance(other, int | float) and other == -1:
            return -self
        other = self._operand(other)
        if other.is_zero:
            return other
        left, right = _unexpanded(self, other), _unexpanded(other, self)
        return self.emitter.elementwise("Mul", left, right, sign=self.sign * other.sign)

    def __rmul__(self, other: float) -> Tensor:
        return self * other

    def __truediv__(self, other: Tensor | float) -> Tensor:
        if self.is_zero:
            return self
        other = self._operand(other)
        return self.emitter.elementwise("Div", self, other, sign=self.sign * other.sign)

    def __pow__(self, exponent: float) -> Tensor:
        if exponent == 1 or self.is_zero:
            return self
        if exponent == 2:
            return self.emitter.elementwise("Mul", self, self, sign=Sign.NON_NEGATIVE)
        even = exponent % 2 == 0
        sign = Sign.NON_NEGATIVE if even or self.sign is Sign.NON_NEGATIVE else Sign.UNKNOWN
        return self.emitter.elementwise("Pow", self, self._operand(exponent), sign=sign)

    def _operand(self, other: Tensor | float) -> Tensor:
        if isinstance(other, Tensor):
            return other
        if other == 0:
            return self.emitter.zero
        assert not self.is_zero, "a zero has no type that a number could take"
        return self.emitter.scalar(other, self)


def _unexpanded(tensor: Tensor, other: Tensor) -> Tensor:
    """Return what `tensor` was expanded from, where multiplying by `other` expands it again."""
    node = tensor.value.producer() if tensor.value is not None else None
    if node is None or node.op_type != "Expand" or tensor.shape != other.shape:
        return tensor
    return Tensor(tensor.emitter, node.inputs[0], tensor.sign)


def positive(tensor: Tensor) -> Tensor:
    """max(x, 0), elementwise; x itself, or nothing at all, where the sign is known."""
    if tensor.sign in (Sign.NON_NEGATIVE, Sign.ZERO):
        return tensor
    if tensor.sign is Sign.NON_POSITIVE:
        return tensor.emitter.zero
    return tensor.emitter.elementwise("Relu", tensor, sign=Sign.NON_NEGATIVE)


def negative(tensor: Tensor) -> Tensor:
    """min(x, 0), elementwise; x itself, or nothing at all, where the sign is known."""
    if tensor.sign in (Sign.NON_POSITIVE, Sign.ZERO):
        return tensor
    if tensor.sign is Sign.NON_NEGATIVE:
        return tensor.emitter.zero
    # Exact, and of Min there is no WebGPU kernel.
    return replace(tensor - positive(tensor), sign=Sign.NON_POSITIVE)


@dataclass(frozen=True, eq=False)
class Bundle:
    """The live inputs of a layer: one tensor, or the operands of a sum.

    Arithmetic goes operand by operand, so a rule is written once for both.
    """

    parts: tuple[Tensor, ...]

    def map(self, function: Callable[[Tensor], Tensor]) -> Bundle:
        """Apply a function to each operand."""
        return Bundle(tuple(function(part) for part in self.parts))

    def __add__(self, other: Bundle) -> Bundle:
        return Bundle(tuple(a + b for a, b in zip(self.parts, other.parts, strict=True)))

    def __mul__(self, other: Bundle) -> Bundle:
        return Bundle(tuple(a * b for a, b in zip(self.parts, other.parts, strict=True)))

    def __sub__(self, other: Bundle) -> Bundle:
        return Bundle(tuple(a - b for a, b in zip(self.parts, other.parts, strict=True)))

    def __pow__(self, exponent: float) -> Bundle:
        return self.map(lambda part: part**exponent)
