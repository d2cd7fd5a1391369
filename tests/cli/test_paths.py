"""Files that commands read and write: neither is taken for the other, nor a folder for none."""

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def photo(run):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save("photo.png")
    return Path("photo.png")


def test_what_is_read_is_not_written_over(run, model: Path, explainer: Path, photo: Path):
    np.save("maps.npy", np.zeros((2, 3, 8, 8), np.float32))
    np.save("data.npy", np.zeros((2, 3, 8, 8), np.float32))
    Path("link.png").symlink_to(photo)
    explain = ["explain", explainer, "data.npy", "-o", "out"]
    assert run(*explain).exit_code == 0
    for line, file, option in (
        (["sheet", model, photo, "-o", photo], photo, "--output"),
        (["sheet", model, photo, "-o", "link.png"], "link.png", "--output"),
        (["compare", "maps.npy", "data.npy", "--csv", "maps.npy"], "maps.npy", "--csv"),
        (["convert", model, "x.onnx", "--rule", "a=photo.png"], None, None),
        (["convert", model, model], model, "EXPLAINER"),
    ):
        before = {path: path.read_bytes() for path in Path().iterdir() if path.is_file()}
        result = run(*line)
        if file is None:
            assert "written over" not in result.stderr
            continue
        assert result.exit_code == 1
        assert result.stderr == (
            f"Error: {file} is read, and would be written over: give {option} another name\n"
        )
        assert before == {path: path.read_bytes() for path in Path().iterdir() if path.is_file()}


def test_pictures_and_pages_do_not_take_the_names_of_other_files(run, model, explainer, photo):
    before = explainer.read_bytes()
    for line, ending in (
        (["sheet", model, photo, "-o", "sheet.jpg"], ".png"),
        (["check", model, explainer, "--plot", explainer], ".png"),
        (["compare", explainer, explainer, "--random", 1, "--plot", explainer], ".png"),
        (["report", explainer, photo, "-o", explainer], ".html"),
    ):
        result = run(*line)
        assert result.exit_code == 2
        assert f": end its name in {ending}" in result.stderr
    assert explainer.read_bytes() == before
    assert not Path("sheet.jpg").exists()


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_a_pipe_or_a_device_is_not_replaced_by_a_file(run, model: Path):
    os.mkfifo("pipe")
    assert "pipe is no regular file, but a pipe" in run("convert", model, "pipe").stderr
    np.save("maps.npy", np.zeros((2, 3, 8, 8), np.float32))
    result = run("compare", "maps.npy", "maps.npy", "--csv", "pipe")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert stat.S_ISFIFO(Path("pipe").stat().st_mode)


def test_an_empty_name_is_not_the_folder(run, model: Path, explainer: Path, photo: Path):
    for line in (
        ["convert", model, ""],
        ["explain", explainer, photo, "-o", ""],
        ["inspect", ""],
    ):
        result = run(*line)
        assert result.exit_code == 2
        assert "a name is empty: is a variable not set?" in result.stderr
    result = run("explain", explainer, "", "-o", "out")
    assert result.exit_code == 1
    assert result.stderr == "Error: the name of an input is empty: is a variable not set?\n"
    assert not Path("out").exists()


def test_results_do_not_go_where_the_inputs_are(run, explainer: Path):
    Path("data").mkdir()
    np.save("data/a.npy", np.zeros((3, 8, 8), np.float32))
    result = run("explain", explainer, "data", "-o", "data")
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: data is where results go: give them another folder\n",
    )
    for _ in range(2):
        result = run("explain", explainer, "data", "-o", "data/why")
        assert result.exit_code == 0
        assert "1 item" in result.output


@pytest.mark.skipif(os.name == "nt", reason="names of POSIX")
def test_a_line_break_in_a_name_breaks_no_line(run, explainer: Path, photo: Path):
    result = run("inspect", "no\nsuch.onnx")
    assert result.stderr == "Error: no\\nsuch.onnx does not exist\n"
    photo.rename("my\nphoto.png")
    Path("bad\nname.png").write_text("no picture")
    result = run("explain", explainer, "my\nphoto.png", "bad\nname.png", "-o", "out")
    assert "my\\nphoto.png: " in result.stdout
    assert "my\nphoto.png" not in result.stdout
    assert "Error: bad\\nname.png" in result.stderr
    assert "bad\nname.png" not in result.stderr
