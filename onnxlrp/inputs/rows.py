"""What tables there are to explain: files of rows, read row by row."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
from array import array
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from onnxlrp.errors import InputError
from onnxlrp.files import check_regular, decoded, is_utf16, read_text
from onnxlrp.inputs.items import files_in
from onnxlrp.inputs.passages import TABLES

_DELIMITERS = ("\t", ";", ",")
_MISSING = frozenset(("", "?", "n/a", "na", "nan", "none", "null"))
# Also what is written as no number that can be read, such as 1,5.
_FIGURES = re.compile(r"[-+\d.,'_ eE%]*\d[-+\d.,'_ eE%]*")
_TRUTH = {"true": 1.0, "false": 0.0}


def number(cell: str) -> float | None:
    """Read a cell, NaN where it says that its value is missing; None where it is no number."""
    text = cell.strip().lower()
    if text in _MISSING:
        return math.nan
    if text in _TRUTH:
        return _TRUTH[text]
    try:
        # Python's own digits may have underscores between them.
        value = float(text) if "_" not in text else math.inf
    except ValueError:
        return None
    return value if math.isfinite(value) else None


class Table:
    """A file of rows, in UTF-8 or UTF-16; only where each row starts is held in memory.

    Fields are parted by tabs, semicolons or commas, whichever cut the first lines alike; quoted
    ones may hold anything. A first line without figures names the columns.

    Parameters
    ----------
    path : of the file
    name : what its rows are called by, before their number

    Attributes
    ----------
    header : names of the columns; None where the first line is a row
    width : how many columns there are
    places : of each column that the model reads, which of these it is; `arranged` fills it in

    Raises
    ------
    InputError
        It is no text, quotes do not match, or it holds no rows.
    OSError
        The file cannot be opened.

    """

    def __init__(self, path: Path, name: str) -> None:
        check_regular(path)
        self.path, self.name = path, name
        self.places: tuple[int, ...] = ()
        with path.open("rb") as file:
            # Lines of UTF-16 cannot be told apart as bytes.
            wide = is_utf16(file.read(2))
        self._content = read_text(path).encode() if wide else None
        self._delimiter = next(filter(self._suits, _DELIMITERS), ",")
        records = self._records()
        first = next(records, None)
        if first is None:
            raise InputError(f"{path} is empty")
        self.first, self.width = first[1], len(first[1])
        named = not any(map(_FIGURES.fullmatch, self.first))
        self.header = tuple(cell.strip() for cell in self.first) if named else None
        self._starts = array("q", () if named else (first[0],))
        self._starts.extend(start for start, _ in records)
        if not self._starts:
            raise InputError(f"{path} holds a line of names, and no rows below it")

    def __len__(self) -> int:
        return len(self._starts)

    def name_columns(self) -> None:
        """Take the first line, though there are numbers in it, for the names of the columns."""
        if self.header is None:
            self.header = tuple(cell.strip() for cell in self.first)
            del self._starts[0]

    def bytes_of(self, row: int) -> bytes:
        """Return a row as it stands in the file, with empty lines below it."""
        start = self._starts[row]
        end = self._starts[row + 1] if row + 1 < len(self._starts) else None
        with self._opened() as file:
            file.seek(start)
            return file.read(-1 if end is None else end - start)

    def cells(self, row: int) -> list[str]:
        """Return the cells of a row."""
        return next(self._parsed(io.BytesIO(self.bytes_of(row))))[1]

    def _opened(self) -> IO[bytes]:
        return io.BytesIO(self._content) if self._content is not None else self.path.open("rb")

    def _suits(self, delimiter: str) -> bool:
        """Tell whether a delimiter cuts the first two lines into as many cells, more than one."""
        self._delimiter = delimiter
        try:
            widths = [len(cells) for _, (_, cells) in zip(range(2), self._records(), strict=False)]
        except InputError:
            return False
        return len(set(widths)) == 1 and widths[0] > 1

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        with self._opened() as file:
            yield from self._parsed(file)

    def _parsed(self, file: IO[bytes]) -> Iterator[tuple[int, list[str]]]:
        """Yield where each row starts, in bytes, and its cells; empty lines are no rows."""
        ends = [0]

        def lines() -> Iterator[str]:
            for line in file:
                ends.append(ends.pop() + len(line))
                yield decoded(line, str(self.path))

        # Not strict, a quote that is never closed would swallow all rows below it.
        reader = csv.reader(lines(), delimiter=self._delimiter, strict=True)
        while True:
            start = ends[0]
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "new-line" in str(error):
                    raise InputError(
                        f"{self.path} ends its lines by carriage returns alone: save it as CSV in "
                        "UTF-8"
                    ) from None
                said = f"{self.path} is no table: {error}, at line {reader.line_num}"
                raise InputError(f"{said}; quotes inside a quoted text are doubled") from None
            if cells:
                yield start, cells


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table to explain; `row` counts from 0, its name from 1."""

    table: Table
    row: int

    @property
    def name(self) -> str:
        """What its results are called, unique among what was collected together."""
        count = len(self.table)
        if count == 1:
            return self.table.name
        return f"{self.table.name}/{self.row + 1:0{len(str(count))}}"

    @property
    def source(self) -> str:
        """The file, and which row of it, from 1 on."""
        return f"{self.table.path}:{self.row + 1}" if len(self.table) > 1 else str(self.table.path)

    @property
    def digest(self) -> str:
        """SHA-256 of the row as it stands in the file, and of which columns of it are read."""
        found = hashlib.sha256(repr(self.table.places).encode())
        found.update(self.table.bytes_of(self.row))
        return found.hexdigest()


def collect_tables(
    sources: Iterable[str], leave_out: Path | None = None, only: Collection[Path] | None = None
) -> list[Table]:
    """Open tables, and those (.csv, .tsv) in folders.

    Parameters
    ----------
    sources : files and folders
    leave_out, only : as for `onnxlrp.inputs.items.files_in`

    Raises
    ------
    InputError
        As `Table`, or a folder holds no tables.
    OSError
        A file or folder does not exist.

    """
    found = files_in(sources, TABLES, "no tables (.csv, .tsv)", leave_out, only)
    return [Table(path, name) for path, name in found.items()]
