"""What a conversion does grows as the network does."""

import sys
from collections import Counter

import pytest
from support import model, node, normal

import onnxlrp


def residual(blocks):
    """Build blocks of Conv, Relu, Conv, Add, Relu, one behind the other."""
    nodes, weights, x = [], {"dense": normal(4, 3)}, "x"
    for block in range(blocks):
        a, r, b, s, y = (f"{name}{block}" for name in "arbsy")
        weights |= {f"v{block}": normal(4, 4, 1, 1, seed=block), f"w{block}": normal(4, 4, 1, 1)}
        nodes += [node("Conv", [x, f"v{block}"], a), node("Relu", [a], r)]
        nodes += [node("Conv", [r, f"w{block}"], b), node("Add", [b, x], s), node("Relu", [s], y)]
        x = y
    nodes += [node("GlobalAveragePool", [x], "p"), node("Flatten", ["p"], "f")]
    nodes += [node("Gemm", ["f", "dense"], "logits")]
    return model(nodes, {"x": ["N", 4, 3, 3]}, ["logits"], weights)


def calls(blocks, composite, path):
    """Count the functions that are called to convert and to write a network, by their names."""
    proto, counts = residual(blocks), Counter()

    def count(frame, event, called):
        if event == "call":
            counts[frame.f_code.co_name] += 1
        elif event == "c_call":
            counts[called.__name__] += 1

    sys.setprofile(count)
    try:
        onnxlrp.convert(proto, composite).save(path, check=False)
    finally:
        sys.setprofile(None)
    return counts


@pytest.mark.parametrize("composite", ["epsilon", "epsilon_plus_flat"])
def test_calls_grow_linearly(tmp_path, composite):
    """Blocks 5 and 6 ask for what blocks 3 and 4 ask for."""
    calls(2, composite, tmp_path / "e.onnx")
    first, second, third = (calls(n, composite, tmp_path / "e.onnx") for n in (2, 4, 6))
    assert second.total() - first.total() > 5000
    assert third - second == second - first
