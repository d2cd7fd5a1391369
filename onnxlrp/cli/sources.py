"""What is given to explain: pictures, arrays, texts, and how each becomes the model's input."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxlrp.cli.options import chosen_preprocessing
from onnxlrp.errors import InputError

if TYPE_CHECKING:
    from onnxlrp.running.explainer import Explainer
    from onnxlrp.running.stream import How, Source


def given(
    run: Explainer,
    inputs: Sequence[str],
    folder: Path,
    texts: Mapping[str, Any],
    pictures: Mapping[str, Any],
) -> tuple[list[Source], How]:
    """List what there is to explain, and choose how it is read.

    Parameters
    ----------
    inputs : files, folders, and -
    folder : where results go
    texts, pictures : the options for either, by name

    Raises
    ------
    InputError
        The model reads something else, or something is missing that its reading needs.
    OSError
        A file or folder does not exist.

    """
    if _reads_text(run, inputs, texts["text"]):
        return _texts(run, inputs, texts, pictures)
    unused = [name for name, value in texts.items() if value]
    if unused:
        explained = ", ".join(f"{name} {run.inputs[name]}" for name in run.contract.relevance)
        raise InputError(
            f"--{unused[0]} is for texts, and for models that read whole numbers [N, T]; this one "
            f"reads {explained}"
        )
    return _pictures(run, inputs, folder, pictures)


def _reads_text(run: Explainer, inputs: Sequence[str], sentences: Sequence[str]) -> bool:
    """Tell whether what is given is text for a model that reads tokens, and no arrays of them."""
    from onnxlrp.inputs.items import ARRAYS
    from onnxlrp.inputs.text import token_input

    if token_input(run.inputs, list(run.contract.relevance)) is None:
        return False
    arrays = [name for name in inputs if Path(name).suffix.lower() in ARRAYS]
    return bool(sentences) or len(arrays) < len(inputs)


def _texts(
    run: Explainer,
    inputs: Sequence[str],
    texts: Mapping[str, Any],
    pictures: Mapping[str, Any],
) -> tuple[list[Source], How]:
    """List the texts, and open what makes tokens of them."""
    from onnxlrp.inputs.passages import collect_texts

    unused = [name for name, value in pictures.items() if value is not None]
    if unused:
        raise InputError(f"--{unused[0]} is for pictures; the model reads text")
    reader = run.reader
    return [*collect_texts(inputs, texts["text"], texts["column"])], reader


def _pictures(
    run: Explainer, inputs: Sequence[str], folder: Path, options: Mapping[str, Any]
) -> tuple[list[Source], How]:
    """List pictures and arrays, and choose how pictures become the model's input."""
    from onnxlrp.inputs.items import ARRAYS, collect
    from onnxlrp.running.stream import NO_PREPROCESSING

    if len(run.inputs) > 1:
        raise InputError(
            f"the model has several inputs ({', '.join(run.inputs)}): run its explainer from "
            "Python, with onnxlrp.Explainer"
        )
    (expected,) = run.inputs.values()
    items = collect(_listed(inputs), len(expected.shape) - 1, leave_out=folder)
    preprocessing = chosen_preprocessing(options, run.preprocessing)
    if preprocessing is None and any(item.path.suffix.lower() not in ARRAYS for item in items):
        raise InputError(NO_PREPROCESSING)
    return [*items], preprocessing


def _listed(inputs: Sequence[str]) -> list[str]:
    """Put what standard input lists, one a line, in the place of -."""
    listed: list[str] = []
    for name in inputs:
        listed += filter(None, sys.stdin.read().splitlines()) if name == "-" else [name]
    if not listed:
        raise InputError("standard input lists nothing to explain")
    return listed
