"""Where pictures are read between their pixels: what decides where gets no relevance."""

import numpy as np
import pytest
from support import close, explain, lines, model, node, normal

X, GRID = normal(2, 3, 5, 6, seed=1), np.tanh(normal(2, 4, 4, 2, seed=2))


@pytest.mark.parametrize(
    "mode", ["nearest", "linear", pytest.param("cubic", marks=pytest.mark.slow)]
)
def test_a_grid_that_is_computed_gets_none(mode):
    """A spatial transformer: the map of the picture is that under a constant grid."""
    weights = {"r": normal(48, 3, seed=3)}
    body = [node("GridSample", ["x", "grid"], mode=mode), node("Flatten", ["y"], "f")]
    body.append(node("Gemm", ["f", "r"], "logits"))
    shapes = {"x": ["N", 3, 5, 6], "grid": ["N", 4, 4, 2]}
    proto = model(body, shapes, ["logits"], weights, opset=20)
    feeds = {"x": X, "grid": GRID}
    options = {"target": [1, 2], "inside": ["y"]}
    both = explain(proto, lines("*: epsilon"), feeds, inputs=["x", "grid"], **options)
    alone = explain(proto, lines("*: epsilon"), feeds, inputs=["x"], **options)
    close(both.values["relevance_x"], alone.values["relevance"])
    assert not both.values["relevance_grid"].any()
    close(alone.values["relevance"].sum((1, 2, 3)), both.relevance("y").sum((1, 2, 3)), 1e-4)
