"""Loops, branches and lists of Python code, as torch.jit.script and torch's exporter write them.

The oracle is autograd, which runs the code itself: gradient x input is what it says.
"""

import numpy as np
import onnx
import pytest
import torch
from support import close, explain
from torch import nn

import onnxlrp


class Cell(nn.Module):
    """An LSTM's cell by hand, over a loop that collects what it makes in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.keep, self.head = nn.Linear(3, 16), nn.Linear(4, 16), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.zeros(x.shape[0], 4)
        c = torch.zeros(x.shape[0], 4)
        made: list[torch.Tensor] = []
        for t in range(x.shape[1]):
            i, f, g, o = (self.read(x[:, t]) + self.keep(h)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            made.append(h)
        return self.head(torch.stack(made, 1).mean(1))


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 3)


class While(Layers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count = 0
        while count < 3:
            x = torch.tanh(self.layer(x))
            count += 1
        return self.head(x)


class Nested(Layers):
    """The inner loop is as long as the outer step; a branch depends on it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i in range(3):
            for _ in range(i):
                x = torch.tanh(self.layer(x)) + x
            if i % 2 == 0:
                x = torch.sigmoid(x)
        return self.head(x)


class Branch(Layers):
    """The values choose."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.layer(x)) if x.sum() > 0 else torch.tanh(x) / x
        return self.head(y)


class Sizes(Layers):
    """The sizes choose, and the rank."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.size(1) > 3:
            x = torch.relu(self.layer(x))
        if x.dim() == 3:
            x = x.mean(1)
        return self.head(x)


class Parts(Layers):
    """A list that is split off, read in a loop, and joined."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: list[torch.Tensor] = []
        for part in torch.split(self.layer(x), 2, 1):
            made.append(torch.sigmoid(part))
        return self.head(torch.cat([made[0] * made[1], made[-1]], 1))


@pytest.mark.parametrize("batch", ["of any size", "of this size"])
@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("kind", [Cell, While, Nested, Branch, Sizes, Parts])
def test_code_is_explained_as_it_runs(kind, sign, opset, batch, tmp_path):
    torch.manual_seed(0)
    network = kind().eval()
    x = sign * torch.rand(2, 6, 3) if kind is Cell else sign * torch.rand(2, 4)
    torch.onnx.export(
        torch.jit.script(network), (x,), tmp_path / "m.onnx", dynamo=False, opset_version=opset,
        input_names=["x"], output_names=["y"],
        dynamic_axes={"x": {0: "N"}} if batch == "of any size" else None,
    )  # fmt: skip
    composite = onnxlrp.Composite.load("gradient_x_input")
    found = explain(onnx.load(tmp_path / "m.onnx"), composite, {"x": x.numpy()}, [1, 1]).values
    x.requires_grad_()
    y = network(x)
    (slope,) = torch.autograd.grad(y[:, 1].sum(), x)
    close(found["y"], y.detach().numpy())
    close(found["relevance"], (slope * x).detach().numpy())
    assert np.abs(found["relevance"]).max() > 0
