"""Local response normalisation by first-order Taylor expansion, as the paper writes it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from zennit.core import Hook


def taylor(layer: nn.LocalResponseNorm, x: torch.Tensor, relevance: torch.Tensor) -> torch.Tensor:
    """Share out by eq. 7 of Binder et al. 2016 with the z_ij of eq. 15, neuron by neuron.

    y_k = x_k / (k + alpha / n * sum_j x_j^2)^beta, expanded around the point where all
    neighbours are 0.
    """
    a = layer.alpha / layer.size
    channels, result = x.shape[1], torch.zeros_like(x)
    for k in range(channels):
        window = range(max(0, k - layer.size // 2), min(channels, k + (layer.size - 1) // 2 + 1))
        total = layer.k + a * sum((x[:, j] ** 2 for j in window), torch.zeros_like(x[:, k]))
        alone = layer.k + a * x[:, k] ** 2
        z = {
            j: x[:, k] / alone**layer.beta
            if j == k
            else -2 * a * layer.beta * x[:, k] * x[:, j] ** 2 / total ** (layer.beta + 1)
            for j in window
        }
        whole = sum(z.values(), torch.zeros_like(x[:, k]))
        # Where x_k is 0 so are y_k and, behind any layer, its relevance.
        share = torch.where(whole == 0, torch.zeros_like(whole), relevance[:, k] / whole)
        for j in window:
            result[:, j] += z[j] * share
    return result


class Taylor(Hook):
    """The rule for zennit."""

    def forward(self, module: nn.Module, input: Any, output: Any) -> None:
        self.stored_tensors["input"] = input

    def backward(self, module: Any, grad_input: Any, grad_output: Any) -> Any:
        with torch.no_grad():
            return (taylor(module, self.stored_tensors["input"][0], grad_output[0]),)
