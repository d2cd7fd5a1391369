"""What `explain` does in one process: item after item, each recorded when it is done."""

from __future__ import annotations

import sys
import time
import warnings
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from onnxlrp.cli.crew import Done
from onnxlrp.cli.progress import progress
from onnxlrp.cli.sentences import complain, tell
from onnxlrp.cli.terminal import echo
from onnxlrp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from onnxlrp.cli.watch import Round
    from onnxlrp.inputs.targets import Targets
    from onnxlrp.running.explainer import Explainer
    from onnxlrp.running.journal import Journal
    from onnxlrp.running.results import Record, Writer
    from onnxlrp.running.stream import Failure, How, Source

EVERY = 2.0
"""Seconds after which tables are written again while more is explained."""
FEW = 50
"""So many items get a line each on a terminal, too."""


def explain_items(
    run: Explainer,
    every: Iterable[Round],
    targets: Targets,
    writer: Writer,
    journal: Journal,
    batch: int,
    *,
    watch: bool,
) -> Done:
    """Explain round after round; then write what belongs to the set as a whole.

    Parameters
    ----------
    every : what there is to explain; of more than one round later ones come while it is watched
    journal : what is explained already, and gets what is
    batch : samples to a run
    watch : whether tables are written now and then, and Ctrl-C is no failure

    Raises
    ------
    InputError
        The folder holds results of other items under a name of these; told if it is watched.
    OSError
        The folder cannot be written.

    """
    from onnxlrp.running.results import archived, write_hdf5

    failures: list[Failure] = []
    items: Sequence[Source] = ()
    how: How = None
    before, seconds = len(journal.records), 0.0
    try:
        for one in every:
            start = time.perf_counter()
            failures = [*one.failures, *(old for old in failures if not one.void(old))]
            items, how = one.items or items, one.how or how
            try:
                _round(run, one, targets, writer, journal, batch, failures, watch=watch)
            finally:
                seconds += time.perf_counter() - start
    except KeyboardInterrupt:
        if not watch:
            raise
        # It may have come while tables were written.
        _tabulate(journal, writer, failures)
    count = len(journal.records) - before + len(failures)
    start = time.perf_counter()
    rows = [row for entry in _entries(journal).values() for row in entry.rows]
    if writer.shared:
        _draw_all(run, items, how, rows, writer)
    if "hdf5" in writer.formats and rows:
        write_hdf5(writer.folder / "attribution.h5", rows, archived(rows, writer))
    seconds += time.perf_counter() - start
    return Done(rows, failures, count, seconds, bool(failures) and not watch)


def _round(
    run: Explainer,
    one: Round,
    targets: Targets,
    writer: Writer,
    journal: Journal,
    batch: int,
    failures: list[Failure],
    *,
    watch: bool,
) -> None:
    """Explain what the journal does not hold yet; `failures` gets what could not be."""
    from onnxlrp.running.results import written
    from onnxlrp.running.stream import Failure, Result

    entries = _entries(journal)
    taken = _taken(entries, one.items)
    if taken and not watch:
        raise InputError(taken[0].reason)
    for failure in taken:
        complain(failure)
    failures += taken
    names = {failure.item.name for failure in taken}
    items = [item for item in one.items if item.name not in names]
    before = _done(entries, items, writer)
    rest = [item for item in items if item.name not in before]
    digests = {item.name: _digest(item) for item in rest}
    score = "score" if run.score_is_output else run.contract.output
    verbose = not sys.stderr.isatty() or len(rest) <= FEW
    told = time.perf_counter()
    if before and not watch:
        echo(f"{len(before)} of {len(items)} items were done before", err=True)
    try:
        with (
            warnings.catch_warnings(record=True, action="once") as noticed,
            progress(len(items), "items", len(before)) as advance,
        ):
            for result, done in written(run, rest, targets, one.how, writer, batch):
                if isinstance(done, Failure):
                    failures.append(done)
                    complain(done)
                else:
                    digest = digests[done[0].item]
                    entry: dict[str, Any] = {
                        "rows": [asdict(row) for row in done],
                        "digest": digest,
                    }
                    if isinstance(result, Result) and writer.features is not None:
                        entry["lines"] = [writer.line(one) for one in result.explained]
                    journal.append(entry)
                    if verbose:
                        tell(result, done, score, writer)
                advance()
                if watch and time.perf_counter() - told > EVERY:
                    _tabulate(journal, writer, failures)
                    told = time.perf_counter()
    finally:
        _tabulate(journal, writer, failures)
    for notice in noticed:
        echo(f"Warning: {notice.message}", err=True)


def _tabulate(journal: Journal, writer: Writer, failures: Sequence[Failure]) -> None:
    """Write the tables of all that is explained."""
    from onnxlrp.running.results import write_features, write_tables

    entries = _entries(journal).values()
    rows = [row for entry in entries for row in entry.rows]
    write_tables(writer.folder, rows, failures)
    if writer.features is not None and "csv" in writer.formats:
        lines = [line for entry in entries for line in entry.lines]
        write_features(writer, zip(rows, lines, strict=True))


class _Entry(NamedTuple):
    """What the journal holds of an item: its rows, the digest of what it was read from, cells."""

    rows: list[Record]
    digest: str | None
    lines: Sequence[str]


def _entries(journal: Journal) -> dict[str, _Entry]:
    """Return the journal's last entry of each item."""
    from onnxlrp.running.results import Record

    found = {}
    for entry in journal.records:
        rows = [Record(**row) for row in entry["rows"]]
        found[rows[0].item] = _Entry(rows, entry.get("digest"), entry.get("lines", ()))
    return found


def _digest(item: Source) -> str | None:
    """Return the digest of an item's file; None where it cannot be read, which is told later."""
    try:
        return item.digest
    except (InputError, OSError):
        return None


def _taken(entries: Mapping[str, _Entry], items: Sequence[Source]) -> list[Failure]:
    """Return the items whose names others have in the folder."""
    from onnxlrp.running.stream import Failure

    sources = {name: entry.rows[0].source for name, entry in entries.items()}
    return [
        Failure(
            item,
            f"the folder holds results of {sources[item.name]} under the name {item.name}, "
            f"which {item.source} would get: give another folder",
        )
        for item in items
        if sources.get(item.name, item.source) != item.source
    ]


def _done(entries: Mapping[str, _Entry], items: Sequence[Source], writer: Writer) -> set[str]:
    """Return the names of the items that were explained as they are now, with all their files."""
    return {
        item.name
        for item in items
        if item.name in entries
        and entries[item.name].digest == _digest(item)
        and all(writer.written(row) for row in entries[item.name].rows)
    }


def _draw_all(
    run: Explainer, items: Sequence[Source], how: How, rows: Sequence[Record], writer: Writer
) -> None:
    """Draw every map with colours that are full where the strongest map's are."""
    from onnxlrp.running.stream import prepare

    full = max((row.full for row in rows), default=0.0)
    found = {item.name: item for item in items}
    with progress(len(rows), "drawings") as advance:
        for row in rows:
            if row.item in found:
                sample = prepare(found[row.item], run, how)
                writer.draw(sample, row, full)
            advance()
