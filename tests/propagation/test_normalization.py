"""LRN: the four treatments against eqs. 3, 7 and 15 written out."""

import numpy as np
import pytest
from support import crosses_as_defined, node, normal, operators

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
