"""Missing values: where a model fills them in, and what is explained then."""

import numpy as np
import onnx
import pytest
from support import close, model, node, normal

import onnxlrp
from onnxlrp.running.explainer import Explainer

PUT = np.array([1.0, -2.0, 3.0], np.float32)
WEIGHTS = {"w": normal(3, 2), "put": PUT, "first": np.array([0, 1, 2])}
FILLED = {
    "Where by IsNaN": [node("IsNaN", ["x"], "gone"), node("Where", ["gone", "put", "x"], "f")],
    "by Not": [
        node("Identity", ["x"], "same"),
        node("IsNaN", ["same"], "gone"),
        node("Not", ["gone"], "there"),
        node("Where", ["there", "same", "put"], "f"),
    ],
}


def of(body, *, last: str = "f"):
    return model([*body, node("Gemm", [last, "w"], "logits")], {"x": ["N", 3]}, ["logits"], WEIGHTS)


def explainer(proto) -> Explainer:
    return Explainer(onnxlrp.convert(proto, "epsilon").to_proto().SerializeToString())


@pytest.mark.parametrize("how", FILLED)
def test_what_is_missing_is_filled_in_and_gets_no_relevance(how):
    run = explainer(of(FILLED[how]))
    assert run.contract.missing == ("x",)
    x = np.array([[0.5, np.nan, 2], [np.nan, 1, -1]], np.float32)
    found = run(x, 1)
    filled = np.where(np.isnan(x), PUT, x)
    close(found.scores, filled @ WEIGHTS["w"])
    close(found.relevance, np.where(np.isnan(x), 0, x) * WEIGHTS["w"][:, 1], 1e-4)


@pytest.mark.parametrize(
    "body",
    [
        [node("Relu", ["x"], "f")],
        # Asked about, but not put right.
        [node("IsNaN", ["x"], "gone"), node("Where", ["gone", "x", "put"], "f")],
        # Put right beside what is computed with it all the same.
        [*FILLED["Where by IsNaN"], node("Add", ["f", "x"], "g"), node("Sub", ["g", "f"], "f2")],
        # What another value lacks.
        [
            node("Relu", ["x"], "r"),
            node("IsNaN", ["r"], "gone"),
            node("Where", ["gone", "put", "x"], "f"),
        ],
        # Made whole before it is asked.
        [
            node("Cast", ["x"], "whole", to=7),
            node("Cast", ["whole"], "x2", to=1),
            node("IsNaN", ["x2"], "gone"),
            node("Where", ["gone", "put", "x2"], "f"),
        ],
    ],
)
def test_what_is_not_filled_in_is_refused(body):
    run = explainer(of(body, last=body[-1].output[0]))
    assert run.contract.missing == ()
    with pytest.raises(onnxlrp.InputError, match="input 'x' holds NaN or infinity"):
        run(np.array([[0.5, np.nan, 2]], np.float32))


def test_infinity_is_never_taken():
    run = explainer(of(FILLED["Where by IsNaN"]))
    with pytest.raises(onnxlrp.InputError, match="input 'x' holds infinity"):
        run(np.array([[0.5, np.nan, np.inf]], np.float32))


def test_trees_have_a_way_for_what_is_missing():
    """The first asks x_0 <= 0.5, and sends what is missing to the left, or to the right."""
    found = []
    for left in (0, 1):
        tree = onnx.helper.make_node(
            "TreeEnsembleRegressor",
            ["x"],
            ["scores"],
            domain="ai.onnx.ml",
            nodes_treeids=[0, 0, 0],
            nodes_nodeids=[0, 1, 2],
            nodes_featureids=[0, 0, 0],
            nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
            nodes_values=[0.5, 0.0, 0.0],
            nodes_truenodeids=[1, 0, 0],
            nodes_falsenodeids=[2, 0, 0],
            nodes_missing_value_tracks_true=[left, 0, 0],
            target_treeids=[0] * 4,
            target_nodeids=[1, 1, 2, 2],
            target_ids=[0, 1, 0, 1],
            target_weights=[1.0, 3.0, 5.0, 1.0],
            n_targets=2,
        )
        x, y = (
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 2])
            for name in ("x", "scores")
        )
        graph = onnx.helper.make_graph([tree], "g", [x], [y])
        opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("ai.onnx.ml", 3)]
        run = explainer(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9))
        assert run.contract.missing == ("x",)
        explained = run(np.array([[np.nan, 7]], np.float32), 0)
        found.append([explained.scores[0, 0], *explained.relevance[0]])
    # The mean of the leaves is 3.
    np.testing.assert_allclose(found, [[5, 2, 0], [1, -2, 0]], atol=1e-5)
