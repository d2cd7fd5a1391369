"""Measure what `onnxlrp explain` costs beside the bare session on the same pictures.

    python benchmarks/explain_overhead.py EXPLAINER FOLDER [--batch N] [--format A,B]

Prints milliseconds per picture of the session alone and of the whole command (without its start),
in one process, alternating, and the median of their ratios.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from onnxlrp.inputs.items import collect
from onnxlrp.inputs.targets import Targets
from onnxlrp.running.explainer import Explainer
from onnxlrp.running.results import Writer
from onnxlrp.running.stream import ahead, explain, pool, prepare


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("explainer", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--format", default="sheet,npy")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=32)
    arguments = parser.parse_args()

    explainer = Explainer(arguments.explainer)
    preprocessing, batch = explainer.preprocessing, arguments.batch
    items = collect([arguments.folder], 3)[: arguments.pictures]
    values = np.stack([prepare(item, explainer, preprocessing).values for item in items])

    def bare() -> float:
        start = time.perf_counter()
        for first in range(0, len(items), batch):
            explainer(values[first : first + batch])
        return (time.perf_counter() - start) / len(items) * 1e3

    def whole() -> float:
        formats = tuple(arguments.format.split(","))
        with tempfile.TemporaryDirectory() as folder, pool(2) as writers:
            writer = Writer(Path(folder), formats, preprocessing, None, best=1, logits=True)
            start = time.perf_counter()
            results = explain(explainer, items, Targets(), preprocessing, batch=batch)
            for _ in ahead(writers, writer, results, 2 * batch + 2):
                pass
            return (time.perf_counter() - start) / len(items) * 1e3

    bare()
    pairs = [(bare(), whole()) for _ in range(arguments.rounds)]
    for session, command in pairs:
        print(f"session {session:.1f} ms, explain {command:.1f} ms, ratio {command / session:.3f}")
    print(f"median ratio {statistics.median(c / s for s, c in pairs):.3f}")


if __name__ == "__main__":
    main()
