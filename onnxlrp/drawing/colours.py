"""Diverging colour maps: a colour for each strength from -1, against, to 1, for the class."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxlrp.errors import InputError

SHADES = 255
"""An odd number of colours has one for zero."""

_ALIASES = {"red-blue": "RdBu_r"}
_OURS = {
    # zennit's, with its middle moved from 128/255 to where zero is: black, by blue to cyan against
    # the class, by red and yellow to white for it.
    "coldnhot": [
        (0, "#00ffff"),
        (1 / 4, "#0000ff"),
        (1 / 2, "#000000"),
        (2 / 3, "#ff0000"),
        (5 / 6, "#ffff00"),
        (1, "#ffffff"),
    ],
    # Okabe and Ito's blue and vermilion, which every kind of colour blindness tells apart.
    "orange-blue": [
        (0, "#004c7a"),
        (1 / 5, "#0072b2"),
        (1 / 2, "#f7f7f7"),
        (4 / 5, "#d55e00"),
        (1, "#8f3c00"),
    ],
}


@cache
def colour_map(name: str) -> Any:
    """Return a colour map of matplotlib: `orange-blue`, `red-blue`, `coldnhot`, or its own.

    Opposite signs differ for the colour-blind in the first two, most in `orange-blue`.

    Raises
    ------
    InputError
        matplotlib knows no map of that name either.

    """
    # Not pyplot: it costs half a second and looks for a display.
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    if name in _OURS:
        return LinearSegmentedColormap.from_list(name, _OURS[name], N=SHADES)
    own = _ALIASES.get(name, name)
    if own not in colormaps:
        raise InputError(
            f"there are no colours '{name}': give orange-blue, red-blue, coldnhot, or a "
            "colour map of matplotlib, such as seismic"
        )
    return colormaps[own].resampled(SHADES)


def coloured(strength: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """Look up the colour, uint8 [..., 3], of every strength of -1..1, [...].

    Raises
    ------
    InputError
        As for `colour_map`.

    """
    shade = np.rint((strength + 1) * ((SHADES - 1) / 2)).astype(np.intp)
    # A third of the time that indexing takes.
    return _table(name).take(shade, axis=0)


@cache
def _table(name: str) -> NDArray[np.uint8]:
    rgba: NDArray[np.uint8] = colour_map(name)(np.arange(SHADES), bytes=True)
    return rgba[:, :3].copy()
