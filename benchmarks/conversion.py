"""What a conversion costs: time, memory, and how long the explainer takes to open.

    python benchmarks/conversion.py [MODEL.onnx ...] [--composite NAME] [--quick]

prints a Markdown table, a row for each model given and for three that are made here: residual
networks of 10,000 and of 50,000 nodes with small weights, which show how time grows with nodes, and
2.5 GB of weights in a file beside the model, which show whether they are ever held. Each is
converted in a process of its own, on one thread. Seconds are those of the processor; memory is the
most that the process ever held, imports and all. The explainer is written as the model is, weights
beside it or in it; that onnxruntime opens it is proven in a column of its own.

`session` says how many times longer onnxruntime takes to open the explainer than the model, as
sessions are opened by default, and, in seconds, the model.
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
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

NODES = (10_000, 50_000)
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
    imported = time.process_time()
    import onnxlrp
    from onnxlrp.compiler.loadable import prove_loadable

    convert = onnxlrp.convert
    started = time.process_time()
    conversion = convert(model, composite, inputs=["data"])
    converted = time.process_time()
    external = any(model.parent.glob(f"{model.stem}.data"))
    with tempfile.TemporaryDirectory(dir=model.parent) as folder:
        explainer = Path(folder) / "explainer.onnx"
        conversion.save(explainer, external_data=external, check=False)
        saved = time.process_time()
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        prove_loadable(explainer)
        proven = time.process_time()
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        files = [sum(_sizes(path)) for path in (model, explainer)]
        opened = [_open(path) for path in (model, explainer)] if not external else [0.0, 0.0]
    print(
        json.dumps(
            {
                "nodes": sum(1 for node in conversion.model.graph if not _written(node.name)),
                "bytes": files,
                "seconds": [
                    started - imported,
                    converted - started,
                    saved - converted,
                    proven - saved,
                ],
                "kilobytes": [held, most],
                "opened": opened,
            }
        )
    )


def _written(name: str | None) -> bool:
    return (name or "").startswith("onnxlrp/")


def _sizes(model: Path) -> Iterator[int]:
    for path in model.parent.glob(f"{model.stem}.*"):
        if path.suffix == ".data" or path.name.endswith(".onnx.data") or path == model:
            yield path.stat().st_size


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
    before, after = found["bytes"]
    opened, explainer = found["opened"]
    cells = [
        name,
        f"{found['nodes']:,}",
        f"{before / 1e6:.1f}",
        f"{(after - before) / 1e6:+.1f}",
        *(f"{seconds:.1f}" for seconds in found["seconds"]),
        *(f"{kilobytes / 1e3:,.0f}" for kilobytes in found["kilobytes"]),
        f"{explainer / opened:.1f} x {opened:.2f} s" if opened else "",
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
    head = "network|nodes|model, MB|explainer, MB|import, s|convert, s|save, s|prove, s"
    titles = [*head.split("|"), "peak, MB", "with proof, MB", "session"]
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
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
