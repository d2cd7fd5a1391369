"""Missing values: where a model fills them in, and what is explained then."""

import numpy as np
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
