import numpy as np
import pytest
from PIL import Image

from onnxlrp.drawing.sheet import MARGIN, grid, shortened, side_by_side, wrapped
from onnxlrp.errors import InputError


def text_of(image: Image.Image, box: tuple[int, int, int, int]) -> bool:
    """Whether something darker than a light grey is drawn there."""
    return bool((np.asarray(image.convert("L").crop(box)) < 160).any())


def test_three_panels_under_a_title_over_the_scale():
    relevance = np.zeros((3, 8, 8))
    relevance[:, 2, 2] = 1
    sheet = side_by_side(relevance, Image.new("RGB", (8, 8), (10, 200, 10)), title="tench (0)")
    assert sheet.width == 3 * 224 + 2 * MARGIN
    assert sheet.getpixel((5, 100)) == (10, 200, 10)
    # The relevant pixel is 28 times as large, in the second panel.
    red = sheet.getpixel((224 + MARGIN + 2 * 28 + 5, 32 + 2 * 28 + 5))
    assert red[0] > red[2] + 50
    assert text_of(sheet, (0, 0, 100, 28))
    assert text_of(sheet, (150, sheet.height - 30, 400, sheet.height))


def test_equal_relevance_has_equal_colour_on_a_shared_scale():
    weak, strong = np.zeros((2, 1, 8, 8))
    weak[0, 1, 1], strong[0, 1, 1], strong[0, 5, 5] = 1, 1, 4
    at = (1 * 28 + 5, 32 + 1 * 28 + 5)
    one, other = (side_by_side(r, None, title="", full=4).getpixel(at) for r in (weak, strong))
    assert one == other
    assert side_by_side(weak, None, title="").getpixel(at) != one


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
    colours = [drawn.getpixel((MARGIN + x, 100)) for x in (25, 25 + 50 + MARGIN)]
    assert colours == [(255, 0, 0), (0, 0, 255)]


def test_a_grid_with_too_few_headings():
    with pytest.raises(InputError, match="as many headings"):
        grid([[Image.new("RGB", (5, 5))]], ["a", "b"])
