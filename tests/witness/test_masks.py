"""Concept-conditional relevance against zennit-crp's arithmetic, written out in torch.

zennit-crp multiplies the relevance at a layer's output by a mask over its channels, in a hook on
the gradient that zennit's rules have made relevance, and goes on.
"""

import copy

import numpy as np
import pytest
import torch
from support import normal, run
from torch import nn
from witness.attribution import classes_of, distance
from witness.writer import to_onnx
from zennit.attribution import Gradient
from zennit.composites import EpsilonAlpha2Beta1, EpsilonPlusFlat

import onnxlrp


class Masking(torch.autograd.Function):
    """Hands values on, and multiplies what comes back."""

    @staticmethod
    def forward(context, x, mask):
        context.mask = mask
        return x.clone()

    @staticmethod
    def backward(context, relevance):
        return relevance * context.mask, None


class Masked(nn.Module):
    """A layer's output, masked as by zennit-crp."""

    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def forward(self, x):
        return Masking.apply(x, self.mask)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 9, 5),
    ).eval()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("epsilon_plus_flat", EpsilonPlusFlat), ("epsilon_alpha2_beta1", EpsilonAlpha2Beta1)],
)
@pytest.mark.parametrize("channel", [0, 5])
def test_a_channel_as_concept(ours, theirs, channel):
    model, x = network(), normal(4, 3, 8, 8, seed=1)
    classes = classes_of(model, x)
    mask = np.zeros((1, 8, 1, 1), np.float32)
    mask[0, channel] = 1

    masked = copy.deepcopy(model).double()
    masked.insert(2, Masked(torch.tensor(mask)))

    def start(scores):
        return (nn.functional.one_hot(torch.tensor(classes), 5) * scores).detach()

    with Gradient(masked, theirs()) as attributor:
        wanted = attributor(torch.tensor(x, dtype=torch.float64), start)[1].detach().numpy()

    proto = to_onnx(model, torch.tensor(x))
    value = next(node.output[0] for node in proto.graph.node if node.op_type == "Relu")
    explainer = onnxlrp.convert(proto, ours, masks=[value]).to_proto()
    feeds = {proto.graph.input[0].name: x, "target": np.array(classes), f"mask_{value}": mask}
    assert distance(run(explainer, feeds)["relevance"], wanted) <= 1e-5
