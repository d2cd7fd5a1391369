"""Epsilon against a reference is DeepLIFT's Rescale rule, as Captum computes it."""

import warnings

import numpy as np
import pytest
import torch
from captum.attr import DeepLift, DeepLiftShap
from support import normal
from torch import nn
from witness.attribution import distance
from witness.writer import to_onnx

import onnxlrp

X, ROOT = normal(4, 3, 16, 16, seed=1), normal(1, 3, 16, 16, seed=2)


def network(pool):
    torch.manual_seed(0)
    found = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), pool, nn.Conv2d(8, 12, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5),
    )  # fmt: skip
    return found.eval()


def both(net):
    """Maps by the explainer and by Captum, and how much the score is above the reference's."""
    conversion = onnxlrp.convert(to_onnx(net, torch.tensor(X)), "deeplift", reference=ROOT[0])
    ours = onnxlrp.Explainer(conversion.to_proto().SerializeToString())(X, 2)
    x, root = torch.tensor(X).double(), torch.tensor(ROOT).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lift = DeepLift(net.double())
        theirs = lift.attribute(x, baselines=root.expand_as(x), target=2).detach().numpy()
    change = (net(x) - net(root)).detach().numpy()[:, 2]
    return ours.relevance, theirs, change


def shares(relevance, change):
    return relevance.sum(axis=(1, 2, 3)) / change


def test_without_max_pooling_they_are_the_same():
    ours, theirs, change = both(network(nn.AvgPool2d(2)))
    assert distance(ours, theirs) < 1e-5
    assert np.allclose(shares(theirs, change), 1, atol=1e-4)


def test_over_several_references_they_are_the_same():
    """DeepSHAP: the mean over references, of each sample against each."""
    net, roots = network(nn.AvgPool2d(2)), normal(3, 3, 16, 16, seed=3)
    conversion = onnxlrp.convert(to_onnx(net, torch.tensor(X)), "deepshap")
    explainer = onnxlrp.Explainer(conversion.to_proto().SerializeToString())
    ours = explainer(X, 2, reference=list(roots[:, None])).relevance
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lift = DeepLiftShap(net.double())
        theirs = lift.attribute(torch.tensor(X).double(), torch.tensor(roots).double(), target=2)
    assert distance(ours, theirs.detach().numpy()) < 1e-5


def test_captums_max_pooling_does_not_conserve():
    """Its maps do not sum to the difference of scores, which is DeepLIFT's first axiom."""
    ours, theirs, change = both(network(nn.MaxPool2d(2)))
    assert shares(ours, change) == pytest.approx([1, 1, 1, 1], abs=1e-4)
    assert np.abs(shares(theirs, change) - 1).max() > 0.5
