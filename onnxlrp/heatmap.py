"""Relevance of a picture's pixels, drawn: red speaks for the class, blue against it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxlrp.errors import InputError
from onnxlrp.preprocessing import Layout

COLOURS = "RdBu_r"
PERCENTILE = 99.9
SHORTEST = 320


def heatmap(relevance: NDArray[Any], layout: Layout = "NCHW") -> Image.Image:
    """Draw relevance on white.

    Parameters
    ----------
    relevance : floating, [C, H, W] or [H, W, C], of one picture; summed over C
    layout : where the channel axis is

    Returns
    -------
    RGB picture; pixels enlarged by a whole factor until the longer side has 320 or more.
    The colours are symmetric about zero and full at the 99.9th percentile of |relevance|.

    Raises
    ------
    InputError
        The array has another number of axes, or holds NaN or infinity.

    """
    return enlarged(_coloured(_strength(relevance, layout)))


def overlay(relevance: NDArray[Any], picture: Image.Image, layout: Layout = "NCHW") -> Image.Image:
    """Draw relevance over the picture, in grey, that it belongs to.

    Parameters
    ----------
    relevance : floating, [C, H, W] or [H, W, C], of one picture; summed over C
    picture : what the model saw (`Preprocessing.crop_of`), H x W pixels or a multiple
    layout : where the channel axis is

    Returns
    -------
    RGB picture; where nothing is relevant the photograph shows.
    Small ones are enlarged by a whole factor until the longer side has 320 pixels or more.

    Raises
    ------
    InputError
        As for `heatmap`; or the picture's size is no multiple of the relevance's.

    """
    strength = _strength(relevance, layout)
    height, width = strength.shape
    factor = max(1, picture.width // width)
    if picture.size != (width * factor, height * factor):
        raise InputError(
            f"the picture has {picture.height}x{picture.width} pixels (height x width), "
            f"its relevance {height}x{width}"
        )
    strength = strength.repeat(factor, axis=0).repeat(factor, axis=1)
    # Light greys: the colours are dark where they are strong.
    grey = 96 + np.asarray(picture.convert("L"), dtype=np.float64)[..., None] * (150 / 255)
    opacity = 0.85 * np.abs(strength)[..., None] ** 0.7
    # The map's middle is white; its colour at a distance from it keeps weak relevance visible.
    colour = _coloured(np.sign(strength) * (0.5 + 0.5 * np.abs(strength)))
    blended = grey * (1 - opacity) + colour * opacity
    return enlarged(np.rint(blended).astype(np.uint8))


def enlarged(pixels: NDArray[np.uint8]) -> Image.Image:
    """Repeat pixels, uint8 [H, W, 3], until the longer side has at least 320."""
    picture = Image.fromarray(pixels)
    factor = max(1, math.ceil(SHORTEST / max(picture.size)))
    return picture.resize(
        (picture.width * factor, picture.height * factor), Image.Resampling.NEAREST
    )


def _strength(relevance: NDArray[Any], layout: Layout) -> NDArray[np.float64]:
    """Return relevance of each pixel in units of the strongest, clipped to -1..1, [H, W]."""
    if relevance.ndim != 3:
        raise InputError(
            f"a heatmap needs the relevance of one picture, three axes; got {relevance.shape}"
        )
    total = relevance.sum(axis=0 if layout == "NCHW" else 2, dtype=np.float64)
    if not np.isfinite(total).all():
        raise InputError("the relevance holds NaN or infinity: no heatmap can be drawn")
    magnitude = np.abs(total)
    # With less than one pixel in a thousand relevant the percentile is 0.
    full = np.percentile(magnitude, PERCENTILE) or magnitude.max()
    strength: NDArray[np.float64] = np.clip(total / (full or 1.0), -1, 1)
    return strength


def _coloured(strength: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Look up the colour, uint8 [H, W, 3], of every strength of -1..1, [H, W]."""
    # Not pyplot: it costs half a second and looks for a display.
    from matplotlib import colormaps

    # An odd number of colours has one for zero.
    palette = colormaps[COLOURS].resampled(255)
    rgba: NDArray[np.uint8] = palette((strength + 1) / 2, bytes=True)
    return rgba[..., :3]
