"""Rows of cells as lines of text that fit a terminal without losing a word."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from onnxlrp.cli.terminal import clean, wide, wrapped

GAP = "  "
PROSE = 24
"""Prose gives way to this width before names give way to it."""
MUCH = 0.75
"""A line for each cell is taken where it needs less than this part of the lines of columns."""


class Table(NamedTuple):
    """Rows under the names of their columns; some columns are set flush right and never wrapped."""

    names: tuple[str, ...]
    right: tuple[bool, ...]
    rows: list[tuple[str, ...]]


def table(columns: str, rows: Iterable[tuple[str, ...]]) -> Table:
    """Make a table of columns named in one text; a name ends in > where it is set flush right."""
    named = [column.replace("_", " ") for column in columns.split()]
    cells = [tuple(_in_one_line(cell) or "-" for cell in row) for row in rows]
    return Table(
        tuple(name.removesuffix(">") for name in named),
        tuple(name.endswith(">") for name in named),
        cells,
    )


def lines(table: Table, width: int | None) -> list[str]:
    """Set a table.

    Parameters
    ----------
    table : what to set
    width : cells to a line of the terminal; None for one line a row, of any length, for a pipe

    Returns
    -------
    lines without blanks at their ends, where they fit no longer than `width`. Cells are wrapped
    between words; a first cell that is longer than its column stands on a line of its own; where
    columns do not fit beside each other, or hardly, each cell gets a line, behind its column's
    name. Only words that are longer than a line are left for the terminal to wrap.

    """
    if width is None:
        widths = _natural(table)
        return [_joined(row, widths, table.right) for row in (table.names, *table.rows)]
    records = _records(table, width)
    found = [_columns(table, widths) for widths in _widths(table, width)]
    columns = min(found, key=len, default=records)
    return records if len(records) < MUCH * len(columns) else columns


def _in_one_line(cell: str) -> str:
    return clean(cell).replace("\n", "\\n").replace("\t", "\\t").strip()


def _cells(table: Table) -> list[tuple[str, ...]]:
    """Return the cells of each column, its name first."""
    return list(zip(table.names, *table.rows, strict=True))


def _natural(table: Table) -> list[int]:
    return [max(map(wide, cells)) for cells in _cells(table)]


def _widths(table: Table, width: int) -> list[list[int]]:
    """Return how wide columns may be; nothing where they do not fit beside each other."""
    room = width - len(GAP) * (len(table.names) - 1)
    natural = _natural(table)
    if sum(natural) <= room:
        return [natural]
    # Numbers stay whole, but the name of their column.
    least = [
        max([*map(wide, name.split()), *map(wide, cells if right else " ".join(cells).split())])
        for (name, *cells), right in zip(_cells(table), table.right, strict=True)
    ]
    head = max(map(wide, table.names[0].split()))
    easy = [max(one, min(PROSE, full)) for one, full in zip(least, natural, strict=True)][1:]
    for floor in ([natural[0], *easy], [head, *easy], [head, *least[1:]]):
        first = _shrunk(natural, floor, room)[0]
        if first + sum(floor[1:]) <= room:
            fitting = [wide(cell) for cell in _cells(table)[0] if wide(cell) <= first]
            # Names have a line of their own where some must, if that makes fewer lines.
            leads = {max([head, *fitting]), natural[0] if first == natural[0] else head}
            return [
                [lead, *_shrunk(natural[1:], floor[1:], room - lead)]
                for lead in sorted(leads)[::-1]
            ]
    return []


def _shrunk(natural: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Take width from the widest column that can give some, until all fit or none can."""
    widths = list(natural)
    while sum(widths) > room:
        giving = [index for index, width in enumerate(widths) if width > least[index]]
        if not giving:
            break
        widths[max(giving, key=widths.__getitem__)] -= 1
    return widths


def _columns(table: Table, widths: Sequence[int]) -> list[str]:
    head, *rows = (list(_row(row, widths, table.right)) for row in (table.names, *table.rows))
    rule = "─" * (sum(widths) + len(GAP) * (len(widths) - 1))
    return [*head, rule, *(line for row in rows for line in row)]


def _row(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> Iterator[str]:
    first, *others = cells
    parts = [
        [first],
        *(wrapped(cell, width) for cell, width in zip(others, widths[1:], strict=True)),
    ]
    if wide(first) > widths[0]:
        yield first
        parts[0] = []
    for index in range(max(map(len, parts))):
        yield _joined([part[index] if index < len(part) else "" for part in parts], widths, right)


def _joined(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = []
    for cell, width, flush in zip(cells, widths, right, strict=True):
        blank = " " * (width - wide(cell))
        padded.append(blank + cell if flush else cell + blank)
    return GAP.join(padded).rstrip()


def _records(table: Table, width: int) -> list[str]:
    found = []
    for row in table.rows:
        found += [*record(dict(zip(table.names, row, strict=True)), width), ""]
    return found[:-1]


def record(cells: Mapping[str, str], width: int | None) -> list[str]:
    """Set cells below each other, each behind its name; `width` is as for `lines`."""
    label = max(map(wide, cells))
    found = []
    for name, cell in cells.items():
        lead = name + " " * (label - wide(name))
        text = _in_one_line(cell)
        for line in [text] if width is None else wrapped(text, width - label - len(GAP)):
            found.append(lead + GAP + line)
            lead = " " * label
    return found
