"""Command lines most of which make no sense: an exit status, and no traceback."""

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from fuzz.properties import bounded
from fuzz.seeds import seeds
from fuzz.words import command_line
from PIL import Image

import onnxlrp
from onnxlrp.cli import main


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model, its explainer, a picture, an array and a composite."""
    folder = tmp_path_factory.mktemp("place")
    onnx.save(seeds()[0], folder / "model.onnx")
    onnxlrp.convert(seeds()[0], "epsilon").save(folder / "explainer.onnx")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "photo.png")
    np.save(folder / "set.npy", np.zeros((2, 3, 8, 8), np.float32))
    (folder / "folder").mkdir()
    (folder / "my.toml").write_text("[[rules]]\nrule = 'epsilon'\n")
    return folder


def run(words, place, folder):
    """Run a command in a copy of the place; return its result."""
    shutil.copytree(place, folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        with bounded():
            return CliRunner().invoke(main, words)
    finally:
        os.chdir(before)


@pytest.mark.parametrize("start", range(0, 60, 20))
def test_some_command_lines(start, place, tmp_path):
    statuses = set()
    for seed in range(start, start + 20):
        words = command_line(seed)
        result = run(words, place, tmp_path / str(seed))
        assert result.exception is None or isinstance(result.exception, SystemExit), words
        assert "Traceback" not in result.output, words
        statuses.add(result.exit_code)
    assert statuses <= {0, 1, 2}
    assert len(statuses) > 1


@pytest.mark.slow
def test_a_thousand_command_lines(place, tmp_path):
    for seed in range(1000, 2000):
        words = command_line(seed)
        folder = tmp_path / str(seed)
        result = run(words, place, folder)
        assert result.exception is None or isinstance(result.exception, SystemExit), words
        assert not list(folder.glob("**/.*")), words
        shutil.rmtree(folder)
