"""Normalisation by mean and deviation, the deviation held fixed, against the definition."""

import numpy as np
import pytest
from support import EXACT, close, crosses_as_defined, node, normal

NORMALISATIONS = {
    "layer": ("LayerNormalization", (2, 3, 6), (6,), {}),
    "layer over two axes": ("LayerNormalization", (2, 3, 6), (3, 6), {"axis": 1}),
    "rms": ("RMSNormalization", (2, 3, 6), (6,), {}),
    "instance": ("InstanceNormalization", (2, 3, 4, 3), (3,), {}),
    "instance 1-D": ("InstanceNormalization", (2, 3, 8), (3,), {}),
    "groups": ("GroupNormalization", (2, 4, 3, 3), (4,), {"num_groups": 2}),
    "moments": ("MeanVarianceNormalization", (2, 3, 4, 3), None, {"axes": [0, 2, 3]}),
    "unit length": ("LpNormalization", (2, 3, 5), None, {"axis": 1}),
}
RULES = [
    ("epsilon", {}),
    ("epsilon", {"bias": "exclude"}),
    ("epsilon", {"bias": "distribute"}),
    ("z-plus", {}),
    ("alpha-beta", {}),
    ("gamma", {"gamma": 0.5}),
    ("flat", {}),
    ("w-square", {}),
    ("z-box", {"low": -3, "high": 3}),
    ("pass", {}),
    ("taylor", {}),
    ("taylor", {"bias": "exclude"}),
    ("taylor", {"bias": "distribute"}),
]


def case(kind):
    operator, shape, factors, attributes = NORMALISATIONS[kind]
    weights = {}
    if factors is not None:
        weights["scale"] = normal(*factors, seed=1)
        if operator != "RMSNormalization":
            weights["bias"] = normal(*factors, seed=2)
    return node(operator, ["x", *weights], **attributes), normal(*shape, seed=3) + 0.3, weights


@pytest.mark.parametrize(("rule", "parameters"), RULES, ids=str)
@pytest.mark.parametrize("kind", NORMALISATIONS)
def test_every_rule(kind, rule, parameters):
    what, x, weights = case(kind)
    opset = 23 if kind == "rms" else 21
    # A sum over all others is a difference, which loses digits beside an output without
    # contributions, whose relevance is divided by the stabiliser alone.
    loose = "instance" in kind and rule in ("z-plus", "alpha-beta")
    tolerance = 5e-4 if loose else EXACT
    x = x.astype(np.float32)
    crosses_as_defined(what, x, rule, weights, opset=opset, tolerance=tolerance, **parameters)


@pytest.mark.parametrize("kind", ["layer", "instance", "groups"])
def test_symbolic_sizes(kind):
    what, x, weights = case(kind)
    symbolic = [0, 1] if kind == "layer" else [0, 2, 3]
    crosses_as_defined(what, x.astype(np.float32), "epsilon", weights, symbolic=symbolic, opset=21)


@pytest.mark.parametrize("kind", NORMALISATIONS)
def test_taylor_conserves_without_biases(kind):
    what, x, weights = case(kind)
    weights.pop("bias", None)
    if kind not in ("rms", "moments", "unit length"):
        weights["bias"] = np.zeros_like(weights["scale"])
    opset = 23 if kind == "rms" else 21
    explained = crosses_as_defined(what, x.astype(np.float32), "taylor", weights, opset=opset)
    outgoing, incoming = explained.relevance("y"), explained.values["relevance"]
    assert abs(incoming.sum() - outgoing.sum()) <= 1e-4 * np.abs(outgoing).sum()


def test_taylor_is_that_of_lrn():
    """x / |x| along the channels is LRN with a window over all, beta 1/2 and hardly a bias."""
    x = normal(2, 5, 3, 3, seed=3)
    unit = crosses_as_defined(node("LpNormalization", ["x"], axis=1), x, "taylor")
    same = node("LRN", ["x"], size=9, alpha=9.0, beta=0.5, bias=1e-12)
    response = crosses_as_defined(same, x, "taylor")
    close(unit.values["relevance"], response.values["relevance"], 1e-4)


def test_a_vector_of_zeros_has_no_relevance():
    x = normal(2, 3, 5, seed=3)
    x[0, :, 2] = 0
    explained = crosses_as_defined(node("LpNormalization", ["x"], axis=1), x, "taylor")
    assert not explained.values["relevance"][0, :, 2].any()
