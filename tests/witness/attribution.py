"""Relevance as zennit and as our explainers compute it, and how far the two are apart."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from support import Array, explain
from torch import nn
from zennit.attribution import Gradient
from zennit.composites import LayerMapComposite
from zennit.core import Composite, Hook

import onnxlrp

torch.set_num_threads(1)


def distance(actual: Array, expected: Array) -> float:
    """Relative L2 distance."""
    assert actual.shape == expected.shape
    assert np.isfinite(expected).all()
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def distances(actual: Array, expected: Array) -> Array:
    """Relative L2 distance of each sample."""
    return np.array([distance(a, b) for a, b in zip(actual, expected, strict=True)])


def classes_of(network: nn.Module, x: Array) -> list[int]:
    """Best-scoring class of each sample, in float64."""
    with torch.no_grad():
        scores = copy.deepcopy(network).double()(torch.tensor(x, dtype=torch.float64))
    return scores.argmax(1).tolist()


def by_zennit(
    network: nn.Module,
    composite: Composite | None,
    x: Array,
    classes: Sequence[int],
    dtype: torch.dtype = torch.float64,
) -> Array:
    """Relevance of the input, started at the scores of `classes`."""
    network = copy.deepcopy(network).to(dtype)

    def start(scores: torch.Tensor) -> torch.Tensor:
        chosen = torch.nn.functional.one_hot(torch.tensor(classes), scores.shape[1])
        return (chosen * scores).detach()

    with Gradient(network, composite) as attributor:
        relevance = attributor(torch.tensor(x, dtype=dtype), start)[1]
    return np.asarray(relevance.detach())


def through_layer(layer: nn.Module, rule: Hook, x: Array, relevance: Array) -> Array:
    """Relevance of a layer's input by a rule of zennit, in float64."""
    layer = copy.deepcopy(layer).double()
    composite = LayerMapComposite([(type(layer), rule)])
    with Gradient(layer, composite) as attributor:
        result = attributor(
            torch.tensor(x, dtype=torch.float64), torch.tensor(relevance, dtype=torch.float64)
        )[1]
    return np.asarray(result.detach())


def by_explainer(
    proto: onnx.ModelProto, composite: onnxlrp.Composite, x: Array, classes: Sequence[int]
) -> Array:
    """Relevance of the input by an explainer in onnxruntime."""
    feeds: dict[str, Any] = {proto.graph.input[0].name: x}
    return explain(proto, composite, feeds, target=classes).values["relevance"]
