"""Class activation maps: the last feature maps, weighted by gradients, in the input's size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import networkx as nx
import onnx_ir as ir

from onnxlrp.compiler.assignment import kinds_of
from onnxlrp.compiler.walk import Flow
from onnxlrp.errors import InputError
from onnxlrp.graph.analysis import Facts, reachable
from onnxlrp.graph.canonical import Network, operations
from onnxlrp.graph.head import channels_last, network_of
from onnxlrp.graph.score import Score
from onnxlrp.graph.shapes import dims_of
from onnxlrp.inputs.preprocessing import Preprocessing
from onnxlrp.propagation import layout
from onnxlrp.propagation.expression import Tensor, positive
from onnxlrp.propagation.formulas import stabilised

_POOLS = ("AveragePool", "MaxPool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "Resize")
_MOVES = ("Transpose", "Reshape", "Pad", "Slice", "Identity", "Cast", "Dropout")
_TINY = 1e-30


def _places(maps: Tensor) -> list[int]:
    return list(range(2, maps.rank))


def grad_cam(maps: Tensor, gradient: Tensor) -> Tensor:
    """max(0, sum_k w_k A_k), w_k the mean of dS/dA_k (Selvaraju et al. 2017, eqs. 1 and 2)."""
    ones = layout.filled(gradient, 1.0)
    places = _places(maps)
    weights = layout.reduce_sum(gradient, places) / layout.reduce_sum(ones, places)
    return positive(layout.reduce_sum(weights * maps, [1]))


def grad_cam_plus_plus(maps: Tensor, gradient: Tensor) -> Tensor:
    """The same with w_k = sum g² max(g, 0) / (2 g² + g³ sum A_k) (Chattopadhay et al. 2018).

    g = dS/dA_k; eqs. 10 to 19, where the score is exp(S), whose factor all weights share.
    """
    total = layout.reduce_sum(maps, _places(maps))
    # g² is in both parts of the fraction.
    parts = positive(gradient) / stabilised(2.0 + gradient * total, _TINY)
    weights = layout.reduce_sum(parts, _places(maps))
    return positive(layout.reduce_sum(weights * maps, [1]))


def hires_cam(maps: Tensor, gradient: Tensor) -> Tensor:
    """sum_k A_k dS/dA_k, with both signs (Draelos and Carin 2020, eq. 3)."""
    # As a node of its own, so that the gradient is in the file, for whoever checks it.
    return layout.reduce_sum(maps.emitter.elementwise("Mul", gradient, maps), [1])


MAPS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Grad-CAM": grad_cam,
    "Grad-CAM++": grad_cam_plus_plus,
    "HiRes-CAM": hires_cam,
}
"""From feature maps A, [N, K, ...], and the gradient of the score by them: the map, [N, 1, ...]."""


def from_feature_maps(network: Network, facts: Facts) -> Network:
    """Return the network with its last feature maps in the place of the explained input.

    That is the value nearest the score that has places, lies behind a convolution on every way
    from the input to the score, and was not pooled.

    Raises
    ------
    InputError
        If there are several inputs, no such value, or attention.

    """
    if len(network.inputs) != 1:
        raise InputError("a class activation map is of one input: choose it with --input")
    (source,) = network.inputs
    rank = None if source.shape is None else len(source.shape)
    path = facts.graph.subgraph([*facts.operations, *facts.relevant]).reverse()
    above = nx.immediate_dominators(path, id(network.score))
    made = {id(v): op for op in facts.operations for v in op.outputs}
    place, found = id(source), None
    while place != id(network.score):
        place = above[place]
        operation = made.get(place) if isinstance(place, int) else None
        if operation is None or operation.operator in _POOLS + _MOVES:
            continue
        value = next(v for v in operation.outputs if id(v) == place)
        sizes = () if value.shape is None else dims_of(value.shape)
        behind = reachable(facts.graph, [operation], nx.ancestors)
        if (
            len(sizes) == rank
            and any(size != 1 for size in sizes[2:])
            and any(getattr(node, "operator", "") == "Conv" for node in behind)
        ):
            found = value
    if found is None or "attention" in kinds_of(facts):
        raise InputError(
            "a class activation map is drawn of the last layer of a convolutional network that has "
            "places: this one has "
            + ("attention behind it" if found is not None else "none")
            + "; take a composite of relevance, such as default"
        )
    score = Score(network.score, network.output, network.signs, network.place)
    return network_of(network.graph, operations(network.graph), score, [found])


def drawn(
    flow: Flow, kind: str, maps: ir.Value, source: ir.Value, preprocessing: Preprocessing | None
) -> Flow:
    """Draw the map in the input's size, by linear interpolation, each channel with its part.

    Parameters
    ----------
    flow : holds the gradient of the feature maps
    kind : one of `MAPS`
    maps, source : the feature maps, and the input that the map is of
    preprocessing : says where the input's channels are; where it is None, the graph does

    """
    emitter = flow.emitter
    if maps not in flow.relevance or flow.relevance[maps].is_zero:
        return flow
    emitter.explain("map", kind, {})
    small = MAPS[kind](emitter.tensor(maps), flow.relevance[maps])
    like = emitter.tensor(source)
    last = preprocessing.layout == "NHWC" if preprocessing else channels_last(source)
    channel, axes = (like.rank - 1, range(1, like.rank - 1)) if last else (1, range(2, like.rank))
    large = emitter.node(
        "Resize",
        small,
        None,
        None,
        emitter.vector([layout.size(small, 0), 1, *(layout.size(like, axis) for axis in axes)]),
        shape=(small.shape[0], 1, *(like.shape[axis] for axis in axes)),
        dtype=small.dtype,
        sign=small.sign,
        mode="linear",
    )
    part = large / _as_number(layout.size(like, channel), large)
    turned = layout.transpose(part, [0, *range(2, like.rank), 1]) if last else part
    sizes = [layout.size(like, axis) if axis == channel else 1 for axis in range(like.rank)]
    whole = emitter.node(
        "Expand",
        turned,
        emitter.vector(sizes),
        shape=(small.shape[0], *like.shape[1:]),
        dtype=small.dtype,
        sign=small.sign,
    )
    return replace(flow, relevance={**flow.relevance, source: whole})


def _as_number(size: int | Tensor, like: Tensor) -> Tensor:
    if isinstance(size, int):
        return like.emitter.scalar(float(size), like)
    return layout.cast(size, like.dtype, size.sign)
