"""What is under way, told to whoever listens: to nobody, unless a command shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

Listener = Callable[[str, int, int], None]
"""Gets words, how many are done, and of how many; 0 where nothing is counted."""

Thing = TypeVar("Thing")


@dataclass
class _Hearing:
    listener: Listener
    counting: bool = False


# What a forgotten `counted` ends in its own time must not reach whoever listens by then.
_hearing: ContextVar[_Hearing | None] = ContextVar("hearing", default=None)


@contextmanager
def heard(listener: Listener) -> Iterator[None]:
    """Let `listener` hear what the block tells, in this thread."""
    before = _hearing.set(_Hearing(listener))
    try:
        yield
    finally:
        _hearing.reset(before)


def tell(words: str, done: int = 0, total: int = 0) -> None:
    """Say what begins, such as `reading the model`, or how far it is."""
    hearing = _hearing.get()
    if hearing is not None and not hearing.counting:
        hearing.listener(words, done, total)


def counted(
    things: Iterable[Thing], noun: str, total: int | None = None, before: int = 0
) -> Iterator[Thing]:
    """Yield things, telling how many of them are done, and nothing of what is done with each.

    Parameters
    ----------
    things : to be worked on, one after another
    noun : what they are, in the plural
    total : how many there are, where `things` does not know, or where they are part of more
    before : how many were done before them

    """
    if total is None:
        total = len(things) if isinstance(things, Sized) else 0
    hearing = _hearing.get()
    if hearing is None or hearing.counting:
        yield from things
        return
    hearing.listener(noun, before, total)
    hearing.counting = True
    try:
        for number, thing in enumerate(things, before + 1):
            yield thing
            hearing.listener(noun, number, total)
    finally:
        hearing.counting = False
