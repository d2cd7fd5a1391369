"""Where relevance starts: the logits behind probabilities, however those are spelt."""

import numpy as np
import pytest
from support import close, explain, lines, model, node, normal

import onnxlrp
from onnxlrp import audit, reference

EPSILON = lines("*: epsilon")
X = normal(8, 6, seed=1)
W = {"w": normal(6, 5, seed=2), "v": normal(5, 4, seed=3), "u": normal(5, 1, seed=4)}
BODY = [node("Gemm", ["x", "w"], "h"), node("Relu", ["h"], "a")]
ONE = np.ones(1, np.float32)

WRITTEN_OUT = {
    "softmax": [
        node("Exp", ["logits"], "e"),
        node("ReduceSum", ["e", "axis"], "s"),
        node("Div", ["e", "s"], "out"),
    ],
    "softmax of what is left of the largest": [
        node("ReduceMax", ["logits", "axis"], "m"),
        node("Sub", ["logits", "m"], "d"),
        node("Exp", ["d"], "e"),
        node("ReduceSum", ["e", "axis"], "s"),
        node("Div", ["e", "s"], "out"),
    ],
    "log of a softmax": [node("Softmax", ["logits"], "p", axis=1), node("Log", ["p"], "out")],
}


@pytest.mark.parametrize("head", WRITTEN_OUT)
def test_a_softmax_that_is_written_out_is_set_aside(head):
    body = [*BODY, node("Gemm", ["a", "v"], "logits"), *WRITTEN_OUT[head]]
    used = {name for one in body for name in one.input}
    weights = {"w": W["w"], "v": W["v"], "axis": np.array([1])}
    weights = {name: array for name, array in weights.items() if name in used}
    proto = model(body, {"x": ["N", 6]}, ["out"], weights)
    conversion = onnxlrp.convert(proto, EPSILON)
    assert conversion.score == "logits"
    assert conversion.warnings == ()


def binary(swapped=False):
    columns = ["p", "q"] if swapped else ["q", "p"]
    body = [
        *BODY,
        node("Gemm", ["a", "u"], "z"),
        node("Sigmoid", ["z"], "p"),
        node("Sub", ["one", "p"], "q"),
        node("Concat", columns, "out", axis=1),
    ]
    return model(body, {"x": ["N", 6]}, ["out"], {"w": W["w"], "u": W["u"], "one": ONE})


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("target", [0, 1])
def test_class_0_of_a_sigmoid_speaks_for_minus_z(target, swapped):
    """Of the columns 1 - sigmoid(z) and sigmoid(z) the first has the score -z."""
    proto = binary(swapped)
    explained = explain(proto, EPSILON, {"x": X}, target=[target] * 8)
    rule = ("epsilon", {"epsilon": 1e-6, "bias": "absorb", "power": 1})
    single = model(proto.graph.node[:3], {"x": ["N", 6]}, ["z"], {"w": W["w"], "u": W["u"]})
    of_z = reference.explain(single, {"x": X}, lambda _: rule, ["x"], "z", 0)["x"]
    close(explained.values["relevance"], of_z if (target == 1) != swapped else -of_z)


def test_the_best_class_of_a_sigmoid_is_that_of_its_sign():
    explained = explain(binary(), EPSILON, {"x": X})
    z = np.maximum(X @ W["w"], 0) @ W["u"]
    sums = explained.values["relevance"].sum(axis=1)
    np.testing.assert_allclose(sums, np.abs(z[:, 0]), rtol=1e-3)


def test_the_audit_starts_where_the_explainer_does():
    proto = binary()
    conversion = onnxlrp.convert(proto, EPSILON)
    found = audit.check(proto, conversion.to_proto(), {"x": X}, target=0)
    assert found.passed
    assert found.start < 1e-6


def test_the_explainer_knows_two_classes():
    explainer = onnxlrp.Explainer(onnxlrp.convert(binary(), EPSILON).to_proto().SerializeToString())
    assert explainer.classes == 2
    with pytest.raises(onnxlrp.InputError, match="2 is not a class"):
        explainer(X, target=2)


def test_a_softmax_over_pairs_is_not_the_classes():
    """[N, 10] seen as pairs: the score is what the model puts out, and it says so."""
    weights = {
        "w": W["w"],
        "v": normal(5, 10, seed=3),
        "pairs": np.array([-1, 2]),
        "back": np.array([-1, 10]),
    }
    body = [
        *BODY,
        node("Gemm", ["a", "v"], "logits"),
        node("Reshape", ["logits", "pairs"], "r"),
        node("Softmax", ["r"], "p", axis=1),
        node("Reshape", ["p", "back"], "out"),
    ]
    conversion = onnxlrp.convert(model(body, {"x": ["N", 6]}, ["out"], weights), EPSILON)
    assert conversion.score == "out"
    assert any("like a probability" in warning for warning in conversion.warnings)
