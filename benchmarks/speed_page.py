"""docs/speed.md, from what `speed.py` measured."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

Record = dict[str, Any]

LIMITS = {
    "epsilon": 2, "epsilon_plus_flat": 3, "epsilon_alpha2_beta1_flat": 5, "epsilon_gamma_box": 3,
    "default": 3, "attn_lrp": 2, "cp_lrp": 2,
}  # fmt: skip
"""Forward passes by arithmetic: one for the network, then each convolution or dense layer's
denominator and transpose; epsilon's denominator is the layer's own output."""

LIBRARIES = (
    *("onnxruntime-gpu", "onnxruntime", "torch", "torchvision", "timm", "transformers"),
    *("zennit", "lxt", "captum"),
)

INTRODUCTION = """# What an explanation costs

Written whole by

<!-- not run: hours -->

```bash
python benchmarks/speed.py --write
```

on {machine}; {libraries}.

torchvision's and timm's architectures and a BERT of 4 layers of width 256 on 128 tokens, weights
random, BatchNorm statistics taken from random inputs, pictures of 224 x 224, exported by torch's
TorchScript exporter to opset 17. All contestants of a row run in one process on the same weights,
inputs and number of threads, and take turns for 5 rounds (3 where a round takes over 5 s) after
one to warm up; each round gives a ratio, and the median of these is what is shown. Denormal numbers
are flushed to zero on all sides. zennit merges BatchNorm, where its canonizers find it, before the
clock starts; conversion is not in our time either.
"""


def ratio(measured: Record, over: str, under: str) -> float | None:
    """Return the median over rounds of one contestant's time by another's, None if one refused."""
    seconds = measured["seconds"]
    if over not in seconds or under not in seconds:
        return None
    pairs = zip(seconds[over], seconds[under], strict=False)
    return statistics.median(a / b for a, b in pairs)


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _of(measured: Record, kind: str) -> list[tuple[list[str], Any]]:
    return [(key.split()[1:], value) for key, value in measured.items() if key.split()[0] == kind]


def times(measured: Record) -> str:
    """Return the table of times."""
    rows = []
    for (name, batch, threads, composite), found in _of(measured, "time"):
        peer = "zennit" if "zennit" in found["seconds"] or "zennit" in found["refused"] else "LXT"
        cost, limit = ratio(found, "ours", "onnxruntime"), LIMITS[composite]
        theirs, faster = ratio(found, peer, "torch"), ratio(found, peer, "ours")
        rows.append(
            [name, composite, batch, threads, _number(cost), str(limit), _number(cost / limit),
             peer, _number(theirs) or "refuses", _number(faster)]
        )  # fmt: skip
    head = ["network", "composite", "batch", "threads", "ours / forward", "limit", "of the limit",
            "peer", "peer / torch's forward", "peer / ours"]  # fmt: skip
    return _table(head, rows)


def _times_in_words(measured: Record) -> str:
    found = [
        (name, composite, ratio(value, "ours", "onnxruntime") / LIMITS[composite])
        for (name, batch, threads, composite), value in _of(measured, "time")
        if batch == threads == "1"
    ]
    within = [f"{name} by `{composite}`" for name, composite, part in found if part <= 1.15]
    name, composite, part = max(found, key=lambda row: row[2])
    faster = [
        (peer, [times for _, value in _of(measured, "time")
                if (times := ratio(value, peer, "ours")) is not None])
        for peer in ("zennit", "LXT")
    ]  # fmt: skip
    theirs = "; ".join(
        f"{peer} takes {statistics.median(times):.1f} times our time in the median, "
        f"{min(times):.1f} at least"
        for peer, times in faster
        if times
    )
    return f"""{ARITHMETIC}
Within 15 % of the limit, on one thread and one sample: {", ".join(within) or "none"}.
Furthest from it: {name} by `{composite}`, {part:.2f} of it. {theirs}.
"""


ARITHMETIC = """The limit counts multiplications: the forward pass, and for each convolution or
dense layer what its rule must multiply: its transpose (epsilon: 2 in all), its denominator as well
(z-plus, gamma: 3), both of both signs (alpha 2, beta 1: 5). Dense layers keep epsilon and a first
layer may be `flat`, which takes rows of networks that are heavy there below it. Products of live
values, in attention, have two transposes: transformers cannot quite reach 2. It takes inputs for
not negative, as behind ReLU: where they have both signs (mobilenet_v2's linear bottlenecks, SiLU),
z-plus has two denominators and two transposes, 5 in all, and gamma four of each, 9; and the default
of these two counts from a reference, which has a forward pass of its own.

zennit has no composite that is our default: `EpsilonPlusFlat` stands beside it. It knows no gates:
on efficientnet_b0 it sends gradients through them. LXT's efficient rules are put into timm's and
transformers' networks at LayerNorm, GELU and attention, which its own patches do not fit.
"""


def others(measured: Record) -> str:
    """Return the table of methods that are not LRP by zennit or LXT."""
    rows = []
    for (name, batch, threads, _), found in _of(measured, "time"):
        for method in [*found["seconds"], *found["refused"]]:
            if method.startswith(("captum", "torch ")):
                why = found["refused"].get(method)
                theirs = [ratio(found, method, base) for base in ("torch", "ours")]
                rows.append(
                    [name, batch, threads, method, *([f"refuses: {why[:80]}", ""] if why else
                     [_number(value) for value in theirs])]
                )  # fmt: skip
    head = ["network", "batch", "threads", "method", "/ torch's forward", "/ ours"]
    return _table(head, rows)


def _megabytes(value: float) -> str:
    return f"{value / 1e6:.0f}"


def memory(measured: Record) -> str:
    """Return the table of peaks at batch 8."""
    rows = []
    for (name,), (activations, weights) in _of(measured, "needed"):
        peaks = {
            contestant: value
            for (of, batch, contestant), value in _of(measured, "peak")
            if of == name and batch == "8"
        }
        if len(peaks) < 4:
            continue
        ours, limit = peaks["ours"], 1.5 * (8 * activations + weights)
        (peer,) = peaks.keys() - {"ours", "onnxruntime", "torch"}
        rows.append(
            [name, _megabytes(8 * activations), _megabytes(weights),
             _megabytes(peaks["onnxruntime"]), _megabytes(ours), _number(ours / limit),
             _megabytes(peaks["torch"]), f"{peer} {_megabytes(peaks[peer])}",
             _number(ours / peaks[peer])]
        )  # fmt: skip
    head = ["network", "activations", "weights", "forward", "ours", "ours / 1.5 (a + w)",
            "torch's forward", "peer", "ours / peer"]  # fmt: skip
    return _table(head, rows)


def memory_by_batch(measured: Record) -> str:
    """Return our peaks by batch."""
    rows = []
    for (name,), (activations, _) in _of(measured, "needed"):
        peaks = {
            int(batch): value
            for (of, batch, contestant), value in _of(measured, "peak")
            if of == name and contestant == "ours"
        }
        if len(peaks) < 3:
            continue
        first, second = (peaks[8] - peaks[1]) / 7, (peaks[16] - peaks[8]) / 8
        cells = [*map(_megabytes, (*peaks.values(), first, second, activations))]
        rows.append([name, *cells])
    head = ["network", "batch 1", "batch 8", "batch 16", "a sample, 1 to 8", "a sample, 8 to 16",
            "its activations"]  # fmt: skip
    return _table(head, rows)


def files(measured: Record) -> str:
    """Return the table of conversion, file and start."""
    rows = []
    for (name,), found in _of(measured, "opening"):
        before, after = found["bytes"]
        grown = f"{(after - before) / 1024:.0f} KiB ({after / before - 1:.1%})"
        start = ratio(found, "explainer", "model")
        rows.append([name, f"{found['convert']:.1f}", f"{before / 1e6:.0f}", grown, _number(start)])
    head = ["network", "conversion, s", "model, MB", "the explainer's more", "start / model's"]
    return _table(head, rows)


def profiles(measured: Record) -> str:
    """Return a table for each network: the operators that take most time."""
    parts = []
    for (name,), found in _of(measured, "profile"):
        rows = [[kind, whose, f"{share:.1%}"] for kind, whose, share in found[:8]]
        mine = sum(share for _, whose, share in found if whose == "the model's")
        multiplied = sum(share for kind, _, share in found if kind in MULTIPLY)
        parts.append(
            f"### {name}\n\n{_table(['operator', 'whose', 'time'], rows)}\n"
            f"The model's own nodes take {mine:.0%}; of all time {multiplied:.0%} multiplies "
            "(convolutions and matrix products): this is what the limit counts.\n"
        )
    return "\n".join(parts)


MULTIPLY = ("Conv", "ConvTranspose", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")


def growths(measured: Record) -> str:
    """Return the table of what costs grow with."""
    rows = [
        [what, size, _number(ratio(found, "ours", "onnxruntime")),
         _number(None if what == "targets" else ratio(found, "zennit", "ours"))]
        for (what, size), found in _of(measured, "growth")
    ]  # fmt: skip
    return _table(["grown", "to", "ours / forward", "zennit / ours"], rows)


def _machine() -> str:
    info = Path("/proc/cpuinfo").read_text()
    model = info.partition("model name")[2].partition("\n")[0].strip("\t :")
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"


def _libraries() -> str:
    def found(name: str) -> str | None:
        try:
            return f"{name} {version(name)}"
        except ModuleNotFoundError:
            return None

    return ", ".join(filter(None, map(found, LIBRARIES)))


SECTIONS: tuple[tuple[str, Callable[[Record], str], str | Callable[[Record], str]], ...] = (
    ("Time", times, _times_in_words),
    (
        "Beside other methods",
        others,
        "Ours is by `epsilon_plus_flat`, of transformers by `attn_lrp`. Gradient times input is "
        "one forward and one backward pass of torch; integrated gradients take 50 of them.\n",
    ),
    (
        "Peak memory, batch 8",
        memory,
        "MB, one thread. What a process of its own has at its peak, while loading or during one "
        "run, above its peak right before loading. Activations are those of the model's values "
        "that our nodes read (the model was run with them as outputs, and their bytes summed), "
        "weights its initializers: what relevance cannot do without. The rest is what onnxruntime "
        "copies of weights at load (protobuf, packed matrices, folded constants) and what is alive "
        "at the widest place.\n",
    ),
    (
        "Peak memory by batch",
        memory_by_batch,
        "MB, ours. Linear where the two columns of one more sample are alike; under the first is "
        "also what loading took and batch 1 did not fill again.\n",
    ),
    (
        "Conversion, file, start",
        files,
        "By `epsilon_plus_flat` (transformers: `attn_lrp`). What the file has beyond the model's "
        "is nodes, their names and metadata, and weights that two nodes must not share. At a "
        "session's start onnxruntime rewrites the larger graph and folds weights derived from "
        "the model's.\n",
    ),
    (
        "Profile by operator",
        profiles,
        "By `epsilon_plus_flat` (transformers: `attn_lrp`), batch 1, one thread, onnxruntime's "
        "own profile after its rewriting. Reorder nodes are onnxruntime's, between its layout for "
        "convolutions and the plain one.\n",
    ),
    (
        "How cost grows",
        growths,
        "A chain of 8 convolutions 3x3 of 32 channels on 64 x 64 with ReLU, mean and one dense "
        "layer of 1000 classes, by `epsilon_plus_flat`, one thread, batch 1, one of these grown. "
        "*targets* are classes explained of one sample in one run, beside one forward pass. A "
        "narrow network is limited by passes over memory (divisions, products with inputs), a "
        "wide one by its convolutions.\n",
    ),
)


def page(measured: Record) -> str:
    """Return the whole page."""
    parts = [INTRODUCTION.format(machine=_machine(), libraries=_libraries())]
    for title, table, words in SECTIONS:
        said = words if isinstance(words, str) else words(measured)
        parts.append(f"## {title}\n\n{table(measured)}\n{said}")
    return "\n".join(parts)
