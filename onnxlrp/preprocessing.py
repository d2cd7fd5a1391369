"""How a photograph becomes the array that a model was trained on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from os import PathLike
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from onnxlrp.errors import InputError

LONGEST = 1 << 14
"""Longest side in pixels; beyond it a typing error is likelier than a picture."""

Channels = Literal["RGB", "BGR", "grey"]
Layout = Literal["NCHW", "NHWC"]


@dataclass(frozen=True)
class Preprocessing:
    """Resize, crop, scale, subtract the mean, divide by the standard deviation: in this order.

    An 8-bit picture's values v of 0..255 become ``(v * scale - mean) / std``.

    Attributes
    ----------
    resize : the shorter side's length in pixels (the longer follows), or exactly (height, width);
        None keeps the picture's size
    crop : (height, width) in pixels, cut out of the middle; None keeps everything
    scale : factor on values of 0..255
    mean, std : one number, or one a channel in the order of `channels`; after `scale`
    channels : what the model reads
    layout : where the model's channel axis is

    Raises
    ------
    InputError
        A value is of a wrong type or out of range.

    """

    resize: int | tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    channels: Channels = "RGB"
    layout: Layout = "NCHW"

    def __post_init__(self) -> None:
        if not (self.resize is None or _is_length(self.resize) or _is_size(self.resize)):
            raise InputError(
                f"resize is a length or (height, width) of at most {LONGEST}, not {self.resize!r}"
            )
        if not (self.crop is None or _is_size(self.crop)):
            raise InputError(f"crop is (height, width), not {self.crop!r}")
        if self.channels not in get_args(Channels):
            raise InputError(f"channels is one of RGB, BGR, grey, not {self.channels!r}")
        if self.layout not in get_args(Layout):
            raise InputError(f"layout is NCHW or NHWC, not {self.layout!r}")
        if not (_is_number(self.scale) and self.scale != 0):
            raise InputError(f"scale is a number other than 0, not {self.scale!r}")
        counts = (1,) if self.channels == "grey" else (1, 3)
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not (
                isinstance(values, tuple)
                and len(values) in counts
                and all(_is_number(value) for value in values)
            ):
                number = " or ".join(map(str, counts))
                raise InputError(f"{name} is {number} number(s) for {self.channels}: {values!r}")
        if 0 in self.std:
            raise InputError("std is a divisor: it must not be 0")

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """Turn a picture into what the model reads.

        Returns
        -------
        float32, [C, H, W] or [H, W, C] as `layout` says, C = 1 for grey; no batch axis

        Raises
        ------
        InputError
            The picture has more than 8 bits a channel, or is smaller than the crop.

        """
        pixels = np.asarray(self.crop_of(image), dtype=np.float64)
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        if self.channels == "BGR":
            pixels = pixels[..., ::-1]
        values = (pixels * self.scale - self.mean) / self.std
        if self.layout == "NCHW":
            values = values.transpose(2, 0, 1)
        return np.ascontiguousarray(values, dtype=np.float32)

    @property
    def bounds(self) -> tuple[list[float], list[float]]:
        """The least and the greatest value of each channel that a picture can give the model."""
        ends = [
            sorted(((v * self.scale - mean) / std) for v in (0.0, 255.0))
            for mean, std in zip(*self._per_channel(), strict=True)
        ]
        return [low for low, _ in ends], [high for _, high in ends]

    def _per_channel(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        count = max(len(self.mean), len(self.std))
        return tuple(
            values * count if len(values) == 1 else values for values in (self.mean, self.std)
        )  # type: ignore[return-value]

    def crop_of(self, image: Image.Image, factor: int = 1) -> Image.Image:
        """Cut out what the model sees: upright, resized, cropped; mode RGB, or L for grey.

        Parameters
        ----------
        image : picture of any size
        factor : show the same part with that many times the pixels along each side, for people

        Raises
        ------
        InputError
            The picture has more than 8 bits a channel, or is smaller than the crop.

        """
        # Pillow clips these modes to white where others would scale them.
        if image.mode in ("I", "F") or ";16" in image.mode:
            raise InputError(f"a picture of mode {image.mode} is not 8-bit: save it as 8-bit first")
        upright = ImageOps.exif_transpose(image)
        picture = upright.convert("L" if self.channels == "grey" else "RGB")
        width, height = _resized(picture.size, self.resize)
        size = width * factor, height * factor
        picture = picture.resize(size, Image.Resampling.BILINEAR)
        if self.crop is None:
            return picture
        height, width = self.crop[0] * factor, self.crop[1] * factor
        left, top = (picture.width - width) / 2, (picture.height - height) / 2
        if left < 0 or top < 0:
            raise InputError(
                f"a picture of {picture.height}x{picture.width} (height x width) is smaller than "
                f"the crop of {height}x{width}: resize it first"
            )
        corner = round(left), round(top)
        return picture.crop((*corner, corner[0] + width, corner[1] + height))

    def to_json(self) -> str:
        """Write the settings as one JSON object, keyed by attribute name."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Preprocessing:
        """Read what `to_json` wrote.

        Raises
        ------
        InputError
            `text` is no JSON object of these attributes.

        """
        try:
            settings = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"stored preprocessing is not JSON: {error}") from error
        known = {field.name for field in fields(cls)}
        if not isinstance(settings, dict) or not known.issuperset(settings):
            raise InputError(f"stored preprocessing has other keys than {', '.join(sorted(known))}")
        return cls(**{key: _frozen(value) for key, value in settings.items()})


def load_picture(path: str | PathLike[str]) -> Image.Image:
    """Read a picture file completely.

    Raises
    ------
    InputError
        The file is not a picture, or is cut short.
    OSError
        The file cannot be opened.

    """
    with open(path, "rb") as file:
        try:
            image = Image.open(file)
            image.load()
        except UnidentifiedImageError as error:
            raise InputError(f"{path} is not a picture of a known format") from error
        # Pillow reports broken files as OSError, SyntaxError, ValueError, ... by format.
        except Exception as error:
            raise InputError(f"{path} is not a readable picture: {error}") from error
    return image


def _resized(size: tuple[int, int], resize: int | tuple[int, int] | None) -> tuple[int, int]:
    """(width, height) after resizing; the longer side is rounded down, as torchvision does."""
    if resize is None:
        return size
    if isinstance(resize, tuple):
        return resize[1], resize[0]
    shorter = min(size)
    return resize * size[0] // shorter, resize * size[1] // shorter


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _is_length(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LONGEST


def _is_size(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(_is_length, value))


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


IMAGENET = Preprocessing(
    resize=256,
    crop=(224, 224),
    scale=1 / 255,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
CAFFE = Preprocessing(
    resize=(256, 256), crop=(224, 224), mean=(104.0, 117.0, 123.0), channels="BGR"
)
PRESETS: Mapping[str, Preprocessing] = {"imagenet": IMAGENET, "caffe": CAFFE}
