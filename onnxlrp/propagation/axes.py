"""Operators that are a matrix along each axis: Resize, Pad that repeats elements, CumSum.

Nobody here knows the matrices. Each is what the operator itself makes of an identity matrix, so it
is the one that the runtime computes with, whatever the mode, and whether sizes are numbers or
symbols; runtimes compute it once, when they load the explainer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import onnx_ir as ir

from onnxlrp.graph.canonical import Operation, constant_of
from onnxlrp.graph.shapes import dims_of
from onnxlrp.propagation import layout
from onnxlrp.propagation.expression import Operands, Sign, Tensor, negative, positive
from onnxlrp.propagation.formulas import Layer
from onnxlrp.propagation.registry import (
    Crossing,
    fail,
    layer,
    only_first_live,
    require_constant,
    static_shape,
)

_LEAST = 1e-5
"""A weight of an interpolation below this is 0, rounded."""

Matrices = tuple[tuple[int, Tensor], ...]


@dataclass(frozen=True)
class AlongAxes(Layer):
    """z = sum of terms, each a number times x times a matrix along each of some axes.

    Attributes
    ----------
    x, z : the operator's input and output in the model, for their shapes
    terms : numbers, and by axis matrices [in, out]; the operator itself is one term

    """

    x: Tensor
    z: Tensor
    terms: tuple[tuple[float, Matrices], ...]
    bias: Tensor

    def forward(self, x: Operands) -> Tensor:
        total = self.bias
        for factor, matrices in self.terms:
            part = x.parts[0]
            for axis, matrix in matrices:
                part = along(part, axis, matrix)
            total = total + part * factor
        return total

    def transpose(self, s: Tensor) -> Operands:
        total = self.bias
        for factor, matrices in self.terms:
            part = s
            for axis, matrix in matrices:
                part = along(part, axis, layout.transpose(matrix, [1, 0]))
            total = total + part * factor
        return Operands((total,))

    def by_sign(self, plus: float, minus: float) -> Layer:
        """A product of weights is positive where an even number of them is negative."""
        ((factor, matrices),) = self.terms
        parts = [
            [(sign, (axis, part)) for sign, part in halves if not part.is_zero]
            for axis, matrix in matrices
            for halves in [((1, positive(matrix)), (-1, negative(matrix)))]
        ]
        terms = []
        for chosen in product(*parts):
            sign = factor * np.prod([sign for sign, _ in chosen])
            weight = factor * (plus if sign > 0 else minus)
            if weight:
                terms.append((weight, tuple(part for _, part in chosen)))
        return replace(self, terms=tuple(terms))

    def _with_matrices(self, function: Callable[[Tensor], Tensor]) -> AlongAxes:
        ((_, matrices),) = self.terms
        return replace(self, terms=((1.0, tuple((a, function(m)) for a, m in matrices)),))

    @property
    def ones(self) -> Layer:
        return self._with_matrices(_connected)

    def power(self, exponent: int) -> Layer:
        return self._with_matrices(lambda matrix: matrix**exponent)


def _connected(matrix: Tensor) -> Tensor:
    emitter = matrix.emitter
    size = matrix
    if matrix.sign is not Sign.NON_NEGATIVE:
        size = emitter.elementwise("Abs", matrix, sign=Sign.NON_NEGATIVE)
    seen = emitter.compare("Less", emitter.scalar(_LEAST, size), size)
    one, nothing = emitter.scalar(1.0, size), emitter.scalar(0.0, size)
    return emitter.where(seen, one, nothing, Sign.NON_NEGATIVE)


def along(x: Tensor, axis: int, matrix: Tensor) -> Tensor:
    """Multiply each row along an axis by a matrix [in, out]."""
    if x.is_zero or matrix.is_zero:
        return x.emitter.zero
    axis %= x.rank
    shape = [*x.shape[:axis], matrix.shape[1], *x.shape[axis + 1 :]]
    operands = (x, matrix)
    if axis == x.rank - 2:
        operands = (layout.transpose(matrix, [1, 0]), x)
    elif axis < x.rank - 2:
        # Neither of the last two: its place and the last one's are exchanged.
        order = list(range(x.rank))
        order[axis], order[-1] = order[-1], order[axis]
        return layout.transpose(along(layout.transpose(x, order), -1, matrix), order)
    sign = x.sign * matrix.sign
    return x.emitter.node("MatMul", *operands, shape=shape, dtype=x.dtype, sign=sign)


def identity(size: int | Tensor, like: Tensor) -> Tensor:
    """Return the identity matrix of a size, float32."""
    emitter = like.emitter
    row = layout.cast(layout.count(emitter, size), ir.DataType.FLOAT, Sign.NON_NEGATIVE)
    return selection(row, row)


def selection(chosen: Tensor, places: Tensor) -> Tensor:
    """Tell which of two vectors of whole numbers, of a real type, are alike: [chosen, places]."""
    emitter = chosen.emitter
    distance = emitter.elementwise(
        "Abs", places - layout.unsqueeze(chosen, [1]), sign=Sign.NON_NEGATIVE
    )
    # Not by Equal: onnxruntime has no CUDA kernel of that from opset 19 on.
    same = emitter.compare("Less", distance, emitter.scalar(0.5, distance))
    one, nothing = emitter.scalar(1.0, distance), emitter.scalar(0.0, distance)
    return emitter.where(same, one, nothing, Sign.NON_NEGATIVE)


# --- Resize --------------------------------------------------------------------------------------


def _resized_axes(operation: Operation) -> list[int]:
    """Axes whose size, or whose cut, changes; never that of the batch."""
    value, result = operation.inputs[0], operation.outputs[0]
    assert value is not None
    assert value.shape is not None
    assert result.shape is not None
    before, after = dims_of(value.shape), dims_of(result.shape)
    given = operation.attributes.get("axes") or range(len(before))
    scales = constant_of(operation.input(2))
    cropped = crops(operation)
    axes = []
    for place, axis in enumerate(axis % len(before) for axis in given):
        same = before[axis] is not None and before[axis] == after[axis]
        if scales is not None and scales.size:
            same = scales[place] == 1
        if not (axis == 0 or (same and not cropped)):
            axes.append(axis)
    return axes


def _check_resize(operation: Operation, live: frozenset[int]) -> None:
    only_first_live(operation, live)
    for value in (operation.inputs[0], operation.outputs[0]):
        assert value is not None
        static_shape(value)
    policy = operation.attributes.get("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        fail(f"it resizes by the policy '{policy}'", "export it with the resulting sizes")
    if operation.attributes.get("extrapolation_value", 0.0):
        fail(
            "it fills what lies outside with a number other than 0", "let extrapolation_value be 0"
        )
    scales, axes = constant_of(operation.input(2)), operation.attributes.get("axes")
    if scales is not None and scales.size and (axes is None or 0 in axes) and scales[0] != 1:
        fail("it resizes the batch", "remove it from the model")


@layer("Resize", check=_check_resize, default="norm")
def resize(crossing: Crossing) -> tuple[Layer, list[ir.Value]]:
    """Build an interpolation, of any mode, along each axis that it resizes."""
    x, z = crossing.input(0), crossing.output()
    matrices = tuple(
        (axis, _interpolation(crossing, axis)) for axis in _resized_axes(crossing.operation)
    )
    return AlongAxes(x, z, ((1.0, matrices),), crossing.emitter.zero), crossing.live_inputs


def _interpolation(crossing: Crossing, axis: int) -> Tensor:
    """Return the matrix of a Resize along an axis."""
    operation, emitter = crossing.operation, crossing.emitter
    x, z = crossing.input(0), crossing.output()
    axes = [a % x.rank for a in operation.attributes.get("axes") or range(x.rank)]
    at, count = axes.index(axis), len(axes)
    attributes = {k: v for k, v in operation.attributes.items() if k != "axes"}
    attributes.pop("keep_aspect_ratio_policy", None)

    def cut(index: int, places: Sequence[int], front: Sequence[float]) -> Tensor | None:
        """Put some numbers of a list for all axes behind those for the identity's rows."""
        value = operation.input(index)
        known = constant_of(value)
        # An empty list is as good as none.
        if value is None or (known is not None and not known.size):
            return None
        if known is not None:
            whole = [n for f, p in zip(front, places, strict=True) for n in (f, known[p])]
            return emitter.constant(np.array(whole, known.dtype))
        given = Tensor(emitter, value)
        dtype = given.dtype.numpy()
        parts = [
            part
            for f, p in zip(front, places, strict=True)
            for part in (
                emitter.constant(np.array([f], dtype)),
                layout.slice(given, [p], [p + 1], [0]),
            )
        ]
        return emitter.concat(parts, 0, (2 * len(places),))

    region = cut(1, [at, at + count], [0, 1]) if crops(operation) else None
    scales = cut(2, [at], [1])
    sizes = None
    if scales is None:
        sizes = emitter.vector([layout.size(x, axis), layout.size(z, axis)])
    rows = identity(layout.size(x, axis), x)
    sign = Sign.UNKNOWN if attributes.get("mode") == "cubic" else Sign.NON_NEGATIVE
    inputs = (rows, region, scales) if sizes is None else (rows, region, None, sizes)
    matrix = emitter.node(
        "Resize", *inputs, shape=(x.shape[axis], z.shape[axis]), dtype=rows.dtype,
        sign=sign, **attributes,
    )  # fmt: skip
    return _as(matrix, x)


def crops(operation: Operation) -> bool:
    """Tell whether a Resize reads the region that it is given."""
    mode = operation.attributes.get("coordinate_transformation_mode", "half_pixel")
    return bool(mode == "tf_crop_and_resize")


def _as(matrix: Tensor, x: Tensor) -> Tensor:
    return matrix if matrix.dtype == x.dtype else layout.cast(matrix, x.dtype, matrix.sign)


# --- Pad and CumSum ------------------------------------------------------------------------------


def unpadded(crossing: Crossing, relevance: Tensor) -> Tensor:
    """Add up the relevance of what a Pad of mode edge, reflect or wrap repeats."""
    x = crossing.input(0)
    for axis, amounts in _repeating(crossing):
        size = x.shape[axis]
        padded = (size, crossing.output().shape[axis])
        rows = identity(layout.size(x, axis), x)
        matrix = crossing.emitter.node(
            "Pad", rows, amounts, shape=padded, dtype=rows.dtype, sign=rows.sign,
            mode=crossing.operation.attributes["mode"],
        )  # fmt: skip
        relevance = along(relevance, axis, layout.transpose(_as(matrix, x), [1, 0]))
    return relevance


def _repeating(crossing: Crossing) -> Iterator[tuple[int, Tensor]]:
    """Yield the axes that a Pad changes, each with what it adds along the second of two."""
    x, emitter = crossing.input(0), crossing.emitter
    given, axes = constant_of(crossing.operation.input(1)), constant_of(crossing.operation.input(3))
    chosen = list(range(x.rank)) if axes is None else [int(axis) % x.rank for axis in axes]
    for place, axis in enumerate(chosen):
        if given is not None:
            begin, end = int(given[place]), int(given[place + len(chosen)])
            if begin or end:
                yield axis, emitter.vector([0, begin, 0, end])
        elif axis > 0 and (x.shape[axis] is None or x.shape[axis] != crossing.output().shape[axis]):
            amounts = crossing.input(1)
            begin_, end_ = (
                layout.slice(amounts, [at], [at + 1], [0]) for at in (place, place + len(chosen))
            )
            yield axis, emitter.vector([0, begin_, 0, end_])


def _check_running_sum(operation: Operation, live: frozenset[int]) -> None:
    only_first_live(operation, live)
    value = operation.inputs[0]
    assert value is not None
    static_shape(value)
    require_constant(operation, 1, "axis")
    if _summed_axis(operation) == 0:
        fail("it mixes the samples of a batch", "remove it from the model")


def _summed_axis(operation: Operation) -> int:
    value, axis = operation.inputs[0], constant_of(operation.input(1))
    assert axis is not None
    assert value is not None
    assert value.shape is not None
    return int(axis.reshape(())) % len(value.shape)


@layer("CumSum", check=_check_running_sum, default="norm")
def running_sum(crossing: Crossing) -> tuple[Layer, list[ir.Value]]:
    """Build a running sum along an axis: a triangle of ones."""
    x, emitter = crossing.input(0), crossing.emitter
    axis = _summed_axis(crossing.operation)
    rows = identity(layout.size(x, axis), x)
    size = x.shape[axis]
    matrix = emitter.node(
        "CumSum", rows, emitter.constant(np.array(1, np.int64)), shape=(size, size),
        dtype=rows.dtype, sign=rows.sign, **crossing.operation.attributes,
    )  # fmt: skip
    matrices = ((axis, _as(matrix, x)),)
    return AlongAxes(x, crossing.output(), ((1.0, matrices),), emitter.zero), crossing.live_inputs
