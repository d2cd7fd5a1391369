"""Col2Im against its definition."""

import numpy as np
import pytest
from support import crosses_as_defined, node, normal

GEOMETRIES = {
    "side by side": ([4, 6], [2, 3], 4, {"strides": [2, 3]}),
    "overlapping": ([4, 5], [2, 3], 9, {}),
    "strided, padded": ([5, 5], [3, 3], 9, {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "dilated, uneven": ([5, 4], [2, 2], 16, {"dilations": [2, 1], "pads": [0, 1, 1, 0]}),
    "a row": ([6], [3], 4, {}),
}


@pytest.mark.parametrize("rule", ["norm", "epsilon", "z-plus", "flat", "w-square", "gamma"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_blocks(geometry, rule):
    picture, block, places, attributes = GEOMETRIES[geometry]
    tested = node("Col2Im", ["x", "picture", "block"], **attributes)
    x = normal(2, 2 * int(np.prod(block)), places, seed=1)
    sizes = {"picture": np.array(picture), "block": np.array(block)}
    crosses_as_defined(tested, x, rule, sizes)
