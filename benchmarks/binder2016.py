"""Repeat the experiments of Binder et al. 2016 and write docs/binder2016.md.

    python benchmarks/binder2016.py --work DIR --cifar TEST.npz [--cifar-images N] [--cifar-every K]
        [--googlenet MODEL.onnx --imagenet FOLDER [--imagenet-images N] [--imagenet-every K]]
        [--places MODEL.onnx --places-images FOLDER]

TEST.npz holds `x`, uint8 [n, 32, 32, 3]. DIR keeps what was measured: an interrupted run goes on
there, and a larger N continues a smaller one. Complete is --cifar-images 5000 --cifar-every 1 and
--imagenet-every 1: about twelve hours on two cores, two of them ImageNet's.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from onnxlrp.compiler.composite import Composite
from onnxlrp.evaluation import Study
from onnxlrp.evaluation.study import RANDOM, interval
from onnxlrp.inputs.presets import load_preprocessing
from onnxlrp.running.gallery import gallery

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CIFAR = ROOT / "models" / "cifar10_lrn.onnx"
WITHOUT = ROOT / "models" / "cifar10_without_lrn.onnx"
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
BASE = f"{EPSILON}; epsilon=1; LRN: taylor"
IMAGENET_BEYOND = [
    BASE,
    *(f"{EPSILON}; epsilon=1; LRN: {lrn}" for lrn in TREATMENTS[2:]),
    *(f"{BASE}; bias={bias}" for bias in ("absorb", "distribute")),
]


HEAD = """# Binder et al. 2016, again

Written by `python benchmarks/binder2016.py`, whose help says what it needs and how long it takes.
The paper leaves open the network, the scale of the score and L, so its absolute values cannot be
compared; signs, order and relative change can. A flip replaces all channels of a pixel, or region,
by uniform random values of 0..255 before preprocessing; the curve is the logit of the class that
the clean picture is predicted as; AUC is its mean over 0..L. Random values are the same for all
methods. Intervals are 95 % bootstrap intervals over pictures, of differences paired by picture.
A claim *holds* or *fails* where the interval of the difference leaves zero out; else the number of
pictures leaves it *undetermined*. Both rules leave biases out (eq. 5) unless said otherwise.
"""
CLAIMS_HEAD = """| claim | L | difference in AUC | |
|---|---|---|---|"""
FOOT = """## Figures 1 and 3: heatmaps

The bundled network on the bundled photograph, its two best classes:

![CIFAR-10](binder2016_demo.png)

GoogLeNet, three pictures of ImageNet (without the photographs, which are not ours to hand on):

![GoogLeNet](binder2016_googlenet.png)

## What is not here

No network trained on MIT Places was at hand; `--places MODEL.onnx --places-images FOLDER` takes
one.
"""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--cifar", type=Path, required=True)
    parser.add_argument("--cifar-images", type=int, default=5000)
    parser.add_argument("--cifar-every", type=int, default=1)
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

    name = f"cifar10-{given.cifar_every}"
    flags = ["--preprocess", str(cifar), "--images", str(given.cifar_images), "--batch", "128"]
    flags += ["--every", str(given.cifar_every), "--at", "100", "--at", "256"]
    page = [HEAD]
    found = evaluate(given.work / name, CIFAR, [given.cifar], CIFAR_METHODS, flags)
    shutil.copy(given.work / name / "curves.png", DOCS / "binder2016_cifar10.png")
    page.append(cifar_section(found, by_picture(given.work / name, found), given.cifar_every))
    folder = given.work / f"{name}-plain"
    without = evaluate(folder, WITHOUT, [given.cifar], [EPSILON, BETA], flags)
    page.append(without_section(found, without))
    for model, data in ((given.googlenet, given.imagenet), (given.places, given.places_images)):
        if model and data:
            flags = ["--preprocess", "imagenet-caffe", "--batch", "16"]
            flags += ["--images", str(given.imagenet_images)]
            flags += ["--every", str(given.imagenet_every), "--order", "descending"]
            flags += ["--order", "random"]
            folder = given.work / f"{model.stem}-{given.imagenet_every}"
            found = evaluate(folder, model, [data], IMAGENET_METHODS, flags)
            page.append(imagenet_section(model.stem, found, given.imagenet_every))
            folder = folder.with_name(f"{folder.name}-beyond")
            found = evaluate(folder, model, [data], IMAGENET_BEYOND, flags)
            page.append(beyond(found, IMAGENET_BEYOND, BASE))
    figures(given)
    page.append(FOOT)
    (DOCS / "binder2016.md").write_text("\n".join(page), "utf-8")


def verdict(row: dict[str, Any], wanted: int) -> str:
    """Say whether a difference has the wanted sign: whether its interval leaves zero out."""
    if row["low"] > 0 or row["high"] < 0:
        return "**holds**" if (row["mean"] > 0) == (wanted > 0) else "**fails**"
    return "undetermined"


def difference(found: dict[str, Any], measure: str, method: str, minus: str) -> dict[str, Any]:
    """Return the mean of method - minus, with its interval."""
    for row in found["results"]:
        if row["measure"] == measure and (row["method"], row["minus"]) == (method, minus):
            return dict(row)
        if row["measure"] == measure and (row["method"], row["minus"]) == (minus, method):
            turned = {"mean": -row["mean"], "low": -row["high"], "high": -row["low"]}
            return row | turned
    raise KeyError((measure, method, minus))


def mean(found: dict[str, Any], measure: str, method: str) -> dict[str, Any]:
    """Return a mean with its interval."""
    return next(
        dict(row)
        for row in found["results"]
        if row["measure"] == measure and row["method"] == method and row["minus"] is None
    )


def text(row: dict[str, Any]) -> str:
    """Write a mean and its interval."""
    return f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def cifar_section(found: dict[str, Any], study: Study, every: int) -> str:
    """Write figure 2 and table 1 again."""
    lines = [
        "## CIFAR-10: figure 2 and table 1",
        "",
        f"`models/cifar10_lrn.onnx`, {found['pictures']} test images drawn by chance, L = 1024",
        f"single pixels, score taken after every {every} flips. Smaller is better in the columns",
        "of AUC, where the most relevant go first.",
        "",
        "| rule, LRN | paper | AUC, L = 1024 | at 256 | at 100 | least relevant first |",
        "|---|---|---|---|---|---|",
    ]
    for method in found["settings"]["methods"]:
        cells = [
            text(mean(found, measure, method))
            for measure in (
                "AUC descending",
                "AUC descending at 256",
                "AUC descending at 100",
                "AUC ascending",
            )
        ]
        lines.append(f"| {method} | {PAPER.get(method, '')} | {' | '.join(cells)} |")
    random = text(mean(found, "AUC descending", RANDOM))
    lines += [f"| random order | | {random} | | | |", "", CLAIMS_HEAD]
    for prefix in ("", " at 256", " at 100"):
        measure = f"AUC descending{prefix}"
        label = prefix.replace(" at ", "") or "1024"
        for rule in (EPSILON, BETA):
            for lrn in TREATMENTS[1:3]:
                row = difference(found, measure, f"{rule}; LRN: {lrn}", f"{rule}; LRN: identity")
                lines.append(
                    f"| {lrn} better than identity, {rule} | {label} | {text(row)} | "
                    f"{verdict(row, -1)} |"
                )
        for lrn in TREATMENTS[:3]:
            row = difference(found, measure, f"{EPSILON}; LRN: {lrn}", f"{BETA}; LRN: {lrn}")
            lines.append(
                f"| epsilon better than beta, LRN: {lrn} | {label} | {text(row)} | "
                f"{verdict(row, -1)} |"
            )
    for rule in (EPSILON, BETA):
        method = f"{rule}; LRN: taylor"
        below = difference(found, "AUC descending", RANDOM, method)
        above = difference(found, "AUC ascending", method, RANDOM)
        for claim, row in (("descending < random", below), ("random < ascending", above)):
            lines.append(f"| {claim}, {method} | 1024 | {text(row)} | {verdict(row, 1)} |")
    under_epsilon = [m for m in found["settings"]["methods"] if m.startswith(EPSILON)]
    lines += ["", beyond(found, under_epsilon, f"{EPSILON}; LRN: taylor")]
    changes = []
    for rule in (EPSILON, BETA):
        identity = study.values(f"{rule}; LRN: identity", "AUC descending")
        taylor = study.values(f"{rule}; LRN: taylor", "AUC descending")
        low, high = interval(taylor - identity)[1:] / identity.mean()
        change = (taylor - identity).mean() / identity.mean()
        changes.append(f"{change:+.1%} [{low:+.1%}, {high:+.1%}] under {rule}")
    lines += [
        f"Taylor changes the AUC by {' and '.join(changes)};",
        "in the paper by -4.4 % and -4.1 %.",
        "",
        "![curves](binder2016_cifar10.png)",
        "",
    ]
    return "\n".join(lines)


def beyond(found: dict[str, Any], methods: list[str], base: str) -> str:
    """Write what the paper does not try, against what it does."""
    lines = [f"Beyond the paper, against `{base}`:", ""]
    lines += ["| | difference in AUC descending | share of the score |", "|---|---|---|"]
    for method in methods:
        if method != base:
            row = difference(found, "AUC descending", method, base)
            share = mean(found, "share of score", method)["mean"]
            lines.append(f"| {method} | {text(row)} | {share:.4g} |")
    return "\n".join([*lines, ""])


def without_section(found: dict[str, Any], without: dict[str, Any]) -> str:
    """Write how much of the difference between the rules is there without LRN."""
    lines = ["### The same network trained without LRN", ""]
    lines += ["| network | epsilon | beta | epsilon - beta |", "|---|---|---|---|"]
    for name, part, suffix in (("with LRN", found, "; LRN: taylor"), ("without", without, "")):
        cells = [text(mean(part, "AUC descending", f"{rule}{suffix}")) for rule in (EPSILON, BETA)]
        row = difference(part, "AUC descending", f"{EPSILON}{suffix}", f"{BETA}{suffix}")
        lines.append(f"| {name} | {cells[0]} | {cells[1]} | {text(row)} |")
    lines += [
        "",
        "AUC descending, L = 1024. The networks classify 81.9 % and 82.0 % of the test images;",
        "their scores have no common scale: only signs and relative sizes can be compared.",
        "",
    ]
    return "\n".join(lines)


def imagenet_section(name: str, found: dict[str, Any], every: int) -> str:
    """Write table 2, or 3, again."""
    lines = [
        f"## {name}: tables 2 and 3",
        "",
        f"{found['pictures']} pictures, 100 regions of 9x9, score taken after every {every} flips.",
        "The paper finds Taylor better than the identity, and epsilon of 0.01 or 1 best.",
        "",
        "| rule | identity | Taylor | Taylor - identity | Taylor better? |",
        "|---|---|---|---|---|",
    ]
    for identity, taylor in zip(IMAGENET_METHODS[::2], IMAGENET_METHODS[1::2], strict=True):
        row = difference(found, "AUC descending", taylor, identity)
        cells = [text(mean(found, "AUC descending", method)) for method in (identity, taylor)]
        rule = identity.removesuffix("; LRN: identity")
        lines.append(f"| {rule} | {' | '.join(cells)} | {text(row)} | {verdict(row, -1)} |")
    random = text(mean(found, "AUC descending", RANDOM))
    lines += [f"| random order | {random} | | | |", ""]
    first, second, third = IMAGENET_METHODS[1], IMAGENET_METHODS[3], IMAGENET_METHODS[5]
    for method, other in ((first, second), (second, third), (first, IMAGENET_METHODS[9])):
        row = difference(found, "AUC descending", method, other)
        lines.append(f"- `{method}` minus `{other}`: {text(row)}")
    lines.append("")
    return "\n".join(lines)


def figures(given: argparse.Namespace) -> None:
    """Draw figures 1 and 3: heatmaps of the rules and treatments beside each other."""
    methods = {
        f"{rule}, LRN: {lrn}": Composite.load(f"{rule}; LRN: {lrn}")
        for rule in (EPSILON, BETA)
        for lrn in TREATMENTS[:3]
    }
    cifar = load_preprocessing(str(given.work / "cifar10.json"))
    photograph = ROOT / "models" / "demo.png"
    gallery(CIFAR, methods, [photograph], cifar, target="top:2").save(DOCS / "binder2016_demo.png")
    if given.googlenet and given.imagenet:
        # The photographs themselves may not be handed on.
        pictures = sorted(given.imagenet.iterdir())[:48:16]
        how = load_preprocessing("imagenet-caffe")
        drawn = gallery(given.googlenet, methods, pictures, how, photographs=False)
        drawn.quantize(128).save(DOCS / "binder2016_googlenet.png", optimize=True)


def evaluate(
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


def by_picture(folder: Path, found: dict[str, Any]) -> Study:
    """Return what `onnxlrp evaluate` left of every picture."""
    lines = (folder / "journal.jsonl").read_text().splitlines()[1:]
    assert len(lines) == found["samples"], "the folder holds a larger run: give it whole"
    return Study([json.loads(line) for line in lines], [*found["settings"]["methods"], RANDOM])


if __name__ == "__main__":
    main()
