"""The layers and rules that are compared one by one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from support import Array, Explained, explain, lines, model, node, normal
from torch import nn
from witness.writer import operator_of
from zennit import rules
from zennit.core import Hook
from zennit.types import AvgPool

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "Linear": (lambda: nn.Linear(24, 24), (24,)),
    "Linear without bias": (lambda: nn.Linear(24, 18, bias=False), (24,)),
    "Conv 1-D": (lambda: nn.Conv1d(3, 5, 4, padding=1), (3, 19)),
    "Conv 1-D, stride 3, dilated, grouped": (
        lambda: nn.Conv1d(4, 6, 3, stride=3, padding=2, dilation=2, groups=2), (4, 23),
    ),
    "Conv 2-D": (lambda: nn.Conv2d(3, 3, 3, padding=1), (3, 8, 7)),
    "Conv 2-D, stride 2": (lambda: nn.Conv2d(3, 5, 3, stride=2, padding=1), (3, 11, 10)),
    "Conv 2-D, dilated": (lambda: nn.Conv2d(3, 4, (3, 2), dilation=(2, 3)), (3, 9, 10)),
    "Conv 2-D, grouped": (lambda: nn.Conv2d(6, 4, 3, groups=2), (6, 7, 6)),
    "Conv 2-D, depthwise": (lambda: nn.Conv2d(4, 8, 3, padding=1, groups=4), (4, 7, 6)),
    "Conv 3-D": (lambda: nn.Conv3d(2, 4, 3, padding=1, stride=(1, 2, 2)), (2, 4, 6, 7)),
    "ConvTranspose 1-D": (lambda: nn.ConvTranspose1d(4, 3, 4, stride=2, padding=1), (4, 9)),
    "ConvTranspose 2-D": (lambda: nn.ConvTranspose2d(4, 3, 3), (4, 6, 5)),
    "ConvTranspose 2-D, stride 2, grouped, dilated": (
        lambda: nn.ConvTranspose2d(
            4, 6, 3, stride=2, padding=1, output_padding=1, groups=2, dilation=2
        ),
        (4, 5, 6),
    ),
    "ConvTranspose 3-D": (lambda: nn.ConvTranspose3d(3, 2, 2, stride=2), (3, 3, 4, 3)),
    "AvgPool 1-D": (lambda: nn.AvgPool1d(4, stride=3), (3, 19)),
    "AvgPool 2-D": (lambda: nn.AvgPool2d(3, stride=2, padding=1), (3, 9, 8)),
    "AvgPool 2-D, padding not counted": (
        lambda: nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False), (3, 9, 8),
    ),
    "AvgPool 3-D": (lambda: nn.AvgPool3d(2), (2, 4, 6, 4)),
    "AdaptiveAvgPool 2-D": (lambda: nn.AdaptiveAvgPool2d(1), (3, 5, 6)),
}  # fmt: skip
"""By name, a layer and the shape of a sample of its input."""


@dataclass(frozen=True)
class Case:
    """One rule with parameters, in both spellings."""

    theirs: Callable[[], Hook]
    rule: str
    ours: Mapping[str, Any] = field(default_factory=dict)


TARGET = 1
"""The class explained."""

LOW, HIGH = -6.0, 7.0
"""Bounds beyond every input."""


def bounds(shape: tuple[int, ...]) -> tuple[list[float], list[float]]:
    """Bounds for each channel of a sample."""
    channels = shape[0]
    return [LOW - c / 4 for c in range(channels)], [HIGH + c / 4 for c in range(channels)]


def cases(rule: str, shape: tuple[int, ...]) -> list[Case]:
    """Every combination of parameters in which a rule is compared."""
    excluded = {"bias": "exclude"}
    biases: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {}), ({"zero_params": "bias"}, excluded)
    ]  # fmt: skip
    if rule == "epsilon":
        return [
            Case(lambda e=e, z=z: rules.Epsilon(epsilon=e, **z), "epsilon", {"epsilon": e} | o)
            for e in (1e-6, 0.25)
            for z, o in biases
        ]
    varied: list[tuple[dict[str, Any], dict[str, Any]]] = [({}, {})]
    made: Callable[..., Hook] = {
        "z-plus": rules.ZPlus,
        "alpha-beta": rules.AlphaBeta,
        "gamma": rules.Gamma,
        "z-box": rules.ZBox,
        "w-square": rules.WSquare,
        "flat": rules.Flat,
        "norm": rules.Norm,
        "pass": rules.Pass,
    }[rule]
    if rule == "pass":
        return [Case(made, rule)]
    if rule == "alpha-beta":
        pairs = [{"alpha": a, "beta": b} for a, b in ((2.0, 1.0), (1.5, 0.5), (1.0, 0.0))]
        varied = [(pair, pair) for pair in pairs]
    if rule == "gamma":
        varied = [({"gamma": g}, {"gamma": g}) for g in (0.25, 0.0, 4.0)]
    if rule == "z-box":
        low, high = bounds(shape)
        axes = (1, -1, *(1,) * (len(shape) - 1))
        tensors = {"low": torch.tensor(low).view(axes), "high": torch.tensor(high).view(axes)}
        numbers = {"low": LOW, "high": HIGH}
        varied = [(numbers, numbers), (tensors, {"low": low, "high": high})]
    if rule in ("z-box", "flat", "norm"):
        biases = biases[:1]
    return [
        Case(
            lambda s=s, z=z, t=t: made(stabilizer=s, **z, **t),
            rule,
            {"stabiliser": s} | o | u,
        )
        for s in (1e-6, 0.25)
        for z, o in biases
        for t, u in varied
    ]


RULES = ("epsilon", "z-plus", "alpha-beta", "gamma", "z-box", "w-square", "flat", "norm", "pass")


def layer(name: str, seed: int = 0) -> tuple[nn.Module, tuple[int, ...]]:
    """Build a layer with random weights and large biases of both signs."""
    build, shape = LAYERS[name]
    torch.manual_seed(seed)
    built = build()
    for key, parameter in built.named_parameters():
        nn.init.normal_(parameter, std=2.0 if key == "bias" else 0.5)
    return built.eval(), shape


def comparable(name: str, rule: str) -> bool:
    """Whether a rule means the same for both on a layer."""
    if isinstance(LAYERS[name][0](), AvgPool):
        # What zennit does to weights before a rule has no effect on a pool, which has none.
        return rule in ("epsilon", "norm")
    return rule != "pass" or name in ("Linear", "Conv 2-D")


PAIRS = [(name, rule) for name in LAYERS for rule in RULES if comparable(name, rule)]
"""Every layer with every rule that means the same for both."""


def certain(tested: nn.Module, x: Array, gamma: float) -> Array:
    """Which denominators do not nearly cancel in any sample, with or without the bias.

    Where they do, float32 cannot tell what a rule says. With z⁺ the sum of what is positive of z,
    the gamma rule divides by z + gamma z⁺ or z + gamma z⁻, and by either if the bias, left out of
    them, decided on which side z is.
    """
    keep: Array = np.array(True)
    for biased in (True, False):
        signed = copy.deepcopy(tested).double()
        if not biased and getattr(signed, "bias", None) is not None:
            nn.init.zeros_(signed.bias)
        sizes = copy.deepcopy(signed)
        for parameter in sizes.parameters():
            parameter.data.abs_()
        with torch.no_grad():
            z = signed(torch.tensor(x, dtype=torch.float64))
            most = sizes(torch.tensor(x, dtype=torch.float64).abs())
        for denominator in (z, z + gamma * (z + most) / 2, z + gamma * (z - most) / 2):
            keep = keep & np.asarray((denominator.abs() >= 0.05 * most).all(0))
    return keep.reshape(-1)


def readout(tested: nn.Module, x: Array, gamma: float = 0.0) -> tuple[Array, Array]:
    """Offset and weights of a dense layer behind a layer.

    It sends relevance of both signs, also where the layer's output is 0, to the outputs that are
    certain.
    """
    keep = certain(tested, x, gamma)
    assert keep.sum() >= keep.size / 5
    return normal(keep.size, seed=8), normal(keep.size, 3, seed=7) * keep[:, None]


def explained(tested: nn.Module, x: Array, case: Case, rectified: bool) -> Explained:
    """Explain a network that reads `x` and in which `y` is the layer's output.

    With `rectified`, a Relu lies in front of the layer, which then reads values known to be >= 0.
    """
    op, parameters, attributes = operator_of(tested, x.ndim)
    weights = {f"w{index}": p.detach().numpy() for index, p in enumerate(parameters)}
    seen = np.maximum(x, 0) if rectified else x
    offset, matrix = readout(tested, seen, case.ours.get("gamma", 0.0))
    proto = model(
        [
            *([node("Relu", ["x"], "seen")] if rectified else []),
            node(op, ["seen" if rectified else "x", *weights], "y", **attributes),
            node("Reshape", ["y", "rows"], "row"),
            node("Sum", ["row", "offset"], "shifted"),
            node("Gemm", ["shifted", "matrix"], "logits"),
        ],
        {"x": ["N", *x.shape[1:]]},
        ["logits"],
        {
            **weights,
            "rows": np.array([-1, len(offset)], np.int64),
            "offset": offset,
            "matrix": matrix,
        },
    )
    composite = lines(
        f"name=node_y: {case.rule}", "name=node_shifted: pass", "Gemm: norm"
    ).with_parameters(case.ours)
    return explain(proto, composite, {"x": x}, target=[TARGET] * len(x), inside=["y"])
