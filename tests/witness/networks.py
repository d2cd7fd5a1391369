"""The networks that are compared as a whole, in torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional
from zennit.layer import Sum

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"


def vgg() -> nn.Sequential:
    """3x3 convolutions, max pools, three dense layers."""
    layers: list[nn.Module] = []
    channels = 3
    for width in (16, 16, 32, 32):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        if width == channels:
            layers.append(nn.MaxPool2d(2))
        channels = width
    dense = [nn.Linear(32 * 64, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 10)]
    return nn.Sequential(*layers, nn.Flatten(), *dense)


class Block(nn.Module):
    """A residual block, its sum a module as zennit's ResNetCanonizer makes it."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.downsample: nn.Module | None = None
        if stride > 1:
            convolution = nn.Conv2d(channels, width, 1, stride, bias=False)
            self.downsample = nn.Sequential(convolution, nn.BatchNorm2d(width))
        self.sum = Sum()

    def shortcut(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.downsample is None else self.downsample(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(self.sum(torch.stack([self.shortcut(x), y], dim=-1)))


def resnet() -> nn.Sequential:
    """Residual blocks with batch normalisation."""
    stem = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    blocks = [Block(16, 16, 1), Block(16, 32, 2), Block(32, 32, 1)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)]
    return nn.Sequential(*stem, *blocks, *head)


def alexnet() -> nn.Sequential:
    """Local response normalisation, strides, groups, overlapping pools."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.LocalResponseNorm(5, alpha=0.5, k=2.0),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(16, 24, 5, padding=2, groups=2),
        nn.ReLU(),
        nn.LocalResponseNorm(3, alpha=0.2, beta=0.5),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.Conv2d(24, 24, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24 * 2 * 2, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )


def signal() -> nn.Sequential:
    """One dimension, with dilations."""
    return nn.Sequential(
        nn.Conv1d(2, 12, 7, stride=2, padding=3),
        nn.ReLU(),
        nn.Conv1d(12, 16, 3, dilation=4),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.MaxPool1d(3, 2, padding=1),
        nn.Conv1d(16, 16, 3, groups=4),
        nn.ReLU(),
        nn.AvgPool1d(2),
        nn.Flatten(),
        nn.Linear(16 * 13, 5),
    )


def volume() -> nn.Sequential:
    """Three dimensions."""
    return nn.Sequential(
        nn.Conv3d(1, 8, 3, padding=1),
        nn.BatchNorm3d(8),
        nn.ReLU(),
        nn.MaxPool3d(2),
        nn.Conv3d(8, 12, 3, stride=(1, 2, 2), padding=1),
        nn.ReLU(),
        nn.AvgPool3d((1, 3, 3)),
        nn.Flatten(),
        nn.Linear(12 * 4, 5),
    )


def hourglass() -> nn.Sequential:
    """Transposed, grouped, dilated and depthwise convolutions."""
    return nn.Sequential(
        nn.Conv2d(3, 12, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(12, 12, 3, stride=2, padding=1, output_padding=1, groups=3),
        nn.ReLU(),
        nn.ConvTranspose2d(12, 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 24, 3, padding=2, dilation=2, groups=12),
        nn.ReLU(),
        nn.Conv2d(24, 8, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


def dense() -> nn.Sequential:
    """Nothing but dense layers."""
    return nn.Sequential(
        nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 5)
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "VGG-like": (vgg, (3, 32, 32)),
    "ResNet-like": (resnet, (3, 24, 24)),
    "AlexNet-like": (alexnet, (3, 48, 48)),
    "1-D": (signal, (2, 128)),
    "3-D": (volume, (1, 8, 12, 12)),
    "hourglass": (hourglass, (3, 16, 16)),
    "dense": (dense, (20,)),
}
"""By name, a network and the shape of a sample of its input."""


def network(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """Build a network with random weights, and large biases of both signs."""
    build, shape = NETWORKS[name]
    torch.manual_seed(len(name))
    built = build().eval()
    for module in built.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif getattr(module, "weight", None) is not None:
            nn.init.kaiming_normal_(module.weight)
        if getattr(module, "bias", None) is not None:
            nn.init.normal_(module.bias, std=0.5)
    return built, shape


class TrainedBlock(Block):
    """A block whose shortcut skips every other pixel and fills up channels with zeros."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__(channels, width, stride)
        self.downsample = None
        self.missing = (width - channels) // 2
        self.stride = stride

    def shortcut(self, x: torch.Tensor) -> torch.Tensor:
        if self.stride == 1:
            return x
        pads = (0, 0, 0, 0, self.missing, self.missing)
        return functional.pad(x[:, :, :: self.stride, :: self.stride], pads)


def trained_resnet20() -> nn.Sequential:
    """Build the CIFAR-10 ResNet-20 of the development machine."""
    stem = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    blocks = [
        TrainedBlock(channels, width, stride)
        for first, width in ((16, 16), (16, 32), (32, 64))
        for channels, stride in ((first, width // first), (width, 1), (width, 1))
    ]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(*stem, *blocks, *head).eval()


def trained_lrn() -> nn.Sequential:
    """Build the bundled CIFAR-10 network with local response normalisation."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 5, padding=2),
        nn.MaxPool2d(3, 2),
        nn.ReLU(),
        nn.LocalResponseNorm(3, alpha=5e-5),
        nn.Conv2d(32, 32, 5, padding=2),
        nn.ReLU(),
        nn.AvgPool2d(3, 2),
        nn.LocalResponseNorm(3, alpha=5e-5),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.AvgPool2d(3, 2),
        nn.Flatten(),
        nn.Linear(576, 10),
    ).eval()


def load_weights(into: nn.Module, proto: onnx.ModelProto) -> None:
    """Copy the weights of a model into a network whose layers are defined in the same order."""
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    used: Iterator[str] = (
        name
        for node in proto.graph.node
        if node.op_type in ("Conv", "Gemm", "BatchNormalization")
        for name in node.input
        if name in arrays
    )
    state = {
        name: torch.tensor(np.array(arrays[next(used)]))
        for name in into.state_dict()
        if not name.endswith("num_batches_tracked")
    }
    assert next(used, None) is None
    into.load_state_dict(state, strict=False)
