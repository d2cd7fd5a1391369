"""`onnxlrp report`: what is in the page, and what a browser makes of it."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import onnxlrp


def held(path: Path) -> dict:
    (data,) = re.findall(r'id="data">(.*?)</script>', path.read_text("utf-8"))
    return json.loads(data)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures, and a file that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(3)
    for name in ("a", "b", "c"):
        Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{name}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def other(tmp_path: Path, model: Path, preprocessing) -> Path:
    path = tmp_path / "other.onnx"
    onnxlrp.convert(model, "epsilon", preprocessing=preprocessing).save(path)
    return path


def test_two_explainers_beside_each_other(
    run, explainer: Path, other: Path, model: Path, photos: Path, preprocessing
):
    arguments = ("--beside", other, "--model", model, "-o", "report.html")
    result = run("report", explainer, photos, *arguments)
    # One item fails, and only it.
    assert result.exit_code == 1
    assert "1 could not be explained" in result.stderr
    data = held(Path("report.html"))
    assert [one["name"] for one in data["entries"]] == ["a", "b", "c"]
    assert [one["source"] for one in data["failures"]] == [str(photos / "broken.png")]
    for file, place in ((explainer, 0), (other, 1)):
        with onnxlrp.Explainer(file) as alone:
            for one in data["entries"]:
                with Image.open(one["source"]) as picture:
                    found = alone(preprocessing(picture)[None])
                assert one["score"] == pytest.approx(found.score[0], rel=1e-5)
                total = pytest.approx(found.relevance.sum(), rel=1e-4)
                assert one["maps"][place]["relevance"] == total
    first, second = data["cards"]
    assert (first["name"], second["name"]) == ("explainer.onnx", "other.onnx")
    assert ["Conv", "epsilon epsilon=1e-06 bias=absorb power=1", 1] in second["rules"]
    assert second["audit"][-1] == "PASSED"


def test_explainers_of_two_models_do_not_go_together(
    run, explainer: Path, photos: Path, classifier, tmp_path: Path
):
    onnx.save(classifier(operator="Tanh"), tmp_path / "second.onnx")
    onnxlrp.convert(tmp_path / "second.onnx").save(tmp_path / "foreign.onnx")
    result = run("report", explainer, photos, "--beside", tmp_path / "foreign.onnx", "-o", "r.html")
    assert result.exit_code == 1
    assert "foreign.onnx explains another model than" in result.stderr
    assert not Path("r.html").exists()


@pytest.mark.slow
def test_a_browser_sorts_and_filters(run, explainer: Path, other: Path, photos: Path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed")
    run("report", explainer, photos, "--beside", other, "-o", "report.html")
    page = Path("report.html").read_text("utf-8")

    def shown(script: str) -> list[str]:
        """Names of the items in the order that the page has them after a script."""
        Path("driven.html").write_text(page.replace("choose();\n</script>", script + "</script>"))
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
        address = Path("driven.html").resolve().as_uri()
        done = subprocess.run(
            [*command, address], capture_output=True, text=True, timeout=120, check=True
        )
        return re.findall(r"<h3>([^:<]*):", html.unescape(done.stdout))

    scores = {one["name"]: one["score"] for one in held(Path("report.html"))["entries"]}
    ranked = sorted(scores, key=scores.__getitem__, reverse=True)
    assert shown("choose();") == ["a", "b", "c"]
    assert shown("at('sort').value = 'high'; choose();") == ranked
    assert shown("at('find').value = 'B.PNG'; choose();") == ["b"]
