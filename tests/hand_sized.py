"""Networks small enough to work out by hand, through the definition and through an explainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from support import Array, explain, lines, model, node

import onnxlrp
from onnxlrp import reference

NEURON = [node("Gemm", ["x", "w", "b"])]


def row(*numbers: npt.ArrayLike) -> Array:
    """Put numbers, or channels, into a batch of one."""
    return np.array([numbers], np.float32)


def check(
    body: Sequence[onnx.NodeProto],
    x: Array,
    weights: Mapping[str, Array],
    composite: onnxlrp.Composite,
    expected: npt.ArrayLike,
    merged: tuple[Sequence[onnx.NodeProto], Mapping[str, Array]] | None = None,
) -> None:
    """Compare the heatmap of the last node's output, class 0, with numbers worked out by hand.

    Where the compiler takes nodes together, `merged` is the network, body and weights, in which
    they are one.
    """
    shape = ["N", *x.shape[1:]]
    proto = model(body, {"x": shape}, [body[-1].output[0]], weights)
    explained = explain(proto, composite, {"x": x}, target=0)
    rules = {
        entry.name: (entry.rule, dict(entry.parameters)) for entry in explained.conversion.nodes
    }
    defined = proto if merged is None else model(merged[0], {"x": shape}, ["y"], merged[1])
    relevance = reference.explain(
        defined, {"x": x}, lambda one: rules[one.name], ["x"], body[-1].output[0], 0
    )
    expected = np.reshape(expected, x.shape)
    np.testing.assert_allclose(relevance["x"], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(explained.values["relevance"], expected, rtol=1e-5, atol=1e-5)


def check_neuron(
    w: Sequence[float], b: float, x: Sequence[float], rule: str, expected: Sequence[float]
) -> None:
    """Compare the relevance of the inputs of one neuron, whose own relevance is f = x w + b."""
    weights = {"w": row(*w).T, "b": np.array([b], np.float32)}
    check(NEURON, row(*x), weights, lines(f"Gemm: {rule}"), expected)


def differs(ours: npt.ArrayLike, *theirs: npt.ArrayLike) -> None:
    """Assert that a peer's numbers are no rounding of ours."""
    for other in theirs:
        assert np.abs(np.asarray(ours) - np.asarray(other)).max() > 0.05
