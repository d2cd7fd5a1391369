"""How well colours tell for from against, and strong from weak, by every kind of sight.

    pip install colorspacious
    python benchmarks/colours.py [NAME...]

Colours of -1..1 are seen through the dichromacies of Machado, Oliveira and Fernandes (2009,
severity 100), and in grey as a printer has them, and measured in CAM02-UCS (Luo, Cui and Li 2006),
where 1 is about the least difference that is noticed.

sign: of the strengths 0.25, 0.5, 0.75 and 1 the least distance of +v from -v. step: the least
distance of one of these from the one before, the first from 0.
"""

from __future__ import annotations

import sys

import numpy as np
from colorspacious import cspace_convert

from onnxlrp.drawing.colours import coloured

SIGHTS = ("normal", "deuteranomaly", "protanomaly", "tritanomaly", "grey")
NAMES = (
    "orange-blue",
    "red-blue",
    "coldnhot",
    "PuOr_r",
    "BrBG_r",
    "RdYlBu_r",
    "PRGn_r",
    "coolwarm",
)
STRENGTHS = np.array([0, 0.25, 0.5, 0.75, 1])


def seen(strength: np.ndarray, name: str, sight: str) -> np.ndarray:
    """Return J', a', b' of CAM02-UCS, [..., 3]."""
    srgb = coloured(strength, name) / 255
    if sight == "grey":
        linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
        light = linear @ [0.2126, 0.7152, 0.0722]
        grey = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
        srgb = np.repeat(grey[..., None], 3, axis=-1)
    elif sight != "normal":
        space = {"name": "sRGB1+CVD", "cvd_type": sight, "severity": 100}
        srgb = np.clip(cspace_convert(srgb, space, "sRGB1"), 0, 1)
    return cspace_convert(srgb, "sRGB1", "CAM02-UCS")


def main(names: list[str]) -> None:
    """Print a row for each of the colours and sights."""
    print(f"{'colours':12s} {'sight':14s} {'sign':>6s} {'step':>6s}")
    for name in names or NAMES:
        for sight in SIGHTS:
            pro, con = seen(STRENGTHS, name, sight), seen(-STRENGTHS, name, sight)
            sign = np.linalg.norm(pro - con, axis=-1)[1:].min()
            step = np.linalg.norm(np.diff([pro, con], axis=1), axis=-1).min()
            print(f"{name:12s} {sight:14s} {sign:6.1f} {step:6.1f}")


if __name__ == "__main__":
    main(sys.argv[1:])
