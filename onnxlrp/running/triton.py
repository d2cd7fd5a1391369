"""A model repository of NVIDIA's Triton Inference Server, which KServe reads as well."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import onnx
from google.protobuf.text_encoding import CEscape

from onnxlrp.compiler.batching import prove_batch
from onnxlrp.compiler.conversion import Conversion
from onnxlrp.errors import InputError, ModelError
from onnxlrp.files import naming, read_text, write
from onnxlrp.running.contract import Contract
from onnxlrp.runtime import open_session

MODEL, CONFIG = "model.onnx", "config.pbtxt"
MOST = 8
"""Samples in one batch, where it is free: what the server gathers, and a request may hold."""

_TYPES = {
    onnx.TensorProto.FLOAT: "FP32",
    onnx.TensorProto.DOUBLE: "FP64",
    onnx.TensorProto.FLOAT16: "FP16",
    **{getattr(onnx.TensorProto, name): name for name in ("BOOL", "STRING")},
    **{
        getattr(onnx.TensorProto, f"{sign}INT{bits}"): f"{sign}INT{bits}"
        for sign in ("", "U")
        for bits in (8, 16, 32, 64)
    },
}
"""What the onnxruntime backend can take, by the names of Triton's model_config.proto."""


def explainer_path(repository: Path, model: Path) -> Path:
    """Return where the explainer of a model lies: `<repository>/<model>_explainer/1/model.onnx`."""
    return repository / f"{model.stem}_explainer" / "1" / MODEL


def save(
    conversion: Conversion, explainer: Path, *, external_data: bool = False, check: bool = True
) -> tuple[bool, str]:
    """Write an explainer and the `config.pbtxt` of its model repository, both or neither.

    Batches are free if every input and output starts with an axis of no fixed size, and two random
    samples at once are explained as each alone; `target` then takes [N, 1], one class for each.

    Parameters
    ----------
    conversion : what is written
    explainer : its place, as `explainer_path` says; folders are made
    external_data, check : as `Conversion.save` takes them

    Returns
    -------
    whether onnxruntime has loaded it, and why every request runs alone, "" if the server may gather
    them

    Raises
    ------
    ModelError
        As `Conversion.save`; or an input or output is no tensor, or of a type that Triton's
        onnxruntime does not take.
    InputError
        A `config.pbtxt` is there and says something else.
    DeviceError
        onnxruntime is missing.
    OSError
        It cannot be written.

    """
    folder = explainer.parents[1]
    with _made(explainer.parent), tempfile.TemporaryDirectory(prefix=".", dir=folder) as beside:
        draft = Path(beside) / MODEL
        loaded = conversion.save(draft, external_data=external_data, check=check)
        text, alone = _config(folder.name, draft)
        config = folder / CONFIG
        if config.exists() and read_text(config) != text:
            raise InputError(
                f"{config} is there and says something else: move it away, for it to be written "
                "anew"
            )
        data = draft.with_name(f"{MODEL}.data")
        if data.exists():
            data.replace(explainer.with_name(data.name))
        draft.replace(explainer)
        write(config, lambda file: file.write(text.encode()))
    return loaded, alone


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder and those above it; none is left where the block fails."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        with naming(folder):
            folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for one in missing:
            with suppress(OSError):
                one.rmdir()
        raise


def _config(name: str, explainer: Path) -> tuple[str, str]:
    graph = onnx.load(explainer, load_external_data=False).graph
    _check_types([*graph.input, *graph.output])
    alone = _why_alone(graph, explainer)
    return _text(name, graph, not alone), alone


def _check_types(values: Sequence[onnx.ValueInfoProto]) -> None:
    for value in values:
        kind = value.type.WhichOneof("value")
        if kind != "tensor_type" or value.type.tensor_type.elem_type not in _TYPES:
            number = value.type.tensor_type.elem_type
            said = onnx.TensorProto.DataType.Name(number) if kind == "tensor_type" else str(kind)
            raise ModelError(
                f"'{value.name}' is of {said.lower()}, which Triton's onnxruntime backend does not "
                "take; convert to a file, and serve it with onnxruntime itself"
            )


def _why_alone(graph: onnx.GraphProto, explainer: Path) -> str:
    for value in (*graph.input, *graph.output):
        sizes = _sizes(value)
        if not sizes or sizes[0] != -1:
            return f"'{value.name}' is {sizes}, without a free batch in front"
    session = open_session(explainer, "the explainer", "cpu")
    contract = Contract.read(session.get_modelmeta().custom_metadata_map)
    assert contract is not None
    chooser = contract.target_input or contract.weights_input or None
    try:
        prove_batch(graph, session, chooser, set(contract.masks.values()))
    except ModelError as error:
        return str(error)
    return ""


def _sizes(value: onnx.ValueInfoProto) -> list[int]:
    return [
        size.dim_value if size.HasField("dim_value") else -1
        for size in value.type.tensor_type.shape.dim
    ]


def _text(name: str, graph: onnx.GraphProto, batches: bool) -> str:
    lines = [
        f"name: {_quoted(name)}",
        'backend: "onnxruntime"',
        f"max_batch_size: {MOST if batches else 0}",
    ]
    for field, values in (("input", graph.input), ("output", graph.output)):
        tensors = ",\n".join(f"  {{ {_tensor(value, batches)} }}" for value in values)
        lines += [f"{field} [", tensors, "]"]
    if batches:
        lines.append("dynamic_batching { }")
    lines.append("instance_group [ { count: 1 kind: KIND_AUTO } ]")
    # A plan of memory keeps up to twice what an explainer needs, and saves no time.
    lines.append('parameters { key: "enable_mem_pattern" value { string_value: "0" } }')
    return "\n".join(lines) + "\n"


def _tensor(value: onnx.ValueInfoProto, batches: bool) -> str:
    kind = _TYPES[value.type.tensor_type.elem_type]
    sizes = _sizes(value)[batches:]
    # Triton knows no tensor without axes: one of [N], or of [], has a last axis of 1 for it.
    dims = ", ".join(map(str, sizes or [1]))
    reshape = " reshape { shape: [ ] }" if batches and not sizes else ""
    return f"name: {_quoted(value.name)} data_type: TYPE_{kind} dims: [ {dims} ]{reshape}"


def _quoted(text: str) -> str:
    return f'"{CEscape(text, as_utf8=True)}"'
