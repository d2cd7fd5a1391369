import numpy as np
import pytest

from onnxlrp.drawing.chart import signal
from onnxlrp.errors import InputError


def red_and_blue(image) -> tuple[np.ndarray, np.ndarray]:
    """Where a drawing is clearly red, and clearly blue, [H, W]."""
    pixels = np.asarray(image).astype(int)
    return pixels[..., 0] > pixels[..., 2] + 60, pixels[..., 2] > pixels[..., 0] + 60


def test_a_signal_is_red_where_it_speaks_for_the_class():
    relevance = np.zeros((1, 100))
    relevance[0, :20], relevance[0, 80:] = 1, -1
    drawn = signal(relevance, np.sin(np.arange(100.0))[None], title="beat")
    # The bar of colours is to the right of the curve.
    red, blue = (np.where(where[:, :800].any(axis=0))[0] for where in red_and_blue(drawn))
    assert red.max() < blue.min()
    assert red.max() - red.min() == pytest.approx(blue.max() - blue.min(), abs=6)


def test_of_many_channels_the_most_relevant_are_drawn():
    relevance = np.zeros((30, 10))
    relevance[17] = 1
    drawn = signal(relevance, np.zeros((30, 10)), title="many")
    assert drawn.height == int(100 * (1.2 + 1.1 * 8))
    assert red_and_blue(drawn)[0][:, :800].any()


def test_what_cannot_be_drawn():
    with pytest.raises(InputError, match=r"relevance \[1, 3\] of values \[1, 4\]"):
        signal(np.ones((1, 3)), np.ones((1, 4)), title="")
    with pytest.raises(InputError, match="NaN"):
        signal(np.full((1, 3), np.nan), np.ones((1, 3)), title="")
