import numpy as np
import pytest

from onnxlrp.drawing.colours import coloured
from onnxlrp.drawing.default_colours import DEFAULT_COLOURS
from onnxlrp.errors import InputError


def test_coldnhot_at_its_control_points():
    strength = np.array([-1, -0.5, 0, 1 / 3, 2 / 3, 1])
    expected = [(0, 255, 255), (0, 0, 255), (0, 0, 0), (255, 0, 0), (255, 255, 0), (255, 255, 255)]
    np.testing.assert_allclose(coloured(strength, "coldnhot"), expected, atol=3)


@pytest.mark.parametrize("name", ["red-blue", "orange-blue", "coldnhot", "seismic"])
def test_zero_has_a_colour_of_its_own_and_the_ends_differ(name):
    against, zero, speaks_for = coloured(np.array([-1.0, 0.0, 1.0]), name).astype(int)
    assert np.ptp(zero) < 10
    assert np.abs(against - speaks_for).max() > 80


# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
SEEN = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
LAB = [[0.4339, 0.3762, 0.1899], [0.2127, 0.7152, 0.0722], [0.0178, 0.1095, 0.8727]]
"""Linear sRGB to X, Y, Z in units of the white point D65."""


def lab(colour: np.ndarray, seen: list[list[float]]) -> np.ndarray:
    """CIE L*a*b* of sRGB 0..255, [..., 3], as somebody with that sight sees it."""
    srgb = colour / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    xyz = np.clip(linear @ np.transpose(seen), 0, 1) @ np.transpose(LAB)
    x, y, z = np.moveaxis(np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


@pytest.mark.parametrize("sight", SEEN)
def test_the_colour_blind_tell_for_from_against_best_in_the_default(sight):
    """Distances of opposite colours in L*a*b*, where 2 to 3 is the least that is noticed."""
    strength = np.array([0.25, 0.5, 0.75, 1.0])
    apart = {
        name: np.linalg.norm(
            lab(coloured(strength, name).astype(float), SEEN[sight])
            - lab(coloured(-strength, name).astype(float), SEEN[sight]),
            axis=-1,
        )
        for name in ("red-blue", DEFAULT_COLOURS)
    }
    assert apart["red-blue"].min() > 20
    assert apart[DEFAULT_COLOURS].min() > 40
    assert apart[DEFAULT_COLOURS].min() > apart["red-blue"].min()


def test_unknown_colours():
    with pytest.raises(InputError, match="no colours 'puce': give orange-blue, red-blue, coldnhot"):
        coloured(np.zeros(1), "puce")
