"""Pictures and arrays inside Parquet files and tars, and behind URLs."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnxlrp.errors import InputError
from onnxlrp.inputs.items import as_picture
from onnxlrp.inputs.stores import are_stored, collect_stored

arrow = pytest.importorskip("pyarrow", reason="the extra [data] is not installed")
parquet = pytest.importorskip("pyarrow.parquet")
fsspec = pytest.importorskip("fsspec")

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 6, 5, 3), dtype=np.uint8)
FLOATS = np.random.default_rng(1).normal(size=(7, 3, 4, 2)).astype(np.float32)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def tar(path: Path, files: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode) as made:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            made.addfile(entry, io.BytesIO(content))


COLUMNS = {
    "bytes": lambda: [png(one) for one in PIXELS],
    "hugging face's": lambda: [{"bytes": png(one), "path": None} for one in PIXELS],
    "lists": lambda: FLOATS.tolist(),
    "tensors": lambda: arrow.FixedShapeTensorArray.from_numpy_ndarray(FLOATS),
    "halves": lambda: arrow.array(list(FLOATS.reshape(7, -1).astype(np.float16))),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_rows_of_parquet(tmp_path: Path, kind: str):
    table = arrow.table({"label": list("abcdefg"), "what": COLUMNS[kind]()})
    parquet.write_table(table, tmp_path / "set.parquet", row_group_size=3)
    items = collect_stored([str(tmp_path / "set.parquet")], None)
    assert [item.name for item in items] == [f"set/{row}" for row in range(7)]
    assert items[4].source == f"{tmp_path}/set.parquet:4"
    # Workers get them pickled, and read in any order.
    for row, item in reversed(list(enumerate(pickle.loads(pickle.dumps(items))))):
        read = item.read()
        assert item.is_array == (kind not in ("bytes", "hugging face's"))
        if not item.is_array:
            np.testing.assert_array_equal(np.asarray(read), PIXELS[row])
        elif kind == "halves":
            np.testing.assert_array_equal(read, FLOATS[row].reshape(-1).astype(np.float16))
        else:
            np.testing.assert_array_equal(read, FLOATS[row])
            assert read.dtype == (np.float64 if kind == "lists" else np.float32)


def test_a_column_is_named_where_there_are_several(tmp_path: Path):
    path = tmp_path / "set.parquet"
    pictures = [png(one) for one in PIXELS]
    parquet.write_table(
        arrow.table({"a": pictures, "b": [*pictures[:6], None], "n": [1] * 7}), path
    )
    with pytest.raises(InputError, match="2 columns of pictures or arrays, a, b: name the one"):
        collect_stored([str(path)], None)
    with pytest.raises(InputError, match="has no column c, but a, b, n"):
        collect_stored([str(path)], "c")
    with pytest.raises(InputError, match=r"column n of .* holds neither pictures nor arrays"):
        collect_stored([str(path)], "n")
    items = collect_stored([str(path)], "b")
    np.testing.assert_array_equal(np.asarray(as_picture(items[5].read())), PIXELS[5])
    with pytest.raises(InputError, match=r"set.parquet:6 is empty"):
        items[6].read()


def test_a_webdataset(tmp_path: Path):
    files = {}
    for number in range(3):
        files |= {
            f"./{number:03}.cls": b"7",
            f"./{number:03}.png": png(PIXELS[number]),
            f"./{number:03}.depth.npy": npy(FLOATS[number]),
        }
    files["./009.png"] = b"no picture"
    tar(tmp_path / "a.tar", files)
    items = collect_stored([str(tmp_path)], "png")
    assert [item.name for item in items] == ["a/000", "a/001", "a/002", "a/009"]
    for number, item in enumerate(items[:3]):
        np.testing.assert_array_equal(np.asarray(item.read()), PIXELS[number])
    with pytest.raises(InputError, match=r"a.tar:009.png is not a picture"):
        items[3].read()
    depths = collect_stored([str(tmp_path)], "depth.npy")
    assert all(item.is_array for item in depths)
    np.testing.assert_array_equal(depths[2].read(), FLOATS[2])
    with pytest.raises(InputError, match=r"a.tar holds no .jpg"):
        collect_stored([str(tmp_path)], "jpg")


def test_files_of_a_tar_are_told_apart_and_named_inside_the_folder_of_results(tmp_path: Path):
    with tarfile.open(tmp_path / "a.tar", "w") as made:
        for name in ("x.png", "x.jpg", "x.png", "x.png", "../../x.png", "/y.png", "..\\z.png"):
            entry = tarfile.TarInfo(name)
            entry.size = 1
            made.addfile(entry, io.BytesIO(b"0"))
    names = [item.name for item in collect_stored([str(tmp_path / "a.tar")], None)]
    assert names == ["a/x", "a/x.jpg", "a/x.png", "a/x.png.2", "a/x.png.3", "a/y", "a/z"]


def test_a_file_of_a_tar_and_one_beside_it_are_not_written_over_each_other(tmp_path: Path):
    tar(tmp_path / "a.tar", {"x.png": png(PIXELS[0])})
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.png").write_bytes(png(PIXELS[1]))
    with pytest.raises(InputError, match=r"would both be called a/x: rename one"):
        collect_stored([str(tmp_path)], None)


def test_parquet_without_rows_says_so(tmp_path: Path):
    empty = arrow.table({"image": arrow.array([], arrow.binary())})
    parquet.write_table(empty, tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a.parquet: there are no rows"):
        collect_stored([str(tmp_path / "a.parquet")], None)


@pytest.mark.parametrize("content", [b"", b"x" * 2000])
def test_files_that_are_no_stores(tmp_path: Path, content: bytes):
    for name in ("a.tar", "a.parquet"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name} "):
            collect_stored([str(tmp_path / name)], None)


def test_a_compressed_tar_says_so(tmp_path: Path):
    tar(tmp_path / "a.tar", {"0.png": png(PIXELS[0])}, "w:gz")
    with pytest.raises(InputError, match="is no tar, or a compressed one"):
        collect_stored([str(tmp_path / "a.tar")], None)


def test_an_object_store(tmp_path: Path):
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/x/1.png", png(PIXELS[1]))
    memory.pipe("/bucket/x/2.npy", npy(FLOATS[2]))
    memory.pipe("/bucket/notes.txt", b"leave me out")
    local = tmp_path / "set.parquet"
    parquet.write_table(arrow.table({"image": [png(one) for one in PIXELS]}), local)
    memory.pipe("/bucket/set.parquet", local.read_bytes())
    assert are_stored(["memory://bucket"])
    items = collect_stored(["memory://bucket"], None)
    assert [item.name for item in items[:2]] == ["set/0", "set/1"]
    assert [item.name for item in items[-2:]] == ["x/1", "x/2"]
    np.testing.assert_array_equal(np.asarray(items[3].read()), PIXELS[3])
    np.testing.assert_array_equal(items[-1].read(), FLOATS[2])
    assert [item.name for item in collect_stored(["memory://bucket/x/*.png"], None)] == ["1"]
    before = items[-1].digest
    memory.pipe("/bucket/x/2.npy", npy(FLOATS[3]))
    assert collect_stored(["memory://bucket/x/2.npy"], None)[0].digest != before


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("memory://nowhere/a.png", "memory://nowhere/a.png cannot be read"),
        ("gopher://a/b.png", "Protocol not known: gopher"),
        ("memory://nowhere/*.png", "holds no pictures, no arrays, no .parquet and no .tar"),
    ],
)
def test_what_cannot_be_reached_is_said(url: str, said: str):
    with pytest.raises(InputError, match=said.replace("*", r"\*")):
        collect_stored([url], None)


def test_folders_of_plain_pictures_are_no_stores(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(png(PIXELS[0]))
    assert not are_stored([str(tmp_path), "-", "missing.parquet"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.parquet").write_bytes(b"")
    assert not are_stored([str(tmp_path)], tmp_path / "out")
    assert are_stored([str(tmp_path)])
