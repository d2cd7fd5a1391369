import numpy as np
import pytest
from PIL import Image

from onnxlrp.drawing.heatmap import full_scale, heatmap, overlay
from onnxlrp.errors import InputError


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def one_row(*values: float) -> np.ndarray:
    """Relevance [1, 1, W] that fills the 99.9th percentile with its largest value."""
    return np.array(values, dtype=np.float32).reshape(1, 1, -1)


def test_red_speaks_for_the_class_and_blue_against_it():
    row = pixels(heatmap(one_row(1, 0, -1)))[0, ::75]
    (red, zero, blue) = row[0], row[1], row[2]
    assert red[0] > red[2] + 50
    assert blue[2] > blue[0] + 50
    assert zero.min() > 240


def test_opposite_relevance_is_equally_strong():
    strong = pixels(heatmap(one_row(2, -2)))
    weak = pixels(heatmap(one_row(200, -200)))
    np.testing.assert_array_equal(strong, weak)


def test_zero_is_the_neutral_colour_whatever_the_rest():
    neutral = pixels(heatmap(one_row(0, 0)))[0, 0]
    np.testing.assert_array_equal(pixels(heatmap(one_row(0, 7)))[0, 0], neutral)
    np.testing.assert_array_equal(pixels(heatmap(one_row(0, -7)))[0, 0], neutral)


def test_channels_are_summed_in_either_layout():
    relevance = np.random.default_rng(0).normal(size=(3, 5, 4))
    summed = pixels(heatmap(relevance.sum(axis=0, keepdims=True)))
    np.testing.assert_array_equal(pixels(heatmap(relevance)), summed)
    np.testing.assert_array_equal(pixels(heatmap(relevance.transpose(1, 2, 0), "NHWC")), summed)


def test_a_single_outlier_does_not_bleach_the_map():
    relevance = np.full((1, 100, 100), 1.0)
    calm = pixels(heatmap(relevance))
    relevance[0, 0, 0] = 1e6
    np.testing.assert_array_equal(pixels(heatmap(relevance))[50:, 50:], calm[50:, 50:])


def test_one_relevant_pixel_among_many_still_shows():
    relevance = np.zeros((1, 100, 100))
    relevance[0, 50, 50] = 1e-9
    assert pixels(heatmap(relevance))[151, 151, 0] < 150  # enlarged three times
    assert pixels(heatmap(relevance))[0, 0].min() > 240


def test_no_relevance_at_all_is_blank():
    assert pixels(heatmap(np.zeros((3, 4, 4)))).min() > 240


@pytest.mark.parametrize(
    ("shape", "size"),
    [((3, 32, 32), (224, 224)), ((3, 28, 28), (224, 224)), ((3, 100, 90), (270, 300))],
)
def test_small_maps_are_enlarged_by_a_whole_factor(shape, size):
    relevance = np.random.default_rng(0).normal(size=shape)
    assert heatmap(relevance).size == size
    assert overlay(relevance, Image.new("RGB", shape[:0:-1])).size == size


def test_enlarging_repeats_pixels():
    relevance = np.random.default_rng(0).normal(size=(1, 160, 160))
    drawn = pixels(heatmap(relevance))
    np.testing.assert_array_equal(drawn[::2, ::2], drawn[1::2, 1::2])


def test_a_large_map_keeps_its_size():
    assert heatmap(np.zeros((3, 400, 300))).size == (300, 400)


def test_without_relevance_the_overlay_is_the_photograph_in_grey():
    ramp = np.tile(np.linspace(0, 255, 320).astype(np.uint8), (10, 1))
    drawn = pixels(overlay(np.zeros((1, 10, 320)), Image.fromarray(ramp)))
    assert (np.ptp(drawn, axis=2) == 0).all()
    assert np.ptp(drawn[0, :, 0]) == 150
    assert (np.diff(drawn[0, :, 0]) >= 0).all()


def test_the_overlay_is_coloured_where_the_map_is():
    drawn = pixels(overlay(one_row(1, 0, -1), Image.new("L", (3, 1), 128)))[0, ::75]
    assert drawn[0][0] > drawn[0][2] + 50
    assert np.ptp(drawn[1]) == 0
    assert drawn[2][2] > drawn[2][0] + 50


@pytest.mark.parametrize("light", [20, 230])
@pytest.mark.parametrize("colours", ["red-blue", "orange-blue", "coldnhot"])
def test_strong_relevance_stands_out_of_any_photograph(colours, light):
    """Glowing colours on a darkened photograph, dark ones on a pale one."""
    grey = Image.new("L", (3, 1), light)
    drawn = pixels(overlay(one_row(1, 0, -1), grey, colours=colours))[0, ::75]
    for strong in drawn[[0, 2]]:
        assert np.abs(strong - drawn[1]).max() > 60
    # The scale's own order of lightness: coldnhot's ends are light, the others' dark.
    lightness = drawn.mean(axis=1)
    outwards = lightness[[0, 2]] - lightness[1]
    assert (outwards > 0).all() if colours == "coldnhot" else (outwards < 0).all()


def test_a_picture_with_more_pixels_shows_more_detail():
    stripes = np.tile(np.uint8([0, 255]), (320, 160))
    drawn = pixels(overlay(np.zeros((1, 32, 32)), Image.fromarray(stripes)))
    np.testing.assert_array_equal(drawn[0, :4, 0], [96, 246, 96, 246])


def test_an_overlay_on_another_picture_is_refused():
    with pytest.raises(InputError, match=r"5x6 pixels .* relevance 4x4"):
        overlay(np.zeros((3, 4, 4)), Image.new("RGB", (6, 5)))


def test_a_batch_is_not_a_picture():
    with pytest.raises(InputError, match=r"\(1, 3, 4, 4\)"):
        heatmap(np.zeros((1, 3, 4, 4)))


def test_nan_is_not_painted_over():
    with pytest.raises(InputError, match="NaN"):
        heatmap(np.full((1, 2, 2), np.nan))


def test_one_scale_for_two_maps():
    """Half the relevance is half the way to the full colour, wherever its own percentile is."""
    weak = one_row(0, 1)
    np.testing.assert_array_equal(
        pixels(heatmap(weak, full=2)), pixels(heatmap(one_row(0, 5), full=10))
    )
    own, shared = pixels(heatmap(weak)), pixels(heatmap(weak, full=2))
    assert own[0, -1, 1] < shared[0, -1, 1]


def test_the_scale_is_a_percentile_unless_too_little_is_relevant():
    ramp = np.arange(1001, dtype=np.float64).reshape(1, 7, 143)
    assert full_scale(-ramp) == pytest.approx(999)
    lone = np.zeros((1, 100, 100))
    lone[0, 0, 0] = -3
    assert full_scale(lone) == 3
