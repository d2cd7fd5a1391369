"""`onnxlrp explain` of a model that reads tokens."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from PIL import Image
from texts import classifier, expected, write_tokenizer

import onnxlrp
from onnxlrp.cli import main, sentences


@pytest.fixture
def explainer(tmp_path: Path) -> Path:
    """Of a model with mask, segments and places; its tokenizer lies beside it."""
    path = tmp_path / "explainer.onnx"
    onnx.save(classifier(), tmp_path / "model.onnx")
    onnxlrp.convert(tmp_path / "model.onnx", "epsilon").save(path)
    write_tokenizer(tmp_path / "tokenizer.json")
    return path


def refused(result) -> str:
    """The one line that a refused call prints."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert re.fullmatch(r"Error: [^\n]+\n", result.stderr), result.stderr
    return result.stderr


def test_a_sentence(run, explainer: Path):
    result = run("explain", explainer, "--text", "A wonderful film!", "-o", "out", "--target", 1)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "journal.jsonl",
        "results.csv",
        "results.json",
        "text.html",
        "text.sheet.png",
        "text.tokens.csv",
    ]
    with open("out/text.tokens.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["token"] for row in rows] == ["[CLS]", "a", "wonder", "##ful", "film", "!", "[SEP]"]
    wanted = expected(np.array([int(row["id"]) for row in rows]), 1)
    found = [float(row["relevance"]) for row in rows]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    word = wanted[2] + wanted[3]
    assert [float(row["word_relevance"]) for row in rows[2:4]] == pytest.approx(
        [word] * 2, rel=1e-4
    )
    (record,) = json.loads(Path("out/results.json").read_text())
    assert record["relevance"] == pytest.approx(wanted.sum(), rel=1e-4)
    assert record["padding"] == 0
    with Image.open("out/text.sheet.png") as drawn:
        assert drawn.mode == "RGB"
    assert "class 1 · score" in Path("out/text.html").read_text("utf-8")
    first, text, second = result.stdout.splitlines()
    assert text == "A wonderful film!"
    assert first.startswith("--text: class 1, score ")
    assert f"wonderful {word:+.2g}"[:-1] in second
    assert second.endswith(f"; [CLS] {wanted[0]:+.3g}, [SEP] {wanted[-1]:+.3g}")
    assert "Texts were split by tokenizer.json" in result.stderr


def test_lines_columns_and_standard_input_with_everything_else(run, explainer: Path):
    Path("a.txt").write_text("a film\n\ndull\n")
    Path("b.csv").write_text("id,review\n1,what a film\n")
    command = ["explain", explainer, "a.txt", "b.csv", "-", "--column", "review"]
    arguments = [str(word) for word in [*command, "-o", "out", "--format", "npz", "--batch", 3]]
    result = CliRunner().invoke(main, [*arguments, "--target", "top:2"], input="a dull film\n")
    assert result.exit_code == 0, result.output
    assert "1 blank texts were left out" in result.stderr
    rows = json.loads(Path("out/results.json").read_text())
    assert [row["item"] for row in rows[::2]] == ["stdin", "a/1", "a/3", "b"]
    for row in rows:
        file = f"out/{row['item']}.top{row['rank']}-{row['target']}.relevance.npz"
        with np.load(file) as arrays:
            wanted = expected(arrays["ids"], row["target"])
            np.testing.assert_allclose(arrays["relevance"], wanted, rtol=1e-4, atol=1e-4)
            assert arrays["scores"][row["target"]] == pytest.approx(row["score"])
            offsets, text = arrays["offsets"], str(arrays["text"])
            pieces = [text[start:end] for start, end in offsets[~arrays["special"]]]
            assert pieces == [str(piece) for piece in arrays["tokens"][1:-1]]


def test_labels_names_and_shared_colours(run, explainer: Path):
    Path("names.txt").write_text("bad\ngood\nso so\n")
    options = ["--labels", "names.txt", "--target", "good", "--colour-scale", "shared"]
    texts = ["--text", "a film", "--text", "dull"]
    result = run("explain", explainer, *texts, "-o", "out", *options)
    assert result.exit_code == 0, result.output
    rows = json.loads(Path("out/results.json").read_text())
    scale = max(row["full"] for row in rows)
    for row in rows:
        written = Path(f"out/{row['item']}.html").read_text("utf-8")
        assert f"for · ±{scale:.3g}" in written
        assert "good (1) · score" in written


def test_it_goes_on_where_it_stopped(run, explainer: Path):
    Path("a.txt").write_text("a film\ndull\n")
    run("explain", explainer, "a.txt", "-o", "out")
    first = Path("out/a/1.html").stat().st_mtime_ns
    Path("a.txt").write_text("a film\nwhat\n")
    result = run("explain", explainer, "a.txt", "-o", "out")
    assert "1 of 2 items were done before" in result.stderr
    assert Path("out/a/1.html").stat().st_mtime_ns == first
    assert "what" in Path("out/a/2.html").read_text("utf-8")
    write_tokenizer(Path("tokenizer.json"), max_length=8)
    line = refused(run("explain", explainer, "a.txt", "-o", "out"))
    assert "other settings (tokenizer, tokens)" in line


def test_long_texts_are_cut_with_one_warning(run, explainer: Path):
    texts = ["--text", "a film a film", "--text", "dull dull dull"]
    result = run("explain", explainer, *texts, "-o", "out", "--tokens", 4)
    assert result.exit_code == 0
    assert result.stderr.count("of texts longer than 4 tokens only so many were read") == 1
    assert "at most 4 tokens of each" in result.stderr


def test_one_text_that_fails_fails_no_other(run, explainer: Path):
    """The model has places for 64 tokens, which nothing but the run finds out."""
    Path("a.txt").write_text(f"a film\n{'film ' * 70}\ndull\n")
    result = run("explain", explainer, "a.txt", "-o", "out")
    assert result.exit_code == 1
    assert len(json.loads(Path("out/results.json").read_text())) == 2
    (failed,) = json.loads(Path("out/failed.json").read_text())
    assert failed["source"] == "a.txt:2"


def test_a_text_cannot_command_the_terminal(run, explainer: Path, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = "film \x1b]0;owned\x07 \x1b[2J \u202e film"
    result = run("explain", explainer, "--text", text, "-o", "out")
    assert result.exit_code == 0, result.output
    assert r"\x1b]0;owned\x07" in re.sub(r"\x1b\[[\d;]*m", "", result.stdout)
    assert "\x1b]" not in result.stdout
    assert "\x1b[2J" not in result.stdout
    assert "\u202e" not in result.stdout
    # Colours are there, and they alone.
    assert set(re.findall(r"\x1b\[[\d;]*(\w)", result.stdout)) == {"m"}


@pytest.mark.parametrize("no_colour", [False, True])
def test_colours_only_where_they_are_wanted(run, explainer: Path, monkeypatch, no_colour: bool):
    monkeypatch.setenv("FORCE_COLOR", "1")
    if no_colour:
        monkeypatch.setenv("NO_COLOR", "1")
    result = run("explain", explainer, "--text", "a dull film", "-o", "out")
    assert ("\x1b[" in result.stdout) is not no_colour
    assert "film" in result.stdout


def test_a_pipe_gets_plain_words(run, explainer: Path):
    result = run("explain", explainer, "--text", "a dull film", "-o", "out")
    assert "\x1b" not in result.stdout
    assert result.stdout.splitlines()[1] == "a dull film"
    assert sentences.console().is_terminal is False


def test_arrays_of_tokens_need_no_tokenizer(run, tmp_path: Path):
    onnx.save(classifier(["input_ids"]), "model.onnx")
    onnxlrp.convert("model.onnx", "epsilon").save(Path("explainer.onnx"))
    ids = np.array([[2, 5, 6, 3], [2, 9, 9, 3]])
    np.save("ids.npy", ids)
    result = run("explain", "explainer.onnx", "ids.npy", "-o", "out", "--target", 0)
    assert result.exit_code == 0, result.output
    for row in (0, 1):
        relevance = np.load(f"out/ids/{row}.relevance.npy")
        np.testing.assert_allclose(relevance, expected(ids[row], 0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--text", " "], "there is no text to explain"),
        (["missing.txt"], "no such file; a sentence itself is given by --text"),
        (["--text", "a", "--tokenizer", "model.onnx"], "is no text"),
        (["--text", "a", "--tokenizer", "missing.json"], "No such file"),
        (["--text", "a", "--crop", "8"], "--crop is for pictures"),
        (["--text", "a", "--format", "overlay"], "overlay is one of pictures, not of texts"),
        (["--text", "a", "--target", "5"], "5 is not a class"),
        (["ids.npy"], "several inputs"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(run, explainer: Path, arguments, said):
    np.save("ids.npy", np.array([[1, 2]]))
    assert said in refused(run("explain", explainer, *arguments, "-o", "out"))
    assert not Path("out").exists()


def test_without_a_tokenizer_it_says_what_to_do(run, explainer: Path):
    Path("tokenizer.json").unlink()
    line = refused(run("explain", explainer, "--text", "a", "-o", "out"))
    assert "put tokenizer.json beside the explainer, or name it, as in --tokenizer FILE" in line


def test_nothing_given(run, explainer: Path):
    result = run("explain", explainer, "-o", "out")
    assert result.exit_code == 2
    assert "INPUT, or --text TEXT" in result.stderr
