"""Numbers by hand, and Gini's index against its definition by all pairs."""

import numpy as np
import pytest
from support import normal

from onnxlrp.errors import InputError
from onnxlrp.evaluation.measures import (
    box_mask,
    complexity,
    mass_accuracy,
    rank_accuracy,
    sparseness,
    summed,
)


def test_sparseness_is_the_mean_difference_of_all_pairs():
    sizes = np.abs(np.random.default_rng(0).normal(size=40))
    pairs = np.abs(sizes[:, None] - sizes[None]).mean() / (2 * sizes.mean())
    assert sparseness(np.where(np.arange(40) % 2, sizes, -sizes)) == pytest.approx(pairs)


def test_sparseness_at_its_ends():
    assert sparseness(np.ones((3, 3))) == pytest.approx(0)
    one = np.zeros(100)
    one[3] = -7
    assert sparseness(one) == pytest.approx(0.99)
    assert sparseness(np.zeros(4)) == 0


def test_complexity_is_an_entropy():
    assert complexity(np.array([[1.0, -1], [1, 1]])) == pytest.approx(np.log(4))
    assert complexity(np.array([0.0, 5, 0])) == 0
    assert complexity(np.array([3.0, -1])) == pytest.approx(
        -0.75 * np.log(0.75) - 0.25 * np.log(0.25)
    )


def test_localisation_by_hand():
    relevance = np.array([[4.0, 3, -9], [2, 1, 0]])
    mask = np.array([[1, 0, 1], [1, 0, 0]])
    assert mass_accuracy(relevance, mask) == pytest.approx(6 / 10)
    # The three most relevant are 4, 3 and 2, of which 4 and 2 are inside.
    assert rank_accuracy(relevance, mask) == pytest.approx(2 / 3)
    with pytest.raises(InputError, match="nothing is inside"):
        mass_accuracy(relevance, np.zeros((2, 3)))


def test_a_box_holds_its_first_row_and_column_but_not_its_last():
    mask = box_mask(np.array([1, 0, 3, 2]), (4, 5))
    np.testing.assert_array_equal(np.argwhere(mask), [[0, 1], [0, 2], [1, 1], [1, 2]])
    assert not box_mask(np.array([6, 0, 9, 2]), (4, 5)).any()


def test_channels_are_summed_wherever_they_are():
    relevance = normal(3, 7, 5)
    wanted = relevance.sum(axis=0, dtype=float)
    for given in (relevance, relevance.transpose(1, 2, 0), wanted):
        np.testing.assert_allclose(summed(given, (7, 5)), wanted, rtol=1e-6)
    with pytest.raises(InputError, match=r"a map \[3, 7, 5\] for a picture of 5x7"):
        summed(relevance, (5, 7))
