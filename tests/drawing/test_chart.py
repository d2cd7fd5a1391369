import numpy as np
import pytest

from onnxlrp.drawing import panels
from onnxlrp.drawing.chart import signal, table
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


def test_bars_are_as_long_as_the_relevance_is_large():
    relevance = np.array([1.0, -2.0, 4.0])
    red, blue = red_and_blue(table(relevance, np.ones(3), title="row"))
    lengths = [int(where.sum(axis=1).max()) for where in (red, blue)]
    assert lengths[0] == pytest.approx(2 * lengths[1], abs=4)
    assert np.where(red)[0].min() < np.where(blue)[0].min()


def test_features_beyond_the_strongest_are_one_bar():
    relevance = np.full(50, -0.1)
    relevance[:20] = 1
    red, blue = red_and_blue(table(relevance, np.ones(50), title="row"))
    # Thirty times -0.1.
    assert int(blue.sum(axis=1).max()) == pytest.approx(3 * int(red.sum(axis=1).max()), rel=0.02)


def test_the_bars_take_the_colours_that_are_asked_for():
    relevance = np.array([2.0, -2.0])
    drawn = panels.sheet(relevance, relevance, None, title="row", colours="PRGn_r")
    red, green, blue = np.moveaxis(np.asarray(drawn).astype(int), -1, 0)
    # Green for the class, purple against it.
    assert (green > np.maximum(red, blue) + 40).any()
    assert (np.minimum(red, blue) > green + 40).any()


def test_what_cannot_be_drawn():
    with pytest.raises(InputError, match=r"relevance \[3\] of values \[4\]"):
        table(np.ones(3), np.ones(4), title="")
    with pytest.raises(InputError, match="NaN"):
        signal(np.full((1, 3), np.nan), np.ones((1, 3)), title="")
