"""Bounds of z-box: carried to the layer that asks for them, and checked there."""

import numpy as np
import pytest
from support import close, explain, lines, model, node, normal

import onnxlrp
from onnxlrp import reference
from onnxlrp.inputs.preprocessing import Preprocessing

COMPOSITE = lines("Conv,MatMul,Gemm first: z-box", "Sub,Div,Mul,Add: pass", "*: epsilon")
PICTURES = Preprocessing(crop=(5, 5), scale=1.0)
KERNEL = {"k": normal(4, 3, 3, 3, seed=1), "v": normal(36, 2, seed=2)}
HEAD = [node("Flatten", ["c"], "f"), node("Gemm", ["f", "v"], "logits")]
X = (np.random.default_rng(0).random((2, 3, 5, 5)) * 255).astype(np.float32)


def box(proto, preprocessing=PICTURES, composite=COMPOSITE):
    conversion = onnxlrp.convert(proto, composite, preprocessing=preprocessing)
    return next(n.parameters for n in conversion.nodes if n.rule == "z-box")


def column(*numbers):
    return np.array(numbers, np.float32).reshape(-1, 1, 1)


def test_bounds_are_carried_through_what_stands_before_the_layer():
    """(x - mean) / -2: per channel, and upside down."""
    weights = {**KERNEL, "m": column(10, 20, 30), "s": np.float32(-2).reshape(1)}
    body = [
        node("Sub", ["x", "m"], "centred"),
        node("Div", ["centred", "s"], "scaled"),
        node("Conv", ["scaled", "k"], "c"),
        *HEAD,
    ]
    proto = model(body, {"x": ["N", 3, 5, 5]}, ["logits"], weights)
    found = box(proto)
    assert found["low"] == [-122.5, -117.5, -112.5]
    assert found["high"] == [5.0, 10.0, 15.0]
    explained = explain(proto, COMPOSITE, {"x": X}, preprocessing=PICTURES, target=[1, 0])
    rules = {n.name: (n.rule, dict(n.parameters)) for n in explained.conversion.nodes}
    wanted = reference.explain(
        proto, {"x": X}, lambda n: rules[n.name], ["x"], "logits", np.array([1, 0])
    )
    close(explained.values["relevance"], wanted["x"])


def test_bounds_follow_the_channels_of_a_transposed_picture():
    """[N, H, W, C] with as many rows as channels, read by a MatMul over the channels."""
    weights = {"w": normal(3, 4, seed=1), "v": normal(36, 2, seed=2), "m": column(1, 2, 3)}
    body = [
        node("Sub", ["x", "m"], "centred"),
        node("Transpose", ["centred"], "t", perm=[0, 2, 3, 1]),
        node("MatMul", ["t", "w"], "c"),
        *HEAD,
    ]
    proto = model(body, {"x": ["N", 3, 3, 3]}, ["logits"], weights)
    pictures = Preprocessing(crop=(3, 3))
    assert box(proto, pictures)["high"] == [254, 253, 252]
    x = X[:, :, :3, :3]
    explained = explain(proto, COMPOSITE, {"x": x}, preprocessing=pictures, target=[1, 0])
    rules = {n.name: (n.rule, dict(n.parameters)) for n in explained.conversion.nodes}
    wanted = reference.explain(
        proto, {"x": x}, lambda n: rules[n.name], ["x"], "logits", np.array([1, 0])
    )
    close(explained.values["relevance"], wanted["x"])


def test_what_bounds_cannot_be_carried_through_is_named():
    weights = {"w": normal(75, 2, seed=1), "m": column(1, 2, 3)}
    body = [
        node("Sub", ["x", "m"], "centred"),
        node("Flatten", ["centred"], "f"),
        node("Gemm", ["f", "w"], "logits"),
    ]
    proto = model(body, {"x": ["N", 3, 5, 5]}, ["logits"], weights)
    with pytest.raises(
        onnxlrp.InputError, match=r"node_logits.*carried through node_f \(Flatten\)"
    ):
        box(proto)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("low=[0,0] high=1", "2 numbers for 'low', but its input has 3 channels"),
        ("low=2 high=1", "a lower bound is above the upper one"),
        ("low=0 high=[1,1,-1]", "a lower bound is above the upper one"),
    ],
)
def test_bounds_that_do_not_suit_the_layer_are_refused(written, message):
    proto = model([node("Conv", ["x", "k"], "c"), *HEAD], {"x": ["N", 3, 5, 5]}, ["logits"], KERNEL)
    with pytest.raises(onnxlrp.InputError, match=message):
        box(proto, composite=lines(f"Conv first: z-box {written}", "*: epsilon"))
