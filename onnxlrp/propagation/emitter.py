"""Writes the nodes that expressions ask for, each distinct one once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxlrp.graph.shapes import Dim, broadcast
from onnxlrp.propagation.expression import Sign, Tensor


class Emitter:
    """Writes the nodes of one explainer, each distinct expression once.

    Attributes
    ----------
    nodes : what has been written, in topological order
    initializers : constants that the nodes need
    zero : the tensor that is known to be zero, of any shape

    """

    def __init__(self) -> None:
        self.nodes: list[ir.Node] = []
        self.initializers: list[ir.Value] = []
        self.zero = Tensor(self, None, Sign.ZERO)
        self._written: dict[Any, tuple[ir.Value, ...]] = {}
        self._constants: dict[Any, ir.Value] = {}
        self._label: tuple[str, str] = ("", "")
        self._metadata: Mapping[str, str] = {}

    def explain(self, node: str, rule: str, metadata: Mapping[str, str]) -> None:
        """Say which node, by which rule, the nodes written from now on explain."""
        self._label = (node, rule)
        self._metadata = metadata

    def known(self, node: ir.Node) -> None:
        """Announce a node of the model, so that what it computes is not computed again."""
        attributes = {name: a.value for name, a in node.attributes.items()}
        self._written.setdefault(_key(node.op_type, node.inputs, attributes), tuple(node.outputs))

    def same(self, tensor: Tensor, value: ir.Value) -> None:
        """Announce that the model's `value` already holds what `tensor` would compute."""
        node = tensor.value.producer() if tensor.value is not None else None
        if node is not None and "key" in node.meta and value.dtype == tensor.dtype:
            self._written[node.meta["key"]] = (value,)

    def tensor(self, value: ir.Value, sign: Sign = Sign.UNKNOWN) -> Tensor:
        """Take a value of the model; float16 and bfloat16 are computed with in float32."""
        tensor = Tensor(self, value, sign)
        if tensor.dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.INT64):
            return tensor
        return self.cast(tensor, ir.DataType.FLOAT, sign)

    def cast(self, tensor: Tensor, dtype: ir.DataType, sign: Sign) -> Tensor:
        """Convert to another type."""
        return self.node("Cast", tensor, shape=tensor.shape, dtype=dtype, sign=sign, to=dtype.value)

    def constant(
        self, array: np.ndarray[Any, Any], sign: Sign = Sign.UNKNOWN, use: str = ""
    ) -> Tensor:
        """Write an initializer; equal arrays of the same use share one."""
        key = (use, array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"onnxlrp/constant/{len(self._constants)}"
            data = ir.tensor(array, name=name)
            self._constants[key] = ir.Value(
                name=name,
                const_value=data,
                shape=ir.Shape(array.shape),
                type=ir.TensorType(data.dtype),
            )
            self.initializers.append(self._constants[key])
        return Tensor(self, self._constants[key], sign)

    def duplicate(self, value: ir.Value) -> ir.Value:
        """Write an initializer of the model a second time, under another name."""
        key = id(value)
        if key not in self._constants:
            copy = ir.Value(
                name=f"onnxlrp/transposed/{value.name}",
                const_value=value.const_value,
                shape=value.shape,
                type=value.type,
            )
            self._constants[key] = copy
            self.initializers.append(copy)
        return self._constants[key]

    def scalar(self, number: float, like: Tensor) -> Tensor:
        """Write a scalar of another tensor's type; a size stays a vector of one element."""
        integer = like.dtype is ir.DataType.INT64
        array = np.array([number] if integer else number, like.dtype.numpy())
        sign = Sign.NON_NEGATIVE if number >= 0 else Sign.NON_POSITIVE
        return self.constant(array, sign)

    def vector(self, sizes: Sequence[int | Tensor]) -> Tensor:
        """Join sizes into an int64 vector: a constant where all of them are known."""
        if all(isinstance(size, int) for size in sizes):
            return self.constant(np.array(sizes, np.int64))
        parts = [
            self.constant(np.array([size], np.int64)) if isinstance(size, int) else size
            for size in sizes
        ]
        if len(parts) == 1:
            return parts[0]
        return self.node("Concat", *parts, shape=(len(parts),), dtype=ir.DataType.INT64, axis=0)

    def node(
        self,
        op: str,
        *inputs: Tensor | None,
        shape: Sequence[Dim],
        dtype: ir.DataType,
        sign: Sign = Sign.UNKNOWN,
        **attributes: Any,
    ) -> Tensor:
        """Write one node with one output of the given shape and type."""
        return self.nodes_of(op, inputs, [shape], dtype, sign, attributes)[0]

    def nodes_of(
        self,
        op: str,
        inputs: Sequence[Tensor | None],
        shapes: Sequence[Sequence[Dim]],
        dtype: ir.DataType,
        sign: Sign,
        attributes: Mapping[str, Any],
    ) -> list[Tensor]:
        """Write one node with several outputs of one type."""
        values = [None if tensor is None else tensor.value for tensor in inputs]
        key = _key(op, values, attributes)
        if key not in self._written:
            outputs = [
                ir.Value(shape=ir.Shape(list(shape)), type=ir.TensorType(dtype)) for shape in shapes
            ]
            node = ir.node(op, values, dict(attributes), outputs=outputs)
            node.metadata_props.update(self._metadata)
            node.meta["label"] = self._label
            node.meta["key"] = key
            self.nodes.append(node)
            self._written[key] = tuple(outputs)
        return [Tensor(self, value, sign) for value in self._written[key]]

    def elementwise(self, op: str, *inputs: Tensor, sign: Sign = Sign.UNKNOWN) -> Tensor:
        """Write an elementwise node of the inputs' common type, with broadcasting."""
        shape = broadcast(*(tensor.shape for tensor in inputs))
        return self.node(op, *inputs, shape=shape, dtype=inputs[0].dtype, sign=sign)

    def where(self, condition: Tensor, yes: Tensor, no: Tensor, sign: Sign) -> Tensor:
        """Write an elementwise choice."""
        shape = broadcast(condition.shape, yes.shape, no.shape)
        return self.node("Where", condition, yes, no, shape=shape, dtype=yes.dtype, sign=sign)

    def compare(self, op: str, left: Tensor, right: Tensor) -> Tensor:
        """Write an elementwise comparison."""
        shape = broadcast(left.shape, right.shape)
        return self.node(op, left, right, shape=shape, dtype=ir.DataType.BOOL)

    def sizes(self, tensor: Tensor) -> Tensor:
        """Shape of a tensor as an int64 vector: a constant where all of it is known."""
        if all(isinstance(size, int) for size in tensor.shape):
            return self.constant(np.array(tensor.shape, np.int64))
        return self.node("Shape", tensor, shape=(tensor.rank,), dtype=ir.DataType.INT64)

    def reshape(self, tensor: Tensor, shape: Sequence[Dim], like: Tensor | None = None) -> Tensor:
        """Reshape to a shape with at most one unknown size, or to that of `like`."""
        if tensor.is_zero or tensor.shape == tuple(shape):
            return tensor
        unknown = [axis for axis, size in enumerate(shape) if not isinstance(size, int)]
        if len(unknown) <= 1:
            target = self.vector([size if isinstance(size, int) else -1 for size in shape])
        else:
            assert like is not None, "two sizes are unknown"
            target = self.sizes(like)
        return self.node(
            "Reshape", tensor, target, shape=shape, dtype=tensor.dtype, sign=tensor.sign
        )

    def unsqueeze(self, tensor: Tensor, axes: Sequence[int]) -> Tensor:
        """Insert axes of size 1; they are counted in the result, in increasing order."""
        shape = list(tensor.shape)
        for axis in axes:
            shape.insert(axis, 1)
        return self.node(
            "Unsqueeze",
            tensor,
            self.vector(axes),
            shape=shape,
            dtype=tensor.dtype,
            sign=tensor.sign,
        )

    def split(self, tensor: Tensor, axis: int, parts: int) -> Tensor:
        """Make of one axis of known size two, the first of `parts`; all other sizes stay."""
        shape = tensor.shape
        size = shape[axis]
        assert isinstance(size, int)
        result = (*shape[:axis], parts, size // parts, *shape[axis + 1 :])
        return self._resized(tensor, result, axis, [parts, size // parts])

    def join(self, tensor: Tensor, axis: int) -> Tensor:
        """Make one axis of an axis and the next; all other sizes stay, known or not."""
        shape = tensor.shape
        pair = shape[axis], shape[axis + 1]
        size = pair[0] * pair[1] if isinstance(pair[0], int) and isinstance(pair[1], int) else None
        return self._resized(tensor, (*shape[:axis], size, *shape[axis + 2 :]), axis, [-1])

    def _resized(
        self, tensor: Tensor, shape: Sequence[Dim], axis: int, middle: Sequence[int]
    ) -> Tensor:
        """Reshape what lies at `axis` into `middle`; all other sizes stay, known or not."""
        count = len(shape) - axis - len(middle)
        # 0 copies a size in front; behind, the places have moved.
        front = [d if isinstance(d, int) else 0 for d in shape[:axis]]
        behind = [
            d if isinstance(d, int) else tensor.size(tensor.rank - count + i)
            for i, d in enumerate(shape[len(shape) - count :])
        ]
        target = self.vector([*front, *middle, *behind])
        return self.node(
            "Reshape", tensor, target, shape=shape, dtype=tensor.dtype, sign=tensor.sign
        )

    def expand(self, tensor: Tensor, like: Tensor) -> Tensor:
        """Repeat along axes of size 1 up to the shape of `like`."""
        if tensor.is_zero or tensor.shape == like.shape:
            return tensor
        return self.node(
            "Expand",
            tensor,
            self.sizes(like),
            shape=like.shape,
            dtype=tensor.dtype,
            sign=tensor.sign,
        )

    def filled(self, like: Tensor, value: float | Sequence[float]) -> Tensor:
        """One sample of the shape of `like` that holds a number, or one per channel, throughout.

        It is a constant wherever the sizes of a sample are known. Channels are axis 1, or the
        last of a matrix.
        """
        array = np.asarray(value, like.dtype.numpy())
        if array.ndim:
            array = array.reshape(-1, *(1,) * (like.rank - 2))
        low = bool((array >= 0).all())
        constant = self.constant(array, Sign.NON_NEGATIVE if low else Sign.UNKNOWN)
        shape = (1, *like.shape[1:])
        if all(isinstance(size, int) for size in shape):
            target = self.vector([size for size in shape if isinstance(size, int)])
        else:
            target = self.sizes(self.slice(like, [0], [1], [0]))
        return self.node(
            "Expand", constant, target, shape=shape, dtype=like.dtype, sign=constant.sign
        )

    def slice(
        self,
        tensor: Tensor,
        starts: Sequence[int | Tensor],
        ends: Sequence[int | Tensor],
        axes: Sequence[int],
        steps: Sequence[int] | None = None,
        sizes: Sequence[Dim] | None = None,
    ) -> Tensor:
        """Cut along some axes; `sizes` are the resulting ones (computed for known bounds)."""
        shape = list(tensor.shape)
        for position, axis in enumerate(axes):
            start, end = starts[position], ends[position]
            step = 1 if steps is None else steps[position]
            if sizes is not None:
                shape[axis] = sizes[position]
                continue
            known, shape[axis] = shape[axis], None
            if isinstance(start, int) and isinstance(end, int) and isinstance(known, int):
                shape[axis] = len(range(*slice(start, end, step).indices(known)))
        operands = [self.vector(starts), self.vector(ends), self.vector(axes)]
        if steps is not None:
            operands.append(self.vector(steps))
        return self.node(
            "Slice", tensor, *operands, shape=shape, dtype=tensor.dtype, sign=tensor.sign
        )

    def pad(
        self,
        tensor: Tensor,
        begins: Sequence[int | Tensor],
        ends: Sequence[int | Tensor],
        shape: Sequence[Dim],
        fill: float = 0.0,
    ) -> Tensor:
        """Pad every axis (negative: cut) to the given shape."""
        if tensor.is_zero or all(isinstance(p, int) and p == 0 for p in [*begins, *ends]):
            return tensor
        sign = tensor.sign if fill == 0 else Sign.UNKNOWN
        operands = [self.vector([*begins, *ends])]
        if fill:
            operands.append(self.scalar(fill, tensor))
        return self.node(
            "Pad", tensor, *operands, shape=shape, dtype=tensor.dtype, sign=sign, mode="constant"
        )

    def transpose(self, tensor: Tensor, order: Sequence[int]) -> Tensor:
        """Permute the axes."""
        if tensor.is_zero or list(order) == list(range(len(order))):
            return tensor
        shape = [tensor.shape[axis] for axis in order]
        return self.node(
            "Transpose",
            tensor,
            shape=shape,
            dtype=tensor.dtype,
            sign=tensor.sign,
            perm=list(order),
        )

    def reduce_sum(self, tensor: Tensor, axes: Sequence[int], keepdims: bool = True) -> Tensor:
        """Sum over axes."""
        if tensor.is_zero or not axes:
            return tensor
        chosen = {axis % tensor.rank for axis in axes}
        shape = [1 if i in chosen else d for i, d in enumerate(tensor.shape)]
        if not keepdims:
            shape = [d for i, d in enumerate(tensor.shape) if i not in chosen]
        return self.node(
            "ReduceSum",
            tensor,
            self.vector(sorted(chosen)),
            shape=shape,
            dtype=tensor.dtype,
            sign=tensor.sign,
            keepdims=int(keepdims),
        )


def _key(
    op: str, inputs: Iterable[ir.Value | None], attributes: Mapping[str, Any]
) -> tuple[Any, ...]:
    frozen = tuple(
        (name, tuple(value) if isinstance(value, list | tuple) else str(value))
        for name, value in sorted(attributes.items())
    )
    return (op, tuple(None if value is None else id(value) for value in inputs), frozen)
