"""What an explanation costs in time and memory, beside the network's forward pass and its peers.

    python benchmarks/speed.py --write [--cache FILE]
    python benchmarks/speed.py --network resnet50 --batch 1 --threads 1 [--composite epsilon]

The first writes docs/speed.md (with `--network`, of that network alone what the cache lacks), the
second prints one row. Contestants of a row share a process,
weights, inputs and number of threads, and take turns; read the ratios, not the seconds. `--cache`
keeps what was measured as JSON: an interrupted run goes on, and what is deleted from it is measured
again. Needs torch, torchvision, timm, transformers, zennit, captum and lxt.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import peers
import speed_page
import torch
from networks import NETWORKS, Array, convert, export, plain

from onnxlrp.runtime import open_session

Call = Callable[[], object]
Record = dict[str, Any]

PAGE = Path(__file__).parents[1] / "docs" / "speed.md"
PEAK = Path(__file__).with_name("peak.py")
PAUSE = 0.05
THREADS, BATCHES = (1, 2), (1, 8)
WITH_CAPTUM = ("alexnet_lrn", "resnet50", "mobilenet_v2")
GROWTH = {
    "batch": (1, 2, 4, 8, 16, 32),
    "depth": (4, 8, 16, 32, 64),
    "width": (16, 32, 64, 128),
    "classes": (10, 100, 1000, 10000),
    "targets": (1, 2, 5, 10),
}


class Files:
    """Networks and the models and explainers written of them, each once.

    Attributes
    ----------
    folder : where they lie

    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._last: tuple[str, torch.nn.Module] | None = None

    def module(self, name: str) -> torch.nn.Module:
        """Return the network in torch."""
        if self._last is None or self._last[0] != name:
            self._last = name, NETWORKS[name].build()
        return self._last[1]

    def model(self, name: str) -> Path:
        """Return the exported network."""
        path = self.folder / f"{name}.onnx"
        if not path.exists():
            export(NETWORKS[name], self.module(name), path)
        return path

    def explainer(self, name: str, composite: str) -> Path:
        """Return an explainer of it."""
        path = self.folder / f"{name}.{composite}.onnx"
        if not path.exists():
            convert(self.model(name), composite, path)
        return path


def session(path: Path, threads: int = 1) -> Any:
    """Open a model or an explainer as onnxlrp opens them."""
    return open_session(path, path.name, "cpu", threads)


def forward(path: Path, x: Array, threads: int = 1) -> Call:
    """Open a model, and return a call that runs it."""
    opened = session(path, threads)
    return lambda: opened.run(None, {"data": x})


def ours(path: Path, x: Array, threads: int = 1, targets: int = 1) -> Call:
    """Open an explainer, and return a call that explains the best class, or the first so many."""
    opened = session(path, threads)
    target = np.array([-1]) if targets == 1 else np.arange(targets)
    return lambda: opened.run(["relevance"], {"data": x, "target": target})


def timed(calls: dict[str, Call], most: int = 5) -> Record:
    """Let calls take turns; return the seconds of each, or what it refuses with.

    After one run to warm up they do so for 3 rounds, or `most` where a round takes below 5 s.
    """

    def seconds(call: Call) -> float:
        # Threads of the one before wait actively for a while, and would be in the way.
        time.sleep(PAUSE)
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    refused, first = {}, {}
    for name, call in calls.items():
        try:
            first[name] = seconds(call)
        # Whatever a peer raises over a network that it does not take; none of the others may.
        except Exception as error:
            if not name.startswith(("zennit", "LXT", "captum")):
                raise
            refused[name] = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
    # One that takes so long is not asked again: what a first run costs more is little of it.
    slow = {name for name, taken in first.items() if taken > 8}
    rounds = most if sum(first.values()) < 5 else 3
    taken: dict[str, list[float]] = {name: [first[name]] for name in slow}
    for _ in range(rounds):
        for name in first.keys() - slow:
            taken.setdefault(name, []).append(seconds(calls[name]))
    return {"seconds": {name: taken[name] for name in calls if name in taken}, "refused": refused}


def row(files: Files, name: str, batch: int, threads: int, composite: str) -> Record:
    """Time one composite on one network beside its peers."""
    torch.set_num_threads(threads)
    network, module = NETWORKS[name], files.module(name)
    x = network.inputs(batch)
    with ExitStack() as stack:
        calls = {
            "onnxruntime": forward(files.model(name), x.numpy(), threads),
            "torch": peers.forward(module, x),
            "ours": ours(files.explainer(name, composite), x.numpy(), threads),
        }
        if composite in peers.ZENNIT:
            calls["zennit"] = stack.enter_context(peers.zennit(module, x, composite))
        else:
            calls["LXT"] = peers.lxt(module, x, composite)
        if composite == network.main:
            calls["torch gradient x input"] = peers.backward(module, x)
            if batch == threads == 1 and name in WITH_CAPTUM:
                calls |= peers.captum(module, x)
        return timed(calls)


def opening(files: Files, name: str) -> Record:
    """Time one conversion by the main composite, and the start of sessions; sizes of both files."""
    composite = NETWORKS[name].main
    model, explainer = files.model(name), files.explainer(name, composite)
    start = time.perf_counter()
    convert(model, composite, explainer)
    taken = time.perf_counter() - start
    starts = timed({"model": lambda: session(model), "explainer": lambda: session(explainer)}, 3)
    return starts | {"convert": taken, "bytes": [f.stat().st_size for f in (model, explainer)]}


def peak(files: Files, name: str, batch: int, contestant: str) -> int:
    """Return the most memory that a process of its own takes for a network and one run, bytes."""
    inputs = files.folder / "inputs.npy"
    np.save(inputs, NETWORKS[name].inputs(batch).numpy())
    command = [sys.executable, str(PEAK), contestant, name, str(inputs)]
    if contestant == "onnxruntime":
        command.append(str(files.model(name)))
    elif contestant == "ours":
        command.append(str(files.explainer(name, NETWORKS[name].main)))
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def needed(files: Files, name: str) -> list[int]:
    """Return the bytes, for one sample, of the model's values that our nodes read, and of weights.

    A model is run with these values as outputs, so that shapes are what they are.
    """
    model = onnx.load(files.model(name))
    explainer = onnx.load(files.explainer(name, NETWORKS[name].main))
    own = {value for node in model.graph.node for value in node.output if value}
    read = {
        value
        for node in explainer.graph.node
        if not own.intersection(node.output)
        for value in node.input
        if value in own
    }
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=value) for value in sorted(read))
    run = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values = run.run(None, {"data": NETWORKS[name].inputs(1).numpy()})
    weights = sum(onnx.numpy_helper.to_array(t).nbytes for t in model.graph.initializer)
    return [sum(value.nbytes for value in values), weights]


def profile(files: Files, name: str) -> list[tuple[str, str, float]]:
    """Return operators by time: what it is, whose, its share; batch 1."""
    explainer, runs = files.explainer(name, NETWORKS[name].main), 4
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_mem_pattern = False
    options.enable_profiling = True
    options.profile_file_prefix = str(files.folder / "profile")
    opened = ort.InferenceSession(str(explainer), options, providers=["CPUExecutionProvider"])
    feeds = {"data": NETWORKS[name].inputs(1).numpy(), "target": np.array([-1])}
    for _ in range(runs):
        opened.run(["relevance"], feeds)
    events = json.loads(Path(opened.end_profiling()).read_text())
    taken: Counter[tuple[str, str]] = Counter()
    for event in events:
        node, _, kind = event["name"].rpartition("_kernel_")
        if kind == "time":
            operator = event["args"]["op_name"]
            whose = "ours" if node.startswith("onnxlrp/") else "the model's"
            # These onnxruntime puts between any two.
            whose = "either's" if operator.startswith("Reorder") else whose
            taken[operator, whose] += event["dur"]
    total = taken.total()
    return [(operator, whose, spent / total) for (operator, whose), spent in taken.most_common()]


def growth(files: Files, what: str, size: int) -> Record:
    """Time a plain chain of convolutions by `epsilon_plus_flat`, one of its sizes changed."""
    torch.set_num_threads(1)
    sizes = {what: size} if what in ("depth", "width", "classes") else {}
    network = plain(**sizes)
    x = network.inputs(size if what == "batch" else 1)
    model, explainer = files.folder / "plain.onnx", files.folder / "plain.explainer.onnx"
    module = network.build()
    export(network, module, model)
    convert(model, network.main, explainer)
    targets = size if what == "targets" else 1
    with peers.zennit(module, x, network.main) as zennit:
        calls = {
            "onnxruntime": forward(model, x.numpy()),
            "ours": ours(explainer, x.numpy(), targets=targets),
            "zennit": zennit,
        }
        return timed(calls)


def plan(files: Files) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield all that is measured: its key, and the measurement."""
    for name, network in NETWORKS.items():
        for batch in BATCHES:
            for threads in THREADS:
                every = batch == threads == 1
                for composite in network.composites if every else (network.main,):
                    key = f"time {name} {batch} {threads} {composite}"
                    yield key, lambda a=(name, batch, threads, composite): row(files, *a)
        yield f"opening {name}", lambda a=name: opening(files, a)
        yield f"needed {name}", lambda a=name: needed(files, a)
        peer = "zennit" if network.main in peers.ZENNIT else "LXT"
        wanted = [(8, "onnxruntime"), (1, "ours"), (8, "ours"), (16, "ours")]
        for batch, contestant in [*wanted, (8, "torch"), (8, peer)]:
            key = f"peak {name} {batch} {contestant}"
            yield key, lambda a=(name, batch, contestant): peak(files, *a)
        yield f"profile {name}", lambda a=name: profile(files, a)
    for what, values in GROWTH.items():
        for size in values:
            yield f"growth {what} {size}", lambda a=(what, size): growth(files, *a)


def write(files: Files, cache: Path | None, only: str | None) -> None:
    """Measure what the cache lacks, of all networks or one, and write the page of what is known."""
    known: Record = json.loads(cache.read_text()) if cache and cache.exists() else {}
    for key, measure in plan(files):
        if key not in known and only in (None, key.split()[1]):
            start = time.perf_counter()
            known[key] = measure()
            print(f"{time.perf_counter() - start:6.1f} s  {key}", flush=True)
            if cache:
                cache.write_text(json.dumps(known, indent=0))
    PAGE.write_text(speed_page.page({key: known[key] for key, _ in plan(files) if key in known}))


def main() -> None:
    """Measure and print, or write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="write docs/speed.md")
    parser.add_argument("--cache", type=Path, help="JSON of what was measured")
    parser.add_argument("--network", choices=NETWORKS)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--composite")
    options = parser.parse_args()
    # As our sessions do; some processors compute with denormal numbers many times slower.
    torch.set_flush_denormal(True)
    with tempfile.TemporaryDirectory() as folder:
        files = Files(Path(folder))
        if options.write:
            write(files, options.cache, options.network)
        elif options.network:
            composite = options.composite or NETWORKS[options.network].main
            measured = row(files, options.network, options.batch, options.threads, composite)
            key = f"time {options.network} {options.batch} {options.threads} {composite}"
            print(speed_page.times({key: measured}))
            for name, seconds in measured["seconds"].items():
                print(f"{name}: {statistics.median(seconds):.4f} s")
            for name, why in measured["refused"].items():
                print(f"{name} refuses: {why}")
        else:
            parser.error("say --write, or --network NAME")


if __name__ == "__main__":
    main()
