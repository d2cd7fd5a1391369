"""What reaches the terminal: text in which names from files cannot act as commands."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

# All that moves the cursor, colours, renames the window or turns the direction of writing;
# lines and tabs stay.
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    r"""Write control characters out, so that `\x1b` is read instead of obeyed."""
    return _COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def echo(text: str = "", *, err: bool = False) -> None:
    """Print a line, cleaned, on stdout or stderr."""
    click.echo(clean(text), err=err)


def console(**options: Any) -> Console:
    """Open a console of rich that cleans what it is given, and reads no markup in it."""
    from rich.console import Console
    from rich.text import Text

    class Clean(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(clean(text), **options)

    return Clean(markup=False, highlight=False, **options)
