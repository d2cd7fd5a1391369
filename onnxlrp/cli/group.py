"""How every command ends: well, with one line that says what is wrong, or interrupted."""

from __future__ import annotations

import errno
import io
import sys
import warnings
from typing import Any

import click

from onnxlrp.cli.terminal import clean, echo
from onnxlrp.errors import OnnxlrpError, UnsupportedError

INTERRUPTED = 130


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    echo(f"Warning: {message}", err=True)


class OneLineErrors(click.Group):
    """A group of commands whose foreseen errors are one line on stderr and exit status 1.

    Foreseen are `OnnxlrpError`, whose text is written for the user, and `OSError` (a full disk, a
    folder that may not be written). Ctrl-C exits with status 130. Anything else is a defect of
    this program and keeps its traceback.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands as they were given, in the order of a first use."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that `ctx` names."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            # What an encoding lacks is written out, as on stderr.
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _warn
                return super().invoke(ctx)
        except click.ClickException as error:
            vars(error)["message"] = clean(error.message)
            raise
        except UnsupportedError as error:
            echo(f"Error: {error.summary}", err=True)
            for obstacle in error.obstacles:
                echo(f"  {obstacle}", err=True)
        except OnnxlrpError as error:
            echo(f"Error: {error}", err=True)
        except OSError as error:
            # click ends quietly when the reader of a pipe has gone.
            if error.errno == errno.EPIPE:
                raise
            place = f"{error.filename}: " if error.filename else ""
            echo(f"Error: {place}{error.strerror or error}", err=True)
        except KeyboardInterrupt:
            echo("Interrupted", err=True)
            return ctx.exit(INTERRUPTED)
        return ctx.exit(1)
