"""Conv and ConvTranspose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import onnx_ir as ir

from onnxlrp.graph.canonical import Array, Operation, constant_of
from onnxlrp.graph.shapes import dims_of
from onnxlrp.propagation import layout
from onnxlrp.propagation.expression import Operands, Sign, Tensor
from onnxlrp.propagation.formulas import Layer, UniformLayer
from onnxlrp.propagation.linear import WeightedLayer, check_weights, merged, with_third_input
from onnxlrp.propagation.registry import (
    Crossing,
    fail,
    known_channels,
    layer,
    only_first_live,
)
from onnxlrp.propagation.windows import Taps, Window, interleave, portion, window_of


@dataclass(frozen=True)
class Convolution(WeightedLayer):
    """Conv over 1, 2, 3, ... spatial axes; weights [out, in / groups, *kernel]."""

    window: Window
    groups: int

    def forward(self, x: Operands) -> Tensor:
        return self.apply(
            "Conv",
            x.parts[0],
            self.weights,
            self.shape_for(x),
            **self.window.attributes(),
            group=self.groups,
        )

    def transpose(self, s: Tensor) -> Operands:
        """Convolve with the flipped kernel, at a stride once for every remainder by it.

        To few channels a ConvTranspose is faster: onnxruntime computes a convolution to at least
        as many as its vectors hold.
        """
        window = self.window
        if _is_thin(window, self.groups, self.x):
            return Operands((_transposed(self, s),))
        turned = _turned(self.weights, self.groups)
        remainders = product(*(range(stride) for stride in window.strides))
        woven = interleave({r: self._reaching(turned, s, r) for r in remainders}, window)
        for axis in window.axes if woven.shape != self.x.shape else ():
            woven = layout.moved(woven, axis, 0, layout.size(self.x, axis))
        return Operands((woven,))

    def _reaching(self, turned: Tensor, s: Tensor, remainder: tuple[int, ...]) -> Tensor:
        """Return what elements of one remainder by the strides get, next to each other."""
        window, shape = self.window, list(self.x.shape)
        taps, begins, ends, unfit = [], [], [], []
        for place, (axis, stride) in enumerate(zip(window.axes, window.strides, strict=True)):
            seen = window.taps(place, remainder[place])
            if seen is None:
                return s.emitter.zero
            part = portion(layout.size(self.x, axis), stride)
            known = self._behind(s, place, part, seen)
            taps.append(seen)
            begins.append(max(seen.furthest, 0))
            ends.append(seen.reach if known is None else max(known, 0))
            if known != ends[-1] or seen.furthest < 0:
                unfit.append((axis, min(seen.furthest, 0), part))
                shape[axis] = None
            elif isinstance(part, int):
                shape[axis] = part
        geometry = Window(
            kernel=tuple(len(seen.positions) for seen in taps),
            strides=(1,) * len(taps),
            dilations=tuple(seen.step for seen in taps),
            begins=tuple(begins),
            ends=tuple(ends),
        )
        result = self.apply(
            "Conv",
            s,
            _flipped(turned, taps),
            tuple(shape),
            **geometry.attributes(),
            group=self.groups,
        )
        for axis, by, part in unfit:
            result = layout.moved(result, axis, by, part)
        return result

    def _behind(self, s: Tensor, place: int, part: int | Tensor, taps: Taps) -> int | None:
        """Return by how much to pad s behind, so that `part` elements come out; None if unknown."""
        if self.window.strides[place] == 1:
            return self.window.reach[place] - self.window.ends[place]
        outputs = s.shape[self.window.axes[place]]
        if isinstance(part, int) and isinstance(outputs, int):
            return part - outputs - taps.ahead
        return None

    @property
    def ones(self) -> Layer:
        return BoxConvolution(self, self.emitter.zero)

    def biased(self, z: Tensor, bias: Tensor) -> Tensor:
        return _channels_biased(z, bias, self.z.rank)


def _channels_biased(z: Tensor, bias: Tensor, rank: int) -> Tensor:
    if bias.is_zero:
        return z
    fused = with_third_input(z, bias)
    if fused is not None:
        return fused
    column = layout.reshape(bias, (*bias.shape, *(1,) * (rank - 2)))
    return z + column


def _is_thin(window: Window, groups: int, x: Tensor) -> bool:
    """Tell whether a ConvTranspose takes relevance back: at strides, to a few channels."""
    channels = x.shape[1]
    return groups == 1 and not window.dense and isinstance(channels, int) and channels < _FEW


_FEW = 8
"""Channels that onnxruntime's convolutions compute at once, at least."""


def _transposed(conv: Convolution, s: Tensor) -> Tensor:
    """Write the transpose of a strided convolution as a ConvTranspose.

    Where the input's size is known, `output_padding` makes up for what the stride dropped; where
    it is not, stride - 1 of it is always enough, and the rest is cut.
    """
    window = conv.window
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
            conv.twin,
            conv.x.shape,
            **attributes,
            output_padding=rest,
        )
    rest = [stride - 1 for stride in window.strides]
    shape = (*conv.x.shape[:2], *(None,) * len(sizes))
    whole = conv.apply("ConvTranspose", s, conv.twin, shape, **attributes, output_padding=rest)
    axes = list(window.axes)
    return layout.slice(
        whole, [0] * len(axes), [layout.size(conv.x, a) for a in axes], axes, sizes=conv.x.shape[2:]
    )


def _turned(weights: Tensor, groups: int) -> Tensor:
    """Weights [out, in/g, *kernel] with inputs and outputs exchanged: [in, out/g, *kernel]."""
    out, per_group, *kernel = weights.shape
    assert isinstance(out, int)
    assert isinstance(per_group, int)
    spatial = range(2, 2 + len(kernel))
    if groups == 1:
        return layout.transpose(weights, [1, 0, *spatial])
    split = layout.reshape(weights, (groups, out // groups, per_group, *kernel))
    swapped = layout.transpose(split, [0, 2, 1, *(axis + 1 for axis in spatial)])
    return layout.reshape(swapped, (groups * per_group, out // groups, *kernel))


def _flipped(turned: Tensor, taps: Sequence[Taps]) -> Tensor:
    """Take the kernel's elements at some positions, the last in front."""
    moving = [i for i, size in enumerate(turned.shape[2:]) if size != 1]
    if not moving:
        return turned
    chosen = [taps[i].positions for i in moving]
    return layout.slice(
        turned,
        [positions[-1] for positions in chosen],
        [positions[0] - 1 if positions[0] else layout.BEFORE_ALL for positions in chosen],
        [2 + i for i in moving],
        [-positions.step for positions in chosen],
    )


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
            twin=emitter.constant(kernel, Sign.NON_NEGATIVE, "transposed"),
        )

    def forward(self, x: Operands) -> Tensor:
        """Sum over the window and the group's channels, [N, 1, ...] for all outputs alike.

        Rules ask for it on ones only, where each channel contributes the same.
        """
        per_group = self.conv.weights.shape[1]
        assert isinstance(per_group, int)
        one = _channels(x.parts[0], 1)
        return self._convolution(1)(Operands((one,))) * per_group

    def transpose(self, s: Tensor) -> Operands:
        emitter, groups = self.conv.emitter, self.conv.groups
        x = self.conv.x
        channels = x.shape[1]
        assert isinstance(channels, int)
        if groups == 1:
            total = layout.reduce_sum(s, [1])
            return self._convolution(1).adjoint(total).map(lambda one: layout.expand(one, x))
        total = layout.reduce_sum(layout.split(s, 1, groups), [2], keepdims=False)
        single = self._convolution(groups).adjoint(total).parts[0]
        if channels == groups:
            return Operands((single,))
        repeated = emitter.node(
            "Tile",
            layout.unsqueeze(single, [2]),
            emitter.vector([1, 1, channels // groups, *(1,) * (x.rank - 2)]),
            shape=(x.shape[0], groups, channels // groups, *x.shape[2:]),
            dtype=s.dtype,
            sign=s.sign,
        )
        return Operands((layout.join(repeated, 1),))


def _channels(tensor: Tensor, channels: int) -> Tensor:
    """Return the tensor's first channels."""
    return layout.slice(tensor, [0], [channels], [1])


@dataclass(frozen=True)
class TransposedConvolution(WeightedLayer):
    """ConvTranspose; weights [in, out / groups, *kernel]."""

    attributes: dict[str, object]
    window: Window
    groups: int

    def forward(self, x: Operands) -> Tensor:
        return self.apply(
            "ConvTranspose",
            x.parts[0],
            self.weights,
            self.shape_for(x),
            **self.attributes,
        )

    def transpose(self, s: Tensor) -> Operands:
        result = self.apply(
            "Conv",
            s,
            self.twin,
            self.x.shape,
            **self.window.attributes(),
            group=self.groups,
        )
        return Operands((result,))

    def biased(self, z: Tensor, bias: Tensor) -> Tensor:
        return _channels_biased(z, bias, self.z.rank)


def _check_convolution(operation: Operation, live: frozenset[int]) -> None:
    only_first_live(operation, live)
    check_weights(operation)
    x, weights = operation.inputs[0], operation.inputs[1]
    assert x is not None
    assert weights is not None
    known_channels(x)
    known_channels(operation.node.outputs[0])
    assert x.shape is not None
    assert weights.shape is not None
    sizes, rank = dims_of(weights.shape), len(x.shape)
    if len(sizes) != rank:
        fail(f"its weight has {len(sizes)} axes, its input {rank}", "the model is invalid")
    window_of(operation, [size for size in sizes[2:] if isinstance(size, int)])
    channels, per_group = dims_of(x.shape)[1], sizes[1]
    assert isinstance(per_group, int)
    if isinstance(channels, int) and channels != per_group * operation.attributes.get("group", 1):
        fail(f"its weights do not fit an input of {channels} channels", "the model is invalid")
    bias = constant_of(operation.input(2))
    if bias is not None and bias.size != sizes[0]:
        fail(f"its bias of {bias.size} does not fit {sizes[0]} outputs", "the model is invalid")


@layer("Conv", check=_check_convolution)
def convolution(crossing: Crossing) -> tuple[Layer, list[ir.Value]]:
    """Build the layer of a Conv, with its zero padding and what is merged into it."""
    operation = crossing.operation
    x, z = crossing.input(0), crossing.output()
    out, _, *kernel = (int(size) for size in crossing.input(1).shape if isinstance(size, int))
    window = window_of(operation, kernel)
    groups = int(crossing.attribute("group", 1))
    weights, twin, bias = merged(
        crossing,
        out,
        lambda scale: scale.reshape(-1, *(1,) * (1 + len(kernel))),
        apart=_is_thin(window, groups, x),
    )
    built = Convolution(
        weights=weights,
        bias=bias,
        x=x,
        z=z,
        window=window,
        groups=groups,
        twin=twin,
    )
    return built, crossing.live_inputs


def _check_transposed(operation: Operation, live: frozenset[int]) -> None:
    only_first_live(operation, live)
    check_weights(operation)
    for end in (operation.inputs[0], operation.node.outputs[0]):
        assert end is not None
        known_channels(end)
    automatic = operation.attributes.get("auto_pad", "NOTSET")
    if automatic not in ("NOTSET", "VALID") or "output_shape" in operation.attributes:
        fail(
            "it is asked for a size, and that of its input is not known",
            "export it with explicit pads and output_padding, or with a fixed size",
        )


@layer("ConvTranspose", check=_check_transposed)
def transposed_convolution(crossing: Crossing) -> tuple[Layer, list[ir.Value]]:
    """Build the layer of a ConvTranspose."""
    operation = crossing.operation
    _, per_group, *kernel = (int(s) for s in crossing.input(1).shape if isinstance(s, int))
    groups = int(crossing.attribute("group", 1))
    inputs = crossing.input(1).shape[0]
    assert isinstance(inputs, int)

    def shaped(scale: Array) -> Array:
        """One factor for every pair of an input and an output of its group."""
        each = np.repeat(scale.reshape(groups, per_group), inputs // groups, axis=0)
        return each.reshape(inputs, per_group, *(1,) * len(kernel))

    weights, twin, bias = merged(crossing, per_group * groups, shaped, apart=True)
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
        twin=twin,
    )
    return built, crossing.live_inputs
