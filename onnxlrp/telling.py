"""What is under way, told to whoever listens: to nobody, unless a command shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Listener = Callable[[str, int, int], None]
"""Gets words, how many are done, and of how many; 0 where nothing is counted."""

Thing = TypeVar("Thing")

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def heard(listener: Listener) -> Iterator[None]:
    """Let `listener` hear what the block tells, in this thread."""
    before = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(before)


def tell(words: str, done: int = 0, total: int = 0) -> None:
    """Say what begins, such as `reading the model`, or how far it is."""
    listener = _listener.get()
    if listener is not None:
        listener(words, done, total)


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
    listener = _listener.get()
    if listener is None:
        yield from things
        return
    listener(noun, before, total)
    _listener.set(None)
    try:
        for number, thing in enumerate(things, before + 1):
            yield thing
            listener(noun, number, total)
    finally:
        _listener.set(listener)
