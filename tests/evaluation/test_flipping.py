"""Curves against their definition, pixel by pixel, without any batching or ranks."""

import numpy as np
import pytest
from PIL import Image

import onnxlrp
from onnxlrp.evaluation import Pictures, Sample
from onnxlrp.evaluation.flipping import Flipping, aopc, area, curves
from onnxlrp.inputs.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(scale=1 / 255, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def pixels(height: int = 6, width: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def replaced(picture, random=None, replacement="uniform"):
    random = random or Flipping().random(0)
    return Pictures("x", PREPROCESSING, replacement).replaced(picture, random)


def score(images: np.ndarray) -> np.ndarray:
    """A function that every value matters to differently."""
    weight = np.random.default_rng(9).normal(size=images.shape[1:])
    return np.tanh((images * weight).sum(axis=(1, 2, 3)) / 10)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("batch", [1, 7, 1000])
@pytest.mark.parametrize("order", ["descending", "ascending"])
def test_curves_are_what_flipping_one_pixel_after_the_other_gives(layout, batch, order):
    preprocessing = Preprocessing(**vars(PREPROCESSING) | {"layout": layout})
    picture, relevance = pixels(), np.random.default_rng(1).normal(size=(6, 5))
    flipping = Flipping(seed=3)
    medium = Pictures("x", preprocessing)
    noise = medium.replaced(picture, flipping.random(11))
    replacing = medium.replacing(Sample("one", 11, {"pixels": picture}, {}), flipping)
    ranks = {"one": flipping.ranks(relevance, order, 11)}
    steps = flipping.steps((6, 5))

    def without(gone: np.ndarray) -> np.ndarray:
        (feeds,) = replacing(gone)
        return score(feeds["x"])

    found = curves(without, ranks, steps, batch)["one"]

    sign = -1 if order == "descending" else 1
    flipped, expected = picture.copy(), []
    todo = sorted(np.ndindex(6, 5), key=lambda place: sign * relevance[place])
    expected.append(score(preprocessing(Image.fromarray(flipped))[None])[0])
    for place in todo:
        flipped[place] = noise[place]
        expected.append(score(preprocessing(Image.fromarray(flipped))[None])[0])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert area(found, steps, 30) == pytest.approx(np.mean(expected))
    assert area(found, steps, 10) == pytest.approx(np.mean(expected[:11]))
    assert aopc(found, steps, 30) == pytest.approx(np.mean(expected[0] - np.array(expected)))


def test_regions_go_by_their_sum_and_the_last_ones_are_smaller():
    relevance = np.zeros((5, 4))
    relevance[0, 0], relevance[4, 3], relevance[2, 2] = 1, 3, -1
    ranks = Flipping(region=2).ranks(relevance, "descending", 0)
    expected = [[2, 2, 3, 3], [2, 2, 3, 3], [4, 4, 6, 6], [4, 4, 6, 6], [5, 5, 1, 1]]
    np.testing.assert_array_equal(ranks, expected)


@pytest.mark.parametrize("order", ["descending", "ascending"])
@pytest.mark.parametrize("size", [(7, 6), (4, 9), (2, 5)])
@pytest.mark.parametrize(("region", "stride"), [(3, 1), (3, 2), (4, 3), (3, 3)])
def test_overlapping_regions_flip_what_is_left_of_them(region, stride, size, order):
    relevance = np.random.default_rng(0).normal(size=size)
    flipping = Flipping(region=region, stride=stride)
    ranks = flipping.ranks(relevance, order, 0)

    corners: list[list[int]] = []
    for n in size:
        starts = [0]
        while starts[-1] + region < n:
            starts.append(starts[-1] + stride)
        corners.append(starts)
    regions = [np.s_[y : y + region, x : x + region] for y in corners[0] for x in corners[1]]
    assert flipping.count(size) == len(regions)
    sign = -1 if order == "descending" else 1
    gone = np.zeros(size, dtype=bool)
    for number, place in enumerate(sorted(regions, key=lambda r: sign * relevance[r].sum()), 1):
        gone[place] = True
        np.testing.assert_array_equal(ranks <= number, gone)
    assert gone.all()


def test_equal_relevance_is_ordered_by_index():
    for order in ("descending", "ascending"):
        ranks = Flipping().ranks(np.zeros((2, 3)), order, 0)
        np.testing.assert_array_equal(ranks, [[1, 2, 3], [4, 5, 6]])


def test_chance_depends_on_seed_and_image_alone():
    one, same, *others = (
        replaced(pixels(), Flipping(seed=seed).random(number))
        for seed, number in ((1, 5), (1, 5), (2, 5), (1, 6))
    )
    np.testing.assert_array_equal(one, same)
    for other in others:
        assert (one != other).mean() > 0.9
    ranks = Flipping(seed=1).ranks(np.ones((6, 5)), "random", 5)
    assert sorted(ranks.ravel()) == list(range(1, 31))
    np.testing.assert_array_equal(ranks, Flipping(seed=1).ranks(np.zeros((6, 5)), "random", 5))


def test_uniform_values_are_uniform():
    drawn = replaced(pixels(200, 200))
    assert (drawn.min(), drawn.max()) == (0, 255)
    assert drawn.mean() == pytest.approx(127.5, abs=1)


def test_the_mean_colour_and_a_blur():
    picture = pixels(40, 40)
    mean = replaced(picture, replacement="mean")
    np.testing.assert_array_equal(mean[3, 7], np.rint(picture.mean(axis=(0, 1))))
    blurred = replaced(picture, replacement="blur")
    assert blurred.std() < picture.std() / 4


def test_steps_end_with_the_last_flip():
    np.testing.assert_array_equal(Flipping(every=4).steps((3, 3)), [0, 4, 8, 9])
    np.testing.assert_array_equal(Flipping(flips=2).steps((3, 3)), [0, 1, 2])
    with pytest.raises(onnxlrp.InputError, match="10 flips where 3x3 make 9"):
        Flipping(flips=10).steps((3, 3))
    with pytest.raises(onnxlrp.InputError, match="regions of 4 are larger than 3x2"):
        Flipping(region=4).count((3, 2))


def test_settings_out_of_range():
    with pytest.raises(
        onnxlrp.InputError, match="replaced by uniform, mean, blur, inpainting, not black"
    ):
        Pictures("x", PREPROCESSING, "black")
    with pytest.raises(onnxlrp.InputError, match="region is at least 1"):
        Flipping(region=0)
    with pytest.raises(onnxlrp.InputError, match="stride of 3 leaves some out"):
        Flipping(region=2, stride=3)


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_a_curve_does_not_depend_on_what_is_judged_beside_it(batch):
    """Even if a run's results depended on how many are in it."""
    ranks = {name: np.random.default_rng(seed).permutation(9) for seed, name in enumerate("abc")}
    steps = np.arange(10)

    def crowded(gone: np.ndarray) -> np.ndarray:
        return gone.sum(axis=1) + 0.01 * len(gone)

    together = curves(crowded, ranks, steps, batch)
    for name, rank in ranks.items():
        np.testing.assert_array_equal(
            curves(crowded, {name: rank}, steps, batch)[name], together[name]
        )
