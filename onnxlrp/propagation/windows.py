"""Sliding windows: the geometry that convolutions and poolings share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any

from onnxlrp.graph.canonical import Operation
from onnxlrp.graph.shapes import Dim, dims_of
from onnxlrp.propagation import layout
from onnxlrp.propagation.expression import Tensor
from onnxlrp.propagation.registry import ObstacleError

_STRIDE = 4096


@dataclass(frozen=True)
class Taps:
    """The positions of a window through which outputs see elements of one remainder.

    Attributes
    ----------
    positions : of the window
    ahead : element stride * h + remainder lies at the first of them in output h - ahead
    step : by which `ahead` grows from one to the next

    """

    positions: range
    ahead: int
    step: int

    @property
    def reach(self) -> int:
        """Distance between the first and the last output that see the same element."""
        return self.step * (len(self.positions) - 1)

    @property
    def furthest(self) -> int:
        """What `ahead` is of the last position."""
        return self.ahead + self.reach


@dataclass(frozen=True)
class Window:
    """Geometry of a sliding window over the spatial axes.

    Attributes
    ----------
    kernel, strides, dilations : one int per spatial axis
    begins, ends : padding before and after each spatial axis, explicit whatever `auto_pad` said

    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]

    @property
    def axes(self) -> range:
        """The spatial axes of a tensor."""
        return range(2, 2 + len(self.kernel))

    @property
    def reach(self) -> tuple[int, ...]:
        """Distance between the first and the last position of a window, per axis."""
        return tuple(d * (k - 1) for d, k in zip(self.dilations, self.kernel, strict=True))

    @property
    def dense(self) -> bool:
        """Whether the window moves by one position at a time."""
        return all(stride == 1 for stride in self.strides)

    def taps(self, place: int, remainder: int) -> Taps | None:
        """Return how outputs see the elements of a remainder by the stride along one axis."""
        stride, dilation, begin = (v[place] for v in (self.strides, self.dilations, self.begins))
        for first in range(self.kernel[place]):
            ahead, rest = divmod(first * dilation - begin, stride)
            if rest == remainder:
                every = stride // gcd(stride, dilation)
                positions = range(first, self.kernel[place], every)
                return Taps(positions, ahead, every * dilation // stride)
        return None

    @property
    def moving(self) -> list[int]:
        """Places of the spatial axes along which an output is more than the element it lies at."""
        return [place for place in range(len(self.kernel)) if self.along(place) != self.along(-1)]

    def along(self, place: int) -> Window:
        """Return the same along one spatial axis (-1: none), and single elements along others."""

        def only(values: tuple[int, ...], other: int) -> tuple[int, ...]:
            return tuple(v if i == place else other for i, v in enumerate(values))

        return Window(
            only(self.kernel, 1),
            only(self.strides, 1),
            only(self.dilations, 1),
            only(self.begins, 0),
            only(self.ends, 0),
        )

    def attributes(self) -> dict[str, Any]:
        """Return the ONNX attributes, without `auto_pad`."""
        return {
            "kernel_shape": list(self.kernel),
            "strides": list(self.strides),
            "dilations": list(self.dilations),
            "pads": [*self.begins, *self.ends],
        }


def window_of(operation: Operation, kernel: Sequence[int]) -> Window:
    """Read the geometry of a Conv or pooling.

    Raises
    ------
    ObstacleError
        If `auto_pad` makes the padding depend on a size that is not known, or a stride is so large
        that what lies between its steps cannot be written out.

    """
    attributes = operation.attributes
    rank = len(kernel)
    strides = tuple(attributes.get("strides") or (1,) * rank)
    if max(strides, default=1) > _STRIDE:
        raise ObstacleError(
            f"it moves by {max(strides)} at a time, and {_STRIDE} is the most",
            "cut the input down to what is looked at",
        )
    dilations = tuple(attributes.get("dilations") or (1,) * rank)
    pads = tuple(attributes.get("pads") or (0,) * (2 * rank))
    automatic = str(attributes.get("auto_pad", "NOTSET"))
    if automatic.startswith("SAME"):
        value = operation.inputs[0]
        assert value is not None
        assert value.shape is not None
        sizes = dims_of(value.shape)[2:]
        pads = _same(automatic, sizes, tuple(kernel), strides, dilations)
    elif automatic == "VALID":
        pads = (0,) * (2 * rank)
    return Window(tuple(kernel), strides, dilations, pads[:rank], pads[rank:])


def _same(
    automatic: str,
    sizes: Sequence[Dim],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> tuple[int, ...]:
    begins, ends = [], []
    for size, k, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        reach = dilation * (k - 1)
        if stride == 1:
            total = reach
        elif isinstance(size, int):
            total = max((-(-size // stride) - 1) * stride + reach + 1 - size, 0)
        else:
            raise ObstacleError(
                f"auto_pad={automatic} with a stride pads by the size of its input, "
                "which is symbolic",
                "export the model with a fixed image size or explicit pads",
            )
        less = total // 2
        begins.append(less if automatic == "SAME_UPPER" else total - less)
        ends.append(total - begins[-1])
    return (*begins, *ends)


def portion(size: int | Tensor, stride: int) -> int | Tensor:
    """Return how many elements there are at most of one remainder by the stride."""
    return -(-size // stride) if isinstance(size, int) else (size + (stride - 1)) / stride


def interleave(tensors: Mapping[tuple[int, ...], Tensor], window: Window) -> Tensor:
    """Weave one tensor for every remainder by the strides into one of stride times the size.

    `tensors[(a, b)]` [N, C, H, W] goes to positions (s h + a, s w + b) of [N, C, s H, s W]; some
    may be zero.
    """
    woven = dict(tensors)
    for axis in reversed(window.axes):
        groups: dict[tuple[int, ...], list[Tensor]] = {}
        for key in sorted(woven):
            groups.setdefault(key[:-1], []).append(woven[key])
        woven = {key: weave(parts, axis) for key, parts in groups.items()}
    return woven[()]


def weave(parts: Sequence[Tensor], axis: int) -> Tensor:
    """Interleave tensors along an axis: position i of part k goes to i * len(parts) + k."""
    some = next((part for part in parts if not part.is_zero), parts[0])
    if len(parts) == 1 or some.is_zero:
        return some
    # Not by a Pad, which is slow where it sets single elements apart.
    lifted = [layout.unsqueeze(some - some if p.is_zero else p, [axis + 1]) for p in parts]
    shape = (*some.shape[: axis + 1], len(parts), *some.shape[axis + 1 :])
    stacked = some.emitter.concat(lifted, axis + 1, shape)
    return layout.join(stacked, axis)
