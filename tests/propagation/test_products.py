"""Products of two live values and softmax, against the definition."""

import numpy as np
import pytest
from support import close, explain, lines, model, node, normal

from onnxlrp import reference

PRODUCTS = {
    "gate": ("Gate", "Mul", (2, 3, 4), (2, 3, 4)),
    "broadcast gate": ("Gate", "Mul", (2, 3, 4, 4), (2, 3, 1, 1)),
    "broadcast signal": ("Gate", "Mul", (2, 3, 1, 1), (2, 3, 4, 4)),
    "product": ("Product", "Mul", (2, 3, 4), (2, 3, 4)),
    "quotient": ("Gate", "Div", (2, 3, 4), (2, 3, 1)),
    "matrix product": ("MatrixProduct", "MatMul", (2, 3, 4), (2, 4, 5)),
    "mixture": ("Mixture", "MatMul", (2, 2, 3, 4), (2, 2, 4, 5)),
    "shared heads": ("MatrixProduct", "MatMul", (2, 4, 3, 5), (2, 1, 5, 3)),
}
"""What an operator on operands of two shapes is called; of gates and mixtures one is bounded."""


@pytest.mark.parametrize("rule", ["signal", "uniform", "taylor"])
@pytest.mark.parametrize("kind", PRODUCTS)
def test_products(kind, rule):
    name, operator, *shapes = PRODUCTS[kind]
    values = {n: normal(*shape, seed=ord(n)) for n, shape in zip("ab", shapes, strict=True)}
    # The weights of a mixture stand on the left, a gate on the right.
    gate = {"Mixture": "a", "Gate": "b"}.get(name) if operator != "Div" else None
    operands = ["g" if n == gate else n for n in "ab"]
    inside = [(1 / (1 + np.exp(-v)) if n == gate else v).astype(float) for n, v in values.items()]
    tested = node(operator, operands)
    features = reference.forward(tested, inside)[0][0].size
    weights = {"rows": np.array([-1, features], np.int64), "readout": normal(features, 3, seed=3)}
    body = [
        *([node("Sigmoid", [gate], "g")] if gate else []),
        tested,
        node("Reshape", ["y", "rows"], "flat"),
        node("Gemm", ["flat", "readout"], "logits"),
    ]
    proto = model(body, {n: ["N", *v.shape[1:]] for n, v in values.items()}, ["logits"], weights)
    composite = lines(f"name=node_y: {rule}", "Gemm: epsilon")
    explained = explain(proto, composite, values, target=[1, 0], inside=["y"])
    applied = next(entry for entry in explained.conversion.nodes if entry.name == "node_y")
    assert applied.operator == name
    # Where both operands are alike there is a signal for the rule of that name only.
    gated = name in ("Gate", "Mixture") or rule == "signal"
    place = {"signal": 1 if name == "Mixture" else 0} if gated else {}
    wanted = reference.propagate(
        node(operator, operands, **place),
        inside,
        [explained.relevance("y")],
        rule,
        dict(applied.parameters),
        [True, True],
    )
    for n, part in zip("ab", wanted.relevance, strict=True):
        expected = np.zeros_like(values[n]) if part is None else part
        close(explained.values[f"relevance_{n}"], expected)


@pytest.mark.parametrize(
    "rule", ["taylor", "taylor bias=exclude", "taylor bias=distribute", "zero"]
)
@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax"])
def test_softmax_inside(operator, axis, rule):
    x = normal(2, 3, 4, seed=1)
    tested = node(operator, ["x"], axis=axis)
    weights = {"rows": np.array([-1, 12], np.int64), "readout": normal(12, 3, seed=3)}
    body = [tested, node("Reshape", ["y", "rows"], "flat"), node("Gemm", ["flat", "readout"], "o")]
    proto = model(body, {"x": ["N", 3, 4]}, ["o"], weights)
    composite = lines(f"name=node_y: {rule}", "Gemm: epsilon")
    explained = explain(proto, composite, {"x": x}, target=[1, 0], inside=["y"])
    applied = next(entry for entry in explained.conversion.nodes if entry.name == "node_y")
    wanted = reference.propagate(
        tested,
        [x.astype(float)],
        [explained.relevance("y")],
        applied.rule,
        dict(applied.parameters),
        [True],
    )
    close(explained.values["relevance"], wanted.relevance[0])


def test_masked_scores_get_nothing():
    x = normal(2, 1, 4, seed=1)
    mask = np.array([[[0, 0, -np.inf, np.finfo(np.float32).min]]], np.float32)
    weights = {"mask": mask, "rows": np.array([-1, 4], np.int64), "readout": normal(4, 3, seed=3)}
    body = [
        node("Add", ["x", "mask"], "scores"),
        node("Softmax", ["scores"]),
        node("Reshape", ["y", "rows"], "flat"),
        node("Gemm", ["flat", "readout"], "o"),
    ]
    proto = model(body, {"x": ["N", 1, 4]}, ["o"], weights)
    relevance = explain(proto, lines("Add: pass", "Gemm: epsilon"), {"x": x}, target=[1, 0]).values[
        "relevance"
    ]
    assert np.isfinite(relevance).all()
    assert np.abs(relevance[..., :2]).min() > 0
    assert not relevance[..., 2:].any()
