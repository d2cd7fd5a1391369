"""Bounds of a layer's input, for the rule z-box."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxlrp.compiler.composite import FROM_PREPROCESSING
from onnxlrp.errors import InputError
from onnxlrp.graph.canonical import Array, Network, Operation, affine_of
from onnxlrp.graph.operators import Fact, has
from onnxlrp.inputs.preprocessing import Preprocessing
from onnxlrp.propagation.formulas import Parameter
from onnxlrp.propagation.registry import channel_axis

_PASSED = ("Identity", "Cast", "Dropout")


def with_bounds(
    operation: Operation,
    parameters: Mapping[str, Parameter],
    network: Network,
    preprocessing: Preprocessing | None,
) -> Mapping[str, Parameter]:
    """Fill in bounds that are to follow from the preprocessing, and check all of them.

    Raises
    ------
    InputError
        If there is no preprocessing to follow from, or something between the input and the layer
        that bounds cannot be carried through; if there are not as many bounds as channels, or a
        lower one above an upper one.

    """
    if "low" not in parameters:
        return parameters
    wanted = [name for name in ("low", "high") if parameters[name] == FROM_PREPROCESSING]
    if wanted:
        followed = dict(
            zip(("low", "high"), _carried(operation, network, preprocessing), strict=True)
        )
        parameters = {**parameters, **{name: followed[name] for name in wanted}}
    low, high = (np.atleast_1d(np.asarray(parameters[n], np.float64)) for n in ("low", "high"))
    value = operation.inputs[0]
    shape = value.shape if value is not None else None
    channels = shape[channel_axis(operation.operator, len(shape))] if shape else None
    for name, bounds in (("low", low), ("high", high)):
        if bounds.size > 1 and isinstance(channels, int) and bounds.size != channels:
            raise InputError(
                f"rule z-box at {operation.name}: {bounds.size} numbers for '{name}', but its "
                f"input has {channels} channels: give one number, or one for each channel"
            )
    if (low > high).any():
        raise InputError(f"rule z-box at {operation.name}: a lower bound is above the upper one")
    return parameters


def _carried(
    operation: Operation, network: Network, preprocessing: Preprocessing | None
) -> tuple[list[float], list[float]]:
    """Take the bounds of the model's input through all that stands in front of a layer."""
    if preprocessing is None:
        raise InputError(
            f"rule z-box at {operation.name} needs bounds of its input: store the "
            "preprocessing (--preprocess ...), or give --set low=... and --set high=..."
        )
    makers = {value: op for op in network.operations for value in op.outputs}
    chain: list[Operation] = []
    value = operation.inputs[0]
    while value is not None and value not in network.inputs:
        chain.append(makers[value])
        live = [v for v in makers[value].inputs if v in network.inputs or v in makers]
        value = live[0] if live else None
    low, high = (np.asarray(bounds, np.float64) for bounds in preprocessing.bounds)
    axis = 1 if preprocessing.layout == "NCHW" else 3
    for step in reversed(chain):
        low, high, axis = _through(step, low, high, axis, operation)
    if (low == low[0]).all() and (high == high[0]).all():
        return [float(low[0])], [float(high[0])]
    shape = operation.inputs[0].shape if operation.inputs[0] is not None else None
    if not shape or axis != channel_axis(operation.operator, len(shape)):
        raise _stuck(operation, operation)
    return low.tolist(), high.tolist()


def _through(
    step: Operation, low: Array, high: Array, axis: int, layer: Operation
) -> tuple[Array, Array, int]:
    """Take bounds, one a channel, through one operation."""
    source = step.inputs[0]
    if step.operator in _PASSED:
        return low, high, axis
    if step.operator == "Transpose" and source is not None and source.shape is not None:
        order = step.attributes.get("perm") or list(range(len(source.shape)))[::-1]
        return low, high, list(order).index(axis)
    alike = bool((low == low[0]).all() and (high == high[0]).all())
    if step.operator == "Pad" or (alike and has(step.operator, Fact.MOVES)):
        return low, high, axis
    live = next((v for v in step.inputs if v is not None and v.const_value is None), None)
    affine = None if live is None else affine_of(step.node, live, axis)
    if affine is None:
        raise _stuck(step, layer)
    scale, shift = affine
    ends = np.stack(np.broadcast_arrays(low * scale + shift, high * scale + shift))
    return ends.min(axis=0), ends.max(axis=0), axis


def _stuck(step: Operation, layer: Operation) -> InputError:
    return InputError(
        f"rule z-box at {layer.name}: the preprocessing's bounds, one a channel, cannot be carried "
        f"through {step.name} ({step.operator}); give those of its input, --set low=... and "
        "--set high=..."
    )
