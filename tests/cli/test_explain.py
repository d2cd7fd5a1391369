import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import onnxlrp
from onnxlrp.cli import main
from onnxlrp.drawing.heatmap import heatmap
from onnxlrp.running.explainer import Explainer


def test_a_picture_gets_an_array_and_a_sheet(run, explainer: Path, photo: Path, preprocessing):
    result = run("explain", explainer, photo, "-o", "out/maps")
    assert result.exit_code == 0, result.output
    folder = Path("out/maps")
    assert sorted(path.name for path in folder.iterdir()) == [
        "journal.jsonl",
        "photo.relevance.npy",
        "photo.sheet.png",
        "results.csv",
        "results.json",
    ]
    relevance = np.load(folder / "photo.relevance.npy")
    with Image.open(photo) as picture:
        expected = Explainer(explainer)(preprocessing(picture)[None])
    np.testing.assert_array_equal(relevance, expected.relevance[0])
    with Image.open(folder / "photo.sheet.png") as drawing:
        # Three panels of 8 x 8 pixels, enlarged 28 times.
        assert drawing.mode == "RGB"
        assert drawing.width == 3 * 224 + 4 * 12


def test_it_says_class_score_and_sum_of_relevance(run, explainer: Path, photo: Path, preprocessing):
    result = run("explain", explainer, photo, "-o", "out", "--target", 2)
    with Image.open(photo) as picture:
        explained = Explainer(explainer)(preprocessing(picture)[None], target=2)
    total = np.load("out/photo.relevance.npy").sum(dtype=np.float64)
    share = total / explained.score[0]
    assert result.stdout == (
        f"{photo}: class 2, score {explained.score[0]:.4g}, "
        f"relevance sums to {total:.4g} ({share:.1%} of the score)\n"
    )
    assert "Pictures were resized to 8x8 (height x width), RGB, values 0..1, NCHW" in result.stderr
    (row,) = json.loads(Path("out/results.json").read_text())
    assert row["item"] == "photo"
    assert row["target"] == 2
    assert row["score"] == pytest.approx(float(explained.score[0]))
    assert row["share"] == pytest.approx(share)
    with open("out/results.csv", newline="") as file:
        (written,) = csv.DictReader(file)
    assert float(written["relevance"]) == row["relevance"]


def test_the_logit_of_a_probability_is_what_relevance_is_held_against(
    run, photo: Path, classifier, preprocessing
):
    conversion = onnxlrp.convert(classifier(softmax=True), preprocessing=preprocessing)
    conversion.save(Path("explainer.onnx"))
    result = run("explain", "explainer.onnx", photo, "-o", "out")
    found = re.search(r"score (\S+), relevance sums to (\S+) \((\S+)% of", result.stdout)
    score, relevance, share = map(float, found.groups())
    assert 100 * relevance / score == pytest.approx(share, abs=0.1)
    with onnxlrp.Explainer("explainer.onnx") as explainer, Image.open(photo) as picture:
        explanation = explainer(preprocessing(picture)[None])
    (probabilities,) = explanation.outputs["probability"]
    assert score == pytest.approx(explanation.scores.max(), rel=1e-3)
    powers = np.exp(explanation.scores[0])
    np.testing.assert_allclose(powers / powers.sum(), probabilities, rtol=1e-5)
    assert list(explanation.outputs) == ["probability"]


def test_several_pictures_and_the_target_of_each_kind(run, explainer: Path, photo: Path):
    other = photo.with_name("other.jpg")
    Image.new("RGB", (50, 50), (200, 30, 30)).save(other)
    result = run("explain", explainer, photo, other, "-o", "out", "--target", "top")
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 2
    assert len(list(Path("out").glob("*.png"))) == 2


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
    line = refused(run("explain", "explainer.onnx", photo, "-o", "other", *flags))
    assert "whole numbers (uint8)" in line


def refused(result) -> str:
    """The one line that a refused call prints."""
    assert result.exit_code == 1
    assert result.stdout == ""
    assert re.fullmatch(r"(Error: [^\n]+\n)(0 items in [^\n]+\n)?", result.stderr)
    return result.stderr


def test_a_plain_model_is_refused(run, model: Path, photo: Path):
    assert "onnxlrp convert" in refused(run("explain", model, photo, "-o", "out"))


def test_a_picture_of_a_wrong_shape(run, explainer: Path, photo: Path):
    line = refused(run("explain", explainer, photo, "-o", "out", "--resize", "9x9"))
    assert "photo.png: a picture is made [3, 9, 9], the model reads [3, 8, 8]: change" in line
    assert list(Path("out").glob("*.png")) == []


def test_a_file_that_is_no_picture(run, explainer: Path, tmp_path: Path):
    notes = tmp_path / "notes.txt"
    notes.write_text("no picture")
    assert "notes.txt is not a picture" in refused(run("explain", explainer, notes, "-o", "out"))


def test_a_picture_that_is_not_there(run, explainer: Path):
    line = refused(run("explain", explainer, "missing.png", "-o", "out"))
    assert line == "Error: missing.png: No such file or directory\n"


def test_a_class_that_does_not_exist(run, explainer: Path, photo: Path):
    line = refused(run("explain", explainer, photo, "-o", "out", "--target", 3))
    assert "3 is not a class: they are 0 to 2" in line


def test_a_file_in_the_place_of_the_folder(run, explainer: Path, photo: Path):
    Path("out").write_text("")
    result = run("explain", explainer, photo, "-o", "out")
    assert result.exit_code == 2
    assert "Directory 'out' is a file" in result.stderr
    said = "Error: folder is a folder: give a file\n"
    Path("folder").mkdir()
    assert run("explain", "folder", photo, "-o", "why").stderr == said


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(run, explainer: Path, photo: Path):
    Path("out").mkdir(mode=0o500)
    assert "Permission denied" in refused(run("explain", explainer, photo, "-o", "out"))


def test_pictures_of_the_same_name_do_not_overwrite_each_other(
    run, explainer: Path, photo: Path, tmp_path: Path
):
    (tmp_path / "b").mkdir()
    other = tmp_path / "b" / "photo.jpg"
    Image.open(photo).save(other)
    assert run("explain", explainer, photo, other, "-o", "out").exit_code == 0
    assert sorted(path.name for path in Path("out").glob("*.npy")) == [
        "photo.jpg.relevance.npy",
        "photo.png.relevance.npy",
    ]


def test_a_name_that_another_file_has_in_the_folder_is_refused(
    run, explainer: Path, photo: Path, tmp_path: Path
):
    assert run("explain", explainer, photo, "-o", "out").exit_code == 0
    (tmp_path / "b").mkdir()
    other = photo.rename(tmp_path / "b" / "photo.png")
    line = refused(run("explain", explainer, other, "-o", "out"))
    assert "holds results of" in line
    assert "give another folder" in line


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of five pictures, the third of which is cut short."""
    folder = tmp_path / "set"
    folder.mkdir()
    for number in range(5):
        noise = np.random.default_rng(number).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    broken = folder / "2.png"
    broken.write_bytes(broken.read_bytes()[:80])
    return folder


def test_a_bad_picture_in_a_batch_costs_nothing_else(run, explainer: Path, pictures: Path):
    result = run("explain", explainer, pictures, "-o", "out", "--batch", 4)
    assert result.exit_code == 1
    assert sorted(path.name[0] for path in Path("out").glob("*.npy")) == ["0", "1", "3", "4"]
    (failed,) = json.loads(Path("out/failed.json").read_text())
    assert failed["item"] == "2"
    assert "not a readable picture" in failed["reason"]
    Image.new("RGB", (9, 9)).save(pictures / "2.png")
    again = run("explain", explainer, pictures, "-o", "out", "--batch", 4)
    assert again.exit_code == 0
    assert "4 of 5 items were done before" in again.stderr
    assert len(again.stdout.splitlines()) == 1
    assert not Path("out/failed.json").exists()
    assert len(json.loads(Path("out/results.json").read_text())) == 5


def test_a_picture_replaced_under_its_name_is_done_again(run, explainer: Path, pictures: Path):
    (pictures / "2.png").unlink()
    run("explain", explainer, pictures, "-o", "out")
    before = {row["item"]: row for row in json.loads(Path("out/results.json").read_text())}
    Image.new("RGB", (9, 9), (200, 10, 90)).save(pictures / "1.png")
    Path("out/3.sheet.png").unlink()
    again = run("explain", explainer, pictures, "-o", "out")
    assert "2 of 4 items were done before" in again.stderr
    after = {row["item"]: row for row in json.loads(Path("out/results.json").read_text())}
    assert before.keys() == after.keys()
    assert [name for name in sorted(after) if after[name] != before[name]] == ["1"]
    assert Path("out/3.sheet.png").exists()


def test_a_link_to_nothing_costs_only_itself(run, explainer: Path, photo: Path):
    Path("folder").mkdir()
    shutil.copy(photo, "folder/a.png")
    Path("folder/b.png").symlink_to("nowhere.png")
    result = run("explain", explainer, "folder", "-o", "out")
    assert result.exit_code == 1
    assert len(json.loads(Path("out/results.json").read_text())) == 1
    assert "folder/b.png" in result.stderr


def test_links_to_themselves_and_to_folders_above_cost_only_themselves(
    run, explainer: Path, photo: Path
):
    Path("folder/inner").mkdir(parents=True)
    shutil.copy(photo, "folder/inner/a.png")
    Path("folder/inner/self.png").symlink_to("self.png")
    Path("folder/inner/up").symlink_to("..")
    Path("folder/here").symlink_to(".")
    result = run("explain", explainer, "folder", "-o", "out")
    assert result.exit_code == 1
    (row,) = json.loads(Path("out/results.json").read_text())
    assert row["item"] == "inner/a"
    (failed,) = json.loads(Path("out/failed.json").read_text())
    assert failed["source"] == "folder/inner/self.png"


def test_a_broken_array_in_a_folder_costs_only_itself(run, explainer: Path, photo: Path):
    Path("folder").mkdir()
    shutil.copy(photo, "folder/a.png")
    Path("folder/b.npy").write_text("no array")
    np.savez("folder/c.npz")
    np.save("folder/d.npy", np.zeros((0, 3, 8, 8), np.float32))
    result = run("explain", explainer, "folder", "-o", "out")
    assert result.exit_code == 1
    assert len(json.loads(Path("out/results.json").read_text())) == 1
    failed = json.loads(Path("out/failed.json").read_text())
    assert [one["item"] for one in failed] == ["b", "c", "d"]
    assert "is not a readable array" in failed[0]["reason"]
    assert run("explain", explainer, "folder/b.npy", "-o", "other").exit_code == 1
    assert not Path("other").exists()


def test_a_name_without_room_for_an_ending_costs_only_itself(run, explainer: Path, photo: Path):
    Path("folder").mkdir()
    for name in ("a", "x" * 245, "z"):
        shutil.copy(photo, f"folder/{name}.png")
    result = run("explain", explainer, "folder", "-o", "out")
    assert result.exit_code == 1
    assert len(json.loads(Path("out/results.json").read_text())) == 2
    assert f"{'x' * 245}.png: its name is too long" in result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text here")
@pytest.mark.parametrize("options", [(), ("--format", "npy", "--shard", "2")])
def test_a_name_that_is_not_utf_8_is_written_out(run, explainer: Path, photo: Path, options):
    name = os.fsdecode(b"caf\xe9.png")
    Path("folder").mkdir()
    shutil.copy(photo, Path("folder", name))
    result = run("explain", explainer, "folder", "-o", "out", *options)
    assert result.exit_code == 0, result.output
    assert r"folder/caf\udce9.png" in Path("out/results.csv").read_text(encoding="utf-8")
    assert json.loads(Path("out/results.json").read_text())[0]["item"] == name[:-4]


def test_without_ray_workers_leave_nothing(run, explainer: Path, photo: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    line = refused(run("explain", explainer, photo, "-o", "out", "--workers", 2))
    assert "pip install 'onnxlrp[ray]'" in line
    assert not Path("out").exists()


def test_threads_have_a_bound(run, explainer: Path, photo: Path):
    result = run("explain", explainer, photo, "-o", "out", "--threads", 999_999)
    assert result.exit_code == 2
    assert "1<=x<=1024" in result.stderr


def test_a_folder_in_which_everything_failed_takes_other_settings(run, explainer: Path):
    Path("bad").mkdir()
    Path("bad/a.png").write_bytes(b"no picture")
    assert run("explain", explainer, "bad", "-o", "out").exit_code == 1
    Image.new("RGB", (9, 9)).save("bad/a.png")
    assert run("explain", explainer, "bad", "-o", "out", "--colours", "coldnhot").exit_code == 0


def test_other_settings_need_another_folder_or_overwrite(run, explainer: Path, photo: Path):
    run("explain", explainer, photo, "-o", "out")
    line = refused(run("explain", explainer, photo, "-o", "out", "--target", 1))
    assert "made with other settings (target)" in line
    anew = run("explain", explainer, photo, "-o", "out", "--target", 1, "--overwrite")
    assert anew.exit_code == 0
    assert json.loads(Path("out/results.json").read_text())[0]["target"] == 1


def test_rows_of_another_version_are_not_gone_on_with(run, explainer: Path, photo: Path):
    assert run("explain", explainer, photo, "-o", "out").exit_code == 0
    journal = Path("out/journal.jsonl")
    settings, entry = map(json.loads, journal.read_text().splitlines())
    settings["settings"]["columns"].remove("rank")
    del entry["rows"][0]["rank"]
    journal.write_text(f"{json.dumps(settings)}\n{json.dumps(entry)}\n")
    line = refused(run("explain", explainer, photo, "-o", "out"))
    assert "made with other settings (columns)" in line
    assert run("explain", explainer, photo, "-o", "out", "--overwrite").exit_code == 0


def test_the_best_classes_by_name(run, explainer: Path, photo: Path, preprocessing):
    Path("names.txt").write_text("cat\ndog, hound\nfish\n")
    result = run(
        "explain", explainer, photo, "-o", "out", "--labels", "names.txt", "--target", "top:2"
    )
    assert result.exit_code == 0, result.output
    with Image.open(photo) as picture:
        images = preprocessing(picture)[None]
    scores = Explainer(explainer)(images).scores[0]
    rows = json.loads(Path("out/results.json").read_text())
    assert [row["target"] for row in rows] == list(np.argsort(-scores)[:2])
    assert [row["rank"] for row in rows] == [1, 2]
    for rank, row in enumerate(rows, 1):
        # In a folder, the best class stands before the second.
        relevance = np.load(f"out/photo.top{rank}-{row['target']}.relevance.npy")
        expected = Explainer(explainer)(images, target=row["target"]).relevance[0]
        np.testing.assert_array_equal(relevance, expected)
        assert row["label"] == ["cat", "dog, hound", "fish"][row["target"]]
    named = run(
        "explain", explainer, photo, "-o", "hound", "--labels", "names.txt", "--target", "Hound"
    )
    assert f"{photo}: dog, hound (1), score" in named.stdout


def test_a_class_for_each_item_from_a_file(run, explainer: Path, pictures: Path):
    Image.new("RGB", (9, 9)).save(pictures / "2.png")
    Path("classes.csv").write_text("item,class\n" + "".join(f"{n},{n % 3}\n" for n in range(5)))
    result = run("explain", explainer, pictures, "-o", "out", "--target", "classes.csv")
    assert result.exit_code == 0, result.output
    rows = json.loads(Path("out/results.json").read_text())
    assert [(row["item"], row["target"]) for row in rows] == [(str(n), n % 3) for n in range(5)]


def test_arrays_as_the_model_reads_them_and_as_pictures(
    run, explainer: Path, photo: Path, preprocessing
):
    with Image.open(photo) as picture:
        values, pixels = preprocessing(picture), np.asarray(picture)
    np.save("floats.npy", np.stack([values, values[:, ::-1]]))
    np.savez("pixels.npz", x=pixels[None], y=np.array([1]))
    result = run("explain", explainer, "floats.npy", "pixels.npz", "-o", "out")
    assert result.exit_code == 0, result.output
    expected = Explainer(explainer)(values[None]).relevance[0]
    for name in ("floats/0", "pixels/0"):
        np.testing.assert_array_equal(np.load(f"out/{name}.relevance.npy"), expected)
    assert Path("out/floats/1.sheet.png").exists()


def test_a_list_on_standard_input(explainer: Path, pictures: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed = f"{pictures / '0.png'}\n{pictures / '4.png'}\n"
    result = CliRunner().invoke(main, ["explain", str(explainer), "-", "-o", "out"], input=listed)
    assert result.exit_code == 0, result.output
    assert len(list(Path("out").glob("*.npy"))) == 2


def test_hdf5_in_the_layout_of_zennits_example(run, explainer: Path, pictures: Path):
    Image.new("RGB", (9, 9)).save(pictures / "2.png")
    run("explain", explainer, pictures, "-o", "out", "--format", "hdf5")
    with h5py.File("out/attribution.h5") as file:
        assert file["attribution"].shape == (5, 3, 8, 8)
        assert file["attribution"].dtype == np.float32
        assert file["prediction"].shape == (5, 3)
        np.testing.assert_array_equal(file["label"], np.argmax(file["prediction"], axis=1))
        assert [name.decode() for name in file["item"]] == list("01234")
        with np.load("out/3.relevance.npz") as arrays:
            np.testing.assert_array_equal(file["attribution"][3], arrays["relevance"])


def test_a_shared_scale_makes_colours_comparable(run, explainer: Path, pictures: Path):
    Image.new("RGB", (9, 9)).save(pictures / "2.png")
    flags = ["--format", "heatmap,npy", "--colour-scale", "shared"]
    result = run("explain", explainer, pictures, "-o", "out", *flags)
    assert result.exit_code == 0, result.output
    rows = json.loads(Path("out/results.json").read_text())
    full = max(row["full"] for row in rows)
    for row in rows:
        relevance = np.load(f"out/{row['item']}.relevance.npy")
        drawn = np.asarray(Image.open(f"out/{row['item']}.heatmap.png"))
        np.testing.assert_array_equal(drawn, np.asarray(heatmap(relevance, full=full)))


def test_scores_that_are_all_alike_raise_a_doubt(run, photo: Path, classifier, preprocessing):
    model = classifier()
    matrix = next(tensor for tensor in model.graph.initializer if tensor.name == "matrix")
    matrix.CopyFrom(numpy_helper.from_array(np.full((4, 3), 1e-4, np.float32), "matrix"))
    onnxlrp.convert(model, preprocessing=preprocessing).save(Path("explainer.onnx"))
    result = run("explain", "explainer.onnx", photo, "-o", "out")
    assert "scores all classes nearly alike: is this how its input is made?" in result.stderr


def test_one_class_for_all_of_many_raises_a_doubt(run, explainer: Path, photo: Path):
    Path("folder").mkdir()
    for number in range(10):
        shutil.copy(photo, f"folder/{number}.png")
    doubted = run("explain", explainer, "folder", "--target", "top:2", "-o", "out").stderr
    assert "for 10 of 10 items: is this how its input is made?" in doubted
    asked = run("explain", explainer, "folder", "--target", 1, "-o", "asked")
    assert "Warning" not in asked.stderr
    Path("folder/9.png").unlink()
    assert "Warning" not in run("explain", explainer, "folder", "-o", "fewer").stderr


def test_the_best_three_of_each_of_several(run, explainer: Path):
    """Further classes of a picture come out of one run, in the order of their scores."""
    pictures = np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32)
    np.save("set.npy", pictures)
    result = run("explain", explainer, "set.npy", "--target", "top:3", "-o", "out", "--batch", 2)
    assert result.exit_code == 0, result.output
    rows = json.loads(Path("out/results.json").read_text())
    assert len(rows) == 9
    session = Explainer(explainer)
    for place, picture in enumerate(pictures):
        own = rows[3 * place : 3 * place + 3]
        scores = session(picture[None]).scores[0]
        assert [row["target"] for row in own] == list(np.argsort(-scores))
        for rank, row in enumerate(own, 1):
            alone = session(picture[None], target=row["target"])
            assert row["score"] == pytest.approx(alone.score[0], rel=1e-5)
            stem = f"out/{row['item']}.top{rank}-{row['target']}"
            found = np.load(f"{stem}.relevance.npy")
            np.testing.assert_allclose(
                found, alone.relevance[0], atol=1e-6 * np.abs(alone.relevance).max()
            )


@pytest.mark.parametrize("shape", [(2, 40), (6,)])
def test_signals_and_tables_are_drawn_as_what_they_are(run, shape):
    flat = int(np.prod(shape))
    weight = np.random.default_rng(0).normal(size=(flat, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "rows",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnxlrp.convert(model).save(Path("explainer.onnx"))
    np.save("rows.npy", np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32))
    result = run("explain", "explainer.onnx", "rows.npy", "-o", "out")
    assert result.exit_code == 0, result.output
    assert len(list(Path("out/rows").glob("*.sheet.png"))) == 2
    line = refused(run("explain", "explainer.onnx", "rows.npy", "-o", "no", "--format", "heatmap"))
    assert "reads no pictures" in line


# A run in the background is started with the signal ignored.
CODE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from onnxlrp.cli import main
main()
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_goes_on_where_it_stopped(explainer: Path, tmp_path: Path, number):
    rows = np.random.default_rng(0).random((400, 3, 8, 8), np.float32)
    np.save(tmp_path / "x.npy", rows)
    command = [sys.executable, "-c", CODE]
    command += ["explain", explainer, "x.npy", "-o", "out"]
    first = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    journal = tmp_path / "out" / "journal.jsonl"
    while not journal.exists() or journal.read_bytes().count(b"\n") < 20:
        time.sleep(0.02)
        assert first.poll() is None
    first.send_signal(number)
    _, said = first.communicate()
    if number == signal.SIGINT:
        assert (first.returncode, said.strip().splitlines()[-1]) == (130, "Interrupted")
        assert "Traceback" not in said
    done = journal.read_bytes().count(b"\n") - 1
    assert 0 < done < 400
    second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.search(r"\d+ of 400 items were done before", second.stderr)
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())) == 400
    expected = Explainer(explainer)(rows[:1]).relevance[0]
    found = np.load(tmp_path / "out" / "x" / "000.relevance.npy")
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())


def test_a_model_of_pictures_explains_no_text(run, explainer: Path, photo: Path):
    line = refused(run("explain", explainer, "--text", "a film", "-o", "out"))
    assert "--text is for texts" in line
    assert "this one reads image float32 [N, 3, 8, 8]" in line
    line = refused(run("explain", explainer, photo, "-o", "out", "--format", "html"))
    assert "--format html is one of texts" in line


def test_why_one_class_and_not_another(run, model: Path, photo: Path, preprocessing):
    """By names, on an explainer that takes weights; files, results and words tell of both."""
    Path("names.txt").write_text("cat\ndog\nT-shirt\n")
    made = run(
        "convert", model, "w.onnx", "--target", "weights", "--resize", "8x8", "--scale", "1/255"
    )
    assert made.exit_code == 0, made.output
    asked = ("--target", "T-shirt-cat", "--labels", "names.txt", "--format", "npy,hdf5")
    result = run("explain", "w.onnx", photo, "-o", "out", *asked)
    assert result.exit_code == 0, result.output
    assert "T-shirt (2) minus cat (0), difference of scores " in result.stdout
    assert "of the difference of scores)" in result.stdout
    (row,) = json.loads(Path("out/results.json").read_text())
    assert row["target"] == "2-0"
    assert row["label"] == "T-shirt minus cat"
    with Image.open(photo) as picture:
        picture = preprocessing(picture)[None]
    plain = Explainer(onnxlrp.convert(model).to_proto().SerializeToString())
    one, other = plain(picture, 2), plain(picture, 0)
    assert row["score"] == pytest.approx(float(one.score[0] - other.score[0]), rel=1e-5)
    relevance = np.load("out/photo.relevance.npy")
    wanted = one.relevance[0] - other.relevance[0]
    np.testing.assert_allclose(relevance, wanted, atol=1e-5 * np.abs(wanted).max())
    with h5py.File("out/attribution.h5") as file:
        assert file["label"][:].tolist() == [2]


@pytest.mark.parametrize(
    ("target", "text"),
    [("2-9", "9 is not a class: they are 0 to 2"), ("2-0", "convert with --target weights")],
)
def test_differences_that_cannot_be_explained(run, explainer: Path, photo: Path, target, text):
    result = run("explain", explainer, photo, "-o", "out", "--target", target)
    assert result.exit_code == 1
    assert re.fullmatch(r"Error: [^\n]+\n", result.stderr)
    assert text in result.stderr
    assert not Path("out").exists()


def test_references_are_given_when_it_runs(run, model: Path, photo: Path):
    flags = ["--resize", "8x8", "--scale", "1/255"]
    options = ["--composite", "epsilon", "--reference", "input", *flags]
    assert run("convert", model, "explainer.onnx", *options).exit_code == 0
    Path("roots").mkdir()
    for seed in (1, 2):
        roots = np.random.default_rng(seed).normal(size=(3, 8, 8)).astype(np.float32)
        np.save(f"roots/{seed}.npy", roots)
    lonely = run("explain", "explainer.onnx", photo, "-o", "out")
    assert lonely.exit_code == 1
    assert "takes its reference when it runs: give --reference" in lonely.stderr
    maps = []
    for given in (["roots/1.npy"], ["roots/2.npy"], ["roots"], ["roots/1.npy", "roots/2.npy"]):
        named = [part for one in given for part in ("--reference", one)]
        result = run("explain", "explainer.onnx", photo, *named, "-o", "out", "--overwrite")
        assert result.exit_code == 0, result.output
        maps.append(np.load("out/photo.relevance.npy"))
    np.testing.assert_allclose(maps[2], (maps[0] + maps[1]) / 2, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(maps[2], maps[3])
    assert run("convert", model, "plain.onnx", *flags).exit_code == 0
    refused = run("explain", "plain.onnx", photo, "--reference", "zero", "-o", "other")
    assert "takes no reference when it runs: convert with --reference input" in refused.stderr


def test_maps_that_account_for_little_of_the_score_are_warned_of(run, photo: Path, classifier):
    model = classifier()
    bias = numpy_helper.from_array(np.full(3, 500, np.float32), "bias")
    model.graph.initializer.append(bias)
    model.graph.node[-1].input.append("bias")
    onnxlrp.convert(model, "epsilon").save(Path("explainer.onnx"))
    flags = ["--resize", "8x8", "--scale", "1/255"]
    result = run("explain", "explainer.onnx", photo, *flags, "-o", "out")
    assert "1 of 1 maps account for less than half or more than twice of the score" in result.stderr
    assert "convert --reference mean leaves them nothing" in result.stderr
