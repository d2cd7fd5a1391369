"""Operators as they were before opset 7, in the words of opset 7 and later.

onnx's own converter begins there in earnest: below, it asks for the numbers of all sizes, and has
nothing for many operators. What needs the shapes of what it reads, or was an experiment that no
opset took over, goes through the lift in a domain of its own, and is written out behind it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxlrp.errors import ModelError
from onnxlrp.graph.bodies import Call, Lines, UnfitError, body, integers, kept

OLDER = "onnxlrp.older"
"""The domain of what is written out behind the lift."""

_SINCE = 7
"""From here on arrays broadcast as numpy's do, and no operator has another mode for training."""

_BROADCAST = ("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Less", "Greater", "Equal")
_OTHERS = (
    *("ImageScaler", "Affine", "Scale", "Crop", "ScaledTanh", "ParametricSoftplus", "FC"),
    *("MeanVarianceNormalization", "ThresholdedRelu", "Hardmax"),
)
_TAKEN_OVER = {"MeanVarianceNormalization": 9, "ThresholdedRelu": 10, "Hardmax": 13}
"""From which opset on an operator is what it is today."""

_DROPPED = {
    "consumed_inputs": (),
    "is_test": ("BatchNormalization", "Dropout"),
    "broadcast": (*_BROADCAST, "Gemm"),
    "output_sequence": ("RNN", "GRU", "LSTM"),
}
"""Attributes that say nothing any more, and of which operators; of none is of all."""


def modernise(proto: onnx.ModelProto, opset: int) -> None:
    """Write a model of opset 1 to 6 as opset 7 has it; also what later ones have in another way.

    Raises
    ------
    ModelError
        A node is in training mode.

    """
    if not opset:
        return
    nodes = list(_nodes(proto.graph))
    read = {name for _, node in nodes for name in node.input}
    read |= {value.name for graph, _ in nodes for value in graph.output}
    renamed = False
    for graph, node in nodes:
        if node.domain not in ("", "ai.onnx"):
            continue
        # Statistics of training, which onnx's converter does not lift.
        unread = not read & {*node.output[1:]} - {""}
        if node.op_type == "BatchNormalization" and opset < 14 and unread:
            del node.output[1:]
        renamed |= _modernised(graph, node, opset)
    if opset < _SINCE:
        # Below, each initializer has to be an input too.
        proto.ir_version = max(proto.ir_version, 4)
    for entry in proto.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = max(entry.version, _SINCE)
    if renamed:
        proto.opset_import.append(helper.make_opsetid(OLDER, 1))


def resample_as_before(graph: onnx.GraphProto, opset: int) -> None:
    """Make Resize sample where it did before opset 11, which onnx's converter forgets.

    Of two neighbours onnxruntime took the first where a picture grows, else the second.

    Raises
    ------
    ModelError
        It grows along one axis and shrinks along another.

    """
    if opset >= 11:
        return
    known = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.HasField("t"):
                known[node.output[0]] = attribute.t
    for _, node in _nodes(graph):
        if node.op_type != "Resize" or node.domain not in ("", "ai.onnx"):
            continue
        tensor = known.get(node.input[2])
        scales = np.ones(1) if tensor is None else numpy_helper.to_array(tensor)
        mode = next((a.s for a in node.attribute if a.name == "mode"), b"nearest")
        if mode == b"nearest" and (scales < 1).any() and (scales > 1).any():
            raise ModelError(
                f"node '{node.name or node.output[0]}' (Resize, opset 10) enlarges one axis and "
                "reduces another: export the model again with opset 11 or later"
            )
        _set(node, "coordinate_transformation_mode", "asymmetric")
        _set(node, "nearest_mode", "ceil" if (scales < 1).any() else "floor")


def _nodes(graph: onnx.GraphProto) -> Iterator[tuple[onnx.GraphProto, onnx.NodeProto]]:
    """Yield all nodes, those of subgraphs too, each with its graph."""
    for node in graph.node:
        yield graph, node
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + [*attribute.graphs]:
                yield from _nodes(inner)


def _modernised(graph: onnx.GraphProto, node: onnx.NodeProto, opset: int) -> bool:
    """Rewrite one node; tell whether it goes into the domain of its own."""
    operator, own = node.op_type, {a.name: a for a in node.attribute}
    away = operator in _OTHERS and opset < _TAKEN_OVER.get(operator, 1 << 31)
    if operator == "BatchNormalization" and opset < 9 and "spatial" in own:
        away = not own["spatial"].i
        _remove(node, "spatial")
    if opset < _SINCE:
        away |= _before_numpy(graph, node, own, opset)
    if away:
        node.domain = OLDER
    return away


def _before_numpy(
    graph: onnx.GraphProto, node: onnx.NodeProto, own: dict[str, onnx.AttributeProto], opset: int
) -> bool:
    """Rewrite a node of before opset 7; tell whether that needs shapes."""
    operator = node.op_type
    if operator in _DROPPED["is_test"] and not ("is_test" in own and own["is_test"].i):
        raise ModelError(
            f"node '{node.name or node.output[0]}' ({operator}) is in training mode (is_test is "
            "0): export the model for inference"
        )
    for name, operators in _DROPPED.items():
        if name in own and (not operators or operator in operators):
            _remove(node, name)
    if operator == "Cast" and own["to"].s:
        _set(node, "to", onnx.TensorProto.DataType.Value(own["to"].s.decode()))
    elif operator == "Reshape" and "shape" in own:
        node.input.append(_constant(graph, node, own["shape"].ints))
        _remove(node, "shape")
    elif operator == "Pad" and "paddings" in own:
        _set(node, "pads", list(own["paddings"].ints))
        _remove(node, "paddings")
    elif operator == "Concat" and "axis" not in own:
        _set(node, "axis", 1)
    elif operator == "Split" and len(node.input) > 1:
        _set(node, "split", _held(graph, node, 1))
        del node.input[1:]
    elif operator in ("LpPool", "GlobalLpPool") and "p" in own and own["p"].f:
        _set(node, "p", int(own["p"].f))
    elif operator == "Upsample" and "height_scale" in own:
        _set(node, "scales", [1.0, 1.0, own["height_scale"].f, own["width_scale"].f])
        _set(node, "mode", "linear" if own["mode"].s == b"bilinear" else "nearest")
        _remove(node, "height_scale")
        _remove(node, "width_scale")
    elif operator == "Selu" and opset < 6:
        _set(node, "alpha", own["alpha"].f if "alpha" in own else 1.6732)
        _set(node, "gamma", own["gamma"].f if "gamma" in own else 1.0507)
    return (operator in _BROADCAST and "axis" in own) or operator in ("PRelu", "Tile")[: 7 - opset]


def _set(node: onnx.NodeProto, name: str, value: float | str | list[int] | list[float]) -> None:
    _remove(node, name)
    node.attribute.append(helper.make_attribute(name, value))


def _remove(node: onnx.NodeProto, name: str) -> None:
    kept_on = [onnx.AttributeProto.FromString(a.SerializeToString()) for a in node.attribute]
    del node.attribute[:]
    node.attribute.extend(a for a in kept_on if a.name != name)


def _constant(graph: onnx.GraphProto, node: onnx.NodeProto, values: list[int]) -> str:
    name = f"{node.output[0]}_{node.op_type.lower()}"
    graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
    return name


def _held(graph: onnx.GraphProto, node: onnx.NodeProto, index: int) -> list[int]:
    """Return the whole numbers that a node reads from an initializer."""
    for tensor in graph.initializer:
        if tensor.name == node.input[index]:
            return [int(number) for number in numpy_helper.to_array(tensor).reshape(-1)]
    raise ModelError(
        f"node '{node.name or node.output[0]}' ({node.op_type}) reads '{node.input[index]}', which "
        "is no constant: export the model again with opset 18 or later"
    )


def _older(*names: str) -> list[str]:
    return [f"{OLDER}::{name}" for name in names]


@body("a b -> y", *_older(*_BROADCAST, "PRelu"))
def _broadcast(call: Call) -> Lines:
    """Put the axes of b beside those of a from `axis` on; of a slope, beside the channels."""
    rank, own = len(call.sizes(0)), len(call.sizes(1))
    axis = int(call.get("axis", 1)) % rank
    behind = range(axis + own, rank) if own > 1 or call.sizes(1) != [1] else ()
    if behind:
        yield integers("axes", *(position - axis for position in behind))
    yield "c = Unsqueeze(b, axes)" if behind else "c = Identity(b)"
    yield f"y = {call.node.op_type}(a, c)"


@body("x tiles axis -> y", *_older("Tile"))
def _tile(call: Call) -> Lines:
    rank = len(call.sizes(0))
    (times,), (axis,) = call.constant(1), call.constant(2)
    yield integers("repeats", *(int(times) if n == int(axis) % rank else 1 for n in range(rank)))
    yield "y = Tile(x, repeats)"


@body("x scale bias mean variance -> y", *_older("BatchNormalization"))
def _element_by_element(call: Call) -> Lines:
    """Normalise each element by statistics of its own, with `spatial` 0."""
    if any(call.node.output[1:]):
        raise UnfitError
    yield from call.number("epsilon", call.get("epsilon", 1e-5))
    yield "kept = Add(variance, epsilon)"
    yield "deviation = Sqrt(kept)"
    yield "factor = Div(scale, deviation)"
    yield "d = Sub(x, mean)"
    yield "m = Mul(d, factor)"
    yield "y = Add(m, bias)"


@body("x -> y", *_older("ImageScaler"))
def _image_scaler(call: Call) -> Lines:
    bias = next(list(a.floats) for a in call.node.attribute if a.name == "bias")
    yield from call.number("scale", call.get("scale", 1.0))
    yield "m = Mul(x, scale)"
    yield f"row = Constant<value_floats=[{', '.join(f'{b:.9e}' for b in bias)}]>()"
    yield integers("axes", 1, 2)
    yield "column = Unsqueeze(row, axes)"
    yield f"bias = Cast<to={call.kind()}>(column)"
    yield "y = Add(m, bias)"


@body("x -> y", *_older("Affine", "Scale"))
def _affine(call: Call) -> Lines:
    yield from call.number("alpha", call.get("alpha", call.get("scale", 1.0)))
    yield from call.number("beta", call.get("beta"))
    yield "m = Mul(x, alpha)"
    yield "y = Add(m, beta)"


@body("x -> y", *_older("ScaledTanh", "ParametricSoftplus"))
def _scaled(call: Call) -> Lines:
    """Write alpha f(beta x)."""
    yield from call.number("alpha", call.get("alpha"))
    yield from call.number("beta", call.get("beta"))
    yield "m = Mul(x, beta)"
    yield f"f = {'Tanh' if call.node.op_type == 'ScaledTanh' else 'Softplus'}(m)"
    yield "y = Mul(f, alpha)"


@body("x -> y", *_older("Crop"))
def _crop(call: Call) -> Lines:
    """Cut away left, top, right and bottom, or all but `scale`, height and width."""
    left, top, right, bottom = call.numbers("border")
    height, width = call.sizes(0)[2:]
    if height is None or width is None:
        raise UnfitError
    ends = [height - bottom, width - right]
    scale = call.numbers("scale")
    yield integers("starts", top, left)
    yield integers("ends", *([top + scale[0], left + scale[1]] if scale else ends))
    yield integers("axes", 2, 3)
    yield "y = Slice(x, starts, ends, axes)"


@body("x w b -> y", *_older("FC"))
def _fully_connected(call: Call) -> Lines:
    yield f"flat = Flatten<axis={int(call.get('axis', 1))}>(x)"
    yield "y = Gemm<transB=1>(flat, w, b)"


@body("x -> y", *_older("ThresholdedRelu"))
def _thresholded(call: Call) -> Lines:
    yield f"y = ThresholdedRelu{kept(call, 'alpha')}(x)"


@body("x -> y", *_older("Hardmax"))
def _hardmax(call: Call) -> Lines:
    """Over all axes from one on, together."""
    yield f"flat = Flatten<axis={int(call.get('axis', 1)) % len(call.sizes(0))}>(x)"
    yield "most = Hardmax<axis = -1>(flat)"
    yield "shape = Shape(x)"
    yield "y = Reshape(most, shape)"


@body("x -> y", *_older("MeanVarianceNormalization"))
def _mean_variance(call: Call) -> Lines:
    if not call.get("normalize_variance", 1):
        raise UnfitError
    axes = range(1 if call.get("across_channels") else 2, len(call.sizes(0)))
    yield f"y = MeanVarianceNormalization<axes={[*axes]}>(x)"
