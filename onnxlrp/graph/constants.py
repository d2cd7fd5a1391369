"""What depends on no input, computed once: constants are folded into initializers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
from onnx.reference import ReferenceEvaluator
from onnxscript.optimizer import fold_constants

from onnxlrp.graph.derived import widens
from onnxlrp.graph.operators import operator_of
from onnxlrp.graph.shapes import dims_of

Array = np.ndarray[Any, Any]

# Elements of a constant that is written out: 1 GB of float32.
_MOST_FOLDED = 1 << 28

_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def fold(model: ir.Model) -> None:
    """Compute all that depends on constants alone, but what is too large to hold."""
    while True:
        with _unread(model.graph):
            fold_constants(
                model,
                onnx_shape_inference=True,
                input_size_limit=_MOST_FOLDED,
                output_size_limit=_MOST_FOLDED,
                should_fold=_should_fold,
            )
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        left = [node for node in model.graph if _is_left(node)]
        if not left:
            return
        for node in left:
            _compute(node)
        passes.RemoveUnusedNodesPass()(model)


@contextmanager
def _unread(graph: ir.Graph) -> Iterator[None]:
    """Keep onnxscript from each SplitToSequence, for it fails where the sizes are not known."""
    found = [node for node in graph.all_nodes() if operator_of(node) == "SplitToSequence"]
    for node in found:
        node.domain = "unread"
    try:
        yield
    finally:
        for node in found:
            node.domain = ""


def _should_fold(node: ir.Node) -> bool | None:
    """Fold also what fills constants, which zoo files write weights with; but none too large."""
    if any(value.dtype is ir.DataType.STRING for value in node.outputs):
        # onnxscript cannot hold texts that it computed.
        return False
    sizes = [dims_of(value.shape) for value in node.outputs if value.shape is not None]
    fills = node.op_type == "ConstantOfShape"
    asked = node.inputs[0] if fills and node.inputs else None
    shape = None if asked is None else ir.convenience.get_const_tensor(asked)
    if shape is not None:
        sizes.append(tuple(shape.numpy().tolist()))
    known = [math.prod(d for d in dims if isinstance(d, int)) for dims in sizes]
    if any(count > _MOST_FOLDED for count in known) or widens(node):
        return False
    return True if fills else None


def _is_left(node: ir.Node) -> bool:
    """Whether a node has several outputs, which onnxscript does not fold, of constants alone.

    Weights that are standardised whenever the network runs are such: a BatchNormalization in
    training mode, of a constant.
    """
    return (
        len(node.outputs) > 1
        and node.domain in ("", "ai.onnx")
        and not any(a.type in _GRAPHS for a in node.attributes.values())
        and len(node.inputs) > 0
        and all(v is None or (v.const_value is not None) for v in node.inputs)
        and not any(v is not None and v.is_graph_input() for v in node.inputs)
        and not any(v.is_graph_output() for v in node.outputs)
        and any(v.uses() for v in node.outputs)
        and _should_fold(node) is None
    )


def _compute(node: ir.Node) -> None:
    """Put initializers in the place of what a node computes."""
    graph = node.graph
    assert graph is not None
    values = {
        v.name or "": v.const_value.numpy()
        for v in node.inputs
        if v is not None and v.const_value is not None
    }
    for value, array in zip(node.outputs, computed(node, graph.opset_imports, values), strict=True):
        name = f"{value.name}_folded"
        constant = ir.Value(
            name=name,
            const_value=ir.tensor(array, name=name),
            shape=ir.Shape(array.shape),
            type=value.type,
        )
        graph.register_initializer(constant)
        ir.convenience.replace_all_uses_with(value, constant)


def computed(node: ir.Node, opsets: Mapping[str, int], values: Mapping[str, Array]) -> list[Array]:
    """Compute one of ONNX's own nodes by onnx's definition of it, given its inputs by name."""
    proto = ir.to_proto(node)
    assert isinstance(proto, onnx.NodeProto)
    found = ReferenceEvaluator(proto, opsets={"": opsets[""]}).run(None, dict(values))
    return [np.asarray(array) for array in found]
