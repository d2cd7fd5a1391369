"""Concept-conditional relevance: an input that multiplies what passes through a value.

Achtibat et al. 2023; zennit-crp multiplies the relevance at a layer's output by a mask over
channels, and goes on propagating.
"""

import numpy as np
import pytest
from support import close, lines, model, node, normal, run

import onnxlrp
from onnxlrp import reference
from onnxlrp.errors import InputError

W = {
    "w": normal(4, 3, 3, 3, seed=1),
    "v": normal(4, 4, 3, 3, seed=2),
    "r": normal(4, 3, seed=3),
}
BODY = [
    node("Conv", ["x", "w"], "c1"),
    node("Relu", ["c1"], "a1"),
    node("Conv", ["a1", "v"], "c2"),
    node("Relu", ["c2"], "a2"),
    node("GlobalAveragePool", ["a2"], "g"),
    node("Flatten", ["g"], "f"),
    node("Gemm", ["f", "r"], "logits"),
]
PROTO = model(BODY, {"x": ["N", 3, 8, 8]}, ["logits"], W)
COMPOSITE = lines("Conv: z-plus", "Gemm: epsilon", "*: norm")
X = normal(2, 3, 8, 8, seed=4)


def explained(masks, **feeds):
    conversion = onnxlrp.convert(PROTO, COMPOSITE, masks=masks)
    return run(conversion.to_proto(), {"x": X, "target": np.array([1]), **feeds})["relevance"]


def test_a_mask_over_channels_is_applied_on_the_way():
    """By the definition: backwards to a1, times the mask, and on."""
    mask = np.array([1, 0, 0.5, 0], np.float32).reshape(1, 4, 1, 1)
    rules = {"Conv": ("z-plus", {}), "Gemm": ("epsilon", {}), "GlobalAveragePool": ("norm", {})}
    whole = reference.explain(PROTO, {"x": X}, lambda n: rules[n.op_type], ["x"], "logits", 1)
    values = reference.evaluate(PROTO, {"x": X})
    wanted = reference.propagate(
        BODY[0],
        [values["x"], values["w"]],
        [whole["a1"] * mask],
        "z-plus",
        {},
        [True, False],
    ).relevance[0]
    close(explained(["a1"], mask_a1=mask), wanted)


def test_masks_of_one_change_nothing_and_parts_add_up():
    ones = np.ones((1, 1, 1, 1), np.float32)
    plain = explained([])
    close(explained(["a?"], mask_a1=ones, mask_a2=ones), plain, 1e-6)
    parts = np.eye(4, dtype=np.float32).reshape(4, 1, 4, 1, 1)
    close(sum(explained(["a1"], mask_a1=part) for part in parts), plain, 1e-5)


def test_an_explainer_takes_masks_by_value_and_leaves_the_others_at_one(tmp_path):
    onnxlrp.convert(PROTO, COMPOSITE, masks=["a1", "a2"]).save(tmp_path / "e.onnx")
    explainer = onnxlrp.Explainer(tmp_path / "e.onnx")
    close(explainer(X, 1).relevance, explained([]), 1e-6)
    half = np.full((1, 1, 1, 1), 0.5, np.float32)
    close(explainer(X, 1, {"a1": half}).relevance, 0.5 * explained([]), 1e-6)
    with pytest.raises(InputError, match="masks no value 'c1'"):
        explainer(X, 1, {"c1": half})


def test_a_pattern_that_matches_nothing():
    with pytest.raises(InputError, match="a1"):
        onnxlrp.convert(PROTO, COMPOSITE, masks=["nothing*"])
