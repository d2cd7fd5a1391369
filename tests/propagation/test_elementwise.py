"""Activations whose slope or bounds are of no use; what crosses is tested with all operators."""

import numpy as np
import pytest
from support import lines, model, node, normal

import onnxlrp

BEHIND = [node("GlobalAveragePool", ["a"], "p"), node("Flatten", ["p"], "logits")]
IMAGES = {"x": ["N", 3, 4, 4]}


def test_a_slope_that_is_larger_than_its_input():
    """onnxruntime makes three samples of one here, ONNX forbids it."""
    first = node("PRelu", ["x", "slope"], "a")
    proto = model([first, *BEHIND], IMAGES, ["logits"], {"slope": normal(3, 1, 1, 1)})
    with pytest.raises(onnxlrp.UnsupportedError, match=r"node_a .* slope of shape \[3, 1, 1, 1\]"):
        onnxlrp.convert(proto, lines("*: epsilon"))


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Conv", ["x", "w"], "s"), node("PRelu", ["x", "s"], "a")],
        [
            node("ReduceMax", ["x"], "most", keepdims=0),
            node("Mul", ["most", "half"], "bound"),
            node("Clip", ["x", "", "bound"], "a"),
        ],
    ],
    ids=["slope", "bound"],
)
def test_slopes_and_bounds_that_depend_on_the_input(nodes):
    weights = {"w": normal(3, 3, 1, 1), "half": np.array(0.5, np.float32)}
    used = {name for one in nodes for name in one.input}
    weights = {name: array for name, array in weights.items() if name in used}
    proto = model([*nodes, *BEHIND], IMAGES, ["logits"], weights)
    with pytest.raises(onnxlrp.UnsupportedError, match=r"node_a .* depend on the explained input"):
        onnxlrp.convert(proto, lines("*: epsilon"))
