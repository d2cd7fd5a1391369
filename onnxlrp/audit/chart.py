"""Draws relevance layer by layer, split by where it went."""

from __future__ import annotations

from typing import IO

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import SymmetricalLogLocator

from onnxlrp.audit.findings import Audit, Layer

_PARTS = {
    # Okabe and Ito's, which every kind of sight tells apart.
    "handed on": "#0072b2",
    "biases and constants": "#e69f00",
    "stabiliser": "#cc79a7",
    "rule does not conserve": "#009e73",
    "unexplained": "#d55e00",
}

_ROW = 0.24
"""Height of a layer's bar, in inches."""


def draw(audit: Audit, file: IO[bytes]) -> None:
    """Write a PNG: one bar a layer, from the score at the top to the input, in % of the score.

    Parts below zero are stacked to the left. Layers that only hand relevance on are left out.
    """
    layers = [layer for layer in audit.layers if layer.acts]
    parts = np.array([_parts(audit, layer) for layer in layers]).reshape(-1, len(_PARTS)) * 100
    figure = Figure(figsize=(9, 1.6 + _ROW * max(len(layers), 4)), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(layers))
    right, left = np.zeros(len(layers)), np.zeros(len(layers))
    for column, (name, colour) in enumerate(_PARTS.items()):
        amount = parts[:, column]
        start = np.where(amount >= 0, right, left)
        # A part that is nowhere to be seen only crowds the legend.
        if np.abs(amount).max(initial=0) >= 0.01 * np.abs(parts).max(initial=1):
            axes.barh(rows, amount, left=start, height=0.8, color=colour, label=name)
        right, left = right + np.maximum(amount, 0), left + np.minimum(amount, 0)
    axes.set_yticks(rows, [layer.name for layer in layers], fontsize=7)
    axes.set_ylim(len(layers) - 0.4, -0.6)
    if audit.explodes:
        axes.set_xscale("symlog", linthresh=100)
        ticks = SymmetricalLogLocator(linthresh=100, base=10)
        ticks.set_params(numticks=9)
        axes.xaxis.set_major_locator(ticks)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_xlabel("% of where it starts" if audit.sensitivity else "% of the score")
    axes.set_title(f"Relevance on its way to the input: {audit.explainer}", fontsize=9)
    figure.legend(loc="outside lower center", ncols=len(_PARTS), fontsize=8, frameon=False)
    figure.savefig(file, format="png", dpi=120)


def _parts(audit: Audit, layer: Layer) -> list[float]:
    # Beside large numbers that cancel, rounding would look like much.
    rest = layer.unexplained if layer.leaks else 0.0
    amounts = (layer.outgoing, layer.bias, layer.stabiliser, layer.beyond, rest)
    return [audit.share(amount) for amount in amounts]
