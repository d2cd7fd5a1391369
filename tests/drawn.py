"""Small random classifiers for property tests, and rules for them.

A network grows from its inputs: each step draws an operator and applies it to some of the loose
ends there are. Shapes are known because every node is computed as it is added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx.helper import printable_node
from support import Array, model, node

from onnxlrp import reference
from onnxlrp.reference.network import CHOICES

Draw = Callable[[st.SearchStrategy[Any]], Any]


@dataclass(frozen=True, repr=False)
class Network:
    """A classifier with the output `logits`.

    Attributes
    ----------
    nodes : of the network
    defined : the same with one node where the compiler takes several together, for the reference
    weights, feeds : initializers and inputs by name
    ends : the outputs
    layers : name and operator of every node that needs a rule
    readout : the last layer's name, operator, and weights
    free : its images may be of any size
    opset : of the standard operators
    """

    nodes: tuple[onnx.NodeProto, ...]
    defined: tuple[onnx.NodeProto, ...]
    weights: Mapping[str, Array]
    feeds: Mapping[str, Array]
    ends: tuple[str, ...]
    layers: tuple[tuple[str, str], ...]
    readout: tuple[str, str, tuple[str, ...]]
    free: bool
    opset: int

    def proto(self, merged: bool = False) -> onnx.ModelProto:
        """Build the network, or with `merged` the one for the reference."""
        shapes = {
            name: ["N", x.shape[1], *(("height", "width") if self.free else x.shape[2:])]
            for name, x in self.feeds.items()
        }
        nodes = self.defined if merged else self.nodes
        used = {name for one in nodes for name in one.input}
        weights = {name: w for name, w in self.weights.items() if name in used}
        return model(nodes, shapes, self.ends, weights, self.opset)

    def __repr__(self) -> str:
        sizes = {name: x.shape for name, x in self.feeds.items()}
        first = f"{sizes} free={self.free} opset={self.opset}"
        return "\n".join([first, *map(printable_node, self.nodes)])

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        """Tell hypothesis to leave the numbers out."""
        printer.text(repr(self))

    def with_weights(self, change: Callable[[str, Array], Array]) -> Network:
        """Return the network with other weights, each computed from its name and value."""
        weights = {name: change(name, w) for name, w in self.weights.items()}
        return replace(self, weights=weights)


class Growing:
    """A network while it grows: its nodes, and the value of everything so far."""

    def __init__(self, draw: Draw, inputs: int) -> None:
        self.draw = draw
        self.opset = draw(st.sampled_from((22, 22, 18)))
        self.free = draw(st.sampled_from((False, False, True)))
        self.random = np.random.default_rng(draw(st.integers(0, 2**16)))
        self.nodes: list[onnx.NodeProto] = []
        self.defined: list[onnx.NodeProto] = []
        self.weights: dict[str, Array] = {}
        self.layers: list[tuple[str, str]] = []
        self.values: dict[str, Array] = {}
        self.makers: dict[str, str] = {}
        size = draw(st.integers(4, 6)), draw(st.integers(4, 6))
        for name in ("x", "other")[:inputs]:
            self.values[name] = self.normal(2, draw(st.integers(1, 3)), *size)
        self.feeds = dict(self.values)
        self.loose = list(self.feeds)

    def normal(self, *shape: int, scale: float = 1.0) -> Array:
        return (self.random.normal(size=shape) * scale).astype(np.float32)

    def one_of(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def number(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))

    def constant(self, array: Any) -> str:
        """Store a weight under a name that tells nothing."""
        name = f"w{len(self.weights)}"
        self.weights[name] = np.asarray(array)
        return name

    def shape(self, value: str) -> tuple[int, ...]:
        return self.values[value].shape

    def add(self, op: str, inputs: Sequence[str], defined: bool = True, **attributes: Any) -> str:
        """Append a node, also to what the reference sees unless told otherwise."""
        one = node(op, inputs, f"v{len(self.nodes)}", **attributes)
        return self.append(one, defined)

    def append(self, one: onnx.NodeProto, defined: bool = True) -> str:
        known = {**self.weights, **self.values}
        results = reference.forward(one, [known[name] if name else None for name in one.input])
        for name, value in zip(one.output, results, strict=True):
            self.values[name] = value
            self.makers[name] = one.op_type
        self.nodes.append(one)
        if defined:
            self.define(one)
        return one.output[0]

    def define(self, one: onnx.NodeProto) -> None:
        self.defined.append(one)
        if one.op_type in CHOICES:
            self.layers.append((one.name, one.op_type))

    def windows(self, size: Sequence[int], most: int = 3) -> dict[str, list[int]]:
        """Draw kernel, strides, dilations and pads that leave something of an image."""
        result: dict[str, list[int]] = {k: [] for k in ("kernel_shape", "strides", "dilations")}
        begins, ends = [], []
        for length in size:
            kernel = self.number(1, min(most, length))
            dilation = self.one_of(1, 1, 2) if 2 * (kernel - 1) < length else 1
            result["kernel_shape"].append(kernel)
            result["dilations"].append(dilation)
            result["strides"].append(self.one_of(1, 1, 2))
            begins.append(self.number(0, kernel - 1))
            ends.append(self.number(0, kernel - 1))
        return {**result, "pads": begins + ends}

    def automatic(self, attributes: dict[str, Any]) -> dict[str, Any]:
        """Draw auto_pad in place of pads where all runtimes agree about it."""
        kernel, strides = attributes["kernel_shape"], attributes["strides"]
        narrow = all(stride <= size for stride, size in zip(strides, kernel, strict=True))
        dense = max(attributes.get("dilations", [1])) == 1
        kind = self.one_of("NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")
        known = not self.free or max(strides) == 1
        if kind == "NOTSET" or not (narrow and dense and known):
            return attributes
        return {k: v for k, v in attributes.items() if k not in ("pads", "dilations")} | {
            "auto_pad": kind
        }

    def ceil_mode(self) -> int:
        """Draw it where onnx's shape inference and runtimes agree about the size."""
        return self.number(0, 1) if self.opset >= 22 else 0

    def bias(self, channels: int) -> list[str]:
        if self.one_of("without", "with") == "without":
            return []
        return [self.constant(self.normal(channels, scale=0.5))]

    def finish(self) -> Network:
        """Join all loose ends in a classifier."""
        from_ends = [self._features(end) for end in self.loose]
        features = from_ends[0] if len(from_ends) == 1 else self.add("Concat", from_ends, axis=1)
        if self.one_of(False, True):
            features = self.add("Relu", [self._dense(features, 5)])
        logits = self._dense(features, 3)
        last = self.defined[-1]
        for one in (self.nodes[-1], last):
            one.output[0] = "logits"
        self.values["logits"] = self.values[logits]
        ends, readout = "logits", self.layers[-1]
        if self.one_of(False, True):
            ends = self.add("Softmax", ["logits"], axis=1)
        return Network(
            tuple(self.nodes),
            tuple(self.defined),
            self.weights,
            self.feeds,
            (ends,),
            tuple(self.layers),
            (*readout, tuple(name for name in last.input if name in self.weights)),
            self.free,
            self.opset,
        )

    def _features(self, end: str) -> str:
        kind = self.one_of("Flatten", "Reshape", "GlobalAveragePool", "ReduceMean")
        if kind == "Flatten":
            return self.add("Flatten", [end])
        if kind == "Reshape":
            return self.add("Reshape", [end, self.constant([0, -1])])
        if kind == "ReduceMean":
            return self.add("ReduceMean", [end, self.constant([2, 3])], keepdims=0)
        return self.add("Flatten", [self.add("GlobalAveragePool", [end])])

    def _dense(self, x: str, outputs: int) -> str:
        width = self.shape(x)[1]
        kind = self.one_of("Gemm", "transB", "MatMul", "MatMul and Add")
        weight = self.normal(width, outputs, scale=width**-0.5)
        if kind == "Gemm":
            return self.add("Gemm", [x, self.constant(weight), *self.bias(outputs)])
        if kind == "transB":
            weight_name = self.constant(np.ascontiguousarray(weight.T))
            return self.add("Gemm", [x, weight_name, *self.bias(outputs)], transB=1)
        weight_name = self.constant(weight)
        if kind == "MatMul":
            return self.add("MatMul", [x, weight_name])
        product = self.add("MatMul", [x, weight_name], defined=False)
        shift = self.constant(self.normal(outputs, scale=0.5))
        z = self.add("Add", [product, shift], defined=False)
        whole = node("Gemm", [x, weight_name, shift], z)
        whole.name = self.nodes[-2].name
        self.define(whole)
        return z


# --- Steps: from a loose end to what it becomes --------------------------------------------------


def convolution(g: Growing, x: str) -> str:
    """Conv with all its attributes; in front a Pad, behind a BatchNormalization that is merged."""
    channels, size = g.shape(x)[1], g.shape(x)[2:]
    groups = g.one_of(1, 1, channels)
    outputs = groups * g.number(1, 2)
    attributes = g.windows(size)
    kernel = attributes["kernel_shape"]
    inputs = channels // groups
    scale = (inputs * kernel[0] * kernel[1]) ** -0.5
    weight = g.normal(outputs, inputs, *kernel, scale=scale)
    bias = g.bias(outputs)
    attributes = g.automatic(attributes)
    pad, normalise = g.one_of("", "", "", "Pad"), g.one_of("", "", "BatchNormalization")
    whole = node("Conv", [x, "", *bias], "", **attributes, group=groups)
    z = x
    if pad and "pads" in attributes:
        pads = attributes.pop("pads")
        amounts = [0, 0, *pads[:2], 0, 0, *pads[2:]]
        z = g.add("Pad", [x, g.constant(amounts)], defined=False)
    weight_name = g.constant(weight)
    merged = z != x or bool(normalise)
    z = g.add("Conv", [z, weight_name, *bias], not merged, **attributes, group=groups)
    whole.name = g.nodes[-1].name
    if normalise:
        statistics = [g.constant(v) for v in statistics_of(g, outputs)]
        z = g.add("BatchNormalization", [z, *statistics], defined=False, epsilon=0.125)
        gamma, beta, mean, variance = (g.weights[name].astype(np.float64) for name in statistics)
        factor = gamma / np.sqrt(variance + 0.125)
        shift = g.weights[bias[0]] * factor if bias else 0
        weight_name = g.constant((weight * factor[:, None, None, None]).astype(np.float32))
        bias = [g.constant((shift + beta - mean * factor).astype(np.float32))]
    if merged:
        whole.input[:] = [x, weight_name, *bias]
        whole.output[:] = [z]
        g.define(whole)
    return z


def statistics_of(g: Growing, channels: int) -> list[Array]:
    """Draw scale, bias, mean and variance."""
    spread = np.abs(g.normal(channels)) + 0.25
    return [g.normal(channels), *(g.normal(channels, scale=0.5) for _ in range(2)), spread]


def transposed_convolution(g: Growing, x: str) -> str:
    channels = g.shape(x)[1]
    groups = g.one_of(1, channels)
    kernel, strides = [g.number(1, 3), g.number(1, 3)], [g.number(1, 2), g.number(1, 2)]
    weight = g.normal(channels, g.number(1, 2), *kernel, scale=0.5)
    weights = [g.constant(weight), *g.bias(weight.shape[1] * groups)]
    pads = [g.number(0, (k - 1) // 2) for k in kernel * 2]
    return g.add("ConvTranspose", [x, *weights], strides=strides, pads=pads, group=groups)


def activation(g: Growing, x: str) -> str:
    kinds = "LeakyRelu", "Tanh", "Sigmoid", "Elu", "Softplus", "HardSwish", "Clip"
    kind = g.one_of("Relu", "Relu", "Relu", *kinds)
    bounds = [np.float32(g.one_of(0, 0, 0.25, -1)), np.float32(1.5)] if kind == "Clip" else []
    return g.add(kind, [x, *(g.constant(bound) for bound in bounds)])


def max_pool(g: Growing, x: str) -> str:
    attributes = g.automatic(g.windows(g.shape(x)[2:]))
    ceil = {"ceil_mode": g.ceil_mode()} if "pads" in attributes else {}
    return g.add("MaxPool", [x], **attributes, **ceil)


def average_pool(g: Growing, x: str) -> str:
    attributes = g.windows(g.shape(x)[2:])
    if g.opset < 19:
        del attributes["dilations"]
    attributes = g.automatic(attributes)
    counts = {"count_include_pad": g.number(0, 1)}
    if "pads" in attributes:
        counts["ceil_mode"] = g.ceil_mode()
    return g.add("AveragePool", [x], **attributes, **counts)


def normalisation(g: Growing, x: str) -> str:
    return g.add(
        "LRN",
        [x],
        size=g.one_of(3, 5),
        alpha=g.one_of(0.25, 1.0),
        beta=g.one_of(0.5, 0.75),
        bias=g.one_of(1.0, 2.0),
    )


def affine(g: Growing, x: str) -> str:
    """A constant factor or term that stands alone, behind an activation of its own."""
    channels = g.shape(x)[1]
    x = activation(g, x)
    kind = g.one_of("BatchNormalization", "Add", "Sub", "Mul", "Div")
    if kind == "BatchNormalization":
        return g.add(kind, [x, *(g.constant(v) for v in statistics_of(g, channels))])
    constant = g.normal(channels, 1, 1)
    constant = np.sign(constant) * (0.5 + np.abs(constant)) if kind == "Div" else constant
    return g.add(kind, [x, g.constant(constant)])


def structure(g: Growing, x: str) -> str:
    """Move elements about: each comes back to the four axes of an image."""
    _, channels, height, width = g.shape(x)
    kinds = "Slice", "Reshape", "Transpose", "Pad", "Unsqueeze", "Split", "Dropout"
    kind = g.one_of(*kinds, "edge", "Resize", "DepthToSpace")
    if kind == "Slice":
        axis = 1 if g.free else g.number(1, 3)
        start = g.number(0, g.shape(x)[axis] - 1)
        bounds = ([start], [2**31], [axis], [g.one_of(1, 2)])
        return g.add(kind, [x, *(g.constant(v) for v in bounds)])
    if kind == "Reshape":
        return g.add(kind, [x, g.constant([0, height, -1, channels])])
    if kind == "Transpose":
        # An LRN needs to know how many channels there are.
        return g.add(kind, [x], perm=[0, 1, 3, 2] if g.free else [0, 2, 3, 1])
    if kind == "Pad":
        # Zeros in front of a Conv would be merged into it.
        amounts, fill = [0, g.number(0, 1), 1, 0, 0, 0, 0, g.number(0, 1)], np.float32(0.5)
        return g.add(kind, [x, g.constant(amounts), g.constant(fill)])
    if kind == "edge":
        # What is reflected must be there.
        mode = g.one_of(kind, "reflect" if min(height, width) > 2 else kind)
        return g.add("Pad", [x, g.constant([0, 0, 1, 0, 0, 0, 2, 1])], mode=mode)
    if kind == "Resize" and height < 9:
        scales = np.array([1, 1, g.one_of(1, 2), g.one_of(1, 2)], np.float32)
        return g.add(kind, [x, "", g.constant(scales)], mode="nearest")
    if kind == "DepthToSpace" and channels % 4 == 0:
        return g.add(kind, [x], blocksize=2, mode=g.one_of("DCR", "CRD"))
    if kind == "Unsqueeze":
        lifted = g.add(kind, [x, g.constant([2])])
        return g.add("Squeeze", [lifted, g.constant([2])])
    if kind == "Split" and channels > 1:
        one = node(kind, [x, g.constant([1, channels - 1])], f"v{len(g.nodes)}", axis=1)
        one.output.append(f"{one.output[0]}b")
        g.append(one)
        return g.one_of(*one.output)
    return g.add("Dropout", [x])


def residual(g: Growing, x: str) -> str:
    """A sum of x with what convolutions, once or twice the same, make of it."""
    channels = g.shape(x)[1]
    weight = g.constant(g.normal(channels, channels, 3, 3, scale=(9 * channels) ** -0.5))
    inputs = [x, weight, *g.bias(channels)]
    branch = g.add("Conv", inputs, pads=[1, 1, 1, 1])
    kind = g.one_of("Add", "Sub", "Sum", "twins")
    if kind == "Sum":
        return g.add(kind, [x, branch, activation(g, branch)])
    if kind == "twins":
        return g.add("Add", [branch, g.add("Conv", inputs, pads=[1, 1, 1, 1])])
    return g.add(kind, [branch, x] if g.one_of(False, True) else [x, branch])


def together(g: Growing, x: str) -> str:
    """Concatenate or add two loose ends of one size, or x and an activation of it."""
    others = [v for v in g.loose if v != x and g.shape(v)[2:] == g.shape(x)[2:]]
    other = g.one_of(*others) if others else activation(g, x)
    if other in g.loose:
        g.loose.remove(other)
    kinds = ["Concat", "Add"] if g.shape(other) == g.shape(x) else ["Concat"]
    kind = g.one_of(*kinds)
    return g.add(kind, [x, other], **({"axis": 1} if kind == "Concat" else {}))


STEPS = (
    *(convolution, convolution, convolution, activation, activation, max_pool, max_pool),
    *(average_pool, normalisation, affine, structure, residual, together, transposed_convolution),
)


@st.composite
def networks(draw: Draw, stem: bool = False, most: int = 5) -> Network:
    """Draw a network; with `stem` every input is read by one convolution without groups."""
    g = Growing(draw, draw(st.integers(1, 2)))
    if stem:
        for x in g.feeds:
            weight = g.normal(3, g.shape(x)[1], 3, 3, scale=0.4)
            g.weights[f"stem_{x}"] = weight
            z = g.add("Conv", [x, f"stem_{x}", *g.bias(3)], pads=[1, 1, 1, 1])
            g.loose[g.loose.index(x)] = g.add("Relu", [z])
    for _ in range(draw(st.integers(1, most))):
        x = draw(st.sampled_from(g.loose))
        step = draw(st.sampled_from(STEPS))
        # At a fork, x stays a loose end as well.
        if not draw(st.booleans()) or len(g.loose) > 2:
            g.loose.remove(x)
        g.loose.append(step(g, x))
    return g.finish()
