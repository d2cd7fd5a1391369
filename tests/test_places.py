"""Channels in any place: a network behind a Transpose has the map of the plain one, transposed."""

import numpy as np
import pytest
from support import close, explain, model, node, normal

import onnxlrp

SIZES = (5, 4, 3)
BOUNDS = {"low": [-4.0, -5.0], "high": [4.0, 3.0]}


def networks(rank):
    """A convolution, a normalisation that it takes, a pool, and a readout; twice."""
    size = SIZES[:rank]
    weights = {
        "w": normal(4, 2, *(3,) * rank, seed=1),
        "b": normal(4, seed=2),
        "scale": normal(4, seed=3),
        "shift": normal(4, seed=4),
        "mean": normal(4, seed=5),
        "variance": np.abs(normal(4, seed=6)) + 0.5,
        "instance": normal(4, seed=7),
        "r": normal(4, 3, seed=8),
    }
    body = [
        node("Conv", ["t", "w", "b"], "c", pads=[1] * 2 * rank),
        node("BatchNormalization", ["c", "scale", "shift", "mean", "variance"], "n"),
        node("Relu", ["n"], "a"),
        node("InstanceNormalization", ["a", "instance", "shift"], "i"),
        node("AveragePool", ["i"], "p", kernel_shape=[2] * rank),
        node("GlobalAveragePool", ["p"], "g"),
        node("Flatten", ["g"], "f"),
        node("Gemm", ["f", "r"], "logits"),
    ]
    first = [node("Identity", ["x"], "t"), *body]
    order = [0, rank + 1, *range(1, rank + 1)]
    last = [node("Transpose", ["x"], "t", perm=order), *body]
    return (
        model(first, {"x": ["N", 2, *size]}, ["logits"], weights),
        model(last, {"x": ["N", *size, 2]}, ["logits"], weights),
        order,
    )


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("composite", ["default", "deep_taylor_bounded", "epsilon_plus_flat"])
def test_channels_last(composite, rank):
    composite = onnxlrp.Composite.load(composite)
    if "low" in composite.parameters:
        composite = composite.with_parameters(BOUNDS)
    first, last, order = networks(rank)
    x = normal(2, 2, *SIZES[:rank], seed=9)
    plain = explain(first, composite, {"x": x}, target=[1, 2]).values["relevance"]
    moved = np.moveaxis(x, 1, -1)
    found = explain(last, composite, {"x": np.ascontiguousarray(moved)}, target=[1, 2])
    close(found.values["relevance"].transpose(order), plain, 1e-6)
