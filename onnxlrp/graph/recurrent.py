"""LSTM, GRU and RNN in one spelling: time along axis 0, and what h is at every step has a name."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx import helper

RECURRENT = ("LSTM", "GRU", "RNN")

_STATES = (5, 6)
"""Inputs that hold h and c at the start."""


def time_first(graph: onnx.GraphProto) -> None:
    """Write layout 1, samples along axis 0, as layout 0 between Transposes.

    onnxruntime has kernels for layout 0 alone.
    """
    result: list[onnx.NodeProto] = []
    for node in graph.node:
        layout = next((a for a in node.attribute if a.name == "layout"), None)
        if node.op_type not in RECURRENT or node.domain not in ("", "ai.onnx") or layout is None:
            result.append(node)
            continue
        turned = onnx.NodeProto()
        turned.CopyFrom(node)
        turned.attribute.remove(layout)
        behind: list[onnx.NodeProto] = []
        if layout.i:
            stem = f"{next(filter(None, node.output))}/{node.op_type}"
            for place, name in enumerate(node.input):
                if name and place in (0, *_STATES):
                    turned.input[place] = f"{stem}/in{place}"
                    result.append(_transposed(name, turned.input[place], [1, 0, 2]))
            for place, name in enumerate(node.output):
                if name:
                    turned.output[place] = f"{stem}/out{place}"
                    order = [1, 0, 2] if place else [2, 0, 1, 3]
                    behind.append(_transposed(turned.output[place], name, order))
        result += [turned, *behind]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in result]
    del graph.node[:]
    graph.node.extend(copies)


def _transposed(name: str, made: str, order: list[int]) -> onnx.NodeProto:
    return helper.make_node("Transpose", [name], [made], made, perm=order)


def name_hidden(graph: ir.Graph) -> None:
    """Give what h is at every step a name, and with it all outputs in front of the last one.

    It is computed anyway, and relevance goes back from it.
    """
    for node in graph:
        if node.op_type in RECURRENT and node.domain in ("", "ai.onnx"):
            for place, value in enumerate(node.outputs):
                if not value.name:
                    value.name = f"{node.name}/{['hidden', 'last_h', 'last_c'][place]}"
                    # onnx has inferred one shape for all that is called nothing.
                    value.shape = None
