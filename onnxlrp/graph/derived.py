"""Weights that are computed of quantised ones when a model is loaded, and not stored."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from onnxlrp.errors import ModelError
from onnxlrp.graph.quantised import DEQUANTISED, READS
from onnxlrp.graph.shapes import Dim, alike, dims_of
from onnxlrp.graph.tensors import SMALL

Array = np.ndarray[Any, Any]

NARROW_INTEGERS = {
    *(ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT4, ir.DataType.UINT4),
    *(ir.DataType.INT2, ir.DataType.UINT2),
}
"""Types of weights that would take several times their room as real numbers."""

_NARROW = {
    *NARROW_INTEGERS,
    *(ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT8E4M3FNUZ, ir.DataType.FLOAT8E5M2),
    *(ir.DataType.FLOAT8E5M2FNUZ, ir.DataType.FLOAT4E2M1),
}


def widens(node: ir.Node) -> bool:
    """Whether a node writes large quantised weights as real numbers."""
    x = node.inputs[0] if node.inputs else None
    tensor = None if x is None else x.const_value
    return tensor is not None and tensor.dtype in _NARROW and tensor.size > SMALL


def check_scales(graph: ir.Graph, weights: Mapping[str, ir.Value]) -> None:
    """Check that scales and zero points fit what they quantise, as far as sizes are known.

    Parameters
    ----------
    graph : a quantised model's twin (`graph.quantised`), its shapes inferred
    weights : the model's initializers, by name

    Raises
    ------
    ModelError
        An axis that there is not, or scales or zero points that are too few or too many for it.

    """
    for node in graph:
        given = {name: attribute.value for name, attribute in node.attributes.items()}
        if READS in node.metadata_props:
            told = json.loads(node.metadata_props[READS])
            if told["how"] != DEQUANTISED:
                continue
            given = {} if told["axis"] is None else {"axis": told["axis"]}
            names = told["of"]
            values = [node.outputs[0], *map(weights.get, names[1:])]
        elif node.op_type == "DequantizeLinear":
            values = list(node.inputs)
            names = ["" if value is None else value.name for value in values]
        else:
            continue
        q, scale, zero = [*map(_sizes, values), None][:3]
        wrong = _misfit(q, scale, zero, given.get("axis", 1), given.get("block_size", 0))
        if wrong:
            raise ModelError(
                f"{node.name} is malformed, by which '{names[0]}' is quantised, with scale "
                f"'{names[1]}': {wrong}"
            )


def _sizes(value: ir.Value | None) -> Sequence[Dim] | None:
    return None if value is None or value.shape is None else dims_of(value.shape)


def _misfit(
    q: Sequence[Dim] | None,
    scale: Sequence[Dim] | None,
    zero: Sequence[Dim] | None,
    axis: int,
    block: int,
) -> str:
    """Tell what does not fit, "" if nothing is known not to."""
    sizes = [dim for dim in (scale or ()) if isinstance(dim, int)]
    if scale is None or len(sizes) < len(scale):
        return ""
    count = math.prod(sizes)
    offsets = 1 if zero is None else math.prod(dim for dim in zero if isinstance(dim, int))
    if zero is not None and (not alike(zero, scale) if block else offsets not in (1, count)):
        return f"its scale has the sizes {sizes}, its zero point {list(zero)}"
    if q is None or (count == 1 and not block):
        return ""
    if not -len(q) <= axis < len(q):
        return f"it is along axis {axis}, where there are {len(q)} axes"
    if block < 0:
        return f"its block_size is {block}"
    wanted = list(q) if block else [q[axis]]
    if block:
        wanted[axis] = -(-size // block) if isinstance(size := q[axis], int) else size
    if count and alike(sizes if block else [count], wanted):
        return ""
    return f"its scale has the sizes {sizes}, where {wanted} are asked for along axis {axis}"


def hold_derived(graph: ir.Graph) -> None:
    """Let values that are computed of quantised weights alone tell what they hold.

    They stay computed, so that a file need not hold them.
    """
    derived: set[ir.Value] = set()
    for node in graph:
        inputs = [value for value in node.inputs if value is not None]
        starts = node.op_type == "DequantizeLinear" or widens(node)
        if (
            len(node.outputs) != 1
            or not inputs
            or not (starts or any(value in derived for value in inputs))
            or any(value.const_value is None or value.is_graph_input() for value in inputs)
        ):
            continue
        (value,) = node.outputs
        if value.dtype is not None and value.shape is not None and value.shape.is_static():
            derived.add(value)
            value.const_value = ir.LazyTensor(
                partial(_derived, node), value.dtype, value.shape, name=value.name, cache=True
            )


def _derived(node: ir.Node) -> ir.TensorProtocol:
    inputs = [v for v in node.inputs if v is not None and v.const_value is not None]
    arrays = {v.name or "": v.const_value.numpy() for v in inputs if v.const_value is not None}
    if node.op_type == "DequantizeLinear":
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        return ir.tensor(dequantised(*(arrays[v.name or ""] for v in inputs), **attributes))
    proto = ir.to_proto(node)
    assert isinstance(proto, onnx.NodeProto)
    assert node.graph is not None
    opsets = {"": node.graph.opset_imports[""]}
    (found,) = ReferenceEvaluator(proto, opsets=opsets).run(None, arrays)
    return ir.tensor(np.asarray(found))


def dequantised(
    q: Array,
    scale: Array,
    zero: Array | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    **_: int,
) -> Array:
    """(q - zero) scale, of one scale, one for each place along an axis, or for each block there."""

    def along(each: Array) -> Array:
        if each.size == 1 and not block_size:
            return each.reshape(())
        if block_size:
            return np.repeat(each, block_size, axis)[tuple(map(slice, q.shape))]
        return each.reshape([-1 if a == axis % q.ndim else 1 for a in range(q.ndim)])

    wide = q.astype(np.float64)
    if zero is not None:
        wide = wide - along(zero.astype(np.float64))
    # As the operator does: the difference, then the product, each rounded.
    return wide.astype(scale.dtype) * along(scale)
