"""Across one node: the relevance of its outputs becomes that of its inputs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnxlrp.reference import differences, kernels, recurrent, sensitivity, trees
from onnxlrp.reference.contributions import (
    LINEAR,
    Block,
    Inputs,
    gathered,
    live_values,
    window_index,
)
from onnxlrp.reference.normalization import cross_lrn
from onnxlrp.reference.operators import (
    ACTIVATIONS,
    NORMALISATIONS,
    Array,
    attributes_of,
    forward,
    reduced_axes,
)
from onnxlrp.reference.products import (
    PRODUCTS,
    cross_softmax,
    expanded_normalisation,
    frozen_normalisation,
    parts_of,
    summed_to,
)
from onnxlrp.reference.rules import LINEAR_RULES, Contributions, evened, stab

CHUNK = 2**18
"""How many contributions z_ij are held at a time."""

PASSED_ON = frozenset(ACTIVATIONS) | {
    *("Identity", "Dropout", "Cast", "Binarizer", "LabelEncoder"),
}
"""Operators whose every output element has one input element, which receives its relevance."""

STRUCTURAL = {
    *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Concat", "Split", "Slice", "Pad"),
    *("Gather", "Where", "Expand", "Tile", "DepthToSpace", "SpaceToDepth"),
    *("GatherElements", "GatherND", "ScatterElements", "ScatterND", "TopK", "ReverseSequence"),
}
"""Operators that only move elements; relevance goes back to where its element came from."""


EXTREMA = ("Max", "Min", "MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin")


_JOINED = {
    "Concat": range(1 << 10),
    "Where": (1, 2),
    "ScatterElements": (0, 2),
    "ScatterND": (0, 2),
}
"""Inputs whose elements come together with the live ones, if they are constant."""


@dataclass(frozen=True)
class Propagated:
    """What became of the relevance of a node's outputs.

    ``relevance`` has one array per input, None where the input does not depend on the explained
    one. ``bias`` and ``stabiliser`` hold, per sample of axis 0, what constants and the stabiliser
    took: the three add up to what came in (for alpha-beta, alpha - beta times that). Of the LRN
    rules, ``taylor-unnormalised`` does not conserve, and ``gradient`` and its relatives do not
    anywhere: nobody took the difference.
    """

    relevance: list[Array | None]
    bias: Array
    stabiliser: Array


# --- Linear layers -------------------------------------------------------------------------------


def _chunks(block: Block) -> list[tuple[slice, slice]]:
    """Cut the outputs of a block so that no more than CHUNK contributions are held at a time."""
    rows, columns = block.output.shape
    inputs = max(block.index.shape[1], 1)
    wide = min(columns, max(1, CHUNK // inputs))
    high = max(1, CHUNK // (inputs * wide))
    return [
        (slice(r, r + high), slice(o, o + wide))
        for r in range(0, rows, high)
        for o in range(0, columns, wide)
    ]


def _samples(shape: Sequence[int]) -> int:
    return shape[0] if shape else 1


def _channels(node: onnx.NodeProto, v: Array, index: int) -> Array:
    """Return the channel of every element: its place on axis 1, or on the last of fewer axes.

    The features of a matrix product are those that it sums over: of its second operand, rows.
    """
    axis = 1 if v.ndim > 2 and node.op_type != "MatMul" else v.ndim - 1
    if node.op_type == "MatMul" and index == 1 and v.ndim > 1:
        axis = v.ndim - 2
    return np.indices(v.shape)[axis] if v.ndim else np.zeros((), dtype=np.int64)


def _linear(
    node: onnx.NodeProto,
    inputs: Inputs,
    relevance: Array,
    rule: str,
    parameters: Mapping[str, Any],
    live: Sequence[bool],
    layer: Callable[..., Any],
    root: Inputs | None = None,
) -> Propagated:
    values = live_values(inputs, live)
    if root is not None and rule != "z-box":
        # Of z-box, the corner of the box is the reference.
        values = [v - b for v, b in zip(values, live_values(root, live), strict=True)]
    if rule == "even":
        ones = np.ones_like(relevance)
        flat = _linear(node, inputs, ones, "flat", {}, live, layer).relevance
        values = [evened(part) for part in live_values(flat, live)]
    # The element that index -1 finds is the padding: zero, and what it receives is dropped.
    x = np.concatenate([*(v.reshape(-1) for v in values), [0.0]])
    places = [index for index, alive in enumerate(live) if alive and inputs[index] is not None]
    channels = (_channels(node, v, i).reshape(-1) for v, i in zip(values, places, strict=True))
    channel = np.concatenate([*channels, [0]])
    r_in, r_out = np.zeros_like(x), relevance.reshape(-1)
    samples = _samples(relevance.shape)
    bias, stabiliser = np.zeros(samples), np.zeros(samples)
    for block in layer(node, inputs, live):
        full = (*block.index.shape, block.output.shape[1])
        weight = np.broadcast_to(block.weight, full)
        connected = np.broadcast_to(block.connected, full)
        constant = np.broadcast_to(block.bias if root is None else 0.0, block.output.shape)
        for rows, columns in _chunks(block):
            index, output = block.index[rows], block.output[rows, columns]
            pairs = connected[rows, :, columns]
            shares = LINEAR_RULES[rule](
                Contributions(
                    x=x[index][:, :, None],
                    channel=channel[index][:, :, None],
                    weight=np.where(pairs, weight[rows, :, columns], 0.0),
                    connected=pairs,
                    bias=constant[rows, columns],
                    relevance=r_out[output],
                ),
                **parameters,
            )
            np.add.at(r_in, index, shares.inputs)
            sample = output // max(relevance.size // samples, 1)
            # Nothing of a constant that is infinite, as a mask is, is nothing.
            came = r_out[output] != 0
            np.add.at(bias, sample, np.where(came, shares.bias, 0.0))
            np.add.at(stabiliser, sample, np.where(came, shares.stabiliser, 0.0))
    parts = np.split(r_in[:-1], np.cumsum([v.size for v in values])[:-1])
    shaped = iter(part.reshape(v.shape) for part, v in zip(parts, values, strict=True))
    return Propagated([next(shaped) if alive else None for alive in live], bias, stabiliser)


# --- Max pooling, structure ----------------------------------------------------------------------


def _winner_takes_all(node: onnx.NodeProto, x: Array, relevance: Array) -> Array:
    """Give R_j to the first maximum, in row-major order, of the window of j."""
    index = window_index(attributes_of(node), x.shape)
    seen = np.where(index >= 0, x.reshape(-1)[index], -np.inf)
    winner = index[np.arange(len(index)), np.argmax(seen, axis=1)]
    r_in = np.zeros(x.size)
    np.add.at(r_in, winner, relevance.reshape(-1))
    return r_in.reshape(x.shape)


def _first_extremum(node: onnx.NodeProto, inputs: Inputs, relevance: Array) -> Array:
    """Give R_j to the first of the largest, or smallest, elements that j is taken over."""
    x, axes = (*inputs, None)[:2]
    assert x is not None
    over = tuple(range(2, x.ndim))
    if node.op_type != "GlobalMaxPool":
        over = reduced_axes(attributes_of(node), x.ndim, axes)
    kept = [axis for axis in range(x.ndim) if axis not in over]
    place = np.arange(x.size).reshape(x.shape).transpose(*kept, *over).reshape(relevance.size, -1)
    seen = x.reshape(-1)[place] * (-1 if node.op_type == "ReduceMin" else 1)
    r_in = np.zeros(x.size)
    r_in[place[np.arange(len(place)), seen.argmax(axis=1)]] = relevance.reshape(-1)
    return r_in.reshape(x.shape)


def _largest_operand(
    node: onnx.NodeProto, inputs: Inputs, relevance: Array, live: Sequence[bool]
) -> list[Array | None]:
    """Give R_j to the first of the largest, or smallest, live operands."""
    values = live_values(inputs, live)
    seen = np.stack(np.broadcast_arrays(*values)) * (-1 if node.op_type == "Min" else 1)
    winner = seen.argmax(axis=0)
    shares = iter(
        summed_to(np.where(winner == place, relevance, 0.0), value.shape)
        for place, value in enumerate(values)
    )
    return [next(shares) if alive else None for alive in live]


def _window_sums(node: onnx.NodeProto, inputs: Inputs, live: Sequence[bool]) -> Iterator[Block]:
    """Yield the layer that adds up the windows of a pool."""
    (x,) = live_values(inputs, live)
    index = window_index(attributes_of(node), x.shape)
    output = np.arange(len(index)).reshape(-1, 1)
    yield Block(index, np.ones((1, 1, 1)), np.zeros((1, 1)), output)


def _structural(
    node: onnx.NodeProto, inputs: Inputs, relevance: Sequence[Array | None], live: Sequence[bool]
) -> Propagated:
    """Send the positions of all elements through the operator and read where each one went."""
    constant = -1
    tracers, start = list(inputs), 0
    for t, (v, alive) in enumerate(zip(inputs, live, strict=True)):
        if v is not None and alive:
            tracers[t] = np.arange(start, start + v.size).reshape(v.shape)
            start += v.size
        elif v is not None and t in _JOINED.get(node.op_type, ()):
            tracers[t] = np.full(v.shape, constant)
    if node.op_type == "Pad":
        tracers[2:3] = [np.array(constant)]
    r_in = np.zeros(start + 1)
    samples = next(_samples(r.shape) for r in relevance if r is not None)
    bias = np.zeros(samples)
    if node.op_type == "TopK":
        # Which elements are the largest, their values say and not their positions.
        axis, places = attributes_of(node).get("axis", -1), forward(node, inputs)[1]
        (traced,) = live_values(tracers, live)
        moved = [np.take_along_axis(traced, places, axis), places]
    else:
        moved = forward(node, tracers)
    for origin, r in zip(moved, relevance, strict=True):
        if r is not None:
            np.add.at(r_in, origin, r)
            lost = np.where(origin == constant, r, 0.0)
            # Only operators with one output bring in constants.
            bias += lost.reshape(samples, -1).sum(axis=1) if len(relevance) == 1 else 0.0
    values = live_values(inputs, live)
    parts = iter(np.split(r_in[:-1], np.cumsum([v.size for v in values])))
    back = [
        next(parts).reshape(v.shape) if alive and v is not None else None
        for v, alive in zip(inputs, live, strict=True)
    ]
    return Propagated(back, bias, np.zeros(samples))


def _per_sample(array: Array) -> Array:
    return np.asarray(array.reshape(_samples(array.shape), -1).sum(axis=1))


def _product(
    node: onnx.NodeProto,
    inputs: Inputs,
    relevance: Array,
    rule: str,
    parameters: Mapping[str, Any],
    layer: Callable[..., Any],
    root: Inputs | None,
) -> Propagated:
    """Give each operand its part; a matrix's elements share it by the epsilon rule."""
    back: list[Array | None] = [None, None]
    nothing = np.zeros(_samples(relevance.shape))
    stabiliser = nothing
    for at, part in parts_of(node, rule).items():
        value = inputs[at]
        assert value is not None
        if node.op_type == "MatMul":
            alone = [place == at for place in (0, 1)]
            share = part * relevance
            crossed = _linear(node, inputs, share, "epsilon", parameters, alone, layer, root)
            back[at], stabiliser = crossed.relevance[at], stabiliser + crossed.stabiliser
        else:
            back[at] = summed_to(part * relevance, value.shape)
    return Propagated(back, nothing, stabiliser)


def _recurrent(
    node: onnx.NodeProto,
    inputs: Inputs,
    relevance: Sequence[Array | None],
    rule: str,
    parameters: Mapping[str, Any],
    live: Sequence[bool],
    root: Inputs | None,
) -> Propagated:
    """Send relevance back step by step; what bias and stabiliser took is added up over samples."""
    whole, base = (
        None if given is None else recurrent.written_out(node, attributes_of(node), given, forward)
        for given in (inputs, root)
    )
    assert whole is not None
    epsilon = parameters.get("epsilon", 1e-6)
    found, bias, stabiliser = recurrent.cross(whole, base, relevance, rule, epsilon, propagate)
    back: list[Array | None] = [None] * len(live)
    for place, (name, alive) in enumerate(zip(whole.inputs, live, strict=True)):
        arrived = found.get(name)
        if alive:
            value = inputs[place]
            assert value is not None
            back[place] = np.zeros(value.shape) if arrived is None else arrived
        elif arrived is not None and rule != "gradient":
            bias += float(arrived.sum())
    return Propagated(back, np.array([bias]), np.array([stabiliser]))


def _of_change(
    node: onnx.NodeProto,
    inputs: Inputs,
    root: Inputs,
    relevance: Array,
    rule: str,
    parameters: Mapping[str, Any],
    live: Sequence[bool],
) -> list[Array | None] | None:
    """Return what the inputs get of a change that is split otherwise than a linear layer's."""
    at = list(live).index(True)
    x, base = inputs[at], root[at]
    assert x is not None
    assert base is not None
    back: list[Array | None] = [None] * len(live)
    if node.op_type in PRODUCTS and sum(live) == 2 and len(parts_of(node, rule)) == 2:
        stabiliser = parameters.get("stabiliser", parameters.get("epsilon", 0.0))
        for place in (0, 1):
            a, b = live_values(inputs, live), live_values(root, live)
            share = differences.cross_product(node, a, b, relevance, place, stabiliser)
            back[place] = summed_to(share, a[place].shape)
        return back
    if node.op_type in ("Softmax", "LogSoftmax") and rule == "taylor":
        epsilon = parameters.get("epsilon", 1e-6)
        back[at] = differences.cross_softmax(node, x, base, relevance, epsilon)
    elif node.op_type in NORMALISATIONS and rule == "taylor":
        epsilon = parameters.get("epsilon", 1e-6)
        back[at] = differences.cross_normalisation(node, inputs, base, relevance, epsilon)
    elif node.op_type == "LRN" and rule == "taylor":
        back[at] = differences.cross_lrn(node, x, base, relevance)
    else:
        return None
    return back


def _of_features(
    node: onnx.NodeProto,
    x: Array,
    relevance: Array,
    rule: str,
    parameters: Mapping[str, Any],
    root: Array | None,
) -> Propagated:
    """Share relevance out along what features, [N, F, C], add to scores; the rest is a bias."""
    nothing = np.zeros(len(x))
    if node.op_type in trees.TREES:
        if rule == "gradient":
            return Propagated([np.zeros_like(x)], nothing, nothing)
        scores: Callable[[onnx.NodeProto, Array], Array] = trees.scores
        found, rest = trees.terms(node, x, root, rule)
    else:
        if rule == "gradient":
            return Propagated([kernels.slopes(node, x) * relevance], nothing, nothing)
        scores, found = kernels.decisions, kernels.terms(node, x, root)[..., None]
        rest = scores(node, x) - found.sum(axis=1)
    z = scores(node, x)
    if root is not None:
        z, rest = z - scores(node, root), np.zeros_like(rest)
    share = relevance / stab(z, parameters.get("stabiliser", 1e-6))
    back = (found * share[:, None]).sum(axis=2)
    return Propagated([back], (rest * share).sum(axis=1), (relevance - z * share).sum(axis=1))


def propagate(
    node: onnx.NodeProto,
    inputs: Inputs,
    relevance: Sequence[Array | None],
    rule: str,
    parameters: Mapping[str, Any],
    live: Sequence[bool],
    layer: Callable[..., Any] = gathered,
    root: Inputs | None = None,
) -> Propagated:
    """Take relevance from the outputs of a node back to its inputs.

    Parameters
    ----------
    node, inputs
        The node and the values of all its inputs, weights included, None for absent ones.
    relevance
        One array per output of the node, None for outputs without relevance.
    rule, parameters
        The rule and its parameters; ignored where the operator leaves no choice.
    live
        Which inputs depend on the explained input.
    layer
        The way to the contributions of a linear layer, ``gathered`` or ``probed``.
    root
        What all inputs are at the reference that contributions are differences from; None without.
    """
    if node.op_type == "Gather" and live[1] and not live[0]:
        # A token: its row of the table is what it contributes.
        (r,), indices = relevance, inputs[1]
        assert r is not None
        assert indices is not None
        row = tuple(range(indices.ndim, r.ndim))
        return Propagated([None, r.sum(axis=row)], *[np.zeros(_samples(r.shape))] * 2)
    if attributes_of(node).get("reduction", "none") == "add":
        (r,) = relevance
        assert r is not None
        return _linear(node, inputs, r, rule, parameters, live, layer, root)
    if node.op_type in STRUCTURAL:
        return _structural(node, inputs, relevance, live)
    if node.op_type in recurrent.GATES:
        return _recurrent(node, inputs, relevance, rule, parameters, live, root)
    r, at = relevance[0], list(live).index(True)
    x = inputs[at]
    assert r is not None
    assert x is not None
    nothing = taken = np.zeros(_samples(r.shape))
    if node.op_type in (*trees.TREES, kernels.MACHINE):
        return _of_features(node, x, r, rule, parameters, None if root is None else root[at])
    if root is not None and node.op_type in EXTREMA and rule != "proportional":
        # Whatever is more extreme than all else at both points is where the extremum changes.
        more = np.minimum if "Min" in node.op_type else np.maximum
        inputs = [
            more(v, b) if v is not None and b is not None and alive else v
            for v, b, alive in zip(inputs, root, live, strict=True)
        ]
        x = inputs[at]
        assert x is not None
    elif root is not None:
        changed = _of_change(node, inputs, root, r, rule, parameters, live)
        if changed is not None:
            kept = _per_sample(r) - sum(_per_sample(p) for p in changed if p is not None)
            return Propagated(changed, nothing, np.asarray(kept))
    if rule in sensitivity.RULES:
        crossed = sensitivity.cross(node, inputs, r, rule, live)
        if crossed is not None:
            return Propagated(crossed, nothing, nothing)
    if node.op_type in ("Max", "Min"):
        return Propagated(_largest_operand(node, inputs, r, live), nothing, nothing)
    if node.op_type in PRODUCTS and sum(live) == 2 and rule in ("signal", "uniform", "taylor"):
        return _product(node, inputs, r, rule, parameters, layer, root)
    if node.op_type in ("Softmax", "LogSoftmax"):
        if rule == "zero":
            return Propagated([np.zeros_like(x)], nothing, _per_sample(r))
        if rule != "taylor":
            raise ValueError(f"no softmax rule {rule!r}")
        back, bias, kept = cross_softmax(node, x, r, parameters)
        return Propagated([back], _per_sample(bias), _per_sample(kept))
    if node.op_type in NORMALISATIONS and rule == "taylor":
        back, bias = expanded_normalisation(node, list(inputs), r, parameters)
        kept = _per_sample(r) - _per_sample(back) - _per_sample(bias)
        return Propagated([back], _per_sample(bias), kept)
    if node.op_type in NORMALISATIONS and rule != "pass":

        def frozen(*_: Any) -> Iterator[Block]:
            return frozen_normalisation(node, list(inputs))

        return _linear(node, inputs, r, rule, parameters, live, frozen, root)
    divisor = node.op_type == "Div" and not live[0]
    if node.op_type in LINEAR and rule != "pass" and not divisor:
        return _linear(node, inputs, r, rule, parameters, live, layer, root)
    if divisor or node.op_type in ("Pow", "Mod"):
        if sum(live) != 1:
            raise ValueError(f"{node.op_type} of {sum(live)} live inputs")
        back = summed_to(r, x.shape)
    elif node.op_type in PASSED_ON or node.op_type in LINEAR | NORMALISATIONS:
        if sum(live) != 1 or x.shape != r.shape:
            raise ValueError(f"relevance cannot pass {node.op_type} unchanged")
        back = r
    elif node.op_type == "MaxPool":
        if rule == "proportional":
            return _linear(node, inputs, r, "norm", parameters, live, _window_sums, root)
        if rule != "winner-takes-all":
            raise ValueError(f"no MaxPool rule {rule!r}")
        back = _winner_takes_all(node, x, r)
    elif node.op_type in ("GlobalMaxPool", "ReduceMax", "ReduceMin"):
        back = _first_extremum(node, inputs, r)
    elif node.op_type == "ReduceProd":
        share = r / (x.size // r.size)
        axes = reduced_axes(attributes_of(node), x.ndim, (*inputs, None)[1])
        column = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
        back = np.broadcast_to(share.reshape(column), x.shape)
    elif node.op_type == "OneHotEncoder":
        back = r.sum(axis=-1)
    elif node.op_type == "Trilu":
        (back,) = forward(node, [r, *inputs[1:]])
    elif node.op_type == "LRN":
        back, kept = cross_lrn(node, x, r, rule, parameters)
        taken = kept.reshape(len(nothing), -1).sum(axis=1)
    else:
        raise NotImplementedError(f"no rule for {node.op_type}")
    return Propagated([back if t == at else None for t in range(len(live))], nothing, taken)
