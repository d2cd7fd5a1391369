import builtins
import json
from pathlib import Path

import numpy as np
import pytest
from texts import ALL, VOCABULARY, write_bytes_tokenizer, write_tokenizer

from onnxlrp.errors import InputError
from onnxlrp.inputs.text import Reader, token_input
from onnxlrp.inputs.tokens import beside

TENSOR = ("int64", ("N", "T"))


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    return write_tokenizer(tmp_path / "tokenizer.json")


@pytest.fixture
def read(tokenizer: Path) -> Reader:
    return Reader(tokenizer, dict.fromkeys(ALL, TENSOR), ["input_ids"])


@pytest.fixture
def read_bytes(tmp_path: Path) -> Reader:
    path = write_bytes_tokenizer(tmp_path / "bytes.json")
    return Reader(path, {"input_ids": TENSOR}, ["input_ids"])


def test_a_text_as_its_tokens(read: Reader):
    tokens = read("What a  wonderful film!")
    assert tokens.pieces == ("[CLS]", "what", "a", "wonder", "##ful", "film", "!", "[SEP]")
    assert tokens.ids.tolist() == [VOCABULARY.index(piece) for piece in tokens.pieces]
    assert tokens.special.tolist() == [True, *[False] * 6, True]
    spans = [tokens.text[start:end] for start, end in tokens.offsets[1:-1]]
    assert spans == ["What", "a", "wonder", "ful", "film", "!"]


def test_the_relevance_of_a_word_is_the_sum_over_its_pieces(read: Reader):
    tokens = read("What a  wonderful film!")
    relevance = np.array([9, 1, 2, 4, -8, 0.5, 0.25, 7])
    assert tokens.words(relevance) == [
        ("What", 0, 4, 1),
        ("a", 5, 6, 2),
        ("wonderful", 8, 17, -4),
        ("film", 18, 22, 0.5),
        ("!", 22, 23, 0.25),
    ]
    rows = tokens.table(relevance)
    assert [row["word_relevance"] for row in rows[:5]] == [None, 1, 2, -4, -4]
    assert [row["word_number"] for row in rows] == [-1, 0, 1, 2, 2, 3, 4, -1]
    assert rows[4] == {
        "token": "##ful",
        "id": VOCABULARY.index("##ful"),
        "start": 14,
        "end": 17,
        "special": False,
        "relevance": -8,
        "word": "wonderful",
        "word_number": 2,
        "word_relevance": -4,
    }
    with pytest.raises(InputError, match="8 tokens"):
        tokens.words(relevance[:-1])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cafe\u0301 a", ["cafe\u0301", "a"]),  # an accent that the tokenizer drops
        ("漢好 a", ["漢", "好", "a"]),
        ("a \U0001f600\U0001f3fd a", ["a", "\U0001f600\U0001f3fd", "a"]),
        ("שלום a", ["שלום", "a"]),
        ("\ta\n\n  film ", ["a", "film"]),
        (" \n", []),
    ],
)
def test_words_of_any_script(read: Reader, text: str, words: list[str]):
    tokens = read(text)
    assert [text[start:end] for start, end in tokens.spans()] == words


def test_words_of_a_tokenizer_of_bytes(read_bytes: Reader):
    text = "a 漢字 cafe\u0301 \U0001f600"
    tokens = read_bytes(text)
    assert len(tokens) == len(text.encode())
    words = tokens.words(np.ones(len(tokens)))
    assert [word.text for word in words] == ["a", "漢字", "cafe\u0301", "\U0001f600"]
    # The blank before a word is a byte of it.
    assert [word.relevance for word in words] == [1, 7, 7, 5]


def test_words_where_the_tokenizer_does_not_split_at_blanks(tmp_path: Path):
    from tokenizers import Tokenizer, models

    plain = Tokenizer(models.BPE({letter: n for n, letter in enumerate("ab ▁")}, []))
    plain.save(str(tmp_path / "plain.json"))
    tokens = Reader(tmp_path / "plain.json", {"ids": TENSOR}, ["ids"])("ab  b a")
    words = tokens.words(np.array([1.0, 2, 4, 8, 16, 32, 64]))
    assert [word.text for word in words if word.text.strip()] == ["ab", "b", "a"]
    assert sum(word.relevance for word in words) == 127


def test_other_inputs_are_filled_by_what_they_are(read: Reader):
    feeds = read.feeds([read("a film"), read("dull")])
    assert feeds["input_ids"].tolist() == [[2, 5, 6, 3], [2, 9, 3, 0]]
    assert feeds["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert feeds["token_type_ids"].tolist() == [[0] * 4] * 2
    assert feeds["position_ids"].tolist() == [[0, 1, 2, 3]] * 2
    assert {array.dtype for array in feeds.values()} == {np.dtype(np.int64)}


@pytest.mark.parametrize(
    ("name", "dtype", "values"),
    [
        ("attention_mask", "float32", [1, 1, 1, 1]),
        ("mask", "bool", [1, 1, 1, 1]),
        ("serving_default_input_mask:0", "int32", [1, 1, 1, 1]),
        ("segment_ids", "int32", [0, 0, 0, 0]),
        ("positions", "int64", [0, 1, 2, 3]),
    ],
)
def test_names_and_types_of_other_exporters(tokenizer: Path, name, dtype, values):
    read = Reader(tokenizer, {name: (dtype, ("N", "T")), "words": ("int32", (1, "T"))}, ["words"])
    feeds = read.feeds([read("a film")])
    assert feeds["words"].dtype == np.int32
    assert feeds[name].dtype == dtype
    assert feeds[name].tolist() == [values]


@pytest.mark.parametrize("name", ["global_attention_mask", "padding_mask", "pixel_values"])
def test_an_input_that_is_none_of_these_is_named(tokenizer: Path, name: str):
    with pytest.raises(InputError, match=f"'{name}', int64 \\[N, T\\]"):
        Reader(tokenizer, {"input_ids": TENSOR, name: TENSOR}, ["input_ids"])


def test_without_a_mask_only_texts_of_one_length_go_together(read: Reader, tokenizer: Path):
    bare = Reader(tokenizer, {"input_ids": TENSOR}, ["input_ids"])
    short, long = read("a"), read("a film")
    assert read.together(short, long)
    assert not bare.together(short, long)
    assert bare.together(short, read("dull"))


def test_a_model_of_fixed_length_gets_padding_and_cuts(tokenizer: Path):
    read = Reader(tokenizer, {"input_ids": ("int64", ("N", 4))}, ["input_ids"])
    assert read.feeds([read("a")])["input_ids"].tolist() == [[2, 5, 3, 0]]
    with pytest.warns(UserWarning, match="longer than 4 tokens"):
        tokens = read("a dull film")
    assert tokens.pieces == ("[CLS]", "a", "dull", "[SEP]")
    assert tokens.cut
    assert not read("a film").cut


@pytest.mark.parametrize(("own", "most", "length"), [(3, None, 3), (5, 4, 4), (4, 5, 4)])
def test_the_least_limit_counts(tmp_path: Path, own: int, most: int | None, length: int):
    path = write_tokenizer(tmp_path / "t.json", max_length=own)
    read = Reader(path, {"input_ids": TENSOR}, ["input_ids"], most)
    with pytest.warns(UserWarning, match=f"longer than {length} "):
        assert len(read("a film " * 9)) == length


def test_a_very_long_text(read: Reader):
    tokens = read("a film " * 20_000)
    assert len(tokens) == 40_002
    assert len(tokens.spans()) == 40_000


def test_fewer_tokens_than_the_special_ones(tokenizer: Path):
    read = Reader(tokenizer, {"input_ids": ("int64", ("N", 1))}, ["input_ids"])
    with pytest.raises(InputError, match=r"1 tokens are fewer than tokenizer.json adds"):
        read("a film")


def test_no_tokens_at_all(read_bytes: Reader):
    with pytest.raises(InputError, match="finds no tokens"):
        read_bytes("")


def test_a_fixed_length_without_padding(tmp_path: Path):
    path = write_bytes_tokenizer(tmp_path / "bytes.json")
    with pytest.raises(InputError, match=r"reads 4 tokens, and .* names none for padding"):
        Reader(path, {"input_ids": ("int64", ("N", 4))}, ["input_ids"])


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model": {}}', '{"version": 1e999}'])
def test_a_file_that_is_no_tokenizer(tmp_path: Path, content: str):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"is no tokenizer.json"):
        Reader(path, {"input_ids": TENSOR}, ["input_ids"])


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        # A name that the template knows no token for makes the library panic.
        ("id", "[SEP]", "fails: no entry found for key"),
        ("ids", [], "damaged: it adds tokens without a name"),
    ],
)
def test_a_tokenizer_that_breaks_at_the_first_text(tokenizer: Path, key, value, said):
    content = json.loads(tokenizer.read_text("utf-8"))
    processor = content["post_processor"]
    special = processor["special_tokens"]
    if key == "id":
        special.pop(value)
    else:
        special["[CLS]"]["ids"] = value
    tokenizer.write_text(json.dumps(content))
    read = Reader(tokenizer, {"input_ids": TENSOR}, ["input_ids"])
    with pytest.raises(InputError, match=said):
        read("a film")


def test_without_the_library_it_says_what_to_install(tokenizer: Path, monkeypatch):
    real = builtins.__import__

    def missing(name, *rest, **more):
        if name == "tokenizers":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(InputError, match="pip install tokenizers"):
        Reader(tokenizer, {"input_ids": TENSOR}, ["input_ids"])


def test_what_holds_tokens():
    assert token_input(dict.fromkeys(ALL, TENSOR), ["input_ids"]) == "input_ids"
    assert token_input({"image": ("float32", ("N", 3, 8, 8))}, ["image"]) is None
    assert token_input({"row": ("float32", ("N", 8))}, ["row"]) is None
    assert token_input(dict.fromkeys(ALL, TENSOR), ["input_ids", "position_ids"]) is None


def test_the_tokenizer_beside_a_model(tmp_path: Path):
    model = tmp_path / "reviews.onnx"
    assert beside(model) is None
    (tmp_path / "tokenizer.json").touch()
    assert beside(model) == tmp_path / "tokenizer.json"
    (tmp_path / "reviews.tokenizer.json").touch()
    assert beside(model) == tmp_path / "reviews.tokenizer.json"
