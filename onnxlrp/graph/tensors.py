"""Every tensor that a model file holds or points at: where its bytes lie, and whether they fit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import Message

from onnxlrp.errors import ModelError

SMALL = 1024
"""Elements up to which a tensor counts as shape arithmetic, axes or pads, not as weights."""

_MOST_DENSE = 1 << 28
"""Elements of a sparse tensor that is written with its zeros: 1 GB of float32."""


def check_tensors(proto: onnx.ModelProto, folder: Path) -> dict[str, bytes]:
    """Look at every tensor of a model, wherever it hangs, and take in those that are not weights.

    External data are left where they are only if they belong to a large initializer of the graph;
    all others, of attributes, functions and subgraphs, are read into the model. What large
    initializers hold is taken out of it: protobuf copies it whenever it is looked at or moved.
    Sparse tensors are written with their zeros.

    Parameters
    ----------
    proto : changed where data are taken in or out
    folder : of the model's file; external data are looked for in it, those of functions too

    Returns
    -------
    by name, the bytes of the initializers that hold none any more

    Raises
    ------
    ModelError
        External data lie outside the folder (by their path, a symbolic link or a hard link), are
        missing, or are cut short; or a tensor does not hold as many bytes as its sizes ask for.

    """
    # Wrappers keep their identity only as long as somebody holds them.
    weights = [tensor for tensor in proto.graph.initializer if elements(tensor) > SMALL]
    stay = {id(tensor) for tensor in weights}
    held: dict[str, bytes] = {}
    for tensor, label in tensors_of(proto):
        size = _bytes(tensor, label)
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            content = _embedded(tensor, label, size)
            if id(tensor) in stay and len(content) >= elements(tensor):
                held[tensor.name] = content
                tensor.ClearField("raw_data")
            continue
        file, offset = _external(tensor, label, folder.resolve(), size)
        if id(tensor) not in stay:
            with file.open("rb") as data:
                data.seek(offset)
                tensor.raw_data = data.read(size)
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
    for attribute in _sparse_attributes(proto):
        dense = _dense(attribute.sparse_tensor)
        attribute.CopyFrom(onnx.helper.make_attribute("value", dense))
    for sparse in proto.graph.sparse_initializer:
        dense = _dense(sparse)
        if elements(dense) > SMALL:
            held[dense.name] = dense.raw_data
            dense.ClearField("raw_data")
        proto.graph.initializer.append(dense)
    del proto.graph.sparse_initializer[:]
    return held


def _sparse_attributes(message: Message) -> Iterator[onnx.AttributeProto]:
    """Yield what holds the value of a sparse constant."""
    if isinstance(message, onnx.TensorProto):
        return
    if isinstance(message, onnx.AttributeProto) and message.name == "sparse_value":
        yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for entry in [value] if isinstance(value, Message) else value:
                yield from _sparse_attributes(entry)


def _dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    """Write a sparse tensor with its zeros: onnx infers nothing of one, and onnx_ir knows none.

    Indices are of the flat tensor, [NNZ], or of each axis, [NNZ, rank].
    """
    sizes, name = list(sparse.dims), sparse.values.name
    label = f"the sparse tensor '{name}'" if name else "a sparse tensor"
    if any(size < 1 for size in sizes) or math.prod(sizes) > _MOST_DENSE:
        raise ModelError(f"{label} is of the sizes {sizes}: too large, or none")
    values = onnx.numpy_helper.to_array(sparse.values)
    indices = onnx.numpy_helper.to_array(sparse.indices)
    try:
        flat = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), sizes)
        dense = np.zeros(sizes, values.dtype)
        if len(flat) != len(values) or (flat < 0).any():
            raise ValueError
        dense.reshape(-1)[flat] = values
    except (ValueError, IndexError, TypeError):
        raise ModelError(f"the indices of {label} do not fit its sizes {sizes}") from None
    return onnx.numpy_helper.from_array(dense, name)


def tensors_of(message: Message, label: str = "a tensor") -> Iterator[tuple[onnx.TensorProto, str]]:
    """Yield every tensor below a protobuf message, and what to call it.

    The fields are not listed: graphs, subgraphs, functions, attributes, sparse tensors and
    training information are walked alike.
    """
    if isinstance(message, onnx.TensorProto):
        yield message, f"'{message.name}'" if message.name else label
        return
    if isinstance(message, onnx.NodeProto):
        label = f"a tensor of node '{message.name or ', '.join(message.output)}'"
    for field, value in message.ListFields():
        if field.message_type is not None:
            for entry in [value] if isinstance(value, Message) else value:
                yield from tensors_of(entry, label)


def elements(tensor: onnx.TensorProto) -> int:
    """Return how many elements a tensor's sizes ask for."""
    return math.prod(tensor.dims)


def _bytes(tensor: onnx.TensorProto, label: str) -> int:
    """Return how many bytes a tensor's sizes ask for; strings count as none."""
    if any(size < 0 for size in tensor.dims):
        raise ModelError(f"the sizes of {label} are not: {list(tensor.dims)}")
    try:
        dtype = ir.DataType(tensor.data_type)
    except ValueError:
        raise ModelError(f"{label} is of an unknown type, number {tensor.data_type}") from None
    if dtype == ir.DataType.UNDEFINED:
        raise ModelError(f"{label} has no type")
    if dtype == ir.DataType.STRING:
        return 0
    return -(-elements(tensor) * dtype.bitwidth // 8)


def _embedded(tensor: onnx.TensorProto, label: str, size: int) -> bytes:
    """Return the bytes that a tensor holds, checked; none where it holds numbers."""
    field, content = onnx.helper.tensor_dtype_to_field(tensor.data_type), tensor.raw_data
    if tensor.HasField("raw_data"):
        fits = len(content) == size and tensor.data_type != onnx.TensorProto.STRING
    else:
        fits = len(getattr(tensor, field)) == _entries(tensor)
    if not fits:
        raise ModelError(
            f"{label} has the sizes {list(tensor.dims)}, but its data do not fit them; "
            "the file is damaged, export it again"
        )
    return content


def _entries(tensor: onnx.TensorProto) -> int:
    """Return how many entries the typed data field has, into which small types are packed."""
    count, dtype = elements(tensor), ir.DataType(tensor.data_type)
    if dtype == ir.DataType.STRING:
        return count
    if dtype in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128):
        return 2 * count
    return -(-count * dtype.bitwidth // 8) if dtype.bitwidth < 8 else count


def _external(tensor: onnx.TensorProto, label: str, root: Path, size: int) -> tuple[Path, int]:
    """Return the file that holds a tensor, and where in it, both checked."""
    info = {entry.key: entry.value for entry in tensor.external_data}
    location = info.get("location", "")
    try:
        file = (root / location).resolve()
        inside = file.is_relative_to(root)
    # A NUL in the name, or links in a circle.
    except (ValueError, OSError, RuntimeError):
        raise ModelError(f"the external data of {label} have no place: {location!r}") from None
    if not inside:
        raise ModelError(
            f"the external data of {label} point outside the model's folder "
            f"({location}); put the data file beside the model"
        )
    if not file.is_file():
        raise ModelError(
            f"external data file {location} of {label} is missing; "
            f"put it beside the model, in {root}"
        )
    stat = file.stat()
    if stat.st_nlink > 1 and stat.st_nlink > _links_beside(file):
        raise ModelError(
            f"external data file {location} of {label} is a hard link to a file outside the "
            "model's folder; put a copy there"
        )
    offset, length = _number(info, "offset", label), _number(info, "length", label, size)
    if length != size or tensor.data_type == onnx.TensorProto.STRING:
        raise ModelError(
            f"{label} has the sizes {list(tensor.dims)}, {size} bytes, but {length} bytes of "
            "external data; the file is damaged, export it again"
        )
    if stat.st_size < offset + size:
        raise ModelError(
            f"external data file {location} is truncated: {label} ends at byte {offset + size}, "
            f"the file at {stat.st_size}"
        )
    return file, offset


def _links_beside(file: Path) -> int:
    return sum(not path.is_symlink() and path.samefile(file) for path in file.parent.iterdir())


def _number(info: dict[str, str], key: str, label: str, default: int = 0) -> int:
    text = info.get(key, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ModelError(f"the external data's {key} of {label} is no byte count: {text!r}")
    return int(text)
