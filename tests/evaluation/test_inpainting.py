import numpy as np
import pytest

from onnxlrp.evaluation import Flipping, Pictures, Sample
from onnxlrp.evaluation.inpainting import inpainted
from onnxlrp.inputs.preprocessing import Preprocessing


def picture(height: int = 7, width: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_every_pixel_that_is_gone_is_the_weighted_mean_of_its_neighbours(share):
    """The definition, checked pixel by pixel on what comes out."""
    values = picture().astype(np.float32)
    gone = np.random.default_rng(1).random(values.shape[:2]) < share
    out = inpainted(values, gone)
    np.testing.assert_array_equal(out[~gone], values[~gone])
    for y, x in np.argwhere(gone):
        total, weights = np.zeros(3), 0
        for v in range(max(0, y - 1), min(7, y + 2)):
            for u in range(max(0, x - 1), min(6, x + 2)):
                weight = {0: 0, 1: 2, 2: 1}[abs(v - y) + abs(u - x)]
                total += weight * out[v, u]
                weights += weight
        np.testing.assert_allclose(out[y, x], total / weights, rtol=1e-5)


def test_one_pixel_by_hand():
    values = np.array([[1, 2, 3], [4, 0, 6], [7, 8, 9]], np.float32)[..., None]
    gone = np.zeros((3, 3), dtype=bool)
    gone[1, 1] = True
    assert inpainted(values, gone)[1, 1, 0] == pytest.approx(
        (2 * (2 + 4 + 6 + 8) + 1 + 3 + 7 + 9) / 12
    )


def test_where_nothing_is_left_there_is_the_mean():
    values = picture().astype(np.float32)
    out = inpainted(values, np.ones(values.shape[:2], dtype=bool))
    np.testing.assert_allclose(out, np.broadcast_to(values.mean(axis=(0, 1)), out.shape), rtol=1e-6)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_it_commutes_with_preprocessing(layout):
    how = Preprocessing(scale=1 / 255, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), layout=layout)
    gone = np.random.default_rng(1).random((2, 7, 6)) < 0.5
    sample = Sample("one", 0, {"pixels": picture()}, {})
    (feeds,) = Pictures("x", how, "inpainting").replacing(sample, Flipping())(gone)
    found = feeds["x"]
    filled = inpainted(picture().astype(np.float32), gone[1])
    expected = (filled / 255 - how.mean) / how.std
    one = np.moveaxis(found[1], 0, -1) if layout == "NCHW" else found[1]
    np.testing.assert_allclose(one, expected, rtol=1e-5, atol=1e-5)
