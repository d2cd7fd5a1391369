"""Elementwise layers: sums of live values, and a constant factor or term that was not merged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxlrp.graph.canonical import Operation, affine_of, constant_of
from onnxlrp.graph.shapes import broadcast
from onnxlrp.propagation import layout
from onnxlrp.propagation.expression import Operands, Sign, Tensor
from onnxlrp.propagation.formulas import Layer, ReweightedLayer
from onnxlrp.propagation.registry import (
    Crossing,
    fail,
    layer,
    live_inputs,
    only_first_live,
    static_shape,
)


@dataclass(frozen=True)
class Sum(Layer):
    """z = sum_k sign_k x_k + bias, with broadcasting; weights are 1 and -1, or of a mean 1/n.

    Attributes
    ----------
    x : the operands, for their shapes
    signs : weights of the operands: 1 or -1, of a mean 1/n, or what a weight function made of them

    """

    x: Operands
    signs: tuple[float, ...]
    bias: Tensor

    @property
    def diagonal(self) -> bool:  # type: ignore[override]
        return self.operands == 1

    def forward(self, x: Operands) -> Tensor:
        total = self.bias.emitter.zero
        for part, sign in zip(x.parts, self.signs, strict=True):
            total = total + part * sign
        return total

    def transpose(self, s: Tensor) -> Operands:
        return Operands(
            tuple(
                reduced_to(s * sign, part)
                for part, sign in zip(self.x.parts, self.signs, strict=True)
            )
        )

    @property
    def operands(self) -> int:
        return len(self.signs)

    def _with_signs(self, function: Callable[[float], float]) -> Sum:
        signs = tuple(function(sign) for sign in self.signs)
        return replace(self, signs=signs, bias=self.bias.emitter.zero)

    def by_sign(self, plus: float, minus: float) -> Layer:
        return self._with_signs(lambda sign: sign * (plus if sign > 0 else minus))

    @property
    def ones(self) -> Layer:
        return self._with_signs(lambda _: 1)

    def power(self, exponent: int) -> Layer:
        return self._with_signs(lambda sign: sign**exponent)


def reduced_to(s: Tensor, like: Tensor) -> Tensor:
    """Sum over the axes along which `like` was broadcast to s."""
    if s.is_zero or s.shape == like.shape:
        return s
    extra = s.rank - like.rank
    axes = [
        axis + extra
        for axis, size in enumerate(like.shape)
        if size == 1 and s.shape[axis + extra] != 1
    ]
    summed = layout.reduce_sum(s, axes)
    return layout.reduce_sum(summed, list(range(extra)), keepdims=False)


@dataclass(frozen=True)
class Diagonal(ReweightedLayer):
    """z = w x + bias, elementwise and with broadcasting, w not of x.

    Attributes
    ----------
    x : the operand, for its shape
    weights : of a shape that broadcasts with x's

    """

    x: Tensor
    weights: Tensor
    bias: Tensor

    @property
    def diagonal(self) -> bool:  # type: ignore[override]
        return broadcast(self.x.shape, self.weights.shape) == self.x.shape

    def forward(self, x: Operands) -> Tensor:
        return x.parts[0] * self.weights

    def transpose(self, s: Tensor) -> Operands:
        return Operands((reduced_to(s * self.weights, self.x),))

    def with_weights(self, function: Callable[[Tensor], Tensor]) -> Diagonal:
        return Diagonal(self.x, function(self.weights), self.bias.emitter.zero)


def _check_sum(operation: Operation, live: frozenset[int]) -> None:
    static_shape(operation.outputs[0])
    for value in live_inputs(operation, live):
        static_shape(value)


@layer("Add", "Sum", "Sub", "Mean", check=_check_sum, default="norm")
def add(crossing: Crossing) -> tuple[Layer, list[ir.Value]]:
    """Build the sum of the live operands; the others are its bias."""
    operation, emitter = crossing.operation, crossing.emitter
    bias, inputs, signs = emitter.zero, [], []
    size = 1 / len(operation.inputs) if operation.operator == "Mean" else 1.0
    for position, value in enumerate(operation.inputs):
        sign = -1.0 if operation.operator == "Sub" and position == 1 else size
        if value is None:
            continue
        if id(value) in crossing.live:
            inputs.append(value)
            signs.append(sign)
        else:
            bias = bias + crossing.tensor(value) * sign
    x = Operands(tuple(crossing.tensor(value) for value in inputs))
    return Sum(x, tuple(signs), bias), inputs


def _check_negative(operation: Operation, live: frozenset[int]) -> None:
    for value in live_inputs(operation, live):
        static_shape(value)


@layer("Neg", check=_check_negative, default="pass")
def negate(crossing: Crossing) -> tuple[Layer, list[ir.Value]]:
    """Build the sum of one operand with weight -1."""
    inputs = crossing.live_inputs
    x = Operands(tuple(crossing.tensor(value) for value in inputs))
    return Sum(x, (-1,), crossing.emitter.zero), inputs


def _check_product(operation: Operation, live: frozenset[int]) -> None:
    static_shape(operation.outputs[0])
    inputs = live_inputs(operation, live)
    if len(inputs) > 1:
        fail(
            "it combines two values that both depend on the explained input",
            "products of two live values (gates, attention) have no rule yet",
        )
    static_shape(inputs[0])


@layer("Mul", "Div", check=_check_product)
def scale(crossing: Crossing) -> tuple[Layer, list[ir.Value]]:
    """Build the product with a constant, or with a value that does not depend on the input."""
    operation, emitter = crossing.operation, crossing.emitter
    value = crossing.live_inputs[0]
    other = next(v for v in operation.inputs if v is not value)
    weights = crossing.tensor(other)
    if operation.operator == "Div":
        constant = constant_of(other)
        weights = (
            emitter.scalar(1.0, weights) / weights
            if constant is None
            else emitter.constant((1 / constant.astype(np.float64)).astype(weights.dtype.numpy()))
        )
    return Diagonal(crossing.tensor(value), weights, emitter.zero), [value]


def _check_batch_normalization(operation: Operation, live: frozenset[int]) -> None:
    only_first_live(operation, live)
    value = operation.inputs[0]
    assert value is not None
    static_shape(value)
    if affine_of(operation.node, value, 1) is None:
        fail(
            "it is in training mode, or its statistics are not constant",
            "export the model for inference",
        )


@layer("BatchNormalization", check=_check_batch_normalization)
def batch_normalization(crossing: Crossing) -> tuple[Layer, list[ir.Value]]:
    """Build the scale and shift of a BatchNormalization that no layer could take."""
    operation, emitter = crossing.operation, crossing.emitter
    value = operation.inputs[0]
    assert value is not None
    affine = affine_of(operation.node, value, 1)
    assert affine is not None
    x = crossing.tensor(value)
    column = (-1, *(1,) * (x.rank - 2))
    weights, bias = (
        emitter.constant(part.astype(x.dtype.numpy()).reshape(column), Sign.UNKNOWN)
        for part in affine
    )
    return Diagonal(x, weights, bias), [value]
