"""Whatever is merged into a layer is recomputed with the layer."""

import numpy as np
import pytest
from audit.networks import RULES, STATISTICS
from support import lines, model, node, normal

import onnxlrp
from onnxlrp.audit import check, findings

READOUT = {"rows": np.array([0, -1], np.int64)}


def audited(nodes, size, weights, features, *rules):
    """Audit a network that ends in a Gemm of the last value, flattened."""
    last = nodes[-1].output[0]
    body = [
        *nodes,
        node("Reshape", [last, "rows"], "flat"),
        node("Gemm", ["flat", "readout"], "logits"),
    ]
    readout = {"readout": normal(features, 3, seed=21), **READOUT}
    proto = model(body, {"x": ["N", *size]}, ["logits"], {**weights, **readout})
    explainer = onnxlrp.convert(proto, lines(*rules, *RULES)).to_proto()
    return check(proto, explainer, random=2)


def assert_recomputed(audit, *merged):
    failures = [f.text for f in findings(audit) if f.kind in ("failure", "warning")]
    assert failures == []
    together = [set(o.merged) for n in audit.layers for o in n.operations if o.merged]
    assert together == ([set(merged)] if merged else [])
    assert all(n.difference is not None and n.difference <= 1e-5 for n in audit.layers)


CONV = node("Conv", ["x", "w", "b"], "c", kernel_shape=[3, 3])
KERNEL = {"w": normal(4, 2, 3, 3, seed=1), "b": normal(4, seed=2)}
COLUMN = {"k": normal(4, 1, 1, seed=3)}


@pytest.mark.parametrize("rule", ["Conv: z-plus", "Conv: alpha-beta", "Conv: epsilon power=2"])
def test_batch_normalization_and_factors_behind_a_convolution(rule):
    nodes = [
        CONV,
        node("BatchNormalization", ["c", "gamma", "beta", "mean", "variance"], "n"),
        node("Mul", ["n", "k"], "m"),
        node("Sub", ["k", "m"], "s"),
        node("Relu", ["s"], "y"),
    ]
    audit = audited(nodes, [2, 6, 6], {**KERNEL, **STATISTICS, **COLUMN}, 64, rule)
    assert_recomputed(audit, "node_n", "node_m", "node_s")


def test_padding_in_front_of_a_convolution():
    nodes = [
        node("Pad", ["x", "pads"], "p"),
        node("Conv", ["p", "w", "b"], "c", strides=[2, 2], pads=[1, 0, 0, 1]),
        node("Relu", ["c"], "y"),
    ]
    pads = {"pads": np.array([0, 0, 0, 1, 0, 0, 2, 1], np.int64)}
    audit = audited(nodes, [2, 6, 6], {**KERNEL, **pads}, 64, "Conv: epsilon")
    assert_recomputed(audit, "node_p")


def test_batch_normalization_behind_a_transposed_convolution():
    nodes = [
        node("ConvTranspose", ["x", "w", "b"], "c", strides=[2, 2]),
        node("BatchNormalization", ["c", "gamma", "beta", "mean", "variance"], "n"),
        node("Relu", ["n"], "y"),
    ]
    weights = {"w": normal(2, 4, 3, 3, seed=1), "b": normal(4, seed=2), **STATISTICS}
    audit = audited(nodes, [2, 3, 3], weights, 196)
    assert_recomputed(audit, "node_n")


@pytest.mark.parametrize("bias", ["absorb", "distribute"])
def test_outputs_that_no_input_reaches(bias):
    """The gaps of a ConvTranspose hold its bias alone, which nobody can take over."""
    nodes = [node("ConvTranspose", ["x", "w", "b"], "y", strides=[3, 3])]
    weights = {"w": normal(2, 4, 2, 2, seed=1), "b": normal(4, seed=2)}
    audit = audited(nodes, [2, 3, 3], weights, 256, f"ConvTranspose: epsilon bias={bias}")
    assert_recomputed(audit)
    assert audit.layers[-1].leak <= 1e-6
    assert audit.layers[-1].bias != 0


@pytest.mark.parametrize("transposed", [0, 1])
def test_a_factor_behind_a_gemm(transposed):
    nodes = [
        node("Gemm", ["x", "w", "b"], "c", alpha=0.5, beta=2.0, transB=transposed),
        node("Mul", ["c", "k"], "m"),
        node("Add", ["m", "b"], "y"),
    ]
    weights = {"w": normal(*([4, 5] if transposed else [5, 4]), seed=1), "b": normal(4, seed=2)}
    audit = audited(nodes, [5], {**weights, "k": normal(4, seed=3)}, 4)
    assert_recomputed(audit, "node_m", "node_y")


@pytest.mark.parametrize("size", [[5], [3, 5]])
def test_a_bias_behind_a_product(size):
    nodes = [node("MatMul", ["x", "w"], "c"), node("Add", ["c", "b"], "y")]
    weights = {"w": normal(5, 4, seed=1), "b": normal(4, seed=2)}
    audit = audited(nodes, size, weights, 4 * size[0] if len(size) > 1 else 4)
    assert_recomputed(audit, "node_y")


def lrn(size, before, after):
    """Write LRN as PyTorch does."""
    nodes = [
        node("Mul", ["x", "x"], "squared"),
        node("Unsqueeze", ["squared", "one"], "lifted"),
        node("AveragePool", ["lifted"], "mean", kernel_shape=[size, 1, 1],
             pads=[before, 0, 0, after, 0, 0], count_include_pad=1),
        node("Squeeze", ["mean", "one"], "dropped"),
        node("Mul", ["dropped", "alpha"], "scaled"),
        node("Add", ["scaled", "bias"], "base"),
        node("Pow", ["base", "exponent"], "power"),
        node("Div", ["x", "power"], "y"),
    ]  # fmt: skip
    weights = {
        "one": np.array([1], np.int64),
        "alpha": np.float32(0.5),
        "bias": np.float32(2.0),
        "exponent": np.float32(0.75),
    }
    return nodes, weights


def test_local_response_normalisation_spelt_out():
    nodes, weights = lrn(3, 1, 1)
    audit = audited(nodes, [4, 3, 3], weights, 36)
    (normalised,) = [o for n in audit.layers for o in n.operations if o.operator == "LRN"]
    assert (normalised.rule, normalised.skipped) == ("taylor", "")
    assert all(n.difference <= 1e-5 for n in audit.layers)


def test_a_window_that_no_operator_has_is_not_recomputed():
    nodes, weights = lrn(4, 2, 1)
    audit = audited(nodes, [6, 3, 3], weights, 54)
    assert audit.passed
    (warning,) = [f.text for f in findings(audit) if f.kind == "warning"]
    assert warning.startswith("not recomputed: node_y (its window, 2 channels before and 1 after,")


def test_shapes_and_parts_are_followed():
    nodes = [
        node("Transpose", ["x"], "t", perm=[0, 2, 3, 1]),
        node("Slice", ["t", "start", "end", "axis"], "cut"),
        node("Concat", ["cut", "t"], "joined", axis=1),
        node("LeakyRelu", ["joined"], "y"),
    ]
    weights = {
        "start": np.array([1], np.int64),
        "end": np.array([3], np.int64),
        "axis": np.array([1], np.int64),
    }
    assert_recomputed(audited(nodes, [2, 4, 3], weights, 36))


def test_a_window_in_space_is_not_recomputed():
    weights = {"one": np.float32(1), "beta": np.float32(0.75)}
    nodes = [
        node("Mul", ["x", "x"], "squares"),
        node("AveragePool", ["squares"], "sums", kernel_shape=[3, 3], pads=[1] * 4),
        node("Add", ["sums", "one"], "base"),
        node("Pow", ["base", "beta"], "power"),
        node("Div", ["x", "power"], "y"),
    ]
    audit = audited(nodes, [4, 3, 3], weights, 36)
    assert audit.passed
    (warning,) = [f.text for f in findings(audit) if f.kind == "warning"]
    assert warning.startswith("not recomputed: node_y (its window is not along the channels")
