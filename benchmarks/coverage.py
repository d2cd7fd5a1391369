"""Which classifiers can be explained: architectures x exporters x what optimisers make of them.

    pip install torch torchvision timm transformers onnxslim onnxscript tensorflow tf2onnx \
        scikit-learn skl2onnx onnxmltools lightgbm xgboost catboost
    python benchmarks/coverage.py --journal coverage.jsonl --page docs/coverage.md

Every architecture of `architectures.py` is exported twice, those of the modules in `OTHERS` once,
and explained as exported, as onnxruntime optimised it, and slimmed. Each is tried in a process of
its own; the journal keeps what was found, and a run that was interrupted goes on. `--page` writes
the page from the journal.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import itertools
import json
import multiprocessing
import os
import re
import resource
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

TORCH = ("torchscript", "dynamo")
OTHERS = {
    "keras": ("tf2onnx", "keras_architectures"),
    "skl": ("skl2onnx", "table_architectures"),
    "boost": ("onnxmltools", "table_architectures"),
    "quant": ("onnxruntime", "quantised_architectures"),
    "script": ("torch.jit", "scripted_architectures"),
}
"""By library, what exports its networks, and the module that does."""

EXPORTERS = (*TORCH, *(exporter for exporter, _ in OTHERS.values()))
VARIANTS = ("exported", "optimised", "slimmed")
_LIBRARIES = (
    *("timm", "torchvision", "transformers", "onnxruntime", "onnxslim"),
    *("onnxlrp.compiler.conversion", "onnxlrp.audit"),
)
_MEMORY = 8 << 30
_LARGE = 100 << 20

Outcome = dict[str, Any]


def exporters(name: str) -> tuple[str, ...]:
    """Return the exporters of an architecture's library."""
    library = name.split("/")[0]
    return (OTHERS[library][0],) if library in OTHERS else TORCH


def export(name: str, exporter: str, path: Path) -> dict[str, Any]:
    """Write a network as ONNX; return its inputs as arrays."""
    library = name.split("/")[0]
    if library in OTHERS:
        made: dict[str, Any] = importlib.import_module(OTHERS[library][1]).export(name, path)
        return made
    import torch
    from architectures import Score, build

    torch.set_num_threads(1)
    network = build(name)
    values, names = tuple(network.inputs.values()), list(network.inputs)
    named = {axis: f"axis{axis}" for axis in network.free}
    variadic = isinstance(network.module, Score)
    if exporter == "dynamo":
        sizes = dict.fromkeys((0, *network.free), torch.export.Dim.DYNAMIC)
        shapes = tuple(sizes for _ in values)
        torch.onnx.export(
            network.module, values, str(path), dynamo=True, input_names=names,
            output_names=["logits"], dynamic_shapes=(shapes,) if variadic else shapes,
            opset_version=18, external_data=False, verbose=False,
        )  # fmt: skip
    else:
        axes = {name: {0: "N", **named} for name in names} | {"logits": {0: "N"}}
        torch.onnx.export(
            network.module, values, str(path), dynamo=False, input_names=names,
            output_names=["logits"], dynamic_axes=axes, opset_version=17,
        )  # fmt: skip
    return {name: value.numpy() for name, value in network.inputs.items()}


def variant(kind: str, path: Path, folder: Path) -> Path:
    """Write what an optimiser makes of a model."""
    result = folder / f"{kind}.onnx"
    if kind == "exported":
        return path
    if kind == "slimmed":
        import onnxslim

        onnxslim.slim(str(path), str(result))
        return result
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(result)
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return result


def fingerprint(path: Path) -> str:
    """Return what two models have in common that are node for node the same."""
    import onnx

    graph = onnx.load(path).graph
    known = {
        tensor.name: hashlib.sha256(onnx.numpy_helper.to_array(tensor).tobytes()).hexdigest()
        for tensor in graph.initializer
    }
    found = hashlib.sha256()
    for node in graph.node:
        attributes = sorted(a.SerializeToString(deterministic=True) for a in node.attribute)
        inputs = [known.get(name, name) for name in node.input]
        known |= {name: f"{len(known)} {i}" for i, name in enumerate(node.output)}
        found.update(repr((node.domain, node.op_type, inputs, attributes)).encode())
    return found.hexdigest()


def explain(path: Path, feeds: dict[str, Any], folder: Path, layers: str) -> Outcome:
    """Convert, run and audit a model that runs."""
    import onnxlrp
    from onnxlrp.audit import check

    start = time.perf_counter()
    explainer = folder / "explainer.onnx"
    try:
        conversion = onnxlrp.convert(str(path))
    except onnxlrp.UnsupportedError as error:
        found = sorted({f"{o.operator}: {o.reason}" for o in error.obstacles})
        return {"status": "refused", "why": found}
    except onnxlrp.OnnxlrpError as error:
        return {"status": "refused", "why": [f"{type(error).__name__}: {error}"]}
    conversion.save(explainer)
    spent = time.perf_counter() - start
    audit = check(str(path), str(explainer), feeds, layers=layers)
    leaking = max((n for n in audit.layers if n.judged), key=lambda n: n.leak, default=None)
    leak = 0.0 if leaking is None else leaking.leak
    changed = max(audit.outputs.values(), default=0.0)
    result = {
        "seconds": round(spent, 2),
        "nodes": len(conversion.model.graph),
        "share": audit.heatmap / audit.score if audit.score else 0.0,
        "leak": leak,
        "changed": changed,
        "noise": audit.noise,
    }
    if any(entry.nan or entry.infinite for entry in audit.special):
        return result | {"status": "not finite", "why": []}
    if not changed <= audit.allowed_change:
        return result | {"status": "outputs changed", "why": []}
    if leaking is not None and leaking.leaks:
        where = f"{leaking.operations[0].operator} by {leaking.rules}"
        return result | {"status": "leaks", "why": [f"{leak:.0e} of sum |R|: {where}"]}
    wrong = [
        f"{n.operations[0].operator} by {n.rules}: {n.difference:.0e} of max |R|, where float32's "
        f"rounding moves it by {n.noise:.0e}"
        for n in audit.layers
        if n.differs
    ]
    if wrong:
        return result | {"status": "differs from the definition", "why": wrong}
    return result | {"status": "explained", "why": []}


def outcome(kind: str, status: str, why: list[str]) -> Outcome:
    """Return what is noted of a variant."""
    return {"variant": kind, "status": status, "why": why}


def attempt(name: str, exporter: str) -> Iterator[Outcome]:
    """Try one export in all variants."""
    import onnxruntime as ort

    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path = folder / "model.onnx"
        try:
            feeds = export(name, exporter, path)
        except Exception as error:
            yield outcome(VARIANTS[0], "no export", [_first(error)])
            return
        known: dict[str, Outcome] = {}
        for kind in VARIANTS:
            try:
                tried = variant(kind, path, folder)
                mark = fingerprint(tried)
                if mark in known:
                    yield {**known[mark], "variant": kind}
                    continue
                session = ort.InferenceSession(str(tried), providers=["CPUExecutionProvider"])
                given = {e.name: feeds[e.name][:1] for e in session.get_inputs()}
                session.run(None, given)
                del session
            except Exception as error:
                yield outcome(kind, "does not run", [_first(error)])
                continue
            # Each layer is recomputed once: the variants differ in how layers are written.
            plain = kind == VARIANTS[0] and tried.stat().st_size < _LARGE
            layers = "" if plain else "none"
            try:
                known[mark] = {"variant": kind, **explain(tried, given, folder, layers)}
            except Exception as error:
                text = f"{type(error).__name__}: {_first(error)}"
                known[mark] = outcome(kind, "crash", [text])
            yield known[mark]


def _first(error: Exception) -> str:
    """Return the first line of what an exception says."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0].strip()[:300]


def names(pattern: str) -> list[str]:
    """Names of the architectures that a pattern is in."""
    from architectures import FAMILIES

    every = [f"{library}/{name}" for library, family in FAMILIES.items() for name in family.names]
    for module in dict.fromkeys(module for _, module in OTHERS.values()):
        every += importlib.import_module(module).NAMES
    return [name for name in every if pattern in name]


def run(journal: Path, pattern: str, again: set[str], limit: int) -> None:
    """Try what the journal does not hold, or holds with a status that is tried again."""
    found = read(journal)
    # Exporters load and register more than many a trial needs time, so processes are forked off
    # one in which they have run.
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        for exporter in exporters("net/mlp"):
            export("net/mlp", exporter, Path(folder) / "model.onnx")
    for module in _LIBRARIES:
        importlib.import_module(module)
    for exporter, name in itertools.product(EXPORTERS, names(pattern)):
        if exporter not in exporters(name):
            continue
        known = [found.get((name, exporter, kind)) for kind in VARIANTS]
        ended = [entry for entry in known if entry is not None]
        if ended and not any(entry["status"] in again for entry in ended):
            continue
        noted = len(entries(journal))
        trial = context.Process(target=write, args=(name, exporter, journal))
        trial.start()
        trial.join(limit)
        why = f"more than {limit} s" if trial.is_alive() else f"exit status {trial.exitcode}"
        trial.kill()
        trial.join()
        if trial.exitcode:
            new = [
                e
                for e in entries(journal)[noted:]
                if (e["name"], e["exporter"]) == (name, exporter)
            ]
            done = {entry["variant"] for entry in new}
            for kind in VARIANTS:
                if kind not in done:
                    note(journal, name, exporter, outcome(kind, "not finished", [why]))


def write(name: str, exporter: str, journal: Path) -> None:
    """Try one export in all variants, and note what is found."""
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    for found in attempt(name, exporter):
        note(journal, name, exporter, found)


def note(journal: Path, name: str, exporter: str, found: Outcome) -> None:
    """Add an outcome to the journal."""
    with journal.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"name": name, "exporter": exporter, **found}) + "\n")


def entries(journal: Path) -> list[Outcome]:
    """Return all that a journal holds, in the order of time."""
    if not journal.exists():
        return []
    return [json.loads(line) for line in journal.read_text("utf-8").splitlines()]


def read(journal: Path) -> dict[tuple[str, str, str], Outcome]:
    """Return the last outcome of each trial."""
    return {(e["name"], e["exporter"], e["variant"]): e for e in entries(journal)}


def page(journal: Path) -> str:
    """Return what the journal holds as a page."""
    found = read(journal)
    runs = {key: e for key, e in found.items() if e["status"] not in _NO_MODEL}
    good = {key for key, e in runs.items() if e["status"] == "explained"}
    tried = sorted({name for name, *_ in found})
    left = sorted({name for name in names("") if name not in tried})
    lines = [
        _HEAD,
        f"{len(tried)} architectures were tried, {len(left)} were not{_listed(left)}; of the "
        f"{sum(len(exporters(n)) for n in tried + left)} exports {len({k[:2] for k in found})}. Of "
        f"{len(runs)} models that export and run in onnxruntime "
        f"**{len(good)} are explained, {len(good) / max(len(runs), 1):.1%}**.",
        "",
        *_table(["library", "exporter", *VARIANTS], _totals(tried, set(runs), good)),
        "## What is not explained",
        "",
        *_table(["why", "where"], _reasons({k: e for k, e in runs.items() if k not in good})),
        "## What does not export, or does not run in onnxruntime",
        "",
        *_table(["why", "where"], _reasons({k: e for k, e in found.items() if k not in runs})),
        "## Each",
        "",
        "Of the variants by each exporter, how many are explained. Share of the score that reaches",
        "the input, nodes of the explainer, and the largest leak of a layer as a part of its",
        "sum of |R|: of the first that is.",
        "",
        *_table(
            ["architecture", *EXPORTERS, "share", "nodes", "leak"],
            (_each(name, found) for name in tried),
        ),
    ]
    return "\n".join(lines[:-1]) + "\n"


_NO_MODEL = ("no export", "does not run")
_HEAD = """\
# Which classifiers can be explained

Written by

<!-- not run: hours -->

```bash
python benchmarks/coverage.py --page docs/coverage.md
```

which takes hours; interrupted, it goes on where it stopped. Architectures of
[timm](https://github.com/huggingface/pytorch-image-models) (`timm/`), torchvision (`tv/`),
transformers (`hf/`) and Keras (`keras/`), single layers in a small network (`net/`), and recurrent
networks (`rnn/`): random weights, BatchNorm statistics of random inputs, no branch multiplied by 0.
Pictures are as small as the architecture takes, from 96 x 96 on; of blocks in a row that are alike
two are kept, except in Keras; transformers' networks have two of width 32. Each is exported by
torch's two exporters (TorchScript to opset 17, dynamo to 18), or by Keras, which calls tf2onnx,
with a symbolic batch. Some are in another precision (`quant/`), by onnxruntime's quantisers. Tables
are classified by scikit-learn (`skl/`) and boosted trees (`boost/`), trained on data that it
brings. Loops, branches and lists are kept by torch.jit.script (`script/`). All are tried as
exported, as onnxruntime's extended optimisation leaves them, and slimmed by onnxslim.

*Explained* means: the default composite converts it; the model's outputs are unchanged; all
relevance is finite; `onnxlrp check` accounts for it layer by layer; and, of the plain export,
where that is below 100 MB, each layer's is that of the definition in float64.
"""


def _listed(found: list[str]) -> str:
    return f" ({', '.join(found)})" if found else ""


def _table(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines] + [""]


Key = tuple[str, str, str]


def _totals(tried: list[str], runs: set[Key], good: set[Key]) -> Iterator[list[str]]:
    for library in dict.fromkeys(name.split("/")[0] for name in tried):
        for exporter in exporters(f"{library}/"):
            row = [library, exporter]
            for kind in VARIANTS:
                keys = {k for k in runs if k[0].startswith(library + "/")}
                keys = {k for k in keys if k[1:] == (exporter, kind)}
                row.append(f"{len(keys & good)} of {len(keys)}")
            yield row


def _reasons(failed: Mapping[Key, Outcome]) -> list[list[str]]:
    """Return each reason with the models that it stops, the most frequent first."""
    where: dict[str, list[str]] = defaultdict(list)
    for (name, exporter, kind), entry in sorted(failed.items()):
        for why in {_without_names(why) for why in entry["why"] or [""]}:
            shown = re.sub("\x1b[^m]*m", "", f"{entry['status']}: {why}")
            text = " ".join(shown.replace("|", "/").split())
            where[text[:200].strip(": ")].append(f"{name} ({exporter}, {kind})")
    return [[why, ", ".join(w)] for why, w in sorted(where.items(), key=lambda i: -len(i[1]))]


def _without_names(why: str) -> str:
    """Leave out what says nothing beyond one model: names of its own values, and its file's."""
    return re.sub(r"/tmp/\S+", "...", re.sub("'[^']*'", "'...'", why))


def _each(name: str, found: Mapping[Key, Outcome]) -> list[str]:
    cells = [name]
    for exporter in EXPORTERS:
        if exporter not in exporters(name):
            cells.append("")
            continue
        own = [e for key, e in found.items() if key[:2] == (name, exporter)]
        count = sum(e["status"] == "explained" for e in own)
        cells.append(f"{count} of {sum(e['status'] not in _NO_MODEL for e in own)}")
    explained = (e for k, e in found.items() if k[0] == name and e["status"] == "explained")
    first = next(explained, None)
    if first is None:
        return [*cells, "", "", ""]
    return [*cells, f"{first['share']:.3g}", str(first["nodes"]), f"{first['leak']:.0e}"]


def main() -> None:
    """Try, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--journal", type=Path, default=Path("coverage.jsonl"))
    parser.add_argument("--only", default="", metavar="TEXT", help="names that this is in")
    parser.add_argument("--again", default="", metavar="STATUS,...", help="tried once more")
    parser.add_argument("--limit", type=int, default=900, help="seconds for one export")
    parser.add_argument("--page", type=Path, help="written from the journal afterwards")
    parser.add_argument("--page-only", action="store_true", help="nothing is tried")
    parser.add_argument("--list", action="store_true", help="names only")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        for found in attempt(*arguments.one):
            print(json.dumps(found), flush=True)
        return
    if arguments.list:
        print("\n".join(names(arguments.only)))
        return
    if not arguments.page_only:
        run(arguments.journal, arguments.only, set(arguments.again.split(",")), arguments.limit)
    if arguments.page:
        arguments.page.write_text(page(arguments.journal), "utf-8")


if __name__ == "__main__":
    main()
