"""What to explain: a class by number, name or rank, the difference of two, or from a file."""

from __future__ import annotations

import csv
import difflib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxlrp.errors import InputError
from onnxlrp.files import check_regular, read_text

TOP = -1
"""The target that stands for the class with the highest score."""


@dataclass(frozen=True)
class Difference:
    """The score of one class minus that of another: why is it the one and not the other.

    Attributes
    ----------
    plus, minus : numbers of classes, -1 for the best

    """

    plus: int
    minus: int

    def __str__(self) -> str:
        """Write it as `read_difference` reads it."""
        names = ("top" if number == TOP else str(number) for number in (self.plus, self.minus))
        return "-".join(names)


_SAME = "a class does not differ from itself, so there is nothing to explain"

_DIFFERENCE = re.compile(r"(top|\d{1,18})-(top|\d{1,18})")


def read_difference(text: str) -> Difference | None:
    """Read two numbers, or `top`, with a minus between; None where the text is no such thing.

    Raises
    ------
    InputError
        The two are the same.

    """
    match = _DIFFERENCE.fullmatch(text)
    if match is None:
        return None
    found = Difference(*(TOP if part == "top" else int(part) for part in match.groups()))
    if found.plus == found.minus:
        raise InputError(f"{text}: {_SAME}")
    return found


def load_labels(path: Path) -> list[str]:
    """Read the names of classes: one a line, or JSON as a list or as `{"0": name, ...}`.

    Of a JSON entry that is a list, such as `["n01440764", "tench"]`, the last text is the name.

    Raises
    ------
    InputError
        The file is neither, or the numbers of its classes have gaps.
    OSError
        The file cannot be opened.

    """
    try:
        text = read_text(path)
        if path.suffix.lower() != ".json":
            return [line.strip() for line in text.splitlines() if line.strip()]
        read = json.loads(text)
        if isinstance(read, dict):
            read = [read[str(number)] for number in range(len(read))]
        return [str(entry[-1] if isinstance(entry, list) else entry) for entry in read]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise InputError(
            f"{path} is not a list of names: one a line, or JSON as a list or numbered from 0"
        ) from error


_NUMBER = re.compile("-?[0-9]{1,18}")


Weights = tuple[float, ...]

Wanted = int | Difference | Weights
"""What may be asked of an item: a class, -1 for the best, a difference, a weight of each class."""


@dataclass(frozen=True)
class Aim:
    """What was explained of one sample.

    Attributes
    ----------
    target : the class; None where all scores were weighted
    minus : the class whose score was subtracted; None for none
    contrast, at : as the explainer was converted; "" without one
    above : whether it is how much the score is above that of a reference
    sensitivity : whether the map is a gradient, or one times the input, which adds up to no score

    """

    target: int | None
    minus: int | None = None
    contrast: str = ""
    at: str = ""
    above: bool = False
    sensitivity: bool = False

    @property
    def key(self) -> int | str:
        """The number of the class, else `3-5` or `weights`."""
        if self.target is None:
            return "weights"
        return self.target if self.minus is None else f"{self.target}-{self.minus}"

    @property
    def quantity(self) -> str:
        """What the map adds up to, of a score."""
        above = " above the reference's" if self.above else ""
        if self.target is None:
            return f"weighted score{above}"
        return ("score" if self.minus is None else "difference of scores") + above

    def label(self, labels: Sequence[str] | None) -> str:
        """Name it by the names of the classes; "" where there are none."""
        if not labels or self.target is None:
            return ""
        minus = "" if self.minus is None else f" minus {labels[self.minus]}"
        return labels[self.target] + minus

    def in_words(self, labels: Sequence[str] | None = None, numbers: bool = True) -> str:
        """Say what was explained; beside names of classes stand their numbers, or not."""
        if self.target is None:
            said = "weighted scores"
        else:
            classes = [self.target, *([] if self.minus is None else [self.minus])]
            said = " minus ".join(
                (f"{labels[n]} ({n})" if numbers else labels[n]) if labels else f"class {n}"
                for n in classes
            )
        against = {"others": " against all others", "softmax": " by softmax's gradient"}
        where = " over all places" if self.at == "all" else f" at {self.at}" if self.at else ""
        return said + against.get(self.contrast, "") + where


@dataclass(frozen=True)
class Targets:
    """What to explain of each item.

    Attributes
    ----------
    best : how many of the highest scoring classes, from the best on; 0 where it is said what
    one : the same for every item, where `each` does not say
    each : by item name

    """

    best: int = 1
    one: Wanted | None = None
    each: Mapping[str, Wanted] | None = None

    def of(self, name: str) -> Wanted:
        """Return what to start from for an item; -1 for the best class.

        Raises
        ------
        InputError
            The file of classes does not name the item.

        """
        if self.each is None:
            return TOP if self.one is None else self.one
        if name not in self.each:
            raise InputError("the file of --target has no class for it")
        return self.each[name]


def read_targets(
    text: str, names: Sequence[str], labels: Sequence[str] | None, classes: int | None
) -> Targets:
    """Read what the command line says about the class to explain.

    Parameters
    ----------
    text : a number from 0, `top` (also -1), `top:K`, a class name out of `labels`, or two of these
        with a minus between, for the difference of their scores; or a file: `.npy` or `.npz`
        (array `y`, `label`, `labels`, `target` or `weights`) of integers, one an item, or of
        weights, [classes] for all or [items, classes]; or `.csv` or `.txt` with a line
        `ITEM,CLASS` for each, or `CLASS` for each in order
    names : of the items, in order
    labels : names of the classes
    classes : how many there are, if that is known

    Raises
    ------
    InputError
        It is none of these, or names a class that does not exist.

    """
    if text in ("top", str(TOP)):
        return Targets()
    if text.startswith("top:"):
        count = text.removeprefix("top:")
        if not _NUMBER.fullmatch(count) or not 0 < int(count) <= (classes or int(count)):
            raise InputError(f"--target {text}: write top:5 for the best five of {classes or 'N'}")
        return Targets(best=int(count))
    path = Path(text)
    if path.suffix.lower() in (".npy", ".npz", ".csv", ".txt") and path.is_file():
        return Targets(0, each=_from_file(path, names, labels, classes))
    return Targets(0, one=_wanted(text, labels, classes))


def _wanted(text: str, labels: Sequence[str] | None, classes: int | None) -> int | Difference:
    """Read a class or a difference; what is the name of a class as it stands is that class."""
    try:
        return class_number(text, labels, classes)
    except InputError as error:
        unknown = error
    found = []
    for sides in [(text[:i], text[i + 1 :]) for i, letter in enumerate(text) if letter == "-"]:
        try:
            numbers = [_number(side, labels, classes) for side in sides]
        except InputError as error:
            # Of two numbers it is plain which one is none; a name may hold a minus itself.
            unknown = error if _DIFFERENCE.fullmatch(text) else unknown
            continue
        found.append(Difference(*numbers))
    if not found:
        raise unknown
    if len(found) > 1:
        raise InputError(f"'{text}' can be read as several differences: give numbers, as in 3-5")
    (difference,) = found
    if difference.plus == difference.minus:
        raise InputError(f"{text}: {_SAME}")
    return difference


def class_number(text: str, labels: Sequence[str] | None, classes: int | None) -> int:
    """Return the class that a number or name stands for.

    A name matches a label, or one of the synonyms that commas separate in it, in any case.

    Raises
    ------
    InputError
        There is no such class, or several.

    """
    text = text.strip()
    if _NUMBER.fullmatch(text):
        number = int(text)
        if number < 0 or (classes is not None and number >= classes):
            last = "" if classes is None else f" to {classes - 1}"
            raise InputError(f"{number} is not a class: they are 0{last}; 'top' is the best one")
        return number
    if labels is None:
        raise InputError(f"'{text}' is no class number: naming classes needs --labels FILE")
    wanted = text.casefold()
    exact = [number for number, label in enumerate(labels) if label.casefold() == wanted]
    found = exact or [
        number
        for number, label in enumerate(labels)
        if wanted in (part.strip() for part in label.casefold().split(","))
    ]
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(f"{number} ({labels[number]})" for number in found)
        raise InputError(f"'{text}' names several classes: {listed}; give the number")
    close = difflib.get_close_matches(text, labels, 3)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    raise InputError(f"no class is called '{text}'{hint}")


def _number(text: str, labels: Sequence[str] | None, classes: int | None) -> int:
    return TOP if text.strip() == "top" else class_number(text, labels, classes)


def _from_file(
    path: Path, names: Sequence[str], labels: Sequence[str] | None, classes: int | None
) -> dict[str, Wanted]:
    if path.suffix.lower() in (".npy", ".npz"):
        array = _array(path)
        if array.dtype.kind == "f":
            return _weights(path, array, names, classes)
        rows = [[str(value)] for value in array]
    else:
        try:
            rows = [row for row in csv.reader(io.StringIO(read_text(path), newline="")) if row]
        except csv.Error as error:
            raise InputError(f"{path} is no table: {error}") from None
        if rows and [cell.strip().casefold() for cell in rows[0]] == ["item", "class"]:
            del rows[0]
    if not rows or {len(row) for row in rows} not in ({1}, {2}):
        raise InputError(f"{path}: write ITEM,CLASS on each line, or CLASS alone in order")
    if len(rows[0]) == 1:
        if len(rows) != len(names):
            raise InputError(f"{path} has {len(rows)} classes for {len(names)} items")
        rows = [[name, row[0]] for name, row in zip(names, rows, strict=True)]
    chosen: dict[str, Wanted] = {}
    for name, text in rows:
        try:
            chosen[name.strip()] = _wanted(text.strip(), labels, classes)
        except InputError as error:
            raise InputError(f"{path}: {name}: {error}") from None
    return chosen


def _weights(
    path: Path, array: np.ndarray, names: Sequence[str], classes: int | None
) -> dict[str, Wanted]:
    """Take an array for weights of the scores, one row for all items or one for each."""
    rows = array[None] if array.ndim == 1 else array
    wanted = "?" if classes is None else classes
    if rows.ndim != 2 or len(rows) not in (1, len(names)) or classes not in (None, rows.shape[1]):
        raise InputError(
            f"{path} holds {array.dtype} {list(array.shape)}, not classes, nor weights: "
            f"[{wanted}], or a row of {wanted} for each of {len(names)} items"
        )
    check_weights(rows, str(path))
    rows = np.broadcast_to(rows, (len(names), rows.shape[1]))
    return {name: tuple(map(float, row)) for name, row in zip(names, rows, strict=True)}


def check_weights(rows: np.ndarray, source: str) -> None:
    """Raise where weights, [N, classes], leave nothing to explain.

    Raises
    ------
    InputError
        They hold NaN or infinity, or a row is all zeros.

    """
    if not np.isfinite(rows).all():
        raise InputError(f"{source} holds NaN or infinity, and weights are numbers")
    if not rows.any(axis=1).all():
        raise InputError(f"{source} has a row of zeros, which leaves nothing to explain")


def _array(path: Path) -> np.ndarray:
    check_regular(path)
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.ndarray):
            with loaded:
                known = ("y", "label", "labels", "target", "weights")
                loaded = loaded[next(key for key in known if key in loaded.files)]
    except OSError:
        raise
    # numpy reports broken files as ValueError, EOFError, BadZipFile, ...
    except Exception as error:
        raise InputError(
            f"{path} holds no classes: an array of integers, in .npz as 'y', or 'weights'"
        ) from error
    if loaded.dtype.kind != "f" and (loaded.dtype.kind not in "iu" or loaded.ndim != 1):
        raise InputError(f"{path} holds {loaded.dtype} {list(loaded.shape)}, not classes in a row")
    return np.asarray(loaded)
