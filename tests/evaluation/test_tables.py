"""Flipping features, with a linear model whose best order and curve are known in closed form."""

import numpy as np
import onnx
import pytest
from support import model, node, normal

import onnxlrp
from onnxlrp.compiler.composite import Composite
from onnxlrp.evaluation import Flipping, Judge, Sample, ScoredModel, Study, Tables
from onnxlrp.evaluation.study import RANDOM
from onnxlrp.inputs.columns import Columns

FEATURES = 8
WEIGHTS = normal(FEATURES, 2, seed=1)
COLUMNS = Columns.of_matrix("x", "float32", FEATURES)
TABLE = normal(30, FEATURES) + np.arange(FEATURES, dtype=np.float32)


@pytest.fixture
def scored(tmp_path):
    body = [node("Gemm", ["x", "w"], "logits")]
    path = tmp_path / "model.onnx"
    onnx.save(model(body, {"x": ["N", FEATURES]}, ["logits"], {"w": WEIGHTS}), path)
    return ScoredModel(path)


def judge(scored, replacement, **options):
    flipping = options.pop("flipping", Flipping())
    medium = Tables(COLUMNS, TABLE, replacement)
    return Judge(scored, {"epsilon": Composite.load("epsilon")}, flipping, medium, **options)


def sample(number: int, maps=None) -> Sample:
    return Sample(str(number), number, {"values": TABLE[number]}, maps or {})


@pytest.mark.parametrize("replacement", ["mean", "median", "0", "-1.5"])
def test_the_best_order_is_by_what_a_feature_adds_beyond_its_replacement(scored, replacement):
    """Of w x, that is w_i (x_i - r_i); each flip takes that much from the score."""
    new = {"mean": TABLE.mean(axis=0), "median": np.median(TABLE, axis=0)}.get(replacement)
    new = np.full(FEATURES, float(replacement)) if new is None else new
    best = ((TABLE - new)[:, :, None] * WEIGHTS).astype(np.float64)
    run = judge(scored, replacement)
    rows = []
    for number in range(24):
        target = int((TABLE[number] @ WEIGHTS).argmax())
        falls = best[number, :, target]
        chance = np.random.default_rng(number).normal(size=FEATURES)
        row = run(sample(number, {"best": falls, "chance": chance}))
        assert row["class"] == target
        curve = row["score"] - np.array([0, *np.cumsum(np.sort(falls)[::-1])])
        found = row["methods"]["best"]
        np.testing.assert_allclose(found["curves"]["descending"], curve, atol=1e-4)
        assert found["values"]["AUC descending"] == pytest.approx(curve.mean(), abs=1e-4)
        for other in ("epsilon", "chance", RANDOM):
            values = row["methods"][other]["values"]
            assert found["values"]["AUC descending"] <= values["AUC descending"] + 1e-5
            assert found["values"]["AUC ascending"] >= values["AUC ascending"] - 1e-5
        if replacement == "0":
            # What LRP gives a feature of a linear model is all that it adds.
            assert row["methods"]["epsilon"]["values"] == pytest.approx(
                found["values"] | {"share of score": 1}, abs=1e-4
            )
        rows.append(row)
    study = Study(rows, ["best", "chance", RANDOM])
    assert study.flips == FEATURES
    assert study.difference("best", RANDOM, "AUC descending").high < 0
    low, high = study.difference("chance", RANDOM, "AUC descending")[1:]
    assert low < 0 < high


def test_a_column_gives_values_of_its_own_and_of_other_rows():
    medium = Tables(COLUMNS, TABLE, "column")
    drawn = np.stack([medium.replaced(Flipping().random(number)) for number in range(200)])
    assert all(np.isin(drawn[:, one], TABLE[:, one]).all() for one in range(FEATURES))
    np.testing.assert_allclose(drawn.mean(axis=0), TABLE.mean(axis=0), atol=0.4)
    # Features are drawn apart: whole rows of the table do not come.
    assert not (drawn[:, None] == TABLE).all(axis=2).any()
    again = medium.replaced(Flipping().random(7))
    np.testing.assert_array_equal(again, drawn[7])


def test_what_does_not_fit_is_told(scored):
    with pytest.raises(onnxlrp.InputError, match="features are replaced by mean, median, column"):
        Tables(COLUMNS, TABLE, "blur")
    run = judge(scored, "mean")
    with pytest.raises(onnxlrp.InputError, match=r"0: a map \[3\] for 8 features"):
        run.check(sample(0, {"theirs": np.zeros(3)}))
    short = Sample("short", 0, {"values": TABLE[0, :5]}, {})
    medium = Tables(Columns.of_matrix("x", "float32", 5), TABLE[:, :5])
    run = Judge(scored, {}, Flipping(), medium)
    with pytest.raises(onnxlrp.InputError, match=r"short: the model reads \[8\] as 'x', not \[5\]"):
        run.check(short)
