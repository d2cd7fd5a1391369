"""A record of finished work that survives whatever ends a run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from onnxlrp.errors import InputError


class Journal:
    """Records appended to a file of JSON lines, the first of which holds the run's settings.

    A run that was killed leaves at most one line unfinished, which the next run cuts off.

    Parameters
    ----------
    path : the file; made if missing
    settings : what the records depend on, in types that JSON has
    overwrite : start anew whatever stands there

    Attributes
    ----------
    records : what earlier runs and this one recorded, oldest first

    Raises
    ------
    InputError
        The file holds records made with other settings, or is no journal.
    OSError
        The file cannot be read or written.

    """

    def __init__(self, path: Path, settings: Mapping[str, Any], *, overwrite: bool = False) -> None:
        self.records: list[dict[str, Any]] = []
        self._path = path
        kept = 0 if overwrite else self._read(json.loads(json.dumps(settings)))
        self._file = open(path, "r+b" if path.exists() else "w+b")  # noqa: SIM115
        self._file.truncate(kept)
        self._file.seek(kept)
        if not kept:
            self._write({"settings": settings})

    def _read(self, settings: dict[str, Any]) -> int:
        """Load what is there; return the length of the file's whole lines in bytes."""
        if not self._path.exists():
            return 0
        content = self._path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        try:
            lines = [json.loads(line) for line in whole.splitlines()]
            found = lines[0]["settings"] if lines else settings
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self._path} is not a journal of results: give another folder, or --overwrite"
            ) from error
        if found != settings:
            keys = [key for key in settings | found if settings.get(key) != found.get(key)]
            raise InputError(
                f"{self._path.parent} holds results made with other settings ({', '.join(keys)}): "
                "give another folder, or --overwrite to start anew"
            )
        self.records = lines[1:]
        return len(whole)

    def append(self, record: dict[str, Any]) -> None:
        """Write a record, in types that JSON has; it is in the file when this returns."""
        self._write(record)
        self.records.append(record)

    def _write(self, entry: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(entry).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, os.fspath(self._path)) from error

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
