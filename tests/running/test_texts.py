"""Texts go through an explainer: tokens in, relevance of tokens and words out."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from texts import ALL, classifier, expected, write_tokenizer

import onnxlrp
from onnxlrp.errors import InputError

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def explainer(folder: Path, *arguments, **options) -> onnxlrp.Explainer:
    onnx.save(classifier(*arguments, **options), folder / "model.onnx")
    onnxlrp.convert(folder / "model.onnx", "epsilon").save(folder / "explainer.onnx")
    write_tokenizer(folder / "explainer.tokenizer.json")
    return onnxlrp.Explainer(folder / "explainer.onnx")


def test_tokens_get_what_their_rows_contribute(tmp_path: Path):
    explanation = explainer(tmp_path)(["What a wonderful film!", "dull"], target=[1, 2])
    for index, target in enumerate((1, 2)):
        relevance, ids = explanation.of(index)
        assert ids.tolist() == explanation.texts[index].ids.tolist()
        np.testing.assert_allclose(relevance, expected(ids, target), **CLOSE)
    # What is masked gets nothing at all.
    assert explanation.relevance[1, 3:].tolist() == [0] * 5
    words = explanation.words(0)
    assert [word.text for word in words] == ["What", "a", "wonderful", "film", "!"]
    pieces = expected(explanation.texts[0].ids, 1)
    assert words[2].relevance == pytest.approx(pieces[3] + pieces[4], rel=1e-4)
    assert explanation.plot(0).width == explanation.plot(1).width


def test_the_model_sees_what_its_inputs_are_called(tmp_path: Path):
    run = explainer(tmp_path, ALL[::-1])
    texts = run(["a film"], target=0)
    assert list(texts.inputs) == ["input_ids"]
    arrays = run(
        {
            "input_ids": np.array([[2, 5, 6, 3]]),
            "attention_mask": np.ones((1, 4), np.int64),
            "token_type_ids": np.zeros((1, 4), np.int64),
            "position_ids": np.arange(4)[None],
        },
        target=0,
    )
    np.testing.assert_array_equal(texts.relevance, arrays.relevance)
    np.testing.assert_array_equal(texts.scores, arrays.scores)
    with pytest.raises(InputError, match="words are those of texts"):
        arrays.words()


def test_padding_that_the_model_reads_is_not_hidden(tmp_path: Path):
    explanation = explainer(tmp_path, ["input_ids"], length=8)(["a film"], target=0)
    relevance, ids = explanation.of(0)
    assert len(relevance) == len(ids) == 4
    whole = expected(np.array([2, 5, 6, 3, 0, 0, 0, 0]), 0)
    np.testing.assert_allclose(explanation.relevance[0], whole, **CLOSE)
    assert explanation.account().relevance == pytest.approx(whole.sum(), rel=1e-4)


def test_a_list_that_holds_no_texts(tmp_path: Path):
    run = explainer(tmp_path)
    for wrong in ([], [1, 2], ["a", None], "photo.jpg", b"bytes"):
        with pytest.raises(InputError, match="texts as a list of str"):
            run(wrong)


def test_without_a_tokenizer_it_says_where_to_put_one(tmp_path: Path):
    run = explainer(tmp_path)
    (tmp_path / "explainer.tokenizer.json").rename(tmp_path / "mine.json")
    run = onnxlrp.Explainer(tmp_path / "explainer.onnx")
    with pytest.raises(InputError, match=r"put tokenizer\.json beside the explainer"):
        run(["a film"])
    run = onnxlrp.Explainer(tmp_path / "explainer.onnx", tokenizer=tmp_path / "mine.json", most=3)
    with pytest.warns(UserWarning, match="longer than 3 tokens"):
        assert run(["a film"]).relevance.shape == (1, 3)


def test_ids_beyond_the_models_table_ask_for_its_own_tokenizer(tmp_path: Path):
    run = explainer(tmp_path)
    with pytest.raises(
        InputError, match=r"is .*explainer\.tokenizer\.json the model's own tokenizer"
    ):
        run(
            {name: np.full((1, 4), 10_000 * (name == "input_ids")) for name in run.inputs}, target=0
        )
