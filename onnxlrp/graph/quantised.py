"""Quantised models: a twin in real numbers, which is explained, beside the model, which computes.

onnxruntime merges the nodes of a quantised model into others, and what they give depends on who
else reads what lies between. So the model's own nodes are set aside, and get no reader but of what
is quantised for good. The twin computes, from the model's own quantised activations and from
dequantised weights, what each layer does; where the model rounds, the twin has a Clip to what the
integers can hold (or an Identity), across which relevance passes, and which says in its metadata
what of the model's is read in its place: once all is written, `compiler.reunion` puts it there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from onnxlrp.errors import ModelError
from onnxlrp.graph.bodies import MICROSOFT
from onnxlrp.graph.operators import Fact, has

READS = "onnxlrp.reads"
"""Metadata of a node of the twin: as JSON, how and what it reads of the model (`Reunion`)."""

DEQUANTISED, DYNAMIC, COPY, SAME = "dequantised", "dynamic", "copy", "same"
"""Ways of reading: a quantised value; what is quantised when it runs; another's copy; as it is."""

TWIN = "onnxlrp.twin"
"""Metadata of an explainer: what its graph lacks of the twin, a GraphProto in base64."""

OPEN = "Clip"
"""What an Identity of the twin is, without bounds, until constants are folded: that drops it."""

WITHIN = "quantised/"
"""In front of the names that the model's own nodes and values have in an explainer."""

_QUANTISE = ("QuantizeLinear", f"{MICROSOFT}::QuantizeLinear")
_DEQUANTISE = ("DequantizeLinear", f"{MICROSOFT}::DequantizeLinear")
_WHOLE = ("ConvInteger", "MatMulInteger")

_COPIED = (
    *(TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE),
    *(TensorProto.INT32, TensorProto.INT64),
)
"""Types that Max takes."""


def key_of(node: onnx.NodeProto) -> str:
    """Return a node's operator type; `domain::Type` outside ai.onnx."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"


def split(proto: onnx.ModelProto, weights: Iterable[onnx.TensorProto]) -> onnx.GraphProto | None:
    """Replace a quantised model by its twin; return what it was, without initializers.

    Parameters
    ----------
    proto : as `lifting` has it, its large weights set aside
    weights : those

    Returns
    -------
    None for a model without anything quantised, which stays as it is

    Raises
    ------
    ModelError
        Integers are computed with in a way that says nothing of real numbers.

    """
    graph = proto.graph
    if not any(key_of(node) in (*WRITERS, *_PACKED) for node in graph.node):
        return None
    own = onnx.GraphProto()
    own.CopyFrom(graph)
    constant = {t.name: t for t in (*graph.initializer, *weights)}
    twin = _Twin(graph, constant)
    for node in own.node:
        twin.take(node)
    outputs = twin.outputs()
    del graph.node[:], graph.output[:], graph.value_info[:], own.initializer[:]
    graph.node.extend(twin.nodes)
    graph.output.extend(outputs)
    graph.value_info.extend(twin.typed)
    graph.value_info.extend(v for v in own.value_info if v.name not in twin.scales)
    graph.initializer.extend(twin.constants)
    return own


def identify(graph: ir.Graph) -> None:
    """Write Identity for what has no bounds to cut off at."""
    for node in graph:
        if READS in node.metadata_props and node.op_type == OPEN and len(node.inputs) == 1:
            node.op_type = "Identity"


class _Twin:
    """What is written of the twin so far; `constant` are the model's initializers by name."""

    def __init__(self, graph: onnx.GraphProto, constant: dict[str, onnx.TensorProto]) -> None:
        self.graph = graph
        self.constant = constant
        self.inputs = {v.name: v for v in graph.input if v.name not in constant}
        self.live = set(self.inputs)
        self.nodes: list[onnx.NodeProto] = []
        self.typed: list[onnx.ValueInfoProto] = []
        self.constants: list[onnx.TensorProto] = []
        # By name of a quantised value: scale and zero point of what the twin has in its place.
        self.scales: dict[str, tuple[str, str]] = {}
        # By name of what the twin has nothing for: sums of whole numbers, and their scales.
        self.sums: dict[str, onnx.NodeProto] = {}
        self.products: dict[str, tuple[str, str]] = {}
        self.absent: set[str] = set()
        # By name of what is chosen of a constant, which may be quantised: what chooses it.
        self.chosen: dict[str, onnx.NodeProto] = {}
        self._held: dict[tuple[str, ...], str] = {}
        self._meant: set[str] = set()
        made = {name for node in graph.node for name in node.output}
        self.names = {v.name: f"{v.name}_dequantised" for v in graph.output if v.name in made}
        readers: dict[str, set[str]] = {}
        for node in graph.node:
            for name in node.input:
                readers.setdefault(name, set()).add(key_of(node))
        for name, value in self.inputs.items():
            at_once = readers.get(name, set()) <= {*_QUANTISE, *_DEQUANTISE, *_ALONE}
            if value.type.tensor_type.elem_type in _COPIED and not at_once:
                # Else onnxruntime would merge what the model and the twin do first.
                self.add(OPEN, [name], f"{name}_read", reads=(COPY, [name]))
                self.names[name] = f"{name}_read"

    def name(self, own: str) -> str:
        """Return what holds a value of the model in the twin."""
        return self.names.get(own, own)

    def add(
        self,
        op: str,
        inputs: Sequence[str],
        output: str,
        *,
        name: str = "",
        reads: tuple[str, Sequence[str]] | tuple[str, Sequence[str], dict[str, Any]] | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> str:
        node = helper.make_node(
            op, inputs, [output], name=name or output, domain=domain, **attributes
        )
        if reads is not None:
            how, values, *more = reads
            told = {"how": how, "of": list(values), **(more[0] if more else {})}
            node.metadata_props.add(key=READS, value=json.dumps(told))
        self.nodes.append(node)
        return output

    def take(self, node: onnx.NodeProto) -> None:
        """Write what a node of the model means."""
        key = key_of(node)
        live = any(name in self.live for name in node.input) or any(
            a.HasField("g") for a in node.attribute
        )
        if live:
            self.live.update(node.output)
        write = WRITERS.get(key)
        if write is not None and (live or key in _DEQUANTISE):
            write(self, node)
        elif not (live and self._is_of_sums(node)):
            self._copy(node, key)

    def _copy(self, node: onnx.NodeProto, key: str) -> None:
        whole = [name for name in node.input if name in self.scales]
        if whole and has(key, Fact.MOVES):
            self.scales.update((name, self.scales[whole[0]]) for name in node.output)
        elif node.input and node.input[0] in self.constant and has(key, Fact.MOVES):
            self.chosen[node.output[0]] = node
        elif self.absent & {*node.input} or (whole and node.domain in ("", "ai.onnx")):
            self.refuse(node)
        copy = onnx.NodeProto.FromString(node.SerializeToString())
        for field in (copy.input, copy.output):
            field[:] = [self.name(name) for name in field]
        self.nodes.append(copy)

    def refuse(self, node: onnx.NodeProto) -> None:
        raise ModelError(
            f"{node.name or node.output[0]} ({node.op_type}) computes with a quantised network's "
            "whole numbers in a way that has no counterpart in real ones; give the model before it "
            "was quantised"
        )

    def _is_of_sums(self, node: onnx.NodeProto) -> bool:
        """Tell whether a node belongs to those that scale sums of whole numbers; write the last."""
        if node.op_type == "Cast" and node.input[0] in self.sums:
            self.sums[node.output[0]] = self.sums[node.input[0]]
            self.absent.update(node.output)
            return True
        if node.op_type != "Mul":
            return False
        for one, other in (node.input, reversed(node.input)):
            if one in self.sums:
                _summed(self, node, self.sums[one], other)
                return True
            if one in self.absent:
                self.products[node.output[0]] = (one, other)
                self.absent.update(node.output)
                return True
        return False

    # --- Real numbers for whole ones -------------------------------------------------------------

    def real(self, node: onnx.NodeProto, index: int, axis: int | None = None) -> str:
        """Return what a quantised input means; its scale and zero point are the two inputs behind.

        `axis` is that of the scales; None where there is but one.
        """
        q, scale, zero = (_input(node, place) for place in range(index, index + 3))
        return self.dequantised(q, scale, zero, axis)

    def dequantised(
        self, q: str, scale: str, zero: str, axis: int | None, real: str = "", **more: Any
    ) -> str:
        """Return what holds a value's meaning; `real` is what it is to be called."""
        if self.scales.get(q) == (scale, zero):
            return self.name(q)
        key = (q, scale, zero, str(axis))
        if key in self._held and not real:
            return self._held[key]
        real = real or (f"{q}_real_{len(self._held)}" if q in self._meant else f"{q}_real")
        self._held[key] = real
        self._meant.add(q)
        if q in self.chosen:
            choice = self.chosen[q]
            table = self.dequantised(choice.input[0], scale, zero, axis, **more)
            given = [table, *map(self.name, choice.input[1:])]
            attributes = {a.name: helper.get_attribute_value(a) for a in choice.attribute}
            return self.add(choice.op_type, given, real, name=choice.name, **attributes)
        if q in self.live:
            told = {"axis": axis, "domain": more.get("domain", "")}
            cast: dict[str, Any] = {"to": self._kind(scale)} if q in self.inputs else {}
            op = "Cast" if cast else OPEN
            reads = (DEQUANTISED, [q, scale, zero], told)
            return self.add(op, [self.name(q)], real, reads=reads, **cast)
        if axis is not None:
            more["axis"] = axis
        self.add("DequantizeLinear", [q, scale, zero] if zero else [q, scale], real, **more)
        if q in self.constant:
            info = helper.make_tensor_value_info(real, self._kind(scale), self.constant[q].dims)
            self.typed.append(info)
        return real

    def _kind(self, scale: str) -> int:
        return self.constant[scale].data_type if scale in self.constant else TensorProto.FLOAT

    def round(
        self,
        x: str,
        q: str,
        scale: str,
        zero: str,
        name: str,
        axis: int | None = None,
        kind: int = 0,
        domain: str = "",
    ) -> None:
        """Write that x is quantised, as q."""
        self.scales[q] = (scale, zero)
        told = {"axis": axis, "domain": domain}
        reads = (DEQUANTISED, [q, scale, zero], told)
        ends = self._ends(scale, zero, kind)
        if ends is None:
            self.add(OPEN, [x], self.name(q), name=name, reads=reads)
            return
        bounds = [f"{q}_{side}" for side in ("low", "high")]
        for bound, end in zip(bounds, ends, strict=True):
            self.constants.append(numpy_helper.from_array(end, bound))
        self.add("Clip", [x, *bounds], self.name(q), name=name, reads=reads)

    def _ends(self, scale: str, zero: str, kind: int) -> list[np.ndarray[Any, Any]] | None:
        """Return the smallest and largest number that a type holds; None where it depends."""
        held = self.constant.get(scale)
        offset = self.constant.get(zero) if zero else None
        if held is None or (zero and offset is None) or np.prod(held.dims, dtype=int) != 1:
            return None
        dtype = helper.tensor_dtype_to_np_dtype(
            offset.data_type if offset is not None else kind or TensorProto.UINT8
        )
        step = numpy_helper.to_array(held).reshape(())
        whole = np.dtype(dtype).kind in "iu" or "int" in np.dtype(dtype).name
        limits: Any = (ml_dtypes.iinfo if whole else ml_dtypes.finfo)(dtype)
        middle = 0.0 if offset is None else float(numpy_helper.to_array(offset).reshape(()))
        return [
            np.array((float(end) - middle) * float(step), step.dtype)
            for end in (limits.min, limits.max)
        ]

    def compute(
        self, node: onnx.NodeProto, op: str, inputs: Sequence[str], result: int | None, **more: Any
    ) -> None:
        """Write an operator, and the rounding of what it gives: scale and zero point at `result`.

        It has those of the node's attributes that it knows.
        """
        known = onnx.defs.get_schema(op).attributes
        given = {a.name: helper.get_attribute_value(a) for a in node.attribute if a.name in known}
        y = node.output[0]
        rounds = result is not None and _input(node, result) != ""
        z = f"{y}_real" if rounds else self.name(y)
        last = bool(_attribute(node, "channels_last", 0))
        if last:
            rank = len(given.get("kernel_shape") or ()) + 2 if op != "Conv" else 0
            rank = len(self.constant[node.input[3]].dims) if op == "Conv" else max(rank, 4)
            forward = [0, rank - 1, *range(1, rank - 1)]
            back = [0, *range(2, rank), 1]
            inputs = [
                self.add("Transpose", inputs[:1], f"{y}_first", perm=forward), *inputs[1:]
            ]  # fmt: skip
        made = self.add(
            op, inputs, f"{y}_channels" if last else z, name=node.name, **(given | more)
        )
        if last:
            self.add("Transpose", [made], z, perm=back)
        if rounds and result is not None:
            self.round(z, y, _input(node, result), _input(node, result + 1), f"{node.name or y}/Q")

    def bias(self, node: onnx.NodeProto, index: int, *scales: str) -> list[str]:
        """Return an optional bias of whole numbers, in the product of two scales."""
        b = _input(node, index)
        if not b:
            return []
        step = self.add("Mul", scales, f"{b}_step")
        several = any(len(self.constant[s].dims) for s in scales if s in self.constant)
        return [self.dequantised(b, step, "", 0 if several else None)]

    def outputs(self) -> list[onnx.ValueInfoProto]:
        """Hand on what the model puts out, in its place; of whole numbers, what they mean."""
        result = []
        for value in self.graph.output:
            name = value.name
            if name in self.scales:
                result.append(helper.make_empty_tensor_value_info(self.name(name)))
                continue
            if name in self.names:
                self.add(OPEN, [self.names[name]], name, reads=(SAME, [name]))
            result.append(onnx.ValueInfoProto.FromString(value.SerializeToString()))
        return result


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    found = (helper.get_attribute_value(a) for a in node.attribute if a.name == name)
    return next(found, default)


def _input(node: onnx.NodeProto, index: int) -> str:
    return node.input[index] if len(node.input) > index else ""


# --- What operators mean -------------------------------------------------------------------------


def _quantise(twin: _Twin, node: onnx.NodeProto) -> None:
    scale, zero = node.input[1], _input(node, 2)
    dims = twin.constant[scale].dims if scale in twin.constant else ()
    axis = _attribute(node, "axis", 1) if np.prod(dims, dtype=int) > 1 else None
    kind = _attribute(node, "output_dtype", 0)
    x, (q,) = twin.name(node.input[0]), node.output
    twin.round(x, q, scale, zero, node.name, axis, kind, node.domain)


def _dequantise(twin: _Twin, node: onnx.NodeProto) -> None:
    q, scale, zero = (_input(node, place) for place in range(3))
    dims = twin.constant[scale].dims if scale in twin.constant else ()
    single = np.prod(dims, dtype=int) == 1
    axis = None if single else _attribute(node, "axis", 1)
    more = {n: v for n in ("block_size", "output_dtype") if (v := _attribute(node, n, 0))}
    d = node.output[0]
    twin.names[d] = twin.dequantised(
        q, scale, zero, axis, twin.name(d), name=node.name, domain=node.domain, **more
    )


def _dynamic(twin: _Twin, node: onnx.NodeProto) -> None:
    x, (q, scale, zero) = node.input[0], node.output
    twin.scales[q] = (scale, zero)
    twin.absent.update((scale, zero))
    twin.add(OPEN, [twin.name(x)], twin.name(q), name=node.name, reads=(DYNAMIC, [x]))


def _form(op: str, *operands: int, result: int, **given: Any) -> Callable[..., None]:
    """Return how an operator is written whose operands' scales stand behind each of them."""

    def write(twin: _Twin, node: onnx.NodeProto) -> None:
        inputs = [twin.real(node, index) for index in operands]
        twin.compute(node, op, inputs, result, **given)

    return write


def _conv(twin: _Twin, node: onnx.NodeProto) -> None:
    inputs = [twin.real(node, 0), twin.real(node, 3, _of_scales(twin, node.input[4], 0))]
    inputs += twin.bias(node, 8, node.input[1], node.input[4])
    twin.compute(node, "Conv", inputs, 6)


def _matmul(twin: _Twin, node: onnx.NodeProto) -> None:
    weights = twin.real(node, 3, _of_scales(twin, node.input[4], -1))
    twin.compute(node, "MatMul", [twin.real(node, 0), weights], 6)


def _gemm(twin: _Twin, node: onnx.NodeProto) -> None:
    turned = _attribute(node, "transB", 0)
    weights = twin.real(node, 3, _of_scales(twin, node.input[4], 0 if turned else 1))
    bias = twin.bias(node, 6, node.input[1], node.input[4])
    if bias and _attribute(node, "alpha", 1.0) != 1:
        twin.refuse(node)
    twin.compute(node, "Gemm", [twin.real(node, 0), weights, *bias], 7)


def _concat(twin: _Twin, node: onnx.NodeProto) -> None:
    parts = [twin.real(node, index) for index in range(2, len(node.input), 3)]
    twin.compute(node, "Concat", parts, 0)


def _where(twin: _Twin, node: onnx.NodeProto) -> None:
    branches = [twin.real(node, 1), twin.real(node, 4)]
    twin.compute(node, "Where", [twin.name(node.input[0]), *branches], 7)


def _softmax(twin: _Twin, node: onnx.NodeProto) -> None:
    if _attribute(node, "opset", 13) < 13 and _attribute(node, "axis", 1) not in (-1,):
        twin.refuse(node)
    twin.compute(node, "Softmax", [twin.real(node, 0)], 3)


def _to_float(twin: _Twin, node: onnx.NodeProto) -> None:
    a, b, a_scale, b_scale, a_zero, b_zero, bias = (_input(node, i) for i in range(7))
    weights = twin.dequantised(b, b_scale, b_zero, _of_scales(twin, b_scale, -1))
    _multiplied(twin, node, twin.dequantised(a, a_scale, a_zero, None), weights, bias)


def _dynamic_matmul(twin: _Twin, node: onnx.NodeProto) -> None:
    a, b, scale, zero, bias = (_input(node, i) for i in range(5))
    rounded = f"{node.output[0]}_input"
    twin.add(OPEN, [twin.name(a)], rounded, reads=(DYNAMIC, [a]))
    weights = twin.dequantised(b, scale, zero, _of_scales(twin, scale, -1))
    _multiplied(twin, node, rounded, weights, bias)


def _multiplied(twin: _Twin, node: onnx.NodeProto, a: str, b: str, bias: str) -> None:
    y = node.output[0]
    if not bias:
        twin.compute(node, "MatMul", [a, b], None)
        return
    z = twin.add("MatMul", [a, b], f"{y}_product", name=node.name)
    twin.add("Add", [z, bias], twin.name(y), name=f"{node.name or y}/bias")


def _of_whole(twin: _Twin, node: onnx.NodeProto) -> None:
    if node.input[0] not in twin.scales:
        twin.refuse(node)
    twin.sums[node.output[0]] = node
    twin.absent.update(node.output)


def _summed(twin: _Twin, scaled: onnx.NodeProto, node: onnx.NodeProto, factor: str) -> None:
    """Write what a sum of products of whole numbers is, once it is scaled."""
    a, b, a_zero, b_zero = (_input(node, i) for i in range(4))
    scale, zero = twin.scales[a]
    first, step = twin.products.get(factor, ("", ""))
    if zero != a_zero or (step and scale not in (first, step)) or factor == scale:
        twin.refuse(node)
    if not step:
        step = twin.add("Div", [factor, scale], f"{scaled.output[0]}_step")
    elif step == scale:
        step = first
    y = scaled.output[0]
    op = node.op_type.removesuffix("Integer")
    if b in twin.scales and twin.scales[b] == (step, b_zero):
        weights = twin.name(b)
    else:
        dims = twin.constant[step].dims if step in twin.constant else ()
        several = np.prod(dims, dtype=int) > 1
        if several and len(dims) > 1:
            flat = f"{y}_flat"
            twin.constants.append(numpy_helper.from_array(np.array([-1], np.int64), flat))
            step = twin.add("Reshape", [step, flat], f"{step}_flat")
        axis = (0 if op == "Conv" else -1) if several else None
        weights = twin.dequantised(b, step, b_zero, axis)
    known = onnx.defs.get_schema(op).attributes
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute if a.name in known}
    twin.add(op, [twin.name(a), weights], twin.name(y), name=node.name or y, **given)


def _of_scales(twin: _Twin, scale: str, axis: int) -> int | None:
    """Return the axis of scales, None where there is but one."""
    dims = twin.constant[scale].dims if scale in twin.constant else ()
    return axis if np.prod(dims, dtype=int) > 1 else None


WRITERS: dict[str, Callable[[_Twin, onnx.NodeProto], None]] = {
    **dict.fromkeys(_QUANTISE, _quantise),
    **dict.fromkeys(_DEQUANTISE, _dequantise),
    **dict.fromkeys(_WHOLE, _of_whole),
    "DynamicQuantizeLinear": _dynamic,
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
    f"{MICROSOFT}::QLinearConv": _conv,
    f"{MICROSOFT}::QGemm": _gemm,
    f"{MICROSOFT}::QLinearAdd": _form("Add", 0, 3, result=6),
    f"{MICROSOFT}::QLinearMul": _form("Mul", 0, 3, result=6),
    f"{MICROSOFT}::QLinearSigmoid": _form("Sigmoid", 0, result=3),
    f"{MICROSOFT}::QLinearLeakyRelu": _form("LeakyRelu", 0, result=3),
    f"{MICROSOFT}::QLinearGlobalAveragePool": _form("GlobalAveragePool", 0, result=3),
    f"{MICROSOFT}::QLinearAveragePool": _form("AveragePool", 0, result=3),
    f"{MICROSOFT}::QLinearConcat": _concat,
    f"{MICROSOFT}::QLinearWhere": _where,
    f"{MICROSOFT}::QLinearSoftmax": _softmax,
    f"{MICROSOFT}::MatMulIntegerToFloat": _to_float,
    f"{MICROSOFT}::DynamicQuantizeMatMul": _dynamic_matmul,
}
"""By operator: how what it means is written."""

_PACKED = (f"{MICROSOFT}::MatMulNBits", f"{MICROSOFT}::GatherBlockQuantized")
"""Operators that have a body (`graph.packed`), for the twin alone."""

_ALONE = ("DynamicQuantizeLinear", f"{MICROSOFT}::DynamicQuantizeMatMul")
"""Operators that quantise what they read."""
