"""What relevance is counted from: a reference by its name, from a file, or as numbers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxlrp.errors import InputError
from onnxlrp.inputs.items import Item
from onnxlrp.inputs.preprocessing import Preprocessing

AT_INPUT = "input"
"""In place of an array: the reference is an input of the explainer."""

NAMES = ("mean", "black", "zero", AT_INPUT)


def read_reference(
    given: str | os.PathLike[str] | NDArray[Any], preprocessing: Preprocessing | None
) -> NDArray[Any] | str:
    """Return a reference as an array that broadcasts to one sample, or `AT_INPUT`.

    Parameters
    ----------
    given : an array; `mean`, a picture of the mean colour that the preprocessing subtracts, or
        `black`; `zero`; `input`; or the path of a picture, or of one sample in an .npy file
    preprocessing : how pictures become the model's input

    Raises
    ------
    InputError
        If it is no name and no file, cannot be read, or asks for what the preprocessing lacks.

    """
    if not isinstance(given, str | os.PathLike):
        array = np.asarray(given)
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise InputError("the reference holds what is not a finite number")
        return array
    if given == AT_INPUT:
        return AT_INPUT
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
    read = Item(path.name, path).read()
    if not isinstance(read, Image.Image):
        return read_reference(read, preprocessing)
    if preprocessing is None:
        raise InputError(f"reference {path} is a picture: say how it is made (--preprocess)")
    return preprocessing(read)
