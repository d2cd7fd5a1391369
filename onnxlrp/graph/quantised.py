"""Quantised models: a twin in real numbers, which is explained, beside the model, which computes.

onnxruntime merges the nodes of a quantised model into others, and what they give depends on who
else reads what lies between. So the model's own nodes are set aside, and nothing reads them but
their outputs. The twin computes, from activations as the model quantises them and from dequantised
weights, what each layer does; where the model rounds, the twin has a Clip to what the integers can
hold (or an Identity), across which relevance passes, and which says in its metadata what is read in
its place: once all is written, `compiler.reunion` puts it there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
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
"""Metadata of a node of the twin: as JSON, how and what it reads of the model."""

DEQUANTISED, DYNAMIC, COPY, SAME = "dequantised", "dynamic", "copy", "same"
"""Ways of reading: a quantised value; what is quantised when it runs; another's copy; as it is."""

TWIN = "onnxlrp.twin"
"""Metadata of an explainer: what its graph lacks of the twin, a GraphProto in base64."""

OPEN = "Clip"
"""What an Identity of the twin is, without bounds, until constants are folded: that drops it."""

WITHIN = "quantised/"
"""In front of the names that the model's own nodes and values have in an explainer."""

WEIGHTS = f"{WITHIN}weights/"
"""In front of the names of nodes that dequantise weights for the twin."""

QUANTISE = ("QuantizeLinear", f"{MICROSOFT}::QuantizeLinear")
DEQUANTISE = ("DequantizeLinear", f"{MICROSOFT}::DequantizeLinear")
_ALONE = ("DynamicQuantizeLinear", f"{MICROSOFT}::DynamicQuantizeMatMul")
"""Operators that quantise what they read."""

_COPIED = (
    *(TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE),
    *(TensorProto.INT32, TensorProto.INT64),
)
"""Types that Max takes."""


def key_of(node: onnx.NodeProto) -> str:
    """Return a node's operator type; `domain::Type` outside ai.onnx."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"


def identify(graph: ir.Graph) -> None:
    """Write Identity for what has no bounds to cut off at."""
    for node in graph:
        if READS in node.metadata_props and node.op_type == OPEN and len(node.inputs) == 1:
            node.op_type = "Identity"


class Twin:
    """What is written of the twin so far.

    Parameters
    ----------
    graph : the model's
    constant : its initializers by name
    writers : by operator, what writes what it means (`meanings.WRITERS`)

    """

    def __init__(
        self,
        graph: onnx.GraphProto,
        constant: dict[str, onnx.TensorProto],
        writers: Mapping[str, Callable[[Twin, onnx.NodeProto], None]],
    ) -> None:
        self.graph = graph
        self.writers = writers
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
            at_once = readers.get(name, set()) <= {*QUANTISE, *DEQUANTISE, *_ALONE}
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
        write = self.writers.get(key)
        if write is not None and (live or key in DEQUANTISE):
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
                self.scaled_sum(node, self.sums[one], other)
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
        q, scale, zero = (input_of(node, place) for place in range(index, index + 3))
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
        rounds = result is not None and input_of(node, result) != ""
        z = f"{y}_real" if rounds else self.name(y)
        last = bool(attribute_of(node, "channels_last", 0))
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
            self.round(
                z, y, input_of(node, result), input_of(node, result + 1), f"{node.name or y}/Q"
            )

    def bias(self, node: onnx.NodeProto, index: int, *scales: str) -> list[str]:
        """Return an optional bias of whole numbers, in the product of two scales."""
        b = input_of(node, index)
        if not b:
            return []
        step = self.add("Mul", scales, f"{b}_step")
        several = any(len(self.constant[s].dims) for s in scales if s in self.constant)
        return [self.dequantised(b, step, "", 0 if several else None)]

    def axis_of(self, scale: str, axis: int) -> int | None:
        """Return the axis of scales, None where there is but one."""
        dims = self.constant[scale].dims if scale in self.constant else ()
        return axis if np.prod(dims, dtype=int) > 1 else None

    def scaled_sum(self, scaled: onnx.NodeProto, node: onnx.NodeProto, factor: str) -> None:
        """Write what a sum of products of whole numbers is, once it is scaled."""
        a, b, a_zero, b_zero = (input_of(node, i) for i in range(4))
        scale, zero = self.scales[a]
        first, step = self.products.get(factor, ("", ""))
        if zero != a_zero or (step and scale not in (first, step)) or factor == scale:
            self.refuse(node)
        if not step:
            step = self.add("Div", [factor, scale], f"{scaled.output[0]}_step")
        elif step == scale:
            step = first
        y = scaled.output[0]
        op = node.op_type.removesuffix("Integer")
        if b in self.scales and self.scales[b] == (step, b_zero):
            weights = self.name(b)
        else:
            dims = self.constant[step].dims if step in self.constant else ()
            several = np.prod(dims, dtype=int) > 1
            if several and len(dims) > 1:
                flat = f"{y}_flat"
                self.constants.append(numpy_helper.from_array(np.array([-1], np.int64), flat))
                step = self.add("Reshape", [step, flat], f"{step}_flat")
            axis = (0 if op == "Conv" else -1) if several else None
            weights = self.dequantised(b, step, b_zero, axis)
        known = onnx.defs.get_schema(op).attributes
        given = {a.name: helper.get_attribute_value(a) for a in node.attribute if a.name in known}
        self.add(op, [self.name(a), weights], self.name(y), name=node.name or y, **given)

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


def attribute_of(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Return an attribute of a node."""
    found = (helper.get_attribute_value(a) for a in node.attribute if a.name == name)
    return next(found, default)


def input_of(node: onnx.NodeProto, index: int) -> str:
    """Return the name of an optional input, "" where there is none."""
    return node.input[index] if len(node.input) > index else ""
