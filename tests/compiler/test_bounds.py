"""Bounds of z-box: carried to the layer that asks for them, and checked there."""

import numpy as np
import pytest
from support import close, explain, lines, model, node, normal, run, with_outputs

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


BEFORE = {
    "another branch": (
        [node("Mul", ["x", "ten"], "b"), node("Concat", ["x", "b"], "in", axis=3)],
        {"ten": np.float32(10).reshape(1), "k": normal(4, 3, 3, 8, seed=1)},
        ([0.0], [2550.0]),
    ),
    "padding beyond the bounds": (
        [node("Pad", ["x", "amounts", "fill"], "in")],
        {"amounts": np.array([0, 0, 1, 1] * 2), "fill": np.float32(999), "k": normal(4, 3, 5, 5)},
        ([0.0], [999.0]),
    ),
    "negated": ([node("Neg", ["x"], "in")], {}, ([-255.0], [0.0])),
    "each from a constant": (
        [node("Sub", ["m", "x"], "in")],
        {"m": column(10, 20, 30)},
        ([-245.0, -235.0, -225.0], [10.0, 20.0, 30.0]),
    ),
    "channels in another order": (
        [
            node("Gather", ["x", "order"], "turned", axis=1),
            node("Sub", ["turned", "m"], "in"),
        ],
        {"order": np.array([2, 1, 0]), "m": column(10, 20, 30)},
        ([-10.0, -20.0, -30.0], [245.0, 235.0, 225.0]),
    ),
}


@pytest.mark.parametrize("what", BEFORE)
def test_every_value_of_the_layer_lies_between_its_bounds(what):
    before, weights, wanted = BEFORE[what]
    body = [*before, node("Conv", ["in", "k"], "c"), *HEAD]
    proto = model(body, {"x": ["N", 3, 5, 5]}, ["logits"], {**KERNEL, **weights})
    composite = lines("Conv first: z-box", "Sub,Mul: pass", "*: epsilon")
    found = box(proto, composite=composite)
    assert (found["low"], found["high"]) == wanted
    extremes = np.stack([np.zeros((3, 5, 5)), np.full((3, 5, 5), 255)]).astype(np.float32)
    read = run(with_outputs(proto, ["in"]), {"x": extremes})["in"]
    assert read.min(axis=(0, 2, 3)).min() == np.min(found["low"])
    assert read.max(axis=(0, 2, 3)).max() == np.max(found["high"])


ELSEWHERE = {
    "a constant beside it": (
        [node("Concat", ["x", "beside"], "in", axis=2)],
        {"beside": np.full((1, 3, 1, 5), 999, np.float32), "k": normal(4, 3, 4, 3)},
    ),
    "the lesser of it and a constant": (
        [node("Min", ["x", "least"], "in")],
        {"least": np.float32(-5)},
    ),
    "it or a constant": (
        [node("Where", ["where", "x", "else"], "in")],
        {"where": np.eye(5, dtype=bool), "else": np.float32(-5)},
    ),
    "padded channels": (
        [node("Sub", ["x", "m"], "s"), node("Pad", ["s", "amounts"], "in")],
        {"m": column(1, 2, 3), "amounts": np.array([0, 1, 0, 0, 0, -1, 0, 0])},
    ),
    "written out, ending in a constant term": (
        [
            node("ReduceMean", ["x", "last"], "mean"),
            node("Sub", ["x", "mean"], "d"),
            node("Mul", ["d", "d"], "square"),
            node("ReduceMean", ["square", "last"], "variance"),
            node("Add", ["variance", "tiny"], "more"),
            node("Sqrt", ["more"], "deviation"),
            node("Div", ["d", "deviation"], "unit"),
            node("Add", ["term", "unit"], "in"),
        ],
        {"last": np.array([-1]), "tiny": np.float32(1e-5), "term": np.float32(3).reshape(1)},
    ),
}


@pytest.mark.parametrize("what", ELSEWHERE)
def test_bounds_do_not_pass_over_what_they_do_not_hold_for(what):
    before, weights = ELSEWHERE[what]
    body = [*before, node("Conv", ["in", "k"], "c"), *HEAD]
    proto = model(body, {"x": [1, 3, 5, 5]}, ["logits"], {**KERNEL, **weights})
    composite = lines("Conv first: z-box", "Sub,Mul: pass", "*: epsilon", "*: norm")
    with pytest.raises(onnxlrp.InputError, match=r"z-box at node_c.*carried through node_in"):
        box(proto, composite=composite)


def test_a_sum_of_values_between_different_bounds_is_refused():
    body = [node("Mul", ["x", "ten"], "b"), node("Add", ["x", "b"], "c"), *HEAD]
    weights = {"ten": np.float32(10).reshape(1), "v": normal(75, 2)}
    proto = model(body, {"x": ["N", 3, 5, 5]}, ["logits"], weights)
    with pytest.raises(onnxlrp.InputError, match=r"z-box at node_c.*different bounds"):
        box(proto, composite=lines("Add: z-box", "*: epsilon"))


@pytest.mark.parametrize("low", ["preprocessing", "[0,1,-1,0,-2]"])
def test_weights_on_the_left_sum_over_rows(low):
    """W @ x has a bound for each row of x."""
    body = [node("MatMul", ["w", "x"], "c"), *HEAD]
    weights = {"w": normal(4, 5, seed=1), "v": normal(60, 2, seed=2)}
    proto = model(body, {"x": ["N", 3, 5, 5]}, ["logits"], weights)
    composite = lines(f"MatMul: z-box low={low} high=255", "*: epsilon")
    explained = explain(proto, composite, {"x": X}, preprocessing=PICTURES, target=[1, 0])
    rules = {n.name: (n.rule, dict(n.parameters)) for n in explained.conversion.nodes}
    wanted = reference.explain(
        proto, {"x": X}, lambda n: rules[n.name], ["x"], "logits", np.array([1, 0])
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
        ("low=2 high=1", "z-box low=2 high=1': rule z-box at node_c: a lower bound"),
        ("low=0 high=[1,1,-1]", "a lower bound .'low'. is above the upper one"),
    ],
)
def test_bounds_that_do_not_suit_the_layer_are_refused(written, message):
    proto = model([node("Conv", ["x", "k"], "c"), *HEAD], {"x": ["N", 3, 5, 5]}, ["logits"], KERNEL)
    with pytest.raises(onnxlrp.InputError, match=message):
        box(proto, composite=lines(f"Conv first: z-box {written}", "*: epsilon"))
