"""Activations: relevance passes on to where it came from."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnxlrp.graph.canonical import Operation, constant_of
from onnxlrp.graph.operators import Fact, has
from onnxlrp.graph.shapes import broadcast, dims_of
from onnxlrp.propagation.registry import (
    Crossing,
    ObstacleError,
    Relevance,
    live_inputs,
    operator,
)


def _check_activation(operation: Operation, live: frozenset[int]) -> None:
    x, others = operation.inputs[0], operation.inputs[1:]
    if any(value is not None and id(value) in live for value in others):
        raise ObstacleError(
            "its slope or its bounds depend on the explained input", "only constants are supported"
        )
    if operation.operator != "PRelu" or x is None or x.shape is None:
        return
    slope = others[0]
    if slope is None or slope.shape is None:
        return
    # onnxruntime computes it, of another shape than onnx infers.
    if broadcast(dims_of(x.shape), dims_of(slope.shape)) != dims_of(x.shape):
        raise ObstacleError(
            f"its slope of shape {list(dims_of(slope.shape))} does not broadcast to its input",
            "export the model again: ONNX broadcasts a slope in one direction only",
        )


@operator(
    "Relu", "LeakyRelu", "PRelu", "Elu", "Celu", "Selu", "Tanh", "Erf", "Gelu", "HardSwish",
    "Softsign", "ThresholdedRelu", "Mish", "Identity", "Dropout", "Abs", "Swish",
    "Sigmoid", "HardSigmoid", "Softplus", "Clip", "Cast", check=_check_activation,
)  # fmt: skip
def activation(crossing: Crossing) -> Sequence[tuple[ir.Value, Relevance]]:
    """R_in = R_out (zennit `Pass`)."""
    incoming = crossing.incoming
    value = crossing.operation.inputs[0]
    assert value is not None
    grounded = incoming.grounded and _maps_zero_to_zero(crossing.operation)
    return [(value, Relevance(incoming.tensor, grounded))]


def _check_extremum(operation: Operation, live: frozenset[int]) -> None:
    inputs = live_inputs(operation, live)
    if len(inputs) > 1 or inputs[0].shape != operation.outputs[0].shape:
        raise ObstacleError(
            "it compares values that depend on the explained input",
            "only a bound that is constant is supported",
        )


@operator("Min", "Max", check=_check_extremum)
def bounded(crossing: Crossing) -> Sequence[tuple[ir.Value, Relevance]]:
    """R_in = R_out: a Min or Max with a constant is a Clip."""
    value = crossing.live_inputs[0]
    return [(value, Relevance(crossing.incoming.tensor, False))]


def _maps_zero_to_zero(operation: Operation) -> bool:
    if operation.operator == "Clip":
        low, high = constant_of(operation.input(1)), constant_of(operation.input(2))
        fixed = (operation.input(1) is None or low is not None) and (
            operation.input(2) is None or high is not None
        )
        return fixed and (low is None or bool(low <= 0)) and (high is None or bool(high >= 0))
    return has(operation.operator, Fact.ZERO)
