"""Write a file completely or not at all."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write(path: Path, encode: Callable[[io.BytesIO], Any]) -> None:
    """Write what `encode` makes, beside `path`, then rename it; an existing file is replaced.

    Raises
    ------
    OSError
        The folder cannot be written or the disk is full; `path` is then as it was.

    """
    buffer = io.BytesIO()
    encode(buffer)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with naming(path):
        try:
            beside.write_bytes(buffer.getbuffer())
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

    def encode(buffer: io.BytesIO) -> None:
        text = io.TextIOWrapper(buffer, "utf-8", newline="", write_through=True)
        table = csv.DictWriter(text, list(rows[0]) if rows else [])
        table.writeheader()
        table.writerows(rows)
        text.detach()

    write(path, encode)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have every `OSError` in the block name the file that the user asked for."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
