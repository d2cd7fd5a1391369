"""Train a small Vision Transformer on CIFAR-10 and write it as an ONNX file.

The two NPZ files hold `x`, uint8 [n, 32, 32, 3] in RGB, and `y`, uint8 [n].
"""

import argparse
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from exporting import export
from torch import Tensor, nn
from train_cifar10_lrn import augment, load

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
DIM, HEADS, LAYERS, HIDDEN, STEM = 64, 4, 4, 128, (24, 48)
BATCH, LEARNING_RATE, WEIGHT_DECAY, SMOOTHING = 64, 1e-3, 0.05, 0.1
# Of the steps: the learning rate rises over the first part, and falls to 0 over the last.
RISE, FALL = 0.03, 0.45


class Block(nn.Module):
    """Attention and a perceptron, each behind its own LayerNorm and beside a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.qkv, self.proj = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
        self.fc1, self.fc2 = nn.Linear(DIM, HIDDEN), nn.Linear(HIDDEN, DIM)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens for tokens [n, t, dim]."""
        qkv = self.qkv(self.norm1(x)).unflatten(-1, (3, HEADS, DIM // HEADS))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        x = x + self.proj(mixed.transpose(1, 2).flatten(2))
        hidden: Tensor = x + self.fc2(nn.functional.gelu(self.fc1(self.norm2(x))))
        return hidden


class Net(nn.Module):
    """A convolutional stem to 8x8 tokens, a class token, pre-norm blocks, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        widths = (3, *STEM)
        for i, width in enumerate(STEM):
            layers += [nn.Conv2d(widths[i], width, 3, 2 - i, 1, bias=False)]
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
        self.stem = nn.Sequential(*layers, nn.Conv2d(STEM[-1], DIM, 3, 2, 1))
        self.token = nn.Parameter(torch.randn(1, 1, DIM) * 0.02)
        self.place = nn.Parameter(torch.randn(1, 65, DIM) * 0.02)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm, self.head = nn.LayerNorm(DIM), nn.Linear(DIM, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images [n, 3, 32, 32]."""
        patches = self.stem(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(patches.shape[0], -1, -1), patches], 1)
        logits: Tensor = self.head(self.norm(self.blocks(tokens + self.place))[:, 0])
        return logits


def normalise(x: Tensor) -> Tensor:
    """Standardise every colour, as onnxlrp's preset `cifar10` does."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    return (x.float() / 255 - mean) / std


def rate(done: float) -> float:
    """Return the learning rate, relative to its peak, when that part of the steps is done."""
    return min(done / RISE, 1.0, (1 - done) / FALL)


def train(net: Net, x: Tensor, y: Tensor, epochs: int, state: Path) -> None:
    """Train by AdamW, going on from `state` where that file exists."""
    padded = torch.from_numpy(np.pad(x.numpy(), ((0, 0), (0, 0), (4, 4), (4, 4)), "reflect"))
    decayed = [p for p in net.parameters() if p.ndim in (2, 4)]
    plain = [p for p in net.parameters() if p.ndim not in (2, 4)]
    groups = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, LEARNING_RATE, (0.9, 0.98), weight_decay=WEIGHT_DECAY)
    first = 0
    if state.exists():
        held = torch.load(state)
        first = held["epoch"]
        net.load_state_dict(held["net"])
        optimiser.load_state_dict(held["optimiser"])
    steps = len(x) // BATCH
    for epoch in range(first, epochs):
        start, total, hits = time.process_time(), 0.0, 0.0
        for i, index in enumerate(torch.randperm(len(x))[: steps * BATCH].view(steps, BATCH)):
            for group in optimiser.param_groups:
                group["lr"] = LEARNING_RATE * rate((epoch * steps + i + 1) / (epochs * steps))
            logits = net(normalise(augment(padded, index)))
            loss = nn.functional.cross_entropy(logits, y[index], label_smoothing=SMOOTHING)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            total += loss.item()
            hits += (logits.argmax(1) == y[index]).float().mean().item()
        spent = f"{time.process_time() - start:.0f} s of CPU"
        figures = f"loss {total / steps:.4f} accuracy {hits / steps:.4f}"
        print("epoch", epoch + 1, figures, spent, flush=True)
        held = {"epoch": epoch + 1, "net": net.state_dict(), "optimiser": optimiser.state_dict()}
        torch.save(held, state)


def write(net: Net, path: Path) -> None:
    """Write the network, BatchNorm merged into the convolutions, for batches of any size."""
    stem = list(net.stem)
    for i, layer in enumerate(stem):
        if isinstance(layer, nn.BatchNorm2d):
            stem[i - 1] = nn.utils.fuse_conv_bn_eval(stem[i - 1], layer)
    net.stem = nn.Sequential(*(layer for layer in stem if not isinstance(layer, nn.BatchNorm2d)))
    export(net, {"image": torch.zeros(2, 3, 32, 32)}, path, {0: "batch"})


@torch.no_grad()
def report(net: Net, path: Path, x: Tensor, y: Tensor) -> None:
    """Print the file's accuracy, and how near torch is to it."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    batches = torch.split(normalise(x), 500)
    found = [session.run(None, {"image": batch.numpy()})[0] for batch in batches]
    logits = torch.from_numpy(np.concatenate(found))
    apart = (logits - torch.cat([net(batch) for batch in batches])).abs().max()
    right = (logits.argmax(1) == y).float()
    print(f"test accuracy {right.mean():.4f} (onnxruntime)")
    print("by class", *(f"{right[y == k].mean():.4f}" for k in range(10)))
    print(f"logits of torch and onnxruntime differ by at most {apart:.2e}")
    print("parameters", sum(p.numel() for p in net.parameters()), "bytes", path.stat().st_size)


def main() -> None:
    """Train, write and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=Path, required=True, metavar="NPZ")
    parser.add_argument("--test", type=Path, required=True, metavar="NPZ")
    parser.add_argument("--out", type=Path, required=True, metavar="ONNX")
    parser.add_argument("--state", type=Path, required=True, metavar="PT", help="after each epoch")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    net = Net()
    train(net, *load(args.train), args.epochs, args.state)
    net.eval()
    write(net, args.out)
    report(net, args.out, *load(args.test))


if __name__ == "__main__":
    main()
