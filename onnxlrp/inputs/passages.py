"""What text there is to explain: lines of files, columns of tables, sentences as they are."""

from __future__ import annotations

import csv
import hashlib
import io
import sys
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxlrp.errors import InputError
from onnxlrp.extras import needed
from onnxlrp.files import check_regular, decoded, read_text
from onnxlrp.inputs.items import files_in

TABLES = {".csv": ",", ".tsv": "\t"}
STDIN = "-"


@dataclass(frozen=True)
class Passage:
    """One text to explain.

    Attributes
    ----------
    name : what its results are called, unique among what was collected together
    source : where it is from, `reviews.txt:3` its third line, `reviews.csv:3` its third row
    text : what it says

    """

    name: str
    source: str
    text: str

    @property
    def digest(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()


def collect_texts(
    sources: Iterable[str],
    sentences: Sequence[str] = (),
    column: str | None = None,
    *,
    leave_out: Path | None = None,
    only: Collection[Path] | None = None,
) -> list[Passage]:
    """List the texts in files, one a line, or a row of a table, from 1 on; blank ones are left out.

    Parameters
    ----------
    sources : text files, tables (.csv, .tsv) whose first line names the columns, folders of
        both, or - for lines of standard input
    sentences : texts themselves
    column : which of a table; needed where it has several
    leave_out, only : as for `onnxlrp.inputs.items.files_in`

    Raises
    ------
    InputError
        A file is no text, a table has no such column, or nothing holds any text.
    OSError
        A file or folder does not exist.

    """
    found: list[Passage] = []
    blank = 0
    for origin, name, texts in _sources(sources, sentences, column, leave_out, only):
        digits = len(str(len(texts)))
        for number, text in enumerate(texts, 1):
            if not text.strip():
                blank += 1
            elif len(texts) == 1:
                found.append(Passage(name, origin, text))
            else:
                found.append(Passage(f"{name}/{number:0{digits}}", f"{origin}:{number}", text))
    if not found and only is None:
        raise InputError("there is no text to explain: all that is given is blank")
    twice = [name for name, count in Counter(one.name for one in found).items() if count > 1]
    if twice:
        raise InputError(f"two texts would be called {twice[0]}: explain them in separate folders")
    if blank:
        warnings.warn(f"{blank} blank texts were left out", stacklevel=2)
    return found


def _sources(
    sources: Iterable[str],
    sentences: Sequence[str],
    column: str | None,
    leave_out: Path | None,
    only: Collection[Path] | None,
) -> Iterator[tuple[str, str, list[str]]]:
    """Yield origin, name and texts of each source."""
    if sentences:
        yield "--text", "text", list(sentences)
    files = []
    for source in dict.fromkeys(sources):
        if source == STDIN:
            yield "stdin", "stdin", _lines(decoded(sys.stdin.buffer.read(), "standard input"))
        elif not Path(source).exists():
            raise InputError(f"{source}: no such file; a sentence itself is given by --text")
        else:
            files.append(source)
    nothing = "no texts (.txt) and no tables (.csv, .tsv, .parquet)"
    readers = {".parquet": _of_parquet} | dict.fromkeys(TABLES, _column)
    for file, name in files_in(files, (".txt", *readers), nothing, leave_out, only).items():
        read = readers.get(file.suffix.lower(), _of_file)
        yield str(file), name, read(file, column)


def _lines(text: str) -> list[str]:
    # Not str.splitlines, which also breaks at form feeds and separators inside a text.
    return [line.rstrip("\n") for line in io.StringIO(text, newline=None)]


def _of_file(path: Path, _: str | None) -> list[str]:
    return _lines(read_text(path))


def _rows(path: Path) -> list[list[str]]:
    text, delimiter = read_text(path), TABLES[path.suffix.lower()]
    # Not strict, a quote that is never closed would swallow all rows below it.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        return list(reader)
    except csv.Error as error:
        if delimiter == "\t":
            # By its standard this format has no quotes: those that do not add up are text.
            stream = io.StringIO(text, newline="")
            return list(csv.reader(stream, delimiter=delimiter, quoting=csv.QUOTE_NONE))
        said = f"{path} is no table: {error}, at line {reader.line_num}"
        raise InputError(f"{said}; quotes inside a quoted text are doubled") from None


def _column(path: Path, column: str | None) -> list[str]:
    check_regular(path)
    header, *rows = _rows(path) or [[]]
    listed = ", ".join(header)
    if column is None and len(header) != 1:
        raise InputError(f"{path}: say which column holds the text, as in --column NAME: {listed}")
    if column is not None and header.count(column) != 1:
        raise InputError(f"{path} has not one column '{column}': its first line names {listed}")
    place = header.index(column) if column is not None else 0
    return [row[place] if len(row) > place else "" for row in rows]


def _of_parquet(path: Path, column: str | None) -> list[str]:
    parquet = needed("pyarrow.parquet", "data")
    try:
        file = parquet.ParquetFile(path)
    except OSError:
        raise
    except Exception as error:
        raise InputError(f"{path} is no Parquet file: {error}") from error
    known = [field.name for field in file.schema_arrow if str(field.type).endswith("string")]
    if column not in known and (column is not None or len(known) != 1):
        listed = ", ".join(known) or "none"
        raise InputError(f"{path}: say which column holds the text, as in --column NAME: {listed}")
    texts = file.read(columns=[column or known[0]]).column(0).to_pylist()
    return ["" if text is None else text for text in texts]
