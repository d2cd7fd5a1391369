"""Col2Im: blocks put back into the picture that they are of, added up where they overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxlrp.graph.canonical import Array, Operation, constant_of
from onnxlrp.graph.shapes import Dim
from onnxlrp.propagation import layout
from onnxlrp.propagation.axes import AlongAxes
from onnxlrp.propagation.expression import Operands, Sign, Tensor
from onnxlrp.propagation.formulas import Layer
from onnxlrp.propagation.registry import (
    Crossing,
    known_channels,
    layer,
    only_first_live,
    require_constant,
)


@dataclass(frozen=True)
class Blocks(AlongAxes):
    """z = the sum of blocks, each at its place: a matrix along each axis of the picture.

    Attributes
    ----------
    block : sizes of a block, one for each axis of the picture
    places : how many blocks lie along each

    """

    block: tuple[int, ...]
    places: tuple[int, ...]

    def forward(self, x: Operands) -> Tensor:
        return super().forward(x.map(self._in_rows))

    def transpose(self, s: Tensor) -> Operands:
        return super().transpose(s).map(self._in_columns)

    @property
    def _parted(self) -> tuple[Dim, ...]:
        """Sizes of x with an axis for each of block and places."""
        channels = self.z.shape[1]
        return (self.x.shape[0], channels, *self.block, *self.places)

    @property
    def _woven(self) -> list[int]:
        """Axes of that in the order of the picture's: block and places of each side by side."""
        rank = len(self.block)
        return [0, 1, *(2 + i + part for i in range(rank) for part in (0, rank))]

    def _in_rows(self, x: Tensor) -> Tensor:
        """Give x the axes of the picture: [N, channels, block * places, ...]."""
        parted = layout.transpose(layout.reshape(x, (x.shape[0], *self._parted[1:])), self._woven)
        rows = [b * p for b, p in zip(self.block, self.places, strict=True)]
        return layout.reshape(parted, (*parted.shape[:2], *rows))

    def _in_columns(self, x: Tensor) -> Tensor:
        """Undo that."""
        if x.is_zero:
            return x
        pairs = [n for pair in zip(self.block, self.places, strict=True) for n in pair]
        back = [int(axis) for axis in np.argsort(self._woven)]
        parted = layout.transpose(layout.reshape(x, (*x.shape[:2], *pairs)), back)
        return layout.reshape(parted, (x.shape[0], *self.x.shape[1:]))


def _check(operation: Operation, live: frozenset[int]) -> None:
    only_first_live(operation, live)
    for index, what in ((1, "size of the picture"), (2, "size of its blocks")):
        require_constant(operation, index, what)
    for value in (operation.inputs[0], operation.outputs[0]):
        assert value is not None
        known_channels(value)


@layer("Col2Im", check=_check, default="norm")
def overlapping(crossing: Crossing) -> tuple[Layer, list[ir.Value]]:
    """Build the sum of blocks where they overlap; what lies in the padding is dropped."""
    operation, x, z = crossing.operation, crossing.input(0), crossing.output()
    picture, block = (
        [int(n) for n in constant.reshape(-1)]
        for constant in map(constant_of, operation.inputs[1:3])
        if constant is not None
    )
    rank = len(picture)
    pads = operation.attributes.get("pads") or [0] * (2 * rank)
    strides, dilations = (
        operation.attributes.get(name) or [1] * rank for name in ("strides", "dilations")
    )
    places, matrices = [], []
    for i, (size, length) in enumerate(zip(picture, block, strict=True)):
        extent = dilations[i] * (length - 1) + 1
        count = (size + pads[i] + pads[i + rank] - extent) // strides[i] + 1
        at = np.arange(length)[:, None] * dilations[i] + np.arange(count) * strides[i] - pads[i]
        matrix: Array = (at.reshape(-1, 1) == np.arange(size)).astype(x.dtype.numpy())
        places.append(count)
        matrices.append((i + 2, crossing.emitter.constant(matrix, Sign.NON_NEGATIVE)))
    built = Blocks(
        x, z, ((1.0, tuple(matrices)),), crossing.emitter.zero, tuple(block), tuple(places)
    )
    return built, crossing.live_inputs
