"""Sums of live values, constant terms and factors, and BatchNormalization on its own."""

import numpy as np
import pytest
from support import (
    close,
    crosses_as_defined,
    explain,
    lines,
    model,
    node,
    normal,
    run,
    with_outputs,
)

from onnxlrp import reference

RULES = [
    ("norm", {}),
    ("epsilon", {"epsilon": 0.5}),
    ("epsilon", {"bias": "exclude"}),
    ("epsilon", {"bias": "distribute"}),
    ("z-plus", {}),
    ("alpha-beta", {"alpha": 2, "beta": 1}),
    ("beta", {"beta": 0.5, "bias": "distribute"}),
    ("flat", {}),
    ("gamma", {"gamma": 0.5}),
    ("gamma-original", {"stabiliser": 0.1}),
    ("w-square", {}),
    ("z-box", {"low": -4, "high": 4}),
]
CONSTANTS = {
    "Add": lambda c: node("Add", ["x", "c"]),
    "Add in front": lambda c: node("Add", ["c", "x"]),
    "Sub": lambda c: node("Sub", ["x", "c"]),
    "Sub from": lambda c: node("Sub", ["c", "x"]),
    "Mul": lambda c: node("Mul", ["x", "c"]),
    "Div": lambda c: node("Div", ["x", "c"]),
}


@pytest.mark.parametrize(("rule", "parameters"), RULES)
@pytest.mark.parametrize("shape", [(), (4, 1, 1), (2, 4, 3, 3)], ids=["scalar", "channel", "each"])
@pytest.mark.parametrize("op", CONSTANTS)
def test_constants(op, shape, rule, parameters):
    tested = CONSTANTS[op]("c")
    c = normal(*shape, seed=1)
    crosses_as_defined(tested, normal(2, 4, 3, 3), rule, {"c": c}, symbolic=(), **parameters)


@pytest.mark.parametrize(("rule", "parameters"), RULES)
def test_batch_normalization_that_nothing_can_take(rule, parameters):
    weights = {
        "gamma": normal(4, seed=1),
        "beta": normal(4, seed=2),
        "mean": normal(4, seed=3),
        "variance": np.abs(normal(4, seed=4)),
    }
    tested = node("BatchNormalization", ["x", *weights])
    crosses_as_defined(tested, normal(2, 4, 3, 3), rule, weights, **parameters)


BRANCHES = {
    "Add": (node("Add", ["p", "q"]), (2, 4)),
    "Sub": (node("Sub", ["p", "q"]), (2, 4)),
    "Add broadcast": (node("Add", ["p", "q"]), (2, 1)),
    "Sum of three": (node("Sum", ["p", "q", "x"]), (2, 4)),
    "Mean of three": (node("Mean", ["p", "q", "x"]), (2, 4)),
    "Add with itself": (node("Add", ["p", "p"]), (2, 4)),
}


@pytest.mark.parametrize("op", BRANCHES)
@pytest.mark.parametrize(("rule", "parameters"), RULES)
def test_live_operands_share_in_proportion(op, rule, parameters):
    """A fork and a join: x -> (p, q) -> y, with every message of eqs. 3-7 summed as in eq. 4."""
    joined, shape = BRANCHES[op]
    weights = {
        "w": normal(4, 4, seed=1),
        "v": normal(4, shape[1], seed=2),
        "readout": normal(4, 3, seed=3),
    }
    body = [
        node("Gemm", ["x", "w"], "p"),
        node("Gemm", ["x", "v"], "q"),
        joined,
        node("Gemm", ["y", "readout"], "logits"),
    ]
    proto = model(body, {"x": [2, 4]}, ["logits"], weights)
    written = " ".join(f"{key}={value}" for key, value in parameters.items())
    composite = lines(f"name=node_y: {rule} {written}", "Gemm: epsilon epsilon=0.1")
    x = normal(2, 4, seed=5)
    explained = explain(proto, composite, {"x": x})
    rules = {
        entry.name: (entry.rule, dict(entry.parameters)) for entry in explained.conversion.nodes
    }
    expected = reference.explain(proto, {"x": x}, lambda n: rules[n.name], ["x"], "logits")
    close(explained.values["relevance"], expected["x"])


@pytest.mark.parametrize("rule", ["epsilon", "z-plus", "alpha-beta", "gamma", "flat", "w-square"])
@pytest.mark.parametrize("operator", ["Mul", "Div"])
def test_an_operand_that_a_constant_broadcasts(operator, rule):
    """[N, 3, 1, 1] times [3, 4, 5]: an element of x has a contribution to each of its copies."""
    weights = {"w": normal(3, 4, 5, seed=2) + 2}
    crosses_as_defined(node(operator, ["x", "w"]), normal(2, 3, 1, 1, seed=1), rule, weights)


@pytest.mark.parametrize("rule", ["epsilon", "norm", "z-plus", "alpha-beta", "flat"])
def test_a_sign_is_a_weight(rule):
    crosses_as_defined(node("Neg", ["x"]), normal(2, 3, 4, seed=1), rule)


REDUCTIONS = {
    "ReduceL1": np.abs,
    "ReduceL2": np.square,
    "ReduceSumSquare": np.square,
    "ReduceLogSumExp": np.exp,
    "ReduceLogSum": lambda x: x,
}
"""What the elements share in proportion to."""


@pytest.mark.parametrize("operator", REDUCTIONS)
def test_reductions_share_in_proportion_to_what_they_add_up(operator):
    x = normal(2, 3, 5, seed=1) if operator != "ReduceLogSum" else np.abs(normal(2, 3, 5, seed=1))
    body = [node(operator, ["x", "axis"], keepdims=0), node("Gemm", ["y", "r"], "logits")]
    weights = {"axis": np.array([2]), "r": normal(3, 3, seed=2)}
    proto = model(body, {"x": ["N", 3, 5]}, ["logits"], weights)
    composite = lines("*: epsilon epsilon=1e-12")
    explained = explain(proto, composite, {"x": x}, target=1)
    y = run(with_outputs(proto, ["y"]), {"x": x})["y"]
    part = REDUCTIONS[operator](x.astype(float))
    expected = (y * weights["r"][:, 1])[..., None] * part / part.sum(axis=2, keepdims=True)
    close(explained.values["relevance"], expected)
