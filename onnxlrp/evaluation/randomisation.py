"""Whether a heatmap depends on what the model has learnt (Adebayo et al. 2018, section 4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from onnxlrp.compiler.composite import Composite
from onnxlrp.evaluation.agreement import agreement
from onnxlrp.evaluation.medium import Feeds
from onnxlrp.evaluation.scored import ScoredModel
from onnxlrp.telling import counted


def randomise(
    model: ScoredModel, composite: Composite, feeds: Sequence[Feeds], seed: int = 0
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Shuffle the weights of one layer after the other, from the score down, and explain anew.

    The cascading randomisation of Adebayo et al.: after each step all layers from the top to the
    named one are shuffled. Shuffling keeps each tensor's distribution. The class explained stays
    the one that the untouched model predicts.

    Parameters
    ----------
    model : an ONNX classifier
    composite : which rule each node gets
    feeds : what the model reads of each of N samples, a batch of one
    seed : of the shuffling

    Yields
    ------
    name of the layer, and Spearman's correlation of |relevance| with that of the untouched model
    for each sample, [N]: near 0 where the map depends on the weights, near 1 where it does not

    """
    proto = onnx.load(model.path)
    before, targets = _explained(model, proto, composite, feeds, [-1] * len(feeds))
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    random = np.random.default_rng(seed)
    for node in counted(proto.graph.node[::-1], "nodes shuffled"):
        owned = [tensors.pop(name) for name in node.input if name in tensors]
        # A single number, such as an exponent, has no other order.
        shuffled = [tensor for tensor in owned if np.prod(tensor.dims) > 1]
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or not shuffled:
            continue
        for tensor in shuffled:
            values = numpy_helper.to_array(tensor)
            mixed = random.permutation(values.ravel()).reshape(values.shape)
            tensor.CopyFrom(numpy_helper.from_array(mixed, tensor.name))
        after, _ = _explained(model, proto, composite, feeds, targets)
        found = [agreement(a, b)["spearman"] for a, b in zip(before, after, strict=True)]
        yield node.name or node.output[0], np.array(found)


def _explained(
    model: ScoredModel,
    proto: onnx.ModelProto,
    composite: Composite,
    feeds: Sequence[Feeds],
    targets: Sequence[int],
) -> tuple[list[NDArray[Any]], list[int]]:
    """Return |relevance| of the explained input for each sample, and the class explained."""
    with model.explainer(composite, proto) as run:
        found = [run(one, target) for one, target in zip(feeds, targets, strict=True)]
    maps = [np.abs(model.relevance(one)) for one in found]
    return maps, [int(one.target[0]) for one in found]
