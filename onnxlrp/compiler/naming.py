"""Names that the model does not use, and the inputs that an explainer adds to the model's."""

from __future__ import annotations

import onnx_ir as ir


def value_names(graph: ir.Graph) -> set[str]:
    """Names of all values of a graph."""
    values = [*graph.inputs, *graph.initializers.values()]
    values += [value for node in graph for value in node.outputs]
    return {value.name for value in values if value.name}


def free(name: str, taken: set[str]) -> str:
    """Return a name, with as many prefixes as it takes to make it new."""
    while name in taken:
        name = f"onnxlrp_{name}"
    return name


def target_input(graph: ir.Graph) -> ir.Value:
    """Return the int64 input that takes the class, [N] or [1]; it is not in the graph yet."""
    return ir.Value(
        name=free("target", value_names(graph)),
        shape=ir.Shape(["targets"]),
        type=ir.TensorType(ir.DataType.INT64),
    )


def weights_input(graph: ir.Graph, classes: int, dtype: ir.DataType) -> ir.Value:
    """Return the float input that weights scores, [N, classes] or [1, classes]; not there yet."""
    return ir.Value(
        name=free("weights", value_names(graph)),
        shape=ir.Shape(["weights", classes]),
        type=ir.TensorType(dtype),
    )


def mask_input(value: ir.Value, graph: ir.Graph) -> ir.Value:
    """Return the float input `mask_<value>`, of any shape that broadcasts to the value's."""
    name = free(f"mask_{value.name}", value_names(graph))
    rank = 0 if value.shape is None else len(value.shape)
    dtype = ir.DataType.DOUBLE if value.dtype is ir.DataType.DOUBLE else ir.DataType.FLOAT
    shape = ir.Shape([f"{name}_{axis}" for axis in range(rank)])
    return ir.Value(name=name, shape=shape, type=ir.TensorType(dtype))
