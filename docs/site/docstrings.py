"""Tells griffe that behind `name :` in a docstring stands what it is; its type is in the code."""

from __future__ import annotations

import inspect
import re
from typing import Any

import griffe

_SECTION = re.compile(r"^(Parameters|Attributes)\n-+\n(?:.*\n?)*?(?=^\w.*\n-+\n|\Z)", re.M)
_ENTRY = re.compile(r"^(\w+(?:, \w+)*) : ", re.M)
_SESSION = re.compile(r"^>>> (?:.+\n?)+", re.M)


class Descriptions(griffe.Extension):
    """Moves the description below the name, where numpydoc has it, and fences examples."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of `obj`."""
        if obj.docstring is not None:
            text = inspect.cleandoc(obj.docstring.value)
            text = _SECTION.sub(lambda section: _ENTRY.sub(r"\1\n    ", section.group()), text)
            obj.docstring.value = _SESSION.sub(
                lambda session: f"```pycon\n{session.group().rstrip()}\n```\n", text
            )
