"""What an audit books where tokens attend to each other."""

import numpy as np
import pytest
from audit.networks import explained, multiplied
from support import model, node, normal

from onnxlrp.audit import check

SHAPES = {"query": (8, 8), "key": (8, 8), "value": (8, 8), "wide": (8, 12), "narrow": (12, 8)}
RULES = ("Softmax: taylor", "Mixture,MatrixProduct: uniform", "LayerNormalization: epsilon")


def transformer(mask: float):
    """A class token, positions, one block with masked attention and a GELU; x [N, 4, 6]."""
    nodes = [
        node("MatMul", ["x", "embedding"], "embedded"),
        node("Concat", ["class", "embedded"], "tokens", axis=1),
        node("Add", ["tokens", "positions"], "h"),
        node("LayerNormalization", ["h", "scale", "shift"], "n"),
        *(node("MatMul", ["n", name], name + "s") for name in ("query", "key", "value")),
        node("Transpose", ["keys"], "turned", perm=[0, 2, 1]),
        node("MatMul", ["querys", "turned"], "logits"),
        node("Add", ["logits", "mask"], "masked"),
        node("Softmax", ["masked"], "weights"),
        node("MatMul", ["weights", "values"], "mixed"),
        node("Add", ["mixed", "h"], "attended"),
        node("MatMul", ["attended", "wide"], "hidden"),
        node("Gelu", ["hidden"], "active"),
        node("MatMul", ["active", "narrow"], "back"),
        node("Add", ["back", "attended"], "out"),
        node("Gather", ["out", "first"], "row", axis=1),
        node("Gemm", ["row", "readout", "bias"], "score"),
    ]
    weights = {
        name: normal(*shape, seed=seed, scale=0.2)
        for seed, (name, shape) in enumerate(SHAPES.items())
    }
    weights |= {
        "embedding": normal(6, 8, seed=10, scale=0.4),
        "class": normal(1, 1, 8, seed=11),
        "positions": normal(1, 5, 8, seed=12),
        "scale": np.abs(normal(8, seed=13)) + 0.5,
        "shift": normal(8, seed=14, scale=0.3),
        "mask": np.where(np.arange(5) == 4, mask, 0).astype(np.float32),
        "first": np.array(0),
        "readout": normal(8, 3, seed=15),
        "bias": normal(3, seed=16),
    }
    return model(nodes, {"x": [1, 4, 6]}, ["score"], weights, opset=20)


@pytest.mark.parametrize("mask", [-np.inf, -1e9, -2.0])
def test_constants_class_token_and_softmax_are_booked(mask):
    proto = transformer(mask)
    audit = check(proto, explained(proto, *RULES), normal(1, 4, 6, seed=1))
    assert audit.passed
    assert audit.outputs == {"score": pytest.approx(0, abs=1e-5)}
    entries = {o.name: entry for entry in audit.layers for o in entry.operations}
    assert not any(o.skipped for entry in audit.layers for o in entry.operations)
    assert all(entry.leak <= 1e-6 for entry in audit.layers)
    # The class token, positions, softmax's own share, and biases.
    takers = ("node_tokens", "node_h", "node_weights", "node_n", "node_score")
    assert all(abs(entries[name].bias) > 1e-3 * audit.scale for name in takers)
    taken = sum(entry.bias + entry.stabiliser for entry in audit.layers)
    assert audit.heatmap + taken == pytest.approx(audit.score, rel=1e-5)
    if mask < -2:
        assert entries["node_masked"].bias == 0


@pytest.mark.parametrize("value", ["logits", "masked", "weights", "values", "n", "embedded"])
def test_what_is_lost_on_the_way_is_seen(value):
    """The negative control, at each place where relevance is divided up."""
    proto = transformer(-np.inf)
    whole = explained(proto, *RULES, intermediates=[value])
    broken = multiplied(whole, f"onnxlrp/relevance/{value}", 1.01)
    audit = check(proto, broken, normal(1, 4, 6, seed=1))
    assert not audit.passed
    assert any(entry.differs for entry in audit.layers)
    # Softmax takes a hundred times what it lets through: there 1 % is little beside it.
    assert any(entry.leaks for entry in audit.layers) == (value != "masked")
