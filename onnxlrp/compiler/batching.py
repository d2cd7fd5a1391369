"""Proof that a batch was freed without mixing up its samples."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx

from onnxlrp.errors import ModelError
from onnxlrp.runtime import open_session


def prove_batch(
    explainer: onnx.ModelProto, chooser: str | None, masks: Collection[str] = ()
) -> None:
    """Run two random samples at once and one by one, and compare all outputs.

    Parameters
    ----------
    explainer : with a symbolic batch
    chooser : name of the input that takes the class, or weights; None if the class is written in
    masks : names of the inputs that take masks; each sample gets a number of its own

    Raises
    ------
    ModelError
        If the model cannot run two samples at once, or the results differ by more than 1e-4 of
        the largest.

    """
    session = open_session(explainer.SerializeToString(), "the explainer", "cpu")
    generator = np.random.default_rng(0)
    batch: dict[str, np.ndarray] = {}
    for value in explainer.graph.input:
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
        else:
            batch[value.name] = (generator.random(shape) * 255).astype(dtype)
    advice = "convert without --dynamic-batch, or export the model with a symbolic batch"
    try:
        together = session.run(None, batch)
        single = [
            session.run(None, {name: array[i : i + 1] for name, array in batch.items()})
            for i in (0, 1)
        ]
    # onnxruntime's exceptions share no base class of their own.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"the model cannot take two samples at once ({reason}); {advice}"
        ) from None
    for value, both, *each in zip(explainer.graph.output, together, *single, strict=True):
        apart = np.concatenate(each)
        scale = max(float(np.abs(apart).max()), 1e-30)
        if both.shape != apart.shape or float(np.abs(both - apart).max()) > 1e-4 * scale:
            raise ModelError(f"output '{value.name}' mixes up the samples of a batch; {advice}")
