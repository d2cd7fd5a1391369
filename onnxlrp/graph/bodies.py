"""What an operator computes, written in other operators: how that is said and put into a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.parser
from onnx import helper, numpy_helper

MICROSOFT = "com.microsoft"
ML = "ai.onnx.ml"

Lines = Iterator[str | onnx.NodeProto]
"""Nodes, each as the parser of onnx reads it or as it is."""


class UnfitError(Exception):
    """A use of an operator that its body does not cover."""


@dataclass(frozen=True)
class Call:
    """One use of an operator.

    Attributes
    ----------
    node : as it stands in the model
    types : of the values whose shape is known, by name
    opset : of the model, of ONNX's own operators
    constants : small ones of the model, by name

    """

    node: onnx.NodeProto
    types: Mapping[str, onnx.TypeProto.Tensor]
    opset: int
    constants: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)

    def has(self, index: int) -> bool:
        """Whether an optional input is there."""
        return len(self.node.input) > index and bool(self.node.input[index])

    def wants(self, index: int) -> bool:
        """Whether an optional output is there."""
        return len(self.node.output) > index and bool(self.node.output[index])

    def refuse(self, *inputs: int) -> None:
        """Raise `UnfitError` where one of these inputs is there."""
        if any(self.has(index) for index in inputs):
            raise UnfitError

    def sizes(self, index: int) -> list[int | None]:
        """Sizes of an input's axes; None for those that are not known."""
        name = self.node.input[index] if self.has(index) else ""
        if name not in self.types:
            raise UnfitError
        dims = self.types[name].shape.dim
        return [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]

    def known(self, index: int) -> list[int]:
        """Sizes of an input's axes; raise `UnfitError` where one is not known."""
        sizes = self.sizes(index)
        if None in sizes:
            raise UnfitError
        return [size for size in sizes if size is not None]

    def constant(self, index: int) -> list[Any]:
        """Elements of an input; raise `UnfitError` where it is no constant."""
        if not self.has(index) or self.node.input[index] not in self.constants:
            raise UnfitError
        found: list[Any] = self.constants[self.node.input[index]].reshape(-1).tolist()
        return found

    def kind(self, index: int = 0) -> int:
        """Return the type of an input's elements."""
        known = self.types.get(self.node.input[index])
        return onnx.TensorProto.FLOAT if known is None else known.elem_type

    def get(self, name: str, default: Any = 0) -> Any:
        """Return a number, or a list, that is an attribute."""
        value = next((a for a in self.node.attribute if a.name == name), None)
        return default if value is None else helper.get_attribute_value(value)

    def numbers(self, name: str) -> list[int]:
        """Return whole numbers that are an attribute; none where it is absent."""
        return [n for a in self.node.attribute if a.name == name for n in a.ints]

    def text(self, name: str) -> str:
        """Return a text that is an attribute."""
        value = next((a.s for a in self.node.attribute if a.name == name), b"")
        return value.decode()

    def number(self, name: str, value: float, index: int = 0) -> Lines:
        """Write a constant of an input's type."""
        # The parser reads no half precision.
        yield f"{name}_32 = Constant<value = float {{{value:.9e}}}>()"
        yield f"{name} = Cast<to={self.kind(index)}>({name}_32)"


def constant(name: str, array: Any, kind: int = onnx.TensorProto.FLOAT) -> onnx.NodeProto:
    """Write a constant."""
    values = np.asarray(array, helper.tensor_dtype_to_np_dtype(kind))
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(values))


def integers(name: str, *values: int) -> str:
    """Write a constant vector."""
    return f"{name} = Constant<value_ints=[{', '.join(map(str, values))}]>()"


def written_out(call: Call) -> list[onnx.NodeProto] | None:
    """Return the nodes that compute what a node does; None where there is no body for it.

    Its attributes go to the first of them that is of its kind.
    """
    domain = "" if call.node.domain == "ai.onnx" else call.node.domain
    known = BODIES.get(f"{domain}::{call.node.op_type}" if domain else call.node.op_type)
    if known is None:
        return None
    header, body = known
    try:
        lines = list(body(call))
    except UnfitError:
        return None
    given, made = (part.split() for part in header.split("->"))
    nodes = [onnx.parser.parse_node(line) if isinstance(line, str) else line for line in lines]
    # Values have names of their own, nodes need not.
    stem = f"{next(filter(None, call.node.output))}/{call.node.op_type}"
    names = {"": ""}
    names.update(zip(given, [*call.node.input, *[""] * len(given)], strict=False))
    names.update((a, b) for a, b in zip(made, call.node.output, strict=False) if b)
    inside = {name for node in nodes for name in node.output}
    for last in [node for node in nodes if node.op_type == "Identity"]:
        # What is handed on as it is has the model's own name: the one that --output knows.
        source, result = last.input[0], last.output[0]
        if result in names and source in inside and source not in names:
            names[source] = names[result]
            nodes.remove(last)
    for inner in nodes:
        inner.name = f"{call.node.name or stem}/{inner.output[0]}"
        for side in (inner.input, inner.output):
            side[:] = [names.setdefault(name, f"{stem}/{name}") for name in side]
    return nodes


Body = Callable[[Call], Lines]
BODIES: dict[str, tuple[str, Body]] = {}
"""By operator, `domain::Type` outside ai.onnx: names of its inputs and outputs, and its lines."""


def body(header: str, *names: str) -> Callable[[Body], Body]:
    """Register what operators compute."""

    def register(function: Body) -> Body:
        BODIES.update((name, (header, function)) for name in names)
        return function

    return register


def microsoft(header: str, *names: str) -> Callable[[Body], Body]:
    """Register what operators of onnxruntime compute."""
    return body(header, *(f"{MICROSOFT}::{name}" for name in names))


def traditional(header: str, *names: str) -> Callable[[Body], Body]:
    """Register what operators of ai.onnx.ml compute."""
    return body(header, *(f"{ML}::{name}" for name in names))


def kept(call: Call, *names: str) -> str:
    """Write attributes that the operator inside has too."""
    found = []
    for attribute in call.node.attribute:
        if attribute.name in names:
            value = helper.get_attribute_value(attribute)
            if isinstance(value, bytes):
                found.append(f'{attribute.name}="{value.decode()}"')
            elif isinstance(value, float):
                found.append(f"{attribute.name}={value:.9e}")
            else:
                found.append(f"{attribute.name}={value if isinstance(value, int) else list(value)}")
    return f"<{', '.join(found)}>" if found else ""
