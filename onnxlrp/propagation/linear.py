"""Layers with weights of their own: Conv, ConvTranspose, Gemm, MatMul, and what is merged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxlrp.graph.canonical import Operation, constant_of
from onnxlrp.graph.shapes import Dim
from onnxlrp.propagation.expression import Bundle, Emitter, Sign, Tensor, negative, positive
from onnxlrp.propagation.formulas import Layer, UniformLayer
from onnxlrp.propagation.registry import (
    Crossing,
    fail,
    layer,
    live_inputs,
    only_first_live,
    require_constant,
    static_shape,
)
from onnxlrp.propagation.windows import Window, window_of


@dataclass(frozen=True)
class WeightedLayer(Layer):
    """A layer of one input with explicit weights.

    Attributes
    ----------
    weights : as the ONNX operator takes them, or a constant expression of them
    bias : [channels], or zero
    x, z : the layer's input and output in the model, for their shapes

    """

    weights: Tensor
    bias: Tensor
    x: Tensor
    z: Tensor

    def with_weights(self, function: Callable[[Tensor], Tensor]) -> WeightedLayer:
        """Return the operator with a function applied to its weights, without bias."""
        return replace(self, weights=function(self.weights), bias=self.bias.emitter.zero)

    @property
    def positive(self) -> Layer:
        return self.with_weights(positive)

    @property
    def negative(self) -> Layer:
        return self.with_weights(negative)

    @property
    def ones(self) -> Layer:
        return self.with_weights(
            lambda w: w.emitter.constant(np.ones(w.shape, w.dtype.numpy()), Sign.NON_NEGATIVE)
        )

    def power(self, exponent: int) -> Layer:
        return self.with_weights(lambda w: w**exponent)

    @property
    def emitter(self) -> Emitter:
        """Writes the nodes."""
        return self.x.emitter

    def apply(self, op: str, x: Tensor, w: Tensor, shape: tuple[Dim, ...], **attributes: object) -> Tensor:  # fmt: skip
        """Write an operator that is linear in x and in w."""
        if x.is_zero or w.is_zero:
            return self.emitter.zero
        return self.emitter.node(
            op, x, w, shape=shape, dtype=x.dtype, sign=x.sign * w.sign, **attributes
        )


def _with_third_input(z: Tensor, bias: Tensor) -> Tensor | None:
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
        biased = _with_third_input(replace(first, sign=z.sign), bias)
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


@dataclass(frozen=True)
class Convolution(WeightedLayer):
    """Conv over 1, 2, 3, ... spatial axes; weights [out, in / groups, *kernel].

    Attributes
    ----------
    transposed_weights : the same weights for ConvTranspose, in an initializer of their own;
        OpenVINO 2026.4 computes wrong numbers where Conv and ConvTranspose share one

    """

    window: Window
    groups: int
    transposed_weights: Tensor

    def with_weights(self, function: Callable[[Tensor], Tensor]) -> Convolution:
        return replace(
            self,
            weights=function(self.weights),
            transposed_weights=function(self.transposed_weights),
            bias=self.bias.emitter.zero,
        )

    def __call__(self, x: Bundle) -> Tensor:
        return self.apply(
            "Conv",
            x.parts[0],
            self.weights,
            self.z.shape,
            **self.window.attributes(),
            group=self.groups,
        )

    def adjoint(self, s: Tensor) -> Bundle:
        """Convolve with the flipped kernel where the stride is 1, else ConvTranspose."""
        window = self.window
        if self.weights.is_zero or s.is_zero:
            return Bundle((self.emitter.zero,))
        begins = tuple(r - p for r, p in zip(window.reach, window.begins, strict=True))
        ends = tuple(r - p for r, p in zip(window.reach, window.ends, strict=True))
        if window.dense and min(begins + ends) >= 0:
            mirrored = replace(window, begins=begins, ends=ends)
            result = self.apply(
                "Conv",
                s,
                flipped(self.weights, self.groups),
                self.x.shape,
                **mirrored.attributes(),
                group=self.groups,
            )
            return Bundle((result,))
        return Bundle((_transposed(self, s),))

    @property
    def ones(self) -> Layer:
        return BoxConvolution(self, self.emitter.zero)

    def biased(self, z: Tensor, bias: Tensor) -> Tensor:
        return _channels_biased(z, bias, self.z.rank)


def _channels_biased(z: Tensor, bias: Tensor, rank: int) -> Tensor:
    if bias.is_zero:
        return z
    fused = _with_third_input(z, bias)
    if fused is not None:
        return fused
    column = bias.emitter.reshape(bias, (*bias.shape, *(1,) * (rank - 2)))
    return z + column


def _transposed(conv: Convolution, s: Tensor) -> Tensor:
    """Write the transpose of a strided convolution as a ConvTranspose.

    Where the input's size is known, `output_padding` makes up for what the stride dropped; where
    it is not, stride - 1 of it is always enough, and the rest is cut.
    """
    window, emitter = conv.window, conv.emitter
    sizes = conv.x.shape[2:]
    attributes = {**window.attributes(), "group": conv.groups}
    covered = [
        (n - 1) * stride + reach + 1 - begin - end if isinstance(n, int) else None
        for n, stride, reach, begin, end in zip(
            conv.z.shape[2:], window.strides, window.reach, window.begins, window.ends, strict=True
        )
    ]
    if all(isinstance(size, int) for size in sizes) and None not in covered:
        rest = [size - cover for size, cover in zip(sizes, covered, strict=True)]  # type: ignore[operator]
        return conv.apply(
            "ConvTranspose",
            s,
            conv.transposed_weights,
            conv.x.shape,
            **attributes,
            output_padding=rest,
        )
    rest = [stride - 1 for stride in window.strides]
    shape = (*conv.x.shape[:2], *(None,) * len(sizes))
    whole = conv.apply(
        "ConvTranspose", s, conv.transposed_weights, shape, **attributes, output_padding=rest
    )
    axes = list(window.axes)
    return emitter.slice(
        whole, [0] * len(axes), [conv.x.size(a) for a in axes], axes, sizes=conv.x.shape[2:]
    )


def flipped(weights: Tensor, groups: int) -> Tensor:
    """Weights [out, in/g, *kernel] of a Conv's transpose as a Conv: [in, out/g, *kernel]."""
    emitter = weights.emitter
    out, per_group, *kernel = weights.shape
    assert isinstance(out, int)
    assert isinstance(per_group, int)
    spatial = range(2, 2 + len(kernel))
    if groups == 1:
        turned = emitter.transpose(weights, [1, 0, *spatial])
    else:
        split = emitter.reshape(weights, (groups, out // groups, per_group, *kernel))
        swapped = emitter.transpose(split, [0, 2, 1, *(axis + 1 for axis in spatial)])
        turned = emitter.reshape(swapped, (groups * per_group, out // groups, *kernel))
    axes = [axis for axis, size in zip(spatial, kernel, strict=True) if size != 1]
    if not axes:
        return turned
    count = len(axes)
    return emitter.slice(turned, [-1] * count, [-(1 << 62)] * count, axes, [-1] * count)


@dataclass(frozen=True)
class BoxConvolution(UniformLayer):
    """A convolution whose weights are all 1: its channels are alike, so one stands for all."""

    conv: Convolution
    bias: Tensor

    def _convolution(self, groups: int) -> Convolution:
        """Return the convolution of one channel per group with ones."""
        conv, emitter = self.conv, self.conv.emitter
        kernel = np.ones((groups, 1, *conv.window.kernel), conv.x.dtype.numpy())
        return Convolution(
            weights=emitter.constant(kernel, Sign.NON_NEGATIVE),
            bias=emitter.zero,
            x=_channels(conv.x, groups),
            z=_channels(conv.z, groups),
            window=conv.window,
            groups=groups,
            transposed_weights=emitter.constant(kernel, Sign.NON_NEGATIVE, "transposed"),
        )

    def __call__(self, x: Bundle) -> Tensor:
        """Sum over the window and the group's channels, [N, 1, ...] for all outputs alike.

        Rules ask for it on ones only, where each channel contributes the same.
        """
        per_group = self.conv.weights.shape[1]
        assert isinstance(per_group, int)
        one = _channels(x.parts[0], 1)
        return self._convolution(1)(Bundle((one,))) * per_group

    def adjoint(self, s: Tensor) -> Bundle:
        emitter, groups = self.conv.emitter, self.conv.groups
        if s.is_zero:
            return Bundle((emitter.zero,))
        x = self.conv.x
        spatial = s.shape[2:]
        out, channels = s.shape[1], x.shape[1]
        assert isinstance(out, int)
        assert isinstance(channels, int)
        if groups == 1:
            total = emitter.reduce_sum(s, [1])
            return self._convolution(1).adjoint(total).map(lambda one: emitter.expand(one, x))
        grouped = _regroup(s, (s.shape[0], groups, out // groups, *spatial))
        total = emitter.reduce_sum(grouped, [2], keepdims=False)
        single = self._convolution(groups).adjoint(total).parts[0]
        if channels == groups:
            return Bundle((single,))
        lifted = _regroup(single, (x.shape[0], groups, 1, *x.shape[2:]))
        repeated = emitter.node(
            "Tile",
            lifted,
            emitter.vector([1, 1, channels // groups, *(1,) * len(spatial)]),
            shape=(x.shape[0], groups, channels // groups, *x.shape[2:]),
            dtype=s.dtype,
            sign=s.sign,
        )
        return Bundle((_regroup(repeated, x.shape),))


def _channels(tensor: Tensor, channels: int) -> Tensor:
    """Return the tensor's first channels."""
    return tensor.emitter.slice(tensor, [0], [channels], [1])


def _regroup(tensor: Tensor, shape: tuple[Dim, ...]) -> Tensor:
    """Split or join channels; the other axes keep their sizes, known or not."""
    emitter = tensor.emitter
    if sum(not isinstance(d, int) for d in shape) <= 1:
        return emitter.reshape(tensor, shape)
    offset = tensor.rank - len(shape)
    sizes = [
        d if isinstance(d, int) else tensor.size(axis if axis == 0 else axis + offset)
        for axis, d in enumerate(shape)
    ]
    return emitter.node(
        "Reshape",
        tensor,
        emitter.vector(sizes),
        shape=shape,
        dtype=tensor.dtype,
        sign=tensor.sign,
    )


@dataclass(frozen=True)
class TransposedConvolution(WeightedLayer):
    """ConvTranspose; weights [in, out / groups, *kernel]."""

    attributes: dict[str, object]
    window: Window
    groups: int
    convolution_weights: Tensor

    def __call__(self, x: Bundle) -> Tensor:
        return self.apply(
            "ConvTranspose", x.parts[0], self.weights, self.z.shape, **self.attributes
        )

    def adjoint(self, s: Tensor) -> Bundle:
        if self.weights.is_zero or s.is_zero:
            return Bundle((self.emitter.zero,))
        result = self.apply(
            "Conv",
            s,
            self.convolution_weights,
            self.x.shape,
            **self.window.attributes(),
            group=self.groups,
        )
        return Bundle((result,))

    def with_weights(self, function: Callable[[Tensor], Tensor]) -> TransposedConvolution:
        return replace(
            self,
            weights=function(self.weights),
            convolution_weights=function(self.convolution_weights),
            bias=self.bias.emitter.zero,
        )

    def biased(self, z: Tensor, bias: Tensor) -> Tensor:
        return _channels_biased(z, bias, self.z.rank)


@dataclass(frozen=True)
class Dense(WeightedLayer):
    """Gemm, or MatMul by a constant.

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

    def _multiply(self, x: Tensor, transposed: bool, shape: tuple[Dim, ...]) -> Tensor:
        if x.is_zero or self.weights.is_zero:
            return self.emitter.zero
        if self._is_gemm:
            return self.apply("Gemm", x, self.weights, shape, transB=int(transposed))
        weights = self.weights
        if transposed:
            order = list(range(weights.rank))
            order[-2:] = order[-1], order[-2]
            weights = self.emitter.transpose(weights, order)
        sign = x.sign * weights.sign
        operands = (weights, x) if self.left else (x, weights)
        return self.emitter.node("MatMul", *operands, shape=shape, dtype=x.dtype, sign=sign)

    def __call__(self, x: Bundle) -> Tensor:
        return self._multiply(x.parts[0], self.transposed, self.z.shape)

    def adjoint(self, s: Tensor) -> Bundle:
        return Bundle((self._multiply(s, not self.transposed, self.x.shape),))

    def biased(self, z: Tensor, bias: Tensor) -> Tensor:
        return _with_third_input(z, bias) or z + bias

    @property
    def ones(self) -> Layer:
        return DenseOnes(self, self.bias.emitter.zero, -2 if self.left else -1)


@dataclass(frozen=True)
class DenseOnes(UniformLayer):
    """A dense layer whose weights are all 1: a sum over the features, the same for all outputs."""

    dense: Dense
    bias: Tensor
    axis: int

    def __call__(self, x: Bundle) -> Tensor:
        return x.parts[0].emitter.reduce_sum(x.parts[0], [self.axis])

    def adjoint(self, s: Tensor) -> Bundle:
        return Bundle((s.emitter.expand(s.emitter.reduce_sum(s, [self.axis]), self.dense.x),))


def _merged(
    crossing: Crossing, channels: int, extent: tuple[int, ...], apart: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, weights for the transpose, and bias, with the merged scale and shift.

    `extent` shapes the scale like the weights; `apart` gives the transpose its own initializer.
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
    factor = emitter.constant(scale.astype(dtype).reshape(extent if scale.size > 1 else 1))
    constant = constant_of(operation.input(2))
    old = np.zeros(1) if constant is None else constant.reshape(-1).astype(np.float64)
    total = np.broadcast_to(old * scale + shift, (channels,))
    return weights * factor, twin * factor, _bias(emitter, total.astype(dtype))


def _bias(emitter: Emitter, bias: np.ndarray) -> Tensor:  # type: ignore[type-arg]
    return emitter.constant(np.ascontiguousarray(bias)) if bias.any() else emitter.zero


def _check_convolution(operation: Operation, live: frozenset[int]) -> None:
    only_first_live(operation, live)
    _check_weights(operation)
    value = operation.inputs[1]
    assert value is not None
    assert value.shape is not None
    window_of(operation, [int(size) for size in list(value.shape)[2:]])


def _check_weights(operation: Operation) -> None:
    for value in (operation.inputs[0], operation.outputs[0]):
        assert value is not None
        static_shape(value)
    require_constant(operation, 1, "weight")
    require_constant(operation, 2, "bias")


@layer("Conv", check=_check_convolution)
def convolution(crossing: Crossing) -> tuple[Layer, list[ir.Value]]:
    """Build the layer of a Conv, with its zero padding and what is merged into it."""
    operation = crossing.operation
    x, z = crossing.input(0), crossing.output()
    out, _, *kernel = (int(size) for size in crossing.input(1).shape if isinstance(size, int))
    window = window_of(operation, kernel)
    extent = (-1, *(1,) * (1 + len(kernel)))
    weights, twin, bias = _merged(crossing, out, extent, apart=not window.dense)
    built = Convolution(
        weights=weights,
        bias=bias,
        x=x,
        z=z,
        window=window,
        groups=int(crossing.attribute("group", 1)),
        transposed_weights=twin,
    )
    return built, live_inputs(operation, crossing.live)


def _check_transposed(operation: Operation, live: frozenset[int]) -> None:
    only_first_live(operation, live)
    _check_weights(operation)
    automatic = operation.attributes.get("auto_pad", "NOTSET")
    if automatic not in ("NOTSET", "VALID") or "output_shape" in operation.attributes:
        fail(
            "auto_pad and output_shape of ConvTranspose are not supported",
            "export it with explicit pads and output_padding",
        )


@layer("ConvTranspose", check=_check_transposed)
def transposed_convolution(crossing: Crossing) -> tuple[Layer, list[ir.Value]]:
    """Build the layer of a ConvTranspose."""
    operation = crossing.operation
    _, per_group, *kernel = (int(s) for s in crossing.input(1).shape if isinstance(s, int))
    groups = int(crossing.attribute("group", 1))
    if operation.scale is not None and operation.scale.size > 1 and groups > 1:
        fail("a per-channel scale behind a grouped ConvTranspose cannot be merged", "unmerge it")
    extent = (1, -1, *(1,) * len(kernel))
    weights, twin, bias = _merged(crossing, per_group * groups, extent, apart=True)
    window = window_of(operation, kernel)
    attributes: dict[str, object] = {**window.attributes(), "group": groups}
    if "output_padding" in operation.attributes:
        attributes["output_padding"] = list(operation.attributes["output_padding"])
    built = TransposedConvolution(
        weights=weights,
        bias=bias,
        x=crossing.input(0),
        z=crossing.output(),
        attributes=attributes,
        window=window,
        groups=groups,
        convolution_weights=twin,
    )
    return built, live_inputs(operation, crossing.live)


def _check_gemm(operation: Operation, live: frozenset[int]) -> None:
    only_first_live(operation, live)
    _check_weights(operation)
    if operation.attributes.get("transA", 0):
        fail("transA=1 puts the batch behind the features", "transpose in front of the Gemm")
    bias, weights = constant_of(operation.input(2)), constant_of(operation.input(1))
    assert weights is not None
    if bias is not None and bias.ndim == 2 and bias.shape[0] != 1:
        fail("its bias differs between the rows of a batch", "use a bias of one row")


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
        bias = _bias(emitter, (old.astype(np.float64) * beta * scale + shift).astype(dtype))
    factor = alpha * scale
    if (factor != 1).any():
        extent = (1 if factor.size == 1 else (-1, 1)) if transposed else -1
        weights = weights * emitter.constant(factor.astype(dtype).reshape(extent))
    built = Dense(
        weights=weights,
        bias=bias,
        x=crossing.input(0),
        z=crossing.output(),
        transposed=transposed,
        left=False,
    )
    return built, live_inputs(operation, crossing.live)


def _check_matmul(operation: Operation, live: frozenset[int]) -> None:
    static_shape(operation.outputs[0])
    inputs = live_inputs(operation, live)
    if len(inputs) > 1:
        fail(
            "it multiplies two values that both depend on the explained input",
            "products of two live values (attention) have no rule yet",
        )
    static_shape(inputs[0])
    index = 1 if inputs[0] is operation.inputs[0] else 0
    require_constant(operation, index, "weight")
    weights = constant_of(operation.input(index))
    assert weights is not None
    assert inputs[0].shape is not None
    if weights.ndim < 2 or weights.ndim > max(len(inputs[0].shape), 2):
        fail(f"its weight has {weights.ndim} dimensions", "use a matrix")


@layer("MatMul", check=_check_matmul)
def matmul(crossing: Crossing) -> tuple[Layer, list[ir.Value]]:
    """Build the layer of a MatMul by a constant on either side."""
    operation, emitter = crossing.operation, crossing.emitter
    inputs = live_inputs(operation, crossing.live)
    left = inputs[0] is operation.inputs[1]
    weights = crossing.input(0 if left else 1)
    bias = emitter.zero
    if operation.scale is not None and operation.shift is not None:
        dtype = weights.dtype.numpy()
        if (operation.scale != 1).any():
            weights = weights * emitter.constant(operation.scale.astype(dtype))
        bias = _bias(emitter, operation.shift.astype(dtype))
    built = Dense(
        weights=weights,
        bias=bias,
        x=crossing.tensor(inputs[0]),
        z=crossing.output(),
        transposed=False,
        left=left,
    )
    return built, inputs
