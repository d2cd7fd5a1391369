"""Operators of ai.onnx.ml, of scikit-learn's and its kin's exporters, written out in ONNX's own.

What onnxruntime computes is what counts; where its text leaves a choice, its source is followed.
Trees stay: as one operator that gives scores, before any softmax.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxlrp.graph.bodies import (
    ML,
    Call,
    Lines,
    UnfitError,
    body,
    constant,
    integers,
    traditional,
)
from onnxlrp.graph.trees import even

FLOAT, INT64, STRING = (onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.STRING)


def floats(call: Call, x: str = "x", index: int = 0) -> Lines:
    """Write an input as float32, which is what these operators compute in."""
    yield f"{x}f = {'Identity' if call.kind(index) == FLOAT else f'Cast<to={FLOAT}>'}({x})"


# --- Features ------------------------------------------------------------------------------------


@traditional("x -> y", "Scaler")
def _scaler(call: Call) -> Lines:
    yield from floats(call)
    yield constant("offset", call.get("offset", []))
    yield constant("scale", call.get("scale", []))
    yield "shifted = Sub(xf, offset)"
    yield "y = Mul(shifted, scale)"


def _divided(call: Call, x: str, norm: str) -> Lines:
    """Divide by a norm; where it is 0, what is divided stays as it is."""
    yield from call.number("one", 1)
    yield f"some = Cast<to={onnx.TensorProto.BOOL}>({norm})"
    yield f"divisor = Where(some, {norm}, one)"
    yield f"y = Div({x}, divisor)"


@body("x -> y", "LpNormalization")
def _by_sum(call: Call) -> Lines:
    """By the sum of magnitudes; by the root of that of squares it is an operator of its own."""
    if call.get("p", 2) != 1:
        raise UnfitError
    yield integers("axis", call.get("axis", -1))
    yield "size = Abs(x)"
    yield "norm = ReduceSum(size, axis)"
    yield from _divided(call, "x", "norm")


@traditional("x -> y", "Normalizer")
def _normalizer(call: Call) -> Lines:
    yield from floats(call)
    if (kind := call.text("norm") or "MAX") == "MAX":
        yield integers("last", -1)
        yield "norm = ReduceMax(xf, last)"
        yield from _divided(call, "xf", "norm")
    else:
        yield f"y = LpNormalization<axis=-1, p={kind[1]}>(xf)"


@traditional("x -> y", "Imputer")
def _imputer(call: Call) -> Lines:
    """Put constants in the place of what is missing: a NaN, or a number that stands for it."""
    whole = call.kind() == INT64
    put = call.get("imputed_value_int64s" if whole else "imputed_value_floats", [])
    missing = call.get("replaced_value_int64" if whole else "replaced_value_float")
    yield constant("put", put, call.kind())
    if np.isnan(missing):
        yield "gone = IsNaN(x)"
    else:
        yield constant("missing", missing, call.kind())
        yield "gone = Equal(x, missing)"
    yield "y = Where(gone, put, x)"


def thresholds(graph: onnx.GraphProto) -> None:
    """Write numbers of a comparison with a constant as a Binarizer, which relevance passes.

    So scikit-learn's naive Bayes makes features of a table; elsewhere a comparison is a mask.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    compared = {node.output[0]: node for node in graph.node if node.op_type == "Greater"}
    for node in graph.node:
        above = compared.get(node.input[0]) if node.op_type == "Cast" else None
        bound = None if above is None else constants.get(above.input[1])
        if above is None or bound is None or node.attribute[0].i != FLOAT:
            continue
        values = numpy_helper.to_array(bound)
        if values.size == 1 and values.dtype == np.float32:
            threshold = helper.make_attribute("threshold", float(values.reshape(())))
            node.op_type, node.domain, node.input[0] = "Binarizer", ML, above.input[0]
            del node.attribute[:]
            node.attribute.append(threshold)


@traditional(" ".join(f"x{place}" for place in range(64)) + " -> y", "FeatureVectorizer")
def _vectorizer(call: Call) -> Lines:
    """Join columns, as float32."""
    names = [f"x{place}" for place in range(len(call.node.input))]
    if len(names) > 64 or any(len(call.sizes(place)) != 2 for place in range(len(names))):
        raise UnfitError
    for place, name in enumerate(names):
        yield from floats(call, name, place)
    yield f"y = Concat<axis=1>({', '.join(f'{name}f' for name in names)})"


@traditional("x places -> y", "ArrayFeatureExtractor")
def _extractor(call: Call) -> Lines:
    """Choose columns; of a vector, it makes a row."""
    yield integers("flat", -1)
    yield "chosen = Reshape(places, flat)"
    if len(call.sizes(0)) == 1:
        yield integers("front", 0)
        yield "row = Unsqueeze(x, front)"
    else:
        yield "row = Identity(x)"
    yield "y = Gather<axis=-1>(row, chosen)"


# --- Scores and labels ---------------------------------------------------------------------------


_TRANSFORMS = ("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT")
"""As onnxruntime numbers those of TreeEnsemble; by ONNX's text 1 is SOFTMAX and 2 LOGISTIC."""


def _transform(call: Call) -> str:
    value = call.get("post_transform", 0)
    return value.decode() if isinstance(value, bytes) else _TRANSFORMS[value]


def _transformed(call: Call, columns: int, z: str = "z", made: str = "scores") -> Lines:
    """Write what becomes of scores; a column alone onnxruntime leaves as it is."""
    kind = _transform(call)
    if kind == "PROBIT" or (kind == "SOFTMAX_ZERO" and columns > 1):
        raise UnfitError
    functions = {"LOGISTIC": "Sigmoid", "SOFTMAX": "Softmax<axis=1>"}
    yield f"{made} = {functions.get(kind, 'Identity') if columns > 1 else 'Identity'}({z})"


def _both(call: Call) -> Lines:
    """Write the columns 1 - p and p of p = sigmoid(z), [N, 1]."""
    yield constant("one", 1)
    yield "p = Sigmoid(z)"
    yield "q = Sub(one, p)"
    yield "scores = Concat<axis=1>(q, p)"


def _labels(call: Call) -> tuple[list[Any], int]:
    whole = call.get("classlabels_ints", []) or call.get("classlabels_int64s", [])
    strings = call.get("classlabels_strings", [])
    return (list(strings), STRING) if strings else (list(whole), INT64)


def named(call: Call, index: str) -> Lines:
    """Write the label of the class with a number."""
    if call.wants(0):
        labels, kind = _labels(call)
        yield constant("labels", labels, kind)
        yield f"label = Gather(labels, {index})"


def _named_above(call: Call, column: int, threshold: float) -> Lines:
    """Write the second label where a column of z is above a threshold, else the first."""
    if call.wants(0):
        yield constant("column", column, INT64)
        yield constant("threshold", threshold)
        yield "one_score = Gather<axis=1>(z, column)"
        yield "above = Greater(one_score, threshold)"
        yield f"winner = Cast<to={INT64}>(above)"
        yield from named(call, "winner")


def _named_best(call: Call) -> Lines:
    if call.wants(0):
        yield "best = ArgMax<axis=1, keepdims=0>(z)"
        yield from named(call, "best")


# --- Linear models -------------------------------------------------------------------------------


def _dense(weights: Any, bias: Any, z: str = "z") -> Lines:
    yield constant("weights", weights)
    yield constant("bias", bias)
    yield f"{z} = Gemm<transB=1>(xf, weights, bias)"


@traditional("x -> scores", "LinearRegressor")
def _linear_regressor(call: Call) -> Lines:
    columns = int(call.get("targets", 1))
    yield from floats(call)
    weights = np.reshape(call.get("coefficients", []), (columns, -1))
    yield from _dense(weights, call.get("intercepts", []) or np.zeros(columns))
    yield from _transformed(call, columns)


@traditional("x -> label scores", "LinearClassifier")
def _linear_classifier(call: Call) -> Lines:
    """One row of coefficients for two classes is the second's; the first has 1 - p, or 1 - z."""
    bias = np.asarray(call.get("intercepts", []), np.float64)
    labels, _ = _labels(call)
    if len(bias) == 0 or (len(bias) == 1 and len(labels) != 2):
        raise UnfitError
    weights = np.reshape(call.get("coefficients", []), (len(bias), -1)).astype(np.float64)
    yield from floats(call)
    if len(bias) > 1:
        yield from _dense(weights, bias)
        yield from _transformed(call, len(bias))
        yield from _named_best(call)
    elif _transform(call) == "LOGISTIC":
        yield from _dense(weights, bias)
        yield from _both(call)
        yield from _named_above(call, 0, 0.0)
    else:
        yield from _dense([-weights[0], weights[0]], [1 - bias[0], bias[0]])
        yield from _transformed(call, 1)
        yield from _named_above(call, 1, 0.0)


# --- Trees ---------------------------------------------------------------------------------------


def _trees(call: Call, made: str = "z", **changed: Any) -> onnx.NodeProto:
    """Write trees that only give scores; what is not changed stays as it is."""
    kind = call.node.op_type.replace("Classifier", "Regressor")
    node = helper.make_node(kind, ["xn"], [made], domain=ML)
    for attribute in call.node.attribute:
        name = attribute.name.replace("class_", "target_")
        if name in changed or name == "post_transform" or name.startswith("classlabels"):
            continue
        node.attribute.append(attribute)
        node.attribute[-1].name = name
    node.attribute.extend(helper.make_attribute(key, value) for key, value in changed.items())
    return node


@traditional("x -> scores", "TreeEnsembleRegressor", "TreeEnsemble")
def _tree_regressor(call: Call) -> Lines:
    columns = int(call.get("n_targets", 1))
    if _transform(call) == "NONE":
        raise UnfitError
    yield from _numbers(call)
    yield _trees(call)
    yield from _transformed(call, columns)


def _numbers(call: Call) -> Lines:
    """Write whole numbers as float32, which is what trees compare."""
    real = call.kind() in (FLOAT, onnx.TensorProto.DOUBLE)
    yield f"xn = {'Identity' if real else f'Cast<to={FLOAT}>'}(x)"


def _ends(call: Call) -> dict[int, set[int]]:
    """Return the leaves of each tree."""
    leaves: dict[int, set[int]] = {}
    for tree, mode, node in zip(
        *(call.get(f"nodes_{name}", []) for name in ("treeids", "modes", "nodeids")), strict=True
    ):
        if mode == b"LEAF":
            leaves.setdefault(tree, set()).add(node)
    return leaves


def _always(call: Call, ids: list[int]) -> set[int]:
    """Return the classes of which some tree says something in each of its leaves.

    What onnxruntime makes of a score that no leaf has set is another matter.
    """
    leaves = _ends(call)
    said: dict[tuple[int, int], set[int]] = {}
    for tree, node, number in zip(
        call.get("class_treeids", []), call.get("class_nodeids", []), ids, strict=True
    ):
        said.setdefault((tree, number), set()).add(node)
    return {number for (tree, number), nodes in said.items() if nodes >= leaves.get(tree, set())}


@traditional("x -> label scores", "TreeEnsembleClassifier")
def _tree_classifier(call: Call) -> Lines:
    """With weights of one class alone, of two, the score is the second's.

    The first then has 1 - p, or 1 - z where all weights are positive, for z is a probability, else
    -z.
    """
    for group, names in (
        ("nodes", ("treeids", "nodeids", "modes")),
        ("class", ("treeids", "nodeids", "ids", "weights")),
    ):
        try:
            even({f"{group}_{name}": call.get(f"{group}_{name}", []) for name in names})
        except ValueError as error:
            raise ValueError(f"{call.node.name} (TreeEnsembleClassifier): {error}") from None
    ids, base = list(call.get("class_ids", [])), list(call.get("base_values", []))
    weights = list(call.get("class_weights", []))
    labels, kind = _labels(call)
    columns, always = len(labels), _always(call, ids)
    if not weights or _transform(call) == "PROBIT":
        raise UnfitError
    yield from _numbers(call)
    if columns == 2 and set(ids) == {0}:
        if len(base) > 1 or 0 not in always:
            raise UnfitError
        likely = min(weights) >= 0
        if _transform(call) == "LOGISTIC":
            yield _trees(call, n_targets=1)
            yield from _both(call)
        else:
            both = [sign * weight for weight in weights for sign in (-1, 1)]
            twice: dict[str, Any] = {
                name: [number for number in call.get(f"class_{old}") for _ in (0, 1)]
                for name, old in (("target_treeids", "treeids"), ("target_nodeids", "nodeids"))
            }
            (start,) = base or [0.0]
            yield _trees(
                call,
                n_targets=2,
                target_ids=[0, 1] * len(weights),
                target_weights=both,
                base_values=[likely - start, start],
                **twice,
            )
            yield from _transformed(call, 1)
        column = 0 if _transform(call) == "LOGISTIC" else 1
        yield from _named_above(call, column, 0.5 if likely else 0.0)
        return
    silent = sorted(set(range(columns)) - always)
    if (columns == 2 and base) or (len(base) != columns if base else silent):
        raise UnfitError
    if columns == 1 and kind == STRING:
        raise UnfitError
    # A classifier adds the base value of each class, a regressor only those that a leaf has set.
    first = sorted(_ends(call).items())[:1]
    added = [(tree, leaf, k) for tree, leaves in first for leaf in leaves for k in silent]
    yield _trees(
        call,
        n_targets=columns,
        target_treeids=[*call.get("class_treeids"), *(tree for tree, _, _ in added)],
        target_nodeids=[*call.get("class_nodeids"), *(leaf for _, leaf, _ in added)],
        target_ids=[*ids, *(k for _, _, k in added)],
        target_weights=[*weights, *[0.0] * len(added)],
    )
    yield from _transformed(call, columns)
    if columns > 2:
        yield from _named_best(call)
    else:
        # It names two classes by their numbers, but for strings.
        last = columns - 1
        yield from _named_above(call, last, 0.0) if kind == STRING else _numbered(call, last)


def _numbered(call: Call, column: int) -> Lines:
    if call.wants(0):
        yield constant("column", column, INT64)
        yield constant("threshold", 0)
        yield "one_score = Gather<axis=1>(z, column)"
        yield "above = Greater(one_score, threshold)"
        yield f"label = Cast<to={INT64}>(above)"
