import numpy as np
import pytest

from onnxlrp.drawing import panels
from onnxlrp.drawing.bars import MARGIN, STEP, WIDTH, bars, in_words, longest
from onnxlrp.errors import InputError


def red_and_blue(image) -> tuple[np.ndarray, np.ndarray]:
    """Where a drawing is clearly red, and clearly blue, [H, W]."""
    pixels = np.asarray(image).astype(int)
    return pixels[..., 0] > pixels[..., 2] + 60, pixels[..., 2] > pixels[..., 0] + 60


def lengths(where: np.ndarray) -> list[int]:
    """How long each bar is, from the top."""
    found = where.sum(axis=1)
    starts = np.flatnonzero((found > 0) & (np.roll(found, 1) == 0))
    return [int(found[start + 3]) for start in starts]


def test_bars_are_as_long_as_the_relevance_is_large_the_longest_on_top():
    red, blue = red_and_blue(bars(np.array([1.0, -2.0, 4.0]), np.ones(3), title="row"))
    four, one = lengths(red)
    (two,) = lengths(blue)
    assert four == pytest.approx(4 * one, abs=4)
    assert four == pytest.approx(2 * two, abs=3)
    rows = [np.flatnonzero(where.any(axis=1)) for where in (red, blue)]
    assert rows[0].min() + STEP == rows[1].min()
    # To the right for it, from where bars against it end.
    columns = [np.flatnonzero(where.any(axis=0)) for where in (red, blue)]
    assert 0 <= columns[0].min() - columns[1].max() <= 2


def test_features_beyond_the_strongest_are_one_bar():
    relevance = np.full(500, -0.1)
    relevance[100:120] = 1
    drawn = bars(relevance, np.ones(500), title="row")
    red, blue = (lengths(where) for where in red_and_blue(drawn))
    # 480 times -0.1, the last of 21 bars.
    assert len(red) == 20
    assert blue[0] == pytest.approx(48 * np.mean(red), rel=0.06)
    assert longest(relevance) == pytest.approx(48)
    assert drawn.height < 22 * STEP + 3 * 20


def test_a_shared_scale_is_kept_whatever_the_row():
    """Zero is in one place, and a bar of half the scale takes half the room of its side."""
    ends = []
    for relevance in (np.array([2.0, 0.0]), np.array([2.0, -1.0])):
        red, _ = red_and_blue(bars(relevance, np.array([7.0, 7.0]), title="", full=4))
        ends.append(np.flatnonzero(red.any(axis=0))[[0, -1]])
    assert ends[0].tolist() == ends[1].tolist()


@pytest.mark.parametrize("count", [1, 3])
def test_relevance_of_zero_has_no_bar(count: int):
    drawn = bars(np.zeros(count), np.ones(count), title="nothing")
    assert drawn.width == WIDTH + 2 * MARGIN
    assert not any(where.any() for where in red_and_blue(drawn))
    assert (np.asarray(drawn) < 100).any()


def test_one_feature_fills_the_room_there_is():
    red, _ = red_and_blue(bars(np.array([3.0]), np.ones(1), title="", names=["x"]))
    assert lengths(red)[0] > 0.8 * WIDTH


def test_a_long_name_leaves_the_bars_room_and_its_value_is_told():
    name = "a name that is too long by far " * 5
    longer, shorter = (
        np.asarray(bars(np.ones(1), np.array([v]), title="", names=[name])) for v in (0.5, 0.25)
    )
    assert lengths(red_and_blue(longer)[0])[0] > 0.4 * WIDTH
    differ = np.flatnonzero((longer != shorter).any(axis=(0, 2)))
    assert len(differ)
    # The value, not the bar.
    assert differ.max() < np.flatnonzero(red_and_blue(longer)[0].any(axis=0)).min()


def test_in_words_what_speaks_for_and_against():
    values = np.array([3.0, 0.25, np.nan, 1e9, -0.0])
    relevance = np.array([0.5, -2.0, 1.0, 0.25, 0.0])
    names = ["age", "rate", "pay", "far", "none"]
    said = in_words(relevance, values, names, most=2)
    assert said == "for: pay is missing +1, age = 3 +0.5; against: rate = 0.25 -2"
    assert (
        in_words(relevance[:2], values) == "for: feature 0 = 3 +0.5; against: feature 1 = 0.25 -2"
    )
    assert in_words(np.zeros(2), values) == ""
    words = np.array(["male", "x" * 30, 1.5], object)
    said = in_words(np.array([1.0, -1, -2]), words, ["sex", "long", "rate"])
    assert said == f"for: sex = male +1; against: rate = 1.5 -2, long = {'x' * 20}... -1"


def test_the_bars_take_the_colours_that_are_asked_for():
    relevance = np.array([2.0, -2.0])
    drawn = panels.sheet(relevance, relevance, None, title="row", colours="PRGn_r")
    red, green, blue = np.moveaxis(np.asarray(drawn).astype(int), -1, 0)
    # Green for the class, purple against it.
    assert (green > np.maximum(red, blue) + 40).any()
    assert (np.minimum(red, blue) > green + 40).any()


def test_a_name_of_two_lines_is_drawn_on_one():
    broken, plain = (
        bars(np.array([1.0, -1]), np.ones(2), title="row", names=[name, "pay"])
        for name in ("net\nincome", "net income")
    )
    np.testing.assert_array_equal(np.asarray(broken), np.asarray(plain))


def test_what_cannot_be_drawn():
    with pytest.raises(InputError, match=r"relevance \[3\] of values \[4\]"):
        bars(np.ones(3), np.ones(4), title="")
    with pytest.raises(InputError, match="NaN"):
        bars(np.full(3, np.nan), np.ones(3), title="")
