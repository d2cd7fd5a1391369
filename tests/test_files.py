import os
from pathlib import Path

import pytest

from onnxlrp.files import write


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
