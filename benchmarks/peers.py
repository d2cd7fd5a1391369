"""The others that `speed.py` times, each a call that leaves the relevance of the same inputs."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from unittest.mock import patch

import torch
from architectures import Score
from networks import BOX
from torch import Tensor, nn
from torch.nn import functional
from zennit import composites, rules, types
from zennit.attribution import Gradient
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.core import Composite
from zennit.torchvision import ResNetCanonizer

Call = Callable[[], object]

STEPS = 50
"""Points of integrated gradients, captum's own choice."""


def _epsilon(canonizers: list[object]) -> Composite:
    layers = [*composites.layer_map_base(), (types.Linear, rules.Epsilon())]
    return composites.LayerMapComposite([*layers, (types.Convolution, rules.Epsilon())], canonizers)


ZENNIT: dict[str, Callable[[list[object]], Composite]] = {
    "epsilon": _epsilon,
    "epsilon_plus_flat": lambda c: composites.EpsilonPlusFlat(canonizers=c),
    "epsilon_alpha2_beta1_flat": lambda c: composites.EpsilonAlpha2Beta1Flat(canonizers=c),
    "epsilon_gamma_box": lambda c: composites.EpsilonGammaBox(canonizers=c, **BOX),
    # zennit has no such composites: the nearest, for their time.
    "default": lambda c: composites.EpsilonPlusFlat(canonizers=c),
}


def forward(module: nn.Module, x: Tensor) -> Call:
    """Time torch's forward pass alone."""

    def call() -> Tensor:
        with torch.no_grad():
            return module(x)

    return call


def _embedded(module: nn.Module, x: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Return a function of numbers, and them: of tokens their embeddings."""
    if not isinstance(module, Score):
        return module, x
    model = module.model
    return lambda e: model(inputs_embeds=e).logits, model.get_input_embeddings()(x)


def backward(module: nn.Module, x: Tensor) -> Call:
    """Time gradient times input by torch, of the best class, with respect to the input alone."""
    function, values = _embedded(module, x)

    def call() -> Tensor:
        leaf = values.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(function(leaf).max(1).values.sum(), leaf)
        return gradient * leaf

    return call


@contextmanager
def zennit(module: nn.Module, x: Tensor, composite: str, *, copied: bool = True) -> Iterator[Call]:
    """Register a composite of zennit, on a copy of the network if asked; BatchNorm is merged."""
    canonizer = (
        ResNetCanonizer() if type(module).__name__ == "ResNet" else SequentialMergeBatchNorm()
    )
    chosen = ZENNIT[composite]([canonizer])

    def start(scores: Tensor) -> Tensor:
        return functional.one_hot(scores.argmax(1), scores.shape[1]) * scores.detach()

    with Gradient(copy.deepcopy(module) if copied else module, chosen) as attributor:
        yield lambda: attributor(x, start)[1]


def lxt(module: nn.Module, x: Tensor, composite: str) -> Call:
    """Time LXT's rules as gradient times input (lxt.efficient), on a copy of the network.

    LXT's own patches are for other implementations of these networks: its rules are put where its
    patches would put them, at LayerNorm, at GELU and at the queries, keys and values of attention.
    """
    # They import parts of transformers that its fifth version has not; the rules do not.
    sys.modules.setdefault("lxt.efficient.models", SimpleNamespace(get_default_map=None))
    from lxt.efficient.patches import layer_norm_forward
    from lxt.efficient.rules import divide_gradient, identity_rule_implicit, stop_gradient

    module = copy.deepcopy(module)
    for part in module.modules():
        if isinstance(part, nn.LayerNorm):
            part.forward = partial(layer_norm_forward, part)
        elif "GELU" in type(part).__name__:
            part.forward = partial(identity_rule_implicit, part.forward)
    attend, explain = functional.scaled_dot_product_attention, backward(module, x)

    def shared(query: Tensor, key: Tensor, value: Tensor, *rest: object, **named: object) -> Tensor:
        if composite == "cp_lrp":
            return attend(stop_gradient(query), stop_gradient(key), value, *rest, **named)
        query, key = divide_gradient(query, 4), divide_gradient(key, 4)
        return attend(query, key, divide_gradient(value, 2), *rest, **named)

    def call() -> object:
        with patch.object(functional, "scaled_dot_product_attention", shared):
            return explain()

    return call


def captum(module: nn.Module, x: Tensor) -> dict[str, Call]:
    """Return captum's LRP, DeepLift and integrated gradients; each may refuse when called."""
    from captum.attr import LRP, DeepLift, IntegratedGradients

    # Of the hooks that DeepLift sets, at every call.
    warnings.filterwarnings("ignore", module="captum")
    with torch.no_grad():
        target = module(x).argmax(1)
    values, lrp_of, deeplift_of = x.clone().requires_grad_(), *(copy.deepcopy(module) for _ in "ab")

    def lrp() -> object:
        return LRP(lrp_of).attribute(values, target=target)

    def deeplift() -> object:
        return DeepLift(deeplift_of).attribute(values, target=target)

    def integrated() -> object:
        method = IntegratedGradients(module)
        return method.attribute(values, target=target, n_steps=STEPS, internal_batch_size=10)

    return {
        "captum LRP": lrp,
        "captum DeepLift": deeplift,
        "captum integrated gradients": integrated,
    }
