"""Gemm, and MatMul by what does not depend on the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxlrp.graph.canonical import Operation, constant_of
from onnxlrp.graph.shapes import Dim, broadcast
from onnxlrp.propagation import layout
from onnxlrp.propagation.expression import Operands, Tensor
from onnxlrp.propagation.formulas import Layer, UniformLayer
from onnxlrp.propagation.linear import WeightedLayer, bias_tensor, check_weights, with_third_input
from onnxlrp.propagation.registry import (
    Crossing,
    fail,
    layer,
    live_inputs,
    only_first_live,
    static_shape,
)
from onnxlrp.propagation.sums import reduced_to


@dataclass(frozen=True)
class Dense(WeightedLayer):
    """Gemm, or MatMul by what does not depend on the input.

    Attributes
    ----------
    transposed : weights are [out, in] (Gemm's transB), not [in, out]
    left : the weights stand on the left, z = w @ x

    """

    transposed: bool
    left: bool

    @property
    def _is_gemm(self) -> bool:
        return not self.left and self.x.rank == 2 and self.weights.rank == 2

    def _multiply(
        self, x: Tensor, weights: Tensor, transposed: bool, shape: tuple[Dim, ...]
    ) -> Tensor:
        if self._is_gemm:
            return self.apply("Gemm", x, weights, shape, transB=int(transposed))
        if transposed:
            order = list(range(weights.rank))
            order[-2:] = order[-1], order[-2]
            weights = layout.transpose(weights, order)
        sign = x.sign * weights.sign
        operands = (weights, x) if self.left else (x, weights)
        return self.emitter.node("MatMul", *operands, shape=shape, dtype=x.dtype, sign=sign)

    def forward(self, x: Operands) -> Tensor:
        return self._multiply(x.parts[0], self.weights, self.transposed, self.shape_for(x))

    def transpose(self, s: Tensor) -> Operands:
        batch = broadcast(s.shape[:-2], self.weights.shape[:-2])
        shape = (*batch, *self.x.shape[-2:])
        back = self._multiply(s, self.twin, not self.transposed, shape)
        return Operands((reduced_to(back, self.x),))

    def filled(self, x: Operands, value: float | Sequence[float]) -> Operands:
        return x.map(lambda part: layout.filled(part, value, -2 if self.left else -1))

    def biased(self, z: Tensor, bias: Tensor) -> Tensor:
        return with_third_input(z, bias) or z + bias

    @property
    def ones(self) -> Layer:
        return DenseOnes(self, self.bias.emitter.zero, -2 if self.left else -1)


@dataclass(frozen=True)
class DenseOnes(UniformLayer):
    """A dense layer whose weights are all 1: a sum over the features, the same for all outputs."""

    dense: Dense
    bias: Tensor
    axis: int

    def forward(self, x: Operands) -> Tensor:
        return layout.reduce_sum(x.parts[0], [self.axis])

    def transpose(self, s: Tensor) -> Operands:
        summed = reduced_to(layout.reduce_sum(s, [self.axis]), self.dense.x)
        return Operands((layout.expand(summed, self.dense.x),))


def _apart(weights: Tensor) -> Tensor:
    """Write a square matrix anew, of its halves, which runtimes fold.

    OpenVINO 2026.4 packs weights once for all layers that read the same tensor in the same shape,
    and takes a square matrix and its transpose for one another.
    """
    rows, columns = weights.shape[-2:]
    if not isinstance(rows, int) or rows != columns or rows < 2:
        return weights
    halves = [
        layout.slice(weights, [first], [last], [weights.rank - 2])
        for first, last in ((0, rows // 2), (rows // 2, rows))
    ]
    return weights.emitter.node(
        "Concat", *halves, shape=weights.shape, dtype=weights.dtype, sign=weights.sign, axis=-2
    )


def _check_gemm(operation: Operation, live: frozenset[int]) -> None:
    only_first_live(operation, live)
    check_weights(operation)
    if operation.attributes.get("transA", 0):
        fail("transA=1 puts the batch behind the features", "transpose in front of the Gemm")
    bias, weights = constant_of(operation.input(2)), constant_of(operation.input(1))
    assert weights is not None
    if bias is not None and bias.ndim == 2 and bias.shape[0] != 1:
        fail("its bias differs between the rows of a batch", "use a bias of one row")
    out = weights.shape[0 if operation.attributes.get("transB", 0) else 1]
    if bias is not None and bias.size not in (1, out):
        fail(f"its bias of {bias.size} does not fit {out} outputs", "the model is invalid")


@layer("Gemm", check=_check_gemm)
def gemm(crossing: Crossing) -> tuple[Layer, list[ir.Value]]:
    """Build the layer of a Gemm; its alpha and beta go into weights and bias."""
    operation, emitter = crossing.operation, crossing.emitter
    transposed = bool(crossing.attribute("transB", 0))
    weights = crossing.input(1)
    out = weights.shape[0 if transposed else 1]
    assert isinstance(out, int)
    alpha = float(crossing.attribute("alpha", 1.0))
    beta = float(crossing.attribute("beta", 1.0))
    dtype = weights.dtype.numpy()
    constant = constant_of(operation.input(2))
    old = np.zeros(out) if constant is None else np.broadcast_to(constant.reshape(-1), (out,))
    scale = np.ones(1) if operation.scale is None else operation.scale
    shift = np.zeros(1) if operation.shift is None else operation.shift
    bias = crossing.input(2)
    if operation.scale is not None or beta != 1 or (constant is not None and constant.ndim != 1):
        bias = bias_tensor(emitter, (old.astype(np.float64) * beta * scale + shift).astype(dtype))
    factor = alpha * scale
    if (factor != 1).any():
        extent = (1 if factor.size == 1 else (-1, 1)) if transposed else -1
        weights = weights * emitter.constant(factor.astype(dtype).reshape(extent))
    built = Dense(
        weights=weights,
        twin=_apart(weights),
        bias=bias,
        x=crossing.input(0),
        z=crossing.output(),
        transposed=transposed,
        left=False,
    )
    return built, crossing.live_inputs


def _check_matmul(operation: Operation, live: frozenset[int]) -> None:
    static_shape(operation.outputs[0])
    inputs = live_inputs(operation, live)
    if len(inputs) > 1:
        fail(
            "it multiplies two values that both depend on the explained input",
            "products of two live values (attention) have no rule yet",
        )
    static_shape(inputs[0])
    weights = operation.input(1 if inputs[0] is operation.inputs[0] else 0)
    assert weights is not None
    static_shape(weights)
    assert weights.shape is not None
    assert inputs[0].shape is not None
    if not 2 <= len(weights.shape) <= max(len(inputs[0].shape), 2):
        fail(f"its weight has {len(weights.shape)} dimensions", "use a matrix")


@layer("MatMul", check=_check_matmul)
def matmul(crossing: Crossing) -> tuple[Layer, list[ir.Value]]:
    """Build the layer of a MatMul by weights on either side, constant or computed of sizes."""
    operation, emitter = crossing.operation, crossing.emitter
    inputs = crossing.live_inputs
    left = inputs[0] is operation.inputs[1]
    weights = crossing.input(0 if left else 1)
    bias = emitter.zero
    if operation.scale is not None and operation.shift is not None:
        dtype = weights.dtype.numpy()
        if (operation.scale != 1).any():
            weights = weights * emitter.constant(operation.scale.astype(dtype))
        bias = bias_tensor(emitter, operation.shift.astype(dtype))
    built = Dense(
        weights=weights,
        twin=_apart(weights),
        bias=bias,
        x=crossing.tensor(inputs[0]),
        z=crossing.output(),
        transposed=False,
        left=left,
    )
    return built, inputs
