"""Sizes that follow from what is known, though onnx's shape inference leaves them open."""

import numpy as np
from support import model, node, normal

from onnxlrp.graph.loading import load
from onnxlrp.graph.shapes import dims_of

SHAPED = [
    node("Shape", ["x"], "size"),
    node("Gather", ["size", "first"], "batch"),
    node("Concat", ["batch", "two_heads"], "split", axis=0),
    node("Reshape", ["x", "split"], "heads"),
    node("Mul", ["three", "one"], "middle"),
    node("Slice", ["heads", "zero", "middle", "axis"], "half"),
    node("Concat", ["batch", "picture"], "back", axis=0),
    node("Reshape", ["half", "back"], "y"),
]
"""Half of the channels of a picture, [N, 12, 4, 4], cut out as TorchScript writes it."""

NUMBERS = {
    "first": np.array([0]), "zero": np.array([0]), "one": np.array([1]), "three": np.array([3]),
    "axis": np.array([2]), "two_heads": np.array([2, 6, -1]), "picture": np.array([-1, 4, 4]),
}  # fmt: skip


def sizes(body, output, inputs, weights):
    """Sizes of all values of a model, by name."""
    proto = model(body, inputs, [output], {**NUMBERS, **weights})
    graph = load(proto).model.graph
    return {v.name: dims_of(v.shape) for n in graph for v in n.outputs if v.shape is not None}


def test_what_is_left_of_a_reshape_is_a_number():
    """[N, 2, 3, 16] as [N, -1, 4, 4] has 6 channels: N is what it was."""
    found = sizes([*SHAPED, node("Relu", ["y"], "z")], "z", {"x": ["N", 12, 4, 4]}, {})
    assert found["half"] == ("N", 2, 3, 16)
    assert found["y"] == ("N", 6, 4, 4)


def test_what_follows_from_a_pooling_that_onnx_miscounts():
    """Of 7 + 2 rows by twos onnx counts 5 windows; 4 there are."""
    pooled = node(
        "MaxPool", ["image"], "x", kernel_shape=[2, 2], strides=[2, 2], pads=[1] * 4, ceil_mode=1
    )
    body = [pooled, *SHAPED, node("Relu", ["y"], "z")]
    found = sizes(body, "z", {"image": ["N", 12, 7, 7]}, {})
    assert found["x"] == ("N", 12, 4, 4)
    assert found["y"] == ("N", 6, 4, 4)


def test_weights_say_how_many_channels_their_input_has():
    """The width is not known, so that a Reshape does not tell."""
    convolved = node("Conv", ["y", "w"], "z")
    given = {"w": normal(5, 3, 1, 1), "picture": np.array([-1, 4, 8])}
    for group, channels in ((1, 3), (2, 6)):
        convolved = node("Conv", ["y", "w"], "z", group=group)
        weights = {**given, "w": normal(4, 3, 1, 1)}
        found = sizes([*SHAPED, convolved], "z", {"x": ["N", "channels", 4, 4]}, weights)
        assert found["y"] == ("N", channels, 4, 8)
