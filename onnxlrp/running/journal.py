"""A record of finished work that survives whatever ends a run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from onnxlrp.errors import InputError


class Journal:
    """Records appended to a file of JSON lines, the first of which holds the run's settings.

    A run that was killed leaves at most one line unfinished, which the next run cuts off.

    Parameters
    ----------
    path : the file; made if missing
    settings : what the records depend on, in types that JSON has
    fields : what every record has
    overwrite : start anew whatever stands there

    Attributes
    ----------
    records : what earlier runs and this one recorded, oldest first

    Raises
    ------
    InputError
        The file holds records made with other settings, is no journal or a damaged one, or
        another run is writing it.
    OSError
        The file cannot be read or written.

    """

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any],
        fields: Sequence[str],
        *,
        overwrite: bool = False,
    ) -> None:
        self.records: list[dict[str, Any]] = []
        self._path = path
        self._fields = set(fields)
        self._lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
        try:
            self._lock.acquire()
        except Timeout:
            raise InputError(
                f"another run is writing to {path.parent}: wait for it, or give another folder"
            ) from None
        try:
            self._open(settings, overwrite)
        except BaseException:
            self._release()
            raise

    def _open(self, settings: Mapping[str, Any], overwrite: bool) -> None:
        path = self._path
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
            found = dict(lines[0]["settings"]) if lines else settings
            sound = all(self._fields <= set(line) for line in lines[1:])
        # Numbers of thousands of digits and nests a thousand deep are no journal's either.
        except (ValueError, KeyError, TypeError, RecursionError):
            sound, found = False, settings
        if not sound:
            raise InputError(
                f"{self._path} is not a journal of results, or a damaged one: give another "
                "folder, or --overwrite"
            )
        if found != settings and len(lines) == 1:
            return 0
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
        self._release()

    def _release(self) -> None:
        # Where an open file cannot be removed, releasing the lock does it.
        with suppress(OSError):
            Path(self._lock.lock_file).unlink()
        self._lock.release()
