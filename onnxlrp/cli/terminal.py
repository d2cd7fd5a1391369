"""What reaches the terminal: text in which names from files cannot act as commands."""

from __future__ import annotations

import json
import re
import shutil
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

# All that moves the cursor, colours, renames the window or turns the direction of writing, and
# bytes of names of files that are no text; lines and tabs stay.
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(text: str) -> str:
    r"""Write control characters out, so that `\x1b` is read instead of obeyed."""
    return _COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def echo(text: str = "", *, err: bool = False) -> None:
    """Print a line, cleaned, on stdout or stderr; on a terminal it is wrapped between words.

    A line break in it is one in the name of a file or a node, and is written out.
    """
    text = clean(text).replace("\n", "\\n")
    width = screen(err=err)
    if width is not None:
        text = "\n".join(wrapped(text, width))
    stream = sys.stderr if err else sys.stdout
    # By itself click writes to what lies beneath, and tears a bar.
    click.echo(text, stream if hasattr(stream, "rich_proxied_file") else None, err=err)


def dump(value: Any) -> None:
    """Print a value as JSON on stdout."""
    click.echo(clean(json.dumps(value, indent=2)))


def screen(*, err: bool = False) -> int | None:
    """Return how many cells a line of the terminal has; None where stdout (stderr) is none."""
    stream = sys.stderr if err else sys.stdout
    return shutil.get_terminal_size().columns if stream.isatty() else None


def wide(text: str) -> int:
    """Return how many cells of a terminal a text takes; characters of some scripts take two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def wrapped(text: str, width: int) -> list[str]:
    """Break a text between words, into lines of up to `width` cells, longer where a word is.

    Lines after the first are indented as it is.
    """
    if wide(text) <= width:
        return [text]
    words = text.split()
    indent = text[: len(text) - len(text.lstrip())]
    found = [indent + words[0]] if words else [""]
    for word in words[1:]:
        if wide(found[-1]) + 1 + wide(word) <= width:
            found[-1] += f" {word}"
        else:
            found.append(indent + word)
    return found


def console(**options: Any) -> Console:
    """Open a console of rich that cleans what it is given, and reads no markup in it."""
    from rich.console import Console
    from rich.text import Text

    class Clean(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(clean(text), **options)

    return Clean(markup=False, highlight=False, **options)
