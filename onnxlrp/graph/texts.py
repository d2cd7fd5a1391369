"""Inputs that hold texts or dictionaries: what can be explained are the numbers made of them."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
import onnx_ir as ir

from onnxlrp.graph.operators import operator_of


def texts_read(graph: ir.Graph, score: ir.Value) -> list[ir.Value]:
    """Return the inputs that hold texts on which a score depends, but for categories."""
    behind = _behind(score)
    held = [v for v in graph.inputs if v.dtype == ir.DataType.STRING and v in behind]
    return [v for v in held if not is_category(v)]


def is_category(text: ir.Value) -> bool:
    """Tell texts that only choose among columns of 0 and 1: a category gets what its column got."""
    return all(
        node.op_type == "OneHotEncoder"
        for value in _texts(text)
        for node, _ in value.uses()
        if any(made.dtype != ir.DataType.STRING for made in node.outputs)
    )


def refusal(graph: ir.Graph, score: ir.Value, texts: Iterable[ir.Value]) -> str:
    """Say why texts cannot be explained, and where to cut the model so that what is left can."""
    behind = _behind(score)
    numbers = [value for text in texts for value in _numbers(text) if value in behind]
    others = [v.name for v in graph.inputs if v.dtype != ir.DataType.STRING and v in behind]
    names = ", ".join(f"'{text.name}'" for text in texts)
    told = f"no score is a share of texts, which {names} holds"
    if not numbers:
        return f"{told}; give the network behind, which takes numbers"
    made = ", ".join(f"'{v.name}' ({_maker(v)})" for v in numbers)
    inputs = [*(v.name for v in numbers), *others]
    return (
        f"{told}; the first numbers made of them are {made}: cut the model there, "
        f"onnx.utils.extract_model(MODEL, 'network.onnx', {inputs}, ['{score.name}']), "
        "and explain network.onnx"
    )


def _maker(value: ir.Value) -> str:
    node = value.producer()
    assert node is not None
    return f"of {operator_of(node)} {node.name}"


def _behind(score: ir.Value) -> set[ir.Value]:
    """Return all that a score is computed from."""
    found: set[ir.Value] = {score}
    todo = [score]
    while todo:
        node = todo.pop().producer()
        for value in () if node is None else node.inputs:
            if value is not None and value not in found:
                found.add(value)
                todo.append(value)
    return found


def _texts(text: ir.Value) -> set[ir.Value]:
    """Return a text and the texts that are made of it."""
    seen, todo = {text}, [text]
    while todo:
        for node, _ in todo.pop().uses():
            new = [v for v in node.outputs if v.dtype == ir.DataType.STRING and v not in seen]
            seen.update(new)
            todo += new
    return seen


def _numbers(text: ir.Value) -> list[ir.Value]:
    """Return the first values that are made of a text and hold numbers."""
    found: list[ir.Value] = []
    seen, todo = {text}, [text]
    while todo:
        for node, _ in todo.pop().uses():
            for value in node.outputs:
                if value in seen:
                    continue
                seen.add(value)
                (todo if value.dtype == ir.DataType.STRING else found).append(value)
    return found


def dictionary(graph: onnx.GraphProto, name: str) -> str:
    """Say what to do about an input that is a dictionary."""
    readers = [node for node in graph.node if name in node.input]
    made = ", ".join(f"'{node.output[0]}' ({node.op_type} {node.name})" for node in readers)
    return (
        f"input '{name}' is a dictionary, of which no score is a share: cut the model behind it, "
        f"and explain what takes the numbers that are made of it: {made or 'none'}"
    )
