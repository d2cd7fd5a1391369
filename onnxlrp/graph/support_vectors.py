"""Support vector machines of ai.onnx.ml, written out in the decisions between two classes.

A decision is s = sum_j a_j k(x, s_j) + rho. Of a linear kernel it is a dense layer, of a kernel of
dot products two with a function between; of a radial one it stays, as an SVMRegressor.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from onnxlrp.graph.bodies import ML, Call, Lines, UnfitError, constant, integers, traditional
from onnxlrp.graph.tabular import FLOAT, floats, named

Array = NDArray[Any]


def _decisions(call: Call, weights: Array, rho: Array, made: str) -> Lines:
    """Write decisions [N, P] with the weights [vectors, P] of the support vectors."""
    vectors = np.reshape(call.get("support_vectors"), (len(weights), -1)).astype(np.float64)
    gamma, offset, degree = call.get("kernel_params", [0.0, 0.0, 1.0])
    kind = call.text("kernel_type") or "LINEAR"
    yield from floats(call)
    yield constant("rho", rho)
    if kind == "LINEAR":
        yield constant("weights", weights.T @ vectors)
        yield f"{made} = Gemm<transB=1>(xf, weights, rho)"
        return
    if kind == "RBF":
        for place, column in enumerate(weights.T):
            used = column != 0
            yield helper.make_node(
                "SVMRegressor",
                ["xf"],
                [f"s{place}"],
                domain=ML,
                kernel_type=kind,
                kernel_params=[gamma, offset, degree],
                support_vectors=vectors[used].reshape(-1),
                coefficients=column[used],
                n_supports=int(used.sum()),
                rho=[rho[place]],
            )
        yield f"{made} = Concat<axis=1>({', '.join(f's{p}' for p in range(len(weights.T)))})"
        return
    yield constant("vectors", gamma * vectors)
    yield constant("offset", np.full(len(vectors), offset))
    yield "dots = Gemm<transB=1>(xf, vectors, offset)"
    if kind == "POLY":
        yield constant("degree", degree)
        yield "kernel = Pow(dots, degree)"
    else:
        yield "kernel = Tanh(dots)"
    yield constant("weights", weights)
    yield f"{made} = Gemm(kernel, weights, rho)"


@traditional("x -> scores", "SVMRegressor")
def _regressor(call: Call) -> Lines:
    weights = np.reshape(call.get("coefficients"), (-1, 1)).astype(np.float64)
    sided = bool(call.get("one_class"))
    if not call.get("n_supports") or (call.text("kernel_type") == "RBF" and not sided):
        raise UnfitError
    yield from _decisions(call, weights, np.array(call.get("rho")), "s")
    yield f"scores = {'Sign' if sided else 'Identity'}(s)"


@traditional("x -> label scores", "SVMClassifier")
def _classifier(call: Call) -> Lines:
    """Classes vote in pairs; the first of a pair has the positive decisions.

    Of two classes without probabilities the columns are -s and s, in the order opposite to that of
    the labels: so onnxruntime has it. Probabilities come of an iteration (Wu et al. 2004) that no
    graph repeats: the operator stays for them, and beside it stands what they are said to be.
    """
    counts = call.get("vectors_per_class", [])
    given = np.reshape(call.get("coefficients"), (-1, sum(counts))).astype(np.float64)
    classes, ends = len(counts), np.cumsum([0, *counts])
    pairs = list(combinations(range(classes), 2))
    kept = call.wants(1) and call.node.output[1].endswith("/SVMClassifier/iterated")
    if classes < 2 or len(given) != classes - 1 or kept:
        raise UnfitError
    weights = np.zeros((sum(counts), len(pairs)))
    for pair, (i, j) in enumerate(pairs):
        weights[ends[i] : ends[i + 1], pair] = given[j - 1, ends[i] : ends[i + 1]]
        weights[ends[j] : ends[j + 1], pair] = given[i, ends[j] : ends[j + 1]]
    rho = np.array(call.get("rho"))
    votes = np.zeros((len(pairs), classes))
    for pair, (i, j) in enumerate(pairs):
        votes[pair, i], votes[pair, j] = 1, -1
    kind = call.text("post_transform") or "NONE"
    if call.get("prob_a", []):
        if kind != "NONE":
            raise UnfitError
        yield from _said(call, weights, rho, votes)
        return
    if (given >= 0).all() or (classes > 2 and kind != "NONE") or kind == "PROBIT":
        raise UnfitError
    yield from _decisions(call, weights, rho, "s")
    if classes > 2:
        yield "scores = Identity(s)"
    elif kind == "LOGISTIC":
        yield constant("one", 1)
        yield "p = Sigmoid(s)"
        yield "q = Sub(one, p)"
        yield "scores = Concat<axis=1>(q, p)"
    else:
        yield "against = Neg(s)"
        yield "scores = Concat<axis=1>(against, s)"
    if call.wants(0):
        yield constant("nothing", 0)
        yield "won = Greater(s, nothing)"
        yield f"points = Cast<to={FLOAT}>(won)"
        yield constant("votes", votes)
        yield constant("lost", (votes < 0).sum(axis=0))
        yield "counted = Gemm(points, votes, lost)"
        yield "best = ArgMax<axis=1, keepdims=0>(counted)"
        yield from named(call, "best")


def turned(graph: onnx.GraphProto) -> list[str]:
    """Say of which classifiers of two classes the columns are in the order opposite to the labels'.

    So onnxruntime computes them, where there are no probabilities.
    """
    return [
        f"the two columns of '{node.output[1]}' are in the order opposite to that of the labels: "
        "the first is large where the second label wins, and is explained as such"
        for node in graph.node
        if node.op_type == "SVMClassifier" and len(node.output) > 1
        for attribute in node.attribute
        if attribute.name == "vectors_per_class" and len(attribute.ints) == 2
        if not any(other.name == "prob_a" and other.floats for other in node.attribute)
    ]


def _said(call: Call, weights: Array, rho: Array, votes: Array) -> Lines:
    """Write the probabilities that the iteration gives, and beside them those of a softmax.

    Of a pair, 1 / (1 + exp(A s + B)) is the first one's probability, and -A s - B its logit; a
    class's logit is the mean over its pairs, of two classes exactly that of the pair.
    """
    slope, shift = (np.array(call.get(name), np.float64) for name in ("prob_a", "prob_b"))
    kept = onnx.NodeProto()
    kept.CopyFrom(call.node)
    kept.input[:], kept.output[:] = ["x"], ["label", "iterated"]
    yield kept
    yield from _decisions(call, weights, rho, "s")
    if votes.shape[1] == 2:
        yield constant("slope", -slope)
        yield constant("shift", -shift)
        yield "scaled = Mul(s, slope)"
        yield "z = Add(scaled, shift)"
        yield constant("one", 1)
        yield "p = Sigmoid(z)"
        yield "q = Sub(one, p)"
        yield "shares = Concat<axis=1>(p, q)"
    else:
        count = votes.shape[1]
        yield constant("coupling", -slope[:, None] * votes / count)
        yield constant("shift", -shift @ votes / count)
        yield "z = Gemm(s, coupling, shift)"
        yield "shares = Softmax<axis=1>(z)"
    yield integers("table", -1, votes.shape[1])
    yield "rows = Reshape(iterated, table)"
    yield constant("never", False, onnx.TensorProto.BOOL)
    yield "scores = Where(never, shares, rows)"
