import errno
import os
from pathlib import Path

import pytest

import onnxlrp
from onnxlrp.files import naming, read_text, write
from onnxlrp.inputs.items import load_array, load_picture


def test_an_existing_file_is_replaced(tmp_path: Path):
    path = tmp_path / "out"
    path.write_text("old")
    write(path, lambda buffer: buffer.write(b"new"))
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failing_encoder_leaves_what_was_there(tmp_path: Path):
    path = tmp_path / "out"
    path.write_text("old")

    def half(buffer):
        buffer.write(b"ne")
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        write(path, half)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="no limit on the size of files")
def test_a_full_disk_leaves_what_was_there(tmp_path: Path):
    import resource

    path = tmp_path / "out"
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write(path, lambda buffer: buffer.write(bytes(100_000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_the_systems_error_about_the_file_asked_for(tmp_path: Path):
    path = tmp_path / "missing" / "out"
    with pytest.raises(FileNotFoundError) as caught:
        write(path, lambda buffer: buffer.write(b""))
    assert caught.value.filename == str(path)


def test_a_pipe_is_not_waited_for(tmp_path):
    pipe = tmp_path / "photo.png"
    os.mkfifo(pipe)
    for read in (load_picture, load_array, read_text, onnxlrp.convert):
        with pytest.raises(onnxlrp.OnnxlrpError, match="no regular file"):
            read(pipe)


def test_text_in_any_unicode(tmp_path):
    file = tmp_path / "text"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        file.write_text("Größe", encoding)
        assert read_text(file) == "Größe"
    file.write_bytes(b"\xf6")
    with pytest.raises(onnxlrp.InputError, match="save it as UTF-8"):
        read_text(file)


def test_arrays_that_are_cut_short_are_told_as_a_full_disk():
    with pytest.raises(OSError, match="is the disk full") as raised, naming(Path("e.onnx")):
        raise OSError("51200 requested and 9566 written")
    assert raised.value.filename == "e.onnx"
    assert raised.value.errno == errno.ENOSPC
