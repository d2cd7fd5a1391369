"""Operators that choose and copy elements, against where each element went."""

import numpy as np
import pytest
from onnx import TensorProto
from support import close, crosses_as_defined, explain, lines, model, node, normal

from onnxlrp import reference

CHOICES = {
    "one": (np.array(2), 1),
    "last": (np.array(-1), 1),
    "a range": (np.array([1, 2, 3]), 2),
    "every other": (np.array([0, 2, 4]), 2),
    "backwards, often": (np.array([3, 3, 0, -1]), 2),
    "a table": (np.array([[0, 1], [4, 0]]), 2),
    "first axis behind the batch": (np.array([2, 0]), 1),
}


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("symbolic", [(0,), (0, 3)], ids=["batch", "sizes"])
def test_gather(choice, symbolic):
    indices, axis = CHOICES[choice]
    tested = node("Gather", ["x", "i"], axis=axis)
    x = normal(2, 3, 5, 4, seed=1)
    crosses_as_defined(tested, x, "pass", {"i": indices}, spread=True, symbolic=symbolic)


@pytest.mark.parametrize("shape", [(4,), (3, 1), (2, 3, 4)])
def test_expand(shape):
    tested = node("Expand", ["x", "s"])
    crosses_as_defined(tested, normal(2, 3, 1), "pass", {"s": np.array(shape)}, spread=True)


def test_tile():
    tested = node("Tile", ["x", "n"])
    weights = {"n": np.array([1, 2, 3])}
    crosses_as_defined(tested, normal(2, 3, 4), "pass", weights, spread=True)


@pytest.mark.parametrize("shape", [(3, 4), (1, 4), (3, 1)])
@pytest.mark.parametrize("live", [1, 2])
def test_where_follows_the_branch_taken(live, shape):
    condition = np.random.default_rng(0).integers(0, 2, shape).astype(bool)
    operands = ["c", "x", "w"] if live == 1 else ["c", "w", "x"]
    weights = {"c": condition, "w": normal(4, seed=2)}
    crosses_as_defined(node("Where", operands), normal(2, 3, 4), "pass", weights, spread=True)


def test_tokens_get_what_their_rows_got():
    """Whole numbers choose rows of a table; what compares them carries nothing."""
    table, w = normal(50, 6, seed=1), normal(6, 3, seed=2)
    body = [
        node("Gather", ["table", "tokens"], "e"),
        node("Equal", ["tokens", "pad"], "padded"),
        node("Unsqueeze", ["padded", "end"], "wide"),
        node("Where", ["wide", "zero", "e"], "kept"),
        node("ReduceMean", ["kept", "axis"], "m", keepdims=0),
        node("Gemm", ["m", "w"], "logits"),
    ]
    weights = {
        "table": table,
        "w": w,
        "pad": np.array(0),
        "zero": np.array(0, np.float32),
        "axis": np.array([1]),
        "end": np.array([2]),
    }
    tokens = np.array([[4, 17, 0, 0], [3, 9, 49, 1]])
    proto = model(body, {"tokens": ["N", 4]}, ["logits"], weights, dtype=TensorProto.INT64)
    explained = explain(proto, lines("*: epsilon"), {"tokens": tokens}, target=[1, 2])
    contributions = (table[tokens] * (tokens != 0)[..., None]) @ w / 4
    expected = np.stack([contributions[0, :, 1], contributions[1, :, 2]])
    close(explained.values["relevance"], expected.astype(np.float32), 1e-4)
    assert explained.conversion.nodes[0].operator == "Gather"


def test_a_token_by_the_definition():
    table, tokens = normal(5, 6, seed=1), np.array([[4, 1, 1]])
    tested = node("Gather", ["table", "tokens"])
    relevance = normal(1, 3, 6, seed=3).astype(float)
    done = reference.propagate(tested, [table, tokens], [relevance], "", {}, [False, True])
    np.testing.assert_allclose(done.relevance[1], relevance.sum(axis=-1))
