"""Rules for random networks: a composite that ships, or a line for every node."""

from __future__ import annotations

from collections.abc import Sequence

from drawn import Draw, Network
from hypothesis import strategies as st
from support import SHARING, lines

import onnxlrp

BIAS = ("absorb", "exclude", "distribute")
STABILISERS = (1e-6, 1e-3, 0.1, 0.5)

_ANYWHERE = (
    "epsilon",
    "norm",
    "z-plus",
    "alpha-beta",
    "beta",
    "flat",
    "even",
    "gamma",
    "gamma-original",
)
_RULES = {
    "MaxPool": ("winner-takes-all", "proportional"),
    "LRN": ("taylor", "identity", "taylor-unnormalised", "path-integral", "taylor-2", "gradient"),
    "BatchNormalization": (*_ANYWHERE, "pass", "z-box", "w-square"),
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul"), (*_ANYWHERE, "z-box", "w-square")),
}
_OWN = {
    "alpha-beta": ("alpha=2 beta=1", "alpha=1 beta=0", "alpha=1.5 beta=0.5"),
    "beta": ("beta=0", "beta=1"),
    "gamma": ("gamma=0.25", "gamma=2"),
    "gamma-original": ("gamma=0.25", "gamma=2"),
    "z-box": ("low=-4 high=4",),
}
_WITHOUT_BIAS = ("norm", "flat", "even", "z-box")
_WITHOUT_PARAMETERS = ("pass", "winner-takes-all", *_RULES["LRN"])


def rule(draw: Draw, operator: str, stabilisers: Sequence[float] = STABILISERS) -> str:
    """Draw a rule that an operator takes, with its parameters, as a line has them."""
    name = draw(st.sampled_from(_RULES.get(operator, _ANYWHERE)))
    if name in _WITHOUT_PARAMETERS:
        return str(name)
    words = [name]
    stabiliser = draw(st.sampled_from(stabilisers))
    words.append(f"{'epsilon' if name == 'epsilon' else 'stabiliser'}={stabiliser}")
    if name in _OWN:
        words.append(draw(st.sampled_from(_OWN[name])))
    if name not in (*_WITHOUT_BIAS, "proportional"):
        words.append(f"bias={draw(st.sampled_from(BIAS))}")
    return " ".join(words)


@st.composite
def lines_for(draw: Draw, network: Network) -> onnxlrp.Composite:
    """Draw a line for every node of a network."""
    return lines(*(f"name={name}: {rule(draw, operator)}" for name, operator in network.layers))


@st.composite
def composites(draw: Draw, network: Network) -> onnxlrp.Composite:
    """Draw a composite for a network."""
    if draw(st.booleans()):
        return draw(lines_for(network))
    shipped = draw(st.sampled_from(SHARING))
    bounds = {"low": -4.0, "high": 4.0} if "low" in shipped.parameters else {}
    return shipped.with_parameters({**bounds, "stabiliser": draw(st.sampled_from((1e-6, 0.1)))})
