"""What an audit feeds: arrays from a file, or random ones that look like the model's input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxlrp.errors import InputError
from onnxlrp.inputs.preprocessing import Preprocessing
from onnxlrp.running.contract import Tensor, fits

Array = NDArray[Any]


def load(path: str | PathLike[str], wanted: Mapping[str, Tensor]) -> dict[str, Array]:
    """Read .npy, the only input, or .npz, one array for each input by its name.

    Raises
    ------
    InputError
        It is neither, or does not hold the inputs.
    OSError
        It cannot be opened.

    """
    with open(path, "rb") as file:
        try:
            content = np.load(file, allow_pickle=False)
            arrays = dict(content) if isinstance(content, np.lib.npyio.NpzFile) else content
        # numpy reports broken files as ValueError, EOFError, BadZipFile, ... by format, and what it
        # says of a text file is to allow pickles.
        except Exception as error:
            raise InputError(f"{path} is not a readable array, .npy or .npz") from error
    if isinstance(arrays, dict) and len(arrays) == len(wanted) == 1:
        (arrays,) = arrays.values()
    return fitted(arrays, wanted)


def fitted(given: Array | Mapping[str, Array], wanted: Mapping[str, Tensor]) -> dict[str, Array]:
    """Check arrays against the model's inputs; real numbers get the width that the model reads.

    Raises
    ------
    InputError
        An input is missing, unknown, or of another kind or shape than the model's.

    """
    if not isinstance(given, Mapping):
        if len(wanted) != 1:
            raise InputError(
                f"the model has several inputs: give an array for each of {_list(wanted)}"
            )
        given = {next(iter(wanted)): given}
    unknown = [name for name in given if name not in wanted]
    if unknown:
        raise InputError(f"the model has no input '{unknown[0]}', only {_list(wanted)}")
    result = {}
    for name, expected in wanted.items():
        if name not in given:
            raise InputError(f"input '{name}' is missing: it takes {expected}")
        array = np.asarray(given[name])
        dtype = np.dtype(expected.dtype)
        same_kind = array.dtype == dtype or array.dtype.kind == dtype.kind == "f"
        if not same_kind or not fits(array.shape, expected.shape):
            raise InputError(
                f"input '{name}' takes {expected}, not {Tensor(str(array.dtype), array.shape)}"
            )
        result[name] = array.astype(dtype, copy=False)
    return result


def draw(
    wanted: Mapping[str, Tensor], count: int, preprocessing: Preprocessing | None
) -> dict[str, Array]:
    """Draw inputs: standard normal; with preprocessing, uniform pixels put through it.

    Parameters
    ----------
    wanted : the model's inputs
    count : samples, along axis 0 unless the model fixes it
    preprocessing : of the one input, if it is stored

    Raises
    ------
    InputError
        A size other than the batch's is not known.

    """
    if count < 1:
        raise InputError(f"{count} random inputs are too few: 1 at least")
    random = np.random.default_rng(0)
    return {
        name: _drawn(name, expected, count, preprocessing if len(wanted) == 1 else None, random)
        for name, expected in wanted.items()
    }


def _drawn(
    name: str,
    expected: Tensor,
    count: int,
    preprocessing: Preprocessing | None,
    random: np.random.Generator,
) -> Array:
    sizes = [*expected.shape]
    if sizes and not isinstance(sizes[0], int):
        sizes[0] = count
    if preprocessing is not None and len(sizes) == 4:
        axes = (2, 3) if preprocessing.layout == "NCHW" else (1, 2)
        seen = preprocessing.crop or preprocessing.resize
        for axis, size in zip(axes, seen if isinstance(seen, tuple) else (seen, seen), strict=True):
            sizes[axis] = sizes[axis] if isinstance(sizes[axis], int) else size
    unknown = [axis for axis, size in enumerate(sizes) if not isinstance(size, int)]
    if unknown:
        raise InputError(
            f"input '{name}' takes {expected}: axis {unknown[0]} has no fixed size to draw; "
            "give --inputs FILE"
        )
    shape = tuple(int(size) for size in sizes if isinstance(size, int))
    if sizes and isinstance(expected.shape[0], int) and count not in (1, shape[0]):
        raise InputError(f"input '{name}' takes {expected}: it is one batch of {shape[0]}")
    if preprocessing is not None and len(shape) == 4:
        return _pixels(shape, preprocessing, random).astype(expected.dtype)
    dtype = np.dtype(expected.dtype)
    if dtype.kind in "iu":
        return random.integers(0, min(256, np.iinfo(dtype).max + 1), shape).astype(dtype)
    return np.asarray(random.standard_normal(shape)).astype(dtype)


def _pixels(
    shape: tuple[int, ...], preprocessing: Preprocessing, random: np.random.Generator
) -> Array:
    height, width = shape[2:] if preprocessing.layout == "NCHW" else shape[1:3]
    size = (height, width) if preprocessing.channels == "grey" else (height, width, 3)
    whole = replace(preprocessing, resize=None, crop=None)
    pictures = [random.integers(0, 256, size, dtype=np.uint8) for _ in range(shape[0])]
    return np.stack([whole(Image.fromarray(picture)) for picture in pictures])


def _list(wanted: Mapping[str, Tensor]) -> str:
    return ", ".join(f"'{name}'" for name in wanted)
