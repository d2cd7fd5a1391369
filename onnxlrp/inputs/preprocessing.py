"""How a photograph becomes the array that a model was trained on."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from onnxlrp.errors import InputError

LONGEST = 1 << 14
"""Longest side in pixels; beyond it a typing error is likelier than a picture."""

MOST_PIXELS = 1 << 27
"""Of a resized picture: 400 MB in RGB. A long and narrow one grows along both sides."""

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
        return self.values(self.pixels(image))

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return what the model sees (`crop_of`), uint8 [H, W, C], in RGB or grey.

        Raises
        ------
        InputError
            As for `crop_of`.

        """
        pixels = np.asarray(self.crop_of(image))
        return pixels.reshape(*pixels.shape[:2], -1)

    def values(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Turn pixels into what the model reads: scaled, shifted, divided, laid out.

        Parameters
        ----------
        pixels : [..., H, W, C], values of 0..255 in RGB or grey

        Returns
        -------
        float32, [..., C, H, W] or [..., H, W, C] as `layout` says

        """
        ordered = pixels[..., ::-1] if self.channels == "BGR" else pixels
        values = (ordered.astype(np.float64) * self.scale - self.mean) / self.std
        if self.layout == "NCHW":
            values = np.moveaxis(values, -1, -3)
        return np.ascontiguousarray(values, dtype=np.float32)

    def picture_of(self, values: NDArray[Any]) -> Image.Image:
        """Turn what the model reads, [C, H, W] or [H, W, C], back into the picture it is of.

        Values that no picture has become the nearest that one has.
        """
        ordered = np.moveaxis(values, 0, -1) if self.layout == "NCHW" else values
        pixels = (ordered.astype(np.float64) * self.std + self.mean) / self.scale
        if self.channels == "BGR":
            pixels = pixels[..., ::-1]
        whole = np.rint(np.clip(pixels, 0, 255)).astype(np.uint8)
        return Image.fromarray(whole[..., 0] if self.channels == "grey" else whole)

    def in_words(self) -> str:
        """Say what is done to a picture, such as `resize to 32x32, RGB, 0..255 minus 1, NCHW`."""
        said = []
        if isinstance(self.resize, tuple):
            said.append(f"resized to {_by(self.resize)} (height x width)")
        elif self.resize is not None:
            said.append(f"shorter side resized to {self.resize}")
        if self.crop is not None:
            said.append(f"middle {_by(self.crop)} cut out")
        said.append(self.channels)
        top = f"{255 * self.scale:.4g}"
        said.append(f"values 0..{top}" if self.scale > 0 else f"values {top}..0")
        if any(self.mean):
            said.append("minus " + _listed(self.mean))
        if set(self.std) != {1}:
            said.append("divided by " + _listed(self.std))
        return ", ".join([*said, self.layout])

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
        """Cut out what the model sees: upright, on white, resized, cropped; RGB, or L for grey.

        Transparent pixels hold colours that nobody has seen, often black: white shows through.

        Parameters
        ----------
        image : picture of any size
        factor : show the same part with that many times the pixels along each side, for people

        Raises
        ------
        InputError
            The picture has more than 8 bits a channel, is smaller than the crop, or would have
            more than `MOST_PIXELS` pixels.

        """
        # Pillow clips these modes to white where others would scale them.
        if image.mode in ("I", "F") or ";16" in image.mode:
            raise InputError(f"a picture of mode {image.mode} is not 8-bit: save it as 8-bit first")
        upright = ImageOps.exif_transpose(image)
        if upright.has_transparency_data:
            white = Image.new("RGBA", upright.size, "white")
            upright = Image.alpha_composite(white, upright.convert("RGBA"))
        picture = upright.convert("L" if self.channels == "grey" else "RGB")
        width, height = _resized(picture.size, self.resize)
        size = width * factor, height * factor
        if size[0] * size[1] > MOST_PIXELS:
            raise InputError(
                f"a picture of {image.height}x{image.width} (height x width) would be resized to "
                f"{height}x{width}, more than can be held: cut out a part of it first"
            )
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
        except (ValueError, RecursionError) as error:
            raise InputError(f"stored preprocessing is not JSON: {error}") from error
        known = {field.name for field in fields(cls)}
        if not isinstance(settings, dict) or not known.issuperset(settings):
            raise InputError(f"stored preprocessing has other keys than {', '.join(sorted(known))}")
        return cls(**{key: _frozen(value) for key, value in settings.items()})


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


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _listed(values: tuple[float, ...]) -> str:
    text = ", ".join(f"{value:.4g}" for value in values)
    return f"({text})" if len(values) > 1 else text
