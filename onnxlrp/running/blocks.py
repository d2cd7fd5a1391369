"""Items in fixed blocks: each explained by itself, by whichever process, and recorded once."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from numpy.typing import NDArray

from onnxlrp.errors import InputError
from onnxlrp.files import write
from onnxlrp.inputs.items import Item
from onnxlrp.inputs.targets import Targets
from onnxlrp.running.explainer import Explainer
from onnxlrp.running.results import Record, Writer, written
from onnxlrp.running.shards import FORMS, Map, check_size
from onnxlrp.running.stream import Failure, How, Result, Source

SHARDS = "shards"
"""The folder of blocks inside that of the results."""


@dataclass(frozen=True)
class Block:
    """Items that are explained together, whoever does it, so that batches are always the same.

    Attributes
    ----------
    number : its place, from 0
    items : in the order of the whole set

    """

    number: int
    items: tuple[Source, ...]

    @property
    def stamp(self) -> str:
        """Tells whether its items are as they were: SHA-256 of their names, sizes and dates."""
        found = hashlib.sha256()
        for item in self.items:
            found.update(repr((item.name, item.source, _stamp(item))).encode())
        return found.hexdigest()


def _stamp(item: Source) -> object:
    """Return what changes when an item does, without reading a file; None where there is none."""
    if not isinstance(item, Item):
        return item.digest
    try:
        known = item.path.stat()
    except OSError:
        return None
    return known.st_size, known.st_mtime_ns


def divided(items: Sequence[Source], size: int) -> list[Block]:
    """Divide items into blocks of `size`, the last of what is left."""
    starts = range(0, len(items), size)
    return [
        Block(number, tuple(items[start : start + size])) for number, start in enumerate(starts)
    ]


class Outcome(NamedTuple):
    """What became of a block: what failed, and what was warned of."""

    failures: list[Failure]
    notices: list[str]


class Entry(NamedTuple):
    """What is recorded of a block; `lines` are what `Writer.line` makes of each row."""

    rows: list[Record]
    lines: list[str]
    failures: list[Failure]


@dataclass(frozen=True)
class Job:
    """What is to be done with each block; may be sent to another process.

    Attributes
    ----------
    explainer : its file
    device, threads, tokenizer, most : as of `Explainer`
    references : what relevance is counted from, of an explainer that asks for it
    targets, how, batch : as of `stream.explain`
    writer : of files that each item has
    forms : of `FORMS`, files that each block has

    """

    explainer: Path
    device: Literal["cpu", "cuda"]
    threads: int | None
    tokenizer: Path | None
    most: int | None
    references: Sequence[NDArray[Any]]
    targets: Targets
    how: How
    batch: int
    writer: Writer
    forms: tuple[str, ...]

    def open(self) -> Explainer:
        """Open a session."""
        run = Explainer(
            self.explainer, self.device, self.threads, tokenizer=self.tokenizer, most=self.most
        )
        if self.references:
            run.against(self.references)
        return run

    def __call__(self, run: Explainer, block: Block) -> Outcome:
        """Explain a block and write its files, last the one that says that it is done.

        What stands there of a run that was interrupted is written anew.

        Raises
        ------
        OSError
            The folder cannot be written.

        """
        maps: list[Map] = []
        rows: list[Record] = []
        lines: list[str] = []
        failures: list[Failure] = []
        stamp = block.stamp
        with warnings.catch_warnings(record=True, action="once") as noticed:
            found = written(run, block.items, self.targets, self.how, self.writer, self.batch)
            for result, done in found:
                if isinstance(done, Failure):
                    failures.append(done)
                    continue
                assert isinstance(result, Result)
                own = [
                    Map(record, one.relevance, result.scores)
                    for record, one in zip(done, result.explained, strict=True)
                ]
                try:
                    for one in own:
                        check_size((maps or own)[0], one, self.forms)
                except InputError as error:
                    failures.append(Failure(result.sample.item, str(error)))
                    continue
                rows += done
                lines += map(self.writer.line, result.explained)
                maps += own if self.forms else []
        self._folder.mkdir(parents=True, exist_ok=True)
        for path, form in zip(self._shards(block), self.forms, strict=True):
            path.unlink(missing_ok=True)
            if maps:
                FORMS[form].write(path, maps)
        entry = {
            "stamp": stamp,
            "rows": [asdict(row) for row in rows],
            "lines": lines,
            "failures": [
                {"item": one.item.name, "reason": one.reason, "passing": one.passing}
                for one in failures
            ],
        }
        write(self._record(block), lambda file: file.write(json.dumps(entry).encode() + b"\n"))
        return Outcome(failures, list(dict.fromkeys(str(one.message) for one in noticed)))

    def finished(self, block: Block) -> bool:
        """Tell whether a block was done, its items as they are now, and its files are there.

        A block is done again if something of it failed that may go well now.
        """
        entry = self._recorded(block)
        return (
            entry is not None
            and entry["stamp"] == block.stamp
            and not any(one["passing"] for one in entry["failures"])
            and all(self.writer.written(Record(**row)) for row in entry["rows"])
            and (not entry["rows"] or all(path.is_file() for path in self._shards(block)))
        )

    def entries(self, blocks: Sequence[Block]) -> Iterator[Entry]:
        """Read what is recorded of blocks, in their order; all of one without is a failure."""
        for block in blocks:
            entry = self._recorded(block)
            if entry is None:
                yield Entry([], [], self.lost(block))
                continue
            items = {item.name: item for item in block.items}
            failures = [Failure(items[one.pop("item")], **one) for one in entry["failures"]]
            yield Entry([Record(**row) for row in entry["rows"]], entry["lines"], failures)

    def lost(self, block: Block) -> list[Failure]:
        """Say of each item of a block that no process got to its end."""
        reason = "not explained: whoever worked on it died or was stopped"
        return [Failure(item, reason, passing=True) for item in block.items]

    def clear(self, blocks: Sequence[Block] = ()) -> None:
        """Remove what killed processes left half written, and all shards but those of blocks."""
        kept = {path for one in blocks for path in (self._record(one), *self._shards(one))}
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            if path not in kept:
                path.unlink()

    def _recorded(self, block: Block) -> dict[str, Any] | None:
        path = self._record(block)
        if not path.is_file():
            return None
        entry: dict[str, Any] = json.loads(path.read_bytes())
        return entry

    @property
    def _folder(self) -> Path:
        return self.writer.folder / SHARDS

    def _record(self, block: Block) -> Path:
        # Readers of folders of Parquet leave out what begins so.
        return self._folder / f"_{block.number:06}.json"

    def _shards(self, block: Block) -> list[Path]:
        return [self._folder / f"{block.number:06}{FORMS[form].ending}" for form in self.forms]
