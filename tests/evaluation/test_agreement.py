import math

import numpy as np
import pytest
import scipy.stats

from onnxlrp.errors import InputError
from onnxlrp.evaluation.agreement import agreement


def test_equal_maps_agree_in_everything():
    relevance = np.random.default_rng(0).normal(size=(3, 8, 8))
    found = agreement(relevance, relevance.copy())
    assert found["relative L2"] == found["relative max"] == 0
    for name in ("pearson", "spearman", "cosine", "top 1%", "top 5%", "signs"):
        assert found[name] == pytest.approx(1)


def test_correlations_are_those_of_scipy():
    one, other = np.random.default_rng(0).normal(size=(2, 200))
    other += one
    # Ties, which ranks must share.
    other[:50] = np.round(other[:50])
    found = agreement(one, other)
    assert found["pearson"] == pytest.approx(scipy.stats.pearsonr(one, other).statistic)
    assert found["spearman"] == pytest.approx(scipy.stats.spearmanr(one, other).statistic)
    assert found["cosine"] == pytest.approx(1 - scipy.spatial.distance.cosine(one, other))


def test_distances_by_hand():
    found = agreement(np.array([3.0, 4.0]), np.array([3.0, 2.0]))
    assert found["relative L2"] == pytest.approx(2 / 5)
    assert found["relative max"] == pytest.approx(2 / 4)


def test_the_strongest_and_the_signs_by_hand():
    one = np.array([9.0, -8, 1, 2, 0, 0, 0, 0, 0, 1e-9])
    other = np.array([-9.0, 0, 8, 2, 0, 0, 0, 0, 0, -1e-9])
    found = agreement(one, other, top=[0.2, 0.3])
    assert found["top 20%"] == 0.5  # {0, 1} and {0, 2}
    assert found["top 30%"] == pytest.approx(2 / 3)  # {0, 1, 3} and {0, 2, 3}
    assert found["signs"] == 0.5  # of entries 0, 1, 2, 3: the last two


def test_constant_and_zero_maps_have_values():
    zero, one = np.zeros(4), np.ones(4)
    assert agreement(zero, zero)["pearson"] == agreement(zero, zero)["signs"] == 1
    assert agreement(one, one)["spearman"] == 1
    assert agreement(one, 2 * one)["pearson"] == 0
    assert agreement(one, 2 * one)["cosine"] == pytest.approx(1)
    found = agreement(zero, one)
    assert math.isinf(found["relative L2"])
    assert found["cosine"] == 0
    assert agreement(one, zero)["relative max"] == 1


def test_maps_that_cannot_be_compared():
    with pytest.raises(InputError, match=r"\[3\] and \[4\]"):
        agreement(np.ones(3), np.ones(4))
    with pytest.raises(InputError, match="NaN"):
        agreement(np.array([np.nan]), np.ones(1))


def test_shares_are_called_what_they_are():
    one = np.arange(1000.0)
    found = agreement(one, np.roll(one, 1), top=(0.004, 0.011, 0.014, 0.5))
    assert {"top 0.4%", "top 1.1%", "top 1.4%", "top 50%"} <= set(found)
