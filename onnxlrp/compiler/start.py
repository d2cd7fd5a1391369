"""Where relevance starts: the score of the class that is explained."""

from __future__ import annotations

import operator
from typing import Literal

import numpy as np
import onnx_ir as ir

from onnxlrp.errors import InputError, ModelError
from onnxlrp.graph.canonical import Network
from onnxlrp.graph.shapes import dims_of
from onnxlrp.propagation import layout
from onnxlrp.propagation.expression import Emitter, Sign, Tensor

MOST_CLASSES = 1 << 24
"""Classes up to which an explainer is written: it holds their numbers."""


def number_of(target: object) -> int | Literal["top"] | None:
    """Read which class a caller wants; numpy's whole numbers are as good as Python's.

    Raises
    ------
    InputError
        If it is neither a whole number, nor "top", nor None.

    """
    if target is None or target == "top":
        return "top" if target is not None else None
    try:
        return operator.index(target)  # type: ignore[arg-type]
    except TypeError:
        raise InputError(
            f"target {target!r} is neither the number of a class nor 'top', nor None"
        ) from None


def check_target(target: int | Literal["top"] | None, network: Network) -> int | None:
    """Return how many classes a score has, None where that is not known.

    Raises
    ------
    InputError
        If the target is not one of them.
    ModelError
        If there is none, or more than `MOST_CLASSES`.

    """
    score = network.score
    assert score.shape is not None
    sizes = dims_of(score.shape)
    classes = len(network.signs) or (sizes[1] if len(sizes) > 1 else 1)
    if isinstance(classes, int) and not 0 < classes <= MOST_CLASSES:
        raise ModelError(
            f"'{score.name}' has {classes} classes; 1 to {MOST_CLASSES} can be explained"
        )
    most = classes if isinstance(classes, int) else MOST_CLASSES
    if isinstance(target, int) and not 0 <= target < most:
        raise InputError(
            f"target {target} is not a class; '{score.name}' has classes 0 to "
            f"{classes - 1 if isinstance(classes, int) else '?'}; use 'top' for the best scoring"
        )
    return classes if isinstance(classes, int) else None


def start_relevance(
    emitter: Emitter,
    network: Network,
    target_input: ir.Value | None,
    target: int | Literal["top"] | None,
    classes: int | None,
) -> Tensor:
    """Relevance of the scores: the target's score, and 0 for all other classes.

    GatherElements picks the score, so that a class that does not exist is a run-time error. Where
    all classes have one logit between them, it gets the score of the one that is chosen.
    """
    emitter.explain(network.score.name or "score", "start", {})
    scores = emitter.tensor(network.score)
    batch = scores.shape[0]
    if network.signs:
        column = layout.reshape(scores, (batch, 1))
        flat = column * emitter.constant(np.array([network.signs], scores.dtype.numpy()))
    else:
        flat = layout.reshape(scores, (batch, classes or 1))
    int64 = ir.DataType.INT64
    top = emitter.node(
        "ArgMax", flat, shape=(batch, 1), dtype=int64, axis=1, keepdims=1, select_last_index=0
    )
    if target_input is not None:
        asked = layout.reshape(emitter.tensor(target_input), (None, 1))
        # GatherElements counts negative indices from the end; none but -1 means anything here.
        minus, nil, beyond = (
            emitter.constant(np.array([[number]], np.int64)) for number in (-1, 0, classes or 1)
        )
        below = emitter.compare("Less", asked, minus)
        best = emitter.where(below, beyond, top, Sign.UNKNOWN)
        index = emitter.where(emitter.compare("Less", asked, nil), best, asked, Sign.UNKNOWN)
    elif target == "top":
        index = top
    else:
        assert isinstance(target, int)
        index = layout.expand(emitter.constant(np.array([[target]], np.int64)), top)
    picked = emitter.node(
        "GatherElements", flat, index, shape=(batch, 1), dtype=scores.dtype, axis=1
    )
    if network.signs:
        return layout.reshape(picked, scores.shape)
    # Not by Equal: onnxruntime has no CUDA kernel of that from opset 19 on.
    numbers = emitter.constant(np.arange(classes or 1, dtype=scores.dtype.numpy())[None])
    offset = numbers - layout.cast(index, scores.dtype, Sign.UNKNOWN)
    distance = emitter.elementwise("Abs", offset, sign=Sign.NON_NEGATIVE)
    chosen = emitter.compare("Less", distance, emitter.scalar(0.5, distance))
    start = emitter.where(chosen, picked, emitter.scalar(0.0, picked), Sign.UNKNOWN)
    return layout.reshape(start, scores.shape)
