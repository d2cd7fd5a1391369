"""Operators that choose and copy elements, against where each element went."""

import numpy as np
import pytest
from onnx import TensorProto, helper
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
@pytest.mark.parametrize("symbolic", [(0,), (0, 3), (0, 1, 2)], ids=["batch", "other", "chosen"])
def test_gather(choice, symbolic):
    indices, axis = CHOICES[choice]
    tested = node("Gather", ["x", "i"], axis=axis)
    x = normal(2, 3, 5, 4, seed=1)
    crosses_as_defined(tested, x, "pass", {"i": indices}, spread=True, symbolic=symbolic)


@pytest.mark.parametrize("symbolic", [(0,), (0, 1, 2)], ids=["known", "symbolic"])
@pytest.mark.parametrize("indices", [1, -1, [0, 2], [[-1, 0], [2, 2]]], ids=str)
def test_gather_where_it_is_computed(indices, symbolic):
    """The last token, say, whose place is counted: the count carries nothing."""
    x, i = normal(2, 3, 5, seed=1), np.array(indices)
    chosen = node("Gather", ["x", "i"], axis=1)
    features = np.take(x, i, axis=1)[0].size
    body = [
        node("ReduceMax", ["x"], "most", keepdims=0),
        node("Mul", ["most", "nothing"], "none"),
        node("Cast", ["none"], "zero", to=TensorProto.INT64),
        node("Add", ["zero", "first"], "i"),
        chosen,
        node("Reshape", ["y", "rows"], "flat"),
        node("Gemm", ["flat", "w"], "logits"),
    ]
    weights = {
        "first": i,
        "nothing": np.array(0, np.float32),
        "rows": np.array([-1, features]),
        "w": normal(features, 3, seed=2),
    }
    shape = [f"s{axis}" if axis in symbolic else size for axis, size in enumerate(x.shape)]
    proto = model(body, {"x": shape}, ["logits"], weights)
    explained = explain(proto, lines("Gemm: epsilon"), {"x": x}, target=[1, 2], inside=["y"])
    wanted = reference.propagate(
        chosen, [x.astype(float), i], [explained.relevance("y")], "", {}, [True, False]
    )
    close(explained.values["relevance"], wanted.relevance[0])


ADDRESSED = {
    "GatherElements": ({"axis": 2}, np.array([[[1, 1, 0], [0, 4, -1], [2, 2, 2]]] * 2)),
    "GatherElements, first": ({"axis": 1}, np.array([[[0, 1, 2, 2, 1]]] * 2)),
    "GatherND": ({}, np.array([[0, 1, 2], [1, 0, 0], [1, 0, 0], [1, 2, -1]])),
    "GatherND, rows": ({}, np.array([[0, 1], [1, 0], [1, 0]])),
    "GatherND, in a batch": ({"batch_dims": 1}, np.array([[[1, 2], [1, 2]], [[0, 0], [2, 4]]])),
}


@pytest.mark.parametrize("symbolic", [(0,), (0, 1, 2)], ids=["known", "symbolic"])
@pytest.mark.parametrize("kind", ADDRESSED)
def test_elements_by_their_address(kind, symbolic):
    attributes, indices = ADDRESSED[kind]
    x = normal(2, 3, 5, seed=1)
    tested = node(kind.split(",")[0], ["x", "i"], **attributes)
    features = reference.forward(tested, [x.astype(float), indices])[0].size
    body = [tested, node("Reshape", ["y", "row"], "flat"), node("Gemm", ["flat", "w"], "logits")]
    weights = {"i": indices, "row": np.array([1, -1]), "w": normal(features, 3, seed=2)}
    shape = [f"s{axis}" if axis in symbolic else size for axis, size in enumerate(x.shape)]
    proto = model(body, {"x": shape}, ["logits"], weights)
    explained = explain(proto, lines("Gemm: epsilon"), {"x": x}, target=[1], inside=["y"])
    wanted = reference.propagate(
        tested, [x.astype(float), indices], [explained.relevance("y")], "", {}, [True, False]
    )
    close(explained.values["relevance"], wanted.relevance[0])


SCATTERED = {
    "ScatterElements": ({"axis": 1}, np.array([[0], [2]]), (2, 1)),
    "ScatterND": ({}, np.array([[0, 1], [1, 4], [1, 0]]), (3,)),
    "ScatterND, rows": ({}, np.array([[1]]), (1, 5)),
}


@pytest.mark.parametrize("live", ["both", "data", "updates"])
@pytest.mark.parametrize("kind", SCATTERED)
def test_what_is_replaced_gets_nothing(kind, live):
    attributes, indices, shape = SCATTERED[kind]
    values = {"x": normal(2, 5, seed=1), "u": normal(*shape, seed=2)}
    fed = {"both": "xu", "data": "x", "updates": "u"}[live]
    tested = node(kind.split(",")[0], ["x", "i", "u"], **attributes)
    body = [tested, node("Gemm", ["y", "w"], "logits")]
    weights = {n: v for n, v in values.items() if n not in fed}
    weights |= {"i": indices, "w": normal(5, 3, seed=3)}
    proto = model(body, {n: values[n].shape for n in fed}, ["logits"], weights)
    feeds = {n: values[n] for n in fed}
    explained = explain(
        proto, lines("Gemm: epsilon"), feeds, target=[1, 2], inside=["y"], inputs=list(fed)
    )
    inside = [values["x"].astype(float), indices, values["u"].astype(float)]
    alive = ["x" in fed, False, "u" in fed]
    wanted = reference.propagate(tested, inside, [explained.relevance("y")], "", {}, alive)
    for name, part in zip("xiu", wanted.relevance, strict=True):
        if name in fed:
            output = f"relevance_{name}" if live == "both" else "relevance"
            close(explained.values[output], part)


@pytest.mark.parametrize("largest", [0, 1])
def test_the_largest_get_what_they_earned(largest):
    x = normal(2, 3, 5, seed=1)
    tested = helper.make_node("TopK", ["x", "k"], ["y", "places"], name="node_y", largest=largest)
    body = [tested, node("Flatten", ["y"], "flat"), node("Gemm", ["flat", "w"], "logits")]
    weights = {"k": np.array([2]), "w": normal(6, 3, seed=2)}
    proto = model(body, {"x": ["N", 3, 5]}, ["logits"], weights)
    explained = explain(proto, lines("Gemm: epsilon"), {"x": x}, target=[1, 0], inside=["y"])
    relevance = explained.relevance("y")
    order = np.argsort(x if not largest else -x, axis=2)[:, :, :2]
    expected = np.zeros_like(x)
    np.put_along_axis(expected, order, relevance, 2)
    close(explained.values["relevance"], expected)
    wanted = reference.propagate(
        tested, [x.astype(float), np.array([2])], [relevance, None], "", {}, [True, False]
    )
    close(explained.values["relevance"], wanted.relevance[0])


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
