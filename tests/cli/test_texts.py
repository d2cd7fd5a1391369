"""What other commands than `explain` do for models that read tokens."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from texts import classifier, write_tokenizer

TEXTS = ["a wonderful film !", "dull", "what a dull dull film"]


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A model of words, without a tokenizer."""
    path = tmp_path / "models" / "words.onnx"
    path.parent.mkdir()
    onnx.save(classifier(), path)
    return path


def test_a_tokenizer_goes_with_its_explainer(run, words: Path):
    assert run("convert", words, "explainer.onnx").exit_code == 0
    assert not Path("explainer.tokenizer.json").exists()
    write_tokenizer(words.with_name("tokenizer.json"))
    result = run("convert", words, "explainer.onnx")
    assert "explainer.tokenizer.json: the tokenizer beside" in result.stdout
    copied = Path("explainer.tokenizer.json").read_bytes()
    assert copied == words.with_name("tokenizer.json").read_bytes()
    run("convert", words, words.with_name("explainer.onnx"))
    assert sorted(path.name for path in words.parent.iterdir()) == [
        "explainer.onnx",
        "tokenizer.json",
        "words.onnx",
    ]


def test_a_tokenizer_does_not_go_with_pictures(run, model: Path):
    write_tokenizer(Path("tokenizer.json"))
    Path("out").mkdir()
    run("convert", model, "out/explainer.onnx")
    assert [path.name for path in Path("out").iterdir()] == ["explainer.onnx"]


def test_texts_are_judged_like_their_tokens(run, words: Path):
    tokenizer = write_tokenizer(words.with_name("words.tokenizer.json"))
    # The tokens of `TEXTS` by the tokenizer's vocabulary.
    rows = [[2, 5, 7, 8, 6, 10, 3], [2, 9, 3], [2, 4, 5, 9, 9, 6, 3]]
    ids = np.zeros((3, 7), np.int64)
    for row, numbers in enumerate(rows):
        ids[row, : len(numbers)] = numbers
    Path("texts.csv").write_text("text\n" + "".join(f"{text}\n" for text in TEXTS))
    np.savez("ids.npz", input_ids=ids)
    found = {}
    for data in ("texts.csv", "ids.npz"):
        out = f"judged-{data}"
        command = ["evaluate", words, "--data", data, "--composite", "epsilon", "-o", out]
        result = run(*command, "--replace", "unknown", "--tokenizer", tokenizer)
        assert result.exit_code == 0, result.output
        found[data] = json.loads(Path(out, "results.json").read_text())
    assert found["texts.csv"]["results"] == found["ids.npz"]["results"]
    assert len(found["texts.csv"]["results"]) > 4


def test_texts_without_a_tokenizer_are_not_judged(run, words: Path):
    Path("a.txt").write_text("a film\n")
    command = ["evaluate", words, "--data", "a.txt", "--composite", "epsilon", "-o", "out"]
    result = run(*command, "--replace", "remove")
    assert result.exit_code == 1
    assert "text needs the model's tokenizer: name it, as in --tokenizer FILE" in result.stderr


def test_a_sheet_of_texts_has_each_composite_below_the_other(run, words: Path):
    command = ["sheet", words, "--text", "a film", "--composite", "epsilon", "-o", "one.png"]
    assert "text needs the model's tokenizer" in run(*command).stderr
    write_tokenizer(words.with_name("tokenizer.json"))
    assert run(*command).exit_code == 0
    result = run(*command[:-1], "four.png", "--composite", "deep_taylor", "--target", "top:2")
    assert result.exit_code == 0, result.output
    Path("a.txt").write_text("a film\ndull\n")
    result = run("sheet", words, "a.txt", "-o", "two.png", "--composite", "epsilon")
    assert result.exit_code == 0, result.output
    one, four, two = (Image.open(f"{name}.png") for name in ("one", "four", "two"))
    assert one.width == four.width == two.width
    assert four.height == 2 * two.height
    assert run("sheet", words, "a.txt", "-o", "x.png", "--crop", "8").exit_code == 1
    assert run("sheet", words, "-o", "x.png").exit_code == 2
