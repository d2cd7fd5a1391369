"""LRN: the treatments against eqs. 3, 7 and 15 written out; windows in space and over weights."""

import numpy as np
import pytest
from support import close, crosses_as_defined, explain, lines, model, node, normal, operators, run

from onnxlrp.reference.normalization import cross_divisive

TREATMENTS = [
    "taylor", "identity", "taylor-unnormalised", "path-integral", "taylor-2", "gradient",
]  # fmt: skip
SETTINGS = {
    "caffe": {"size": 5, "alpha": 0.5, "beta": 0.75, "bias": 1.0},
    "strong": {"size": 3, "alpha": 5.0, "beta": 1.0, "bias": 0.1},
    "bias 2": {"size": 5, "alpha": 0.3, "beta": 0.5, "bias": 2.0},
    "window over all": {"size": 19, "alpha": 1.0},
    "single": {"size": 1, "alpha": 1.0},
}


@pytest.mark.parametrize("spread", [False, True])
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("treatment", TREATMENTS)
def test_treatments(treatment, setting, spread):
    tested = node("LRN", ["x"], **SETTINGS[setting])
    crosses_as_defined(tested, normal(2, 9, 3, 2), treatment, spread=spread)


@pytest.mark.parametrize("treatment", TREATMENTS)
def test_zeros_take_the_limit(treatment):
    """At x_k = 0 eq. 7 is 0/0; most activations behind a ReLU are 0."""
    x = np.maximum(normal(2, 9, 3, 3), 0)
    tested = node("LRN", ["x"], size=5, alpha=1.0)
    crosses_as_defined(tested, x, treatment, spread=True)
    crosses_as_defined(tested, np.zeros_like(x), treatment, spread=True)


def test_taylor_conserves():
    x = normal(1, 16, 4, 4)
    tested = node("LRN", ["x"], size=5, alpha=2.0)
    explained = crosses_as_defined(tested, x, "taylor", spread=True)
    outgoing, incoming = explained.relevance("y"), explained.values["relevance"]
    assert abs(incoming.sum() - outgoing.sum()) <= 1e-5 * np.abs(outgoing).sum()


def test_no_division_by_the_activation():
    """x_k is cancelled: the only division is by 1 - Q, which is never small."""
    tested = node("LRN", ["x"], size=5, alpha=2.0)
    explained = crosses_as_defined(tested, normal(1, 8, 3, 3), "taylor")
    assert operators(explained.proto, "node_y").count("Div") == 3


def pooled(**attributes):
    return node("AveragePool", ["squares"], "sums", kernel_shape=[3, 3], **attributes)


RELATIVES = {
    "within channels": ([pooled(pads=[1, 1, 1, 1], count_include_pad=1)], {}),
    "within channels, counted": ([pooled(pads=[1, 1, 1, 1])], {}),
    "weighted channels": (
        [node("Conv", ["squares", "gamma", "floor"], "sums")],
        {"gamma": np.abs(normal(4, 4, 1, 1, seed=4)), "floor": np.abs(normal(4, seed=5))},
    ),
    "weighted in space": (
        [node("Conv", ["squares", "gamma"], "sums", pads=[1, 1, 1, 1], group=2)],
        {"gamma": np.abs(normal(4, 2, 3, 3, seed=4))},
    ),
}


def relative(kind, ending):
    """Squares, summed over a window, times 2 and 1 more, and what is divided by their power."""
    window, weights = RELATIVES[kind]
    factor = {"alpha": np.float32(2), "one": np.float32(1), "beta": np.float32(0.75)}
    endings = {
        "Div": [node("Pow", ["base", "beta"], "power"), node("Div", ["x", "power"])],
        "Mul": [
            node("Neg", ["beta"], "minus"),
            node("Pow", ["base", "minus"], "power"),
            node("Mul", ["power", "x"]),
        ],
    }
    body = [
        node("Mul", ["x", "x"], "squares"),
        *window,
        node("Mul", ["sums", "alpha"], "scaled"),
        node("Add", ["one", "scaled"], "base"),
        *endings[ending],
    ]
    return body, {**weights, **factor}


def explained_relative(body, weights, rule, x):
    features = int(np.prod(x.shape[1:]))
    end = [node("Reshape", ["y", "rows"], "flat"), node("Gemm", ["flat", "readout"], "logits")]
    weights = {
        **weights,
        "rows": np.array([-1, features], np.int64),
        "readout": normal(features, 3, seed=7),
    }
    proto = model([*body, *end], {"x": ["N", *x.shape[1:]]}, ["logits"], weights)
    composite = lines(f"LRN: {rule}", "Gemm: epsilon")
    return explain(proto, composite, {"x": x}, target=[1] * len(x), inside=["y"])


def window_weights(kind, shape):
    """The sum of squares of each element as a matrix: what a unit at each place adds to it."""
    window, weights = RELATIVES[kind]
    units = np.eye(int(np.prod(shape)), dtype=np.float32).reshape(-1, *shape)
    proto = model(window, {"squares": ["N", *shape]}, ["sums"], weights)
    zero = np.zeros((1, *shape), np.float32)
    bias = run(proto, {"squares": zero})["sums"]
    sums = run(proto, {"squares": units})["sums"] - bias
    return 2 * sums.reshape(len(units), -1).T.astype(float), 1 + 2 * bias.reshape(-1)


@pytest.mark.parametrize("ending", ["Div", "Mul"])
@pytest.mark.parametrize("kind", RELATIVES)
def test_relatives(kind, ending):
    """Caffe's normalisation within channels, and GDN's over weighted ones, by the same rule."""
    x = normal(2, 4, 5, 3, seed=1)
    explained = explained_relative(*relative(kind, ending), "taylor", x)
    assert explained.conversion.nodes[0].operator == "LRN"
    c, bias = window_weights(kind, x.shape[1:])
    relevance = explained.relevance("y").reshape(2, -1).astype(float)
    wanted = cross_divisive(x.reshape(2, -1).astype(float), c, bias, 0.75, relevance)
    close(explained.values["relevance"], wanted.reshape(x.shape))


@pytest.mark.parametrize("treatment", TREATMENTS)
def test_treatments_of_relatives(treatment):
    """A window of one channel's own weight is LRN of size 1 for every treatment."""
    x = normal(2, 4, 5, 3, seed=1)
    body, weights = relative("weighted channels", "Div")
    weights |= {
        "gamma": np.eye(4, dtype=np.float32)[:, :, None, None],
        "floor": np.zeros(4, np.float32),
    }
    alike = [node("LRN", ["x"], size=1, alpha=2.0, beta=0.75, bias=1.0)]
    window = explained_relative(body, weights, treatment, x)
    single = explained_relative(alike, {}, treatment, x)
    close(window.values["relevance"], single.values["relevance"])


@pytest.mark.parametrize("gamma", [-0.5, None])
def test_windows_that_are_none(gamma):
    """Negative weights, or such that are computed, make a gate of it, whose divisor is fixed."""
    x = normal(2, 4, 5, 3, seed=1)
    body, weights = relative("weighted channels", "Div")
    weights["floor"] = np.full(4, 9, np.float32)
    if gamma is None:
        body[1] = node("Conv", ["squares", "drawn", "floor"], "sums")
        shape = {"shape": np.array([4, 4, 1, 1], np.int64), "first": np.zeros(1, np.int64)}
        weights |= shape
        body.insert(1, node("ReduceMean", ["squares"], "mean", keepdims=1))
        body.insert(2, node("Expand", ["mean", "shape"], "drawn"))
    else:
        weights["gamma"] = np.full((4, 4, 1, 1), gamma, np.float32)
    explained = explained_relative(body, weights, "taylor", x)
    assert explained.conversion.nodes[0].operator == "Gate"
