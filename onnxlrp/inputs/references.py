"""What relevance is counted from: a reference by its name, from a file, or as numbers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxlrp.errors import InputError
from onnxlrp.inputs.items import Item, collect
from onnxlrp.inputs.preprocessing import Preprocessing

AT_INPUT = "input"
"""In place of an array: the reference is an input of the explainer."""

BLUR = "blur"
"""In place of an array: the reference is the input itself, blurred, made in the explainer."""

NAMES = ("mean", "black", "zero", BLUR, AT_INPUT)


def read_reference(
    given: str | os.PathLike[str] | NDArray[Any], preprocessing: Preprocessing | None
) -> NDArray[Any] | str:
    """Return a reference as an array that broadcasts to one sample, or `AT_INPUT` or `BLUR`.

    Parameters
    ----------
    given : an array; `mean`, a picture of the mean colour that the preprocessing subtracts, or
        `black`; `zero`; `blur`; `input`; or the path of a picture, or of one sample in an .npy file
    preprocessing : how pictures become the model's input

    Raises
    ------
    InputError
        If it is no name and no file, cannot be read, or asks for what the preprocessing lacks.

    """
    if not isinstance(given, str | os.PathLike):
        return _finite(np.asarray(given))
    if given in (AT_INPUT, BLUR):
        return str(given)
    if given == "zero":
        return np.zeros(1)
    if given in NAMES:
        if preprocessing is None:
            raise InputError(f"reference '{given}' is a picture: say how it is made (--preprocess)")
        if given == "mean" and not any(preprocessing.mean):
            raise InputError(
                "the preprocessing subtracts no mean: give --reference black or a file"
            )
        channels = 1 if preprocessing.channels == "grey" else 3
        if given == "mean":
            return np.zeros(1)
        return preprocessing.values(np.zeros((1, 1, channels)))
    path = Path(given)
    if not path.is_file():
        raise InputError(f"reference {path} is no file, and none of {', '.join(NAMES)}")
    return _sample(Item(path.name, path), preprocessing)


def read_references(
    given: Sequence[str], axes: int, preprocessing: Preprocessing | None
) -> list[NDArray[Any]]:
    """Return references by name, of files and of all in folders, each for one sample.

    Parameters
    ----------
    given : as `read_reference` takes them, but for what the explainer makes; folders
    axes : of one sample
    preprocessing : how pictures become the model's input

    Raises
    ------
    InputError
        As `read_reference`; one is part of the explainer; a folder holds none.
    OSError
        A file or folder does not exist.

    """
    found = []
    for one in given:
        known = read_reference(one, preprocessing) if one in NAMES else None
        if isinstance(known, str):
            raise InputError(f"reference '{one}' is part of an explainer: give it to convert")
        items = [] if known is not None else collect([one], axes)
        found += [known] if known is not None else [_sample(i, preprocessing) for i in items]
    return found


def _sample(item: Item, preprocessing: Preprocessing | None) -> NDArray[Any]:
    """Read a picture as the model does, or an array as it is."""
    read = item.read()
    if isinstance(read, Image.Image):
        if preprocessing is None:
            raise InputError(
                f"reference {item.source} is a picture: say how it is made (--preprocess)"
            )
        return preprocessing(read)
    return _finite(read)


def _finite(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise InputError("the reference holds what is not a finite number")
    return array
