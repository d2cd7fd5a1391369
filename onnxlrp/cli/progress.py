"""How far a long run is: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from onnxlrp.cli.terminal import echo

EVERY = 30.0
"""Seconds between two lines in a log."""


@contextmanager
def progress(
    total: int, noun: str, done: int = 0, *, silent: bool = False
) -> Iterator[Callable[[], None]]:
    """Give a function to call after each of `total` things.

    On a terminal stderr shows a bar with rate and time left; elsewhere it gets a line such as
    `1200 of 100000 items, 8.1 a second, 3:22:58 left` every half minute.

    Parameters
    ----------
    total : how many there are
    noun : what they are, in the plural
    done : how many of them were done before
    silent : whether to show nothing

    """
    if silent:
        yield lambda: None
    elif sys.stderr.isatty():
        yield from _bar(total, noun, done)
    else:
        yield from _lines(total, noun, done)


def _bar(total: int, noun: str, done: int) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:.3g} a second")

    columns = (
        TextColumn(noun),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(noun, total=total, completed=done)
        yield lambda: bar.advance(task)


def _lines(total: int, noun: str, done: int) -> Iterator[Callable[[], None]]:
    start = told = time.monotonic()
    count = 0

    def advance() -> None:
        nonlocal count, told
        count += 1
        now = time.monotonic()
        if now - told >= EVERY:
            told = now
            rate = count / (now - start)
            left = int((total - done - count) / rate)
            echo(
                f"{done + count} of {total} {noun}, {rate:.3g} a second, "
                f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02} left",
                err=True,
            )

    yield advance
