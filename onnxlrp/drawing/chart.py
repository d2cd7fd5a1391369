"""Relevance of signals as curves on coloured stripes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxlrp.drawing.colours import colour_map
from onnxlrp.drawing.default_colours import DEFAULT_COLOURS
from onnxlrp.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHANNELS = 8


def signal(
    relevance: NDArray[Any],
    values: NDArray[Any],
    *,
    title: str,
    colours: str = DEFAULT_COLOURS,
    full: float | None = None,
) -> Image.Image:
    """Draw each channel's curve on its relevance as coloured stripes.

    Parameters
    ----------
    relevance, values : [C, L]; of more than 8 channels those with the most |relevance| are drawn,
        and the title says so
    title : the heading
    colours, full : as for `onnxlrp.drawing.heatmap.heatmap`; the scale is the largest |relevance|

    Raises
    ------
    InputError
        The arrays have other axes, or relevance holds NaN or infinity.

    """
    check(relevance, values, 2)
    strongest = np.argsort(-np.abs(relevance).sum(axis=1), kind="stable")[:CHANNELS]
    shown = np.sort(strongest)
    if len(shown) < len(relevance):
        title += f"\nthe {CHANNELS} most relevant of {len(relevance)} channels"
    scale = float(np.abs(relevance).max() if full is None else full) or 1.0
    figure = _figure(9, 1.2 + 1.1 * len(shown))
    axes = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    length = relevance.shape[1]
    for axis, channel in zip(axes, shown, strict=True):
        curve = values[channel]
        low, high = float(curve.min()), float(curve.max())
        room = 0.1 * (high - low) or 1.0
        stripes = axis.imshow(
            relevance[channel][None],
            cmap=colour_map(colours),
            vmin=-scale,
            vmax=scale,
            aspect="auto",
            interpolation="nearest",
            extent=(-0.5, length - 0.5, low - room, high + room),
        )
        # Black on white: legible on strong colours and on a black middle alike.
        axis.plot(curve, color="white", linewidth=2.6)
        axis.plot(curve, color="black", linewidth=1.1)
        if len(relevance) > 1:
            axis.set_ylabel(f"{channel}")
    figure.suptitle(title, fontsize=11)
    figure.colorbar(stripes, ax=axes, label="relevance of a value (below 0: against)")
    return _rendered(figure)


def check(relevance: NDArray[Any], values: NDArray[Any], axes: int) -> None:
    """Check that relevance can be drawn with the values it is of.

    Raises
    ------
    InputError
        Either has other axes, or relevance holds NaN or infinity.

    """
    if relevance.ndim != axes or relevance.shape != values.shape:
        raise InputError(
            f"relevance {list(relevance.shape)} of values {list(values.shape)} cannot be drawn: "
            f"both must have the same {axes} axes"
        )
    if not np.isfinite(relevance).all():
        raise InputError("the relevance holds NaN or infinity: it cannot be drawn")


def _figure(width: float, height: float) -> Figure:
    # Not pyplot: it costs half a second and looks for a display.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=100, layout="constrained")


def _rendered(figure: Figure) -> Image.Image:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return Image.open(file).convert("RGB")
