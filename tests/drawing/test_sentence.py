from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from texts import write_bytes_tokenizer, write_tokenizer

from onnxlrp.drawing.sentence import (
    aside,
    full_scale,
    in_words,
    ink_on,
    page,
    pieces,
    shade,
    styles,
)
from onnxlrp.errors import InputError
from onnxlrp.inputs.text import Reader

INPUTS = {"input_ids": ("int64", ("N", "T"))}


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    return Reader(write_tokenizer(tmp_path / "t.json"), INPUTS, ["input_ids"])


@pytest.fixture
def read_bytes(tmp_path: Path) -> Reader:
    return Reader(write_bytes_tokenizer(tmp_path / "b.json"), INPUTS, ["input_ids"])


def test_a_text_cut_into_tokens_and_what_is_between(read: Reader):
    tokens = read("A  wonderful\nfilm ")
    found = pieces(tokens, np.array([8.0, 1, 2, -3, 4, 16]))
    assert [(piece.text, piece.relevance, piece.special) for piece in found] == [
        ("[CLS]", 8, True),
        (" ", None, False),
        ("A", 1, False),
        ("  ", None, False),
        ("wonder", 2, False),
        ("ful", -3, False),
        ("\n", None, False),
        ("film", 4, False),
        (" ", None, False),
        ("[SEP]", 16, True),
        (" ", None, False),
        (" ", None, False),
    ]


def test_bytes_of_one_sign_and_accents_are_one_piece(read_bytes: Reader):
    text = "e\u0301\U0001f600"
    tokens = read_bytes(text)
    found = pieces(tokens, np.arange(7.0))
    assert [(piece.text, piece.relevance) for piece in found] == [
        ("e\u0301", 0 + 1 + 2),
        ("\U0001f600", 3 + 4 + 5 + 6),
    ]


def test_the_scale_is_that_of_words_and_not_of_special_tokens(read: Reader):
    assert full_scale(read("a film"), np.array([50.0, 1, -2, 70])) == 2
    assert full_scale(read(" "), np.array([-5.0, 3])) == 5


def test_what_is_said_of_words_and_of_the_rest(read: Reader):
    tokens, relevance = read("what a wonderful film"), np.array([0.5, 1, -2, 3, 1.25, 0, -4])
    assert in_words(tokens, relevance) == "for: wonderful +4.25, what +1; against: a -2"
    told = in_words(read("a !"), np.array([0, 1.0, -0.5, 0]))
    assert told == "for: a +1; against: '!' -0.5"
    assert aside(tokens, relevance) == "[CLS] +0.5, [SEP] -4"
    assert aside(tokens, relevance, 0.25) == "[CLS] +0.5, [SEP] -4, padding +0.25"


class Spans(HTMLParser):
    """Collects tags, and the style of each text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.found, self.style = [], {}, ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.style = dict(attributes).get("style", "")

    def handle_endtag(self, tag):
        self.style = ""

    def handle_data(self, data):
        if self.style:
            self.found[data] = self.style


def test_html_colours_tokens_by_their_relevance(read: Reader):
    written = page(read("a dull film"), np.array([9.0, 0, -2, 2, 9]), title="bad & worse")
    found = Spans(written).found
    assert found["film"] == "background: #8f3c00; color: #ffffff"
    assert found["dull"] == "background: #004c7a; color: #ffffff"
    assert found["a"] == "background: #f7f6f7; color: #000000"
    assert "<title>bad &amp; worse</title>" in written
    assert "for: film +2; against: \u2068dull" not in written
    assert "http" not in written


def test_html_obeys_nothing_that_a_text_says(read: Reader):
    text = "<script>alert('a')</script> \"a\" &amp; \x1b[31m\x00 film"
    tokens = read(text)
    written = page(tokens, np.ones(len(tokens)), title="<script>")
    tags = set(Spans(written).tags)
    assert tags == {"html", "meta", "title", "style", "h1", "p", "span"}
    assert "\x1b" not in written
    assert "\x00" not in written
    assert "&amp;" in written


def test_html_of_a_text_from_right_to_left(read: Reader):
    assert '<p class="text" dir="rtl">' in page(read("שלום a"), np.ones(4), title="t")
    assert '<p class="text" dir="ltr">' in page(read("a שלום"), np.ones(4), title="t")


def test_a_text_that_was_cut_says_so(tmp_path: Path):
    short = Reader(write_tokenizer(tmp_path / "t.json"), INPUTS, ["input_ids"], 3)
    with pytest.warns(UserWarning, match="longer than 3"):
        tokens = short("a dull film")
    assert "".join(piece.text for piece in pieces(tokens, np.ones(3))) == "[CLS] a [SEP]  …"


def test_terminal_styles_stand_out_by_strength(read: Reader):
    tokens = read("what a dull film")
    found = dict(styles(tokens, np.array([9.0, 1, 0.3, -0.9, 0.1, 9])))
    assert found["[CLS]"] == "dim"
    assert found["film"] == ""  # too weak to be coloured
    assert found["a"].startswith("#")  # letters alone
    assert " on #" not in found["a"]
    for word in ("what", "dull"):
        assert " on #" in found[word]
    red, _, blue = (int(found["what"][-6:][k : k + 2], 16) for k in (0, 2, 4))
    assert red > blue
    red, _, blue = (int(found["dull"][-6:][k : k + 2], 16) for k in (0, 2, 4))
    assert blue > red


def test_ink_is_legible_on_every_colour():
    assert ink_on((255, 255, 0)) == (0, 0, 0)
    assert ink_on((0, 0, 255)) == (255, 255, 255)


def test_relevance_of_another_length_or_none(read: Reader):
    tokens = read("a film")
    for wrong in (np.ones(3), np.array([1, 2, np.nan, 3])):
        with pytest.raises(InputError, match="one finite number for each"):
            pieces(tokens, wrong)


@pytest.mark.parametrize("colours", ["red-blue", "orange-blue", "coldnhot", "seismic"])
def test_letters_can_be_read_on_every_shade(colours: str):
    def light(colour) -> float:
        """Relative luminance, WCAG 2.1."""
        parts = np.array(colour) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    for strength in np.linspace(-1, 1, 255):
        ground = shade(strength, 1.0, colours)
        low, high = sorted([light(ground), light(ink_on(ground))])
        assert (high + 0.05) / (low + 0.05) >= 4.5
