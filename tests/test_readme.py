"""What README.md shows in Python gives the same with us and without us."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from support import model, node, normal

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.S)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    body = [
        node("Conv", ["x", "w"], "c"),
        node("GlobalAveragePool", ["c"], "g"),
        node("Flatten", ["g"], "logits"),
    ]
    proto = model(body, {"x": ["N", 3, 8, 8]}, ["logits"], {"w": normal(5, 3, 3, 3)})
    onnx.save(proto, tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_lines_for_python_and_the_four_that_need_no_onnxlrp(folder):
    convert, embed = BLOCKS
    images = normal(2, 3, 8, 8, seed=1)
    with_us: dict = {"images": images}
    exec(convert, with_us)
    assert "onnxlrp" not in embed
    assert len([line for line in embed.splitlines() if line]) == 4
    without_us: dict = {"images": images}
    exec(embed, without_us)
    np.testing.assert_array_equal(without_us["relevance"], with_us["explanation"].relevance)
    assert without_us["relevance"].shape == images.shape
