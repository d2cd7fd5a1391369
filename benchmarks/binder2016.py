"""Repeat the experiments of Binder et al. 2016 and write docs/binder2016.md.

    python benchmarks/binder2016.py --work DIR --cifar TEST.npz [--cifar-images N] [--cifar-every K]
        [--googlenet MODEL.onnx --imagenet FOLDER [--imagenet-images N] [--imagenet-every K]]
        [--without-lrn MODEL.onnx] [--places MODEL.onnx --places-images FOLDER]

TEST.npz holds `x`, uint8 [n, 32, 32, 3]. DIR keeps what was measured: an interrupted run goes on
there, and a larger N continues a smaller one. Complete is --cifar-images 5000 --cifar-every 1 and
--imagenet-every 1: about twelve hours on two cores, two of them ImageNet's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CIFAR = ROOT / "models" / "cifar10_lrn.onnx"
EPSILON, BETA = "binder2016_epsilon", "binder2016_beta"
PAPER = {
    f"{EPSILON}; LRN: identity": 37.10,
    f"{EPSILON}; LRN: taylor": 35.47,
    f"{BETA}; LRN: identity": 56.13,
    f"{BETA}; LRN: taylor": 53.82,
}
TREATMENTS = ("identity", "taylor", "taylor-unnormalised", "path-integral", "taylor-2", "gradient")
CIFAR_METHODS = [
    *(f"{rule}; LRN: {lrn}" for rule in (EPSILON, BETA) for lrn in TREATMENTS[:3]),
    *(f"{EPSILON}; LRN: {lrn}" for lrn in TREATMENTS[3:]),
    *(f"{EPSILON}; LRN: taylor; bias={bias}" for bias in ("absorb", "distribute")),
]
IMAGENET_METHODS = [
    f"{rule}; LRN: {lrn}"
    for rule in (
        *(f"{EPSILON}; epsilon={epsilon}" for epsilon in (0.01, 1, 100)),
        *(f"{BETA}; beta={beta}" for beta in (0, 1)),
    )
    for lrn in ("identity", "taylor")
]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--cifar", type=Path, required=True)
    parser.add_argument("--cifar-images", type=int, default=5000)
    parser.add_argument("--cifar-every", type=int, default=1)
    parser.add_argument("--without-lrn", type=Path)
    parser.add_argument("--googlenet", type=Path)
    parser.add_argument("--imagenet", type=Path)
    parser.add_argument("--imagenet-images", type=int, default=100)
    parser.add_argument("--imagenet-every", type=int, default=1)
    parser.add_argument("--places", type=Path)
    parser.add_argument("--places-images", type=Path)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    cifar = given.work / "cifar10.json"
    cifar.write_text('{"resize": 32, "crop": [32, 32], "mean": [125.3, 123.0, 113.9]}')

    parts = []
    name = f"cifar10-{given.cifar_every}"
    flags = ["--preprocess", str(cifar), "--images", str(given.cifar_images), "--batch", "128"]
    flags += ["--every", str(given.cifar_every), "--at", "100", "--at", "256"]
    parts.append(study(given.work / name, CIFAR, [given.cifar], CIFAR_METHODS, flags))
    if given.without_lrn:
        plain = [EPSILON, BETA]
        parts.append(
            study(given.work / f"{name}-plain", given.without_lrn, [given.cifar], plain, flags)
        )
    for model, data in (
        (given.googlenet, given.imagenet),
        (given.places, given.places_images),
    ):
        if model and data:
            flags = ["--preprocess", "imagenet-caffe", "--batch", "16", "--order", "descending"]
            flags += ["--order", "random", "--images", str(given.imagenet_images)]
            flags += ["--every", str(given.imagenet_every)]
            folder = given.work / f"{model.stem}-{given.imagenet_every}"
            parts.append(study(folder, model, [data], IMAGENET_METHODS, flags))
    for part in parts:
        print(json.dumps({"pictures": part["pictures"]}))


def study(
    folder: Path, model: Path, data: list[Path], methods: list[str], flags: list[str]
) -> dict[str, Any]:
    """Run `onnxlrp evaluate`, and return what it left."""
    command = [sys.executable, "-c", "from onnxlrp.cli import main; main()", "evaluate", str(model)]
    for path in data:
        command += ["--data", str(path)]
    for method in methods:
        command += ["--composite", method]
    print("onnxlrp", *command[3:], *flags, "-o", folder, flush=True)
    subprocess.run([*command, *flags, "-o", str(folder)], check=True, stdout=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


if __name__ == "__main__":
    main()
