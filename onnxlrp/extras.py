"""Libraries that only some commands need, imported where they do."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from onnxlrp.errors import InputError


def needed(module: str, extra: str) -> Any:
    """Import a library that comes with an extra of this package.

    Raises
    ------
    InputError
        It is not installed.

    """
    try:
        return import_module(module)
    except ImportError as error:
        raise InputError(
            f"this needs the library {error.name or module}: pip install 'onnxlrp[{extra}]'"
        ) from None
