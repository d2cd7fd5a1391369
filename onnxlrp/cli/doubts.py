"""Signs that pictures do not become what the model wants to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from onnxlrp.cli.terminal import echo

MANY = 10
"""So many items in one class are no chance."""


def doubt(flat: Sequence[bool], predicted: Sequence[int]) -> None:
    """Warn on stderr where a model's answers look as if its input were made wrongly.

    Parameters
    ----------
    flat : of each item, whether the model scores all classes nearly alike
    predicted : the class predicted of each item; empty where others were asked for

    """
    sign = ""
    if 2 * sum(flat) > len(flat):
        sign = f"for {sum(flat)} of {len(flat)} items the model scores all classes nearly alike"
    elif len(predicted) >= MANY:
        most, count = Counter(predicted).most_common(1)[0]
        if 4 * count > 3 * len(predicted):
            sign = f"the model predicts class {most} for {count} of {len(predicted)} items"
    if sign:
        echo(f"Warning: {sign}: is this how its input is made?", err=True)
