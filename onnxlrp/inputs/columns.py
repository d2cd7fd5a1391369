"""Which columns of tables a model reads, and as what."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnxlrp.errors import InputError
from onnxlrp.inputs.rows import Row, Table, number

Inputs = Mapping[str, tuple[str, Sequence[int | str | None]]]
Relevance = NDArray[Any] | Mapping[str, NDArray[Any]]

TEXT = "string"
_WHOLE = 2.0**53
"""Beyond it not every whole number has a float64 of its own."""


class _Column(NamedTuple):
    """A column that a model reads: of which input, and its name, None where any fits."""

    input: str
    name: str | None


@dataclass(frozen=True)
class Columns:
    """How columns of tables become what a model reads.

    Attributes
    ----------
    names : of the columns that it reads, [C], in the order of the first table
    places : by input, which of the C it takes, in its own order
    inputs : dtypes and shapes of the model's, by name
    explained : which of the C get relevance
    missing : which inputs may lack values, NaN
    unread : columns of the first table that the model does not read
    headed : whether a first line names the columns

    """

    names: tuple[str, ...]
    places: Mapping[str, tuple[int, ...]]
    inputs: Inputs
    explained: tuple[int, ...]
    missing: frozenset[str]
    unread: tuple[str, ...]
    headed: bool

    @classmethod
    def of_matrix(cls, name: str, dtype: str, count: int) -> Columns:
        """Return those of rows that are what a model's only input reads, of so many features."""
        every = tuple(range(count))
        inputs = {name: (dtype, (None, count))}
        names = tuple(feature_names({name: count}))
        return cls(names, {name: every}, inputs, every, frozenset(), (), False)

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the columns that get relevance."""
        return tuple(self.names[place] for place in self.explained)

    @cached_property
    def _reading(self) -> list[str]:
        """Which input takes each of the C."""
        found = {place: name for name, places in self.places.items() for place in places}
        return [found[place] for place in range(len(self.names))]

    def read(self, row: Row) -> NDArray[Any]:
        """Read the cells of a row, [C]: numbers, and texts as they are.

        Raises
        ------
        InputError
            It has more or fewer cells than the first line, one that is no number, or none of the
            kind that the input takes.
        OSError
            The file cannot be opened.

        """
        cells, width = row.table.cells(row.row), row.table.width
        if len(cells) != width:
            raise InputError(f"{row.source} has {len(cells)} cells, and the first line {width}")
        texts = any(dtype == TEXT for dtype, _ in self.inputs.values())
        values = np.empty(len(self.names), object if texts else np.float64)
        for place, (name, source) in enumerate(zip(self.names, self._reading, strict=True)):
            cell = cells[row.table.places[place]]
            if self.inputs[source][0] == TEXT:
                values[place] = cell
                continue
            wrong = self._wrong(source, cell, value := number(cell))
            if wrong:
                raise InputError(f"{row.source}, column '{name}': {wrong}")
            values[place] = value
        return values

    def _wrong(self, source: str, cell: str, value: float | None) -> str:
        """Say why an input does not take a cell; "" where it does."""
        dtype = self.inputs[source][0]
        if value is None:
            said = f"'{cell}' is no finite number: write it as the one that the model was trained "
            return said + "on (decimals with a point)"
        if math.isnan(value):
            if source in self.missing:
                return ""
            return "the value is missing, and the model does not fill it in: do so, or drop the row"
        if dtype == "bool":
            return "" if value in (0, 1) else f"the model reads true or false, not {cell.strip()}"
        if "int" in dtype:
            info = np.iinfo(dtype)
            least, most = max(info.min, -_WHOLE), min(info.max, _WHOLE)
            if not value.is_integer() or not least <= value <= most:
                return f"the model reads whole numbers ({dtype}), not {cell.strip()}"
        return ""

    def feeds(self, values: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return what the model reads of rows, [N, C], by input, rounded where it is whole."""
        feeds = {}
        for name, places in self.places.items():
            dtype, shape = self.inputs[name]
            taken = values[:, places[0] if len(shape) == 1 else [*places]]
            if dtype != TEXT:
                numbers = taken.astype(np.float64)
                taken = (np.rint(numbers) if "int" in dtype else numbers).astype(dtype)
            feeds[name] = taken
        return feeds

    def joined(self, relevance: Relevance, row: int) -> NDArray[Any]:
        """Return the relevance of the explained columns of one of N rows, in their order."""
        if not isinstance(relevance, Mapping):
            (name,) = {self._reading[place] for place in self.explained}
            relevance = {name: relevance}
        found = np.zeros(len(self.names), np.result_type(*relevance.values()))
        for name, maps in relevance.items():
            found[[*self.places[name]]] = maps[row]
        return found[[*self.explained]]

    def in_words(self) -> str:
        """Say which columns are read."""
        said = f"read by {len(self.names)} columns{'' if self.headed else ', which no line names'}"
        bare = [name for place, name in enumerate(self.names) if place not in self.explained]
        said += f"; without relevance: {', '.join(bare)}" if bare else ""
        return said + (f"; not read: {', '.join(self.unread)}" if self.unread else "")


def arranged(
    tables: Sequence[Table],
    inputs: Inputs,
    explained: Sequence[str],
    features: Mapping[str, Sequence[str]],
    ignored: Sequence[str] = (),
    missing: Iterable[str] = (),
) -> Columns:
    """Find the columns of each table that a model reads, and set the tables' `places`.

    Of a model with several inputs those of one column are found by their names, in any order and
    whatever else there is; likewise wherever the names of features are known. Other inputs take
    the columns that are left, in their order, all of them.

    Parameters
    ----------
    tables : what is to be explained
    inputs : dtype and shape of the model's, by name: [N] or [N, F]
    explained : which of them get relevance
    features : names of the features of inputs, as far as they are known
    ignored : columns that the model does not read
    missing : inputs that may lack values

    Raises
    ------
    InputError
        A column is missing, there twice, or one too many.

    """
    wanted = _wanted(tables[0], inputs, features, ignored)
    for table in tables:
        known = {column.name for column in wanted if column.name is not None}
        if known and known <= {cell.strip() for cell in table.first}:
            table.name_columns()
        found = table.places = _found(table, wanted, ignored)
        if table.header is not None:
            # What nothing else names is called in all tables as in the first.
            wanted = [
                column if column.name else column._replace(name=table.header[place])
                for column, place in zip(wanted, found, strict=True)
            ]
    header, first = tables[0].header, tables[0].places
    names = _numbered(wanted) if header is None else [header[place] for place in first]
    order = sorted(range(len(wanted)), key=first.__getitem__)
    rank = {index: place for place, index in enumerate(order)}
    for table in tables:
        table.places = tuple(table.places[index] for index in order)
    return Columns(
        tuple(names[index] for index in order),
        {
            name: tuple(rank[i] for i, column in enumerate(wanted) if column.input == name)
            for name in inputs
        },
        inputs,
        tuple(place for place, index in enumerate(order) if wanted[index].input in explained),
        frozenset(missing),
        tuple(name for place, name in enumerate(header or ()) if place not in first),
        header is not None,
    )


def mean_row(
    path: Path, inputs: Inputs, explained: Sequence[str], features: Mapping[str, Sequence[str]]
) -> dict[str, NDArray[Any]]:
    """Return the mean of a table's rows, missing values aside, by explained input.

    It is rounded where the model reads whole numbers, and zero where it reads texts.

    Raises
    ------
    InputError
        As `arranged` and `Columns.read`, or a column has no values.
    OSError
        The file cannot be opened.

    """
    table = Table(path, path.stem)
    columns = arranged([table], inputs, explained, features, missing=inputs)
    sums, counts = np.zeros((2, len(columns.names)))
    for row in range(len(table)):
        cells = columns.read(Row(table, row))
        values = np.array([math.nan if isinstance(cell, str) else cell for cell in cells])
        there = ~np.isnan(values)
        sums[there] += values[there]
        counts += there
    found = {}
    for name in explained:
        places = [*columns.places[name]]
        empty = [columns.names[place] for place in places if counts[place] == 0]
        if empty and inputs[name][0] != TEXT:
            raise InputError(f"{path} has no values in its column '{empty[0]}'")
        mean = sums[places] / np.maximum(counts[places], 1)
        found[name] = np.rint(mean) if "int" in inputs[name][0] else mean
    return found


def named_features(names: Sequence[str], inputs: Inputs) -> dict[str, tuple[str, ...]]:
    """Part names of features among the inputs of a model that read several of them, in order.

    Inputs of one column, [N, 1], are called by their own names, unless there is no other.

    Raises
    ------
    InputError
        There are more or fewer names than features, or two are the same.

    """
    tables = {name: shape[1] for name, (_, shape) in inputs.items() if len(shape) == 2}
    if len(tables) > 1:
        tables = {name: size for name, size in tables.items() if size != 1}
    known = sum(size for size in tables.values() if isinstance(size, int))
    unknown = [name for name, size in tables.items() if not isinstance(size, int)]
    if len(unknown) == 1:
        tables[unknown[0]] = max(len(names) - known, 0)
    elif unknown:
        raise InputError(f"inputs {', '.join(unknown)} do not say how many features they take")
    wanted = sum(int(size or 0) for size in tables.values())
    if len(names) != wanted or not tables:
        listed = ", ".join(f"{name} [{', '.join(map(str, s))}]" for name, (_, s) in inputs.items())
        raise InputError(
            f"{len(names)} names of features are given, and the model reads {wanted} as {listed}"
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"two features are called '{twice[0]}'")
    rest = iter(names)
    return {name: tuple(islice(rest, int(size or 0))) for name, size in tables.items()}


def feature_names(inputs: Mapping[str, int]) -> list[str]:
    """Name the features of inputs, of so many each, by their numbers, where nothing else does."""
    several = len(inputs) > 1
    return [
        name if several and count == 1 else f"{name if several else 'feature'} {place}"
        for name, count in inputs.items()
        for place in range(count)
    ]


def _numbered(columns: Sequence[_Column]) -> list[str]:
    numbered = feature_names(Counter(column.input for column in columns))
    return [column.name or name for column, name in zip(columns, numbered, strict=True)]


def _wanted(
    table: Table, inputs: Inputs, features: Mapping[str, Sequence[str]], ignored: Sequence[str]
) -> list[_Column]:
    """List the columns that a model reads, in the order of its inputs."""
    wanted: list[_Column] = []
    open_ended = ""
    for name, (_, shape) in inputs.items():
        width = shape[1] if len(shape) == 2 else 1
        if name in features:
            wanted += [_Column(name, feature) for feature in features[name]]
        elif width == 1:
            wanted.append(_Column(name, name if len(inputs) > 1 else None))
        elif isinstance(width, int):
            wanted += [_Column(name, None)] * width
        elif open_ended:
            raise InputError(
                f"inputs '{open_ended}' and '{name}' take any number of columns: convert with "
                "--features for one of them"
            )
        else:
            open_ended, place = name, len(wanted)
    if open_ended:
        rest = table.width - len(wanted) - len(ignored)
        wanted[place:place] = [_Column(open_ended, None)] * rest
    return wanted


def _found(table: Table, wanted: Sequence[_Column], ignored: Sequence[str]) -> tuple[int, ...]:
    """Return which column of a table each wanted one is."""
    header, path = table.header, table.path
    if header is None:
        if ignored:
            raise InputError(f"{path} has no line of names, and so no column '{ignored[0]}'")
        if table.width != len(wanted):
            raise InputError(
                f"{path} has {table.width} columns without names, and the model reads "
                f"{len(wanted)}: put a line of names above the rows"
            )
        return tuple(range(table.width))
    listed = ", ".join(header)
    for name in ignored:
        if name not in header:
            raise InputError(f"{path} has no column '{name}' to ignore: they are {listed}")
    rest = [place for place, name in enumerate(header) if name not in ignored]
    found = [_place(table, column, rest) if column.name is not None else -1 for column in wanted]
    left = [place for place in rest if place not in found]
    if -1 in found and len(left) != found.count(-1):
        those = ", ".join(header[place] for place in left) or "none"
        advice = "say with --features FILE which it reads, in its order"
        if len(left) > found.count(-1):
            advice += f", or to explain and evaluate which not, as in --ignore {header[left[0]]!r}"
        many = f"{len(left)} column{'s' * (len(left) != 1)} ({those})"
        raise InputError(f"{path} has {many} where the model reads {found.count(-1)}: {advice}")
    twice = [header[p] for p in left if -1 in found and header.count(header[p]) > 1]
    if twice:
        raise InputError(f"{path} has several columns '{twice[0]}': give each a name of its own")
    places = iter(left)
    return tuple(next(places) if place == -1 else place for place in found)


def _place(table: Table, column: _Column, rest: Sequence[int]) -> int:
    """Return the column of that name, spelt as it is or at least with its letters and digits."""
    header, name = table.header or (), column.name or ""
    for spelling in (str, _plain):
        places = [place for place in rest if spelling(header[place]) == spelling(name)]
        if len(places) > 1:
            raise InputError(f"{table.path} has several columns '{name}', which the model reads")
        if places:
            return places[0]
    raise InputError(
        f"{table.path} has no column '{name}', which the model reads: they are {', '.join(header)}"
    )


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())
