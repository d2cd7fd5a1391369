import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import onnxlrp


def broken(path: Path) -> None:
    """Give an explainer other weights than its model's."""
    proto = onnx.load(path)
    tensor = next(entry for entry in proto.graph.initializer if entry.name == "matrix")
    array = onnx.numpy_helper.to_array(tensor) * np.float32(1.5)
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, "matrix"))
    onnx.save(proto, path)


def test_a_sound_explainer_passes(run, model: Path, explainer: Path):
    result = run("check", model, explainer)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == [
        *("node", "rule", "in", "out", "bias", "stabiliser", "unexplained"),
        *("off", "float64"),
    ]
    rows = {line.split()[0]: line.split()[1] for line in lines[1:4]}
    assert rows == {"classify": "epsilon", "pool": "norm", "conv": "even"}
    assert any(line.startswith("Outputs: bit for bit those of the model alone") for line in lines)
    assert any(line.startswith("Layers: 5 of 5 nodes recomputed in float64") for line in lines)
    assert lines[-1].startswith("PASSED in ")


def test_json_says_it_all_and_nothing_else(run, model: Path, explainer: Path):
    result = run("check", model, explainer, "--random", 2, "--target", 1, "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["passed"] is True
    assert said["samples"] == 2
    assert said["targets"] == [1, 1]
    assert said["outputs"] == {"logits": 0.0}
    assert [layer["name"] for layer in said["layers"]] == ["classify", "flatten", "pool", "conv"]
    first = said["layers"][0]
    went = first["outgoing"] + first["bias"] + first["stabiliser"] + first["unexplained"]
    assert went == pytest.approx(first["incoming"])
    assert first["difference"] <= 1e-6
    assert said["kernels"] == []
    assert said["findings"] == []


def test_a_broken_one_fails_and_says_why(run, model: Path, explainer: Path):
    broken(explainer)
    result = run("check", model, explainer)
    assert result.exit_code == 1
    assert "Failure: output 'logits' is not the model's" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("FAILED in ")
    said = json.loads(run("check", model, explainer, "--json").stdout)
    assert said["passed"] is False
    assert said["findings"][0]["kind"] == "failure"


def test_inputs_from_a_file(run, model: Path, explainer: Path):
    np.save("inputs.npy", np.random.default_rng(0).normal(size=(3, 3, 8, 8)))
    said = json.loads(run("check", model, explainer, "--inputs", "inputs.npy", "--json").stdout)
    assert said["samples"] == 3
    assert said["passed"] is True


def test_a_plot_is_written(run, model: Path, explainer: Path):
    result = run("check", model, explainer, "--plot", "layers.png")
    assert result.exit_code == 0, result.output
    with Image.open("layers.png") as picture:
        assert picture.format == "PNG"
        assert picture.width == 1080
        # Bars, not an empty frame.
        colours = picture.convert("RGB").getcolors(1 << 20) or []
    assert max(count for count, colour in colours if colour == (0, 114, 178)) > 10000


def test_only_some_layers(run, model: Path, explainer: Path):
    result = run("check", model, explainer, "--layers", "conv")
    assert result.exit_code == 0, result.output
    assert "Layers: 3 of 5 nodes recomputed" in result.stdout
    assert "Warning: not recomputed: classify, pool (not asked for)" in result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--inputs", "gone.npy"], "gone.npy: No such file"),
        (["--inputs", "model.onnx"], "not a readable array, .npy or .npz"),
        (["--inputs", "gone.npy", "--random", "2"], "exclude each other"),
        (["--target", "3"], "3 is not a class: the model has 3"),
        (["--plot", "missing/layers.png"], "missing/layers.png: No such file"),
    ],
)
def test_wrong_options_are_one_line(run, model: Path, explainer: Path, options, message):
    result = run("check", model, explainer, *options)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_files_that_do_not_belong_together(run, model: Path, explainer: Path, classifier):
    onnx.save(classifier(softmax=True), "other.onnx")
    for given, message in (
        (("other.onnx", explainer), "explains a model with SHA-256"),
        ((model, model), "is a plain model, not an explainer"),
        (("gone.onnx", explainer), "gone.onnx: no such file"),
        ((model, "gone.onnx"), "gone.onnx: no such file"),
    ):
        result = run("check", *given)
        assert result.exit_code == 1
        assert message in result.stderr
        assert result.stderr.count("\n") == 1


def test_convert_verifies_what_it_wrote(run, model: Path):
    result = run("convert", model, "verified.onnx", "--verify")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1].startswith("PASSED in ")
    said = json.loads(run("convert", model, "verified.onnx", "--verify", "--json").stdout)
    assert said["audit"]["passed"] is True
    assert {"composite", "nodes", "bytes"} < said.keys()


def test_convert_fails_like_check(run, model: Path, monkeypatch: pytest.MonkeyPatch):
    save = onnxlrp.Conversion.save

    def spoil(conversion, path, **options):
        save(conversion, path, **options)
        broken(path)

    monkeypatch.setattr(onnxlrp.Conversion, "save", spoil)
    result = run("convert", model, "verified.onnx", "--verify")
    assert result.exit_code == 1
    assert "Failure: output 'logits' is not the model's" in result.stdout
    assert Path("verified.onnx").exists()
