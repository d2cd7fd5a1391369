from pathlib import Path

import numpy as np
import pytest
from texts import write_tokenizer

from onnxlrp.drawing import typeset
from onnxlrp.drawing.sheet import MARGIN
from onnxlrp.drawing.typeset import LEADING, WIDTH, sentence
from onnxlrp.inputs.text import Reader


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    inputs = {"input_ids": ("int64", ("N", "T"))}
    return Reader(write_tokenizer(tmp_path / "t.json"), inputs, ["input_ids"])


def columns(drawn, colour: tuple[int, int, int]) -> list[int]:
    """Columns of the picture's upper part that hold a colour, as a ground."""
    pixels = np.asarray(drawn)[:100]
    return np.flatnonzero((pixels == colour).all(axis=2).sum(axis=0) > 5).tolist()


ORANGE, BLUE = (0x8F, 0x3C, 0x00), (0x00, 0x4C, 0x7A)


def test_tokens_stand_on_their_colours_in_the_order_of_the_text(read: Reader):
    drawn = sentence(read("film dull"), np.array([0.0, 1, -1, 0]), title="class 1")
    assert drawn.width == WIDTH + 2 * MARGIN
    orange, blue = columns(drawn, ORANGE), columns(drawn, BLUE)
    assert orange
    assert blue
    # "against" and its key are below the hundredth row's left end: only the text is compared.
    assert min(orange) < min(blue)
    assert len(orange) == pytest.approx(typeset.font(typeset.LETTERS).getlength("film"), abs=2)


def test_hebrew_goes_from_right_to_left(read: Reader):
    drawn = sentence(read("שש film dull"), np.array([0.0, 0, 1, -1, 0]), title="class 1")
    orange, blue = columns(drawn, ORANGE), columns(drawn, BLUE)
    # English words inside keep their own order; all of it is set flush right.
    assert min(orange) < min(blue)
    assert min(orange) > WIDTH / 2


def test_lines_are_broken_between_words_and_long_words_anywhere(read: Reader):
    one = sentence(read("film"), np.zeros(3), title="")
    words = read("film " * 60)
    many = sentence(words, np.zeros(len(words)), title="")
    per_line = int((WIDTH + 5) / typeset.font(typeset.LETTERS).getlength("film "))
    assert (many.height - one.height) // LEADING == pytest.approx(60 / per_line, abs=1)
    long = read("x" * 400)
    assert sentence(long, np.zeros(3), title="").height > one.height + 4 * LEADING
    lines = read("a\n\na")
    assert sentence(lines, np.zeros(4), title="").height == one.height + 2 * LEADING


def test_a_text_of_thousands_of_lines_ends_in_an_ellipsis(read: Reader, monkeypatch):
    monkeypatch.setattr(typeset, "MOST_LINES", 3)
    tokens = read("film\n" * 50)
    drawn = sentence(tokens, np.zeros(len(tokens)), title="")
    one = sentence(read("film"), np.zeros(3), title="")
    assert drawn.height == one.height + 3 * LEADING


@pytest.mark.parametrize("colours", ["red-blue", "coldnhot", "orange-blue"])
@pytest.mark.parametrize("text", ["漢字 \U0001f600 e\u0301 \x1b[31m\x00", "العربية", " ", "\u200d"])
def test_any_text_is_drawn_in_any_colours(read: Reader, text: str, colours: str):
    tokens = read(text)
    relevance = np.linspace(-1, 1, len(tokens))
    drawn = sentence(tokens, relevance, title=text, padding=0.5, colours=colours, full=2.0)
    assert drawn.height > 3 * LEADING
