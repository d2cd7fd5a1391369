"""Proof that a written explainer is valid and loads, before it gets its name."""

from __future__ import annotations

from pathlib import Path

import onnx

from onnxlrp.errors import DeviceError, ModelError
from onnxlrp.graph.lifting import reason
from onnxlrp.runtime import open_session
from onnxlrp.telling import tell


def prove_loadable(path: Path) -> bool:
    """Check a file as onnx does, shapes and types with it, and open it in onnxruntime.

    Returns
    -------
    False where there is no onnxruntime to open it in

    Raises
    ------
    ModelError
        It is not valid, or onnxruntime cannot load it.

    """
    tell("seeing whether it loads")
    try:
        onnx.checker.check_model(str(path), full_check=True)
    # The C++ checker raises several types.
    except Exception as error:
        raise ModelError(
            f"the explainer would not be valid, and is not written: {reason(error)}"
        ) from error
    try:
        open_session(path, "the explainer", "cpu", optimise=False)
    except DeviceError:
        return False
    except ModelError as error:
        raise ModelError(
            f"{error}; it is not written. --no-load-check (check=False in Python) writes it all "
            "the same, for another runtime"
        ) from error
    return True
