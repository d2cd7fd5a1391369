import re
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnxlrp.demo import CLASSES, demo
from onnxlrp.running.explainer import Explainer


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments, **keywords):
        raise AssertionError("the demo opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)


def test_the_demo_explains_a_cat(run):
    result = run("demo")
    assert result.exit_code == 0, result.output
    folder = Path("onnxlrp-demo")
    assert sorted(path.name for path in folder.iterdir()) == [
        "cat.png",
        "cifar10_lrn.onnx",
        "classes.txt",
        "explainer.onnx",
        "heatmap.png",
        "overlay.png",
        "preprocessing.json",
    ]
    assert str(folder.resolve()) in result.stdout
    assert re.search(
        r"Why cat\? class 3, score \d+\.\d+, relevance sums to \S+ \(\S+% of the score\)",
        result.stdout,
    )
    for word in ("Conv", "LRN", "taylor", "onnxlrp convert ", "onnxlrp explain "):
        assert word in result.stdout
    for name in ("heatmap", "overlay"):
        with Image.open(folder / f"{name}.png") as drawing:
            assert drawing.size == (224, 224)


def test_what_it_leaves_makes_the_same_explainer_by_hand(run):
    run("demo")
    folder = Path("onnxlrp-demo")
    model, how = folder / "cifar10_lrn.onnx", folder / "preprocessing.json"
    result = run("convert", model, "explainer.onnx", "--preprocess", how)
    assert result.exit_code == 0, result.output
    assert Path("explainer.onnx").read_bytes() == (folder / "explainer.onnx").read_bytes()
    labels = folder / "classes.txt"
    result = run("explain", "explainer.onnx", folder / "cat.png", "--labels", labels, "-o", "why")
    assert "cat (3)" in result.stdout


def test_another_target_is_another_map(run):
    run("demo", "-o", "cat")
    result = run("demo", "-o", "dog", "--target", CLASSES.index("dog"))
    assert "Why dog? class 5," in result.stdout
    cat, dog = (Path(name, "heatmap.png").read_bytes() for name in ("cat", "dog"))
    assert cat != dog


def test_another_composite_is_another_map():
    default, epsilon = demo(), demo(composite="epsilon")
    assert np.abs(default.relevance - epsilon.relevance).max() > 1e-3
    assert default.explanation.score == epsilon.explanation.score


def test_its_explainer_explains_other_pictures(run, photo: Path):
    run("demo")
    assert Explainer("onnxlrp-demo/explainer.onnx").preprocessing.crop == (32, 32)
    result = run("explain", "onnxlrp-demo/explainer.onnx", photo, "-o", "maps")
    assert result.exit_code == 0, result.output


def test_a_class_that_cifar_does_not_have(run):
    result = run("demo", "--target", "10")
    assert result.exit_code == 1
    assert "10 is not a class: the model's are 0 to 9" in result.stderr


def test_the_demo_of_text_names_the_words_that_decide(run):
    pytest.importorskip("tokenizers")
    result = run("demo", "--text")
    assert result.exit_code == 0, result.output
    folder = Path("onnxlrp-demo")
    assert sorted(path.name for path in folder.iterdir()) == [
        "explainer.onnx",
        "explainer.tokenizer.json",
        "opinions.txt",
        "reviews.onnx",
        "reviews.tokenizer.json",
        "sentence.html",
        "sentence.png",
    ]
    words = re.search(r"  for: (\w+) \S+, (\w+) .*; against: (\w+)", result.stdout)
    assert words.groups() == ("beautiful", "moving", "tired")
    assert re.search(r"Why positive\? class 1, score \S+, relevance sums to", result.stdout)
    result = run("explain", folder / "explainer.onnx", "--text", "Dull.", "-o", "why")
    assert "class 0" in result.stdout


def test_the_demo_explains_a_text_of_yours(run):
    pytest.importorskip("tokenizers")
    result = run("demo", "--text", "Dull <b> and long.", "--target", "1", "-o", "out")
    assert "Why positive? class 1" in result.stdout
    assert re.search("against: Dull -", result.stdout)
    assert "&lt;" in Path("out/sentence.html").read_text("utf-8")
