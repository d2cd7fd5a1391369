"""Which places of a dense output the score is taken from: a pixel, a box, a token, all of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from onnxlrp.errors import InputError
from onnxlrp.graph.shapes import Dim

Bounds = tuple[int, int | None]
"""First index and the one after the last, as Python's slices count them; None is the end."""

_PART = re.compile(r"(-?\d{1,9})|(-?\d{1,9})?:(-?\d{1,9})?")


@dataclass(frozen=True)
class Place:
    """The part of a dense output whose sum over places is the score, [N, classes].

    Attributes
    ----------
    axis : of the classes; None where the output has none, and all of its axes are places
    bounds : by axis of places; those taken whole are left out

    """

    axis: int | None
    bounds: dict[int, Bounds]

    def slices(self, rank: int) -> tuple[slice, ...]:
        """Return what cuts the part out of an array of that rank, all axes kept."""
        return tuple(slice(*self.bounds.get(axis, (None, None))) for axis in range(rank))


def guessed_axis(rank: int) -> int:
    """Return where classes lie: last in [N, T, C], else second, as in [N, C, H, W]."""
    return 2 if rank == 3 else 1


def read_place(text: str, shape: Sequence[Dim], class_axis: int | None) -> Place:
    """Read what `--at` says of an output.

    Parameters
    ----------
    text : `all`, or an index or a range `FIRST:END` for each axis of places, by commas, as Python
        counts; with one for the class axis, too, the output is taken to have no classes
    shape : of the output
    class_axis : guessed if None

    Raises
    ------
    InputError
        If it is none of these, or lies outside.

    """
    rank = len(shape)
    axis: int | None = guessed_axis(rank) if class_axis is None else class_axis % max(rank, 1)
    if axis == 0 or (class_axis is not None and not -rank < class_axis < rank):
        raise InputError(
            f"--class-axis {class_axis} is no axis of {_text(shape)} besides the batch's: "
            f"1 to {rank - 1}, or counted from the end"
        )
    parts = [part.strip() for part in text.split(",")]
    places = [number for number in range(1, rank) if number != axis]
    if parts == ["all"]:
        return Place(axis, {})
    if len(parts) == rank - 1 and class_axis is None:
        axis, places = None, list(range(1, rank))
    if len(parts) != len(places):
        raise InputError(
            f"--at {text}: {_text(shape)} has its classes on axis {axis}, so write an index or a "
            f"range for each of {len(places)} axes, as in --at "
            f"{','.join(['0'] * len(places))}, or all; --class-axis moves the classes"
        )
    bounds = {}
    for number, part in zip(places, parts, strict=True):
        found = _bounds(part, shape[number])
        if found is None:
            raise InputError(
                f"--at {text}: '{part}' is no index and no range FIRST:END within axis {number} "
                f"of {_text(shape)}"
            )
        if found != (0, None):
            bounds[number] = found
    return Place(axis, bounds)


def _bounds(part: str, size: Dim) -> Bounds | None:
    """Read one index or range; None where it is neither, or holds nothing."""
    match = _PART.fullmatch(part)
    if match is None:
        return None
    single, first, end = match.groups()
    if single is not None:
        start = int(single)
        stop = None if start == -1 else start + 1
    else:
        start, stop = int(first or 0), None if end is None else int(end)
    if isinstance(size, int):
        last = size if stop is None else stop
        inside = -size <= start < size and -size <= last <= size
        return (start, stop) if inside and start % size < last + size * (last < 0) else None
    same_side = stop is not None and (start < 0) == (stop < 0)
    return None if same_side and stop is not None and start >= stop else (start, stop)


def _text(shape: Sequence[Dim]) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"
