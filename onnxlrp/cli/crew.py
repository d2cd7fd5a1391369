"""What `explain` and `evaluate` have in common where several processes share the work."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from onnxlrp.cli.progress import progress
from onnxlrp.cli.sentences import complain
from onnxlrp.cli.terminal import echo

if TYPE_CHECKING:
    from onnxlrp.running.blocks import Block, Job, Outcome
    from onnxlrp.running.cluster import Task
    from onnxlrp.running.explainer import Explainer
    from onnxlrp.running.results import Record
    from onnxlrp.running.stream import Failure

LOOKED_AT = 100_000
"""So many rows tell how a whole set is."""


class Crew(NamedTuple):
    """Who does the work: so many workers with so many cores each, on GPUs or not, and where."""

    workers: int
    cores: int
    cuda: bool
    address: str | None

    def __call__(
        self, task: Task, pieces: Sequence[Any], folder: Path
    ) -> Iterator[tuple[int, Any]]:
        """Do pieces of work, as `onnxlrp.running.cluster.spread` does."""
        from onnxlrp.running.cluster import spread

        yield from spread(task, pieces, folder, **self._asdict())


class Done(NamedTuple):
    """What a run of `explain` leaves to be told.

    Attributes
    ----------
    rows : of the whole set; of a large one in blocks the first
    failures : of this run
    tried : how many items that were
    seconds : how long it took
    failed : whether anything of the whole set is missing

    """

    rows: list[Record]
    failures: list[Failure]
    tried: int
    seconds: float
    failed: bool


def explain_blocks(
    job: Job, run: Explainer, blocks: Sequence[Block], crew: Crew | None, *, overwrite: bool
) -> Done:
    """Explain the blocks that are not done yet, here or by a crew; write the set's tables.

    Parameters
    ----------
    run : an open session; not used by a crew
    crew : None for this process

    """
    from onnxlrp.running.results import write_features, write_tables

    start = time.perf_counter()
    job.clear(() if overwrite else blocks)
    rest = [block for block in blocks if not job.finished(block)]
    count, total = (sum(len(block.items) for block in some) for some in (rest, blocks))
    if count < total:
        echo(f"{total - count} of {total} items were done before", err=True)
    failures: list[Failure] = []
    notices: dict[str, None] = {}
    try:
        with (
            progress(total, "items", total - count) as advance,
            # So that nobody works on when this ends.
            closing(_outcomes(job, run, rest, crew)) as outcomes,
        ):
            for block, outcome in outcomes:
                failed = job.lost(block) if outcome is None else outcome.failures
                failures += failed
                notices |= dict.fromkeys(() if outcome is None else outcome.notices)
                for failure in failed:
                    complain(failure)
                advance(len(block.items))
    finally:
        job.clear(blocks)
        every: list[Failure] = []
        few: list[Record] = []

        def rows() -> Iterator[Record]:
            for entry in job.entries(blocks):
                every.extend(entry.failures)
                few.extend(islice(entry.rows, max(0, LOOKED_AT - len(few))))
                yield from entry.rows

        write_tables(job.writer.folder, rows(), every)
        if job.writer.features is not None and "csv" in job.writer.formats:
            entries = job.entries(blocks)
            pairs = (zip(one.rows, one.lines, strict=True) for one in entries)
            write_features(job.writer, chain.from_iterable(pairs))
    for notice in notices:
        echo(f"Warning: {notice}", err=True)
    return Done(few, failures, count, time.perf_counter() - start, bool(every))


def _outcomes(
    job: Job, run: Explainer, blocks: Sequence[Block], crew: Crew | None
) -> Generator[tuple[Block, Outcome | None]]:
    if crew is None:
        yield from ((block, job(run, block)) for block in blocks)
    elif blocks:
        for number, outcome in crew(job, blocks, job.writer.folder):
            yield blocks[number], outcome
