"""What stands in an explainer's file, and in which order."""

from pathlib import Path

import pytest
from support import model, node, normal

import onnxlrp

BUNDLED = Path(__file__).parents[2] / "models/cifar10_lrn.onnx"


def depends_on(nodes, start):
    """Tell of each node whether it depends on a value."""
    reached = {start}
    told = []
    for entry in nodes:
        told.append(not reached.isdisjoint(entry.input))
        if told[-1]:
            reached.update(entry.output)
    return told


@pytest.mark.parametrize("composite", ["epsilon_plus_flat", "epsilon_alpha2_beta1", "gradient"])
def test_what_depends_on_the_class_stands_last(composite):
    """onnxruntime then computes a denominator when relevance gets there, and does not keep it."""
    explainer = onnxlrp.convert(BUNDLED, composite).to_proto()
    told = depends_on(explainer.graph.node, "target")
    assert told == sorted(told)
    assert 0 < sum(told) < len(told)


def test_what_depends_on_the_best_class_stands_last():
    nodes = [
        node("Gemm", ["x", "w"], "h"),
        node("Relu", ["h"], "a"),
        node("Gemm", ["a", "v"], "logits"),
    ]
    weights = {"w": normal(5, 4, seed=1), "v": normal(4, 3, seed=2)}
    proto = model(nodes, {"x": ["N", 5]}, ["logits"], weights)
    explainer = onnxlrp.convert(proto, "epsilon_plus", target="top").to_proto()
    told = depends_on(explainer.graph.node, "onnxlrp/relevance/logits")
    assert told == sorted(told)
    assert 0 < sum(told) < len(told)
