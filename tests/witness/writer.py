"""Writes torch networks as ONNX, module by module and with the same weights."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import onnx
import torch
from support import model, node
from torch import fx, nn
from zennit.layer import Sum
from zennit.types import AvgPool, BatchNorm, ConvolutionStandard, ConvolutionTranspose, MaxPool

Attributes = dict[str, Any]


def operator_of(module: nn.Module, rank: int) -> tuple[str, list[torch.Tensor], Attributes]:
    """ONNX operator of a module whose input has `rank` axes, its weights and its attributes."""

    def each(value: int | tuple[int, ...]) -> list[int]:
        return [value] * (rank - 2) if isinstance(value, int) else list(value)

    def window(found: Any) -> Attributes:
        strides = found.kernel_size if found.stride is None else found.stride
        return {
            "kernel_shape": each(found.kernel_size),
            "strides": each(strides),
            "pads": each(found.padding) * 2,
        }

    found: Any = module
    if isinstance(module, ConvolutionStandard | ConvolutionTranspose):
        attributes = window(found) | {"dilations": each(found.dilation), "group": found.groups}
        name = "Conv"
        if isinstance(module, ConvolutionTranspose):
            name, attributes["output_padding"] = "ConvTranspose", each(found.output_padding)
        return name, [p for p in (found.weight, found.bias) if p is not None], attributes
    if isinstance(module, nn.Linear):
        return "Gemm", [p for p in (found.weight, found.bias) if p is not None], {"transB": 1}
    if isinstance(module, BatchNorm):
        weights = [found.weight, found.bias, found.running_mean, found.running_var]
        return "BatchNormalization", weights, {"epsilon": found.eps}
    if isinstance(module, MaxPool):
        return "MaxPool", [], window(found) | {"ceil_mode": int(found.ceil_mode)}
    if isinstance(module, nn.AdaptiveAvgPool1d | nn.AdaptiveAvgPool2d | nn.AdaptiveAvgPool3d):
        assert found.output_size == 1
        return "GlobalAveragePool", [], {}
    if isinstance(module, AvgPool):
        counted = {"count_include_pad": int(found.count_include_pad)}
        return "AveragePool", [], window(found) | counted
    if isinstance(module, nn.LocalResponseNorm):
        names = {"alpha": found.alpha, "beta": found.beta, "bias": found.k, "size": found.size}
        return "LRN", [], names
    if isinstance(module, nn.ZeroPad2d):
        left, right, top, bottom = found.padding
        pads = torch.tensor([0, 0, top, left, 0, 0, bottom, right])
        return "Pad", [pads], {}
    plain = {nn.ReLU: "Relu", nn.Flatten: "Flatten", nn.Dropout: "Dropout", Sum: "Add"}
    return plain[type(module)], [], {}


FUNCTIONS: dict[Callable[..., Any], str] = {
    operator.add: "Add",
    torch.flatten: "Flatten",
    torch.cat: "Concat",
}


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Sum) or super().is_leaf_module(m, module_qualified_name)


def to_onnx(network: nn.Module, x: torch.Tensor) -> onnx.ModelProto:
    """Write a network for inputs of the rank and channels of `x`; nodes are named `node_<step>`."""
    graph = _Tracer().trace(network)
    modules = dict(network.named_modules())
    weights: dict[str, Any] = {}
    nodes: list[onnx.NodeProto] = []
    values: dict[fx.Node, Any] = {}
    for step in graph.nodes:
        if step.op == "placeholder":
            values[step] = "x"
        elif step.op == "call_module":
            op, parameters, attributes = operator_of(modules[step.target], x.ndim)
            source = values[step.args[0]]
            # zennit's Sum reads a stack of its operands, which in ONNX are an Add's inputs.
            inputs = source if isinstance(source, list) else [source]
            for index, parameter in enumerate(parameters):
                weights[f"{step.target}.{index}"] = parameter.detach().numpy()
                inputs = [*inputs, f"{step.target}.{index}"]
            nodes.append(node(op, inputs, step.name, **attributes))
            values[step] = step.name
        elif step.target is torch.stack:
            values[step] = [values[operand] for operand in step.args[0]]
        elif step.op == "call_function":
            operands = step.args[0] if step.target is torch.cat else step.args
            inputs = [values[operand] for operand in operands if isinstance(operand, fx.Node)]
            attributes = {"axis": 1} if step.target is torch.cat else {}
            nodes.append(node(FUNCTIONS[step.target], inputs, step.name, **attributes))
            values[step] = step.name
        else:
            assert step.op == "output"
            score = values[step.args[0]]
    with torch.no_grad():
        classes = network(x).shape[1]
    return model(nodes, {"x": ["N", *x.shape[1:]]}, {score: ["N", classes]}, weights)
