"""The networks of `speed.py`: built with random weights, exported, and explained by what."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from architectures import Score, settle
from torch import Tensor, nn

import onnxlrp

Array = np.ndarray[Any, Any]

CONVOLUTIONAL = (
    *("epsilon", "epsilon_plus_flat", "epsilon_alpha2_beta1_flat", "epsilon_gamma_box"),
    "default",
)
ATTENTIVE = ("attn_lrp", "cp_lrp")
BOX = {"low": -5.0, "high": 5.0}
"""Bounds of z-box: the inputs are drawn from a standard normal distribution."""

TOKENS, SEQUENCE = 1000, 128


@dataclass(frozen=True)
class Network:
    """A network and how it is explained.

    Attributes
    ----------
    create : makes the module
    composites : what it is explained by; the first but one, or the first of two, stands for all
    shape : of one sample; empty for tokens

    """

    create: Callable[[], nn.Module]
    composites: tuple[str, ...]
    shape: tuple[int, ...] = (3, 224, 224)

    @property
    def main(self) -> str:
        """The composite that is measured where not all are."""
        return "epsilon_plus_flat" if self.composites is CONVOLUTIONAL else "attn_lrp"

    def build(self) -> nn.Module:
        """Build the module, weights from a fixed seed, nothing in place, no weight trainable."""
        torch.manual_seed(0)
        module = self.create()
        for part in module.modules():
            if hasattr(part, "inplace"):
                part.inplace = False
        settle(module, self.inputs(4))
        return module.requires_grad_(False)

    def inputs(self, batch: int) -> Tensor:
        """Draw inputs: [batch, *shape], or tokens, [batch, SEQUENCE]."""
        random = torch.Generator().manual_seed(1)
        if self.shape:
            return torch.randn(batch, *self.shape, generator=random)
        return torch.randint(1, TOKENS, (batch, SEQUENCE), generator=random)


def _alexnet_lrn() -> nn.Module:
    """AlexNet with the paper's normalisation behind its first two activations."""
    from torchvision import models

    network = models.alexnet(weights=None)
    parts = list(network.features)
    for behind in (5, 2):
        parts.insert(behind, nn.LocalResponseNorm(5))
    network.features = nn.Sequential(*parts)
    # It has its size already; the exporter does not see that behind normalisation.
    network.avgpool = nn.Identity()
    return network


def _googlenet() -> nn.Module:
    from torchvision import models

    return models.googlenet(
        weights=None, aux_logits=False, init_weights=True, transform_input=False
    )


def _torchvision(name: str) -> Callable[[], nn.Module]:
    def create() -> nn.Module:
        from torchvision import models

        return models.get_model(name, weights=None)

    return create


def _timm(name: str) -> Callable[[], nn.Module]:
    def create() -> nn.Module:
        import timm

        return timm.create_model(name)

    return create


def _bert_mini() -> nn.Module:
    import transformers

    config = transformers.BertConfig(
        vocab_size=TOKENS, hidden_size=256, num_hidden_layers=4, num_attention_heads=4,
        intermediate_size=1024, num_labels=5,
    )  # fmt: skip
    return Score(transformers.BertForSequenceClassification(config), ("input_ids",))


NETWORKS = {
    "alexnet_lrn": Network(_alexnet_lrn, CONVOLUTIONAL),
    "googlenet": Network(_googlenet, CONVOLUTIONAL),
    "vgg16": Network(_torchvision("vgg16"), CONVOLUTIONAL),
    "resnet50": Network(_torchvision("resnet50"), CONVOLUTIONAL),
    "mobilenet_v2": Network(_torchvision("mobilenet_v2"), CONVOLUTIONAL),
    "efficientnet_b0": Network(_timm("efficientnet_b0"), CONVOLUTIONAL),
    "vit_small": Network(_timm("vit_small_patch16_224"), ATTENTIVE),
    "bert_mini": Network(_bert_mini, ATTENTIVE, ()),
}


def plain(
    *, depth: int = 8, width: int = 32, classes: int = 1000, shape: tuple[int, ...] = (3, 64, 64)
) -> Network:
    """Return a chain of 3x3 convolutions with ReLU and one dense layer, of a given size."""

    def create() -> nn.Module:
        layers: list[nn.Module] = []
        for before in [3] + [width] * (depth - 1):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
        return nn.Sequential(
            *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)
        )

    return Network(create, CONVOLUTIONAL, shape)


def export(network: Network, module: nn.Module, path: Path) -> None:
    """Write a module as ONNX by torch's TorchScript exporter, opset 17, the batch symbolic."""
    module = copy.deepcopy(module)
    if isinstance(module, Score):
        # Attention written out, which is what exporters and optimisers know best.
        module.model.set_attn_implementation("eager")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (network.inputs(2),), str(path), dynamo=False, opset_version=17,
            input_names=["data"], output_names=["logits"],
            dynamic_axes={"data": {0: "N"}, "logits": {0: "N"}},
        )  # fmt: skip


def convert(model: Path, composite: str, explainer: Path) -> None:
    """Write the explainer of a model."""
    chosen = onnxlrp.Composite.load(composite)
    if composite == "epsilon_gamma_box":
        chosen = chosen.with_parameters(BOX)
    onnxlrp.convert(model, chosen).save(explainer)
