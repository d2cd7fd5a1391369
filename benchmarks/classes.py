"""What several classes cost in one run, as a part of a run for each.

Of one sample and K classes, all that relevance is not made of is computed once. Read the ratios.

    python benchmarks/classes.py MODEL... [--composite NAME] [--classes 1,3,5,10] [--threads 1]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import onnxlrp


def seconds(work: Callable[[], object]) -> float:
    """Time one piece of work."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print a row for each model and number of classes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--composite", default="epsilon_plus")
    parser.add_argument("--classes", default="1,3,5,10")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=4)
    arguments = parser.parse_args()

    print(
        "| model | classes | ms, one run | ms, a run each | ratio | ms, runs of a batch | ratio |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|")
    for path in arguments.models:
        proto = onnxlrp.convert(path, arguments.composite).to_proto()
        run = onnxlrp.Explainer(proto.SerializeToString(), threads=arguments.threads)
        (expected,) = run.inputs.values()
        shape = [size if isinstance(size, int) else 64 for size in expected.shape[1:]]
        batch = np.random.default_rng(0).normal(size=(arguments.batch, *shape))
        for count in map(int, arguments.classes.split(",")):
            ways = _ways(run, batch.astype(expected.dtype), list(range(count)))
            for way in ways:
                way()
            rounds = [[seconds(way) for way in ways] for _ in range(arguments.rounds)]
            # A batch of samples takes its time for as many.
            rounds = [[one, each, many / len(batch)] for one, each, many in rounds]
            one, each, many = 1e3 * np.median(rounds, axis=0)
            ratios = [statistics.median(r[0] / r[way] for r in rounds) for way in (1, 2)]
            print(
                f"| {path.stem} | {count} | {one:.1f} | {each:.1f} | {ratios[0]:.2f} | "
                f"{many:.1f} | {ratios[1]:.2f} |"
            )


def _ways(
    run: onnxlrp.Explainer, batch: np.ndarray[Any, Any], classes: list[int]
) -> list[Callable[[], object]]:
    """Explain one sample in one run and in a run for each class, and a batch in such runs."""
    return [
        lambda: run(batch[:1], target=classes),
        lambda: [run(batch[:1], target=number) for number in classes],
        lambda: [run(batch, target=number) for number in classes],
    ]


if __name__ == "__main__":
    main()
