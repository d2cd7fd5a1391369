"""`onnxlrp composites`: what ships."""

from __future__ import annotations

import click


@click.command(short_help="List the composites that ship.")
def composites() -> None:
    """List the composites that ship: what each is good for, and its source."""
    from onnxlrp.cli import tables
    from onnxlrp.compiler.composite import available

    tables.show(tables.composites(available()))
