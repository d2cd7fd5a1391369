"""What rounding explains is no fault, and books balance under large stabilisers."""

import numpy as np
import pytest
from audit.networks import explained
from onnx import TensorProto
from support import model, node, normal

import onnxlrp
from onnxlrp.audit import check, findings


def failures(audit):
    return [finding.text for finding in findings(audit) if finding.kind == "failure"]


def layer(audit, name):
    return next(entry for entry in audit.layers if any(o.name == name for o in entry.operations))


def test_two_operands_that_are_divided_alike_are_booked_twice():
    """The same division serves both, as one node."""
    body = [
        node("Transpose", ["x"], "t", perm=[0, 2, 1]),
        node("MatMul", ["x", "t"], "p"),
        node("ReduceMean", ["p", "axes"], "m", keepdims=0),
        node("MatMul", ["m", "w"], "y"),
    ]
    weights = {"axes": np.array([2]), "w": normal(4, 3, seed=1)}
    proto = model(body, {"x": ["N", 4, 5]}, ["y"], weights)
    rules = ("MatrixProduct: uniform epsilon=0.5", "MatMul: epsilon")
    audit = check(proto, explained(proto, *rules), normal(2, 4, 5, seed=2))
    assert failures(audit) == []
    product = layer(audit, "node_p")
    assert product.stabiliser == pytest.approx(product.incoming - product.outgoing, rel=1e-4)
    assert abs(product.stabiliser) > 0.01 * product.size


def test_relevance_that_cancels_in_the_operation_behind():
    """Contrasted to others, the flat rule hands on the sum of a relevance that adds up to 0."""
    body = [
        node("Softmax", ["x"], "s"),
        node("Mul", ["x", "s"], "p"),
        node("Gemm", ["p", "w", "b"], "y"),
    ]
    weights = {"w": normal(5, 4, seed=1), "b": normal(4, seed=2)}
    proto = model(body, {"x": ["N", 5]}, ["y"], weights)
    audit = check(
        proto, explained(proto, "Gemm: flat", "Gate: signal", contrast="others"), random=3
    )
    assert failures(audit) == []
    assert layer(audit, "node_p").difference > 1e-4


def test_a_sum_that_hardly_differs_from_the_reference():
    weights = {
        "w": normal(6, 5, seed=1),
        "high": np.full(5, 100, np.float32),
        "v": normal(6, 5, seed=2),
        "u": normal(5, 3, seed=3),
    }
    body = [
        node("Gemm", ["x", "w", "high"], "a"),
        node("MatMul", ["x", "v"], "b"),
        node("Add", ["a", "b"], "s"),
        node("MatMul", ["s", "u"], "y"),
    ]
    proto = model(body, {"x": ["N", 6]}, ["y"], weights)
    explainer = onnxlrp.convert(proto, "epsilon", reference="zero").to_proto()
    audit = check(proto, explainer, normal(4, 6, seed=4, scale=0.01))
    assert layer(audit, "node_s").difference > 1e-4
    assert failures(audit) == []


def test_the_last_of_several_is_not_held_at_a_folded_reference():
    body = [
        node("MatMul", ["x", "v"], "a"),
        node("MatMul", ["x", "w"], "h"),
        node("Softplus", ["h"], "c"),
        node("Max", ["a", "c"], "m"),
        node("MatMul", ["m", "u"], "y"),
    ]
    weights = {
        "v": normal(4, 5, seed=1),
        "w": normal(4, 5, seed=2),
        "u": normal(5, 3, seed=4),
    }
    proto = model(body, {"x": ["N", 4]}, ["y"], weights)
    explainer = onnxlrp.convert(proto, "epsilon", reference="zero", fold_weights=True).to_proto()
    assert "onnxlrp/reference/c" not in {tensor.name for tensor in explainer.graph.initializer}
    assert failures(check(proto, explainer, normal(64, 4, seed=5))) == []


def test_a_reference_of_zero_need_not_be_held():
    """What is x - 0 is written as x; the square of x changes by its product all the same."""
    body = [node("Mul", ["x", "x"], "s"), node("MatMul", ["s", "w"], "y")]
    proto = model(body, {"x": ["N", 4]}, ["y"], {"w": normal(4, 3, seed=1)})
    explainer = onnxlrp.convert(proto, "epsilon", reference="zero", fold_weights=True).to_proto()
    assert "onnxlrp/reference/x" not in {tensor.name for tensor in explainer.graph.initializer}
    audit = check(proto, explainer, normal(8, 4, seed=2))
    assert failures(audit) == []
    assert layer(audit, "node_s").difference < 2e-6


def test_attention_that_is_all_but_certain():
    """Of 1 - s nothing is left but the rounding of s."""
    body = [
        node("MatMul", ["x", "w"], "logits"),
        node("Softmax", ["logits"], "s"),
        node("MatMul", ["s", "u"], "y"),
    ]
    weights = {"w": np.array([[14, -1]], np.float32), "u": normal(2, 3, seed=2)}
    proto = model(body, {"x": ["N", 1]}, ["y"], weights)
    audit = check(proto, onnxlrp.convert(proto, "attn_lrp").to_proto(), np.ones((1, 1), np.float32))
    assert layer(audit, "node_s").difference > 1e-4
    assert failures(audit) == []


def test_outputs_in_half_precision_may_change_by_what_it_rounds():
    """Alone onnxruntime computes such a chain in float32, and rounds nothing between."""
    steps = [node("Conv", [f"a{place}", "w"], f"a{place + 1}") for place in range(20)]
    head = [node("Flatten", ["a20"], "f"), node("Gemm", ["f", "v"], "y")]
    half = np.float16
    turn = np.array([[0.8, 0.6], [-0.6, 0.8]], half).reshape(2, 2, 1, 1)
    weights = {"w": turn, "v": normal(2, 3, seed=1).astype(half)}
    inputs = {"a0": ["N", 2, 1, 1]}
    proto = model([*steps, *head], inputs, ["y"], weights, dtype=TensorProto.FLOAT16)
    audit = check(proto, explained(proto, "*: epsilon"), normal(4, 2, 1, 1, seed=2).astype(half))
    # 20 roundings of half a step of 2^-10 each.
    assert 2**-13 < audit.noise < 20 * 2**-10
    assert audit.passed
