"""Look for a composite that deserves to be the default: choose, confirm, report.

    python benchmarks/default_composite.py PART --work DIR --network NAME=MODEL,PREPROCESS,DATA,N

PART is `choose`, `confirm` or `report`: the first, second or last third of N pictures of DATA,
drawn once by chance. Candidates are judged by regions and two replacements, with both orders. The
measure is the symmetric relevance gain (Bluecher et al. 2024): the area under the curve when the
least relevant regions go first, minus that when the most relevant do, in units of the clean score.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from onnxlrp.cli.progress import progress
from onnxlrp.compiler.composite import Composite
from onnxlrp.evaluation import Flipping, Judge, Pictures, Sample, ScoredModel, Study
from onnxlrp.evaluation.study import ROW, interval
from onnxlrp.inputs.items import collect
from onnxlrp.inputs.presets import load_preprocessing
from onnxlrp.running.journal import Journal

PARTS = ("choose", "confirm", "report")
FLAT = "epsilon_plus_flat"
FIRST = f"{FLAT}; Conv first: flat"
CANDIDATES = (
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


def main() -> None:
    """Judge and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--network", action="append", required=True)
    parser.add_argument("--candidate", action="append")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    names = tuple(given.candidate or CANDIDATES)
    for text in given.network:
        network, rest = text.split("=", 1)
        model, how, data, count = rest.split(",")
        for replacement in ("uniform", "blur"):
            study = judged(
                given.work / f"{given.part}-{network}-{replacement}.jsonl",
                Path(model),
                how,
                data,
                int(count),
                PARTS.index(given.part),
                replacement,
                names,
            )
            print(f"\n{network}, {replacement}, {given.part}, {len(study)} pictures")
            show(study)


def judged(
    path: Path,
    model: Path,
    how: str,
    data: str,
    count: int,
    part: int,
    replacement: str,
    names: tuple[str, ...],
) -> Study:
    """Judge all candidates on a third of the pictures."""
    preprocessing = load_preprocessing(how)
    items = collect([data], 3)
    chosen = np.random.default_rng(0).permutation(len(items))[:count]
    third = np.array_split(chosen, 3)[part]
    large = max(preprocessing.crop or (0,)) > 64
    flipping = Flipping(
        flips=100 if large else None,
        region=16 if large else 4,
        every=10 if large else 4,
    )
    scored = ScoredModel(model, preprocessing=preprocessing)
    judge = Judge(
        scored,
        {name: Composite.load(name) for name in names},
        flipping,
        Pictures(scored.explained[0], preprocessing, replacement),
        orders=("descending", "ascending"),
        batch=16 if large else 128,
    )
    settings = {
        "model": str(model),
        "candidates": names,
        "replacement": replacement,
        "count": count,
    }
    with Journal(path, settings, ROW) as journal:
        done = {row["item"] for row in journal.records}
        rest = [number for number in third if items[number].name not in done]
        with progress(len(third), "pictures", len(done)) as advance:
            for number in rest:
                pixels = preprocessing.pixels(items[number].picture())
                journal.append(
                    judge(Sample(items[number].name, int(number), {"pixels": pixels}, {}))
                )
                advance()
        return Study(list(journal.records), names)


def gain(study: Study, name: str) -> np.ndarray:
    """Return the symmetric relevance gain of each picture, in units of its clean score."""
    scores = np.array([row["score"] for row in study.rows])
    apart = study.values(name, "AUC ascending") - study.values(name, "AUC descending")
    return apart / scores


def show(study: Study) -> None:
    """Print gain, its difference to the first candidate, and the share of the score."""
    first = study.methods[0]
    rows = []
    for name in study.methods:
        rows.append(
            {
                "candidate": name,
                "gain": interval(gain(study, name)),
                "minus first": interval(gain(study, name) - gain(study, first)),
                "share": float(np.median(study.values(name, "share of score"))),
            }
        )
    for row in sorted(rows, key=lambda row: -row["gain"].mean):
        print(
            f"{row['candidate']:64} {row['gain'].mean:7.4f}  {row['minus first']!s:32} "
            f"share {row['share']:.3g}"
        )
    print(json.dumps([row["candidate"] for row in sorted(rows, key=lambda r: -r["gain"].mean)][:3]))


if __name__ == "__main__":
    main()
