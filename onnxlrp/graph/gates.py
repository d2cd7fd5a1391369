"""Products of two live values: which operand carries the signal, which is only a gate.

A *gate* scales a signal and carries none of its own: it is kept between two numbers by how it is
computed (Sigmoid, Softmax, Tanh, Erf, ... of anything), or it normalises (something divided by the
root of a statistic). So squeeze-and-excitation, gated linear units, and what is only nearly one of
the activations and normalisations that `spellings` knows are each a `Gate`, softmax(q k) @ v is a
`Mixture`; where neither operand is more of a gate than the other, it is a `Product` or a
`MatrixProduct`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from onnxlrp.graph.canonical import Operation, constant_of
from onnxlrp.graph.operators import Fact, has, operator_of
from onnxlrp.graph.quantised import READS

_FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)

SCATTERS = ("ScatterElements", "ScatterND")
"""Operators that put updates where indices say."""


def named(
    found: Sequence[Operation], live: frozenset[int], bounded: frozenset[int], known: frozenset[int]
) -> list[Operation]:
    """Name products of live values for what they are, with the signal's place in `signal`.

    A constant divided by a live value is a Reciprocal; a scatter that adds is a ScatterSum.

    Parameters
    ----------
    found : operations, in topological order
    live : ids of the values that depend on an explained input
    bounded, known : ids of the values that lie between two numbers, and that are never negative

    """

    def rank(value: ir.Value) -> int:
        """How much of a gate a value is: a share or a divisor, a bounded value, or none."""
        return 2 * _divides(value) or (id(value) in bounded) * (1 + (id(value) in known))

    result = []
    for operation in found:
        inputs = [v for v in operation.inputs if v is not None and id(v) in live]
        if operation.operator == "Div" and inputs == [operation.inputs[1]]:
            result.append(replace(operation, operator="Reciprocal"))
            continue
        if operation.operator in SCATTERS and operation.attributes.get("reduction") == "add":
            result.append(replace(operation, operator="ScatterSum"))
            continue
        if operation.operator not in ("Mul", "Div", "MatMul") or len(inputs) != 2:
            result.append(operation)
            continue
        ranks = (0, 1) if operation.operator == "Div" else (rank(inputs[0]), rank(inputs[1]))
        gated, plain = (
            ("Mixture", "MatrixProduct")
            if operation.operator == "MatMul"
            else (
                "Gate",
                "Product",
            )
        )
        signal = int(ranks[0] > ranks[1])
        operator = plain if ranks[0] == ranks[1] else gated
        attributes = {**operation.attributes, "signal": signal}
        result.append(replace(operation, operator=operator, attributes=attributes))
    return result


def bounded_values(graph: ir.Graph, found: Sequence[Operation]) -> frozenset[int]:
    """Ids of the values that operators keep between two numbers, whatever the input."""
    known = {id(v) for op in found if has(op.operator, Fact.BOUNDED) for v in op.outputs}

    def holds(value: ir.Value | None) -> bool:
        return (
            value is None
            or constant_of(value) is not None
            or id(value) in known
            or value.dtype not in _FLOATS
        )

    for node in graph:
        if node.domain not in ("", "ai.onnx"):
            continue
        operator, inputs = operator_of(node), list(node.inputs)
        # Everything that is quantised lies between two numbers: that says nothing.
        ends = inputs[1:3] if operator == "Clip" and READS not in node.metadata_props else []
        if (
            has(operator, Fact.BOUNDED)
            or (len(ends) == 2 and all(v is not None and constant_of(v) is not None for v in ends))
            or (has(operator, Fact.CARRIES_BOUNDS) and holds(inputs[0]))
            or (has(operator, Fact.JOINS_BOUNDS) and all(map(holds, inputs)))
            or (operator == "Div" and holds(inputs[0]) and constant_of(inputs[1]) is not None)
        ):
            known.update(id(output) for output in node.outputs)
    return frozenset(known)


def _divides(value: ir.Value | None) -> bool:
    """Whether a value is what a normalisation multiplies by: 1 / sqrt(...), or a power below 0."""
    while value is not None and (node := value.producer()) is not None:
        if operator_of(node) == "Reciprocal":
            return True
        if operator_of(node) == "Pow":
            exponent = constant_of(node.inputs[1])
            return exponent is not None and bool((exponent < 0).all())
        if operator_of(node) == "Div":
            return constant_of(node.inputs[0]) is not None
        if operator_of(node) == "Mul" and (scale := constant_of(node.inputs[1])) is not None:
            value = node.inputs[0]
            del scale
            continue
        if not has(operator_of(node), Fact.MOVES) and operator_of(node) != "Cast":
            return False
        value = node.inputs[0]
    return False
