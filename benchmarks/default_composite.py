"""Look for a composite that deserves to be the default: choose, confirm, report.

    python benchmarks/default_composite.py PART --work DIR --network NAME=MODEL,PREPROCESS,DATA,N

PART is `choose`, `confirm` or `report`: the first, second or last third of N samples of DATA,
drawn once by chance: pictures, or sentences where PREPROCESS is empty. Candidates are
judged by regions, or tokens, and two replacements, with both orders. The measure is the symmetric
relevance gain (Bluecher et al. 2024): the area under the curve when the least relevant regions go
first, minus that when the most relevant do, in units of the clean score; for attention of its mean
over samples, for the logit of the better of two classes may be about 0.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from onnxlrp.cli.progress import progress
from onnxlrp.cli.samples import samples
from onnxlrp.compiler.composite import Composite
from onnxlrp.evaluation import Judge, ScoredModel, Study
from onnxlrp.evaluation.study import ROW, interval
from onnxlrp.inputs.presets import load_preprocessing
from onnxlrp.running.journal import Journal

PARTS = ("choose", "confirm", "report")
FLAT = "epsilon_plus_flat"
FIRST = f"{FLAT}; Conv first: flat"
CONVOLUTIONS = (
    FLAT,
    f"{FLAT}; bias=exclude",
    f"{FLAT}; bias=distribute",
    f"{FIRST}; Conv: z-plus bias=exclude",
    f"{FIRST}; Conv: alpha-beta alpha=1.25 beta=0.25; bias=exclude",
    f"{FIRST}; Conv: alpha-beta alpha=1.5 beta=0.5; bias=exclude",
    f"{FIRST}; Conv: gamma gamma=4; bias=exclude",
    f"{FIRST}; Conv: gamma gamma=1; bias=exclude",
    f"{FLAT}; Conv first: w-square",
    f"{FLAT}; Conv first: w-square; bias=exclude",
    f"{FLAT}; Gemm: z-plus; bias=exclude",
    f"{FLAT}; MaxPool: proportional; bias=exclude",
    f"{FLAT}; LRN: path-integral; bias=exclude",
    f"{FLAT}; LRN: identity; bias=exclude",
    "epsilon_plus",
    "epsilon_plus; bias=distribute",
    "epsilon_plus; Conv: gamma gamma=0.25",
    "epsilon_plus; Conv: gamma gamma=0.25; bias=distribute",
    "epsilon_plus; Conv: gamma gamma=1; bias=distribute",
    "epsilon_alpha2_beta1_flat",
    "epsilon_alpha2_beta1_flat; bias=exclude",
    "epsilon; epsilon=0.25",
    "deep_taylor",
    "excitation_backprop",
)
GAMMA = "Conv: gamma gamma=0.25; Gemm,MatMul: gamma gamma=0.05"
STEM = "Conv first: flat; Conv: z-plus bias=exclude"
ATTENTION = (
    "attn_lrp",
    "attn_lrp; bias=exclude",
    "attn_lrp; bias=distribute",
    "attn_lrp; LayerNormalization: taylor",
    f"attn_lrp; {GAMMA}",
    f"attn_lrp; {STEM}",
    "cp_lrp",
    "cp_lrp; bias=exclude",
    "cp_lrp; bias=distribute",
    "cp_lrp; LayerNormalization: taylor",
    "cp_lrp; LayerNormalization: epsilon bias=exclude",
    f"cp_lrp; {GAMMA}",
    "cp_lrp; Gemm,MatMul: gamma gamma=0.25",
    "cp_lrp; Gemm,MatMul: z-plus",
    f"cp_lrp; {STEM}",
    f"cp_lrp; {STEM}; Gemm,MatMul: gamma gamma=0.05",
    f"{FLAT}; Mixture: uniform",
    f"{FLAT}; Mixture: signal",
)
REFERRED = "deeplift; Conv first: flat"
SMALL = "Conv: gamma gamma=0.05"
REFERENCES = (
    "epsilon_plus_flat_exclude",
    "epsilon_plus_flat_exclude; Conv first: even",
    f"{FIRST}; {SMALL} bias=exclude",
    f"{FIRST}; Conv: gamma gamma=0.25 bias=distribute",
    "deeplift",
    REFERRED,
    *(f"{REFERRED}; Conv: gamma gamma={gamma}" for gamma in (0.01, 0.02, 0.05, 0.1, 0.25)),
    f"{REFERRED}; Conv,Gemm,MatMul: gamma gamma=0.05",
    f"{REFERRED}; {SMALL}; MaxPool: proportional",
    f"deeplift; Conv first: even; {SMALL}",
    f"deeplift; Conv first: w-square; {SMALL}",
    f"deeplift; Conv first: z-box low=preprocessing high=preprocessing; {SMALL}",
    f"deeplift; {SMALL}",
)
CANDIDATES = {"convolutions": CONVOLUTIONS, "attention": ATTENTION, "references": REFERENCES}


def main() -> None:
    """Judge and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--network", action="append", required=True)
    parser.add_argument("--candidate", action="append")
    parser.add_argument("--for", dest="kind", choices=CANDIDATES, default="convolutions")
    parser.add_argument("--region", type=int, default=4, help="of small pictures")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    names = tuple(given.candidate or CANDIDATES[given.kind])
    for text in given.network:
        network, rest = text.split("=", 1)
        model, how, data, count = rest.split(",")
        for replacement in ["mask"] if not how else ["uniform", "blur"]:
            study = judged(
                given.work / f"{given.part}-{network}-{replacement}.jsonl",
                Path(model),
                how,
                data,
                int(count),
                PARTS.index(given.part),
                replacement,
                names,
                given.region,
            )
            print(f"\n{network}, {replacement}, {given.part}, {len(study)} samples")
            show(study, given.kind == "attention")


def judged(
    path: Path,
    model: Path,
    how: str,
    data: str,
    count: int,
    part: int,
    replacement: str,
    names: tuple[str, ...],
    region: int,
) -> Study:
    """Judge all candidates on a third of the samples."""
    preprocessing = load_preprocessing(how) if how else None
    large = preprocessing is not None and max(preprocessing.crop or (0,)) > 64
    asked: dict[str, int] = {}
    if preprocessing is not None:
        asked = {"region": 16, "flips": 100, "every": 10} if large else {"region": region}
        if not large:
            asked["every"] = 64 // region**2
    scored = ScoredModel(model, preprocessing=preprocessing, threads=1)
    options = {"axis": -1, "tokenizer": None, "pad": None, "special": (), "column": None}
    given = samples(None, scored, (data,), replacement, asked, options)
    chosen = np.random.default_rng(0).permutation(len(given.names))[:count]
    third = np.array_split(chosen, 3)[part]
    judge = Judge(
        scored,
        {name: Composite.load(name) for name in names},
        given.flipping,
        given.medium,
        orders=("descending", "ascending"),
        batch=16 if large else 128,
    )
    settings = {
        "model": str(model),
        "candidates": names,
        "replacement": replacement,
        "count": count,
        "region": asked.get("region"),
    }
    with Journal(path, settings, ROW) as journal:
        done = {row["item"] for row in journal.records}
        rest = [number for number in third if given.names[number] not in done]
        with progress(len(third), "samples", len(done)) as advance:
            for number in rest:
                journal.append(judge(given.make(int(number), {}, None)))
                advance()
        return Study(list(journal.records), names)


def gain(study: Study, name: str, pooled: bool) -> np.ndarray:
    """Return the symmetric relevance gain of each sample, in units of its or the mean score."""
    scores = np.array([row["score"] for row in study.rows])
    apart = study.values(name, "AUC ascending") - study.values(name, "AUC descending")
    return apart / (scores.mean() if pooled else scores)


def show(study: Study, pooled: bool) -> None:
    """Print gain, its difference to the first candidate, and the share of the score."""
    first = study.methods[0]
    rows = []
    for name in study.methods:
        rows.append(
            {
                "candidate": name,
                "gain": interval(gain(study, name, pooled)),
                "minus first": interval(gain(study, name, pooled) - gain(study, first, pooled)),
                "share": float(np.median(study.values(name, "share of score"))),
            }
        )
    for row in sorted(rows, key=lambda row: -row["gain"].mean):
        print(
            f"{row['candidate']:72} {row['gain'].mean:7.4f}  {row['minus first']!s:32} "
            f"share {row['share']:.3g}"
        )
    print(json.dumps([row["candidate"] for row in sorted(rows, key=lambda r: -r["gain"].mean)][:3]))


if __name__ == "__main__":
    main()
