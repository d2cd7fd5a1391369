"""What an explanation costs, as a multiple of the network's own forward pass.

Ours, plain onnxruntime and (if torch and zennit are installed) zennit run in one process on the
same network, weights, images and number of threads; read the ratios, not the seconds.

    python benchmarks/speed.py [--batch 1] [--threads 2] [--repeats 5] [--network vgg16]

Networks of timm (`vit_tiny`, `swin_tiny`, `efficientnet_b0`), which zennit does not cover, stand
beside torch's own forward and backward pass; both sides of a ratio run in turn, in CPU time.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from zennit import composites as zennit
from zennit.attribution import Gradient

import onnxlrp

Array = np.ndarray[Any, Any]

VGG16 = [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"]
VGG11 = [64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"]
NETWORKS = {"vgg16": VGG16, "vgg11": VGG11}
OF_TIMM = {
    "vit_tiny": "vit_tiny_patch16_224",
    "swin_tiny": "swin_tiny_patch4_window7_224",
    "efficientnet_b0": "efficientnet_b0",
}

COMPOSITES = {
    "epsilon_plus_flat": zennit.EpsilonPlusFlat,
    # zennit has none that leaves biases out: the nearest, for its time.
    "epsilon_plus_flat_exclude": zennit.EpsilonPlusFlat,
    "epsilon_alpha2_beta1": zennit.EpsilonAlpha2Beta1,
    "epsilon_gamma_box": lambda: zennit.EpsilonGammaBox(low=-5.0, high=5.0),
}


def vgg(plan: list[int | str]) -> nn.Sequential:
    """Build a VGG network with random weights."""
    layers: list[nn.Module] = []
    channels = 3
    for step in plan:
        if isinstance(step, int):
            convolution = nn.Conv2d(channels, step, 3, padding=1)
            nn.init.kaiming_normal_(convolution.weight)
            layers += [convolution, nn.ReLU()]
            channels = step
        else:
            layers.append(nn.MaxPool2d(2))
    dense = [nn.Flatten(), nn.Linear(512 * 49, 4096), nn.ReLU()]
    return nn.Sequential(*layers, *dense, nn.Linear(4096, 1000)).eval()


def to_onnx(network: nn.Sequential) -> onnx.ModelProto:
    """Write a sequence of layers as ONNX."""
    nodes, weights, value = [], [], "data"
    for index, layer in enumerate(network):
        inputs, attributes = [value], {}
        value = f"v{index}"
        for name, parameter in layer.named_parameters():
            weights.append(numpy_helper.from_array(parameter.detach().numpy(), f"{index}.{name}"))
            inputs.append(f"{index}.{name}")
        if isinstance(layer, nn.Conv2d):
            kind, attributes = "Conv", {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}
        elif isinstance(layer, nn.MaxPool2d):
            kind, attributes = "MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]}
        elif isinstance(layer, nn.Linear):
            kind, attributes = "Gemm", {"transB": 1}
        else:
            kind = {nn.ReLU: "Relu", nn.Flatten: "Flatten"}[type(layer)]
        nodes.append(helper.make_node(kind, inputs, [value], name=f"n{index}", **attributes))
    data = helper.make_tensor_value_info("data", TensorProto.FLOAT, ["N", 3, 224, 224])
    logits = helper.make_tensor_value_info(value, TensorProto.FLOAT, ["N", 1000])
    graph = helper.make_graph(nodes, "network", [data], [logits], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def session(path: Path, threads: int) -> ort.InferenceSession:
    """Open a file in onnxruntime on the CPU."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def seconds(call: Callable[[], Any], repeats: int) -> float:
    """Median time of a call, after one to warm up."""

    def times() -> Iterator[float]:
        for _ in range(repeats):
            start = time.perf_counter()
            call()
            yield time.perf_counter() - start

    call()
    return statistics.median(times())


def ratio(call: Callable[[], Any], base: Callable[[], Any], repeats: int) -> float:
    """Median of how many times the CPU time of `base` a call takes, run in turn."""

    def taken(run: Callable[[], Any]) -> float:
        start = time.process_time()
        run()
        return time.process_time() - start

    call(), base()
    return statistics.median(taken(call) / taken(base) for _ in range(repeats))


def of_timm(name: str, threads: int, repeats: int) -> None:
    """Measure a network of timm, with random weights, on one picture."""
    import timm

    network = timm.create_model(OF_TIMM[name]).eval()
    x = torch.randn(1, 3, 224, 224)

    def backward() -> None:
        network(x.requires_grad_()).max().backward()

    def forward() -> None:
        with torch.no_grad():
            network(x)

    with tempfile.TemporaryDirectory() as folder:
        model, explainer = Path(folder) / "model.onnx", Path(folder) / "explainer.onnx"
        torch.onnx.export(
            network, (x,), model, dynamo=False, opset_version=17, input_names=["data"]
        )
        plain, feeds = session(model, threads), {"data": x.detach().numpy()}
        print(f"{name}, batch 1, {threads} threads: x forward")
        print(f"torch, forward and backward: {ratio(backward, forward, repeats):.1f}")
        for composite in ("attn_lrp", "cp_lrp", "default"):
            onnxlrp.convert(model, composite).save(explainer)
            ours, asked = session(explainer, threads), {**feeds, "target": np.array([-1])}
            times = ratio(
                lambda ours=ours, asked=asked: ours.run(None, asked),
                lambda: plain.run(None, feeds),
                repeats,
            )
            print(f"{composite}: {times:.1f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=[*NETWORKS, *OF_TIMM], default="vgg16")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    if options.network in OF_TIMM:
        of_timm(options.network, options.threads, options.repeats)
        return
    network = vgg(NETWORKS[options.network])
    x = torch.randn(options.batch, 3, 224, 224)
    feeds = {"data": x.numpy()}
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.onnx"
        onnx.save_model(to_onnx(network), model)
        plain = session(model, options.threads)
        forward = seconds(lambda: plain.run(None, feeds), options.repeats)
        with torch.no_grad():
            torch_forward = seconds(lambda: network(x), options.repeats)
            logits = network(x)
        print(f"{options.network}, batch {options.batch}, {options.threads} threads")
        print(f"forward: onnxruntime {forward:.3f} s, torch {torch_forward:.3f} s")
        print("composite, ours, x forward, zennit, x forward, speed-up, relative L2 distance")
        best = logits.argmax(1)
        start = torch.zeros_like(logits)
        start[range(options.batch), best] = logits[range(options.batch), best]
        for name, composite in COMPOSITES.items():
            explainer = Path(folder) / "explainer.onnx"
            chosen = onnxlrp.Composite.load(name)
            if name == "epsilon_gamma_box":
                chosen = chosen.with_parameters({"low": -5.0, "high": 5.0})
            onnxlrp.convert(model, chosen).save(explainer)
            ours = session(explainer, options.threads)
            asked = {**feeds, "target": np.array([-1])}
            mine = seconds(lambda ours=ours, asked=asked: ours.run(None, asked), options.repeats)
            relevance = ours.run(["relevance"], asked)[0]
            with Gradient(network, composite()) as attributor:
                theirs = seconds(lambda a=attributor: a(x, start), options.repeats)
                _, reference = attributor(x, start)
            wanted = reference.numpy()
            distance = np.linalg.norm(relevance - wanted) / np.linalg.norm(wanted)
            print(
                f"{name}, {mine:.3f} s, {mine / forward:.1f}, {theirs:.3f} s, "
                f"{theirs / torch_forward:.1f}, {theirs / mine:.1f}, {distance:.1e}"
            )


if __name__ == "__main__":
    main()
