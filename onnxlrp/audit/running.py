"""Runs models and explainers in onnxruntime, with whatever inner values are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxlrp.audit.written import Written
from onnxlrp.errors import InputError
from onnxlrp.runtime import first_line, open_session

Array = NDArray[Any]
Provider = Literal["cpu", "cuda"]


def session(
    proto: onnx.ModelProto,
    folder: Path | None,
    name: str,
    provider: Provider,
    optimise: bool = True,
) -> Any:
    """Open an onnxruntime session on a protobuf whose external data lie in `folder`.

    Without `optimise` onnxruntime runs the nodes as they are written, and fuses none.

    On CUDA convolutions and products are computed in float32 proper: TensorFloat-32, which
    onnxruntime uses there by default, has 10 bits of fraction, too few to audit anything by.

    Raises
    ------
    ModelError
        onnxruntime cannot load it.
    DeviceError
        onnxruntime is missing, or did not take the provider.

    """
    return open_session(
        proto.SerializeToString(),
        name,
        provider,
        folder=folder,
        cuda_options={"use_tf32": "0"},
        optimise=optimise,
        denormals=True,
    )


def outputs(opened: Any, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Run a session; all outputs by name.

    A model whose batch is fixed at 1 is run sample by sample.

    Raises
    ------
    InputError
        onnxruntime fails on the values.

    """
    names = [output.name for output in opened.get_outputs()]
    wanted = {value.name: value.shape for value in opened.get_inputs()}
    given = {name: feeds[name] for name in wanted if name in feeds}
    batches = [given]
    if any(shape and shape[0] == 1 < len(given[name]) for name, shape in wanted.items()):
        count = max(len(array) for array in given.values())
        batches = [
            {k: v[i : i + 1] if len(v) == count else v for k, v in given.items()}
            for i in range(count)
        ]
    try:
        runs = [opened.run(None, batch) for batch in batches]
    # onnxruntime's exceptions share no base class of their own.
    except Exception as error:
        raise InputError(f"onnxruntime failed: {first_line(error)}") from error
    if len(runs) == 1:
        return dict(zip(names, runs[0], strict=True))
    return {name: np.concatenate([run[i] for run in runs]) for i, name in enumerate(names)}


def keeping(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model that puts out whatever it computes, each value in the type it says."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    present = {output.name for output in copy.graph.output}
    made = (name for node in copy.graph.node for name in node.output)
    copy.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in made if name and name not in present
    )
    return copy


def trace(
    written: Written, feeds: Mapping[str, Array], names: Iterable[str], provider: Provider = "cpu"
) -> dict[str, Array]:
    """Run an explainer and return the named values: inputs, weights, or computed ones.

    Raises
    ------
    ModelError, DeviceError, InputError
        As `session` and `outputs`.

    """
    graph = written.proto.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    known = {value.name: value for value in graph.value_info}
    wanted = set(names)
    folder = str(written.folder or "")
    values: dict[str, Array] = {
        name: onnx.numpy_helper.to_array(stored[name], folder) for name in wanted & stored.keys()
    }
    values |= {name: array for name, array in feeds.items() if name in wanted}
    copy = onnx.ModelProto()
    copy.CopyFrom(written.proto)
    present = {output.name for output in graph.output}
    for name in sorted(wanted - values.keys() - present):
        copy.graph.output.append(known.get(name, onnx.ValueInfoProto(name=name)))
    opened = session(copy, written.folder, "the explainer", provider)
    found = outputs(opened, feeds)
    return values | {name: array for name, array in found.items() if name in wanted}
