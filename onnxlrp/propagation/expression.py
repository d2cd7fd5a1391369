"""Symbolic tensors: arithmetic that writes ONNX nodes.

A `Tensor` stands for a value of the explainer under construction. Adding, multiplying or
dividing tensors writes the node that computes the result, with its type and shape, unless the
result is known: what is zero is never computed, what has been written once is not written again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir

from onnxlrp.graph.shapes import Dim, broadcast, dims_of

_JOINED = 7
"""So many tensors are joined by one node at most."""


class Sign(Enum):
    """What is known of a tensor's elements before anything runs."""

    ZERO = 0
    NON_NEGATIVE = 1
    NON_POSITIVE = -1
    UNKNOWN = None

    def __neg__(self) -> Sign:
        return self if self.value is None else Sign(-self.value)

    def __mul__(self, other: Sign) -> Sign:
        if Sign.ZERO in (self, other):
            return Sign.ZERO
        if self.value is None or other.value is None:
            return Sign.UNKNOWN
        return Sign(self.value * other.value)

    def __add__(self, other: Sign) -> Sign:
        if Sign.ZERO in (self, other):
            return other if self is Sign.ZERO else self
        return self if self is other else Sign.UNKNOWN


@dataclass(frozen=True, eq=False)
class Tensor:
    """A value of the explainer: float (relevance and what it is made of) or int64 (sizes).

    Attributes
    ----------
    emitter : writes the nodes that arithmetic on this tensor asks for
    value : the ONNX value; None for a tensor known to be zero
    sign : what is known of its elements

    """

    emitter: Emitter
    value: ir.Value | None
    sign: Sign = Sign.UNKNOWN

    @property
    def is_zero(self) -> bool:
        return self.sign is Sign.ZERO

    @property
    def dtype(self) -> ir.DataType:
        assert self.value is not None
        assert self.value.dtype is not None
        return self.value.dtype

    @property
    def shape(self) -> tuple[Dim, ...]:
        """Sizes of the axes: int, the name of a symbolic size, or None."""
        assert self.value is not None
        assert self.value.shape is not None
        return dims_of(self.value.shape)

    @property
    def rank(self) -> int:
        return len(self.shape)

    def __add__(self, other: Tensor | float) -> Tensor:
        other = self._operand(other)
        if self.is_zero or other.is_zero:
            return other if self.is_zero else self
        return self.emitter.elementwise("Add", self, other, sign=self.sign + other.sign)

    def __radd__(self, other: float) -> Tensor:
        return self._operand(other) + self

    def __sub__(self, other: Tensor | float) -> Tensor:
        other = self._operand(other)
        if other.is_zero:
            return self
        if self.is_zero:
            return -other
        return self.emitter.elementwise("Sub", self, other, sign=self.sign + -other.sign)

    def __rsub__(self, other: float) -> Tensor:
        return self._operand(other) - self

    def __neg__(self) -> Tensor:
        if self.is_zero:
            return self
        return self.emitter.elementwise("Neg", self, sign=-self.sign)

    def __mul__(self, other: Tensor | float) -> Tensor:
        if self.is_zero:
            return self
        if isinstance(other, int | float) and other == 1:
            return self
        if isinstance(other, int | float) and other == -1:
            return -self
        other = self._operand(other)
        if other.is_zero:
            return other
        left, right = _unexpanded(self, other), _unexpanded(other, self)
        return self.emitter.elementwise("Mul", left, right, sign=self.sign * other.sign)

    def __rmul__(self, other: float) -> Tensor:
        return self * other

    def __truediv__(self, other: Tensor | float) -> Tensor:
        if self.is_zero:
            return self
        other = self._operand(other)
        return self.emitter.elementwise("Div", self, other, sign=self.sign * other.sign)

    def __rtruediv__(self, other: float) -> Tensor:
        return self._operand(other) / self

    def __pow__(self, exponent: float) -> Tensor:
        if exponent == 1 or self.is_zero:
            return self
        if exponent == 2:
            return self.emitter.elementwise("Mul", self, self, sign=Sign.NON_NEGATIVE)
        even = exponent % 2 == 0
        sign = Sign.NON_NEGATIVE if even or self.sign is Sign.NON_NEGATIVE else Sign.UNKNOWN
        return self.emitter.elementwise("Pow", self, self._operand(exponent), sign=sign)

    def _operand(self, other: Tensor | float) -> Tensor:
        if isinstance(other, Tensor):
            return other
        if other == 0:
            return self.emitter.zero
        assert not self.is_zero, "a zero has no type that a number could take"
        return self.emitter.scalar(other, self)


def _unexpanded(tensor: Tensor, other: Tensor) -> Tensor:
    """Return what `tensor` was expanded from, where multiplying by `other` expands it again."""
    node = tensor.value.producer() if tensor.value is not None else None
    if node is None or node.op_type != "Expand" or tensor.shape != other.shape:
        return tensor
    return Tensor(tensor.emitter, node.inputs[0], tensor.sign)


@dataclass(frozen=True, eq=False)
class Operands:
    """The live inputs of a layer: one tensor, or the operands of a sum.

    Arithmetic goes operand by operand, so a rule is written once for both.
    """

    parts: tuple[Tensor, ...]

    def map(self, function: Callable[[Tensor], Tensor]) -> Operands:
        """Apply a function to each operand."""
        return Operands(tuple(function(part) for part in self.parts))

    def __add__(self, other: Operands) -> Operands:
        return Operands(tuple(a + b for a, b in zip(self.parts, other.parts, strict=True)))

    def __mul__(self, other: Operands) -> Operands:
        return Operands(tuple(a * b for a, b in zip(self.parts, other.parts, strict=True)))

    def __sub__(self, other: Operands) -> Operands:
        return Operands(tuple(a - b for a, b in zip(self.parts, other.parts, strict=True)))

    def __pow__(self, exponent: float) -> Operands:
        return self.map(lambda part: part**exponent)


X = TypeVar("X", Tensor, Operands)


def positive(x: X) -> X:
    """max(x, 0), elementwise; x itself, or nothing at all, where the sign is known."""
    if isinstance(x, Operands):
        return x.map(positive)
    if x.sign in (Sign.NON_NEGATIVE, Sign.ZERO):
        return x
    if x.sign is Sign.NON_POSITIVE:
        return x.emitter.zero
    return x.emitter.elementwise("Relu", x, sign=Sign.NON_NEGATIVE)


def negative(x: X) -> X:
    """min(x, 0), elementwise; x itself, or nothing at all, where the sign is known."""
    if isinstance(x, Operands):
        return x.map(negative)
    if x.sign in (Sign.NON_POSITIVE, Sign.ZERO):
        return x
    if x.sign is Sign.NON_NEGATIVE:
        return x.emitter.zero
    # Exact, and of Min there is no WebGPU kernel.
    return replace(x - positive(x), sign=Sign.NON_POSITIVE)


def magnitude(x: X) -> X:
    """|x|, elementwise; x itself, or -x, where the sign is known."""
    if isinstance(x, Operands):
        return x.map(magnitude)
    if x.sign in (Sign.NON_NEGATIVE, Sign.ZERO):
        return x
    if x.sign is Sign.NON_POSITIVE:
        return -x
    return x.emitter.elementwise("Abs", x, sign=Sign.NON_NEGATIVE)


def signum(x: Tensor, size: float = 1.0) -> Tensor:
    """`size` where x >= 0, -size elsewhere: x, enlarged beyond that, and cut to it.

    Faster in onnxruntime than Sign, and than a comparison and a Where.
    """
    low, high = (x.emitter.scalar(bound, x) for bound in (-size, size))
    enlarged = (x + _LEAST) * (1 / _LEAST)
    return x.emitter.node("Clip", enlarged, low, high, shape=x.shape, dtype=x.dtype)


_LEAST = 1e-30
"""Lost in any number that float32 computes with, but for 0; where x is as small, so is the sign."""


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
        single = ir.DataType.FLOAT
        return self.node(
            "Cast", tensor, shape=tensor.shape, dtype=single, sign=sign, to=single.value
        )

    def constant(
        self, array: np.ndarray[Any, Any], sign: Sign = Sign.UNKNOWN, use: str = ""
    ) -> Tensor:
        """Write an initializer; equal arrays of the same use share one."""
        key = (use, array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"onnxlrp/constant/{len(self._constants)}"
            texts = array.dtype.kind == "O"
            data = ir.StringTensor(array, name=name) if texts else ir.tensor(array, name=name)
            self._constants[key] = ir.Value(
                name=name,
                const_value=data,
                shape=ir.Shape(array.shape),
                type=ir.TensorType(data.dtype),
            )
            self.initializers.append(self._constants[key])
        return Tensor(self, self._constants[key], sign)

    def duplicate(self, value: ir.Value) -> ir.Value:
        """Write an initializer of the model a second time, under another name.

        What is derived of quantised weights is no initializer, and stays as it is.
        """
        if value.producer() is not None:
            return value
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
        if not sizes:
            return self.constant(np.array(sizes, np.int64))
        parts: list[Tensor] = []
        for _, run in groupby(sizes, key=lambda size: isinstance(size, int)):
            same = [*run]
            computed = [size for size in same if not isinstance(size, int)]
            parts += computed or [self.constant(np.array(same, np.int64))]
        return self.concat(parts, 0, (len(sizes),))

    def concat(self, parts: Sequence[Tensor], axis: int, shape: Sequence[Dim]) -> Tensor:
        """Join tensors along an axis into one of that shape, never many by one node.

        WebGPU gives a node eight buffers, its result's among them, and onnxruntime computes wrong
        numbers there where it would need more.
        """
        if len(parts) == 1:
            return parts[0]
        if len(parts) > _JOINED:
            runs = [parts[start : start + _JOINED] for start in range(0, len(parts), _JOINED)]
            parts = [self.concat(run, axis, _joined([r.shape for r in run], axis)) for run in runs]
            return self.concat(parts, axis, shape)
        return self.node("Concat", *parts, shape=shape, dtype=parts[0].dtype, axis=axis)

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
            node = ir.node(op, values, _typed(attributes), outputs=outputs)
            node.meta["key"] = key
            self.append(node)
            self._written[key] = tuple(outputs)
        return [Tensor(self, value, sign) for value in self._written[key]]

    def append(self, node: ir.Node) -> None:
        """Take in a node, under what is explained now."""
        node.metadata_props.update(self._metadata)
        node.meta["label"] = self._label
        self.nodes.append(node)

    def inner(self) -> Emitter:
        """Return one for a subgraph: with nodes of its own, and the constants of this one."""
        inside = Emitter()
        inside.initializers, inside._constants = self.initializers, self._constants
        inside.explain(*self._label, self._metadata)
        return inside

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


def _typed(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Say of lists of whole numbers what they are, which takes onnx_ir longer than a node."""
    return {
        name: ir.AttrInt64s(name, value)
        if isinstance(value, list | tuple) and all(isinstance(entry, int) for entry in value)
        else value
        for name, value in attributes.items()
    }


def _key(
    op: str, inputs: Iterable[ir.Value | None], attributes: Mapping[str, Any]
) -> tuple[Any, ...]:
    frozen = tuple(
        (name, tuple(value) if isinstance(value, list | tuple) else str(value))
        for name, value in sorted(attributes.items())
    )
    return (op, tuple(None if value is None else id(value) for value in inputs), frozen)


def _joined(shapes: Sequence[Sequence[Dim]], axis: int) -> tuple[Dim, ...]:
    """Shape of tensors joined along an axis, of unknown size where that of one is."""
    sizes = [shape[axis] for shape in shapes]
    whole = sum(n for n in sizes if isinstance(n, int))
    known = all(isinstance(size, int) for size in sizes)
    first = list(shapes[0])
    first[axis] = whole if known else None
    return tuple(first)
