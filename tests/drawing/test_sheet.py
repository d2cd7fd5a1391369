import numpy as np
import pytest
from PIL import Image

from onnxlrp.drawing.sheet import LINE, MARGIN, grid, shortened, side_by_side, wrapped
from onnxlrp.errors import InputError

HEAD = 2 * (LINE + MARGIN // 2)
"""Height of a title and a line of headings."""


def text_of(image: Image.Image, box: tuple[int, int, int, int]) -> bool:
    """Whether something darker than a light grey is drawn there."""
    return bool((np.asarray(image.convert("L").crop(box)) < 160).any())


def test_three_panels_under_headings_over_the_scale():
    relevance = np.zeros((3, 8, 8))
    relevance[:, 2, 2] = 1
    sheet = side_by_side(relevance, Image.new("RGB", (8, 8), (10, 200, 10)), title="tench (0)")
    assert sheet.width == 3 * 224 + 4 * MARGIN
    top = HEAD
    assert sheet.getpixel((MARGIN + 5, top + 5)) == (10, 200, 10)
    # The relevant pixel is 28 times as large, in the second panel.
    red = sheet.getpixel((2 * MARGIN + 224 + 2 * 28 + 5, top + 2 * 28 + 5))
    assert red[0] > red[2] + 50
    assert text_of(sheet, (0, 0, 100, LINE))
    for column in range(3):
        left = MARGIN + column * (224 + MARGIN)
        assert text_of(sheet, (left, LINE + MARGIN // 2, left + 100, top))
        assert not text_of(sheet, (left + 150, LINE + MARGIN // 2, left + 224, top))


def test_the_scale_says_which_end_is_against_and_which_for():
    for picture in (None, Image.new("RGB", (8, 8))):
        sheet = side_by_side(np.ones((3, 8, 8)), picture, title="")
        foot = np.asarray(sheet).astype(int)[HEAD - LINE - MARGIN // 2 + 224 + 4 :]
        red = np.where(foot[..., 0] > foot[..., 2] + 40)[1]
        blue = np.where(foot[..., 2] > foot[..., 0] + 40)[1]
        assert blue.max() < red.min()
        below = (0, sheet.height - len(foot), sheet.width, sheet.height)
        ink = np.where(np.asarray(sheet.convert("L").crop(below)) < 60)[1]
        assert (ink < blue.min()).any()
        assert (ink > red.max()).any()
        # The scale's number, in grey, is whole: beside the bar, or below it.
        assert sheet.width == (248 if picture is None else 720)


def test_equal_relevance_has_equal_colour_on_a_shared_scale():
    weak, strong = np.zeros((2, 1, 8, 8))
    weak[0, 1, 1], strong[0, 1, 1], strong[0, 5, 5] = 1, 1, 4
    at = (MARGIN + 1 * 28 + 5, HEAD + 1 * 28 + 5)
    one, other = (side_by_side(r, None, title="t", full=4).getpixel(at) for r in (weak, strong))
    assert one == other
    assert side_by_side(weak, None, title="t").getpixel(at) != one


def test_long_titles_are_shortened_and_headings_wrapped():
    short = shortened("a very long name of a class " * 20, 200)
    assert short.endswith("...")
    assert len(short) < 60
    lines = wrapped("binder2016_epsilon; epsilon=0.01; LRN: taylor-unnormalised", 200)
    assert len(lines) == 3
    assert " ".join(lines) == "binder2016_epsilon; epsilon=0.01; LRN: taylor-unnormalised"


def test_signs_that_the_font_lacks_are_spelled():
    assert shortened("漢 ±·", 500) == "U+6F22  ±·"


def test_a_grid_has_panels_of_one_size():
    small, large = Image.new("RGB", (50, 40), "red"), Image.new("RGB", (100, 80), "blue")
    drawn = grid([[small, large], [large, small]], ["a", "b"], ["first", "second"], title="all")
    assert drawn.width == 2 * (50 + MARGIN) + MARGIN
    colours = [drawn.getpixel((MARGIN + x, HEAD + 20)) for x in (25, 25 + 50 + MARGIN)]
    assert colours == [(255, 0, 0), (0, 0, 255)]


def test_a_grid_with_too_few_headings():
    with pytest.raises(InputError, match="as many headings"):
        grid([[Image.new("RGB", (5, 5))]], ["a", "b"])


def test_a_long_caption_is_wrapped_and_not_cut():
    panel = Image.new("RGB", (200, 40), "red")
    short, long = (grid([[panel]], ["a"], [caption]) for caption in ("one", "score " * 60))
    assert short.size[0] == long.size[0]
    assert long.height >= short.height + 8 * LINE
    assert text_of(long, (0, long.height - LINE - MARGIN, 224, long.height))
