"""Explainers whose derived weights are written out are the same explainers."""

import numpy as np
import pytest
from support import close, explain, lines, model, node, normal

import onnxlrp
from onnxlrp import audit

X = normal(2, 4, 6, 6, seed=1)


def network():
    weights = {
        "k": normal(4, 3, 3, 3, seed=2),
        "b": normal(6, seed=3),
        "c": normal(4, 2, 3, 3, seed=4),
        "d": normal(4, seed=5),
        "v": normal(400, 3, seed=6),
    }
    body = [
        node("ConvTranspose", ["x", "k", "b"], "t", group=2, strides=[2, 2]),
        node("Relu", ["t"], "a"),
        node("Conv", ["a", "c", "d"], "z", group=2, strides=[1, 1], pads=[0, 0, 0, 0]),
        node("Relu", ["z"], "r"),
        node("AveragePool", ["r"], "p", kernel_shape=[2, 2]),
        node("Flatten", ["p"], "f"),
        node("Gemm", ["f", "v"], "logits"),
    ]
    weights["c"] = normal(4, 3, 3, 3, seed=4)
    return model(body, {"x": ["N", 4, 6, 6]}, ["logits"], weights)


COMPOSITES = {
    "default": onnxlrp.Composite.load("default"),
    "flat": lines("Conv: flat", "ConvTranspose: flat", "*: epsilon"),
    "alpha-beta": lines("Conv,ConvTranspose: alpha-beta bias=distribute", "*: epsilon"),
    "w-square": lines("Conv,ConvTranspose: w-square", "*: epsilon"),
}


@pytest.mark.parametrize("name", COMPOSITES)
def test_folded_relevance_is_the_plain_one(name):
    plain = explain(network(), COMPOSITES[name], {"x": X}, target=1)
    folded = explain(network(), COMPOSITES[name], {"x": X}, target=1, fold_weights=True)
    close(folded.values["relevance"], plain.values["relevance"])
    assert len(folded.proto.graph.node) < len(plain.proto.graph.node)


@pytest.mark.parametrize("name", COMPOSITES)
def test_the_audit_reads_a_folded_explainer(name):
    proto = network()
    conversion = onnxlrp.convert(proto, COMPOSITES[name], fold_weights=True)
    found = audit.check(proto, conversion.to_proto(), {"x": X}, target=1)
    assert found.passed
    assert max(abs(layer.unexplained) / layer.size for layer in found.layers) < 1e-5


@pytest.mark.parametrize("name", ["default", "flat"])
def test_the_audit_reads_a_folded_pass_over_a_reference(name):
    proto = network()
    conversion = onnxlrp.convert(proto, COMPOSITES[name], fold_weights=True, reference=X[0] / 2)
    found = audit.check(proto, conversion.to_proto(), {"x": X}, target=1)
    assert found.passed
    assert found.start < 1e-6


def test_nothing_that_only_depends_on_weights_is_left_to_compute():
    folded = onnxlrp.convert(network(), "default", fold_weights=True).to_proto()
    constant = {tensor.name for tensor in folded.graph.initializer}
    assert not [one.name for one in folded.graph.node if constant.issuperset(one.input)]
    read = {name for one in folded.graph.node for name in one.input}
    assert constant <= read
    assert np.all([tensor.name for tensor in folded.graph.initializer])
