"""Which inputs may lack values, because the model fills them in before it computes with them."""

from __future__ import annotations

import onnx_ir as ir

from onnxlrp.graph.score import FLOATS

_CARRIES = frozenset(
    (
        *("Cast", "Concat", "Dropout", "Flatten", "Gather", "Identity", "Reshape", "Slice"),
        *("Split", "Squeeze", "Transpose", "Unsqueeze"),
    )
)
"""Their results hold a NaN where it was, and nothing new."""

_ASKS = frozenset(("IsNaN", "TreeEnsemble", "TreeEnsembleRegressor"))
"""They give a number whether a value is missing or not."""


def filled_in(graph: ir.Graph) -> list[str]:
    """Return the inputs whose NaNs reach nothing but what tells them from numbers.

    That are trees, which have a way for missing values, and what scikit-learn's imputers are
    exported as, and torch's nan_to_num: a Where by IsNaN.
    """
    return [value.name or "" for value in graph.inputs if _is_filled_in(value)]


def _is_filled_in(source: ir.Value) -> bool:
    todo, seen = [source], {source}
    asked = False
    while todo:
        value = todo.pop()
        for node, index in value.uses():
            # A whole number is never NaN, but what one becomes of it is anything.
            if node.op_type in _CARRIES and node.outputs[0].dtype in FLOATS:
                new = [one for one in node.outputs if one not in seen]
                todo += new
                seen.update(new)
            elif node.op_type not in _ASKS and not _chosen(node, index, value):
                return False
            asked = asked or node.op_type in _ASKS
    return asked and not any(value.is_graph_output() for value in seen)


def _chosen(node: ir.Node, index: int, value: ir.Value) -> bool:
    """Tell a Where that takes a value only where that is not missing."""
    if node.op_type != "Where" or index == 0:
        return False
    condition, where = node.inputs[0], 2
    asks = None if condition is None else condition.producer()
    if asks is not None and asks.op_type == "Not":
        condition, where = asks.inputs[0], 1
        asks = None if condition is None else condition.producer()
    return (
        asks is not None and asks.op_type == "IsNaN" and asks.inputs[0] is value and index == where
    )
