"""Relevance of a picture's pixels, drawn: orange speaks for the class, blue against it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxlrp.drawing.colours import coloured
from onnxlrp.drawing.default_colours import DEFAULT_COLOURS
from onnxlrp.errors import InputError
from onnxlrp.inputs.preprocessing import Layout

PERCENTILE = 99.9
SHORTEST = 224


def heatmap(
    relevance: NDArray[Any],
    layout: Layout = "NCHW",
    *,
    colours: str = DEFAULT_COLOURS,
    full: float | None = None,
) -> Image.Image:
    """Draw relevance.

    Parameters
    ----------
    relevance : floating, [C, H, W] or [H, W, C], of one picture; summed over C
    layout : where the channel axis is
    colours : a name that `onnxlrp.drawing.colours` knows
    full : relevance at which colours are full, to either side of zero; `full_scale` if None

    Returns
    -------
    RGB picture; pixels enlarged by a whole factor until the longer side has 224 or more

    Raises
    ------
    InputError
        The array has another number of axes, or holds NaN or infinity; or the colours are unknown.

    """
    return enlarged(coloured(_strength(relevance, layout, full), colours))


def overlay(
    relevance: NDArray[Any],
    picture: Image.Image,
    layout: Layout = "NCHW",
    *,
    colours: str = DEFAULT_COLOURS,
    full: float | None = None,
) -> Image.Image:
    """Draw relevance over the picture, in grey, that it belongs to.

    Parameters
    ----------
    relevance, layout, colours, full : as for `heatmap`
    picture : what the model saw (`Preprocessing.crop_of`), H x W pixels or a multiple

    Returns
    -------
    RGB picture; where nothing is relevant the photograph shows.
    Small ones are enlarged by a whole factor until the longer side has 224 pixels or more.

    Raises
    ------
    InputError
        As for `heatmap`; or the picture's size is no multiple of the relevance's.

    """
    strength = _strength(relevance, layout, full).astype(np.float32)
    height, width = strength.shape
    factor = max(1, picture.width // width)
    if picture.size != (width * factor, height * factor):
        raise InputError(
            f"the picture has {picture.height}x{picture.width} pixels (height x width), "
            f"its relevance {height}x{width}"
        )
    magnitude = np.abs(strength)
    # Where zero is pale the strongest colours are dark, the ends too dark for dark fur; where it is
    # black they glow. The photograph's greys stay clear of either.
    glows = coloured(np.zeros(1), colours).mean() < 128
    start, span, densest = (0.25, 0.75, 0.9) if glows else (0.5, 0.35, 0.75)
    darkest, brightest = (0, 110) if glows else (96, 246)
    opacity = densest * magnitude[..., None] ** 0.6
    colour = coloured(np.copysign(start + span * magnitude, strength), colours) * opacity
    light = np.asarray(picture.convert("L"), dtype=np.float32)[..., None]
    grey = darkest + light * ((brightest - darkest) / 255)
    blended = grey * _repeated(1 - opacity, factor) + _repeated(colour, factor)
    # Half is added for rounding, which astype alone does not do.
    return enlarged((blended + 0.5).astype(np.uint8))


def full_scale(relevance: NDArray[Any], layout: Layout = "NCHW") -> float:
    """Return the 99.9th percentile of |relevance| over the pixels of a picture, channels summed.

    Where fewer than one pixel in a thousand is relevant it is the largest instead.

    Raises
    ------
    InputError
        The array has other than three axes, or holds NaN or infinity.

    """
    return _full(_checked(relevance, layout))


def enlarging(size: tuple[int, int]) -> int:
    """Return by what whole factor a picture of (width, height) is enlarged to be looked at."""
    return max(1, math.ceil(SHORTEST / max(size)))


def enlarged(pixels: NDArray[np.uint8]) -> Image.Image:
    """Repeat pixels, uint8 [H, W, 3], until the longer side has at least 224."""
    picture = Image.fromarray(pixels)
    factor = enlarging(picture.size)
    if factor == 1:
        return picture
    return picture.resize(
        (picture.width * factor, picture.height * factor), Image.Resampling.NEAREST
    )


def _strength(relevance: NDArray[Any], layout: Layout, full: float | None) -> NDArray[np.float64]:
    """Return relevance of each pixel in units of `full`, clipped to -1..1, [H, W]."""
    total = _checked(relevance, layout)
    if full is None:
        full = _full(total)
    strength: NDArray[np.float64] = np.clip(total / (full or 1.0), -1, 1)
    return strength


def _checked(relevance: NDArray[Any], layout: Layout) -> NDArray[np.float64]:
    """Sum over channels, [H, W]."""
    if relevance.ndim != 3:
        raise InputError(
            f"a heatmap needs the relevance of one picture, three axes; got {relevance.shape}"
        )
    total: NDArray[np.float64] = relevance.sum(axis=0 if layout == "NCHW" else 2, dtype=np.float64)
    if not np.isfinite(total).all():
        raise InputError("the relevance holds NaN or infinity: no heatmap can be drawn")
    return total


def _full(total: NDArray[np.float64]) -> float:
    magnitude = np.abs(total)
    return float(np.percentile(magnitude, PERCENTILE) or magnitude.max())


def _repeated(pixels: NDArray[Any], factor: int) -> NDArray[Any]:
    return pixels if factor == 1 else pixels.repeat(factor, axis=0).repeat(factor, axis=1)
