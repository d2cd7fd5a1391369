"""Signs that a model's input is made wrongly, or that maps say little about what is explained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from onnxlrp.cli.terminal import echo

if TYPE_CHECKING:
    from onnxlrp.running.explanation import Account

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


def mistrust(accounts: Sequence[Account], against: bool, reference: str) -> None:
    """Warn on stderr of maps that say little about the score.

    Parameters
    ----------
    accounts : of each map
    against : whether the explainer has a reference
    reference : what `convert --reference` takes for such inputs, and advises

    """
    from onnxlrp.running.explanation import CANCELLING, strays

    lost = [one.share for one in accounts if one.share is not None and strays(one.share)]
    cancelling = sum(bool(one.doubt) for one in accounts) - len(lost)
    if lost:
        advice = "try a composite with gamma"
        if not against:
            advice = f"biases hold the rest; convert --reference {reference} leaves them nothing"
        echo(
            f"Warning: {len(lost)} of {len(accounts)} maps account for less than half or more than "
            f"twice of the score ({median(lost):.1%} in the middle): {advice}",
            err=True,
        )
    if cancelling:
        echo(
            f"Warning: in {cancelling} of {len(accounts)} maps relevance is more than "
            f"{CANCELLING:.0f} times the score, and cancels: a rule that bounds it, such as "
            "z-plus or gamma, says more",
            err=True,
        )
