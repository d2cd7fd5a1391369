"""`explain` in blocks: shards, and going on where a run stopped; here in one process."""

import csv
import json
import re
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from onnxlrp.errors import InputError
from onnxlrp.running.shards import Map, check_size


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five pictures and one that is none: with two to a block, three blocks."""
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name in "abdef":
        pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    (folder / "c.png").write_bytes(b"no picture")
    return folder


def test_shards_hold_what_single_files_hold(run, explainer: Path, photos: Path):
    parquet, zarr = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("zarr")
    alone = run("explain", explainer, photos, "-o", "alone", "--format", "npz", "--batch", 2)
    options = ("--format", "parquet,zarr,hdf5", "--shard", 2, "--batch", 2)
    result = run("explain", explainer, photos, "-o", "out", *options)
    assert (alone.exit_code, result.exit_code) == (1, 1)
    assert "5 items in" in result.stderr
    shards = Path("out/shards")
    assert sorted(path.name for path in shards.glob("0*")) == [
        f"00000{n}{ending}" for n in range(3) for ending in (".h5", ".parquet", ".zarr.zip")
    ]
    rows = [
        row
        for n in range(3)
        for row in parquet.read_table(shards / f"00000{n}.parquet").to_pylist()
    ]
    assert [row["item"] for row in rows] == ["a", "b", "d", "e", "f"]
    for row in rows:
        expected = np.load(f"alone/{row['item']}.relevance.npz")
        relevance = np.array(row["relevance"], np.float32).reshape(row["shape"])
        np.testing.assert_array_equal(relevance, expected["relevance"])
        np.testing.assert_array_equal(np.float32(row["scores"]), expected["scores"])
        assert row["class"] == expected["target"]
    for number, names in enumerate((["a", "b"], ["d"], ["e", "f"])):
        group = zarr.open(zarr.storage.ZipStore(shards / f"00000{number}.zarr.zip"), mode="r")
        with h5py.File(shards / f"00000{number}.h5") as file:
            assert [name.decode() for name in file["item"]] == names
            assert list(group["item"][:]) == names
            for index, name in enumerate(names):
                expected = np.load(f"alone/{name}.relevance.npz")
                for place in (file, group):
                    np.testing.assert_array_equal(
                        place["attribution"][index], expected["relevance"]
                    )
                    np.testing.assert_array_equal(place["prediction"][index], expected["scores"])
                    assert place["label"][index] == expected["target"]
    for name in ("results.csv", "results.json", "failed.json"):
        assert Path("out", name).read_bytes() == Path("alone", name).read_bytes()
    assert "ray" not in sys.modules


def test_pictures_in_parquet_are_explained_as_in_files(run, explainer: Path, photos: Path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    files = sorted(photos.iterdir())
    table = arrow.table({"image": [path.read_bytes() for path in files], "id": range(6)})
    parquet.write_table(table, "set.parquet")
    alone = run("explain", explainer, photos, "-o", "alone", "--format", "npy")
    result = run("explain", explainer, "set.parquet", "-o", "out", "--format", "npy")
    assert (alone.exit_code, result.exit_code) == (1, 1)
    assert "set.parquet:2 is not a picture of a known format" in result.stderr
    for number, path in enumerate(files):
        if path.name != "c.png":
            found = Path(f"out/set/{number}.relevance.npy").read_bytes()
            assert found == Path(f"alone/{path.stem}.relevance.npy").read_bytes()
    again = run("explain", explainer, "set.parquet", "-o", "out", "--format", "npy")
    assert "5 of 6 items were done before" in again.stderr
    result = run("explain", explainer, "set.parquet", "--column", "id", "-o", "other")
    assert "column id of" in result.stderr
    result = run("explain", explainer, photos, "--column", "image", "-o", "other")
    assert "--column is of .parquet or .tar" in result.stderr


def test_a_run_goes_on_with_the_blocks_that_are_missing(run, explainer: Path, photos: Path):
    command = ("explain", explainer, photos, "-o", "out", "--format", "hdf5", "--shard", 2)
    run(*command)
    shards = Path("out/shards")
    before = {path.name: path.stat().st_mtime_ns for path in shards.iterdir()}
    (shards / "000002.h5").unlink()
    (shards / ".000002.h5.77").write_bytes(b"half")
    result = run(*command)
    assert "4 of 6 items were done before" in result.stderr
    # What is no picture is told again, though it was not tried again.
    assert result.exit_code == 1
    assert json.loads(Path("out/failed.json").read_text())[0]["item"] == "c"
    after = {path.name: path.stat().st_mtime_ns for path in shards.iterdir()}
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {"000002.h5", "_000002.json"}


def test_a_block_with_a_picture_that_changed_is_done_again(run, explainer: Path, photos: Path):
    command = ("explain", explainer, photos, "-o", "out", "--format", "hdf5", "--shard", 2)
    run(*command)
    Image.new("RGB", (8, 8), (9, 200, 9)).save(photos / "c.png")
    result = run(*command)
    assert result.exit_code == 0, result.output
    assert "4 of 6 items were done before" in result.stderr
    assert not Path("out/failed.json").exists()
    with open("out/results.csv", newline="") as file:
        assert [row["item"] for row in csv.DictReader(file)] == list("abcdef")
    with h5py.File("out/shards/000001.h5") as file:
        assert len(file["attribution"]) == 2


def test_a_block_whose_file_was_missing_is_tried_again(run, explainer: Path, photos: Path):
    (photos / "c.png").unlink()
    (photos / "c.png").symlink_to("later.png")
    command = ("explain", explainer, photos, "-o", "out", "--format", "hdf5", "--shard", 2)
    assert run(*command).exit_code == 1
    assert "4 of 6 items were done before" in run(*command).stderr
    Image.new("RGB", (8, 8)).save(photos / "later.png")
    assert run(*command).exit_code == 0


def test_blocks_of_other_items_need_another_folder(run, explainer: Path, photos: Path):
    command = ("explain", explainer, photos, "-o", "out", "--format", "hdf5", "--shard", 2)
    run(*command)
    Image.new("RGB", (8, 8)).save(photos / "g.png")
    result = run(*command)
    assert result.exit_code == 1
    assert "made with other settings (items): give another folder, or --overwrite" in result.stderr
    assert run(*command, "--overwrite").exit_code == 1
    assert len(list(Path("out/shards").glob("*.h5"))) == 4


def test_files_of_each_item_are_written_in_blocks_too(run, explainer: Path, photos: Path):
    (photos / "c.png").unlink()
    result = run("explain", explainer, photos, "-o", "out", "--format", "npy,sheet", "--shard", 2)
    assert result.exit_code == 0, result.output
    assert len(list(Path("out").glob("*.sheet.png"))) == 5
    Path("out/d.relevance.npy").unlink()
    result = run("explain", explainer, photos, "-o", "out", "--format", "npy,sheet", "--shard", 2)
    assert "3 of 5 items were done before" in result.stderr
    assert Path("out/d.relevance.npy").exists()


def test_maps_of_several_sizes_need_parquet():
    small, large = (Map(None, np.zeros(shape), np.zeros(2)) for shape in ((3, 8, 8), (3, 9, 8)))
    check_size(small, large, ["parquet"])
    check_size(small, small, ["hdf5"])
    with pytest.raises(InputError, match=r"its map is .3, 9, 8., others of its zarr file are"):
        check_size(small, large, ["parquet", "zarr"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--workers", 2), r"this needs the library ray: pip install 'onnxlrp\[ray\]'"),
        (("--format", "parquet"), r"this needs the library pyarrow: pip install 'onnxlrp\[data\]'"),
        (("--ray", "auto"), "--ray says where --workers run: give both"),
        (("--shard", 2, "--colour-scale", "shared"), "--colour-scale shared does without"),
    ],
)
def test_what_is_missing_is_said(run, explainer: Path, photo: Path, monkeypatch, arguments, said):
    for name in ("ray", "pyarrow"):
        monkeypatch.setitem(sys.modules, name, None)
    result = run("explain", explainer, photo, "-o", "out", *arguments)
    assert result.exit_code in (1, 2)
    assert len(result.stderr.strip().splitlines()) <= 4
    assert re.search(said, result.stderr), result.stderr
