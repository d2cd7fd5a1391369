"""What a conversion costs: time, memory, and how long the explainer takes to open.

    python benchmarks/conversion.py [MODEL.onnx ...] [--composite NAME] [--quick]

prints a Markdown table, a row for each model given and for three that are made here: residual
networks of 10,000 and of 50,000 nodes with small weights, which show how time grows with nodes, and
2.5 GB of weights in a file beside the model, which show whether they are ever held. Each is
converted in a process of its own, on one thread. Seconds are those of the processor; memory is the
most that the process ever held, imports and all. The explainer is written as the model is, weights
beside it or in it, and once more with the proof that onnxruntime opens it.

`session` says how many times longer onnxruntime takes to open the explainer than the model, as
sessions are opened by default, and the seconds that the model takes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TITLES = (
    *("network", "nodes", "explainer's", "MB", "explainer's"),
    *("import, s", "convert, s", "save, s", "save and prove, s"),
    *("peak, MB", "with proof, MB", "session"),
)
NODES = (10_000, 50_000)
OPENED = 20_000
"""Nodes from which on nothing is opened: onnxruntime 1.31 sorts them in quadratic time."""
WIDTH, LAYERS = 12_500, 4
"""Of the dense network: 4 weights of 12,500 x 12,500 float32, 2.5 GB."""


def residual(nodes: int, path: Path) -> None:
    """Write blocks of Conv, Relu, Conv, Add, Relu with 4 channels, one behind the other."""
    rng = np.random.default_rng(0)
    made, weights = [], []

    def conv(x: str, name: str, channels: int) -> str:
        kernel = (rng.standard_normal((4, channels, 1, 1)) / 2).astype(np.float32)
        bias = (rng.standard_normal(4) / 10).astype(np.float32)
        weights.extend(
            [
                numpy_helper.from_array(kernel, f"{name}_w"),
                numpy_helper.from_array(bias, f"{name}_b"),
            ]
        )
        made.append(helper.make_node("Conv", [x, f"{name}_w", f"{name}_b"], [name]))
        return name

    x = conv("data", "stem", 3)
    for block in range(nodes // 5):
        made.append(helper.make_node("Relu", [conv(x, f"a{block}", 4)], [f"r{block}"]))
        made.append(helper.make_node("Add", [conv(f"r{block}", f"b{block}", 4), x], [f"s{block}"]))
        made.append(helper.make_node("Relu", [f"s{block}"], [f"x{block}"]))
        x = f"x{block}"
    made.append(helper.make_node("GlobalAveragePool", [x], ["pooled"]))
    made.append(helper.make_node("Flatten", ["pooled"], ["scores"]))
    onnx.save(_model(made, weights, ["N", 3, 8, 8], 4), path)


def beside(path: Path) -> None:
    """Write dense layers whose weights lie in a file beside the model, one row held at a time."""
    rng, size = np.random.default_rng(0), WIDTH * WIDTH * 4
    made, weights = [], []
    with path.with_suffix(".data").open("wb") as data:
        for layer in range(LAYERS):
            for _ in range(WIDTH):
                data.write((rng.standard_normal(WIDTH, np.float32) / WIDTH**0.5).tobytes())
            weight = TensorProto(name=f"w{layer}", data_type=TensorProto.FLOAT, dims=[WIDTH, WIDTH])
            weight.data_location = TensorProto.EXTERNAL
            for key, value in (
                ("location", path.with_suffix(".data").name),
                ("offset", layer * size),
                ("length", size),
            ):
                weight.external_data.add(key=key, value=str(value))
            weights.append(weight)
            x = "data" if layer == 0 else f"r{layer - 1}"
            y = "scores" if layer == LAYERS - 1 else f"y{layer}"
            made.append(helper.make_node("Gemm", [x, f"w{layer}"], [y]))
            if layer < LAYERS - 1:
                made.append(helper.make_node("Relu", [y], [f"r{layer}"]))
    path.write_bytes(_model(made, weights, ["N", WIDTH], WIDTH).SerializeToString())


def _model(
    nodes: list[onnx.NodeProto], weights: list[TensorProto], shape: list[int | str], classes: int
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", classes])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def measure(model: Path, composite: str) -> None:
    """Print what one conversion costs, as JSON."""
    times = [time.process_time()]
    import onnxlrp

    convert = onnxlrp.convert
    times.append(time.process_time())
    conversion = convert(model, composite, inputs=["data"])
    times.append(time.process_time())
    beside = model.with_suffix(".data").exists()
    with tempfile.TemporaryDirectory(dir=model.parent) as folder:
        explainer = Path(folder) / "explainer.onnx"
        conversion.save(explainer, external_data=beside, check=False)
        times.append(time.process_time())
        held, opened = [_held()], [0.0, 0.0]
        if len(conversion.model.graph) < OPENED:
            conversion.save(explainer, external_data=beside)
            times.append(time.process_time())
            held.append(_held())
            opened = [_open(path) for path in (model, explainer)]
        nodes = [node.name or "" for node in conversion.model.graph]
        found = {
            "nodes": [sum(not n.startswith("onnxlrp/") for n in nodes), len(nodes)],
            "bytes": [_bytes(model), _bytes(explainer)],
            "seconds": np.diff(times).tolist(),
            "kilobytes": held,
            "opened": opened,
        }
    print(json.dumps(found))


def _held() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _bytes(model: Path) -> int:
    """Return the size of a model with what lies beside it."""
    files = (model, model.with_suffix(".data"), model.with_name(f"{model.name}.data"))
    return sum(file.stat().st_size for file in files if file.exists())


def _open(path: Path) -> float:
    """Return the least seconds of three in which onnxruntime opens a model on one thread."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    least = float("inf")
    for _ in range(3):
        start = time.process_time()
        ort.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
        least = min(least, time.process_time() - start)
    return least


def row(name: str, model: Path, composite: str) -> str:
    """Convert a model in a process of its own, and tell what that cost as a row of the table."""
    command = [sys.executable, __file__, os.fspath(model), "--composite", composite, "--one"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    found = json.loads(run.stdout)
    opened, explainer = found["opened"]
    cells = [
        name,
        *(f"{count:,}" for count in found["nodes"]),
        *(f"{size / 1e6:,.1f}" for size in found["bytes"]),
        *([f"{seconds:.1f}" for seconds in found["seconds"]] + [""])[:4],
        *([f"{kilobytes / 1e3:,.0f}" for kilobytes in found["kilobytes"]] + [""])[:2],
        f"{explainer / opened:.1f} x {opened:.2f}" if opened else "",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--composite", default="epsilon_plus_flat")
    parser.add_argument("--folder", type=Path, help="for what is made here, 6 GB")
    parser.add_argument("--quick", action="store_true", help="only the models given")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        measure(options.models[0], options.composite)
        return
    print(f"| {' | '.join(TITLES)} |\n|{'---|' * len(TITLES)}")
    for model in options.models:
        print(row(model.stem, model, options.composite), flush=True)
    if options.quick:
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "made.onnx"
        for nodes in NODES:
            residual(nodes, path)
            print(row(f"residual, {nodes:,}", path, options.composite), flush=True)
        path = Path(folder) / "beside.onnx"
        beside(path)
        print(row("dense, weights beside", path, options.composite), flush=True)


if __name__ == "__main__":
    main()
