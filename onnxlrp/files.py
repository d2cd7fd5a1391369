"""Files: written completely or not at all, read only where they end and are text."""

from __future__ import annotations

import codecs
import csv
import errno
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onnxlrp.errors import InputError, ModelError


def check_regular(path: Path) -> None:
    """Check that a path that exists is a file, and neither a pipe nor a device, which may not end.

    Raises
    ------
    InputError
        It is something else.

    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise InputError(f"{path} is no regular file, but a pipe or a device")


def check_there(path: Path, name: str) -> None:
    """Check that a model or an explainer, called `name`, is a file.

    Raises
    ------
    ModelError
        There is none, or a folder.

    """
    if path.is_dir():
        raise ModelError(f"{name} is a folder: give a file")
    if not path.is_file():
        raise ModelError(f"{name}: no such file")


def read_text(path: Path) -> str:
    """Read a text in UTF-8, or in UTF-16 with the mark that Windows puts in front.

    Raises
    ------
    InputError
        It is neither, or no regular file.
    OSError
        The file cannot be opened.

    """
    check_regular(path)
    return decoded(path.read_bytes(), str(path))


def decoded(content: bytes, name: str) -> str:
    """Decode a text in UTF-8 or, where it says so itself, UTF-16; `name` is what it is from.

    Raises
    ------
    InputError
        It is neither.

    """
    try:
        return content.decode("utf-16" if is_utf16(content) else "utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{name} is no text: save it as UTF-8") from None


def is_utf16(content: bytes) -> bool:
    """Tell whether a text starts with the mark of UTF-16."""
    return content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


def write(path: Path, encode: Callable[[io.BytesIO], Any]) -> None:
    """Write what `encode` makes, beside `path`, then rename it; an existing file is replaced.

    Raises
    ------
    InputError
        `path` is a pipe or a device.
    OSError
        The folder cannot be written or the disk is full; `path` is then as it was.

    """
    buffer = io.BytesIO()
    encode(buffer)
    with replacing(path) as beside:
        beside.write_bytes(buffer.getbuffer())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside `path`; what is written there takes its place when the block ends well.

    Raises
    ------
    InputError
        `path` is a pipe or a device, which a file would take the place of.
    OSError
        As for `write`.

    """
    check_regular(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with naming(path):
        try:
            yield beside
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with the same keys under a line with these keys, as `write` does.

    Raises
    ------
    OSError
        As for `write`.

    """
    write_lines(path, [list(rows[0]) if rows else [], *(row.values() for row in rows)])


def write_lines(path: Path, lines: Iterable[Iterable[Any]]) -> None:
    """Write lines of cells, as `write` does.

    Raises
    ------
    OSError
        As for `write`.

    """

    def encode(buffer: io.BytesIO) -> None:
        # Names of files may hold bytes that are no text.
        text = io.TextIOWrapper(
            buffer, "utf-8", errors="backslashreplace", newline="", write_through=True
        )
        csv.writer(text).writerows(lines)
        text.detach()

    write(path, encode)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have every `OSError` in the block name the file that the user asked for."""
    try:
        yield
    except OSError as error:
        # Of arrays numpy says how many bytes it wrote, and not why no more.
        said = error.strerror or f"not all could be written: is the disk full? ({error})"
        raise OSError(error.errno or errno.ENOSPC, said, str(path)) from error
