"""Several processes share the work: the results are those of one, whatever happens to them."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import onnxlrp
from onnxlrp.inputs.preprocessing import Preprocessing

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra [ray] is not installed"),
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds workers in /proc"),
]

COMMAND = [sys.executable, "-c", "from onnxlrp.cli import main; main()"]
PIECES = ["--shard", "10", "--batch", "4"]


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    """A Parquet file and a tar of 200 pictures each, one of which is none."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    random = np.random.default_rng(0)
    contents = []
    for _ in range(400):
        file = io.BytesIO()
        pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file, "PNG")
        contents.append(file.getvalue())
    contents[123] = b"no picture"
    table = arrow.table({"image": contents[:200]})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=30)
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        for number, content in enumerate(contents[200:], 200):
            entry = tarfile.TarInfo(f"{number}.png")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return [f"file://{tmp_path}/a.parquet", f"file://{tmp_path}/b.tar"]


@pytest.fixture
def explainer(tmp_path: Path) -> Path:
    """The bundled network's."""
    path = tmp_path / "explainer.onnx"
    bundled = Path(onnxlrp.__file__).parents[1] / "models" / "cifar10_lrn.onnx"
    onnxlrp.convert(bundled, preprocessing=Preprocessing(resize=(32, 32), scale=1 / 255)).save(path)
    return path


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True)


def at_work(ancestor: int) -> list[int]:
    """Find the actors that hold sessions, among what a process started."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
            names[int(folder.name)] = (folder / "cmdline").read_text()
        except OSError:
            continue
        parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])

    def below(number: int) -> bool:
        while number in parents and number != ancestor:
            number = parents[number]
        return number == ancestor

    return [n for n, name in names.items() if name.startswith("ray::MapWorker") and below(n)]


def wait_for(found, seconds: float = 90):
    end = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)
    return result


def maps(folder: Path):
    """Every map of a folder of shards, in order: item, class, scores, relevance."""
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = []
    for path in sorted((folder / "shards").glob("*.parquet")):
        for row in parquet.read_table(path).to_pylist():
            arrays = [np.float32(row[name]).tobytes() for name in ("relevance", "scores")]
            rows.append((row["item"], row["target"], tuple(row["shape"]), *arrays))
    return rows


def test_killed_workers_lose_nothing_and_double_nothing(explainer, photos, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    common = [explainer, *photos, "--format", "parquet", *PIECES]
    alone = run("explain", *common, "-o", one, "--threads", 1)
    assert alone.returncode == 1, alone.stderr
    shards = two / "shards"
    process = subprocess.Popen(
        [*COMMAND, "explain", *map(str, common), "-o", two, "--workers", "2"],
        stderr=subprocess.PIPE,
        text=True,
    )
    killed = []
    for done in (1, 8, 15):
        wait_for(lambda done=done: len([*shards.glob("_*.json")]) >= done)
        victim = wait_for(lambda: [one for one in at_work(process.pid) if one not in killed])[0]
        os.kill(victim, signal.SIGKILL)
        killed.append(victim)
    # While there was work left to lose.
    assert len([*shards.glob("_*.json")]) < 38
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1, stderr
    found = maps(two)
    assert [row[0] for row in found] == [
        f"{'a' if n < 200 else 'b'}/{n:03}" for n in range(400) if n != 123
    ]
    assert found == maps(one)
    for name in ("results.csv", "results.json", "failed.json"):
        assert (two / name).read_bytes() == (one / name).read_bytes()
    (failed,) = json.loads((two / "failed.json").read_text())
    assert failed["item"] == "a/123"
    assert sorted(path.name for path in two.iterdir()) == [
        "failed.json",
        "journal.jsonl",
        "results.csv",
        "results.json",
        "shards",
    ]
    # Nothing half written is left.
    kinds = {path.name.partition(".")[2] for path in shards.iterdir()}
    assert kinds == {"json", "parquet"}


def test_methods_are_judged_alike_by_workers(photos, tmp_path):
    bundled = Path(onnxlrp.__file__).parents[1] / "models" / "cifar10_lrn.onnx"
    common = ["evaluate", bundled, "--data", tmp_path / "b.tar", "--preprocess", "cifar10"]
    common += ["--composite", "epsilon_plus", "--composite", "gradient", "--images", 6]
    common += ["--region", 8, "--threads", 1]
    one = run(*common, "-o", tmp_path / "one")
    two = run(*common, "-o", tmp_path / "two", "--workers", 2)
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    assert one.stdout.replace("/one", "/two") == two.stdout
    for name in ("results.csv", "results.json"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    rows = [
        sorted((tmp_path / name / "journal.jsonl").read_text().splitlines()[1:])
        for name in ("one", "two")
    ]
    assert len(rows[0]) == 6
    assert rows[0] == rows[1]
