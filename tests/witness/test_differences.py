"""Cases small enough for fractions in which zennit computes something else, and what we do."""

import numpy as np
import pytest
import torch
from support import lines, model, node
from torch import nn
from witness.attribution import by_explainer, by_zennit, through_layer
from witness.normalisation import taylor
from witness.writer import to_onnx
from zennit import composites, rules

import onnxlrp


def linear(*rows, bias=None):
    """Build a dense layer of the given weights."""
    layer = nn.Linear(len(rows[0]), len(rows), bias=bias is not None)
    layer.weight.data = torch.tensor(rows, dtype=torch.float32)
    if bias is not None:
        layer.bias.data = torch.tensor(bias, dtype=torch.float32)
    return layer


def both(network, theirs, ours, x):
    """Relevance of one sample's inputs, by zennit and by us."""
    x = np.array([x], np.float32)
    composite = onnxlrp.Composite.load(ours)
    return (
        by_zennit(network, theirs, x, [0]).reshape(-1),
        by_explainer(to_onnx(network, torch.tensor(x)), composite, x, [0]).reshape(-1),
    )


def one_layer(tested, x, rule, offset, weights=None):
    """Our relevance of one sample's inputs, where that of the node's one output, +offset, is 1."""
    x = np.array([x], np.float32)
    offset = np.array([offset], np.float32)
    proto = model(
        [tested, node("Reshape", ["y", "rows"], "row"), node("Sum", ["row", "offset"], "score")],
        {"x": ["N", *x.shape[1:]]},
        {"score": ["N", 1]},
        {**(weights or {}), "rows": np.array([-1, 1], np.int64), "offset": offset},
    )
    composite = lines(f"name=node_y: {rule}", "*: pass")
    return by_explainer(proto, composite, x, [0]).reshape(-1)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.branch, self.relu, self.last = linear([1, 0], [0, 1]), nn.ReLU(), linear([1, 1])

    def forward(self, x):
        return self.last(x + self.relu(self.branch(x)))


def test_a_plain_sum_doubles_relevance_in_zennit(ledger):
    theirs, ours = both(Residual(), composites.EpsilonPlus(), "epsilon_plus", [1, 2])
    assert theirs == pytest.approx([4, 8], rel=1e-5)
    assert ours == pytest.approx([2, 4], rel=1e-5)
    ledger.differ("zennit: a residual `+` that is no module, f = 6", theirs, ours)


class Reversed(nn.Module):
    """Defines its second layer first."""

    def __init__(self):
        super().__init__()
        self.last, self.relu, self.first = linear([1, 1]), nn.ReLU(), linear([1, 0], [1, 1])

    def forward(self, x):
        return self.last(self.relu(self.first(x)))


def test_the_first_layer_is_the_first_defined_in_zennit(ledger):
    theirs, ours = both(Reversed(), composites.EpsilonPlusFlat(), "epsilon_plus_flat", [1, 2])
    assert theirs == pytest.approx([2 + 2 / 3, 4 / 3], rel=1e-5)
    assert ours == pytest.approx([2, 2], rel=1e-5)
    ledger.differ("zennit: flat first layer, defined last, f = 4", theirs, ours)


class Parallel(nn.Module):
    """Two layers read the input."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.last = linear([1, 1]), linear([1, 1]), linear([1, 1])

    def forward(self, x):
        return self.last(torch.cat([self.left(x), self.right(x)], 1))


def test_of_two_first_layers_zennit_takes_one(ledger):
    theirs, ours = both(Parallel(), composites.EpsilonPlusFlat(), "epsilon_plus_flat", [1, 2])
    assert theirs == pytest.approx([2.5, 3.5], rel=1e-5)
    assert ours == pytest.approx([3, 3], rel=1e-5)
    ledger.differ("zennit: flat first layers, two side by side, f = 6", theirs, ours)


def test_gamma_drops_relevance_at_zero_in_zennit(ledger):
    x, weights = [1.0, 1.0], {"w": np.array([[1], [-1]], np.float32)}
    theirs = through_layer(linear([1, -1]), rules.Gamma(0.25), np.array([x]), np.array([[1.0]]))[0]
    ours = one_layer(node("Gemm", ["x", "w"]), x, "gamma gamma=0.25", 1, weights)
    assert theirs == pytest.approx([0, 0])
    assert ours == pytest.approx([5, -4], rel=1e-4)
    ledger.differ("zennit: gamma where z = 0, R = 1", theirs, ours)


def test_lrn_falls_through_to_the_gradient_in_zennit(ledger):
    lrn = nn.LocalResponseNorm(3, alpha=3.0, beta=0.5)
    network = nn.Sequential(lrn, nn.Flatten(), linear([1, 1]))
    x = [[[1]], [[2]]]
    theirs, ours = both(network, composites.EpsilonPlus(), "epsilon_plus", x)
    score = 3 / 6**0.5
    assert theirs == pytest.approx([1 / 36, 2 / 36], rel=1e-5)
    assert ours.sum() == pytest.approx(score, rel=1e-5)
    sample = torch.tensor([x], dtype=torch.float64)
    wanted = taylor(lrn, sample, sample / 6**0.5).reshape(-1)
    assert ours == pytest.approx(np.asarray(wanted), rel=1e-5)
    ledger.differ(f"zennit: LRN, f = {score:.2f}", theirs, ours)


def test_zennit_shares_with_a_separate_padding(ledger):
    convolution = nn.Conv2d(1, 1, (1, 3), bias=False)
    nn.init.ones_(convolution.weight)
    network = nn.Sequential(nn.ZeroPad2d((1, 1, 0, 0)), convolution, nn.Flatten(), linear([1, 1]))
    theirs, ours = both(network, composites.EpsilonPlusFlat(), "epsilon_plus_flat", [[[1, 2]]])
    assert theirs == pytest.approx([2, 2], rel=1e-5)
    assert ours == pytest.approx([3, 3], rel=1e-5)
    ledger.differ("zennit: flat behind a padding of its own, f = 6", theirs, ours)


def test_z_plus_does_not_part_a_pool_in_zennit(ledger):
    x, pool = [[2.0, -1.0]], nn.AvgPool1d(2)
    theirs = through_layer(pool, rules.ZPlus(), np.array([x]), np.array([[[1.0]]])).reshape(-1)
    ours = one_layer(node("AveragePool", ["x"], kernel_shape=[2]), x, "z-plus", 0.5)
    assert theirs == pytest.approx([2, -1], rel=1e-5)
    assert ours == pytest.approx([1, 0], rel=1e-5)
    ledger.differ("zennit: z-plus on an average pool, R = 1", theirs, ours)


def test_flat_on_a_pool_stabilises_the_mean_in_zennit(ledger):
    x, pool = [[2.0, 2.0]], nn.AvgPool1d(2)
    theirs = through_layer(pool, rules.Flat(1.0), np.array([x]), np.array([[[1.0]]])).reshape(-1)
    ours = one_layer(node("AveragePool", ["x"], kernel_shape=[2]), x, "flat stabiliser=1", -1)
    assert theirs == pytest.approx([1 / 4, 1 / 4], rel=1e-5)
    assert ours == pytest.approx([1 / 3, 1 / 3], rel=1e-5)
    ledger.differ("zennit: flat on an average pool, stabiliser 1, R = 1", theirs, ours)
