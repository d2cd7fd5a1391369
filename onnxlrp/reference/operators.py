"""The forward pass of ONNX operators in float64, from the text of the operators (opset 18+).

What relevance passes through numerically is written out here. Operators that only move elements,
and all arithmetic on integers (shapes, indices), are left to ``onnx.reference``.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxlrp.reference import kernels, recurrent, trees
from onnxlrp.reference.windows import Attributes, Windows, transposed_windows, windows

Array = npt.NDArray[Any]

OLDEST_OPSET = 18

_OPSETS = (("", OLDEST_OPSET), ("ai.onnx.ml", 3))

_erf = np.vectorize(math.erf, otypes=[np.float64])


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Return the attributes a node spells out, strings decoded."""
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in values.items()}


def is_float(array: Array) -> bool:
    """Whether the elements are real numbers; numpy does not count bfloat16 among its floats."""
    return np.issubdtype(array.dtype, np.floating) or array.dtype.name == "bfloat16"


def widened(array: Any) -> Array:
    """Return the array, in float64 if it holds real numbers of any width."""
    exact: Array = np.asarray(array)
    return exact.astype(np.float64) if is_float(exact) else exact


def _padded(x: Array, begin: Sequence[int], end: Sequence[int], fill: float) -> Array:
    width = [(0, 0), (0, 0), *zip(begin, end, strict=True)]
    return np.pad(x, width, constant_values=fill)


def _strided(first: Sequence[int], count: Sequence[int], step: Sequence[int]) -> tuple[Any, ...]:
    """Select ``count`` positions on each spatial axis, starting at ``first``."""
    axes = zip(first, count, step, strict=True)
    return (..., *(slice(f, f + (n - 1) * s + 1, s) for f, n, s in axes))


def _slide(padded: Array, w: Windows, fill: float) -> Iterator[tuple[tuple[int, ...], Array]]:
    """Yield, for each kernel offset, what all windows see there: [N, C, *outputs]."""
    reach = [(o - 1) * s + e for o, s, e in zip(w.outputs, w.strides, w.extent, strict=True)]
    beyond = [max(r - n, 0) for r, n in zip(reach, padded.shape[2:], strict=True)]
    padded = _padded(padded, [0] * len(beyond), beyond, fill)
    for offset in np.ndindex(*w.kernel):
        start = [k * d for k, d in zip(offset, w.dilations, strict=True)]
        yield offset, padded[_strided(start, w.outputs, w.strides)]


def _conv(a: Attributes, x: Array, weight: Array, bias: Array | None = None) -> Array:
    n, groups, m = len(x), a.get("group", 1), len(weight)
    w = windows(a, x.shape[2:], weight.shape[2:])
    per_group = weight.reshape(groups, m // groups, *weight.shape[1:])
    y = np.zeros((n, groups, m // groups, math.prod(w.outputs)))
    for offset, seen in _slide(_padded(x, w.begin, w.end, 0.0), w, 0.0):
        columns = seen.reshape(n, groups, weight.shape[1], -1)
        y += per_group[(slice(None),) * 3 + offset] @ columns
    y = y.reshape(n, m, *w.outputs)
    return y if bias is None else y + bias.reshape(-1, *[1] * len(w.kernel))


def _conv_transpose(a: Attributes, x: Array, weight: Array, bias: Array | None = None) -> Array:
    n, groups, (channels, m) = len(x), a.get("group", 1), weight.shape[:2]
    size = x.shape[2:]
    w = transposed_windows(a, size, weight.shape[2:])
    per_group = weight.reshape(groups, channels // groups, *weight.shape[1:])
    columns = x.reshape(n, groups, channels // groups, -1)
    # A negative pad, which output_shape can ask for, widens the output.
    shift = [max(-b, 0) for b in w.begin]
    reach = [(i - 1) * s + e for i, s, e in zip(size, w.strides, w.extent, strict=True)]
    needed = [b + o for b, o in zip(w.begin, w.outputs, strict=True)]
    room = [h + max(r, m) for h, r, m in zip(shift, reach, needed, strict=True)]
    canvas = np.zeros((n, groups * m, *room))
    for offset in np.ndindex(*w.kernel):
        each = per_group[(slice(None),) * 3 + offset].swapaxes(1, 2) @ columns
        at = [k * d + h for k, d, h in zip(offset, w.dilations, shift, strict=True)]
        canvas[_strided(at, size, w.strides)] += each.reshape(n, groups * m, *size)
    first = [b + h for b, h in zip(w.begin, shift, strict=True)]
    y: Array = canvas[_strided(first, w.outputs, [1] * len(size))]
    return y if bias is None else y + bias.reshape(-1, *[1] * len(w.kernel))


def _average_pool(a: Attributes, x: Array) -> Array:
    w = windows(a, x.shape[2:], a["kernel_shape"])
    total = sum(seen for _, seen in _slide(_padded(x, w.begin, w.end, 0.0), w, 0.0))
    # What ceil_mode adds beyond the padded input never counts, even where padding does.
    counted = np.ones((1, 1, *x.shape[2:]))
    counted = _padded(counted, w.begin, w.end, float(a.get("count_include_pad", 0)))
    count: Array = sum(seen for _, seen in _slide(counted, w, 0.0))  # type: ignore[assignment]
    return total / count


def _max_pool(a: Attributes, x: Array) -> Array:
    w = windows(a, x.shape[2:], a["kernel_shape"])
    padded = _padded(x, w.begin, w.end, -np.inf)
    return np.asarray(np.max([seen for _, seen in _slide(padded, w, -np.inf)], axis=0))


def reduced_axes(a: Attributes, rank: int, axes: Array | None) -> tuple[int, ...]:
    """Return the axes that ReduceMean or ReduceSum sums over."""
    if axes is None or axes.size == 0:
        return () if a.get("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(int(i) % rank for i in axes)


def _reduce(a: Attributes, x: Array, axes: Array | None, mean: bool) -> Array:
    over = reduced_axes(a, x.ndim, axes)
    total = np.sum(x, axis=over, keepdims=a.get("keepdims", 1) == 1)
    return np.asarray(total / math.prod(x.shape[i] for i in over) if mean else total)


def _reduced(a: Attributes, x: Array, axes: Array | None, function: Callable[..., Any]) -> Array:
    over = reduced_axes(a, x.ndim, axes)
    return np.asarray(function(x, axis=over, keepdims=a.get("keepdims", 1) == 1))


def lrn_window(k: int, size: int, channels: int) -> range:
    """Return the channels that enter y_k: [k - floor((n-1)/2), k + ceil((n-1)/2)], cut off."""
    return range(max(0, k - (size - 1) // 2), min(channels - 1, k + size // 2) + 1)


def _lrn(a: Attributes, x: Array) -> Array:
    size = a["size"]
    y = np.empty_like(x)
    for k in range(x.shape[1]):
        squares = sum(x[:, j] ** 2 for j in lrn_window(k, size, x.shape[1]))
        base = a.get("bias", 1.0) + a.get("alpha", 1e-4) / size * squares
        y[:, k] = x[:, k] / base ** a.get("beta", 0.75)
    return y


def _batch_normalization(
    a: Attributes, x: Array, scale: Array, bias: Array, mean: Array, variance: Array
) -> Array:
    if a.get("training_mode", 0):
        raise NotImplementedError("BatchNormalization in training mode")
    s, b, m, v = (p.reshape(-1, *[1] * (x.ndim - 2)) for p in (scale, bias, mean, variance))
    return np.asarray((x - m) / np.sqrt(v + a.get("epsilon", 1e-5)) * s + b)


def gemm_operands(a: Attributes, left: Array, right: Array) -> tuple[Array, Array]:
    """Return the two factors of a Gemm, transposed as its attributes ask."""
    return (
        left.T if a.get("transA", 0) else left,
        right.T if a.get("transB", 0) else right,
    )


def _gemm(a: Attributes, left: Array, right: Array, bias: Array | None = None) -> Array:
    left, right = gemm_operands(a, left, right)
    y = a.get("alpha", 1.0) * (left @ right)
    return np.asarray(y if bias is None else y + a.get("beta", 1.0) * bias)


def _log_softmax(a: Attributes, x: Array) -> Array:
    axis = a.get("axis", -1)
    x = x - x.max(axis=axis, keepdims=True)
    return np.asarray(x - np.log(np.exp(x).sum(axis=axis, keepdims=True)))


@dataclass(frozen=True)
class Groups:
    """What a normalisation by its own statistics does, written out.

    Attributes
    ----------
    index
        [groups, D], positions in the flattened input of what is normalised together.
    centred
        Whether the mean is taken off.
    norm
        Whether the root of the sum, not of the mean, of squares divides.
    epsilon, outside
        What is added to the mean of squares, and to its root.
    scale, bias
        In the input's shape.
    """

    index: Array
    centred: bool
    norm: bool
    epsilon: float
    outside: float
    scale: Array
    bias: Array


def normalised_groups(node: onnx.NodeProto, inputs: Sequence[Array | None]) -> Groups:
    """Write out a normalisation by its own statistics."""
    a, operator = attributes_of(node), node.op_type
    x, scale, bias = (*inputs, None, None)[:3]
    assert x is not None
    axes: Sequence[int] = range(2, x.ndim)
    if "axes" in a:
        axes = [axis % x.ndim for axis in a["axes"]]
    elif operator in ("LayerNormalization", "RMSNormalization"):
        axes = range(a.get("axis", -1) % x.ndim, x.ndim)
    elif operator == "MeanVarianceNormalization":
        axes = [0, 2, 3]
    elif operator == "LpNormalization":
        axes = [a.get("axis", -1) % x.ndim]
    place = np.arange(x.size).reshape(x.shape)
    if operator == "GroupNormalization":
        index = place.reshape(x.shape[0] * a["num_groups"], -1)
    else:
        kept = [axis for axis in range(x.ndim) if axis not in axes]
        count = math.prod(x.shape[axis] for axis in axes)
        index = place.transpose(*kept, *axes).reshape(-1, count)

    def spread(factor: Array | None, default: float) -> Array:
        if factor is None:
            return np.full(x.shape, default)
        if operator in ("InstanceNormalization", "GroupNormalization"):
            # Up to opset 20 a GroupNormalization has one number for each group.
            factor = np.repeat(factor, x.shape[1] // len(factor))
            factor = factor.reshape(-1, *(1,) * (x.ndim - 2))
        return np.broadcast_to(factor, x.shape)

    norm, moments = operator == "LpNormalization", operator == "MeanVarianceNormalization"
    return Groups(
        index=index,
        centred=operator not in ("RMSNormalization", "LpNormalization"),
        norm=norm,
        epsilon=0.0 if norm or moments else a.get("epsilon", 1e-5),
        outside=1e-9 if moments else 0.0,
        scale=spread(scale, 1.0),
        bias=spread(bias, 0.0),
    )


def _normalisation(node: onnx.NodeProto, inputs: Sequence[Array | None]) -> Array:
    given = normalised_groups(node, inputs)
    x = inputs[0]
    assert x is not None
    rows = x.reshape(-1)[given.index]
    if given.centred:
        rows = rows - rows.mean(axis=1, keepdims=True)
    squares = (
        (rows**2).sum(axis=1, keepdims=True)
        if given.norm
        else (rows**2).mean(axis=1, keepdims=True)
    )
    deviation = np.sqrt(squares + given.epsilon) + given.outside
    # A vector of zeros has no direction, and onnxruntime leaves it as it is.
    y = np.zeros(x.size)
    y[given.index] = rows / np.where(deviation == 0, 1.0, deviation)
    return np.asarray(y.reshape(x.shape) * given.scale + given.bias)


def _running_sum(a: Attributes, x: Array, axis: Array) -> Array:
    along = int(np.asarray(axis).reshape(()))
    if a.get("reverse", 0):
        x = np.flip(x, along)
    y = np.cumsum(x, along) - (x if a.get("exclusive", 0) else 0)
    return np.flip(y, along) if a.get("reverse", 0) else y


def _clip(a: Attributes, x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def _gelu(a: Attributes, x: Array) -> Array:
    if a.get("approximate", "none") == "tanh":
        inner = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    else:
        inner = _erf(x / math.sqrt(2))
    return np.asarray(0.5 * x * (1 + inner))


def _pad(
    a: Attributes, x: Array, pads: Array, value: Array | None = None, axes: Array | None = None
) -> Array:
    width = np.zeros((x.ndim, 2), dtype=np.int64)
    width[np.arange(x.ndim) if axes is None else axes] = np.reshape(pads, (2, -1)).T
    fill = 0 if value is None else np.asarray(value).item()
    mode = a.get("mode", "constant")
    filled = {"constant_values": fill} if mode == "constant" else {}
    x = np.pad(x, np.maximum(width, 0), mode=mode, **filled)
    # A negative pad removes elements.
    cut = np.maximum(-width, 0)
    return x[tuple(slice(b, n - e) for (b, e), n in zip(cut, x.shape, strict=True))]


def _gather_elements(a: Attributes, x: Array, places: Array) -> Array:
    # onnx's own takes no axis of more than 64.
    axis = a.get("axis", 0) % x.ndim
    kept = (slice(None) if i == axis else slice(n) for i, n in enumerate(places.shape))
    return np.take_along_axis(x[tuple(kept)], places, axis)


def _cast(a: Attributes, x: Array) -> Array:
    kind = np.empty(0, dtype=helper.tensor_dtype_to_np_dtype(a["to"]))
    # Real numbers stay in float64: the reference does not model the rounding of narrow types.
    return x.astype(np.float64) if is_float(kind) else x.astype(kind.dtype)


def _hardmax(a: Attributes, x: Array) -> Array:
    axis = a.get("axis", -1) % x.ndim
    first = np.expand_dims(x.argmax(axis), axis)
    return np.asarray(np.indices(x.shape)[axis] == first, np.float64)


def _sigmoid(x: Array) -> Array:
    return np.exp(-np.logaddexp(0.0, -x))


def _expm1_below(x: Array) -> Array:
    return np.expm1(np.minimum(x, 0.0))


NORMALISATIONS = frozenset(
    {
        *("LayerNormalization", "RMSNormalization", "InstanceNormalization", "GroupNormalization"),
        *("MeanVarianceNormalization", "LpNormalization"),
    }
)
"""Operators that normalise by their own mean or deviation."""

ACTIVATIONS: dict[str, Callable[..., Array]] = {
    "Relu": lambda a, x: np.maximum(x, 0.0),
    "Clip": _clip,
    "LeakyRelu": lambda a, x: np.where(x < 0, a.get("alpha", 0.01) * x, x),
    "PRelu": lambda a, x, slope: np.where(x < 0, slope * x, x),
    "ThresholdedRelu": lambda a, x: np.where(x > a.get("alpha", 1.0), x, 0.0),
    "Sigmoid": lambda a, x: _sigmoid(x),
    "HardSigmoid": lambda a, x: np.clip(a.get("alpha", 0.2) * x + a.get("beta", 0.5), 0.0, 1.0),
    "HardSwish": lambda a, x: x * np.clip(x / 6 + 0.5, 0.0, 1.0),
    "Swish": lambda a, x: x * _sigmoid(a.get("alpha", 1.0) * x),
    "Tanh": lambda a, x: np.tanh(x),
    "Elu": lambda a, x: np.where(x < 0, a.get("alpha", 1.0) * _expm1_below(x), x),
    "Selu": lambda a, x: (
        a.get("gamma", 1.05070102214813232421875)
        * np.where(x < 0, a.get("alpha", 1.67326319217681884765625) * _expm1_below(x), x)
    ),
    "Celu": lambda a, x: np.where(
        x < 0, a.get("alpha", 1.0) * _expm1_below(x / a.get("alpha", 1.0)), x
    ),
    "Gelu": _gelu,
    "Mish": lambda a, x: x * np.tanh(np.logaddexp(0.0, x)),
    "Softplus": lambda a, x: np.logaddexp(0.0, x),
    "Softsign": lambda a, x: x / (1 + np.abs(x)),
    "Shrink": lambda a, x: (
        np.where(x < -a.get("lambd", 0.5), x + a.get("bias", 0.0), 0.0)
        + np.where(x > a.get("lambd", 0.5), x - a.get("bias", 0.0), 0.0)
    ),
    "Hardmax": _hardmax,
    "Abs": lambda a, x: np.abs(x),
    "Erf": lambda a, x: _erf(x),
    "Exp": lambda a, x: np.exp(x),
    "Log": lambda a, x: np.log(x),
    "Sqrt": lambda a, x: np.sqrt(x),
    "Reciprocal": lambda a, x: 1 / x,
    "Sin": lambda a, x: np.sin(x),
    "Cos": lambda a, x: np.cos(x),
    "Tan": lambda a, x: np.tan(x),
    "Asin": lambda a, x: np.arcsin(x),
    "Acos": lambda a, x: np.arccos(x),
    "Atan": lambda a, x: np.arctan(x),
    "Sinh": lambda a, x: np.sinh(x),
    "Cosh": lambda a, x: np.cosh(x),
    "Asinh": lambda a, x: np.arcsinh(x),
    "Acosh": lambda a, x: np.arccosh(x),
    "Atanh": lambda a, x: np.arctanh(x),
    "Sign": lambda a, x: np.sign(x),
    "Floor": lambda a, x: np.floor(x),
    "Ceil": lambda a, x: np.ceil(x),
    "Round": lambda a, x: np.rint(x),
}
"""Functions of one element at a time."""

_NUMERIC: dict[str, Callable[..., Any]] = ACTIVATIONS | {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": lambda a, x, y: x @ y,
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda a, x: x.mean(axis=tuple(range(2, x.ndim)), keepdims=True),
    "ReduceMean": lambda a, x, axes=None: _reduce(a, x, axes, mean=True),
    "ReduceSum": lambda a, x, axes=None: _reduce(a, x, axes, mean=False),
    "MaxPool": _max_pool,
    "LRN": _lrn,
    "BatchNormalization": _batch_normalization,
    "Add": lambda a, x, y: x + y,
    "Sub": lambda a, x, y: x - y,
    "Neg": lambda a, x: -x,
    "Mul": lambda a, x, y: x * y,
    "Div": lambda a, x, y: x / y,
    "Pow": lambda a, x, y: x**y,
    "Mod": lambda a, x, y: np.fmod(x, y) if a.get("fmod", 0) else np.mod(x, y),
    "Max": lambda a, *xs: np.maximum.reduce(np.broadcast_arrays(*xs)),
    "Min": lambda a, *xs: np.minimum.reduce(np.broadcast_arrays(*xs)),
    "GlobalMaxPool": lambda a, x: x.max(axis=tuple(range(2, x.ndim)), keepdims=True),
    "ReduceMax": lambda a, x, axes=None: _reduced(a, x, axes, np.max),
    "ReduceMin": lambda a, x, axes=None: _reduced(a, x, axes, np.min),
    "ReduceProd": lambda a, x, axes=None: _reduced(a, x, axes, np.prod),
    "Where": lambda a, condition, x, y: np.where(condition, x, y),
    "Sum": lambda a, *xs: sum(xs[1:], start=xs[0]),
    "Mean": lambda a, *xs: sum(xs[1:], start=xs[0]) / len(xs),
    "CumSum": _running_sum,
    "Softmax": lambda a, x: np.exp(_log_softmax(a, x)),
    "LogSoftmax": _log_softmax,
    "Pad": _pad,
    "GatherElements": _gather_elements,
    "Cast": _cast,
    "Identity": lambda a, x: x,
    "Dropout": lambda a, x, *_: x,
}

_DELEGATED = {
    *("Concat", "Split", "Slice", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"),
    *("Shape", "Size", "Gather", "Constant", "ConstantOfShape", "Expand", "Tile", "ArgMax"),
    *("DepthToSpace", "SpaceToDepth", "GatherND", "ScatterElements"),
    *("ScatterND", "TopK", "Resize", "ReverseSequence", "Trilu", "Col2Im"),
    *("Binarizer", "LabelEncoder", "OneHotEncoder"),
}


_ANY = ("Cast", "Pad", "Identity", "GatherElements")
"""Operators that are written out here for whole numbers, too."""


def _delegate(node: onnx.NodeProto, inputs: Sequence[Array | None]) -> list[Array]:
    alone = onnx.NodeProto()
    alone.CopyFrom(node)
    alone.input[:] = ["" if v is None else f"input{t}" for t, v in enumerate(inputs)]
    alone.output[:] = [f"output{t}" for t in range(len(node.output))]
    feeds = {f"input{t}": v for t, v in enumerate(inputs) if v is not None}
    graph = helper.make_graph(
        [alone],
        "one node",
        [
            helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for k, v in feeds.items()
        ],
        [helper.make_empty_tensor_value_info(name) for name in alone.output],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(d, v) for d, v in _OPSETS])
    return [np.asarray(v) for v in ReferenceEvaluator(model).run(None, feeds)]


def forward(node: onnx.NodeProto, inputs: Sequence[Array | None]) -> list[Array]:
    """Compute one node; absent optional inputs are None. Real numbers come out as float64."""
    given = [v for v in inputs if v is not None]
    integers = bool(given) and not any(is_float(v) for v in given)
    if node.op_type in _DELEGATED or (integers and node.op_type not in _ANY):
        return [widened(v) for v in _delegate(node, inputs)]
    if node.op_type in trees.TREES:
        (x,) = given
        return [trees.scores(node, x)]
    if node.op_type == kernels.MACHINE:
        (x,) = given
        return [kernels.decisions(node, x)]
    if node.op_type in NORMALISATIONS:
        return [_normalisation(node, inputs)]
    if node.op_type in recurrent.GATES:
        whole = recurrent.written_out(node, attributes_of(node), inputs, forward)
        return [whole.tape.values[name] for name in whole.outputs]
    if node.op_type not in _NUMERIC:
        raise NotImplementedError(f"the reference has no forward pass of {node.op_type}")
    return [widened(_NUMERIC[node.op_type](attributes_of(node), *inputs))]


def evaluate(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> dict[str, Array]:
    """Return every value of the graph by name, real numbers in float64."""
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if opset < OLDEST_OPSET:
        raise ValueError(f"opset {opset}: lift the model to opset {OLDEST_OPSET} first")
    values = {t.name: widened(numpy_helper.to_array(t)) for t in model.graph.initializer}
    values |= {name: widened(value) for name, value in feeds.items()}
    for node in model.graph.node:
        outputs = forward(node, [values[name] if name else None for name in node.input])
        # Outputs that are not computed here, such as a pool's Indices, carry no relevance.
        values |= {name: v for name, v in zip(node.output, outputs, strict=False) if name}
    return values
