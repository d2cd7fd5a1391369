"""Class activation maps: of which layer, what they hold, and in what size."""

from importlib import resources

import numpy as np
import onnx
import pytest
from onnx import helper
from support import close, explain, model, node, normal

import onnxlrp
from onnxlrp import reference
from onnxlrp.audit import check
from onnxlrp.errors import InputError

KINDS = {"grad_cam": "Grad-CAM", "grad_cam_plus_plus": "Grad-CAM++", "hires_cam": "HiRes-CAM"}
WEIGHTS = {
    "w": normal(4, 3, 3, 3, seed=1),
    "v": normal(4, 4, 3, 3, seed=2),
    "apart": normal(4, 1, 2, 2, seed=6),
    "dense": normal(36, 5, seed=3),
    "top": normal(4, 5, seed=4),
}
FIRST = [node("Conv", ["x", "w"], "c1", strides=[2, 2]), node("Relu", ["c1"], "r1")]
READ = [node("Flatten", ["r1"], "f"), node("Gemm", ["f", "dense"], "logits")]
POOLED = [
    node("GlobalAveragePool", ["last"], "mean"),
    node("Flatten", ["mean"], "f"),
    node("Gemm", ["f", "top"], "logits"),
]
X = normal(2, 3, 7, 8, seed=5)
SMALL = model([*FIRST, *READ], {"x": ["N", 3, 7, 8]}, ["logits"], WEIGHTS)


def built(*body, shape=("N", 3, 7, 8)):
    return model([*FIRST, *body, *POOLED], {"x": list(shape)}, ["logits"], WEIGHTS)


@pytest.mark.parametrize("composite", KINDS)
def test_it_is_as_defined(composite):
    """The gradient of the feature maps is a row of the dense layer's weights."""
    found = explain(SMALL, onnxlrp.Composite.load(composite), {"x": X}, target=3)
    maps = reference.evaluate(SMALL, {"x": X})["r1"]
    gradient = np.broadcast_to(WEIGHTS["dense"][:, 3].reshape(4, 3, 3), maps.shape)
    wanted = reference.activation_map(KINDS[composite], maps, gradient, (7, 8))
    close(found.values["relevance"].sum(axis=1), wanted)
    assert np.ptp(found.values["relevance"], axis=1).max() == 0


def test_by_hand():
    """Maps (1, 2) and (4, 0), gradients (3, 1) and (-1, 1): weights 2 and 0."""
    maps = np.array([[[[1.0, 2.0]], [[4.0, 0.0]]]])
    gradient = np.array([[[[3.0, 1.0]], [[-1.0, 1.0]]]])
    sizes = (1, 2)
    assert reference.activation_map("Grad-CAM", maps, gradient, sizes).tolist() == [[[2, 4]]]
    assert reference.activation_map("HiRes-CAM", maps, gradient, sizes).tolist() == [[[-1, 2]]]
    # a = g² / (2 g² + g³ sum A): 1 / 11 and 1 / 5, of the second map 1 / 6 where g is 1.
    weights = 3 / 11 + 1 / 5, 1 / 6
    wanted = [weights[0] + 4 * weights[1], 2 * weights[0]]
    found = reference.activation_map("Grad-CAM++", maps, gradient, sizes)
    np.testing.assert_allclose(found, [[wanted]])
    # Between the middles of pixels, as pictures are enlarged.
    large = reference.activation_map("Grad-CAM", maps, gradient, (1, 4))
    np.testing.assert_allclose(large, [[[2, 2.5, 3.5, 4]]])


@pytest.mark.parametrize(
    ("body", "layer"),
    [
        ([node("Identity", ["r1"], "last")], "r1"),
        ([node("MaxPool", ["r1"], "last", kernel_shape=[2, 2])], "r1"),
        (
            [
                node("Conv", ["r1", "v"], "c2", pads=[1, 1, 1, 1]),
                node("Add", ["c2", "r1"], "sum"),
                node("Relu", ["sum"], "last"),
            ],
            "last",
        ),
        ([node("Conv", ["r1", "apart"], "last", group=4)], "last"),
        (
            [
                node("Conv", ["r1", "v"], "c2", pads=[1, 1, 1, 1]),
                node("Sigmoid", ["c2"], "gate"),
                node("Mul", ["c2", "gate"], "last"),
            ],
            "last",
        ),
    ],
    ids=[
        "behind a convolution",
        "before pools",
        "where branches meet",
        "depthwise",
        "behind an activation",
    ],
)
def test_it_is_of_the_last_layer_with_places(body, layer):
    proto = built(*body)
    explainer = onnxlrp.convert(proto, "grad_cam").to_proto()
    said = onnxlrp.Explainer(explainer.SerializeToString()).contract.explains
    assert said == f"input 'target', by its Grad-CAM at '{layer}'"
    audit = check(proto, explainer, {"x": X})
    assert audit.passed
    assert audit.drawn < 1e-6


def test_a_score_that_is_flat_everywhere_has_an_empty_map():
    """No gradient arrives where a value is only rounded."""
    proto = built(node("Round", ["r1"], "last"))
    found = explain(proto, onnxlrp.Composite.load("grad_cam"), {"x": X}, target=1)
    assert found.values["relevance"].shape == X.shape


def test_channels_may_be_last():
    turn = node("Transpose", ["x"], "turned", perm=[0, 3, 1, 2])
    body = [turn, node("Conv", ["turned", "w"], "c1", strides=[2, 2]), *FIRST[1:], *READ]
    proto = model(body, {"x": ["N", 7, 8, 3]}, ["logits"], WEIGHTS)
    composite, feeds = onnxlrp.Composite.load("hires_cam"), {"x": X.transpose(0, 2, 3, 1)}
    wanted = explain(SMALL, composite, {"x": X}, target=1).values["relevance"]
    found = explain(proto, composite, feeds, target=1).values["relevance"]
    close(found, wanted.transpose(0, 2, 3, 1))
    assert check(proto, onnxlrp.convert(proto, composite).to_proto(), feeds).drawn < 1e-6


def test_sizes_that_only_the_input_tells():
    proto = built(node("Identity", ["r1"], "last"), shape=("N", 3, "H", "W"))
    audit = check(proto, onnxlrp.convert(proto, "grad_cam").to_proto(), {"x": X})
    assert audit.passed
    assert audit.drawn < 1e-6


def test_signals():
    weights = {"w": normal(4, 2, 3, seed=1), "dense": normal(4 * 7, 5, seed=3)}
    body = [node("Conv", ["x", "w"], "c1"), *FIRST[1:], *READ]
    proto = model(body, {"x": ["N", 2, 9]}, ["logits"], weights)
    audit = check(proto, onnxlrp.convert(proto, "hires_cam").to_proto(), {"x": normal(2, 2, 9)})
    assert audit.passed
    assert audit.drawn < 1e-6


def test_the_audit_sees_a_map_that_is_drawn_otherwise():
    explainer = onnxlrp.convert(SMALL, "grad_cam").to_proto()
    (resize,) = [n for n in explainer.graph.node if n.op_type == "Resize"]
    resize.attribute[0].CopyFrom(helper.make_attribute("mode", "nearest"))
    audit = check(SMALL, explainer, {"x": X})
    assert not audit.passed
    assert audit.drawn > 0.01


def test_networks_without_such_a_layer_are_refused():
    dense = [node("Flatten", ["x"], "f"), node("Gemm", ["f", "m"], "logits")]
    proto = model(dense, {"x": ["N", 3, 4, 4]}, ["logits"], {"m": normal(48, 5)})
    with pytest.raises(InputError, match="this one has none"):
        onnxlrp.convert(proto, "grad_cam")
    vit = resources.files("onnxlrp.bundled").joinpath("cifar10_vit.onnx").read_bytes()
    with pytest.raises(InputError, match="this one has attention behind it"):
        onnxlrp.convert(onnx.load_model_from_string(vit), "grad_cam")
