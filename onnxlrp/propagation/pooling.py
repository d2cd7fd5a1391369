"""Pooling: means are linear layers, maxima hand relevance to the winner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import onnx_ir as ir

from onnxlrp.graph.canonical import Operation, constant_of
from onnxlrp.graph.shapes import Dim, dims_of
from onnxlrp.propagation import layout
from onnxlrp.propagation.expression import Operands, Sign, Tensor
from onnxlrp.propagation.formulas import Layer, UniformLayer
from onnxlrp.propagation.registry import (
    Crossing,
    Relevance,
    cross_by_rule,
    fail,
    known_channels,
    layer,
    only_first_live,
    operator,
    require_constant,
    static_shape,
)
from onnxlrp.propagation.windows import Window, interleave, portion, weave, window_of


@dataclass(frozen=True)
class Mean(UniformLayer):
    """A mean, or a sum, over whole axes.

    Attributes
    ----------
    x, z : the operator's input and output in the model, for their shapes
    axes : that are averaged over
    keepdims : whether they stay, with size 1
    weight : of each element: None for 1 / their number (a mean), else a number
    exponent : of the weight

    """

    x: Tensor
    z: Tensor
    axes: tuple[int, ...]
    keepdims: bool
    weight: float | None
    bias: Tensor
    exponent: int = 1

    def forward(self, x: Operands) -> Tensor:
        total = layout.reduce_sum(x.parts[0], self.axes, self.keepdims)
        return self._weighted(total)

    def _weighted(self, tensor: Tensor) -> Tensor:
        if self.weight is not None:
            return tensor * self.weight
        sizes = [layout.size(self.x, axis) for axis in self.axes]
        if all(isinstance(size, int) for size in sizes):
            number = float(np.prod([size for size in sizes if isinstance(size, int)]))
            return tensor * number**-self.exponent
        count: int | Tensor = 1
        for size in sizes:
            count = size * count if isinstance(size, Tensor) else count * size
        assert isinstance(count, Tensor)
        counted = layout.cast(count, tensor.dtype, Sign.NON_NEGATIVE)
        return tensor / counted**self.exponent

    def transpose(self, s: Tensor) -> Operands:
        if not self.keepdims:
            s = layout.unsqueeze(s, self.axes)
        return Operands((layout.expand(self._weighted(s), self.x),))

    def filled(self, x: Operands, value: float | Sequence[float]) -> Operands:
        one = super().filled(x, value)
        # A mean over a stack in front needs all of it.
        return one.map(lambda part: layout.expand(part, self.x)) if 0 in self.axes else one

    @property
    def ones(self) -> Layer:
        return replace(self, weight=1.0)

    def power(self, exponent: int) -> Layer:
        return replace(self, exponent=exponent)


def _axes(operation: Operation) -> tuple[int, ...]:
    """Return the axes that a mean or sum runs over."""
    value = operation.inputs[0]
    assert value is not None
    assert value.shape is not None
    rank = len(value.shape)
    if operation.operator.startswith("Global"):
        return tuple(range(2, rank))
    chosen = constant_of(operation.input(1))
    if chosen is not None and chosen.size:
        return tuple(sorted(int(axis) % rank for axis in chosen.reshape(-1)))
    return () if operation.attributes.get("noop_with_empty_axes", 0) else tuple(range(rank))


def _check_mean(operation: Operation, live: frozenset[int]) -> None:
    only_first_live(operation, live)
    value = operation.inputs[0]
    assert value is not None
    static_shape(value)
    require_constant(operation, 1, "list of axes")
    assert value.shape is not None
    # What has a size that is known is a stack of several, and samples lie along another axis.
    if 0 in _axes(operation) and not isinstance(value.shape[0], int):
        fail("it mixes the samples of a batch", "remove it from the model")


@layer("GlobalAveragePool", "ReduceMean", "ReduceSum", check=_check_mean, default="norm")
def mean(crossing: Crossing) -> tuple[Layer, list[ir.Value]]:
    """Build the layer of a mean or sum over whole axes."""
    operation = crossing.operation
    x = crossing.input(0)
    # Of numbers other than 1, onnxruntime keeps no axes.
    keepdims = operation.operator == "GlobalAveragePool" or crossing.attribute("keepdims", 1) == 1
    weight = 1.0 if operation.operator == "ReduceSum" else None
    built = Mean(x, crossing.output(), _axes(operation), keepdims, weight, crossing.emitter.zero)
    return built, crossing.live_inputs


@dataclass(frozen=True)
class WindowMean(UniformLayer):
    """AveragePool: the mean, or with `divided` False the sum, over a sliding window.

    Attributes
    ----------
    x, z : the operator's input and output in the model, for their shapes
    window : geometry; `ends` reach as far as the last window does
    count : what each window's sum is divided by: a number, or a tensor [1, 1, ...] where windows
        that reach into the padding have fewer elements

    """

    x: Tensor
    z: Tensor
    window: Window
    count: float | Tensor
    bias: Tensor
    divided: bool = True

    def forward(self, x: Operands) -> Tensor:
        """Pool the padded input with AveragePool, which then counts every element."""
        padded = _padded(x.parts[0], self.window, self.z)
        shape = (x.parts[0].shape[0], *self.z.shape[1:])
        return self._scaled(_summed(padded, self.window, self.window.strides, shape))

    def _scaled(self, sums: Tensor) -> Tensor:
        if not self.divided:
            return sums
        return sums / self.count if isinstance(self.count, Tensor) else sums * (1 / self.count)

    def transpose(self, s: Tensor) -> Operands:
        """Space the outputs out by the strides, and pool that with stride 1.

        Every input then collects the outputs whose windows cover it.
        """
        window = self.window
        spread = self._scaled(s)
        if spread.shape != self.z.shape:
            spread = layout.expand(spread, self.z)
        zero = spread.emitter.zero
        keys = product(*(range(stride) for stride in window.strides))
        spread = interleave({key: zero if any(key) else spread for key in keys}, window)
        front = [r - p for r, p in zip(window.reach, window.begins, strict=True)]
        before, after = [0] * s.rank, [0] * s.rank
        begins: list[int | Tensor] = [*before]
        ends: list[int | Tensor] = [*after]
        shape = list(self.x.shape)
        for axis, begin, reach in zip(window.axes, front, window.reach, strict=True):
            begins[axis] = begin
            size = layout.size(self.x, axis)
            ends[axis] = size + reach - (layout.size(spread, axis) + begin)
            known = shape[axis]
            shape[axis] = known + reach if isinstance(known, int) else None
        padded = layout.pad(spread, begins, ends, shape)
        dense = (1,) * len(window.strides)
        return Operands((_summed(padded, window, dense, self.x.shape),))

    @property
    def ones(self) -> Layer:
        return replace(self, divided=False)

    def power(self, exponent: int) -> Layer:
        return replace(self, count=self.count**exponent)


def _summed(x: Tensor, window: Window, strides: Sequence[int], shape: Sequence[Dim]) -> Tensor:
    """Sum over windows that lie within x, as the mean of as many times x.

    The product in front also keeps onnxruntime from fusing a Pad into the AveragePool, which it
    then refuses for padding as large as the kernel.
    """
    emitter = x.emitter
    attributes: dict[str, object] = {"kernel_shape": list(window.kernel), "strides": list(strides)}
    if all(dilation == 1 for dilation in window.dilations):
        scaled = x * float(np.prod(window.kernel))
        return emitter.node(
            "AveragePool", scaled, shape=shape, dtype=x.dtype, sign=x.sign, **attributes
        )
    # AveragePool knows dilations from opset 19 on only.
    channels = x.shape[1]
    assert isinstance(channels, int)
    ones = np.ones((channels, 1, *window.kernel), x.dtype.numpy())
    attributes |= {"dilations": list(window.dilations), "group": channels}
    kernel = emitter.constant(ones, Sign.NON_NEGATIVE)
    return emitter.node("Conv", x, kernel, shape=shape, dtype=x.dtype, sign=x.sign, **attributes)


def _padded(x: Tensor, window: Window, z: Tensor) -> Tensor:
    """Pad with zeros: windows start at 0 and exactly fill the result; cut what none reaches."""
    begins: list[int | Tensor] = [0] * x.rank
    ends: list[int | Tensor] = [0] * x.rank
    shape = list(x.shape)
    for i, axis in enumerate(window.axes):
        begins[axis] = window.begins[i]
        needed = (layout.size(z, axis) - 1) * window.strides[i] + window.reach[i] + 1
        ends[axis] = needed - (layout.size(x, axis) + window.begins[i])
        shape[axis] = needed if isinstance(needed, int) else None
    return layout.pad(x, begins, ends, shape)


def _check_window(operation: Operation, live: frozenset[int]) -> None:
    only_first_live(operation, live)
    for value in (operation.inputs[0], operation.outputs[0]):
        assert value is not None
        known_channels(value)
    window = window_of(operation, operation.attributes["kernel_shape"])
    automatic = str(operation.attributes.get("auto_pad", "NOTSET"))
    wide = any(s > k for s, k in zip(window.strides, window.kernel, strict=True))
    if automatic.startswith("SAME") and (wide or any(d > 1 for d in window.dilations)):
        fail(
            f"auto_pad={automatic} with {'strides beyond its window' if wide else 'dilations'} is "
            "padded otherwise by onnxruntime than ONNX says",
            "write its padding out as pads",
        )
    if not operation.attributes.get("ceil_mode", 0):
        _check_fit(operation, window)


def _check_fit(operation: Operation, window: Window) -> None:
    """Check that a window fits: ONNX has no output where none does, onnxruntime has one."""
    value = operation.inputs[0]
    assert value is not None
    assert value.shape is not None
    for size, begin, end, reach in zip(
        dims_of(value.shape)[2:], window.begins, window.ends, window.reach, strict=True
    ):
        if isinstance(size, int) and size + begin + end <= reach:
            fail(
                f"its window spans {reach + 1} elements, but its padded input has "
                f"{size + begin + end}",
                "use a smaller window or a larger picture",
            )


@layer("AveragePool", check=_check_window)
def average_pool(crossing: Crossing) -> tuple[Layer, list[ir.Value]]:
    """Build the layer of an AveragePool."""
    operation, emitter = crossing.operation, crossing.emitter
    x, z = crossing.input(0), crossing.output()
    window = window_of(operation, operation.attributes["kernel_shape"])
    built = WindowMean(x, z, window, float(np.prod(window.kernel)), emitter.zero)
    padded = any(window.begins + window.ends)
    inclusive = bool(crossing.attribute("count_include_pad", 0))
    if crossing.attribute("ceil_mode", 0) or (padded and not inclusive):
        # A window's elements are those that lie in the input, or in its padding if that counts.
        one = layout.expand(emitter.scalar(1.0, x), layout.slice(x, [0, 0], [1, 1], [0, 1]))
        inside = one
        frame = window
        if inclusive and padded:
            amounts = [0, 0, *window.begins], [0, 0, *window.ends]
            shape = [
                d + amounts[0][i] + amounts[1][i] if isinstance(d, int) else None
                for i, d in enumerate(one.shape)
            ]
            inside = layout.pad(one, *amounts, shape, fill=1.0)
            frame = replace(window, begins=(0,) * len(window.begins))
        counter = replace(built, x=inside, z=_first(z), window=frame, divided=False)
        built = replace(built, count=counter(Operands((inside,))))
    return built, crossing.live_inputs


def _first(tensor: Tensor) -> Tensor:
    """Return the first channel of the first sample; it is as large as all others."""
    return layout.slice(tensor, [0, 0], [1, 1], [0, 1])


@operator(
    "MaxPool",
    rules={"winner-takes-all": {}, "proportional": {"stabiliser": 1e-6}},
    check=_check_window,
)
def max_pool(crossing: Crossing) -> Sequence[tuple[ir.Value, Relevance]]:
    """Propagate through MaxPool by one of its two rules."""
    if crossing.rule == "proportional":
        return proportional(crossing)
    return winner_takes_all(crossing)


def proportional(crossing: Crossing) -> Sequence[tuple[ir.Value, Relevance]]:
    """R_i = sum over windows x_i / stab(sum of the window) R, as if the window were summed.

    Equals: no peer; `norm` on the sum over the window.
    Use: non-negative activations, where one winner alone looks arbitrary.
    """
    operation = crossing.operation
    x, y = crossing.input(0), crossing.output()
    window = window_of(operation, operation.attributes["kernel_shape"])
    summed = WindowMean(x, y, window, 1.0, crossing.emitter.zero, divided=False)
    return cross_by_rule(crossing, summed, crossing.live_inputs, "norm")


def winner_takes_all(crossing: Crossing) -> Sequence[tuple[ir.Value, Relevance]]:
    """All of a window's relevance goes to its first maximum, in row-major order.

    That is in the first row that holds the maximum, and there the first: relevance goes to a row,
    then to an element, k + k positions instead of k k. Along an axis, positions are visited in
    order: what is left of the relevance goes to one that holds the maximum, and nothing is left
    for later ones. No index is ever computed: scattering by index is slow, and TensorRT has no
    MaxPool with indices.

    Equals: torch's gradient, which zennit takes. LRP Toolbox splits ties equally.
    Use: by default.
    """
    operation = crossing.operation
    value = operation.inputs[0]
    assert value is not None
    x, y = crossing.either(value), crossing.either(operation.outputs[0])
    rest, grounded = crossing.incoming.tensor, crossing.incoming.grounded
    window = window_of(operation, operation.attributes["kernel_shape"])
    if _sees_all(window, x, y):
        return [(value, Relevance(_to_first(x, rest, 2), grounded))]
    ceil_mode = int(operation.attributes.get("ceil_mode", 0))
    for pooled, place, maxima in reversed(_by_axis(x, window, y, ceil_mode)):
        rest = _to_winners(pooled, window, place, maxima, rest)
    return [(value, Relevance(rest, grounded))]


def _sees_all(window: Window, x: Tensor, y: Tensor) -> bool:
    """Tell whether there is one window, and all of the input is known to lie in it."""
    return all(
        isinstance(size, int) and outputs == dilation == 1 and size <= kernel - begin
        for size, outputs, kernel, dilation, begin in zip(
            x.shape[2:], y.shape[2:], window.kernel, window.dilations, window.begins, strict=True
        )
    )


def _by_axis(
    x: Tensor, window: Window, y: Tensor, ceil_mode: int
) -> list[tuple[Tensor, int, Tensor]]:
    """Pool along one axis after the other, the last first: what is pooled, which, its maxima."""
    steps = []
    for place in reversed(window.moving):
        axis, maxima = window.axes[place], y
        if place != window.moving[0]:
            shape = (*x.shape[:axis], y.shape[axis], *x.shape[axis + 1 :])
            maxima = x.emitter.node(
                "MaxPool",
                x,
                shape=shape,
                dtype=x.dtype,
                sign=x.sign,
                ceil_mode=ceil_mode,
                **window.along(place).attributes(),
            )
        steps.append((x, place, maxima))
        x = maxima
    return steps


def _to_winners(x: Tensor, window: Window, place: int, y: Tensor, rest: Tensor) -> Tensor:
    """Give the first maximum of each window along one axis the relevance of the output.

    Element stride * h + r of x gets the shares of all positions of remainder r, each moved by as
    many outputs as it lies ahead.
    """
    emitter, axis, stride = x.emitter, window.axes[place], window.strides[place]
    offsets = [
        position * window.dilations[place] - window.begins[place]
        for position in range(window.kernel[place])
    ]
    seen = _positions(x, axis, offsets[:-1], stride, y)
    nothing = emitter.scalar(0.0, rest)
    each = portion(layout.size(x, axis), stride)
    shares = [emitter.zero] * stride
    for offset in offsets:
        share = rest
        if offset in seen:
            # Not Equal, of which onnxruntime has no CUDA kernel from opset 19 on.
            loses = emitter.compare("Less", seen[offset], y)
            share = emitter.where(loses, nothing, rest, Sign.UNKNOWN)
            rest = rest - share
        ahead, remainder = divmod(offset, stride)
        shares[remainder] = shares[remainder] + layout.moved(share, axis, ahead, each)
    return layout.moved(weave(shares, axis), axis, 0, layout.size(x, axis))


def _positions(
    x: Tensor, axis: int, offsets: Sequence[int], stride: int, y: Tensor
) -> dict[int, Tensor]:
    """Return element `offset` of every window along an axis, -inf where that is not of x."""
    outputs, least = layout.size(y, axis), float("-inf")
    if stride == 1 or not offsets:
        return {o: layout.moved(x, axis, -o, outputs, least) for o in offsets}
    front = max(0, -offsets[0])
    needed = (outputs - 1) * stride + offsets[-1] + 1 + front
    elements = layout.size(x, axis)
    within = isinstance(needed, int) and isinstance(elements, int) and needed <= elements
    padded = x if within and not front else layout.moved(x, axis, front, needed, least)
    starts = {o: o + front for o in offsets}
    last = (outputs - 1) * stride + 1
    # Along the channels, too: of slices along one axis onnxruntime counts each element at load.
    channels, sizes = layout.size(x, 1), [x.shape[1], y.shape[axis]]
    return {
        o: layout.slice(padded, [0, at], [channels, last + at], [1, axis], [1, stride], sizes)
        for o, at in starts.items()
    }


@operator(
    "GlobalMaxPool",
    "ReduceMax",
    "ReduceMin",
    rules={"winner-takes-all": {}},
    default="winner-takes-all",
    check=_check_mean,
)
def global_max_pool(crossing: Crossing) -> Sequence[tuple[ir.Value, Relevance]]:
    """Give the first extremum over some axes, in row-major order, all relevance."""
    operation, relevance = crossing.operation, crossing.incoming.tensor
    (value,) = crossing.live_inputs
    x, axes = crossing.either(value, operation.operator == "ReduceMin"), _axes(operation)
    order = [*(axis for axis in range(x.rank) if axis not in axes), *axes]
    if relevance.rank == x.rank:
        relevance = layout.transpose(relevance, order)
    moved = layout.transpose(x, order)
    result = _to_first(moved, relevance, x.rank - len(axes))
    back = layout.transpose(result, [int(axis) for axis in np.argsort(order)])
    return [(value, Relevance(back, crossing.incoming.grounded))]


@operator("ReduceProd", check=_check_mean, rules={"gradient": {}}, default="")
def whole_product(crossing: Crossing) -> Sequence[tuple[ir.Value, Relevance]]:
    """R / n for each of n factors: `uniform`, as on a Product; or the others' product times R."""
    built, (value,) = mean(crossing)
    if crossing.rule == "gradient":
        assert isinstance(built, Mean)
        (back,) = replace(built, weight=1.0).adjoint(crossing.incoming.tensor).parts
        return [(value, Relevance(back * _of_others(built.x, built.axes), False))]
    (back,) = built.adjoint(crossing.incoming.tensor).parts
    return [(value, Relevance(back, crossing.incoming.grounded))]


def _of_others(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return for each element the product of all others along some axes."""
    emitter, one, nothing = x.emitter, x.emitter.scalar(1.0, x), x.emitter.scalar(0.0, x)
    # Of two zeros no product without one is left; a single zero has that of all the others.
    size = emitter.elementwise("Abs", x, sign=Sign.NON_NEGATIVE)
    seen = emitter.compare("Less", nothing, size)
    filled = emitter.where(seen, x, one, Sign.UNKNOWN)
    zeros = emitter.where(seen, nothing, one, Sign.NON_NEGATIVE)
    shape = [1 if axis in axes else length for axis, length in enumerate(x.shape)]
    along = emitter.vector(list(axes))
    total = emitter.node("ReduceProd", filled, along, shape=shape, dtype=x.dtype, keepdims=1)
    others = layout.reduce_sum(zeros, axes) - zeros
    none = emitter.compare("Less", others, emitter.scalar(0.5, others))
    return emitter.where(none, total / filled, nothing, Sign.UNKNOWN)


def _to_first(x: Tensor, relevance: Tensor, kept: int) -> Tensor:
    """Give the first maximum over all axes but the first `kept`, in row-major order, all."""
    emitter, int64, front = x.emitter, ir.DataType.INT64, x.shape[:kept]
    # 0 copies a size, known or not.
    rows, column = ([0] * kept + [size] for size in (-1, 1))
    flat = emitter.node("Reshape", x, emitter.vector(rows), shape=(*front, None), dtype=x.dtype)
    winner = emitter.node("ArgMax", flat, shape=(*front, 1), dtype=int64, axis=-1, keepdims=1)
    count = emitter.node("Squeeze", emitter.vector([layout.size(flat, -1)]), shape=(), dtype=int64)
    first, step = (emitter.constant(np.array(number, np.int64)) for number in (0, 1))
    numbers = emitter.node("Range", first, count, step, shape=(None,), dtype=int64)
    share = emitter.node(
        "Reshape", relevance, emitter.vector(column), shape=(*front, 1), dtype=relevance.dtype
    )
    nothing = emitter.scalar(0.0, share)
    # Neither before the winner nor behind it: of Equal there is no CUDA kernel from opset 19 on.
    for loses in (
        emitter.compare("Less", *pair) for pair in ((numbers, winner), (winner, numbers))
    ):
        share = emitter.where(loses, nothing, share, Sign.UNKNOWN)
    return layout.reshape(share, x.shape, like=x)
