"""An explainer becomes a file; weights go from where they lie to the disk, one after the other."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from onnxlrp.compiler.loadable import prove_loadable
from onnxlrp.errors import ModelError
from onnxlrp.files import check_regular
from onnxlrp.graph.tensors import SMALL, tensors_of
from onnxlrp.telling import tell

_LIMIT = (1 << 31) - 1
# ModelProto.graph, GraphProto.initializer, TensorProto.raw_data
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9


def save(model: ir.Model, path: Path, external_data: bool, check: bool) -> bool:
    """Write a model beside its place, and move it there once it is complete, and proven if `check`.

    External data get a name that is free, so an explainer that is replaced is whole until the new
    one is; what it kept in files of its own is removed then.

    Returns
    -------
    whether onnxruntime has loaded it

    Raises
    ------
    InputError
        `path` is a pipe or a device.

    """
    check_regular(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))
    tell("writing the explainer")
    stale = data_of(path, of_explainer=True)
    names = chain([f"{path.name}.data"], (f"{path.name}.{number}.data" for number in count(2)))
    data = next(file for name in names if not os.path.lexists(file := path.parent / name))
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        draft = Path(folder) / path.name
        if external_data:
            ir.save(model, draft, external_data=data.name)
            loaded = check and prove_loadable(draft)
        else:
            twin = Path(folder) / f"{path.name}.twin"
            twin.write_bytes(_write(model, draft).SerializeToString())
            loaded = check and prove_loadable(twin)
        written = draft.with_name(data.name)
        if written.exists():
            os.replace(written, data)
        try:
            os.replace(draft, path)
        except BaseException:
            data.unlink(missing_ok=True)
            raise
    for file in stale:
        # One that another program has open stays, which harms nobody.
        with suppress(OSError):
            file.unlink()
    return loaded


def data_of(path: Path, *, of_explainer: bool = False) -> list[Path]:
    """Return the files of weights beside a model that are called after it, and that it refers to.

    With `of_explainer` there are none unless it is an explainer; nor if it cannot be read.
    """
    pattern = re.compile(re.escape(path.name) + r"(\.\d+)?\.data")
    there = [file for file in path.parent.iterdir() if pattern.fullmatch(file.name)]
    # Many have none, and need not be read.
    if not there:
        return []
    try:
        proto = onnx.load(path, load_external_data=False)
    except (OSError, DecodeError):
        return []
    if of_explainer and all(entry.key != "onnxlrp.relevance" for entry in proto.metadata_props):
        return []
    entries = (entry for tensor, _ in tensors_of(proto) for entry in tensor.external_data)
    places = {entry.value for entry in entries if entry.key == "location"}
    return [file for file in there if file.name in places]


def _write(model: ir.Model, path: Path) -> onnx.ModelProto:
    """Write a model with its weights in it, and return it with weights that refer to that file.

    A protobuf message is its fields one after the other, so what weights hold goes to the disk
    without being held by one: protobuf would hold it twice more. What is returned is the same
    graph, and opened without reading any weight.
    """
    weights: dict[str, Any] = {
        name: tensor
        for name, value in model.graph.initializers.items()
        if (tensor := value.const_value) is not None
        and tensor.size > SMALL
        and tensor.dtype != ir.DataType.STRING
    }
    twin = _referring(model, weights, path.name)
    bare = onnx.ModelProto()
    bare.CopyFrom(twin)
    del bare.graph.initializer[:]
    bare.graph.initializer.extend(t for t in twin.graph.initializer if t.name not in weights)
    graph = bare.graph.SerializeToString()
    bare.ClearField("graph")
    large = [tensor for tensor in twin.graph.initializer if tensor.name in weights]
    heads = [_head(tensor, weights[tensor.name].nbytes) for tensor in large]
    size = len(graph) + sum(map(len, heads)) + sum(tensor.nbytes for tensor in weights.values())
    front = bare.SerializeToString() + _field(_GRAPH, size) + graph
    if len(front) - len(graph) + size > _LIMIT:
        raise ModelError("the explainer is larger than 2 GB; write it with --external-data")
    with path.open("wb") as file:
        file.write(front)
        for tensor, head in zip(large, heads, strict=True):
            file.write(head)
            tensor.external_data.add(key="offset", value=str(file.tell()))
            # onnx_ir writes to the file below this one.
            file.flush()
            weights[tensor.name].tofile(file)
    return twin


def _referring(model: ir.Model, weights: Mapping[str, Any], file: str) -> onnx.ModelProto:
    """Return a model whose weights lie in a file, where is not said."""
    values = model.graph.initializers
    try:
        for name, tensor in weights.items():
            values[name].const_value = ir.ExternalTensor(
                file, None, tensor.nbytes, tensor.dtype, shape=ir.Shape(tensor.shape), name=name
            )
        return ir.to_proto(model)
    finally:
        for name, tensor in weights.items():
            values[name].const_value = tensor


def _head(tensor: onnx.TensorProto, size: int) -> bytes:
    """Return what stands in front of the `size` bytes that a weight holds."""
    head = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    written: bytes = head.SerializeToString() + _field(_RAW_DATA, size)
    return _field(_INITIALIZER, len(written) + size) + written


def _field(number: int, size: int) -> bytes:
    """Return what stands in front of `size` bytes: the field's number, its kind (2), and size."""
    written = bytearray()
    for rest in (number << 3 | 2, size):
        while rest > 127:
            written.append(rest & 127 | 128)
            rest >>= 7
        written.append(rest)
    return bytes(written)
