"""A torch network as it is, whose operations hand back relevance in place of gradients.

While `Intercepted` is on, what torch computes of a live tensor with weights or with another live
tensor is computed by a `School`, in functions whose backward is a rule. All other operations only
move values (views, rolls, slices, concatenations), and so does their gradient.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import lxt.explicit.functional as lxt
import torch
from lxt.explicit.rules import epsilon_lrp, identity
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

Tensor = torch.Tensor


class Shared(torch.autograd.Function):
    """y = f(x, ...): R_x = part x ∂y/∂x (R / stab(y)), by torch's own derivative."""

    @staticmethod
    def forward(ctx: Any, f: Callable, parts: tuple[float, ...], epsilon: float, *xs: Tensor):
        ctx.f, ctx.parts, ctx.epsilon = f, parts, epsilon
        ctx.save_for_backward(*xs)
        return f(*xs)

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> Any:
        with torch.enable_grad():
            xs = [x.detach().requires_grad_() for x in ctx.saved_tensors]
            y = ctx.f(*xs)
        stab = torch.where(y < 0, y - ctx.epsilon, y + ctx.epsilon)
        # Only epsilon 0 (softmax) meets a y of 0: of what is masked out nothing is explained.
        slopes = torch.autograd.grad(y, xs, torch.where(stab == 0, 0.0, relevance / stab))
        terms = [
            part * torch.where(slope == 0, 0.0, x * slope)
            for part, x, slope in zip(ctx.parts, xs, slopes, strict=True)
        ]
        return None, None, None, *terms


class HandedOn(torch.autograd.Function):
    """y = f(x, ...), elementwise: R_x = part R."""

    @staticmethod
    def forward(ctx: Any, f: Callable, parts: tuple[float, ...], *xs: Tensor) -> Tensor:
        ctx.parts = parts
        return f(*xs)

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> Any:
        return None, None, *(part * relevance for part in ctx.parts)


class AttnLrp:
    """AttnLRP (Achtibat et al. 2024, eq. 8, props. 3.1 to 3.4), each stabiliser with y's sign.

    CP-LRP (Ali et al. 2022) where values get all: attention weights are held fixed.
    """

    def __init__(self, epsilon: float, to_values: float = 0.5) -> None:
        self.epsilon = epsilon
        self.to_values = to_values

    def linear(self, f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return Shared.apply(f, (1.0,), self.epsilon, x)

    def mean(self, x: Tensor, axis: int) -> Tensor:
        return self.linear(lambda x: x.mean(axis, keepdim=True), x)

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        return Shared.apply(torch.add, (1.0, 1.0), self.epsilon, a, b)

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        return Shared.apply(torch.matmul, (0.5, 0.5), self.epsilon, a, b)

    def mix(self, weights: Tensor, values: Tensor) -> Tensor:
        parts = (1 - self.to_values, self.to_values)
        return Shared.apply(torch.matmul, parts, self.epsilon, weights, values)

    def multiply(self, a: Tensor, b: Tensor) -> Tensor:
        return HandedOn.apply(torch.mul, (0.5, 0.5), a, b)

    def softmax(self, x: Tensor) -> Tensor:
        return Shared.apply(lambda x: x.softmax(-1), (1.0,), 0.0, x)

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
        deviation = (x.var(-1, correction=0, keepdim=True) + epsilon).sqrt().detach()
        return self.linear(lambda x: (x - x.mean(-1, keepdim=True)) / deviation * weight + bias, x)

    def rms_norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        deviation = (x.pow(2).mean(-1, keepdim=True) + epsilon).sqrt().detach()
        return self.linear(lambda x: x / deviation * weight, x)

    def elementwise(self, f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return HandedOn.apply(f, (1.0,), x)


class Lxt:
    """The same by LXT's functions, which add epsilon without a sign, each in a place of its own."""

    def __init__(self, epsilon: float, to_values: float = 0.5) -> None:
        self.epsilon = epsilon
        self.to_values = to_values

    def linear(self, f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return epsilon_lrp(f, self.epsilon, x)

    def mean(self, x: Tensor, axis: int) -> Tensor:
        return lxt.mean(x, axis, True, self.epsilon)

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        return lxt.add2(a, b, False, self.epsilon)

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        return lxt.matmul(a, b, False, self.epsilon)

    def mix(self, weights: Tensor, values: Tensor) -> Tensor:
        if self.to_values == 1:
            return epsilon_lrp(partial(torch.matmul, weights.detach()), self.epsilon, values)
        return self.matmul(weights, values)

    def multiply(self, a: Tensor, b: Tensor) -> Tensor:
        return lxt.mul2(a, b)

    def softmax(self, x: Tensor) -> Tensor:
        return lxt.softmax(x, -1)

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
        # The function that is meant to be called leaves its own epsilon at 1e-6.
        return lxt.layer_norm_grad_fn.apply(x, weight, bias, epsilon, self.epsilon)

    def rms_norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        # lxt.rms_norm_identity computes in float32.
        shape = x.shape[-1:]
        return self.elementwise(lambda x: functional.rms_norm(x, shape, weight, epsilon), x)

    def elementwise(self, f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return identity(f, x)


class Intercepted(TorchFunctionMode):
    """Hands operations of live tensors to a school.

    Attributes
    ----------
    school : that computes them
    table : an embedding, whose rows become `rows`, which are live

    """

    def __init__(self, school: Any, table: Tensor | None = None) -> None:
        super().__init__()
        self.school = school
        self.table = table
        self.rows: Tensor | None = None

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        kwargs = kwargs or {}
        name = function.__name__
        if name == "embedding" and args[1] is self.table:
            self.rows = function(*args, **kwargs).detach().requires_grad_()
            return self.rows
        live = [a for a in args if isinstance(a, Tensor) and a.requires_grad]
        if not live or name not in OPERATIONS:
            return function(*args, **kwargs)
        return OPERATIONS[name](self.school, function, *args, **kwargs)


def _by_weights(school: Any, function: Any, x: Tensor, *rest: Any, **options: Any) -> Tensor:
    return school.linear(lambda x: function(x, *rest, **options), x)


def _addmm(school: Any, function: Any, bias: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    return school.linear(lambda x: torch.addmm(bias, x, weight), x)


def _multiply(school: Any, function: Any, a: Tensor, b: Any) -> Tensor:
    if isinstance(b, Tensor) and b.requires_grad:
        return school.multiply(a, b) if a.requires_grad else _multiply(school, function, b, a)
    return school.elementwise(lambda a: a * b, a)


def _matmul(school: Any, function: Any, a: Tensor, b: Tensor) -> Tensor:
    return school.mix(a, b) if getattr(a, "mixes", False) else school.matmul(a, b)


def _softmax(school: Any, function: Any, x: Tensor, *rest: Any, **options: Any) -> Tensor:
    result = school.softmax(x)
    result.mixes = True
    return result


def _elementwise(school: Any, function: Any, x: Tensor, *rest: Any, **options: Any) -> Tensor:
    return school.elementwise(lambda x: function(x, *rest, **options), x)


def _layer_norm(
    school: Any, function: Any, x: Tensor, shape: Any, weight: Tensor, bias: Tensor, eps: float
) -> Tensor:
    return school.layer_norm(x, weight, bias, eps)


def _rms_norm(
    school: Any, function: Any, x: Tensor, shape: Any, weight: Tensor, eps: float
) -> Tensor:
    return school.rms_norm(x, weight, eps)


def _same(school: Any, function: Any, x: Tensor, *rest: Any, **options: Any) -> Tensor:
    return x


OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "linear": _by_weights,
    "conv2d": _by_weights,
    "addmm": _addmm,
    "add": lambda school, function, a, b: school.add(a, b),
    "mul": _multiply,
    "matmul": _matmul,
    "softmax": _softmax,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "adaptive_avg_pool1d": lambda school, function, x, size: school.mean(x, -1),
    **dict.fromkeys(("gelu", "silu", "tanh", "neg"), _elementwise),
    # A cast within a network of one precision.
    **dict.fromkeys(("dropout", "to", "type"), _same),
}


@contextmanager
def explained(school: Any, network: nn.Module, table: Tensor | None = None):
    """Let a school compute a network; activations and normalisations in one piece each."""
    replaced = [module for module in network.modules() if _whole(module)]
    for module in replaced:
        plain = type(module).forward
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = lambda x, m=module: functional.rms_norm(
                x, x.shape[-1:], m.weight, m.variance_epsilon
            )
        else:
            module.forward = lambda x, m=module, f=plain: school.elementwise(partial(f, m), x)
    try:
        with Intercepted(school, table) as mode:
            yield mode
    finally:
        for module in replaced:
            del module.forward


def _whole(module: nn.Module) -> bool:
    kind = type(module)
    return kind.__name__.endswith("RMSNorm") or kind.__module__ == "transformers.activations"


def relevance(
    network: nn.Module,
    school: Any,
    inputs: Mapping[str, Tensor],
    classes: Sequence[int],
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor]:
    """Scores, and relevance of pictures, or of tokens [N, T], for `classes`."""
    network = copy.deepcopy(network).to(dtype).requires_grad_(False)
    inputs = {k: x.clone().to(dtype) if x.is_floating_point() else x for k, x in inputs.items()}
    pictures, table = inputs.get("pixel_values"), None
    if pictures is None:
        table = network.get_input_embeddings().weight
    else:
        pictures.requires_grad_()
    with explained(school, network, table) as mode:
        scores = network(**inputs).logits
    chosen = functional.one_hot(torch.tensor(classes), scores.shape[1])
    scores.backward(chosen * scores.detach())
    if pictures is not None:
        return scores.detach(), pictures.grad
    return scores.detach(), mode.rows.grad.sum(-1)
