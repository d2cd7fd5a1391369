"""Networks with loops, branches and lists for `coverage.py`, as `torch.jit.script` keeps them."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class NormalisedCell(nn.Module):
    """An LSTM with LayerNormalization in its gates, which torch has no layer for."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.keep = nn.Linear(6, 32, bias=False), nn.Linear(8, 32, bias=False)
        self.norm, self.out, self.head = nn.LayerNorm(32), nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.size(0), 8)
        c = torch.zeros(x.size(0), 8)
        for t in range(x.size(1)):
            i, f, g, o = (self.norm(self.read(x[:, t])) + self.keep(h)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(self.out(c))
        return self.head(h)


class MinimalGate(nn.Module):
    """A recurrent layer with one gate, its steps collected in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.new, self.head = nn.Linear(14, 8), nn.Linear(6, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.size(0), 8)
        made: list[Tensor] = []
        for t in range(x.size(1)):
            z = torch.sigmoid(self.gate(torch.cat([x[:, t], h], 1)))
            h = (1 - z) * h + z * torch.tanh(self.new(x[:, t]))
            made.append(h)
        return self.head(torch.stack(made, 1).amax(1))


class BothWays(nn.Module):
    """Two directions, one loop that counts down."""

    def __init__(self) -> None:
        super().__init__()
        self.there, self.back, self.head = nn.Linear(14, 8), nn.Linear(14, 8), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.zeros(x.size(0), 8)
        b = torch.zeros(x.size(0), 8)
        for t in range(x.size(1)):
            a = torch.tanh(self.there(torch.cat([x[:, t], a], 1)))
        for t in range(x.size(1) - 1, -1, -1):
            b = torch.tanh(self.back(torch.cat([x[:, t], b], 1)))
        return self.head(torch.cat([a, b], 1))


class Refined(nn.Module):
    """One block of a residual network, a fixed number of times, in a while loop."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.block, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        left = 3
        while left > 0:
            x = torch.relu(x + self.norm(self.block(x)))
            left -= 1
        return self.head(x.mean([2, 3]))


class Pyramid(nn.Module):
    """Pooled until it is small, every size kept in a list and joined."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        kept: list[Tensor] = []
        for _ in range(3):
            kept.append(x.mean([2, 3]))
            x = torch.max_pool2d(x, 2)
        return self.head(torch.cat(kept, 1))


class Parts(nn.Module):
    """Channels split into a list, a layer for each, some parts twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(3, 3), nn.Linear(15, 5)

    def forward(self, x: Tensor) -> Tensor:
        made: list[Tensor] = []
        for part in torch.split(x, 3, 1):
            made.append(torch.relu(self.layer(part)))
        made.insert(0, made[-1])
        return self.head(torch.cat(made, 1))


class Chosen(nn.Module):
    """The brightness of a picture chooses what is done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.dark, self.bright = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bright(x) if x.mean() > 0 else self.dark(x.abs().sqrt())
        return self.head(torch.relu(y).mean([2, 3]))


class Anything(nn.Module):
    """What it does depends on sizes and on what is there, as in code for every use."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(6, 8), nn.Linear(8, 5)

    def weigh(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return x if mask is None else x * mask

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.layer(x))
        if x.size(1) > 4:
            x = x[:, ::2]
        x = self.weigh(x, None)
        if x.dim() == 3:
            x = x.mean(1)
        return self.head(self.weigh(x, torch.sigmoid(x)))


_SIGNAL, _PICTURE, _ROW = (2, 10, 6), (2, 3, 16, 16), (2, 12)
_MADE: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "script/layernorm_lstm": (NormalisedCell, _SIGNAL),
    "script/minimal_gate": (MinimalGate, _SIGNAL),
    "script/both_ways": (BothWays, _SIGNAL),
    "script/refined": (Refined, _PICTURE),
    "script/pyramid": (Pyramid, _PICTURE),
    "script/parts": (Parts, _ROW),
    "script/chosen": (Chosen, _PICTURE),
    "script/anything": (Anything, _SIGNAL),
}
NAMES = list(_MADE)


def export(name: str, path: Path) -> dict[str, Any]:
    """Write a network as ONNX, its control flow in it; return its inputs as arrays."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    made, sizes = _MADE[name]
    x = torch.randn(sizes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            torch.jit.script(made().eval()), (x,), str(path), dynamo=False, input_names=["x"],
            output_names=["logits"], dynamic_axes={"x": {0: "N"}, "logits": {0: "N"}},
            opset_version=17,
        )  # fmt: skip
    return {"x": x.numpy()}
