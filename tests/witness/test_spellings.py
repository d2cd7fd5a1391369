"""What torch's exporters write out in several nodes is the operator that torch's module is."""

import numpy as np
import pytest
import torch
from support import close, explain, lines
from torch import nn
from torch.nn import functional

from onnxlrp.graph.canonical import operations
from onnxlrp.graph.loading import load


class ChannelNorm(nn.Module):
    """ConvNeXt's normalisation over channels that come first."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8))
        self.bias = nn.Parameter(torch.randn(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean(1, keepdim=True)
        spread = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(spread + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class RootMeanSquare(nn.Module):
    """As language models have it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5))


class Applied(nn.Module):
    """A function as a module."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


MODULES = {
    "LayerNormalization": lambda: nn.LayerNorm([8, 6, 6]),
    "LayerNormalization, channels": ChannelNorm,
    "RMSNormalization": RootMeanSquare,
    "GroupNormalization": lambda: nn.GroupNorm(2, 8),
    "GroupNormalization, bare": lambda: nn.GroupNorm(2, 8, affine=False),
    "LpNormalization": lambda: Applied(lambda x: functional.normalize(x, dim=1)),
    "LRN": lambda: nn.LocalResponseNorm(5),
    "LRN, even": lambda: nn.LocalResponseNorm(4),
    "Gelu": nn.GELU,
    "Gelu, tanh": lambda: nn.GELU(approximate="tanh"),
    "Swish": nn.SiLU,
    "Mish": nn.Mish,
    "HardSwish": nn.Hardswish,
    "HardSwish, by hand": lambda: Applied(lambda x: x * functional.relu6(x + 3) / 6),
    "LogSoftmax": lambda: Applied(lambda x: functional.log_softmax(x, 1)),
}


@pytest.mark.parametrize("name", MODULES)
def test_both_exporters_write_one_operator(name, tmp_path):
    torch.manual_seed(0)
    module = MODULES[name]()
    if getattr(module, "weight", None) is not None:
        nn.init.normal_(module.weight)
        nn.init.normal_(module.bias) if hasattr(module, "bias") else None
    net = nn.Sequential(nn.Conv2d(3, 8, 3), module, nn.Flatten(), nn.Linear(288, 4)).eval()
    x = torch.randn(2, 3, 8, 8)
    torch.onnx.export(net, (x,), tmp_path / "14.onnx", dynamo=False, opset_version=14)
    torch.onnx.export(net, (x,), tmp_path / "18.onnx", dynamo=True, opset_version=18)
    maps = []
    for opset in (14, 18):
        path = tmp_path / f"{opset}.onnx"
        model = load(path).model
        assert name.split(",")[0] in [o.operator for o in operations(model.graph)]
        source = model.graph.inputs[0].name
        composite = lines("Conv,Gemm: epsilon", "LRN: taylor")
        explained = explain(path, composite, {source: x.numpy()}, target=[1, 2])
        maps.append(explained.values["relevance"])
        assert np.abs(maps[-1]).max() > 0
    close(*maps)
