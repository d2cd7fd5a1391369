"""A study as files: a table of numbers, and a figure of curves."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import IO, Any

import numpy as np

from onnxlrp.evaluation.study import RANDOM, Interval, Study
from onnxlrp.files import write, write_csv

# Okabe and Ito's, safe for the colour-blind.
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")


def rows(study: Study) -> list[dict[str, Any]]:
    """Return every mean, and every difference of two methods, with its interval.

    Returns
    -------
    dictionaries with `measure`, `method`, `minus` (None for a mean; else what was named before),
    `mean`, `low`, `high`

    """
    found: list[tuple[str, str, str | None, Interval]] = []
    for measure in study.measures:
        taken = [m for m in study.methods if not np.isnan(study.values(m, measure)).all()]
        for method in taken:
            found.append((measure, method, None, study.mean(method, measure)))
        for method, other in combinations(taken, 2):
            found.append((measure, other, method, study.difference(other, method, measure)))
    return [
        {"measure": measure, "method": method, "minus": other, **interval._asdict()}
        for measure, method, other, interval in found
    ]


def write_report(folder: Path, study: Study, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Write `results.csv`, `results.json` and `curves.png` into a folder; return the rows."""
    listed = rows(study)
    whole = {"samples": len(study), "settings": settings, "results": listed}
    write_csv(folder / "results.csv", listed)
    write(folder / "results.json", lambda file: file.write(json.dumps(whole, indent=1).encode()))
    score = "probability" if settings["probability"] else "logit"
    nouns = settings["samples"], settings["places"]
    write(folder / "curves.png", lambda file: draw(study, file, score, *nouns))
    return listed


def draw(
    study: Study,
    file: IO[bytes],
    score: str = "score",
    samples: str = "samples",
    places: str = "places",
) -> None:
    """Draw mean curves, as PNG: most relevant first solid, least relevant first dashed.

    Parameters
    ----------
    study : what to draw
    file : where to
    score : what the score of the class is called
    samples, places : what they, and what is flipped, are called

    """
    # Not pyplot: it costs half a second and looks for a display.
    from matplotlib import color_sequences
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = Figure(figsize=(8, 5), dpi=110, layout="constrained")
    axis = figure.subplots()
    what, last = ("flips", study.flips) if study.flips else (f"share of the {places} flipped", 1)
    styles = {"descending": "-", "ascending": "--", "random": ":"}
    named = _PALETTE if len(study.methods) <= len(_PALETTE) else color_sequences["tab20"]
    for index, method in enumerate(study.methods):
        colour = "#777777" if method == RANDOM else named[index % len(named)]
        label: str | None = method
        for order, style in styles.items():
            if order in study.rows[0]["methods"][method]["curves"]:
                curve = study.curve(method, order)
                flips = np.linspace(0, last, len(curve))
                axis.plot(flips, curve, style, color=colour, label=label)
                label = None
    axis.xaxis.set_major_locator(MaxNLocator(integer=study.flips is not None))
    if study.flips is None:
        axis.xaxis.set_major_formatter(PercentFormatter(1))
    axis.set_xlabel(f"{what} (solid: most relevant first; dashed: least relevant first)")
    axis.set_ylabel(f"{score} of the class")
    axis.set_title(f"mean of {len(study)} {samples}", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8)
    figure.savefig(file, format="png")
