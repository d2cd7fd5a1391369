"""What an audit found, as numbers, and what passes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from onnxlrp.audit.kernels import Missing
from onnxlrp.audit.limits import Limit

OUTPUTS = 1e-5
"""Largest change of an output, as a part of its largest value, in a float32 model."""

LEAK = 1e-4
"""Largest unexplained relevance of a layer, as a part of the sum of |R| on both its sides."""

DIFFERENCE = 1e-4
"""Largest difference of a layer from its definition, as a part of max |R|."""

NOISE = 10
"""How many times its noise a layer or an output may differ, where that is more than is allowed."""

ALIKE = 0.99
"""Correlation of two classes' maps from which on they do not tell them apart."""

EXPLODED = 1e3
"""Sum of |R| over |f| from which on a map says little about f."""


@dataclass(frozen=True)
class Crossed:
    """An operation of the model, as relevance crosses it.

    Attributes
    ----------
    name, operator : of the node; `merged` names the nodes taken together with it
    rule, parameters : its rule; the operator's name where that leaves no choice
    skipped : why it was not recomputed; "" where it was

    """

    name: str
    operator: str
    merged: tuple[str, ...]
    rule: str
    parameters: Mapping[str, Any]
    skipped: str


@dataclass(frozen=True)
class Layer:
    """One step of relevance: operations that share an input, with what acts on the way.

    All sums are over all elements and samples, and
    incoming = outgoing + bias + stabiliser + beyond + unexplained.

    Attributes
    ----------
    operations : in the model's order
    incoming, outgoing : sum of R at its outputs and at its inputs
    size : sum of |R| on both sides; `spread` on the input side alone
    bias : absorbed by biases and other constants
    stabiliser : absorbed by stabilisers; `empty` of it where nothing contributes, so that there
        is nothing to share among
    beyond : taken out of the account by a rule that does not conserve (`gradient`, say), or by
        multiplying a gradient by the input
    unexplained : what is left
    rounding : how far the definition's sum of R moves within the rounding of the type; 0 where
        the difference from it is small enough not to ask
    judged : whether all terms above are known, so that a leak is a fault
    difference : largest difference from the definition in float64, as a part of max |R|; None
        where no value could be compared
    noise : how far the definition itself moves when all it is given changes within the rounding
        of its type; 0 where the difference is small enough not to ask
    allowed : difference from which on it is a fault

    """

    operations: tuple[Crossed, ...]
    incoming: float
    outgoing: float
    size: float
    spread: float
    bias: float
    stabiliser: float
    empty: float
    beyond: float
    unexplained: float
    rounding: float
    judged: bool
    difference: float | None
    noise: float
    allowed: float

    @property
    def name(self) -> str:
        """The operations, those with a rule before those without, the rest counted."""
        chosen = [o.name for o in self.operations if o.rule != o.operator]
        names = chosen or [o.name for o in self.operations]
        return names[0] if len(names) == 1 else f"{names[0]} + {len(names) - 1} more"

    @property
    def rules(self) -> str:
        """The rules of its operations, each once."""
        rules = {o.rule: None for o in self.operations if o.rule != o.operator}
        return ", ".join(rules) or "passes on"

    @property
    def acts(self) -> bool:
        """Whether it does more than to hand relevance on, or something is wrong with it."""
        chosen = any(o.rule not in (o.operator, "pass") for o in self.operations)
        return chosen or self.leaks or self.differs or any(o.skipped for o in self.operations)

    @property
    def leak(self) -> float:
        """The unexplained part of the sum of |R|; infinite where it is no number."""
        part = abs(self.unexplained) / max(self.size, 1e-30)
        return part if math.isfinite(part) else math.inf

    @property
    def leaks(self) -> bool:
        """Whether more is unexplained than rounding leaves."""
        rounding = NOISE * self.rounding / max(self.size, 1e-30)
        return self.judged and not self.leak <= max(LEAK, rounding)

    @property
    def differs(self) -> bool:
        """Whether it is off its definition by more than rounding explains."""
        return self.difference is not None and not self.difference <= self.allowed


@dataclass(frozen=True)
class Special:
    """Numbers in the relevance of one value that are none, or nearly so.

    Attributes
    ----------
    value : of the model
    nan, infinite, denormal : how many elements

    """

    value: str
    nan: int
    infinite: int
    denormal: int


@dataclass(frozen=True)
class Audit:
    """The result of `check`.

    Attributes
    ----------
    model, explainer : what they are called
    version : of the onnxlrp that wrote the explainer
    provider : where both ran
    samples, targets : how many inputs, and the class explained of each, or the difference of two
        such as "3-5"
    contrast : what those are contrasted to, as the explainer was converted; "" for nothing
    yields : what maps hold: relevance, or a gradient, which adds up to nothing
    score : sum of the scores explained, 0 of contrasts; `scale` of their magnitudes, of contrasts
        of what speaks for the class, the unit of all shares
    heatmap : sum of the relevance at the inputs
    shares, sizes : of each sample, that and the sum of its magnitudes as parts of the score
    drawn : difference of a class activation map from its definition, as a part of its largest
        value; None of all else
    alike : least correlation of a sample's map with that of the class that scores next; None where
        there is no choice
    bias_treatments : what the composite does with biases
    precision : distance of 1 to the next number of the coarsest type that the model computes in
    outputs : by output, the largest difference from the model alone, as a part of its largest value
    noise : the largest such difference of the model alone from itself, when onnxruntime fuses none
        of its nodes
    start : difference of the relevance that it starts from; None where it is not held
    layers : from the score to the inputs
    special : values with relevance that is not finite, or denormal
    kernels : nodes without a kernel, by provider; `looked_up` nodes, which depend on an input, were
        looked up
    limits : nodes that a browser cannot run, or runs wrongly, though it has their kernels
    scans : how many nodes of those written go step by step along a sequence
    seconds : what it took

    """

    model: str
    explainer: str
    version: str
    provider: str
    samples: int
    targets: tuple[int | str, ...]
    contrast: str
    yields: str
    score: float
    scale: float
    heatmap: float
    shares: tuple[float, ...]
    sizes: tuple[float, ...]
    drawn: float | None
    alike: float | None
    bias_treatments: tuple[str, ...]
    precision: float
    outputs: Mapping[str, float]
    noise: float
    start: float | None
    layers: tuple[Layer, ...]
    special: tuple[Special, ...]
    kernels: tuple[Missing, ...]
    looked_up: int
    limits: tuple[Limit, ...]
    scans: int
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether nothing that is a fault was found."""
        return not (
            any(not difference <= self.allowed_change for difference in self.outputs.values())
            or (self.start is not None and not self.start <= max(DIFFERENCE, self.precision))
            or (self.drawn is not None and not self.drawn <= max(DIFFERENCE, self.precision))
            or any(layer.leaks or layer.differs for layer in self.layers)
            or any(entry.nan or entry.infinite for entry in self.special)
        )

    @property
    def sensitivity(self) -> bool:
        """Whether maps are gradients, or such times the input."""
        return self.yields != "relevance"

    @property
    def explodes(self) -> list[Layer]:
        """The layers whose sum of |R| is out of all proportion to the score; none of gradients."""
        if self.sensitivity:
            return []
        return [layer for layer in self.layers if layer.spread > EXPLODED * self.scale > 0]

    @property
    def allowed_change(self) -> float:
        """Change of an output from which on it is a fault."""
        return max(OUTPUTS, self.precision, NOISE * self.noise)

    def share(self, amount: float) -> float:
        """Return an amount of relevance as a part of the score."""
        return amount / self.scale if self.scale else math.nan

    def to_json(self) -> dict[str, Any]:
        """Return everything in types that JSON has; a number that is none becomes a text."""
        layers = [
            {"name": layer.name, "rules": layer.rules, **asdict(layer), "leak": layer.leak}
            for layer in self.layers
        ]
        found = {**asdict(self), "layers": layers, "passed": self.passed}
        return {key: _plain(value) for key, value in found.items()}


Kind = Literal["failure", "warning", "doubt", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing to tell the user.

    Attributes
    ----------
    kind : a failure makes the audit fail; a doubt is about the map, not about its arithmetic
    text : one sentence or two

    """

    kind: Kind
    text: str


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
