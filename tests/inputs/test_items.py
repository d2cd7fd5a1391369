import numpy as np
import pytest
from PIL import Image

from onnxlrp.errors import InputError
from onnxlrp.inputs.items import collect, load_array, load_picture


def save(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3)).save(path)
    return path


def names(sources, axes=3, **options):
    return [item.name for item in collect(sources, axes, **options)]


def test_files_come_in_the_order_given_and_folders_by_name(tmp_path):
    single = save(tmp_path / "z.png")
    for name in ("b.jpg", "a/c.png", "a/b.png"):
        save(tmp_path / "set" / name)
    (tmp_path / "set" / "notes.txt").write_text("no picture")
    (tmp_path / "set" / ".hidden.png").write_text("no picture")
    assert names([single, tmp_path / "set"]) == ["z", "a/b", "a/c", "b"]


def test_names_are_as_long_as_tells_them_apart(tmp_path):
    paths = [save(tmp_path / name) for name in ("p/x.png", "p/x.jpg", "q/x.png", "q/y.png")]
    assert names(paths) == ["p/x.png", "x.jpg", "q/x.png", "y"]


def test_what_is_named_twice_is_explained_once(tmp_path):
    path = save(tmp_path / "x.png")
    assert names([path, tmp_path, tmp_path / "." / "x.png"]) == ["x"]


def test_results_inside_the_folder_are_not_explained_again(tmp_path):
    save(tmp_path / "x.png")
    save(tmp_path / "out" / "x.heatmap.png")
    assert names([tmp_path], leave_out=tmp_path / "out") == ["x"]


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [
        ((3, 8, 8), "float32", ["a"]),
        ((2, 3, 8, 8), "float32", ["a/0", "a/1"]),
        ((8, 8), "uint8", ["a"]),
        ((8, 8, 3), "uint8", ["a"]),
        ((2, 8, 8), "uint8", ["a/0", "a/1"]),
        ((11, 8, 8, 3), "uint8", [f"a/{row:02}" for row in range(11)]),
    ],
)
def test_an_array_is_a_sample_or_a_set(tmp_path, shape, dtype, expected):
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    items = collect([tmp_path / "a.npy"], 3)
    assert [item.name for item in items] == expected
    last = items[-1].read()
    np.testing.assert_array_equal(last, array if len(items) == 1 else array[-1])


def test_an_archive_gives_its_images(tmp_path):
    np.savez(tmp_path / "a.npz", y=np.arange(2), x=np.ones((2, 3, 8, 8), np.float32))
    assert names([tmp_path / "a.npz"]) == ["a/0", "a/1"]
    np.savez(tmp_path / "b.npz", left=np.ones(2), right=np.ones(2))
    with pytest.raises(InputError, match="holds left, right: call the array that is meant 'x', or"):
        load_array(tmp_path / "b.npz")


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00v\x00{'descr'"])
def test_a_broken_array_is_one_line(tmp_path, content):
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not a readable array"):
        collect([path], 3)


def test_arrays_of_other_things(tmp_path):
    np.save(tmp_path / "text.npy", np.array(["a"]))
    with pytest.raises(InputError, match="not numbers"):
        collect([tmp_path / "text.npy"], 3)
    np.save(tmp_path / "flat.npy", np.ones(5, np.float32))
    with pytest.raises(InputError, match=r"float32 \[5\]: the model reads samples of 3 axes"):
        collect([tmp_path / "flat.npy"], 3)


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match="holds no pictures and no arrays"):
        collect([tmp_path], 3)
    with pytest.raises(FileNotFoundError):
        collect([tmp_path / "missing.png"], 3)


def test_only_pixels_are_opened(tmp_path):
    """EPS is a program that Pillow would hand to Ghostscript."""
    save(tmp_path / "a.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "b.eps")
    assert names([tmp_path]) == ["a"]
    with pytest.raises(InputError, match="not a picture of a known format"):
        load_picture(tmp_path / "b.eps")
    (tmp_path / "b.eps").rename(tmp_path / "b.png")
    with pytest.raises(InputError, match="not a picture of a known format"):
        load_picture(tmp_path / "b.png")


def test_a_row_of_an_array_and_a_file_of_one_name_are_not_written_over_each_other(tmp_path):
    save(tmp_path / "set/set/1.png")
    np.save(tmp_path / "set/set.npy", np.zeros((2, 3, 4, 4), np.float32))
    with pytest.raises(InputError, match=r"1.png and of .*set.npy:1 would both be called set/1"):
        collect([tmp_path / "set"], 3)
    assert len(collect([tmp_path / "set"], 3, only=[tmp_path / "set/set.npy"])) == 2
