import copy

import numpy as np
import pytest
import torch
from captum.attr import LRP
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule
from support import lines, normal
from torch import nn
from witness.attribution import by_explainer, distance
from witness.layers import TARGET, Case, explained, layer, readout
from witness.ledger import CAPTUM as TABLE
from witness.writer import to_onnx


class WithReadout(nn.Module):
    """A layer, and behind it the dense layer that `explained` puts there."""

    def __init__(self, tested, offset, matrix):
        super().__init__()
        self.tested, self.offset = tested, torch.tensor(offset)
        self.readout = nn.Linear(*matrix.shape, bias=False)
        self.readout.weight.data = torch.tensor(matrix.T.copy())

    def forward(self, x):
        return self.readout(torch.flatten(self.tested(x), 1) + self.offset)


def by_captum(network, rule, x, target=TARGET):
    network = copy.deepcopy(network).double()
    network.tested.rule = rule
    network.readout.rule = EpsilonRule(1e-6)
    inputs = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    return LRP(network).attribute(inputs, target=target).detach().numpy()


# captum's rules leave the bias as it is, so that z-plus and gamma are themselves without one only;
# both take weights alone into account, and are meant for inputs that are not negative.
RULES = {
    "epsilon": [
        (lambda: EpsilonRule(1e-6), Case(None, "epsilon", {"epsilon": 1e-6}), False),
        (lambda: EpsilonRule(0.25), Case(None, "epsilon", {"epsilon": 0.25}), False),
    ],
    "z-plus": [(lambda: Alpha1_Beta0_Rule(True), Case(None, "z-plus", {"bias": "exclude"}), True)],
    "gamma-original": [
        (
            lambda g=g: GammaRule(g, True),
            Case(None, "gamma-original", {"gamma": g, "bias": "exclude"}),
            True,
        )
        for g in (0.25, 4.0)
    ],
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "name", ["Linear", "Conv 1-D", "Conv 2-D", "Conv 2-D, dilated", "Conv 2-D, grouped"]
)
def test_a_layer_is_as_in_captum(name, rule, ledger):
    tested, shape = layer(name)
    x = normal(2, *shape, seed=1) + np.float32(0.5)
    for theirs, case, rectified in RULES[rule]:
        seen = np.maximum(x, 0) if rectified else x
        offset, matrix = readout(tested, seen, case.ours.get("gamma", 0.0))
        wanted = by_captum(WithReadout(tested, offset, matrix), theirs(), seen)
        found = explained(tested, x, case, rectified).values["relevance"]
        ledger.compare((TABLE, name, rule), distance(found, wanted), 1e-5)


def neuron(weights, bias):
    """One output, handed on as it is."""
    tested = nn.Linear(2, 1)
    tested.weight.data, tested.bias.data = torch.tensor([weights]), torch.tensor([bias])
    return tested


@pytest.mark.parametrize(
    ("what", "rule", "case", "weights", "bias", "x", "theirs", "ours"),
    [
        (
            "captum: z-plus, W = (1, -1), b = -0.5, x = (2, -1), f = 2.5",
            Alpha1_Beta0_Rule, "z-plus",
            [1.0, -1.0], -0.5, [2.0, -1.0], [10 / 3, 0], [5 / 3, 5 / 6],
        ),
        (
            "captum: gamma 0.25, W = (1, 1), b = 1, x = (1, 2), f = 4",
            GammaRule, "gamma-original",
            [1.0, 1.0], 1.0, [1.0, 2.0], [20 / 19, 40 / 19], [1, 2],
        ),
    ],
)  # fmt: skip
def test_captum_treats_biases_otherwise(what, rule, case, weights, bias, x, theirs, ours, ledger):
    tested, x = neuron(weights, bias), np.array([x], np.float32)
    network = WithReadout(tested, np.zeros(1, np.float32), np.ones((1, 1), np.float32))
    by_them = by_captum(network, rule(), x, 0)[0]
    by_us = by_explainer(
        to_onnx(nn.Sequential(tested), torch.tensor(x)), lines(f"*: {case}"), x, [0]
    )[0]
    assert by_them == pytest.approx(theirs, rel=1e-5, abs=1e-6)
    assert by_us == pytest.approx(ours, rel=1e-5)
    ledger.differ(what, by_them, by_us)
