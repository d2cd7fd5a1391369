"""Train the Caffe-style CIFAR-10 network with LRN and write it as an ONNX file.

The two NPZ files hold `x`, uint8 [n, 32, 32, 3] in RGB, and `y`, uint8 [n].
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

MEAN = (125.3, 123.0, 113.9)
LRN = {"size": 3, "alpha": 5e-5, "beta": 0.75, "bias": 1.0}
BATCH, LEARNING_RATE = 128, 0.05

# SGD is ill-conditioned on values of 0..255, so training counts in this unit. As
# LRN(unit * u; alpha) == unit * LRN(u; alpha * unit**2) and every other layer is
# homogeneous too, `in_pixel_units` undoes it exactly.
UNIT = 64.0


class Net(nn.Module):
    """The classifier, for inputs counted in multiples of `unit`."""

    def __init__(self, unit: float = 1.0, *, lrn: bool = True) -> None:
        super().__init__()
        self.alpha, self.lrn = LRN["alpha"] * unit**2, lrn
        self.conv1 = nn.Conv2d(3, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 32, 5, padding=2)
        self.conv3 = nn.Conv2d(32, 64, 5, padding=2)
        self.fc = nn.Linear(64 * 3 * 3, 10)
        for layer in (self.conv1, self.conv2, self.conv3):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.normal_(self.fc.weight, std=0.01)

    def norm(self, x: Tensor) -> Tensor:
        """Normalise as ONNX's LRN does, which divides alpha by the size."""
        if not self.lrn:
            return x
        squares = nn.functional.pad(x * x, (0, 0, 0, 0, 1, 1))
        total = squares[:, :-2] + squares[:, 1:-1] + squares[:, 2:]
        # The power -0.75 by roots, which cost far less than pow and its gradient.
        root = (LRN["bias"] + self.alpha / LRN["size"] * total).rsqrt()
        return x * root * root.sqrt()

    def before_norms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the two LRN layers read."""
        first = torch.relu(nn.functional.max_pool2d(self.conv1(x), 3, 2))
        return first, nn.functional.avg_pool2d(torch.relu(self.conv2(self.norm(first))), 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.norm(self.before_norms(x)[1])
        x = nn.functional.avg_pool2d(torch.relu(self.conv3(x)), 3, 2)
        logits: Tensor = self.fc(x.flatten(1))
        return logits


def in_pixel_units(net: Net) -> Net:
    """Return the same function of pixels of 0..255 minus the mean."""
    out, state = Net(lrn=net.lrn), dict(net.state_dict())
    for name in ("conv1.bias", "conv2.bias", "conv3.bias"):
        state[name] = state[name] * UNIT
    state["fc.weight"] = state["fc.weight"] / UNIT
    out.load_state_dict(state)
    return out.eval()


def load(path: Path) -> tuple[Tensor, Tensor]:
    """Return the images, uint8 [n, 3, 32, 32], and their classes."""
    with np.load(path) as data:
        x = np.ascontiguousarray(data["x"].transpose(0, 3, 1, 2))
        return torch.from_numpy(x), torch.from_numpy(data["y"].astype(np.int64))


def normalise(x: Tensor) -> Tensor:
    """Subtract the mean colour."""
    return x.float() - torch.tensor(MEAN).view(3, 1, 1)


def augment(padded: Tensor, index: Tensor) -> Tensor:
    """Crop the chosen 40x40 images to 32x32 at random, and flip half of them."""
    n, line = len(index), torch.arange(32)
    columns = torch.where(torch.rand(n, 1) < 0.5, line, 31 - line) + torch.randint(9, (n, 1))
    rows = line + torch.randint(9, (n, 1))
    channels = torch.arange(3).view(1, 3, 1, 1)
    index, rows = index.view(n, 1, 1, 1), rows.view(n, 1, 32, 1)
    return padded[index, channels, rows, columns.view(n, 1, 1, 32)]


def train(net: Net, x: Tensor, y: Tensor, epochs: int) -> None:
    """Train by SGD with one cycle of the learning rate."""
    # np.pad, as torch has no reflection padding for uint8.
    padded = torch.from_numpy(np.pad(x.numpy(), ((0, 0), (0, 0), (4, 4), (4, 4)), "reflect"))
    optimiser = torch.optim.SGD(
        net.parameters(), LEARNING_RATE, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    steps = len(x) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, epochs * steps)
    start = time.perf_counter()
    for epoch in range(epochs):
        total = 0.0
        for index in torch.randperm(len(x))[: steps * BATCH].view(steps, BATCH):
            images = normalise(augment(padded, index)) / UNIT
            # A quarter faster than torch's default layout on a CPU.
            images = images.contiguous(memory_format=torch.channels_last)
            loss = nn.functional.cross_entropy(net(images), y[index])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
            total += loss.item()
        spent = f"{time.perf_counter() - start:.0f} s"
        print("epoch", epoch + 1, f"loss {total / steps:.4f}", spent, flush=True)


def to_onnx(net: Net) -> onnx.ModelProto:
    """Write the network node by node, so that the file holds nothing an exporter adds."""
    conv = {"kernel_shape": [5, 5], "strides": [1, 1], "pads": [2, 2, 2, 2]}
    pool = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 0, 0]}
    layers: list[tuple[str, str, dict[str, Any]]] = [
        ("conv1", "Conv", conv),
        ("pool1", "MaxPool", pool),
        ("relu1", "Relu", {}),
        ("norm1", "LRN", LRN),
        ("conv2", "Conv", conv),
        ("relu2", "Relu", {}),
        ("pool2", "AveragePool", pool),
        ("norm2", "LRN", LRN),
        ("conv3", "Conv", conv),
        ("relu3", "Relu", {}),
        ("pool3", "AveragePool", pool),
        ("flatten", "Flatten", {"axis": 1}),
        ("fc", "Gemm", {"transB": 1}),
    ]
    weights = {k: v.contiguous().numpy() for k, v in net.state_dict().items()}
    nodes, tensor = [], "image"
    for name, op, attributes in layers:
        if op == "LRN" and not net.lrn:
            continue
        inputs = [tensor, *(key for key in weights if key.startswith(f"{name}."))]
        tensor = "logits" if name == "fc" else name
        nodes.append(helper.make_node(op, inputs, [tensor], name, **attributes))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 32, 32])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])
    stored = [numpy_helper.from_array(v, k) for k, v in weights.items()]
    graph = helper.make_graph(nodes, "cifar10", [image], [logits], stored)
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


@torch.no_grad()
def report(net: Net, path: Path, x: Tensor, y: Tensor) -> None:
    """Print the file's accuracy, how near torch is to it, and how much LRN does."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    batches = torch.split(normalise(x), 500)
    found = [session.run(None, {"image": batch.numpy()})[0] for batch in batches]
    logits = torch.from_numpy(np.concatenate(found))
    apart = (logits - torch.cat([net(batch) for batch in batches])).abs().max()
    print(f"test accuracy {(logits.argmax(1) == y).float().mean():.4f} (onnxruntime)")
    print(f"logits of torch and onnxruntime differ by at most {apart:.2e}")
    read = zip(*(net.before_norms(batch) for batch in batches), strict=True)
    for name, parts in zip(("norm1", "norm2"), read, strict=True):
        ratio = torch.cat([(net.norm(part) / part)[part > 0] for part in parts])
        print(f"{name} y/x mean {ratio.mean():.3f} min {ratio.min():.3f}")
    net.lrn = False
    without = torch.cat([net(batch) for batch in batches]).argmax(1)
    print(f"test accuracy {(without == y).float().mean():.4f} if LRN were the identity")


def main() -> None:
    """Train, write and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=Path, required=True, metavar="NPZ")
    parser.add_argument("--test", type=Path, required=True, metavar="NPZ")
    parser.add_argument("--out", type=Path, required=True, metavar="ONNX")
    parser.add_argument("--epochs", type=int, default=45)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-lrn", action="store_true", help="leave both LRNs out")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    net = Net(UNIT, lrn=not args.no_lrn)
    train(net, *load(args.train), args.epochs)
    net = in_pixel_units(net)
    onnx.save(to_onnx(net), args.out)
    report(net, args.out, *load(args.test))


if __name__ == "__main__":
    main()
