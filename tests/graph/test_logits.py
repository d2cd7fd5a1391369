"""Probabilities in every spelling: relevance starts from the logits, or it is said that not."""

import numpy as np
import pytest
from onnx import helper
from support import explain, lines, model, node, normal, run

import onnxlrp
from onnxlrp import audit
from onnxlrp.errors import ModelError

EPSILON = lines("*: epsilon epsilon=1e-7")
X = normal(8, 6, seed=1)
W, V, U = normal(6, 5, seed=2), normal(5, 4, seed=3), normal(5, 1, seed=4)
NUMBERS = {
    "axis": np.array([1]),
    "zero": np.array([0]),
    "one": np.float32(1),
    "minus": np.float32(-1),
    "half": np.float32(0.5),
    "two": np.float32(2),
    "small": np.float32(1e-7),
    "most": np.float32(1 - 1e-7),
    "few": np.float32(0.02),
    "root": np.float32(2**-0.5),
    "euler": np.float32(np.e),
    "none": np.float32([[0.0]]),
    "turn": np.float32([[-1, 1]]),
    "begin": np.float32([[1, 0]]),
    "groups": np.float32([[1, 0], [1, 0], [0, 1], [0, 1]]),
    "front": np.array([0, 1, 0, 0]),
    "uneven": normal(1, 4, seed=5) ** 2,
    "flat": np.array([-1]),
    "column": np.array([-1, 1]),
    "two_of": np.array([2]),
}
BODY = [node("Gemm", ["x", "w"], "h"), node("Relu", ["h"], "a"), node("Gemm", ["a", "v"], "z")]
SHARE = [node("ReduceSum", ["e", "axis"], "s"), node("Div", ["e", "s"], "y")]


def built(head, last=V, outputs=("y",)):
    """Put a head on [N, 4] scores z, or on another number of them, without any bias."""
    body = [*BODY, *head]
    used = {name for one in body for name in one.input}
    weights = {name: array for name, array in NUMBERS.items() if name in used}
    return model(body, {"x": ["N", 6]}, [*outputs], {"w": W, "v": last, **weights})


def sums(proto, target, feeds=X, **options):
    """Return what relevance adds up to, of each sample, for one class."""
    explained = explain(proto, EPSILON, {"x": feeds}, target=[target] * len(feeds), **options)
    return explained.values["relevance"].sum(axis=1), explained.conversion


def logits(last=V):
    return (np.maximum(X.astype(np.float64) @ W, 0) @ last).astype(np.float64)


MANY = {
    "Softmax": [node("Softmax", ["z"], axis=1)],
    "one against rest of scikit-learn": [
        node("Sigmoid", ["z"], "p"),
        node("ReduceSum", ["p", "axis"], "s"),
        node("Cast", ["s"], "some", to=9),
        node("Not", ["some"], "empty"),
        node("Cast", ["empty"], "guard", to=1),
        node("Add", ["p", "guard"], "q"),
        node("Mul", ["guard", "two"], "mask"),
        node("Add", ["s", "mask"], "t"),
        node("Div", ["q", "t"]),
    ],
    "naive Bayes": [
        node("ReduceLogSumExp", ["z", "axis"], "s", keepdims=0),
        node("Reshape", ["s", "column"], "total"),
        node("Sub", ["z", "total"], "d"),
        node("Exp", ["d"]),
    ],
    "LogSoftmax": [node("LogSoftmax", ["z"], axis=1)],
    "Sigmoid of each": [node("Sigmoid", ["z"])],
    "sigmoid of a negation that belongs to the layer": [
        node("Mul", ["z", "minus"], "n"),
        node("Exp", ["n"], "e"),
        node("Add", ["e", "one"], "f"),
        node("Reciprocal", ["f"]),
    ],
    "exp over its sum": [node("Exp", ["z"], "e"), *SHARE],
    "e to the power of z": [node("Pow", ["euler", "z"], "p"), node("ReduceSum", ["p", "axis"], "s"),
                            node("Div", ["p", "s"])],
    "times the reciprocal": [node("Exp", ["z"], "e"), node("ReduceSum", ["e", "axis"], "s"),
                             node("Reciprocal", ["s"], "r"), node("Mul", ["e", "r"])],
    "times the power -1": [node("Exp", ["z"], "e"), node("ReduceSum", ["e", "axis"], "s"),
                           node("Pow", ["s", "minus"], "r"), node("Mul", ["e", "r"])],
    "less the maximum": [node("ReduceMax", ["z", "axis"], "m"), node("Sub", ["z", "m"], "d"),
                         node("Exp", ["d"], "e"), *SHARE],
    "less the maximum, axes dropped": [
        node("ReduceMax", ["z", "axis"], "n", keepdims=0), node("Unsqueeze", ["n", "axis"], "m"),
        node("Sub", ["z", "m"], "d"), node("Exp", ["d"], "e"),
        node("ReduceSum", ["e", "axis"], "t", keepdims=0), node("Unsqueeze", ["t", "axis"], "s"),
        node("Div", ["e", "s"])],
    "over an expanded sum": [
        node("Exp", ["z"], "e"), node("ReduceSum", ["e", "axis"], "s"), node("Shape", ["e"], "k"),
        node("Expand", ["s", "k"], "t"), node("Div", ["e", "t"])],
    "less the logarithm of a sum": [
        node("Exp", ["z"], "e"), node("ReduceSum", ["e", "axis"], "s"), node("Log", ["s"], "l"),
        node("Sub", ["z", "l"])],
    "less ReduceLogSumExp": [node("ReduceLogSumExp", ["z", "axis"], "l"), node("Sub", ["z", "l"])],
    "exp of that": [node("ReduceLogSumExp", ["z", "axis"], "l"), node("Sub", ["z", "l"], "d"),
                    node("Exp", ["d"])],
    "Log of Softmax": [node("Softmax", ["z"], "p", axis=1), node("Log", ["p"])],
    "Log of what is kept from 0": [
        node("Softmax", ["z"], "p", axis=1), node("Add", ["p", "small"], "q"), node("Log", ["q"])],
    "clipped": [node("Softmax", ["z"], "p", axis=1), node("Clip", ["p", "small", "most"])],
    "smoothed": [node("Softmax", ["z"], "p", axis=1), node("Mul", ["p", "half"], "q"),
                 node("Add", ["few", "q"])],
    "of a softmax": [node("Softmax", ["z"], "p", axis=1), node("Softmax", ["p"], axis=1)],
    "of sigmoids": [node("Sigmoid", ["z"], "p"), node("Softmax", ["p"], axis=1)],
    "sigmoids over their sum": [node("Sigmoid", ["z"], "e"), *SHARE],
    "evidence over its sum": [node("Softplus", ["z"], "p"), node("Add", ["p", "one"], "e"), *SHARE],
    "1 / (1 + exp(-z))": [node("Neg", ["z"], "n"), node("Exp", ["n"], "e"),
                          node("Add", ["e", "one"], "s"), node("Reciprocal", ["s"])],
    "1 divided": [node("Neg", ["z"], "n"), node("Exp", ["n"], "e"),
                  node("Add", ["one", "e"], "s"), node("Div", ["one", "s"])],
    "exp / (1 + exp)": [node("Exp", ["z"], "e"), node("Add", ["e", "one"], "s"),
                        node("Div", ["e", "s"])],
    "half a tanh": [node("Tanh", ["z"], "t"), node("Add", ["t", "one"], "u"),
                    node("Div", ["u", "two"])],
    "probit": [node("Mul", ["z", "root"], "r"), node("Erf", ["r"], "f"),
               node("Add", ["f", "one"], "u"), node("Mul", ["half", "u"])],
    "log of a sigmoid": [node("Neg", ["z"], "n"), node("Softplus", ["n"], "p"),
                         node("Neg", ["p"])],
    "1 - exp(-exp)": [node("Exp", ["z"], "e"), node("Neg", ["e"], "n"), node("Exp", ["n"], "f"),
                      node("Sub", ["one", "f"])],
    "1 - sigmoid(-z)": [node("Neg", ["z"], "n"), node("Sigmoid", ["n"], "p"),
                        node("Sub", ["one", "p"])],
    "HardSigmoid": [node("HardSigmoid", ["z"])],
    "renormalised": [node("Softmax", ["z"], "e", axis=1), *SHARE],
    "logits": [node("Identity", ["z"])],
}  # fmt: skip


@pytest.mark.parametrize("head", MANY)
def test_the_logit_of_each_class(head):
    """What is a constant times the logit before it is squashed is as good as the logit."""
    wanted = logits()
    for target in (0, 3):
        found, conversion = sums(built(MANY[head]), target)
        scale = 2**-0.5 if conversion.score == "r" else 1
        np.testing.assert_allclose(found, wanted[:, target] * scale, rtol=2e-3, atol=2e-4)
        assert conversion.warnings == ()


P = node("Sigmoid", ["z"], "p")
PAIR = {
    "1 - p and p": [P, node("Sub", ["one", "p"], "q"), node("Concat", ["q", "p"], axis=1)],
    "sigmoids of -z and z": [
        node("Neg", ["z"], "n"), node("Sigmoid", ["n"], "q"), P,
        node("Concat", ["q", "p"], axis=1)],
    "-p + 1 and p": [P, node("Neg", ["p"], "n"), node("Add", ["n", "one"], "q"),
                     node("Concat", ["q", "p"], axis=1)],
    "stacked": [
        P, node("Squeeze", ["p", "axis"], "f"), node("Sub", ["one", "f"], "g"),
        node("Unsqueeze", ["g", "axis"], "q"), node("Unsqueeze", ["f", "axis"], "r"),
        node("Concat", ["q", "r"], axis=1)],
    "gathered": [
        P, node("Gather", ["p", "zero"], "f", axis=1), node("Sub", ["one", "f"], "q"),
        node("Concat", ["q", "f"], axis=1)],
    "reshaped": [
        P, node("Reshape", ["p", "flat"], "f"), node("Sub", ["one", "f"], "g"),
        node("Reshape", ["g", "column"], "q"), node("Concat", ["q", "p"], axis=1)],
    "both at once": [P, node("Mul", ["p", "turn"], "t"), node("Add", ["t", "begin"])],
    "with its logarithm": [P, node("Sub", ["one", "p"], "q"),
                           node("Concat", ["q", "p"], "c", axis=1), node("Log", ["c"])],
    "written out": [
        node("Neg", ["z"], "n"), node("Exp", ["n"], "e"), node("Add", ["e", "one"], "s"),
        node("Div", ["one", "s"], "p"), node("Sub", ["one", "p"], "q"),
        node("Concat", ["q", "p"], axis=1)],
    "probit": [
        node("Mul", ["z", "root"], "r"), node("Erf", ["r"], "f"), node("Add", ["f", "one"], "u"),
        node("Mul", ["half", "u"], "p"), node("Sub", ["one", "p"], "q"),
        node("Concat", ["q", "p"], axis=1)],
    "softmax of 0 and z": [
        node("Shape", ["z"], "k"), node("ConstantOfShape", ["k"], "o"),
        node("Concat", ["o", "z"], "c", axis=1), node("Softmax", ["c"], axis=1)],
    "softmax of 0, expanded, and z": [
        node("Shape", ["z"], "k"), node("Expand", ["none", "k"], "o"),
        node("Concat", ["o", "z"], "c", axis=1), node("Softmax", ["c"], axis=1)],
    "softmax of padded z": [node("Pad", ["z", "front"], "c"), node("Softmax", ["c"], axis=1)],
    "softmax of -z and z": [
        node("Neg", ["z"], "n"), node("Concat", ["n", "z"], "c", axis=1),
        node("Softmax", ["c"], axis=1)],
}  # fmt: skip


@pytest.mark.parametrize("head", PAIR)
def test_class_0_of_two_columns_speaks_for_minus_z(head):
    proto = built(PAIR[head], U)
    scale = 2**-0.5 if head == "probit" else 1
    for target, sign in ((0, -1), (1, 1)):
        found, conversion = sums(proto, target)
        np.testing.assert_allclose(found, sign * scale * logits(U)[:, 0], rtol=2e-3, atol=2e-4)
        assert conversion.warnings == ()
    explained = explain(proto, EPSILON, {"x": X})
    best = run(proto, {"x": X})["y"].argmax(axis=1)
    signs = np.where(best == 1, 1, -1)
    top = explained.values["relevance"].sum(axis=1)
    np.testing.assert_allclose(top, signs * scale * logits(U)[:, 0], rtol=2e-3, atol=2e-4)


SINGLE = {
    "[N, 1]": [node("Sigmoid", ["z"])],
    "[N]": [node("Sigmoid", ["z"], "p"), node("Squeeze", ["p", "axis"])],
    "[N] of [N]": [node("Squeeze", ["z", "axis"], "f"), node("Sigmoid", ["f"])],
    "1 - p": [node("Neg", ["z"], "n"), node("Sigmoid", ["n"], "p"), node("Sub", ["one", "p"])],
    "no probability": [node("Squeeze", ["z", "axis"])],
}  # fmt: skip


@pytest.mark.parametrize("head", SINGLE)
def test_a_single_score_is_its_logit(head):
    found, conversion = sums(built(SINGLE[head], U), 0)
    np.testing.assert_allclose(found, logits(U)[:, 0], rtol=2e-3, atol=2e-4)
    assert conversion.warnings == ()


def test_a_temperature_is_part_of_the_logit():
    """Of softmax(z / 2), z / 2 is explained: half of the map of z, and the same picture."""
    head = [node("Div", ["z", "two"], "t"), node("Softmax", ["t"], axis=1)]
    found, conversion = sums(built(head), 3)
    assert conversion.score == "t"
    np.testing.assert_allclose(found, logits()[:, 3] / 2, rtol=2e-3, atol=2e-4)


def test_the_score_of_a_cosine_head_is_the_scaled_cosine():
    """s x / |x| w / |w| in front of a softmax."""
    head = [
        node("ReduceL2", ["a", "axis"], "n"), node("Div", ["a", "n"], "u"),
        node("MatMul", ["u", "v"], "c"), node("Mul", ["c", "two"], "s"),
        node("Softmax", ["s"], axis=1)]  # fmt: skip
    unit = V / np.linalg.norm(V, axis=0)
    body = [*BODY[:2], *head]
    proto = model(
        body, {"x": ["N", 6]}, ["y"], {"w": W, "v": unit, "axis": NUMBERS["axis"],
                                       "two": NUMBERS["two"]}
    )  # fmt: skip
    found, conversion = sums(proto, 2)
    a = np.maximum(X.astype(np.float64) @ W, 0)
    assert conversion.score == "s"
    assert conversion.warnings == ()
    wanted = 2 * (a / np.linalg.norm(a, axis=1, keepdims=True)) @ unit[:, 2]
    np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=2e-4)


def test_a_mean_of_logits_is_explained_as_the_logits():
    head = [
        node("Gemm", ["h", "v"], "c"),
        node("Mean", ["z", "c"], "m"),
        node("Softmax", ["m"], axis=1),
    ]
    found, conversion = sums(built(head), 1)
    assert conversion.score == "m"
    wanted = (logits() + X.astype(np.float64) @ W @ V)[:, 1] / 2
    np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=2e-4)


NO_LOGIT = {
    "a mean of softmaxes": [
        node("Gemm", ["h", "v"], "c"), node("Softmax", ["z"], "p", axis=1),
        node("Softmax", ["c"], "q", axis=1), node("Mean", ["p", "q"])],
    "half the sum of softmaxes": [
        node("Gemm", ["h", "v"], "c"), node("Softmax", ["z"], "p", axis=1),
        node("Softmax", ["c"], "q", axis=1), node("Add", ["p", "q"], "s"),
        node("Mul", ["s", "half"])],
    "mixed with what differs": [
        node("Softmax", ["z"], "p", axis=1), node("Add", ["p", "uneven"])],
    "coarse classes of fine ones": [
        node("Softmax", ["z"], "p", axis=1), node("MatMul", ["p", "groups"])],
    "a class within a class": [
        node("Softmax", ["z"], "p", axis=1), node("Gemm", ["h", "v"], "c"),
        node("Sigmoid", ["c"], "q"), node("Mul", ["p", "q"])],
    "a softmax of two at a time": [
        node("Split", ["z"], "l", axis=1, num_outputs=2), node("Softmax", ["l"], "p", axis=1),
        node("Softmax", ["r"], "q", axis=1), node("Concat", ["p", "q"], axis=1)],
}  # fmt: skip
NO_LOGIT["a softmax of two at a time"][0].output.append("r")


@pytest.mark.parametrize("head", NO_LOGIT)
def test_it_is_said_where_relevance_starts_from_a_probability(head):
    (warning,) = onnxlrp.convert(built(NO_LOGIT[head]), EPSILON).warnings
    assert warning.startswith("relevance starts from 'y', which lies between two numbers like a")


LABELS = {
    "ArgMax": ([node("Softmax", ["z"], "p", axis=1), node("ArgMax", ["p"], "y", axis=1)], "p"),
    "labels looked up": (
        [node("ArgMax", ["z"], "i", axis=1, keepdims=0), node("Gather", ["front", "i"])],
        "z",
    ),
    "TopK": ([helper.make_node("TopK", ["z", "two_of"], ["y", "i"], axis=1, name="top")], "z"),
    "TopK, places": ([helper.make_node("TopK", ["z", "two_of"], ["t", "y"], axis=1)], "z"),
}


@pytest.mark.parametrize("head", LABELS)
def test_a_model_without_scores_says_which_value_to_explain(head):
    nodes, value = LABELS[head]
    proto = built(nodes)
    with pytest.raises(ModelError, match=f"convert with --output {value} to explain") as caught:
        onnxlrp.convert(proto, EPSILON)
    assert "\n" not in str(caught.value)
    found, conversion = sums(proto, 3, output=value)
    np.testing.assert_allclose(found, logits()[:, 3], rtol=2e-3, atol=2e-4)
    written = ["scores"] * (value == "p")
    assert [name for name, *_ in conversion.outputs] == ["y", value, "relevance", *written]
    audited = audit.check(proto, conversion.to_proto(), {"x": X}, target=3)
    assert audited.passed


def test_a_value_inside_that_does_not_exist_is_no_output():
    with pytest.raises(ModelError, match="no output 'q', and computes no value of that name"):
        onnxlrp.convert(built([node("Softmax", ["z"], axis=1)]), EPSILON, output="q")


def test_the_largest_scores_are_explained_where_they_are_named():
    """Class 0 is then whichever scores best."""
    found, _ = sums(built(LABELS["TopK"][0]), 0, output="y")
    np.testing.assert_allclose(found, logits().max(axis=1), rtol=2e-3, atol=2e-4)
