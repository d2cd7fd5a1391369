"""`onnxlrp explain --watch`."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import tabular
from PIL import Image
from texts import classifier, write_tokenizer

import onnxlrp
from onnxlrp.cli import watch
from onnxlrp.running.watching import Change

# A run in the background is started with the signal ignored.
CODE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from onnxlrp.cli import main
main()
"""


def results(name: str = "results.csv") -> list[dict[str, str]]:
    with open(Path("out", name), newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def put(path: Path, seed: int) -> None:
    """Put a picture there, at once."""
    noise = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(noise).save("made.png")
    os.replace("made.png", path)


def until(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_pictures_are_explained_as_they_come(
    explainer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    inbox = Path("inbox")
    inbox.mkdir()
    command = [sys.executable, "-c", CODE, "explain", explainer, inbox, "-o", "out", "--watch"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
    try:
        put(inbox / "first.png", 1)
        until(lambda: Path("out/first.sheet.png").exists(), process)
        content = (inbox / "first.png").read_bytes()
        with open(inbox / "slow.png", "wb") as file:
            for byte in range(0, len(content), 60):
                file.write(content[byte : byte + 60])
                file.flush()
                time.sleep(0.05)
        (inbox / "bad.png").write_bytes(content[:50])
        until(lambda: Path("out/slow.sheet.png").exists(), process)
        until(lambda: Path("out/failed.json").exists(), process)
        (failed,) = json.loads(Path("out/failed.json").read_text())
        assert failed["source"] == "inbox/bad.png"
        before = results()[0]
        put(inbox / "first.png", 2)
        put(inbox / "bad.png", 3)
        until(lambda: len(results()) == 3 and results()[0] != before, process)
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, said
    # The replaced one a second time, and none half.
    assert sorted(line.partition(":")[0] for line in out.splitlines()) == sorted(
        f"inbox/{name}.png" for name in ("first", "first", "slow", "bad")
    )
    assert said.count("Error: ") == said.count("inbox/bad.png is not") == 1
    assert "4 items in" in said
    assert not Path("out/failed.json").exists()


@pytest.fixture
def watching(run, monkeypatch: pytest.MonkeyPatch):
    """Explains what steps change, which return it, until Ctrl-C."""

    def call(explainer: Path, *arguments: str, steps):
        def changes(*_):
            for step in steps:
                yield step()
            raise KeyboardInterrupt

        monkeypatch.setattr(watch, "changes", changes)
        return run("explain", explainer, "inbox", "-o", "out", "--watch", *arguments)

    return call


def written(**texts: str) -> Callable[[], Change]:
    """Write files; two underscores stand for the dot in a name."""

    def step() -> Change:
        paths = {Path("inbox", name.replace("__", ".")): text for name, text in texts.items()}
        for path, text in paths.items():
            path.write_text(text)
        return Change(set(paths), set())

    return step


def test_texts_and_those_of_them_that_change(watching, tmp_path: Path):
    onnx.save(classifier(), tmp_path / "model.onnx")
    onnxlrp.convert(tmp_path / "model.onnx", "epsilon").save(tmp_path / "explainer.onnx")
    write_tokenizer(tmp_path / "tokenizer.json")
    Path("inbox").mkdir()
    steps = [
        written(a__txt="a wonderful film\nbad\n", other__bin="no text"),
        written(a__txt="a wonderful film\ngood\n", bad__csv="one,two\n1,2\n", b__txt="bad"),
        written(c__txt="film"),
    ]
    result = watching(tmp_path / "explainer.onnx", "--target", "top:2", steps=steps)
    assert result.exit_code == 0, result.output
    assert [row["item"] for row in results()] == [
        name for name in ("a/1", "a/2", "b", "c") for _ in range(2)
    ]
    told = [line.partition(":")[0] for line in result.stdout.splitlines() if "score" in line]
    # The first line of a.txt is not explained again.
    assert len([1 for line in told if line.startswith("inbox/a.txt")]) == 2 * 3
    (failed,) = json.loads(Path("out/failed.json").read_text())
    assert failed["source"] == "inbox/bad.csv"
    assert result.stderr.count("inbox/bad.csv: say which column holds the text") == 1
    assert "5 items in" in result.stderr


def test_tables_are_read_by_the_columns_of_the_first(watching, tmp_path: Path):
    onnxlrp.convert(tabular.matrix(), "epsilon").save(tmp_path / "explainer.onnx")
    Path("inbox").mkdir()
    steps = [
        written(a__csv="p,q,r,s\n1,2,3,4\n2,1,0,-1\n"),
        written(b__csv="s,r,q,p\n4,3,2,1\n", wrong__csv="p,q\n1,2\n", ragged__csv="p,q,r,s\n1,2\n"),
        written(wrong__csv="s,r,q,p\n-1,0,1,2\n"),
    ]
    result = watching(tmp_path / "explainer.onnx", steps=steps)
    assert result.exit_code == 0, result.output
    rows = {row["item"]: row for row in results("relevance.csv")}
    assert [*rows] == ["a/1", "a/2", "b", "wrong"]
    for one, other in (("a/1", "b"), ("a/2", "wrong")):
        assert [rows[one][name] for name in "pqrs"] == [rows[other][name] for name in "pqrs"]
    assert rows["a/1"]["p"] != rows["a/2"]["p"]
    (failed,) = json.loads(Path("out/failed.json").read_text())
    assert "ragged.csv has 2 cells" in failed["reason"]
    assert "wrong.csv has no column 'r', which the model reads" in result.stderr


def test_names_that_another_file_had(watching, explainer: Path):
    """Files may be taken away once they are explained; one of the same name is said to clash."""
    Path("inbox").mkdir()

    def copied(name: str) -> Callable[[], Change]:
        def step() -> Change:
            gone = {*Path("inbox").iterdir()}
            for path in gone:
                path.unlink()
            put(Path("inbox", "made.png"), 1)
            Image.open("inbox/made.png").save(Path("inbox", name))
            Path("inbox/made.png").unlink()
            return Change({Path("inbox", name)}, gone)

        return step

    result = watching(explainer, steps=[copied("a.png"), copied("a.bmp"), copied("b.png")])
    assert result.exit_code == 0, result.output
    assert [row["source"] for row in results()] == ["inbox/a.png", "inbox/b.png"]
    assert result.stderr.count("inbox/a.bmp would get: give another folder") == 1
    assert not Path("out/failed.json").exists()
    shutil.rmtree("inbox")
    Path("inbox").mkdir()
    assert watching(explainer, steps=[]).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["photo.png"], "--watch takes folders"),
        ([".", "--text", "a film"], "--watch takes folders"),
        ([".", "--colour-scale", "shared"], "needs the whole set"),
    ],
)
def test_what_cannot_be_watched(run, explainer: Path, photo: Path, arguments: list[str], said: str):
    result = run("explain", explainer, *arguments, "-o", "out", "--watch")
    assert result.exit_code == 2
    assert said in result.stderr
    assert not Path("out").exists()
