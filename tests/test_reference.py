"""The oracle's own tests: who judges the judge.

Its forward pass is held against onnxruntime, and its two ways to the contributions against each
other. Its rules are judged in ``test_reference_rules``.
"""

import numpy as np
import onnxruntime
import pytest
import reference_cases as cases
from reference_cases import (
    LINEAR_RULES,
    X2,
    model_of,
    named,
    node,
    normal,
    per_sample,
    residual_network,
)

from onnxlrp import reference
from onnxlrp.reference import crossing


def run_onnxruntime(model, feeds):
    # Only float32 has kernels for every operator here.
    narrow = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in feeds.items()}
    file, providers = model.SerializeToString(), ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(file, providers=providers).run(None, narrow)


def run_node(one, inputs):
    feeds = {f"x{i}": v for i, v in enumerate(inputs) if v is not None}
    return run_onnxruntime(model_of([one], feeds, one.output), feeds)


# --- The forward pass ----------------------------------------------------------------------------


@pytest.mark.parametrize(("op_type", "inputs", "attributes"), named(cases.NUMERIC))
def test_forward_agrees_with_onnxruntime(op_type, inputs, attributes):
    one = node(op_type, inputs, **attributes)
    (expected,) = run_node(one, inputs)
    (found,) = reference.forward(one, inputs)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("op_type", "inputs", "outputs", "attributes"), named(cases.STRUCTURAL))
def test_structural_forward_agrees_with_onnxruntime(op_type, inputs, outputs, attributes):
    one = node(op_type, inputs, outputs, **attributes)
    found = reference.forward(one, inputs)
    for y, expected in zip(found, run_node(one, inputs), strict=True):
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(
    ("size", "window"),
    [(1, [4]), (2, [4, 5]), (3, [3, 4, 5]), (4, [3, 4, 5, 6]), (5, [2, 3, 4, 5, 6])],
)
def test_lrn_window_looks_further_forward_than_back(size, window):
    x = np.full((1, 9, 1), 1e3)
    x[0, window] = 1.0
    one = node("LRN", [x], size=size, alpha=float(size), beta=1.0)
    (y,) = reference.forward(one, [x])
    assert y[0, 4, 0] == 1 / (1 + size)


# --- Contributions -------------------------------------------------------------------------------


def small(op_type, inputs):
    """Leave little to probe: one sample, and two channels where that needs no other weights."""
    x, *rest = inputs
    return [x[:1, :2] if op_type == "AveragePool" else x[:1], *rest]


TINY = [(op, small(op, inputs), a) for op, inputs, a in cases.LINEAR if "transA" not in a]


def assert_routes_agree(one, inputs, live):
    (y,) = reference.forward(one, inputs)
    relevance = normal(*y.shape, seed=7)
    dense = list(reference.probed(one, inputs, live))
    for rule, parameters in LINEAR_RULES:
        arguments = one, inputs, [relevance], rule, parameters, live
        found, expected = (
            reference.propagate(*arguments),
            reference.propagate(*arguments, lambda *_: dense),
        )
        for r, e, alive in zip(found.relevance, expected.relevance, live, strict=True):
            assert (r is None) == (not alive)
            if alive:
                np.testing.assert_allclose(r, e, rtol=1e-8, atol=1e-9 * np.abs(e).max())
        np.testing.assert_allclose(found.bias, expected.bias, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(found.stabiliser, expected.stabiliser, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("op_type", "inputs", "attributes"), named(TINY))
def test_gathered_contributions_are_the_probed_ones(op_type, inputs, attributes):
    one = node(op_type, inputs, **attributes)
    assert_routes_agree(one, inputs, [i == 0 for i in range(len(inputs))])


@pytest.mark.parametrize(("op_type", "inputs", "attributes"), named(cases.BOTH_WAYS))
def test_any_operand_can_be_live(op_type, inputs, attributes):
    one = node(op_type, inputs, **attributes)
    assert_routes_agree(one, inputs, [i == 1 for i in range(len(inputs))])


@pytest.mark.parametrize("op_type", ["Add", "Sub", "Sum"])
def test_all_operands_can_be_live(op_type):
    inputs = [normal(2, 3), normal(3)]
    assert_routes_agree(node(op_type, inputs), inputs, [True, True])


def test_chunks_do_not_change_the_result(monkeypatch):
    inputs = [X2, normal(6, 4, 3, 2), normal(6)]
    one = node("Conv", inputs, pads=[1, 1, 1, 1])
    (y,) = reference.forward(one, inputs)
    arguments = one, inputs, [y], "z-plus", {"bias": "distribute"}, [True, False, False]
    whole = reference.propagate(*arguments)
    monkeypatch.setattr(crossing, "CHUNK", 50)
    chunked = reference.propagate(*arguments)
    np.testing.assert_allclose(chunked.relevance[0], whole.relevance[0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(chunked.stabiliser, whole.stabiliser, rtol=1e-9, atol=1e-15)


# --- Networks ------------------------------------------------------------------------------------


def rule_of(one):
    return {"MaxPool": ("winner-takes-all", {}), "LRN": ("taylor", {}), "Conv": ("z-plus", {})}.get(
        one.op_type, ("epsilon", {"epsilon": 1e-9})
    )


def test_network_conserves_through_fork_and_sum():
    model, feeds = residual_network()
    asked = []
    relevance = reference.explain(
        model, feeds, lambda one: asked.append(one.op_type) or rule_of(one), ["image"], "logits"
    )
    logits = reference.evaluate(model, feeds)["logits"]
    assert asked == ["Gemm", "MaxPool", "Add", "Conv", "LRN", "Conv"]
    np.testing.assert_allclose(per_sample(relevance["image"]), logits.max(axis=1), rtol=1e-4)
    np.testing.assert_array_equal(relevance["z1"], relevance["a1"])
    assert "w1" not in relevance
    assert "shape" not in relevance
    assert "probabilities" not in relevance


def test_target_is_one_for_all_or_one_each():
    model, feeds = residual_network()
    logits = reference.evaluate(model, feeds)["logits"]
    for target, chosen in [(3, [3, 3]), ([1, 4], [1, 4]), ([-1, 0], [logits[0].argmax(), 0])]:
        r = reference.explain(model, feeds, rule_of, ["image"], "logits", target)["logits"]
        expected = np.zeros_like(logits)
        expected[[0, 1], chosen] = logits[[0, 1], chosen]
        np.testing.assert_array_equal(r, expected)


def test_values_agree_with_onnxruntime():
    model, feeds = residual_network()
    (expected,) = run_onnxruntime(model, feeds)
    found = reference.evaluate(model, feeds)["probabilities"]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


def test_old_opsets_are_refused():
    with pytest.raises(ValueError, match="opset 17"):
        reference.evaluate(*residual_network(opset=17))
