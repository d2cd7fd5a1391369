import os
import re
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image

import onnxlrp
from onnxlrp.explainer import Explainer


def test_a_picture_gets_an_array_and_two_drawings(run, explainer: Path, photo: Path, preprocessing):
    result = run("explain", explainer, photo, "-o", "out/maps")
    assert result.exit_code == 0, result.output
    folder = Path("out/maps")
    assert sorted(path.name for path in folder.iterdir()) == [
        "photo.heatmap.png",
        "photo.overlay.png",
        "photo.relevance.npy",
    ]
    relevance = np.load(folder / "photo.relevance.npy")
    with Image.open(photo) as picture:
        expected = Explainer(explainer)(preprocessing(picture)[None])
    np.testing.assert_array_equal(relevance, expected.relevance[0])
    for name in ("heatmap", "overlay"):
        with Image.open(folder / f"photo.{name}.png") as drawing:
            assert (drawing.mode, drawing.size) == ("RGB", (320, 320))


def test_it_says_class_score_and_sum_of_relevance(run, explainer: Path, photo: Path, preprocessing):
    result = run("explain", explainer, photo, "-o", "out", "--target", 2)
    with Image.open(photo) as picture:
        explained = Explainer(explainer)(preprocessing(picture)[None], target=2)
    total = np.load("out/photo.relevance.npy").sum()
    share = total / explained.score[0]
    assert result.output == (
        f"{photo}: class 2, score {explained.score[0]:.4g}, "
        f"relevance sums to {total:.4g} ({share:.1%} of the score)\n"
    )


def test_a_probability_is_not_compared_with_relevance(run, photo: Path, classifier, preprocessing):
    conversion = onnxlrp.convert(classifier(softmax=True), preprocessing=preprocessing)
    conversion.save(Path("explainer.onnx"))
    result = run("explain", "explainer.onnx", photo, "-o", "out")
    assert re.search(r"class \d, probability 0\.\d+, relevance sums to \S+\n$", result.output)


def test_several_pictures_and_the_target_of_each_kind(run, explainer: Path, photo: Path):
    other = photo.with_name("other.jpg")
    Image.new("RGB", (50, 50), (200, 30, 30)).save(other)
    result = run("explain", explainer, photo, other, "-o", "out", "--target", "top")
    assert result.exit_code == 0, result.output
    assert len(result.output.splitlines()) == 2
    assert len(list(Path("out").iterdir())) == 6


def test_options_override_what_is_stored(run, explainer: Path, photo: Path):
    run("explain", explainer, photo, "-o", "stored")
    run("explain", explainer, photo, "-o", "changed", "--channels", "BGR")
    stored, changed = (np.load(f"{name}/photo.relevance.npy") for name in ("stored", "changed"))
    assert np.abs(stored - changed).max() > 0


def test_without_preprocessing_it_asks_and_does_not_guess(run, model: Path, photo: Path):
    onnxlrp.convert(model).save(Path("explainer.onnx"))
    result = run("explain", "explainer.onnx", photo, "-o", "out")
    assert result.exit_code == 1
    assert "does not say how its pictures are made" in result.stderr
    assert not Path("out").exists()
    flags = ["--resize", "8x8", "--scale", "1/255"]
    assert run("explain", "explainer.onnx", photo, "-o", "out", *flags).exit_code == 0


def test_a_model_that_reads_bytes_gets_whole_numbers(run, photo: Path, classifier):
    model = classifier()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    model.graph.node.insert(0, helper.make_node("Cast", ["image"], ["pixels"], to=1))
    model.graph.node[1].input[0] = "pixels"
    onnxlrp.convert(model).save(Path("explainer.onnx"))
    result = run("explain", "explainer.onnx", photo, "-o", "out", "--resize", "8x8")
    assert result.exit_code == 0, result.output
    assert np.load("out/photo.relevance.npy").dtype == np.float32
    flags = ["--resize", "8x8", "--scale", "1/255"]
    line = refused(run("explain", "explainer.onnx", photo, "-o", "out", *flags))
    assert "whole numbers (uint8)" in line


def refused(result) -> str:
    """The one line that a refused call prints."""
    assert result.exit_code == 1
    assert result.stdout == ""
    assert re.fullmatch(r"Error: [^\n]+\n", result.stderr)
    return result.stderr


def test_a_plain_model_is_refused(run, model: Path, photo: Path):
    assert "onnxlrp convert" in refused(run("explain", model, photo, "-o", "out"))


def test_a_picture_of_a_wrong_shape(run, explainer: Path, photo: Path):
    line = refused(run("explain", explainer, photo, "-o", "out", "--resize", "9x9"))
    assert "photo.png: input 'image' takes float32 [N, 3, 8, 8], not float32 [1, 3, 9, 9]" in line
    assert list(Path("out").iterdir()) == []


def test_a_file_that_is_no_picture(run, explainer: Path, tmp_path: Path):
    notes = tmp_path / "notes.txt"
    notes.write_text("no picture")
    assert "notes.txt is not a picture" in refused(run("explain", explainer, notes, "-o", "out"))


def test_a_picture_that_is_not_there(run, explainer: Path):
    line = refused(run("explain", explainer, "missing.png", "-o", "out"))
    assert line == "Error: missing.png: No such file or directory\n"


def test_a_class_that_does_not_exist(run, explainer: Path, photo: Path):
    line = refused(run("explain", explainer, photo, "-o", "out", "--target", 3))
    assert "3 is not a class: the model's are 0 to 2" in line


def test_a_file_in_the_place_of_the_folder(run, explainer: Path, photo: Path):
    Path("out").write_text("")
    assert refused(run("explain", explainer, photo, "-o", "out")) == "Error: out: File exists\n"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(run, explainer: Path, photo: Path):
    Path("out").mkdir(mode=0o500)
    assert "Permission denied" in refused(run("explain", explainer, photo, "-o", "out"))


def test_pictures_of_the_same_name_do_not_overwrite_each_other(
    run, explainer: Path, photo: Path, tmp_path: Path
):
    (tmp_path / "b").mkdir()
    other = photo.rename(tmp_path / "b" / "photo.jpg")
    line = refused(run("explain", explainer, photo, other, "-o", "out"))
    assert "would write the same files" in line
