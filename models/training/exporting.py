"""How the training scripts write a torch module as an ONNX file."""

from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn


def export(net: nn.Module, inputs: dict[str, Tensor], path: Path, sizes: dict[int, str]) -> None:
    """Write a classifier by torch's exporter, without the traces it leaves of this machine.

    `sizes` are the axes of every input that may have another size, and what they are called.
    """
    shapes: dict[int, Any] = {axis: torch.export.Dim(name) for axis, name in sizes.items()}
    torch.onnx.export(
        net,
        tuple(inputs.values()),
        path,
        input_names=list(inputs),
        output_names=["logits"],
        opset_version=18,
        dynamic_shapes=[shapes] * len(inputs),
        external_data=False,
        verbose=False,
    )
    model = onnx.load(path)
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
    del graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
