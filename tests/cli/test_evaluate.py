import csv
import json
from pathlib import Path

import numpy as np
from PIL import Image

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
    assert found["pictures"] == 5
    means = {(row["measure"], row["method"]): row for row in found["results"] if not row["minus"]}
    low = means["AUC descending", "epsilon"]["mean"]
    assert (
        low
        < means["AUC random", "random order"]["mean"]
        < means["AUC ascending", "epsilon"]["mean"]
    )
    assert ("AUC descending at 9", "epsilon_plus; LRN: identity") in means
    with open("out/results.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(found["results"])
    assert Image.open("out/curves.png").size[0] > 500
    assert "AUC descending" in result.stdout


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
    assert "another flipping" in other.stderr


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


def test_what_is_missing_is_asked_for(run, model: Path):
    data = ["evaluate", model, "--data", pictures(2), "-o", "out"]
    assert "name what is to be judged" in run(*data, *FLAGS).stderr
    assert "say how pictures are made" in run(*data, *METHODS).stderr
    np.save("one.npy", np.zeros((1, 8, 8)))
    short = run(*data, *FLAGS, "--maps", "theirs=one.npy")
    assert "theirs has 1 maps for 2 pictures" in short.stderr
    floats = [*data[:3], "floats.npy", *data[4:]]
    np.save("floats.npy", np.zeros((2, 3, 8, 8), np.float32))
    assert "is no picture: those are uint8" in run(*floats, *METHODS, *FLAGS).stderr


def test_shuffled_weights_change_the_maps(run, model: Path):
    result = run(
        *("evaluate", model, "--data", pictures(3), "--composite", "epsilon", *FLAGS, "-o", "out"),
        *("--randomise", 2),
    )
    assert result.exit_code == 0, result.output
    steps = json.loads(Path("out/randomised.json").read_text())["epsilon"]
    assert list(steps) == ["classify", "conv"]
    assert steps["conv"]["mean"] < 0.9
