"""Files that commands are given: none without a name, none both read and written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from onnxlrp.errors import InputError


class Place(click.Path):
    """A path; without a name, as of a variable that is not set, it is no folder, but an error."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the path."""
        if value == "":
            self.fail("a name is empty: is a variable not set?", param, ctx)
        return super().convert(value, param, ctx)


class Made(Place):
    """A file that the command writes, of a name that ends in one of `endings`, if there are any."""

    def __init__(self, *endings: str, **options: Any) -> None:
        super().__init__(**options)
        self.endings = endings

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the path."""
        path = super().convert(value, param, ctx)
        if self.endings and path.suffix.lower() not in self.endings:
            self.fail(f"{path}: end its name in {self.endings[0]}", param, ctx)
        return path


def refuse_overwriting(parameters: list[click.Parameter], given: Mapping[str, Any]) -> None:
    """Check that no file that is to be written is one that is read.

    Raises
    ------
    InputError
        One is.

    """
    made = [one for one in parameters if isinstance(one.type, Made)]
    read = [path for one in parameters if one not in made for path in _paths(given.get(one.name))]
    for one in made:
        named = max(one.opts, key=len)
        named = named.upper() if isinstance(one, click.Argument) else named
        for path in _paths(given.get(one.name)):
            if any(path.samefile(other) for other in read):
                raise InputError(
                    f"{path} is read, and would be written over: give {named} another name"
                )


def _paths(given: Any) -> Iterator[Path]:
    """Yield files that exist, of a path, words such as `name=file`, or several."""
    if isinstance(given, tuple):
        for one in given:
            yield from _paths(one)
    elif isinstance(given, str | Path):
        for text in (str(given), str(given).partition("=")[2]):
            # Words that are no names of files may be longer than one, or hold a zero.
            try:
                if text and Path(text).is_file():
                    yield Path(text)
            except (OSError, ValueError):
                continue
