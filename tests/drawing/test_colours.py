import numpy as np
import pytest

from onnxlrp.drawing.colours import coloured
from onnxlrp.errors import InputError


def test_coldnhot_at_its_control_points():
    strength = np.array([-1, -0.5, 0, 1 / 3, 2 / 3, 1])
    expected = [(0, 255, 255), (0, 0, 255), (0, 0, 0), (255, 0, 0), (255, 255, 0), (255, 255, 255)]
    np.testing.assert_allclose(coloured(strength, "coldnhot"), expected, atol=3)


@pytest.mark.parametrize("name", ["red-blue", "coldnhot", "seismic", "PuOr"])
def test_zero_has_a_colour_of_its_own_and_the_ends_differ(name):
    against, zero, speaks_for = coloured(np.array([-1.0, 0.0, 1.0]), name).astype(int)
    assert np.ptp(zero) < 10
    assert np.abs(against - speaks_for).max() > 80


def test_unknown_colours():
    with pytest.raises(InputError, match="no colours 'puce': give red-blue, coldnhot"):
        coloured(np.zeros(1), "puce")
