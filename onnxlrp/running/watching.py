"""Which files of folders are new or changed, and complete: asked for again and again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from onnxlrp.inputs.items import inside

PAUSE = 0.2
"""Seconds between two looks."""
STILL = 3
"""In so many looks, one after another, a file is the same before it counts."""

_Stamp = tuple[int, int]


class Change(NamedTuple):
    """What changed since the last: files that are new or written anew, and files that are gone."""

    due: set[Path]
    gone: set[Path]


def changes(folders: Iterable[Path], leave_out: Path) -> Iterator[Change]:
    """Yield what is there, and then whatever changes, for ever.

    Folders are looked through, which also finds what other machines write on a share, of which the
    system tells nothing. A file counts when three looks found the same size and time of change, so
    that none is read that is still being written. Looking takes at most half of the time, however
    many files there are.

    Parameters
    ----------
    folders : searched recursively, but for hidden files
    leave_out : a folder that is not searched, where results go

    """
    taken: dict[Path, _Stamp] = {}
    last: dict[Path, _Stamp] = {}
    looks: Counter[Path] = Counter()
    while True:
        start = time.monotonic()
        try:
            seen = dict(_stamps(folders, leave_out))
        except OSError:
            # A folder was taken away meanwhile, or a share is not there: nothing is known.
            time.sleep(PAUSE)
            continue
        new = {path for path, stamp in seen.items() if stamp != taken.get(path)}
        looks = Counter({p: looks[p] + 1 if last.get(p) == seen[p] else 1 for p in new})
        due = {path for path in new if looks[path] >= STILL}
        gone = taken.keys() - seen.keys()
        last = seen
        taken |= {path: seen[path] for path in due}
        for path in gone:
            del taken[path]
        if due or gone:
            yield Change(due, gone)
        time.sleep(max(PAUSE, time.monotonic() - start))


def _stamps(folders: Iterable[Path], leave_out: Path) -> Iterator[tuple[Path, _Stamp]]:
    for folder in folders:
        for path in inside(folder, leave_out):
            # Temporary files go while they are looked at; links may lead to nothing.
            with suppress(OSError):
                found = path.stat()
                yield path, (found.st_size, found.st_mtime_ns)
