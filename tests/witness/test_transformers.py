"""Transformers of the library of that name: relevance in onnxruntime against torch in float64."""

import copy
import io
import warnings

import numpy as np
import onnx
import pytest
import torch
import transformers
from support import explain, run
from torch import nn
from witness.intercepted import AttnLrp, Lxt, relevance
from witness.ledger import TRANSFORMERS, Ledger

import onnxlrp

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "num_labels": 5,
}
TOKENS = {"vocab_size": 50, "max_position_embeddings": 16, "pad_token_id": 0}


def vit() -> nn.Module:
    """A class token, learnt positions, normalisation in front."""
    config = transformers.ViTConfig(**SIZES, image_size=24, patch_size=8)
    return transformers.ViTForImageClassification(config)


def bert() -> nn.Module:
    """Normalisation behind, a mask, a tanh on the first token."""
    return transformers.BertForSequenceClassification(transformers.BertConfig(**SIZES, **TOKENS))


def gpt2() -> nn.Module:
    """Causal, GELU written out, the last token."""
    return transformers.GPT2ForSequenceClassification(transformers.GPT2Config(**SIZES, **TOKENS))


def llama() -> nn.Module:
    """Root mean square, rotary positions, two heads to each key, a gated layer."""
    config = transformers.LlamaConfig(**SIZES, **TOKENS, num_key_value_heads=2)
    return transformers.LlamaForSequenceClassification(config)


def swin() -> nn.Module:
    """Shifted windows, relative positions, merged patches, a mean."""
    config = transformers.SwinConfig(
        image_size=32, patch_size=2, embed_dim=16, depths=[2, 1], num_heads=[2, 4], window_size=4,
        num_labels=5,
    )  # fmt: skip
    return transformers.SwinForImageClassification(config)


NETWORKS = {"ViT": vit, "BERT": bert, "GPT-2": gpt2, "Llama": llama, "Swin": swin}

SCHOOLS = {"attn_lrp": 0.5, "cp_lrp": 1.0}
"""By composite, the part of a mixture's relevance that its values get."""

EPSILONS = (1e-6, 1e-2)
GATE = 1e-5


def network(name: str) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """Build a network with biases and scales that matter, and an input for two samples."""
    torch.manual_seed(len(name))
    built = NETWORKS[name]().eval()
    built.set_attn_implementation("eager")
    for label, weights in built.named_parameters():
        if weights.ndim > 1:
            embeds = isinstance(built.get_submodule(label.rpartition(".")[0]), nn.Embedding)
            nn.init.normal_(weights, std=1 if embeds else weights[0].numel() ** -0.5)
        elif label.endswith("weight"):
            nn.init.uniform_(weights, 0.5, 1.5)
        else:
            nn.init.normal_(weights, std=0.3)
    if name in ("ViT", "Swin"):
        size = built.config.image_size
        return built, {"pixel_values": torch.randn(2, 3, size, size)}
    tokens = torch.randint(1, 50, (2, 7))
    inputs = {"input_ids": tokens}
    if name == "BERT":
        tokens[1, 5:] = 0
        inputs["attention_mask"] = (tokens != 0).long()
    return built, inputs


class Logits(nn.Module):
    """What is exported."""

    def __init__(self, built: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.built, self.names = built, names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.built(**dict(zip(self.names, inputs, strict=True))).logits


def exported(built: nn.Module, inputs: dict[str, torch.Tensor], dynamo: bool) -> onnx.ModelProto:
    """Export; of a copy, as tracing leaves its marks on Swin."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Logits(copy.deepcopy(built), list(inputs)), tuple(inputs.values()), file,
            input_names=list(inputs), output_names=["logits"], dynamo=dynamo, verbose=False,
            opset_version=18 if dynamo else 17,
        )  # fmt: skip
    return onnx.load_from_string(file.getvalue())


def distance(actual: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference as a part of max |R|, of the worst sample."""
    assert actual.shape == expected.shape
    each = tuple(range(1, expected.ndim))
    return float((np.abs(actual - expected).max(each) / np.abs(expected).max(each)).max())


@pytest.mark.parametrize("exporter", ["TorchScript", "dynamo"])
@pytest.mark.parametrize("name", NETWORKS)
def test_explainers_are_the_definition(name: str, exporter: str, ledger: Ledger):
    built, inputs = network(name)
    proto = exported(built, inputs, exporter == "dynamo")
    feeds = {key: value.numpy() for key, value in inputs.items()}
    classes = run(proto, feeds)["logits"].argmax(1).tolist()
    for composite, to_values in SCHOOLS.items():
        for epsilon in EPSILONS:
            parameters = {"epsilon": epsilon, "stabiliser": epsilon}
            ours = explain(
                proto,
                onnxlrp.Composite.load(composite).with_parameters(parameters),
                feeds,
                target=classes,
            )
            school = AttnLrp(epsilon, to_values)
            scores, wanted = relevance(built, school, inputs, classes)
            np.testing.assert_allclose(ours.values["logits"], scores, rtol=1e-4, atol=1e-5)
            single = relevance(built, school, inputs, classes, torch.float32)[1]
            theirs = distance(single.numpy(), wanted.numpy())
            ledger.compare(
                (TRANSFORMERS, f"{name}, {exporter}", f"{composite}, epsilon {epsilon:g}"),
                distance(ours.values["relevance"], wanted.numpy()),
                max(GATE, 4 * theirs),
                theirs,
            )


@pytest.mark.parametrize("composite", SCHOOLS)
@pytest.mark.parametrize("name", NETWORKS)
def test_lxt_agrees_where_epsilon_vanishes(name: str, composite: str, ledger: Ledger):
    """At 1e-12 it is nothing where epsilon is added, at 1e-6 it shows.

    LXT's has no sign; a matrix product gets half of it, a mean's sum the whole, a root mean square
    none.
    """
    built, inputs = network(name)
    with torch.no_grad():
        classes = built(**inputs).logits.argmax(1).tolist()
    for epsilon, gate in ((1e-12, 1e-7), (1e-6, 0.1)):
        ours, theirs = (
            relevance(built, school(epsilon, SCHOOLS[composite]), inputs, classes)[1].numpy()
            for school in (AttnLrp, Lxt)
        )
        found = distance(theirs, ours)
        column = f"{composite}, epsilon {epsilon:g}"
        ledger.compare((TRANSFORMERS, f"{name}, LXT", column), found, gate)
        assert (found > 1e-6) == (epsilon == 1e-6)
