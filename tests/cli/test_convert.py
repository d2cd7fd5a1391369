import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from onnxlrp.inputs.presets import PRESETS
from onnxlrp.running.explainer import Explainer


def test_it_ends_with_tables_of_what_was_done(run, model: Path):
    result = run("convert", model, "explainer.onnx")
    assert result.exit_code == 0, result.output
    onnx.checker.check_model("explainer.onnx", full_check=True)
    lines = [line.split() for line in result.stdout.splitlines()]
    conv = next(line for line in lines if line[:1] == ["Conv"])
    assert conv[1] == "1"
    assert re.fullmatch(r"default:\d+", conv[-1])
    assert ["input", "image", "float32", "[N,", "3,", "8,", "8]"] in lines
    assert ["output", "logits", "float32", "[N,", "3]"] in lines
    assert ["output", "relevance", "float32", "[explained_N,", "3,", "8,", "8]"] in lines
    assert re.search(r"model\.onnx \(\d\.\d kB\) -> explainer\.onnx .* in \d+\.\d s", result.stdout)


def test_json_says_the_same_and_nothing_else(run, model: Path):
    result = run("convert", model, "explainer.onnx", "--json")
    said = json.loads(result.stdout)
    assert said["composite"] == "default"
    assert said["score"] == "logits"
    assert [node["operator"] for node in said["nodes"]].count("Conv") == 1
    assert {"name", "operator", "rule", "parameters", "line", "merged", "value"} == set(
        said["nodes"][0]
    )
    assert said["inputs"][0] == {"name": "image", "dtype": "float32", "shape": ["N", 3, 8, 8]}
    assert [output["name"] for output in said["outputs"]] == ["logits", "relevance"]
    assert said["bytes"]["explainer"] == Path("explainer.onnx").stat().st_size
    assert said["seconds"] > 0


def explained(path: str, target: int = -1) -> np.ndarray:
    pixels = np.random.default_rng(2).normal(size=(1, 3, 8, 8)).astype(np.float32)
    return Explainer(path)(pixels, target).relevance


def test_composite_lines_and_parameters_change_the_map(run, model: Path):
    def converted(*options: str) -> np.ndarray:
        result = run("convert", model, "explainer.onnx", *options)
        assert result.exit_code == 0, result.output
        return explained("explainer.onnx")

    default = converted()
    for options in (
        ["--composite", "epsilon"],
        ["--rule", "Conv: epsilon"],
        ["--set", "epsilon=10.0"],
    ):
        assert np.abs(converted(*options) - default).max() > 1e-6
    np.testing.assert_array_equal(converted("--composite", "epsilon_plus_even"), default)


def test_the_preprocessing_is_stored(run, model: Path):
    run("convert", model, "explainer.onnx", "--preprocess", "imagenet", "--crop", "8")
    stored = Explainer("explainer.onnx").preprocessing
    assert stored.crop == (8, 8)
    assert stored.mean == PRESETS["imagenet"].mean


@pytest.mark.parametrize(("option", "index"), [("1", 1), ("top", None)])
def test_a_baked_target_leaves_the_models_own_inputs(run, model: Path, option, index):
    run("convert", model, "explainer.onnx", "--target", option)
    session = onnxruntime.InferenceSession("explainer.onnx", providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["image"]
    pixels = np.random.default_rng(2).normal(size=(1, 3, 8, 8)).astype(np.float32)
    explanation = Explainer("explainer.onnx")(pixels)
    expected = explanation.outputs["logits"].argmax() if index is None else index
    np.testing.assert_array_equal(explanation.target, [expected])
    run("convert", model, "free.onnx")
    np.testing.assert_array_equal(explanation.relevance, explained("free.onnx", int(expected)))


def test_relevance_inside_becomes_an_output(run, model: Path):
    result = run("convert", model, "explainer.onnx", "--intermediate", "active")
    assert result.exit_code == 0, result.output
    pixels = np.ones((1, 3, 8, 8), np.float32)
    explanation = Explainer("explainer.onnx")(pixels)
    assert explanation.intermediates["active"].shape == (1, 4, 8, 8)
    assert list(explanation.outputs) == ["logits"]


def test_external_data_lies_beside_the_explainer(run, model: Path):
    result = run("convert", model, "explainer.onnx", "--external-data", "--json")
    assert result.exit_code == 0, result.output
    beside = Path("explainer.onnx.data")
    assert beside.exists()
    sizes = beside.stat().st_size + Path("explainer.onnx").stat().st_size
    assert json.loads(result.stdout)["bytes"]["explainer"] == sizes
    run("convert", model, "embedded.onnx")
    np.testing.assert_array_equal(explained("explainer.onnx"), explained("embedded.onnx"))


def test_a_line_that_matches_nothing_is_a_warning_on_stderr(run, model: Path):
    result = run("convert", model, "explainer.onnx", "--lrn", "identity", "--json")
    assert result.exit_code == 0
    assert re.search(r"^Warning: --lrn identity", result.stderr, re.MULTILINE)
    assert json.loads(result.stdout)["warnings"]


def refused(result) -> str:
    """What a refused call prints: `Error: ` and no traceback; nothing is written."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.stderr
    assert not Path("explainer.onnx").exists()
    return result.stderr


def test_the_model_is_never_overwritten(run, model: Path):
    before = model.read_bytes()
    for same in (model, "model.onnx", "./model.onnx"):
        told = refused(run("convert", model, same))
        assert "model.onnx is read, and would be written over: give EXPLAINER another" in told
    Path("link.onnx").hardlink_to(model)
    assert "link.onnx is read" in refused(run("convert", model, "link.onnx"))
    assert model.read_bytes() == before


def test_an_explainer_is_not_converted_again(run, explainer: Path):
    explainer = explainer.rename("made.onnx")
    assert "explainer already" in refused(run("convert", explainer, "explainer.onnx"))


def test_every_unsupported_node_is_listed(run, classifier):
    onnx.save(classifier(operator="Mystery", domain="com.example"), "model.onnx")
    error = refused(run("convert", "model.onnx", "explainer.onnx"))
    assert "activation (Mystery, com.example 1)" in error


def test_a_folder_that_is_not_there(run, model: Path):
    line = refused(run("convert", model, "missing/explainer.onnx"))
    assert line == "Error: missing: no such folder to write the explainer to\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--composite", "epsilom"], "epsilom"),
        (["--set", "epsilon"], "write KEY=VALUE"),
        (["--rule", "nonsense"], "nonsense"),
        (["--rule", "Conv: nonsense"], "nonsense"),
        (["--output", "nothing"], "nothing"),
        (["--input", "nothing"], "nothing"),
        (["--intermediate", "nothing"], "nothing"),
        (["--target", "3"], "3"),
        (["--preprocess", "vgg"], "vgg"),
    ],
)
def test_wrong_options_are_named(run, model: Path, options, message):
    assert message in refused(run("convert", model, "explainer.onnx", *options))


@pytest.mark.parametrize("content", [b"", b"not a protobuf", None])
def test_files_that_are_no_model(run, model: Path, content):
    broken = Path("broken.onnx")
    broken.write_bytes(model.read_bytes()[:200] if content is None else content)
    line = refused(run("convert", broken, "explainer.onnx"))
    assert "broken.onnx" in line
    assert line.count("\n") == 1
