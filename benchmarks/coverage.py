"""Which classifiers can be explained: architectures x exporters x what optimisers make of them.

    pip install torch torchvision timm transformers onnxslim onnxscript
    python benchmarks/coverage.py --journal coverage.jsonl --page docs/coverage.md

Every architecture of `architectures.py` is exported twice, and explained as exported, as
onnxruntime optimised it, and slimmed. Each is tried in a process of its own; the journal keeps
what was found, and a run that was interrupted goes on. `--page` writes the page from the journal.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EXPORTERS = ("torchscript", "dynamo")
VARIANTS = ("exported", "optimised", "slimmed")
_MEMORY = 8 << 30
_LEAK = 1e-3

Outcome = dict[str, Any]


def export(name: str, exporter: str, path: Path) -> dict[str, Any]:
    """Write a network as ONNX; return its inputs as arrays."""
    import torch
    from architectures import Score, build

    torch.set_num_threads(1)
    made = build(name)
    values, names = tuple(made.inputs.values()), list(made.inputs)
    named = {axis: f"axis{axis}" for axis in made.free}
    if exporter == "dynamo":
        sizes = dict.fromkeys((0, *made.free), torch.export.Dim.DYNAMIC)
        shapes = tuple(sizes for _ in values)
        torch.onnx.export(
            made.module, values, str(path), dynamo=True, input_names=names,
            output_names=["logits"], dynamic_shapes=(shapes,) if isinstance(made.module, Score) else shapes,
            opset_version=18, external_data=False, verbose=False,
        )  # fmt: skip
    else:
        axes = {name: {0: "N", **named} for name in names} | {"logits": {0: "N"}}
        torch.onnx.export(
            made.module, values, str(path), dynamo=False, input_names=names,
            output_names=["logits"], dynamic_axes=axes, opset_version=17,
        )  # fmt: skip
    return {name: value.numpy() for name, value in made.inputs.items()}


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


def explain(path: Path, feeds: dict[str, Any], folder: Path) -> Outcome:
    """Convert, run and audit a model that runs."""
    import numpy as np
    import onnxruntime as ort

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
    session = ort.InferenceSession(str(explainer), providers=["CPUExecutionProvider"])
    wanted = [n.name for n in session.get_outputs() if n.name.startswith("relevance")]
    maps = session.run(wanted, {**feeds, "target": np.array([-1])})
    if not all(np.isfinite(m).all() for m in maps):
        return {"status": "not finite", "why": []}
    single = {name: value[:1] for name, value in feeds.items()}
    audit = check(str(path), str(explainer), single)
    leak = max((abs(n.unexplained) / max(n.size, 1e-30) for n in audit.layers), default=0.0)
    changed = max(audit.outputs.values(), default=0.0)
    result = {
        "seconds": round(spent, 2),
        "nodes": len(conversion.model.graph),
        "share": audit.heatmap / audit.score if audit.score else 0.0,
        "leak": leak,
        "changed": changed,
        "noise": audit.noise,
    }
    if changed > max(1e-5, 10 * audit.noise):
        return result | {"status": "outputs changed", "why": []}
    skipped = {o.operator for n in audit.layers for o in n.operations if o.skipped}
    if leak > _LEAK and not skipped:
        return result | {"status": "leaks", "why": [f"{leak:.1e} of sum |R|"]}
    return result | {"status": "explained", "why": []}


def attempt(name: str, exporter: str) -> Iterator[Outcome]:
    """Try one export in all variants."""
    import numpy as np
    import onnxruntime as ort

    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path = folder / "model.onnx"
        try:
            feeds = export(name, exporter, path)
        except Exception as error:
            text = str(error).strip().splitlines() or [type(error).__name__]
            yield {"variant": "exported", "status": "no export", "why": [text[0][:200]]}
            return
        for kind in VARIANTS:
            try:
                tried = variant(kind, path, folder)
                session = ort.InferenceSession(str(tried), providers=["CPUExecutionProvider"])
                reads = {entry.name for entry in session.get_inputs()}
                given = {k: np.asarray(v) for k, v in feeds.items() if k in reads}
                session.run(None, given)
                del session
            except Exception as error:
                yield {"variant": kind, "status": "does not run", "why": [str(error)[:200]]}
                continue
            try:
                yield {"variant": kind, **explain(tried, given, folder)}
            except Exception as error:
                yield {
                    "variant": kind, "status": "crash",
                    "why": [f"{type(error).__name__}: {str(error)[:300]}"],
                }  # fmt: skip


def names(pattern: str) -> list[str]:
    """Names of the architectures that a pattern is in."""
    from architectures import FAMILIES

    every = [f"{library}/{name}" for library, family in FAMILIES.items() for name in family.names]
    return [name for name in every if pattern in name]


def run(journal: Path, pattern: str, again: set[str], limit: int) -> None:
    """Try what the journal does not hold, or holds with a status that is tried again."""
    found = read(journal)
    for name in names(pattern):
        for exporter in EXPORTERS:
            known = [found.get((name, exporter, kind)) for kind in VARIANTS]
            ended = [entry for entry in known if entry is not None]
            if ended and not any(entry["status"] in again for entry in ended):
                continue
            command = [sys.executable, __file__, "--one", name, exporter]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
                lines = [t for t in done.stdout.splitlines() if t.startswith('{"variant"')]
                failed = "" if lines else (done.stderr.strip().splitlines() or ["killed"])[-1]
            except subprocess.TimeoutExpired:
                lines, failed = [], f"more than {limit} s"
            outcomes = [json.loads(line) for line in lines] or [
                {"variant": "exported", "status": "crash", "why": [failed[:300]]}
            ]
            with journal.open("a", encoding="utf-8") as file:
                for outcome in outcomes:
                    entry = {"name": name, "exporter": exporter, **outcome}
                    file.write(json.dumps(entry) + "\n")
                    print(name, exporter, outcome["variant"], outcome["status"],
                          "; ".join(outcome["why"])[:160], flush=True)  # fmt: skip


def read(journal: Path) -> dict[tuple[str, str, str], Outcome]:
    """Return the last outcome of each trial."""
    if not journal.exists():
        return {}
    entries = map(json.loads, journal.read_text("utf-8").splitlines())
    return {(e["name"], e["exporter"], e["variant"]): e for e in entries}


def page(journal: Path) -> str:
    """Return what the journal holds as a page."""
    found = read(journal)
    runs = {k: e for k, e in found.items() if e["status"] not in ("no export", "does not run")}
    good = {k for k, e in runs.items() if e["status"] == "explained"}
    tried = {name for name, *_ in found}
    lines = [
        "# Which classifiers can be explained", "",
        "Written by `benchmarks/coverage.py`: random weights, two exporters (opset 17 and 18), as",
        "exported, as onnxruntime's extended optimisation leaves them, and slimmed by onnxslim.",
        "*Explained* means: converts by the default composite, the model's outputs unchanged, every",
        "map finite, and relevance accounted for layer by layer by the audit.", "",
        f"{len(tried)} architectures, {len(runs)} models that export and run in onnxruntime: "
        f"**{len(good)} explained, {len(good) / max(len(runs), 1):.1%}**.", "",
        "| library | exporter | " + " | ".join(VARIANTS) + " |", "|---|---|" + "---|" * len(VARIANTS),
    ]  # fmt: skip
    for library in dict.fromkeys(name.split("/")[0] for name in sorted(tried)):
        for exporter in EXPORTERS:
            cells = []
            for kind in VARIANTS:
                keys = [
                    k for k in runs if k[0].startswith(library + "/") and k[1:] == (exporter, kind)
                ]
                cells.append(f"{sum(k in good for k in keys)} of {len(keys)}")
            lines.append(f"| {library} | {exporter} | " + " | ".join(cells) + " |")
    reasons: dict[str, list[str]] = defaultdict(list)
    for key, entry in sorted(runs.items()):
        if key not in good:
            for why in entry["why"] or [""]:
                reasons[f"{entry['status']}: {_plain(why)}"].append(" ".join(key))
    lines += ["", "## What is not", "", "| why | where |", "|---|---|"]
    lines += [
        f"| {why} | {', '.join(where[:4])}{f' and {len(where) - 4} more' if len(where) > 4 else ''} |"
        for why, where in sorted(reasons.items(), key=lambda item: -len(item[1]))
    ]
    lines += ["", "## What does not export, or does not run", "", "| why | where |", "|---|---|"]
    counted: dict[str, list[str]] = defaultdict(list)
    for key, entry in sorted(found.items()):
        if key not in runs:
            counted[f"{entry['status']}: {_plain(entry['why'][0])}"].append(" ".join(key))
    lines += [f"| {why} | {', '.join(where)} |" for why, where in counted.items()]
    lines += [
        "", "## Each", "",
        "Share of the score that reaches the input, nodes of the explainer, largest leak of a layer as a",
        "part of its sum of |R|; of the plain export by each exporter, or of the first that there is.", "",
        "| architecture | torchscript | dynamo | share | nodes | leak |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name in sorted(tried):
        cells = []
        for exporter in EXPORTERS:
            marks = Counter(found[k]["status"] for k in found if k[:2] == (name, exporter))
            cells.append(", ".join(f"{n} {status}" for status, n in marks.items()))
        first = next((found[k] for k in found if k[0] == name and "share" in found[k]), None)
        numbers = (
            [f"{first['share']:.3g}", str(first["nodes"]), f"{first['leak']:.0e}"]
            if first
            else [""] * 3
        )
        lines.append(f"| {name} | " + " | ".join(cells + numbers) + " |")
    return "\n".join(lines) + "\n"


def _plain(why: str) -> str:
    return " ".join(why.replace("|", "/").split())[:160]


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
    sys.path.insert(0, str(Path(__file__).parent))
    if arguments.one:
        resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
        for outcome in attempt(*arguments.one):
            print(json.dumps(outcome), flush=True)
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
