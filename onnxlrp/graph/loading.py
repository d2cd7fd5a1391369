"""From a file to an `onnx_ir.Model` that the compiler can walk."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
from google.protobuf.message import DecodeError

from onnxlrp.errors import InputError, ModelError
from onnxlrp.files import check_regular
from onnxlrp.graph.batch import free_batch
from onnxlrp.graph.constants import fold
from onnxlrp.graph.derived import check_scales, hold_derived
from onnxlrp.graph.editing import WHY
from onnxlrp.graph.lifting import MINIMUM_OPSET, malformed, prepare, read_by
from onnxlrp.graph.quantised import identify
from onnxlrp.graph.recurrent import name_hidden
from onnxlrp.graph.shapes import Dim, dims_of
from onnxlrp.graph.sizes import settle
from onnxlrp.graph.tensors import check_tensors

METADATA_PREFIX = "onnxlrp."
"""What the keys of an explainer's metadata begin with."""

OPSETS = "opsets"
"""Where a graph keeps, in `meta`, the opsets that the model's file imports, before any lifting."""


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to be analysed.

    Attributes
    ----------
    model : flat (functions inlined), opset 18 or later, constants folded into initializers,
        initializers no longer listed as inputs, every node and value named, shapes inferred
    sha256 : hex digest of the model file's bytes (of the serialised proto if it was in memory)
    notes : what the user should know of outputs that were left out
    own : of a quantised model, of which `model` is the twin (`graph.quantised`), what it was; all
        that it reads of its weights is among its inputs, and in `weights`
    weights : initializers by name

    """

    model: ir.Model
    sha256: str
    notes: tuple[str, ...] = ()
    own: ir.Graph | None = None
    weights: Mapping[str, ir.Value] = field(default_factory=dict)


def load(
    source: str | os.PathLike[str] | onnx.ModelProto, dynamic_batch: bool = False
) -> LoadedModel:
    """Read a model and normalise how it is written, never what it computes.

    1. The protobuf is parsed, and every tensor and piece of external data is looked at.
    2. onnx checks it, functions are inlined, the opset is lifted to at least 18 by onnx's own
       converter; control flow and sequences are written out where it is known what they do.
    3. Initializers are removed from the inputs, constants folded.
    4. Nodes without a name are named after their first output; shapes are inferred.

    Parameters
    ----------
    source : path of the model, or the model itself
    dynamic_batch : give every input's axis 0 a symbolic size first

    Raises
    ------
    ModelError
        If the file is not a complete ONNX model, or one that is an explainer already.

    """
    if isinstance(source, onnx.ModelProto):
        proto, folder = onnx.ModelProto(), Path()
        proto.CopyFrom(source)
        digest = hashlib.sha256(source.SerializeToString(deterministic=True)).hexdigest()
    else:
        path = Path(source)
        proto, digest = _parse(path)
        folder = path.parent
    _refuse_explainer(proto)
    held = check_tensors(proto, folder)
    # A message that has been emptied keeps its memory.
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    if dynamic_batch:
        free_batch(proto)
    imported = {entry.domain: entry.version for entry in proto.opset_import}
    with malformed(), _unlogged():
        proto, own, notes = prepare(proto)
        model = ir.from_proto(proto)
        model.graph.meta[OPSETS] = imported
        for node in model.graph.all_nodes():
            if WHY in node.metadata_props:
                node.meta[WHY] = json.loads(node.metadata_props.pop(WHY))
        ir.external_data.set_base_dir(model.graph, folder)
        for name, content in held.items():
            _hold(model.graph.initializers[name], content)
        weights = dict(model.graph.initializers)
        _normalise(model)
        check_scales(model.graph, weights)
    if own is None:
        return LoadedModel(model, digest, tuple(notes))
    return LoadedModel(model, digest, tuple(notes), _graph_of(own), weights)


def _graph_of(own: onnx.GraphProto) -> ir.Graph:
    """Return a model's nodes as they were, all initializers among the inputs."""
    made = {name for node in own.node for name in node.output}
    given = {value.name for value in own.input} | made
    read = dict.fromkeys(name for node in own.node for name in read_by(node) if name)
    own.input.extend(
        onnx.helper.make_empty_tensor_value_info(name) for name in read if name not in given
    )
    graph: ir.Graph = ir.from_proto(own)  # type: ignore[assignment]
    _name(graph)
    return graph


def _hold(value: ir.Value, content: bytes) -> None:
    """Put into an initializer what it held in the file."""
    bare = value.const_value
    assert bare is not None
    array = np.frombuffer(content, bare.dtype.numpy().newbyteorder("<")).reshape(bare.shape.numpy())
    value.const_value = ir.Tensor(array, dtype=bare.dtype, name=value.name)


@contextmanager
def _unlogged() -> Iterator[None]:
    """Keep what onnx_ir and onnxscript log for their developers off the user's terminal.

    Values that they could not fold or infer are judged by what is known of them afterwards.
    """
    loggers = [logging.getLogger(name) for name in ("onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _parse(path: Path) -> tuple[onnx.ModelProto, str]:
    try:
        check_regular(path)
        content = path.read_bytes()
    except InputError as error:
        raise ModelError(str(error)) from None
    except IsADirectoryError:
        raise ModelError(f"{path} is a folder; give the .onnx file in it") from None
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    try:
        proto = onnx.ModelProto.FromString(content)
    except DecodeError:
        raise ModelError(f"{path} is not an ONNX model, or it is truncated") from None
    if not proto.graph.node or not proto.graph.output:
        raise ModelError(f"{path} is not an ONNX model: it holds no graph with outputs")
    return proto, hashlib.sha256(content).hexdigest()


def _refuse_explainer(proto: onnx.ModelProto) -> None:
    if any(entry.key.startswith(METADATA_PREFIX) for entry in proto.metadata_props):
        raise ModelError(
            "this model is an explainer already; give the original model, or run "
            "`onnxlrp explain` on this one"
        )


def _normalise(model: ir.Model) -> None:
    passes.RemoveInitializersFromInputsPass()(model)
    _name(model.graph)
    fold(model)
    identify(model.graph)
    passes.RemoveUnusedNodesPass()(model)
    passes.TopologicalSortPass()(model)
    _name(model.graph)
    name_hidden(model.graph)
    # Which also finds out whether what is left can be written: damaged names cannot, say.
    _infer_shapes(model)
    settle(model, _infer_shapes)
    while _round_down(model.graph):
        _infer_shapes(model)
        settle(model, _infer_shapes)
    for node in model.graph:
        _write_pads(node)
    hold_derived(model.graph)
    model.graph.opset_imports.setdefault("", MINIMUM_OPSET)
    opsets = [onnx.helper.make_opsetid("", model.graph.opset_imports[""])]
    # Some onnx know the operators of an opset that they do not list yet.
    least = onnx.helper.find_min_ir_version_for(opsets, ignore_unknown=True)
    model.ir_version = max(model.ir_version, least)


def _infer_shapes(model: ir.Model) -> None:
    passes.ShapeInferencePass(check_type=False, strict_mode=False)(model)


def _round_down(graph: ir.Graph) -> bool:
    """Write a pooling without ceil_mode where onnx miscounts it; tell whether one was found.

    A last window that would start in the padding does not count (ONNX, PyTorch), but onnx's shape
    inference counts it. Axes that do get one more window get the padding that it needs instead,
    except in an average that counts padding. All shapes behind it are forgotten, to be inferred
    again.
    """
    for node in graph:
        x = node.inputs[0] if node.inputs else None
        ceil = node.attributes.get("ceil_mode")
        if node.op_type not in ("MaxPool", "AveragePool") or ceil is None or not ceil.value:
            continue
        missing = None if x is None or x.shape is None else _missing(node, dims_of(x.shape)[2:])
        if missing is None:
            continue
        if any(missing):
            values = {name: attribute.value for name, attribute in node.attributes.items()}
            rank, kernel, pads = len(missing), values["kernel_shape"], _pads(values)
            ends = [pads[rank + i] + missing[i] for i in range(rank)]
            # onnxruntime takes no padding as long as the window.
            if values.get("count_include_pad") or any(
                e >= k for e, k in zip(ends, kernel, strict=True)
            ):
                continue
            node.attributes["pads"] = ir.AttrInt64s("pads", [*pads[:rank], *ends])
            node.attributes.pop("auto_pad", None)
        del node.attributes["ceil_mode"]
        for later in graph:
            for value in later.outputs:
                if not value.is_graph_output():
                    value.shape = None
        return True
    return False


def _write_pads(node: ir.Node) -> None:
    """Give a ConvTranspose that is asked for a size the pads that lead to it."""
    values = {name: attribute.value for name, attribute in node.attributes.items()}
    automatic = str(values.get("auto_pad", "NOTSET"))
    asked = "output_shape" in values or automatic.startswith("SAME")
    if node.op_type != "ConvTranspose" or node.domain not in ("", "ai.onnx") or not asked:
        return
    shapes = [None if value is None else value.shape for value in node.inputs[:2]]
    x, kernel = (None if shape is None else dims_of(shape)[2:] for shape in shapes)
    if x is None or kernel is None:
        return
    rank = len(x)
    strides, dilations = (values.get(name) or [1] * rank for name in ("strides", "dilations"))
    extra = list(values.get("output_padding") or [0] * rank)
    wanted = list(values.get("output_shape") or [])[-rank:]
    begins, ends = [], []
    for i, (size, window) in enumerate(zip(x, kernel, strict=True)):
        if not isinstance(size, int) or not isinstance(window, int):
            return
        natural = strides[i] * (size - 1) + extra[i] + (window - 1) * dilations[i] + 1
        total = natural - (wanted[i] if wanted else size * strides[i])
        # What is asked for beyond what there is comes last.
        extra[i] += max(-total, 0)
        small, large = max(total, 0) // 2, max(total, 0) - max(total, 0) // 2
        begins.append(small if automatic == "SAME_UPPER" else large)
        ends.append(large if automatic == "SAME_UPPER" else small)
    node.attributes["pads"] = ir.AttrInt64s("pads", [*begins, *ends])
    node.attributes["output_padding"] = ir.AttrInt64s("output_padding", extra)
    for name in ("auto_pad", "output_shape"):
        node.attributes.pop(name, None)


def _missing(node: ir.Node, sizes: Sequence[Dim]) -> list[int] | None:
    """Return the padding for which a pooling's last windows ask, per axis.

    None where nothing is to be done: all sizes are counted as they should be, and something is
    gained by rounding up, or a size is not known.
    """
    values = {name: attribute.value for name, attribute in node.attributes.items()}
    rank = len(sizes)
    # How often a window fits that is padded to fit is no question of rounding.
    if str(values.get("auto_pad", "")).startswith("SAME"):
        return None
    pads = _pads(values)
    strides, dilations = (values.get(name) or [1] * rank for name in ("strides", "dilations"))
    missing, miscounted = [0] * rank, False
    for i, size in enumerate(sizes):
        if not isinstance(size, int):
            return None
        extent = dilations[i] * (values["kernel_shape"][i] - 1) + 1
        padded = size + pads[i] + pads[i + rank]
        down, up = (padded - extent) // strides[i], -(-(padded - extent) // strides[i])
        if up > down and up * strides[i] < size + pads[i]:
            missing[i] = up * strides[i] + extent - padded
        else:
            miscounted = miscounted or up > down
    return None if any(missing) and not miscounted else missing


def _pads(attributes: Mapping[str, Any]) -> list[int]:
    """Return the padding of a pooling that is not padded to fit."""
    none = [0] * (2 * len(attributes["kernel_shape"]))
    written = attributes.get("auto_pad", "NOTSET") == "NOTSET"
    return list(attributes.get("pads") or none) if written else none


def _name(graph: ir.Graph) -> None:
    """Give every node a name that no other node has."""
    taken: set[str] = set()
    for node in graph:
        name = node.name or next((v.name for v in node.outputs if v.name), None) or node.op_type
        unique, count = name, 1
        while unique in taken:
            count += 1
            unique = f"{name}_{count}"
        taken.add(unique)
        node.name = unique
