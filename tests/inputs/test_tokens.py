"""What a tokenizer's file says of tokens that are no words, for each kind that there is."""

import json
from pathlib import Path

import numpy as np
import pytest

import onnxlrp
from onnxlrp.inputs.tokens import Vocabulary, completed

tokenizers = pytest.importorskip("tokenizers")
from tokenizers import Tokenizer, models, processors  # noqa: E402

WORDS = {word: number for number, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", "film"])}
AROUND = {
    "template": processors.TemplateProcessing("<s> $A </s>", None, [("<s>", 1), ("</s>", 2)]),
    "bert": processors.BertProcessing(("</s>", 2), ("<s>", 1)),
    "roberta": processors.RobertaProcessing(("</s>", 2), ("<s>", 1)),
    "sequence": processors.Sequence(
        [processors.ByteLevel(), processors.BertProcessing(("</s>", 2), ("<s>", 1))]
    ),
}


@pytest.mark.parametrize("kind", AROUND)
def test_what_is_put_around_a_text_is_special(tmp_path, kind):
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="<unk>"))
    tokenizer.post_processor = AROUND[kind]
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    found = Vocabulary.load(tmp_path / "tokenizer.json")
    assert found == Vocabulary(pad=0, mask=None, unknown=3, special=frozenset((1, 2)))


def test_added_tokens_are_special_but_for_the_unknown_one(tmp_path):
    tokenizer = Tokenizer(models.WordPiece({"film": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer.add_special_tokens(["[UNK]", "[CLS]", "[MASK]"])
    tokenizer.add_tokens(["often"])
    tokenizer.enable_padding(pad_id=3, pad_token="[MASK]")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    found = Vocabulary.load(tmp_path / "tokenizer.json")
    assert found == Vocabulary(pad=3, mask=3, unknown=1, special=frozenset((2, 3)))


def test_a_unigram_model_says_its_unknown_token_by_number(tmp_path):
    tokenizer = Tokenizer(models.Unigram([("film", 0.0), ("?", 0.0)], unk_id=1))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert Vocabulary.load(tmp_path / "tokenizer.json") == Vocabulary(unknown=1)


@pytest.mark.parametrize("text", ["[]", "{}", "no json", '{"added_tokens": 3}', "[" * 5000])
def test_what_is_no_tokenizer(tmp_path, text):
    path = Path(tmp_path / "tokenizer.json")
    path.write_text(text)
    with pytest.raises(onnxlrp.InputError, match=r"is not a tokenizer\.json"):
        Vocabulary.load(path)
    path.write_text(json.dumps({"added_tokens": [], "model": {}, "post_processor": 3}))
    with pytest.raises(onnxlrp.InputError, match=r"is not a tokenizer\.json"):
        Vocabulary.load(path)


def test_inputs_follow_from_their_names():
    ids = np.array([[5, 6, 0], [7, 0, 0]])
    inputs = {
        "input_ids": ("int64", ("N", "T")),
        "attention_mask": ("float32", ("N", "T")),
        "segment_ids": ("int32", ("N", "T")),
        "position_ids": ("int64", ("N", "T")),
    }
    found = completed({"input_ids": ids}, inputs, "input_ids", 0)
    assert {name: array.dtype for name, array in found.items()} == {
        name: np.dtype(kind) for name, (kind, _) in inputs.items()
    }
    assert found["attention_mask"].tolist() == [[1, 1, 0], [1, 0, 0]]
    assert found["segment_ids"].tolist() == [[0, 0, 0]] * 2
    assert found["position_ids"].tolist() == [[0, 1, 2]] * 2
    own = np.array([[1, 1, 1], [1, 1, 0]])
    given = {"input_ids": ids, "attention_mask": own}
    assert completed(given, inputs, "input_ids", None)["attention_mask"].tolist() == own.tolist()
