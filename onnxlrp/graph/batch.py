"""Makes a batch that was exported with a fixed size symbolic."""

from __future__ import annotations

import onnx


def free_batch(proto: onnx.ModelProto) -> None:
    """Give axis 0 of every input a symbolic size, and drop every shape and reshape that fixed it.

    The symbol is the one that an input has there already, else `batch`. Of the reshapes only those
    of values that depend on an input are rewritten: a parameter of [1, C, 1, 1] has no batch.
    """
    graph = proto.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    axes = [dims[0] for value in inputs if (dims := value.type.tensor_type.shape.dim)]
    symbol = next((axis.dim_param for axis in axes if axis.dim_param), "batch")
    for axis in axes:
        if not axis.dim_param:
            axis.dim_param = symbol
    del graph.value_info[:]
    for value in graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                constants[node.output[0]] = attribute.t
    live = _live(graph, {value.name for value in inputs})
    freed: dict[str, onnx.TensorProto] = {}
    for node in graph.node:
        if node.op_type != "Reshape" or len(node.input) < 2 or node.input[0] not in live:
            continue
        name = node.input[1]
        shape = onnx.numpy_helper.to_array(constants[name]).copy() if name in constants else None
        if shape is not None and shape.ndim == 1 and shape.size and shape[0] == 1:
            # 0 copies the input's own size, and stays right when another entry is -1.
            shape[0] = 0
            # A constant may be read elsewhere, too.
            freed[name] = onnx.numpy_helper.from_array(shape, f"{name}_of_any_batch")
            node.input[1] = freed[name].name
    graph.initializer.extend(freed.values())


def _live(graph: onnx.GraphProto, live: set[str]) -> set[str]:
    """Return the values that depend on `live`; the nodes may be in any order."""
    count = -1
    while count != len(live):
        count = len(live)
        for node in graph.node:
            if not live.isdisjoint(node.input):
                live.update(node.output)
    return live - {""}
