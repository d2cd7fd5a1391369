"""How far a long run is: a line on a terminal that stays in its place, plain lines in a log."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from onnxlrp.cli.terminal import clean, echo
from onnxlrp.telling import Listener, heard

EVERY = 30.0
"""Seconds between two lines in a log."""
WIDTH = 28
"""So many letters of what is under way have room beside a bar on a narrow terminal."""


@contextmanager
def progress(total: int, noun: str, done: int = 0) -> Iterator[Callable[..., None]]:
    """Give a function to call after each of `total` things, or with a number after so many.

    On a terminal stderr shows a bar with rate and time left; elsewhere it gets a line such as
    `1200 of 100000 items, 8.1 a second, 3:22:58 left` every half minute.

    Parameters
    ----------
    total : how many there are
    noun : what they are, in the plural
    done : how many of them were done before

    """
    with _display() as show:

        def advance(more: int = 1) -> None:
            nonlocal done
            done += more
            show(noun, done, total)

        show(noun, done, total)
        yield advance


@contextmanager
def shown() -> Iterator[None]:
    """Show likewise what the code in the block says of itself by `onnxlrp.telling`."""
    with _display() as show, heard(show):
        yield


def _display() -> AbstractContextManager[Listener]:
    # A dumb terminal, as some editors have, cannot go back to the start of a line.
    if sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown"):
        return _bar()
    return _lines()


@contextmanager
def _bar() -> Iterator[Listener]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task
    from rich.table import Column
    from rich.text import Text

    class Words(ProgressColumn):
        def render(self, task: Task) -> Text:
            words = task.description
            return Text(words if len(words) <= WIDTH else f"{words[: WIDTH - 3]}...")

    class Counts(ProgressColumn):
        def render(self, task: Task) -> Text:
            if not task.total:
                return Text("")
            done, total = int(task.completed), int(task.total)
            return Text(f"{done}/{total}{_speed(task.speed, total - done)}")

    whole, rest = Column(no_wrap=True), Column(ratio=1)
    columns = (
        SpinnerColumn(),
        Words(table_column=whole),
        BarColumn(bar_width=None, table_column=rest),
        Counts(table_column=whole.copy()),
    )
    console = Console(stderr=True)
    # What is said goes above the bar, but on a stdout that leads elsewhere.
    own = sys.stdout.isatty()
    try:
        with Progress(
            *columns, console=console, transient=True, expand=True, redirect_stdout=own
        ) as bar:
            task = bar.add_task("", total=None)
            under_way = None

            def show(words: str, done: int, total: int) -> None:
                nonlocal task, under_way
                if (words, total) == under_way:
                    bar.update(task, completed=done)
                else:
                    under_way = words, total
                    bar.remove_task(task)
                    task = bar.add_task(clean(words), total=total or None, completed=done)
                    # The thread that draws waits where the work is one long call.
                    bar.refresh()

            yield show
    finally:
        # Interrupted while it starts, a bar leaves it hidden.
        console.show_cursor()


@contextmanager
def _lines() -> Iterator[Listener]:
    told = start = time.monotonic()
    under_way, first = None, 0

    def show(words: str, done: int, total: int) -> None:
        nonlocal told, start, under_way, first
        now = time.monotonic()
        if (words, total) != under_way:
            under_way, start, first = (words, total), now, done
        if now - told >= EVERY:
            told = now
            rate = (done - first) / (now - start) if done > first else None
            counted = f"{done} of {total} {words}{_speed(rate, total - done)}"
            echo(counted if total else words, err=True)

    yield show


def _speed(rate: float | None, rest: int) -> str:
    """Say how many things are done in a second, and how long the rest takes."""
    if not rate:
        return ""
    left = int(rest / rate)
    clock = f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}"
    return f", {rate:.3g} a second, {clock} left"
