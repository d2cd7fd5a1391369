"""Activations, and all functions of one live value: relevance passes on, or by their slope."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from onnxlrp.graph.canonical import Operation, constant_of
from onnxlrp.graph.operators import Fact, has
from onnxlrp.graph.shapes import broadcast, dims_of
from onnxlrp.propagation import layout
from onnxlrp.propagation.expression import Sign, Tensor, positive
from onnxlrp.propagation.formulas import Parameter
from onnxlrp.propagation.registry import (
    Crossing,
    ObstacleError,
    Relevance,
    live_inputs,
    operator,
    static_shape,
)
from onnxlrp.propagation.slopes import slope
from onnxlrp.propagation.sums import reduced_to


def gradient(crossing: Crossing, relevance: Tensor) -> Tensor:
    """R_in = f'(x) R_out; at a kink the slope on its left, of a ReLU at 0 none.

    Equals: torch autograd.
    Use: `gradient` and what is made of it.
    """
    return relevance * slope(crossing)


def guided(crossing: Crossing, relevance: Tensor) -> Tensor:
    """R_in = f'(x) R_out⁺ (Springenberg et al. 2014).

    Equals: Captum `GuidedBackprop`, iNNvestigate, on ReLU.
    Use: `guided_backprop`; it hardly depends on the class (Nie et al. 2018, Adebayo et al. 2018).
    """
    return positive(relevance) * slope(crossing)


def deconvnet(crossing: Crossing, relevance: Tensor) -> Tensor:
    """R_in = R_out⁺ (Zeiler and Fergus 2014).

    Equals: Captum `Deconvolution`, iNNvestigate, on ReLU.
    Use: `deconvnet`; what it knows of the input is max pooling's choice.
    """
    return positive(relevance)


TREATMENTS = {"gradient": gradient, "guided": guided, "deconvnet": deconvnet}
"""The rules of functions of one value; without one, they hand on what they get."""

_RULES: Mapping[str, Mapping[str, Parameter]] = {name: {} for name in TREATMENTS}
_GRADIENT: Mapping[str, Mapping[str, Parameter]] = {"gradient": {}}


def _check_activation(operation: Operation, live: frozenset[int]) -> None:
    x, others = operation.inputs[0], operation.inputs[1:]
    training = constant_of(operation.input(2)) if operation.operator == "Dropout" else None
    if training is not None and training.any():
        raise ObstacleError("it is in training mode", "export the model for inference")
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
    "Softsign", "ThresholdedRelu", "Mish", "Identity", "Dropout", "Abs", "Swish", "Shrink",
    "Sigmoid", "HardSigmoid", "Softplus", "Clip", "Cast", "Hardmax", "Exp", "Log", "Sqrt",
    "Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh",
    "Sign", "Floor", "Ceil", "Round", "ai.onnx.ml::Binarizer", "ai.onnx.ml::LabelEncoder",
    check=_check_activation, rules=_RULES, default="",
)  # fmt: skip
def activation(crossing: Crossing) -> Sequence[tuple[ir.Value, Relevance]]:
    """R_in = R_out (zennit `Pass`), or by one of `TREATMENTS`."""
    incoming = crossing.incoming
    value = crossing.operation.inputs[0]
    assert value is not None
    grounded = incoming.grounded and _maps_zero_to_zero(crossing.operation)
    tensor = incoming.tensor
    if crossing.rule:
        tensor, grounded = TREATMENTS[crossing.rule](crossing, tensor), False
        if tensor.is_zero:
            return [(value, Relevance(tensor, True))]
    if value.dtype is not None and value.dtype.is_floating_point():
        computed = crossing.tensor(value).dtype
        if tensor.dtype != computed:
            tensor = layout.cast(tensor, computed, tensor.sign)
    return [(value, Relevance(tensor, grounded))]


def _check_function(operation: Operation, live: frozenset[int]) -> None:
    inputs = live_inputs(operation, live)
    if len(inputs) > 1:
        raise ObstacleError("both its operands depend on the explained input", "one alone may")
    for value in (inputs[0], operation.outputs[0]):
        static_shape(value)


@operator("Reciprocal", "Pow", "Mod", check=_check_function, rules=_GRADIENT, default="")
def function(crossing: Crossing) -> Sequence[tuple[ir.Value, Relevance]]:
    """R_in = R_out, added up where a constant broadcasts; of c / x, x^c, c^x and x mod c alike.

    By `gradient`, R_out times the slope.
    """
    (value,), relevance = crossing.live_inputs, crossing.incoming.tensor
    if crossing.rule:
        relevance = gradient(crossing, relevance)
    return [(value, Relevance(reduced_to(relevance, crossing.tensor(value)), False))]


def _check_extremum(operation: Operation, live: frozenset[int]) -> None:
    inputs = live_inputs(operation, live)
    for value in (*inputs, operation.outputs[0]):
        static_shape(value)
    if 1 < len(inputs) < len(operation.inputs):
        raise ObstacleError(
            "it compares several values that depend on the explained input with a constant",
            "write the constant as a Clip of its own",
        )


@operator("Min", "Max", check=_check_extremum, rules=_GRADIENT, default="")
def extremum(crossing: Crossing) -> Sequence[tuple[ir.Value, Relevance]]:
    """The first that is the largest takes all; with a constant it is a Clip, and R_in = R_out.

    By `gradient` that is none where the constant is the extremum.
    """
    incoming, emitter = crossing.incoming, crossing.emitter
    least = crossing.operation.operator == "Min"
    y = crossing.either(crossing.operation.outputs[0], least)
    *others, last = crossing.live_inputs
    rest, result = incoming.tensor, []
    if crossing.rule and not others:
        rest = gradient(crossing, rest)
    for value in others:
        x, nothing = crossing.either(value, least), emitter.scalar(0.0, rest)
        share = emitter.where(emitter.compare("Less", x, y), nothing, rest, Sign.UNKNOWN)
        rest = rest - share
        result.append((value, share))
    grounded = incoming.grounded and bool(others)
    return [
        (value, Relevance(reduced_to(share, crossing.tensor(value)), grounded))
        for value, share in [*result, (last, rest)]
    ]


def _maps_zero_to_zero(operation: Operation) -> bool:
    if operation.operator == "Clip":
        low, high = constant_of(operation.input(1)), constant_of(operation.input(2))
        fixed = (operation.input(1) is None or low is not None) and (
            operation.input(2) is None or high is not None
        )
        return fixed and (low is None or bool(low <= 0)) and (high is None or bool(high >= 0))
    return has(operation.operator, Fact.ZERO)
