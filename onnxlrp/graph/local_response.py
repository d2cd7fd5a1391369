"""Local response normalisation as PyTorch's exporters spell it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxlrp.graph.operators import operator_of

ConstantOf = Callable[[ir.Value | None], "np.ndarray[Any, Any] | None"]

_VIEWS = ("Reshape", "Squeeze", "Unsqueeze", "Identity")


@dataclass(frozen=True)
class DecomposedLrn:
    """What the pattern computes: x / (bias + alpha / size * window sum of x²)^beta.

    Attributes
    ----------
    x : the normalised value
    attributes : alpha, beta, bias, size, and how many channels `before` and `after` count
    nodes : the nodes of the pattern, the division last

    """

    x: ir.Value
    attributes: Mapping[str, float | int]
    nodes: tuple[ir.Node, ...]


def recognise_lrn(node: ir.Node, constant_of: ConstantOf) -> DecomposedLrn | None:
    """Match x / (bias + alpha * AveragePool over channels(x²))^beta, ending in `node`.

    `torch.nn.functional.local_response_norm` writes the division; the mean's window is
    [k - size // 2, k + (size - 1) // 2], the mirror image of ONNX's for an even size.
    """
    if operator_of(node) != "Div":
        return None
    x, power = node.inputs
    exponent, raised = _with_constant(power, "Pow", constant_of)
    offset, summed = _with_constant(raised, "Add", constant_of)
    factor, mean = _with_constant(summed, "Mul", constant_of)
    if x is None or exponent is None or offset is None or factor is None:
        return None
    chain: list[ir.Node] = []
    pool: ir.Node | None = None
    extent: tuple[int, int] | None = None
    value = mean
    while value is not None and (step := value.producer()) is not None:
        operator = operator_of(step)
        if operator == "AveragePool" and pool is None and _plain(step):
            pool = step
        elif operator == "Pad" and pool is not None and extent is None:
            extent = _single_axis(_zeros(step, constant_of))
            if extent is None:
                return None
        elif operator not in _VIEWS:
            break
        chain.append(step)
        value = step.inputs[0]
    square = value.producer() if value is not None else None
    if pool is None or square is None or not _squares(square, x, constant_of):
        return None
    kernel = [size for size in pool.attributes["kernel_shape"].value if size != 1]
    own = pool.attributes.get("pads")
    if own is not None and any(own.value):
        # Of two paddings, or one that does not count, the mean is not over `size` channels.
        counted = pool.attributes.get("count_include_pad")
        if extent is not None or counted is None or not counted.value:
            return None
        extent = _single_axis(np.asarray(own.value))
    if len(kernel) != 1 or extent is None or sum(extent) != kernel[0] - 1:
        return None
    if not _pools_channels(pool, x):
        return None
    outer = [value.producer() for value in (summed, raised, power) if value is not None]
    return DecomposedLrn(
        x,
        {
            "alpha": factor,
            "beta": exponent,
            "bias": offset,
            "size": kernel[0],
            "before": extent[0],
            "after": extent[1],
        },
        (square, *reversed(chain), *(n for n in outer if n is not None), node),
    )


def _plain(pool: ir.Node) -> bool:
    """Whether a pool takes every window, one step from the last."""
    attributes = {name: attribute.value for name, attribute in pool.attributes.items()}
    return (
        all(stride == 1 for stride in attributes.get("strides") or [1])
        and all(dilation == 1 for dilation in attributes.get("dilations") or [1])
        and attributes.get("auto_pad", "NOTSET") in ("NOTSET", "VALID")
        and not attributes.get("ceil_mode", 0)
    )


def _zeros(pad: ir.Node, constant_of: ConstantOf) -> np.ndarray[Any, Any] | None:
    """Return the amounts, of all axes, by which a node pads with zeros; None for other pads."""
    mode = pad.attributes["mode"].value if "mode" in pad.attributes else "constant"
    fill = pad.inputs[2] if len(pad.inputs) > 2 else None
    constant = constant_of(fill)
    zero = fill is None or (constant is not None and not constant.any())
    whole = len(pad.inputs) < 4 or pad.inputs[3] is None
    return constant_of(pad.inputs[1]) if mode == "constant" and zero and whole else None


def _with_constant(
    value: ir.Value | None, op: str, constant_of: ConstantOf
) -> tuple[float | None, ir.Value | None]:
    node = value.producer() if value is not None else None
    if node is None or operator_of(node) != op:
        return None, None
    for constant, other in ((1, 0), (0, 1)):
        array = constant_of(node.inputs[constant])
        if array is not None and array.size == 1 and (constant == 1 or op != "Pow"):
            return float(array.reshape(())), node.inputs[other]
    return None, None


def _squares(node: ir.Node, x: ir.Value, constant_of: ConstantOf) -> bool:
    if operator_of(node) == "Mul":
        return node.inputs[0] is x and node.inputs[1] is x
    exponent = constant_of(node.inputs[1]) if operator_of(node) == "Pow" else None
    return exponent is not None and node.inputs[0] is x and bool(np.all(exponent == 2))


def _single_axis(pads: np.ndarray[Any, Any] | None) -> tuple[int, int] | None:
    """Begin and end of pads that touch one axis only."""
    if pads is None:
        return None
    half = len(pads) // 2
    touched = [i for i in range(half) if pads[i] or pads[i + half]]
    if len(touched) != 1:
        return (0, 0) if not touched else None
    return int(pads[touched[0]]), int(pads[touched[0] + half])


def _pools_channels(pool: ir.Node, x: ir.Value) -> bool:
    """Tell whether the pooled axis is x's channels, moved behind a new axis of size 1."""
    pooled = pool.inputs[0]
    if pooled is None or pooled.shape is None or x.shape is None or len(x.shape) < 2:
        return False
    kernel = list(pool.attributes["kernel_shape"].value)
    # The pool may not see an axis 1 of size other than 1 except the channels it slides over; of a
    # picture of one channel, which has that without a new axis, it would pool the rows.
    return kernel[0] != 1 and pooled.shape[1] == 1 and pooled is not x and x.shape[1] != 1
