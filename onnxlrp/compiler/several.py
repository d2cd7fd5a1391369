"""Several classes of one sample in one run: all that relevance is not made of is computed once.

With one sample and K classes, relevance has a batch of K and every value of the model one of 1;
elementwise operators broadcast, convolutions and matrix products of relevance are linear in it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import onnx_ir as ir

from onnxlrp.graph.analysis import Facts, reads
from onnxlrp.graph.canonical import Network, Operation
from onnxlrp.graph.recurrent import RECURRENT
from onnxlrp.graph.shapes import Dim, dims_of

_ADDRESSED = ("ScatterND", "GatherND")
"""Operators that address samples by number, whose elements of one sample are found nowhere else."""

_ACROSS = {"MeanVarianceNormalization": [0, 2, 3]}
"""Axes that an operator works along where it does not say."""


def takes_several(network: Network, facts: Facts) -> bool:
    """Tell whether one sample can be explained for several classes in one run.

    It cannot where the batch is fixed, or is lost on the way, or relevance of one sample depends on
    that of others. Where batch and another axis become one, only onnxruntime can tell.
    """
    symbols = {dims_of(value.shape)[0] for value in network.inputs if value.shape}
    crossed = [
        dims_of(value.shape)
        for operation in facts.operations
        for value in (*operation.inputs, *operation.outputs)
        if value is not None and id(value) in facts.relevant and value.shape is not None
    ]
    return (
        all(not isinstance(symbol, int) for symbol in symbols)
        and all(any(not isinstance(size, int) for size in shape) for shape in crossed)
        and not any(_across_samples(operation, symbols) for operation in facts.operations)
    )


def _across_samples(operation: Operation, symbols: set[Dim]) -> bool:
    """Tell whether an operator works along the axis of the samples."""
    value = operation.inputs[0]
    if value is None or value.shape is None:
        return False
    shape = dims_of(value.shape)
    if operation.operator in _ADDRESSED and not operation.attributes.get("batch_dims", 0):
        return not isinstance(shape[0], int)
    if operation.operator in RECURRENT:
        return shape[0] is None or shape[0] in symbols
    axes = operation.attributes.get("axes", _ACROSS.get(operation.operator, ()))
    if operation.operator != "Flatten" and "axis" in operation.attributes:
        axes = [operation.attributes["axis"]]
    # A size without a name may be the number of samples where these lie in most models.
    return any(
        not isinstance(shape[axis], int)
        and (shape[axis] in symbols or shape[axis] is None or axis % len(shape) == 0)
        for axis in map(int, axes)
        if -len(shape) <= axis < len(shape)
    )


def give_own_batch(
    nodes: Iterable[ir.Node], targets: Iterable[ir.Value], inputs: Sequence[ir.Value]
) -> None:
    """Give the symbolic sizes of all that depends on the targets names of their own.

    onnxruntime lets values share memory whose sizes have the same names. What the sizes of a sample
    are called stays.

    Parameters
    ----------
    nodes : in topological order
    targets : what chooses the classes
    inputs : that are explained

    """
    kept = {
        size for value in inputs if value.shape is not None for size in dims_of(value.shape)[1:]
    }
    for node in depending(nodes, targets):
        for value in node.outputs:
            if value.shape is not None:
                value.shape = ir.Shape([_own(d, kept) for d in dims_of(value.shape)])


def depending(nodes: Iterable[ir.Node], values: Iterable[ir.Value]) -> list[ir.Node]:
    """Return those of some nodes, in topological order, that depend on one of the values."""
    reached, found = {id(value) for value in values}, []
    for node in nodes:
        if any(id(value) in reached for value in reads(node)):
            reached.update(id(value) for value in node.outputs)
            found.append(node)
    return found


def _own(size: Dim, kept: Collection[Dim]) -> Dim:
    return f"explained_{size}" if isinstance(size, str) and size not in kept else size
