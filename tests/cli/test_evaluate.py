import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnxlrp.evaluation.study import Interval

FLAGS = ["--resize", "8x8", "--scale", "1/255"]
METHODS = ["--composite", "epsilon", "--composite", "epsilon_plus; LRN: identity"]


def pictures(count: int) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    np.savez("x.npz", x=noise)
    return Path("x.npz")


def test_a_table_and_a_figure(run, model: Path):
    result = run("evaluate", model, "--data", pictures(5), *METHODS, *FLAGS, "-o", "out", "--at", 9)
    assert result.exit_code == 0, result.output
    found = json.loads(Path("out/results.json").read_text())
    assert found["samples"] == 5
    means = {(row["measure"], row["method"]): row for row in found["results"] if not row["minus"]}
    low = means["AUC descending", "epsilon"]["mean"]
    assert (
        low
        < means["AUC descending", "random order"]["mean"]
        < means["AUC ascending", "epsilon"]["mean"]
    )
    chance = next(
        row
        for row in found["results"]
        if (row["measure"], row["method"], row["minus"])
        == ("AUC ascending", "random order", "epsilon")
    )
    assert chance["mean"] < 0
    assert ("AUC descending at 9", "epsilon_plus; LRN: identity") in means
    with open("out/results.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(found["results"])
    assert Image.open("out/curves.png").size[0] > 500
    assert "AUC descending" in result.stdout
    assert "resized to 8x8" in result.stdout
    assert "fewer than 20 pictures are rough" in result.stderr


def test_numbers_are_never_cut(run, model: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "40")
    flags = [*FLAGS, "-o", "out", "--order", "descending"]
    result = run("evaluate", model, "--data", pictures(3), *METHODS, *flags)
    for row in json.loads(Path("out/results.json").read_text())["results"]:
        assert str(Interval(row["mean"], row["low"], row["high"])) in result.stdout


def test_a_larger_subset_goes_on_where_a_smaller_one_stopped(run, model: Path):
    arguments = ["evaluate", model, "--data", pictures(6), *METHODS, *FLAGS, "-o", "out"]
    assert run(*arguments, "--images", 2).exit_code == 0
    few = Path("out/journal.jsonl").read_text()
    assert run(*arguments, "--images", 5).exit_code == 0
    more = Path("out/journal.jsonl").read_text()
    assert more.startswith(few)
    assert len(more.splitlines()) == 6
    other = run(*arguments, "--seed", 1)
    assert other.exit_code == 1
    assert "made with other settings (seed)" in other.stderr


def test_a_composite_is_added_to_what_was_judged_before(run, model: Path, monkeypatch):
    """It alone is judged; what is told is bit for bit what one run of all tells."""
    from onnxlrp.evaluation.flipping import Flipping

    data = ["evaluate", model, "--data", pictures(6), *FLAGS, "--batch", 7]
    assert run(*data, *METHODS, "-o", "later").exit_code == 0
    ranked = []
    ranks = Flipping.ranks
    monkeypatch.setattr(Flipping, "ranks", lambda *of: ranked.append(of[2]) or ranks(*of))
    added = [*METHODS[:2], "--composite", "gradient_x_input", *METHODS[2:]]
    assert run(*data, *added, "-o", "later").exit_code == 0
    # Of each picture one new composite, and no random order.
    assert ranked == ["descending", "ascending"] * 6
    assert run(*data, *added, "-o", "once").exit_code == 0
    for name in ("results.csv", "results.json", "curves.png"):
        assert Path("later", name).read_bytes() == Path("once", name).read_bytes()

    ranked.clear()
    assert run(*data, *METHODS, "-o", "later").exit_code == 0
    told = Path("later/results.csv").read_text()
    assert "gradient_x_input" not in told
    assert run(*data, *METHODS, "-o", "two").exit_code == 0
    assert told == Path("two/results.csv").read_text()
    ranked.clear()
    assert run(*data, *added, "-o", "later").exit_code == 0
    assert ranked == []
    assert Path("later/results.csv").read_bytes() == Path("once/results.csv").read_bytes()


def test_a_composite_that_changed_is_not_taken_for_what_it_was(run, model: Path):
    mine = Path("mine.toml")
    mine.write_text('[[rules]]\nrule = "epsilon"\nepsilon = 0.1\n')
    data = ["evaluate", model, "--data", pictures(2), *FLAGS, "-o", "out"]
    assert run(*data, "--composite", mine).exit_code == 0
    before = Path("out/journal.jsonl").read_bytes()
    mine.write_text('[[rules]]\nrule = "epsilon"\nepsilon = 0.2\n')
    result = run(*data, "--composite", mine, "--composite", "epsilon")
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: out holds results of another composite called mine.toml: rename the file, give "
        "another folder, or --overwrite to start anew\n"
    )
    assert Path("out/journal.jsonl").read_bytes() == before
    assert run(*data, "--composite", "epsilon").exit_code == 0
    for changed, name in [(("--flips", 9), "flips"), (("--replace", "mean"), "replacement")]:
        refused = run(*data, "--composite", "epsilon", *changed)
        assert refused.exit_code == 1
        assert f"made with other settings ({name})" in refused.stderr


def test_results_of_other_data_are_not_taken_for_these(run, model: Path):
    """Other pictures, maps or masks under the names of those before."""
    random = np.random.default_rng(1)
    np.save("theirs.npy", random.normal(size=(2, 8, 8)))
    np.save("masks.npy", np.eye(8, dtype=bool)[None].repeat(2, axis=0))
    arguments = ["evaluate", model, "--data", pictures(2), *FLAGS, "-o", "out"]
    arguments += ["--maps", "theirs=theirs.npy", "--masks", "masks.npy"]
    assert run(*arguments).exit_code == 0
    assert run(*arguments).exit_code == 0
    for path in map(Path, ("x.npz", "theirs.npy", "masks.npy")):
        before = path.read_bytes()
        if path.suffix == ".npz":
            np.savez(path, x=random.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8))
        else:
            np.save(path, np.load(path)[::-1, :, ::-1])
        changed = run(*arguments)
        assert changed.exit_code == 1
        assert "holds results of another x/0, of other maps or masks" in changed.stderr
        path.write_bytes(before)
    assert "of another x/0" in run(*arguments[:-2]).stderr


def test_maps_and_masks_given_as_files(run, model: Path):
    np.save("theirs.npy", np.random.default_rng(1).normal(size=(3, 8, 8)))
    np.save("masks.npy", np.eye(8, dtype=bool)[None].repeat(3, axis=0))
    result = run(
        *("evaluate", model, "--data", pictures(3), "--maps", "theirs=theirs.npy"),
        *("--masks", "masks.npy", "--composite", "epsilon", *FLAGS, "-o", "out"),
    )
    assert result.exit_code == 0, result.output
    found = json.loads(Path("out/results.json").read_text())["results"]
    measured = {row["measure"] for row in found if row["method"] == "theirs"}
    assert {"AUC descending", "mass accuracy", "rank accuracy", "complexity"} <= measured


def test_a_box_is_the_mask_of_its_pixels(run, model: Path):
    boxes = np.array([[2, 0, 8, 5]] * 3)
    masks = np.zeros((3, 8, 8), dtype=bool)
    masks[:, 0:5, 2:8] = True
    for name, array in {"boxes": boxes, "same": masks}.items():
        np.save(f"{name}.npy", array)
        again = ("--masks", f"{name}.npy", *METHODS, *FLAGS, "-o", name)
        assert run("evaluate", model, "--data", pictures(3), *again).exit_code == 0
    assert "mass accuracy" in Path("same/results.csv").read_text()
    assert Path("boxes/results.csv").read_text() == Path("same/results.csv").read_text()


def test_what_is_missing_is_asked_for(run, model: Path):
    data = ["evaluate", model, "--data", pictures(2), "-o", "out"]
    assert "name what is to be judged" in run(*data, *FLAGS).stderr
    assert "say how pictures are made" in run(*data, *METHODS).stderr
    np.save("one.npy", np.zeros((1, 8, 8)))
    short = run(*data, *FLAGS, "--maps", "theirs=one.npy")
    assert "one.npy has 1 maps for 2 pictures" in short.stderr
    assert "--maps takes NAME=FILE" in run(*data, *FLAGS, "--maps", "one.npy").stderr
    assert "called random order" in run(*data, *FLAGS, "--maps", "random order=one.npy").stderr
    assert "'--seed'" in run(*data, *FLAGS, *METHODS, "--seed", -1).stderr
    np.save("empty.npy", np.zeros((0, 8, 8, 3), np.uint8))
    empty = run(*data[:3], "empty.npy", *data[4:], *METHODS, *FLAGS)
    assert "empty.npy is empty: [0, 8, 8, 3]" in empty.stderr
    assert "called epsilon" in run(*data, *FLAGS, *METHODS, "--maps", "epsilon=one.npy").stderr
    Path("text.npy").write_text("no array")
    line = run(*data, *FLAGS, "--maps", "theirs=text.npy").stderr
    assert "text.npy is not a readable array" in line
    assert "pickle" not in line
    floats = [*data[:3], "floats.npy", *data[4:]]
    np.save("floats.npy", np.zeros((2, 3, 8, 8), np.float32))
    assert "is no picture: those are uint8" in run(*floats, *METHODS, *FLAGS).stderr


def test_what_does_not_fit_is_said_before_anything_is_written(run, model: Path):
    maps = np.zeros((2, 8, 8))
    maps[0, 1, 2] = np.nan
    np.save("nan.npy", maps)
    np.save("small.npy", maps[:, :4])
    np.save("box.npy", np.array([[5, 5, 2, 8]] * 2))
    np.save("nothing.npy", np.zeros((2, 8, 8), dtype=bool))
    data = ["evaluate", model, "--data", pictures(2), "-o", "out", *METHODS]
    for flags, text in {
        ("--scale", "1/255", "--resize", "9x8"): "the model reads [3, 8, 8] as 'image', not "
        "[3, 9, 8]: change --preprocess",
        (*FLAGS, "--at", 65): "no area after 65 flips where there are 64",
        (*FLAGS, "--flips", 65): "65 flips where 8x8 make 64",
        (*FLAGS, "--region", 9): "regions of 9 are larger than 8x8",
        (*FLAGS, "--maps", "theirs=nan.npy"): "theirs holds NaN or infinity",
        (*FLAGS, "--maps", "theirs=small.npy"): "a map [4, 8] for a picture of 8x8 pixels",
        (*FLAGS, "--masks", "nothing.npy"): "nothing is inside its mask",
        (*FLAGS, "--masks", "nan.npy"): "or it holds NaN",
        (*FLAGS, "--masks", "box.npy"): "nothing is inside its mask or box",
        (*FLAGS, "--masks", "small.npy"): "a mask [4, 8] for relevance [8, 8]",
    }.items():
        result = run(*data, *flags)
        assert result.exit_code == 1
        assert "Error: x/0: " in result.stderr
        assert text in result.stderr
        assert not Path("out").exists()


def test_shuffled_weights_change_the_maps(run, model: Path):
    result = run(
        *("evaluate", model, "--data", pictures(3), "--composite", "epsilon", *FLAGS, "-o", "out"),
        *("--randomise", 2),
    )
    assert result.exit_code == 0, result.output
    steps = json.loads(Path("out/randomised.json").read_text())["methods"]["epsilon"]
    assert list(steps) == ["classify", "conv"]
    assert steps["conv"]["mean"] < 0.9
    anew = ("--composite", "epsilon_plus", *FLAGS, "-o", "out", "--overwrite")
    assert run("evaluate", model, "--data", "x.npz", *anew).exit_code == 0
    assert not Path("out/randomised.json").exists()
