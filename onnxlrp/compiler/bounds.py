"""Bounds of a layer's input, for the rule z-box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxlrp.compiler.composite import FROM_PREPROCESSING
from onnxlrp.errors import InputError
from onnxlrp.graph.canonical import Array, Network, Operation, affine_of, constant_of
from onnxlrp.graph.operators import Fact, has
from onnxlrp.inputs.preprocessing import Preprocessing
from onnxlrp.propagation.formulas import Parameter
from onnxlrp.propagation.registry import channel_axis, live_inputs


def with_bounds(
    operation: Operation,
    parameters: Mapping[str, Parameter],
    network: Network,
    live: frozenset[int],
    preprocessing: Preprocessing | None,
    origin: str,
) -> Mapping[str, Parameter]:
    """Fill in bounds that are to follow from the preprocessing, and check all of them.

    Parameters
    ----------
    operation, parameters : the layer, and those of its rule
    network : what the layer is part of
    live : ids of the values that depend on an explained input
    preprocessing : of the pictures, if any is known
    origin : where the rule was written, for messages

    Raises
    ------
    InputError
        If there is no preprocessing to follow from, or something between the input and the layer
        that bounds cannot be carried through; if there are not as many bounds as channels, or a
        lower one above an upper one.

    """
    if "low" not in parameters:
        return parameters
    place = f"{origin}: rule z-box at {operation.name}" if origin else f"z-box at {operation.name}"
    inputs = live_inputs(operation, live)
    wanted = [name for name in ("low", "high") if parameters[name] == FROM_PREPROCESSING]
    if wanted:
        if preprocessing is None:
            raise InputError(
                f"{place} needs bounds of its input: store the preprocessing (--preprocess ...), "
                "or give --set low=... and --set high=..."
            )
        boxes = _boxes(network, live, preprocessing)
        carried = [_carried(operation, value, boxes, place) for value in inputs]
        if any(bounds != carried[0] for bounds in carried):
            raise InputError(
                f"{place}: it adds values that lie between different bounds; give what holds for "
                "all, --set low=... and --set high=..."
            )
        followed = dict(zip(("low", "high"), carried[0], strict=True))
        parameters = {**parameters, **{name: followed[name] for name in wanted}}
    low, high = (np.atleast_1d(np.asarray(parameters[n], np.float64)) for n in ("low", "high"))
    for value in inputs:
        channels = value.shape[channel_axis(operation, value)] if value.shape else None
        for name, bounds in (("low", low), ("high", high)):
            if bounds.size > 1 and isinstance(channels, int) and bounds.size != channels:
                raise InputError(
                    f"{place}: {bounds.size} numbers for '{name}', but its input has {channels} "
                    "channels: give one number, or one for each channel"
                )
    if low.size > 1 and high.size > 1 and low.size != high.size:
        raise InputError(f"{place}: {low.size} numbers for 'low', but {high.size} for 'high'")
    if not (low <= high).all():
        raise InputError(f"{place}: a lower bound ('low') is above the upper one ('high')")
    return parameters


@dataclass(frozen=True)
class _Box:
    """What a value's elements lie between.

    Attributes
    ----------
    low, high : float64 [channels], or [1] for the same everywhere
    axis : along which the channels lie

    """

    low: Array
    high: Array
    axis: int

    @property
    def even(self) -> bool:
        return self.low.size == 1


def _box(low: Array, high: Array, axis: int) -> _Box:
    """Make a box, with one number where all channels have the same."""
    if (low == low[0]).all() and (high == high[0]).all():
        low, high = low[:1], high[:1]
    return _Box(low, high, axis)


def _carried(
    layer: Operation, value: ir.Value, boxes: Mapping[ir.Value, _Box | Operation], place: str
) -> tuple[list[float], list[float]]:
    """Return the bounds of an input of a layer, as they suit it."""
    box = boxes.get(value, layer)
    if isinstance(box, Operation):
        raise InputError(
            f"{place}: the preprocessing's bounds cannot be carried through {box.name} "
            f"({box.operator}); give those of its input, --set low=... and --set high=..."
        )
    if not box.even and (value.shape is None or box.axis != channel_axis(layer, value)):
        raise InputError(
            f"{place}: the preprocessing's bounds differ between channels, which lie along axis "
            f"{box.axis} of '{value.name}', but the layer's lie along another; give one for all, "
            "--set low=... and --set high=..."
        )
    return box.low.tolist(), box.high.tolist()


def _boxes(
    network: Network, live: frozenset[int], preprocessing: Preprocessing
) -> Mapping[ir.Value, _Box | Operation]:
    """Take the bounds of the model's inputs forward, as far as they can be taken.

    Returns
    -------
    of every value that depends on an input its box, or the first operation on the way to it that
    none can be taken through
    """
    low, high = (np.asarray(bounds, np.float64) for bounds in preprocessing.bounds)
    whole = _box(low, high, 1 if preprocessing.layout == "NCHW" else 3)
    found: dict[ir.Value, _Box | Operation] = dict.fromkeys(network.inputs, whole)
    for step in network.operations:
        given = [found.get(value, step) for value in live_inputs(step, live)]
        boxes = [box for box in given if isinstance(box, _Box)]
        if boxes and len(boxes) == len(given):
            box = _through(step, live_inputs(step, live)[0], boxes)
            bounded = box is not None and np.isfinite([box.low, box.high]).all()
            found.update(dict.fromkeys(step.outputs, box if box and bounded else step))
        elif given:
            stop = next(box for box in given if isinstance(box, Operation))
            found.update(dict.fromkeys(step.outputs, stop))
    return found


def _through(step: Operation, source: ir.Value, boxes: Sequence[_Box]) -> _Box | None:
    """Take bounds through one operation; None where they cannot be taken."""
    box, result = boxes[0], step.outputs[0]
    if source.shape is None or len(step.nodes) > 1:
        return None
    rank = len(source.shape)
    if step.operator == "Concat":
        if len(boxes) < len(step.inputs) or not all(box.even for box in boxes):
            return None
        low, high = (np.stack(ends) for ends in zip(*((b.low, b.high) for b in boxes), strict=True))
        return _box(low.min(axis=0), high.max(axis=0), box.axis)
    if len(boxes) > 1:
        return None
    if step.operator == "Cast":
        # To an integer rounds, and may overflow.
        return box if result.dtype is not None and result.dtype.is_floating_point() else None
    if step.operator in ("Identity", "Dropout"):
        return box
    if step.operator == "Transpose":
        order = list(step.attributes.get("perm") or range(rank)[::-1])
        return replace(box, axis=order.index(box.axis)) if box.axis < rank else box
    if step.operator == "Pad":
        return _padded(step, rank, box)
    # Operators whose elements are all some of the first input's.
    if has(step.operator, Fact.MOVES) and has(step.operator, Fact.CARRIES_BOUNDS):
        return box if box.even and source is step.inputs[0] else None
    if step.operator == "Neg":
        return replace(box, low=-box.high, high=-box.low)
    for axis in range(1, rank) if box.even else (box.axis,):
        affine = affine_of(step.node, source, axis)
        if affine is not None:
            scale, shift = affine
            ends = np.stack(np.broadcast_arrays(box.low * scale + shift, box.high * scale + shift))
            return _box(ends.min(axis=0), ends.max(axis=0), axis)
    return None


def _padded(step: Operation, rank: int, box: _Box) -> _Box | None:
    """Take bounds through a Pad, which may bring in a number beyond them."""
    amounts, axes = constant_of(step.input(1)), constant_of(step.input(3))
    fill = np.zeros(()) if step.input(2) is None else constant_of(step.input(2))
    if amounts is None or fill is None or (step.input(3) is not None and axes is None):
        return None
    chosen = [int(axis) % rank for axis in (range(rank) if axes is None else axes)]
    moved = any(amounts[[i, i + len(chosen)]].any() for i, a in enumerate(chosen) if a == box.axis)
    if moved and not box.even:
        return None
    if step.attributes.get("mode", "constant") != "constant":
        return box
    return _box(np.minimum(box.low, fill), np.maximum(box.high, fill), box.axis)
