"""Proof that samples that run as one batch get what each gets alone."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx

from onnxlrp.errors import ModelError


def prove_batch(
    graph: onnx.GraphProto, session: Any, chooser: str | None, masks: Collection[str] = ()
) -> None:
    """Run two random samples at once and one by one, and compare all outputs.

    Parameters
    ----------
    graph : of the explainer, with a symbolic batch
    session : of onnxruntime, which runs it
    chooser : name of the input that takes the class, or weights; None if the class is written in
    masks : names of the inputs that take masks; each sample gets a number of its own

    Raises
    ------
    ModelError
        If the model cannot run two samples at once, or the results differ by more than 1e-4 of
        the largest.

    """
    generator = np.random.default_rng(0)
    batch: dict[str, np.ndarray] = {}
    for value in graph.input:
        kind = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        shape = [2, *(d.dim_value or 64 for d in list(kind.shape.dim)[1:])]
        if value.name == chooser and dtype == np.int64:
            batch[value.name] = np.full(2, -1, np.int64)
        elif value.name == chooser:
            batch[value.name] = generator.normal(size=shape).astype(dtype)
        elif value.name in masks:
            ones = [1] * (len(kind.shape.dim) - 1)
            batch[value.name] = generator.random((2, *ones)).astype(dtype)
        elif dtype.kind == "O":
            batch[value.name] = np.full(shape, "a", dtype)
        elif dtype.kind == "i":
            # Tokens, or categories: every table that they choose from has two rows.
            batch[value.name] = generator.integers(0, 2, shape).astype(dtype)
        else:
            batch[value.name] = (generator.random(shape) * 255).astype(dtype)
    try:
        together = session.run(None, batch)
        single = [
            session.run(None, {name: array[i : i + 1] for name, array in batch.items()})
            for i in (0, 1)
        ]
    # onnxruntime's exceptions share no base class of their own.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"the model cannot take two samples at once ({reason})") from None
    for value, both, *each in zip(graph.output, together, *single, strict=True):
        if any(not alone.shape for alone in each) or not _equal(both, np.concatenate(each)):
            raise ModelError(f"output '{value.name}' mixes up the samples of a batch")


def _equal(both: np.ndarray, apart: np.ndarray) -> bool:
    if both.shape != apart.shape or both.dtype.kind in "OU":
        return np.array_equal(both, apart)
    together, alone = both.astype(np.float64), apart.astype(np.float64)
    scale = max(float(np.abs(alone).max(initial=0)), 1e-30)
    # Where nothing is a number, nothing is told.
    return not float(np.abs(together - alone).max(initial=0)) > 1e-4 * scale
