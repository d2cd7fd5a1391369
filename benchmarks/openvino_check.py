"""Compare explainers in OpenVINO's CPU plugin with onnxruntime's, on random inputs.

    python benchmarks/openvino_check.py EXPLAINER... [--batch 2] [--gate 1e-4]

Needs openvino, onnxruntime and numpy; onnxlrp need not be installed. Prints of every explainer
max |difference| / max |relevance|, and how far onnxruntime's own answers lie apart when it leaves
the graph as it is, or when each input moves by its last bit: some rules on some networks magnify
rounding to more than any gate. Leaves with status 1 if an explainer does not run, or lies above the
gate and above four times that.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import openvino

Array = np.ndarray[Any, Any]
Feeds = dict[str, Array]


def draw(session: ort.InferenceSession, batch: int) -> Feeds:
    """Draw inputs, every open size `batch`: normal numbers, tokens 0 and 1; the best class."""
    random = np.random.default_rng(0)
    feeds: Feeds = {}
    for given in session.get_inputs():
        shape = [size if isinstance(size, int) else batch for size in given.shape]
        if given.name == "target":
            feeds[given.name] = np.array([-1])
        elif given.type == "tensor(float)":
            feeds[given.name] = random.normal(size=shape).astype(np.float32)
        else:
            feeds[given.name] = random.integers(0, 2, shape)
    return feeds


def moved(feeds: Feeds, seed: int) -> Feeds:
    """Move every number to one of its neighbours in float32."""
    random = np.random.default_rng(seed)
    return {
        name: np.nextafter(value, random.choice(np.float32([-np.inf, np.inf]), value.shape))
        if value.dtype == np.float32
        else value
        for name, value in feeds.items()
    }


def onnxruntime(path: Path, optimise: bool) -> ort.InferenceSession:
    """Open an explainer in onnxruntime."""
    options = ort.SessionOptions()
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def by_openvino(core: openvino.Core, path: Path, feeds: Feeds) -> Array:
    """Return relevance, computed in float32."""
    compiled = core.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.asarray(compiled(feeds)[compiled.output("relevance")])


def distance(actual: Array, wanted: Array) -> float:
    """Largest difference as a part of the largest relevance; inf if either is not finite."""
    if actual.shape != wanted.shape or not np.isfinite([actual, wanted]).all():
        return float("inf")
    return float(np.abs(actual - wanted).max() / np.abs(wanted).max())


def compare(core: openvino.Core, path: Path, batch: int) -> tuple[float, float, str]:
    """Return the distance, that of onnxruntime to itself, and why it does not run."""
    session = onnxruntime(path, optimise=True)
    feeds = draw(session, batch)
    (wanted,) = session.run(["relevance"], feeds)
    others = [onnxruntime(path, optimise=False).run(["relevance"], feeds)[0]]
    others += [session.run(["relevance"], moved(feeds, seed))[0] for seed in range(3)]
    own = max(distance(other, wanted) for other in others)
    try:
        return distance(by_openvino(core, path, feeds), wanted), own, ""
    # All that OpenVINO raises, whatever its cause.
    except RuntimeError as error:
        return float("inf"), own, " ".join(str(error).split())[-300:]


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("explainers", type=Path, nargs="+")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--gate", type=float, default=1e-4)
    options = parser.parse_args()
    print(f"OpenVINO {openvino.__version__}, onnxruntime {ort.__version__}")
    print("        distance  own      explainer")
    core, failed = openvino.Core(), 0
    for path in options.explainers:
        found, own, error = compare(core, path, options.batch)
        if found <= options.gate:
            verdict = "ok"
        elif found <= 4 * own:
            verdict = "rounds"
        else:
            verdict, failed = "above", failed + 1
        print(f"{verdict:6}  {found:.1e}   {own:.1e}  {path.stem}  {error}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
