"""What layers with weights of their own have in common, and what is merged into them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from onnxlrp.graph.canonical import Array, Operation, constant_of
from onnxlrp.graph.shapes import Dim
from onnxlrp.propagation.expression import Emitter, Operands, Sign, Tensor
from onnxlrp.propagation.formulas import Layer, ReweightedLayer
from onnxlrp.propagation.registry import (
    Crossing,
    require_constant,
    static_shape,
)


@dataclass(frozen=True)
class WeightedLayer(ReweightedLayer):
    """A layer of one input with explicit weights.

    Attributes
    ----------
    weights : as the ONNX operator takes them, or a constant expression of them
    twin : the same for the transpose, where that reads a tensor of its own; OpenVINO 2026.4
        computes wrong numbers where Conv and ConvTranspose, or a square matrix and its transpose,
        share one
    bias : [channels], or zero
    x, z : the layer's input and output in the model, for their shapes

    """

    weights: Tensor
    twin: Tensor
    bias: Tensor
    x: Tensor
    z: Tensor

    def with_weights(self, function: Callable[[Tensor], Tensor]) -> WeightedLayer:
        zero = self.bias.emitter.zero
        return replace(self, weights=function(self.weights), twin=function(self.twin), bias=zero)

    @property
    def ones(self) -> Layer:
        return self.with_weights(
            lambda w: w.emitter.constant(np.ones(w.shape, w.dtype.numpy()), Sign.NON_NEGATIVE)
        )

    @property
    def emitter(self) -> Emitter:
        """Writes the nodes."""
        return self.x.emitter

    def shape_for(self, x: Operands) -> tuple[Dim, ...]:
        """Return the output's shape for another number of samples than the model's."""
        return (x.parts[0].shape[0], *self.z.shape[1:])

    def apply(
        self, op: str, x: Tensor, w: Tensor, shape: tuple[Dim, ...], **attributes: object
    ) -> Tensor:
        """Write an operator that is linear in x and in w."""
        return self.emitter.node(
            op, x, w, shape=shape, dtype=x.dtype, sign=x.sign * w.sign, **attributes
        )


def with_third_input(z: Tensor, bias: Tensor) -> Tensor | None:
    """Z + bias as the third input of the Conv, ConvTranspose or Gemm that computes z."""
    node = z.value.producer() if z.value is not None else None
    if node is None or "key" not in node.meta or bias.is_zero:
        return None
    emitter = z.emitter
    operands = [None if v is None else Tensor(emitter, v) for v in node.inputs]
    sign = z.sign + bias.sign
    if node.op_type == "Add":
        # The sum of two applications: either takes the bias, the first is as good as any.
        first = operands[0]
        assert first is not None
        biased = with_third_input(replace(first, sign=z.sign), bias)
        return None if biased is None else biased + replace(_second(operands), sign=z.sign)
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm") or len(operands) != 2:
        return None
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    return emitter.node(
        node.op_type, *operands, bias, shape=z.shape, dtype=z.dtype, sign=sign, **attributes
    )


def _second(operands: list[Tensor | None]) -> Tensor:
    second = operands[1]
    assert second is not None
    return second


def merged(
    crossing: Crossing, channels: int, shaped: Callable[[Array], Array], apart: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, weights for the transpose, and bias, with the merged scale and shift.

    `shaped` lays out the scale, [channels], so that it multiplies the weights; `apart` gives the
    transpose its own initializer.
    """
    operation, emitter = crossing.operation, crossing.emitter
    weights, bias = crossing.input(1), crossing.input(2)
    source = operation.inputs[1]
    assert source is not None
    twin = emitter.tensor(emitter.duplicate(source)) if apart else weights
    scale, shift = operation.scale, operation.shift
    if scale is None or shift is None:
        return weights, twin, bias
    dtype = weights.dtype.numpy()
    each = shaped(np.broadcast_to(scale, (channels,))) if scale.size > 1 else scale
    factor = emitter.constant(each.astype(dtype))
    constant = constant_of(operation.input(2))
    old = np.zeros(1) if constant is None else constant.reshape(-1).astype(np.float64)
    total = np.broadcast_to(old * scale + shift, (channels,))
    return weights * factor, twin * factor, bias_tensor(emitter, total.astype(dtype))


def bias_tensor(emitter: Emitter, bias: np.ndarray) -> Tensor:
    """Write a bias as an initializer; one that is 0 throughout is none."""
    return emitter.constant(np.ascontiguousarray(bias)) if bias.any() else emitter.zero


def check_weights(operation: Operation) -> None:
    """Check that ranks are known, and weight and bias (inputs 1 and 2) constant.

    Raises
    ------
    ObstacleError
        If they are not.

    """
    for value in (operation.inputs[0], operation.outputs[0]):
        assert value is not None
        static_shape(value)
    require_constant(operation, 1, "weight")
    require_constant(operation, 2, "bias")
