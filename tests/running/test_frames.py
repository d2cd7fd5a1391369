"""Explanations as xarray and pandas have them."""

import importlib

import numpy as np
import onnx
import pytest
import tabular
from texts import classifier, write_tokenizer

import onnxlrp
from onnxlrp.demo import demo
from onnxlrp.running.explainer import Explainer
from onnxlrp.running.explanation import Explanation

LABELS = ["plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "lorry"]
ROWS = np.array([[1, 2, 3, 4], [2, 1, 0, -1]], np.float32)


@pytest.fixture(scope="module")
def picture() -> Explanation:
    return demo().explanation


@pytest.fixture(scope="module")
def table() -> Explanation:
    conversion = onnxlrp.convert(tabular.matrix(), "epsilon", features=["a", "b", "score", "d"])
    return Explainer(conversion.to_proto().SerializeToString())(ROWS)


@pytest.fixture(scope="module")
def several() -> Explanation:
    conversion = onnxlrp.convert(tabular.several(), "epsilon")
    feeds = {"age": np.array([[3], [0]]), "pay": ROWS[:, 3:], "rest": ROWS[:, :2]}
    return Explainer(conversion.to_proto().SerializeToString())(feeds)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Explanation:
    folder = tmp_path_factory.mktemp("text")
    onnx.save(classifier(), folder / "model.onnx")
    onnxlrp.convert(folder / "model.onnx", "epsilon").save(folder / "explainer.onnx")
    write_tokenizer(folder / "tokenizer.json")
    return Explainer(folder / "explainer.onnx")(["a wonderful film", "dull"])


def test_a_picture_has_its_axes_named(picture: Explanation):
    pytest.importorskip("xarray")
    found = picture.to_xarray(LABELS)
    assert dict(found.relevance.sizes) == {"sample": 1, "channel": 3, "y": 32, "x": 32}
    red = found.relevance.sel(sample=0, channel="R")
    np.testing.assert_array_equal(red.values, picture.relevance[0, 0])
    assert found.scores.sel({"class": "cat"}).item() == found.score.item()
    assert found.output_logits.dims == ("sample", "class")
    assert found.explained.item() == "cat (3)"
    total = found.relevance.sum(dtype="float64") / found.score
    assert total.item() == pytest.approx(found.share.item())
    assert found.attrs == {"quantity": "score"}


def test_layouts_and_what_lies_inside():
    pytest.importorskip("xarray")
    relevance = np.arange(24.0).reshape(1, 2, 3, 4)
    stored = onnxlrp.Preprocessing(layout="NHWC")
    one = Explanation(
        relevance={"left": relevance, "right": relevance.reshape(1, 6, 4)},
        outputs={"logits": np.ones((1, 2)), "boxes": np.ones((7, 4))},
        target=np.array([0]),
        score=np.ones(1),
        scores=np.ones((1, 2)),
        score_is_logit=False,
        intermediates={"conv1": np.ones((1, 5, 6))},
        inputs={"left": relevance, "right": relevance.reshape(1, 6, 4)},
        preprocessing=stored,
    )
    found = one.to_xarray()
    assert found.relevance_left.dims == ("sample", "left_y", "left_x", "left_channel")
    assert found.relevance_right.dims == ("sample", "right_channel", "right_position")
    assert found.output_boxes.dims == ("boxes_0", "boxes_1")
    assert found.intermediate_conv1.dims == ("sample", "conv1_1", "conv1_2")
    assert np.isnan(found.share.item())
    with pytest.raises(onnxlrp.InputError, match="3 labels are given for 2 classes"):
        one.to_xarray(["a", "b", "c"])


def test_rows_of_a_table(table: Explanation):
    pytest.importorskip("xarray")
    pytest.importorskip("pandas")
    expected = tabular.relevance(ROWS, table.target)
    found = table.to_xarray()
    assert [*found.feature.values] == ["a", "b", "score", "d"]
    np.testing.assert_allclose(found.relevance, expected, atol=1e-5)
    np.testing.assert_array_equal(found.value.sel(feature="d"), ROWS[:, 3])
    frame = table.to_pandas(["x", "y", "z"])
    columns = ["target", "label", "score", "share", "a", "b", "relevance score", "d"]
    assert [*frame.columns] == columns
    np.testing.assert_allclose(frame[columns[4:]], expected, atol=1e-5)
    np.testing.assert_allclose(frame["score"], tabular.scores(ROWS).max(axis=1), rtol=1e-5)
    assert [*frame["label"]] == ["xyz"[target] for target in table.target]


def test_columns_that_are_inputs_of_their_own_are_one_table(several: Explanation):
    pytest.importorskip("xarray")
    pytest.importorskip("pandas")
    found = several.to_xarray()
    assert [*found.feature.values] == ["age", "pay", "rest 0", "rest 1"]
    np.testing.assert_array_equal(found.value.sel(feature="age"), [3, 0])
    x = np.array([[1, 2, 3, 4], [2, 1, 0, -1]])
    expected = tabular.relevance(x, several.target)[:, [2, 3, 0, 1]]
    np.testing.assert_allclose(found.relevance, expected, atol=1e-5)
    np.testing.assert_allclose(several.to_pandas()[[*found.feature.values]], expected, atol=1e-5)


def test_tokens_of_texts(text: Explanation):
    pytest.importorskip("xarray")
    pytest.importorskip("pandas")
    found = text.to_xarray()
    assert found.relevance.dims == ("sample", "token")
    pieces = [["[CLS]", "a", "wonder", "##ful", "film", "[SEP]"], ["[CLS]", "dull", "[SEP]"]]
    assert found.piece.values.tolist() == [pieces[0], [*pieces[1], "", "", ""]]
    frame = text.to_pandas()
    assert [[*rows["token"]] for _, rows in frame.groupby("sample")] == pieces
    (dull,) = frame[frame["token"] == "dull"]["relevance"]
    assert dull == text.of(1)[0][1]
    assert frame["score"].iloc[0] == text.score[0]


def test_a_picture_is_a_row(picture: Explanation):
    pytest.importorskip("pandas")
    (row,) = picture.to_pandas(LABELS).to_dict("records")
    account = picture.account()
    assert (row["target"], row["label"]) == (3, "cat")
    assert (row["score"], row["share"]) == (account.score, account.share)
    assert (row["relevance"], row["size"]) == (account.relevance, account.size)


@pytest.mark.parametrize("name", ["xarray", "pandas"])
def test_what_is_missing_is_named(picture: Explanation, monkeypatch, name: str):
    def missing(_: str) -> None:
        raise ImportError

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(onnxlrp.InputError, match=f"{name} is not installed: pip install {name}"):
        getattr(picture, f"to_{name}")()
