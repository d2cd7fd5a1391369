"""A second forward pass, of the reference that relevance is counted from.

Its nodes are copies of the model's. Where the reference is a constant, so is all that they compute,
and onnxruntime folds it when it loads the explainer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxlrp.errors import InputError
from onnxlrp.graph.canonical import Array, Network
from onnxlrp.graph.head import channels_last
from onnxlrp.graph.operators import operator_of
from onnxlrp.graph.score import FLOATS
from onnxlrp.graph.shapes import REFERENCES, Dim, dims_of
from onnxlrp.inputs.references import BLUR
from onnxlrp.propagation import layout
from onnxlrp.propagation.expression import Emitter, Sign, Tensor

AT_REFERENCE = "onnxlrp/reference/"
"""In front of a value's name, that of what it is at the reference."""


@dataclass(frozen=True)
class Roots:
    """What the network's values are at the reference.

    Attributes
    ----------
    values : by id of a value of the model; of those, only what is asked for gets written
    inputs : of the explainer, by explained input, where the reference is given at run time

    """

    values: Mapping[int, Tensor] = field(default_factory=dict)
    inputs: Mapping[ir.Value, ir.Value] = field(default_factory=dict)


def roots(
    emitter: Emitter, network: Network, reference: Mapping[str, Array | str], names: set[str]
) -> Roots:
    """Write the forward pass of a reference.

    Parameters
    ----------
    emitter : writes the nodes
    network : of the model
    reference : by explained input, an array that broadcasts to one sample of it, "blur" or "input"
    names : those that the model's values have

    Raises
    ------
    InputError
        If an array does not fit its input, or a subgraph would have to be copied.

    """
    emitter.explain("reference", "input", {})
    # Where a sample's size is only known at run time, the reference is as many as the input has.
    fixed = _keeps_samples_apart(network) and all(
        isinstance(size, int)
        for source in network.inputs
        if source.shape is not None and not isinstance(reference[source.name or ""], str)
        for size in dims_of(source.shape)[1:]
    )
    given: dict[ir.Value, Tensor] = {}
    inputs: dict[ir.Value, ir.Value] = {}
    for source in network.inputs:
        array = reference[source.name or ""]
        if isinstance(array, str) and array == BLUR:
            given[source] = _blurred(emitter, source)
        elif isinstance(array, str):
            name = "reference" if len(network.inputs) == 1 else f"reference_{source.name}"
            inputs[source] = _input_like(source, name, names)
            wide = Tensor(emitter, inputs[source])
            given[source] = wide if fixed else layout.expand(wide, Tensor(emitter, source))
        else:
            given[source] = _constant(emitter, source, array, fixed)
        made = given[source].value
        assert made is not None
        made.name = made.name or f"{AT_REFERENCE}{source.name}"
    values = _copied(emitter, network.graph, given)
    tensors = {
        id(value): emitter.tensor(copy) for value, copy in values.items() if value.dtype in FLOATS
    }
    for source in network.inputs:
        array = reference[source.name or ""]
        if not isinstance(array, str) and not array.any():
            # x - 0 is x.
            tensors[id(source)] = Tensor(emitter, given[source].value, Sign.ZERO)
    return Roots(tensors, inputs)


def _keeps_samples_apart(network: Network) -> bool:
    """Whether every value has its samples along axis 0, so that one of them stands for all."""
    batches = {dims_of(v.shape)[0] for v in network.inputs if v.shape is not None and len(v.shape)}
    if len(batches) != 1 or len(network.graph.inputs) != len(network.inputs):
        return False
    (batch,) = batches
    # A batch that is fixed may be written into the shapes that the model computes with.
    if isinstance(batch, int) and batch > 1:
        return False
    floats = [v for op in network.operations for v in op.outputs if v.dtype in FLOATS]
    return all(v.shape is not None and dims_of(v.shape)[:1] == (batch,) for v in floats)


def _input_like(source: ir.Value, name: str, names: set[str]) -> ir.Value:
    if name in names:
        raise InputError(
            f"the model has a value '{name}' of its own, as the explainer's input is called"
        )
    assert source.shape is not None
    rest = dims_of(source.shape)[1:]
    return ir.Value(name=name, shape=ir.Shape([REFERENCES, *rest]), type=source.type)


def _constant(emitter: Emitter, source: ir.Value, array: Array, alone: bool) -> Tensor:
    """Write an array as one sample, or as many as the input has."""
    like = Tensor(emitter, source)
    sample = like.shape[1:]
    dtype = like.dtype.numpy()
    if array.ndim > len(sample) or not _fits(array.shape, sample):
        raise InputError(
            f"the reference of shape {list(array.shape)} does not fit a sample of '{source.name}', "
            f"{list(sample)}"
        )
    if source.dtype is ir.DataType.STRING:
        if array.any():
            raise InputError(f"'{source.name}' holds texts: its reference is zero, no category")
        array = np.full(array.shape, b"")
    constant = emitter.constant(np.ascontiguousarray(array[None].astype(dtype)))
    if all(isinstance(size, int) for size in sample):
        batch: Dim = 1 if alone else like.shape[0]
        if isinstance(batch, int):
            shape = (batch, *sample)
            sizes = emitter.constant(np.array(shape, np.int64))
            return emitter.node("Expand", constant, sizes, shape=shape, dtype=like.dtype)
    return emitter.node("Expand", constant, layout.sizes(like), shape=like.shape, dtype=like.dtype)


def _blurred(emitter: Emitter, source: ir.Value) -> Tensor:
    """Blur by a Gaussian whose deviation is an eighth of the shorter side, axis after axis.

    Beyond the border lies what is at the border.
    """
    x, last = emitter.tensor(source), channels_last(source)
    rank = x.rank
    if last:
        x = layout.transpose(x, [0, rank - 1, *range(1, rank - 1)])
    channels, *sides = x.shape[1:]
    if not sides or not isinstance(channels, int) or not all(isinstance(n, int) for n in sides):
        raise InputError(
            f"'{source.name}' has no sides of known size along which to blur it: give another "
            "reference than blur"
        )
    deviation = min(n for n in sides if isinstance(n, int)) / 8
    reach = math.ceil(3 * deviation)
    bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    for axis in range(2, rank):
        window = [2 * reach + 1 if other == axis else 1 for other in range(2, rank)]
        kernel = np.broadcast_to((bell / bell.sum()).reshape(window), (channels, 1, *window))
        ends = [reach if other == axis else 0 for other in range(rank)]
        wide = [n + 2 * e if isinstance(n, int) else n for n, e in zip(x.shape, ends, strict=True)]
        edges = emitter.node(
            "Pad", x, emitter.vector(ends * 2), shape=wide, dtype=x.dtype, mode="edge"
        )
        weights = emitter.constant(np.ascontiguousarray(kernel, x.dtype.numpy()))
        x = emitter.node("Conv", edges, weights, shape=x.shape, dtype=x.dtype, group=channels)
    return layout.transpose(x, [0, *range(2, rank), 1]) if last else x


def _fits(shape: tuple[int, ...], sample: tuple[Dim, ...]) -> bool:
    aligned = sample[len(sample) - len(shape) :]
    return all(
        size in (1, known) or not isinstance(known, int)
        for size, known in zip(shape, aligned, strict=True)
    )


def _copied(
    emitter: Emitter, graph: ir.Graph, given: Mapping[ir.Value, Tensor]
) -> dict[ir.Value, ir.Value]:
    """Copy every node that the given values reach, and return what each value is then."""
    batch = {dims_of(source.shape)[0]: t.shape[0] for source, t in given.items() if source.shape}
    found = {source: t.value for source, t in given.items() if t.value is not None}
    for node in graph:
        if not any(value in found for value in node.inputs if value is not None):
            continue
        if any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values()):
            raise InputError(
                f"{node.name} ({operator_of(node)}) has a subgraph: no reference can pass it"
            )
        inputs = [None if v is None else found.get(v, v) for v in node.inputs]
        outputs = [
            ir.Value(name=f"{AT_REFERENCE}{v.name}", shape=_shape(v, batch), type=v.type)
            for v in node.outputs
        ]
        copy = ir.Node(
            node.domain, node.op_type, inputs, list(node.attributes.values()), outputs=outputs
        )
        copy.meta["label"] = (node.name or node.op_type, "reference")
        emitter.nodes.append(copy)
        found.update(zip(node.outputs, outputs, strict=True))
    return found


def _shape(value: ir.Value, batch: Mapping[Dim, Dim]) -> ir.Shape | None:
    if value.shape is None:
        return None
    dims = dims_of(value.shape)
    return ir.Shape([*(batch.get(size, size) for size in dims[:1]), *dims[1:]])
