"""torch's LSTM and GRU as torch exports them, against relevance taken back step by step in torch.

The formulas are those of Arras et al. 2017 and 2019: in h = o tanh(c), c = f c' + i g and
h = (1 - z) n + z h' gates take nothing, and what is linear shares by epsilon. All in float64.
"""

import io

import numpy as np
import onnx
import pytest
import torch
from support import close, explain, lines
from torch import nn

import onnxlrp

EPSILON = 0.01
LENGTH, FEATURES, UNITS, LAYERS = 6, 4, 5, 2


class Net(nn.Module):
    """Two layers in both directions, their mean over time, three classes."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.body = kind(FEATURES, UNITS, LAYERS, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * UNITS, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x)[0].mean(1))


def share(relevance, z):
    return relevance / (z + EPSILON * torch.where(z >= 0, 1.0, -1.0))


def lstm(x, w, r, bw, br):
    """Return h at every step, and what takes relevance of it back to x."""
    h = c = torch.zeros(len(x), UNITS).double()
    trace = []
    for step in x.unbind(1):
        zi, zf, zg, zo = (step @ w.T + h @ r.T + bw + br).chunk(4, 1)
        i, f, g = zi.sigmoid(), zf.sigmoid(), zg.tanh()
        trace.append((step, h, f * c, i * g, f * c + i * g, zg))
        c = f * c + i * g
        h = zo.sigmoid() * c.tanh()
        trace[-1] += (h,)

    def back(relevance):
        of_h = of_c = 0.0
        result = []
        for (step, before, fc, ig, c, zg, _), came in zip(
            trace[::-1], relevance.unbind(1)[::-1], strict=True
        ):
            s = share(of_c + of_h + came, c)
            t = share(ig * s, zg)
            result.append(step * (t @ w.chunk(4)[2]))
            of_h, of_c = before * (t @ r.chunk(4)[2]), fc * s
        return torch.stack(result[::-1], 1)

    return torch.stack([entry[-1] for entry in trace], 1), back


def gru(x, w, r, bw, br):
    """Return h at every step, and what takes relevance of it back to x."""
    h = torch.zeros(len(x), UNITS).double()
    trace = []
    for step in x.unbind(1):
        (ar, az, an), (cr, cz, cn) = (step @ w.T + bw).chunk(3, 1), (h @ r.T + br).chunk(3, 1)
        reset, z = (ar + cr).sigmoid(), (az + cz).sigmoid()
        pre = an + reset * cn
        n = pre.tanh()
        made = (1 - z) * n + z * h
        trace.append((step, h, (1 - z) * n, z * h, pre, reset * cn, cn, made))
        h = made

    def back(relevance):
        of_h = 0.0
        result = []
        for (step, before, fresh, kept, pre, own, cn, made), came in zip(
            trace[::-1], relevance.unbind(1)[::-1], strict=True
        ):
            s = share(of_h + came, made)
            t = share(fresh * s, pre)
            result.append(step * (t @ w.chunk(3)[2]))
            of_h = kept * s + before * (share(own * t, cn) @ r.chunk(3)[2])
        return torch.stack(result[::-1], 1)

    return torch.stack([entry[-1] for entry in trace], 1), back


def explained(net, cell, x, target):
    """Take the score of a class back to x."""
    names = ("weight_ih_l", "weight_hh_l", "bias_ih_l", "bias_hh_l")
    backs = []
    for layer in range(LAYERS):
        made = []
        for turn, end in ((False, ""), (True, "_reverse")):
            weights = (getattr(net.body, f"{name}{layer}{end}").detach() for name in names)
            h, back = cell(x.flip(1) if turn else x, *weights)
            made.append((h.flip(1) if turn else h, back, turn))
        backs.append(made)
        x = torch.cat([h for h, _, _ in made], 2)
    mean = x.mean(1)
    logits = mean @ net.head.weight.T + net.head.bias
    s = share(logits[:, target], logits[:, target])
    of_mean = mean * s[:, None] * net.head.weight[target]
    relevance = x / LENGTH * share(of_mean, mean)[:, None]
    for made in backs[::-1]:
        parts = relevance.split(UNITS, 2)
        relevance = sum(
            back(part.flip(1)).flip(1) if turn else back(part)
            for (_, back, turn), part in zip(made, parts, strict=True)
        )
    return relevance


@pytest.mark.parametrize(("kind", "cell"), [(nn.LSTM, lstm), (nn.GRU, gru)])
def test_two_layers_in_both_directions(kind, cell):
    torch.manual_seed(0)
    net = Net(kind).eval()
    x = torch.randn(3, LENGTH, FEATURES)
    file = io.BytesIO()
    torch.onnx.export(
        net,
        (x,),
        file,
        dynamo=False,
        opset_version=17,
        input_names=["x"],
        output_names=["logits"],
        dynamic_axes={"x": {0: "N"}, "logits": {0: "N"}},
    )
    proto = onnx.load_from_string(file.getvalue())
    composite = lines("*: epsilon", "*: norm", epsilon=EPSILON, stabiliser=EPSILON)
    found = explain(proto, composite, {"x": x.numpy()}, target=[2] * 3)
    wanted = explained(net.double(), cell, x.double(), 2).detach().numpy()
    close(found.values["relevance"], wanted, 1e-5)
    assert np.abs(wanted).max() > 1e-3
    assert {n.operator for n in found.conversion.nodes} >= {kind.__name__}


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_gradients_are_those_of_torch(kind):
    torch.manual_seed(0)
    net = Net(kind).eval()
    x = torch.randn(2, LENGTH, FEATURES, requires_grad=True)
    file = io.BytesIO()
    torch.onnx.export(net, (x,), file, dynamo=False, opset_version=17, input_names=["x"])
    proto = onnx.load_from_string(file.getvalue())
    found = explain(proto, onnxlrp.Composite.load("gradient"), {"x": x.detach().numpy()}, [1, 1])
    net.double()(x.double())[:, 1].sum().backward()
    close(found.values["relevance"], x.grad.numpy(), 1e-5)
