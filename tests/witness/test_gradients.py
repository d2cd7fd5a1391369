"""The gradient family against torch autograd and Captum, in float64."""

import copy

import numpy as np
import pytest
import torch
from captum.attr import (
    Deconvolution,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    LayerAttribution,
    LayerGradCam,
    Saliency,
)
from support import explain, run
from witness.attribution import classes_of
from witness.networks import NETWORKS, Block, network
from witness.test_transformers import distance, exported
from witness.test_transformers import network as transformer
from witness.writer import to_onnx

import onnxlrp

METHODS = {
    "gradient": lambda net: lambda x, target: Saliency(net).attribute(x, target, abs=False),
    "gradient_x_input": lambda net: InputXGradient(net).attribute,
    "guided_backprop": lambda net: GuidedBackprop(net).attribute,
    "deconvnet": lambda net: Deconvolution(net).attribute,
}
GATE = 1e-5


def by_captum(method, net, x, classes):
    wide = copy.deepcopy(net).double()
    inputs = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    return METHODS[method](wide)(inputs, torch.tensor(classes)).detach().numpy()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_family_is_as_in_captum(name):
    net, shape = network(name)
    x = np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32)
    classes = classes_of(net, x)
    proto = to_onnx(net, torch.tensor(x))
    feeds = {proto.graph.input[0].name: x}
    for method in METHODS:
        found = explain(proto, onnxlrp.Composite.load(method), feeds, target=classes)
        assert distance(found.values["relevance"], by_captum(method, net, x, classes)) < GATE


@pytest.mark.parametrize("name", ["VGG-like", "ResNet-like", "AlexNet-like"])
def test_integrated_gradients_are_as_in_captum(name):
    """By the same rule of quadrature, and as few steps as show every one of them."""
    net, shape = network(name)
    x = np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32)
    classes = classes_of(net, x)
    conversion = onnxlrp.convert(to_onnx(net, torch.tensor(x)), "integrated_gradients; steps=8")
    found = onnxlrp.Explainer(conversion.to_proto().SerializeToString())(x, classes).relevance
    wide = IntegratedGradients(copy.deepcopy(net).double())
    inputs = torch.tensor(x, dtype=torch.float64)
    wanted = wide.attribute(inputs, target=torch.tensor(classes), n_steps=8).detach().numpy()
    assert distance(found, wanted) < GATE


@pytest.mark.parametrize("name", sorted({*NETWORKS} - {"dense"}))
def test_grad_cam_is_as_in_captum(name):
    """At the last activation before all is flattened."""
    net, shape = network(name)
    x = np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32)
    classes = classes_of(net, x)
    wide = copy.deepcopy(net).double()
    spatial = list(wide)[: [type(module) for module in wide].index(torch.nn.Flatten)]
    layer = [module for module in spatial if isinstance(module, torch.nn.ReLU | Block)][-1]
    inputs = torch.tensor(x, dtype=torch.float64)
    small = LayerGradCam(wide, layer).attribute(
        inputs, torch.tensor(classes), relu_attributions=True
    )
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(shape) - 1]
    wanted = LayerAttribution.interpolate(small, shape[1:], mode)[:, 0].detach().numpy()
    proto = to_onnx(net, torch.tensor(x))
    feeds = {proto.graph.input[0].name: x}
    found = explain(proto, onnxlrp.Composite.load("grad_cam"), feeds, target=classes)
    assert distance(found.values["relevance"].sum(axis=1), wanted) < GATE


@pytest.mark.parametrize("name", ["ViT", "BERT", "GPT-2", "Llama", "Swin"])
def test_transformers_are_as_in_torch(name):
    built, inputs = transformer(name)
    proto = exported(built, inputs, dynamo=False)
    feeds = {key: value.numpy() for key, value in inputs.items()}
    classes = run(proto, feeds)["logits"].argmax(1).tolist()
    wide = copy.deepcopy(built).double()
    rows = {}
    if name in ("ViT", "Swin"):
        entry = inputs["pixel_values"].double().requires_grad_()
        scores = wide(pixel_values=entry).logits
    else:

        def keep(module, arguments, output):
            output.retain_grad()
            rows["output"] = output

        wide.get_input_embeddings().register_forward_hook(keep)
        scores = wide(**inputs).logits
        entry = rows["output"]
    scores[torch.arange(2), classes].sum().backward()
    slope = entry.grad.numpy()
    product = slope * entry.detach().numpy()
    found = explain(proto, onnxlrp.Composite.load("gradient_x_input"), feeds, target=classes)
    if rows:
        product = product.sum(axis=-1)
    else:
        plain = explain(proto, onnxlrp.Composite.load("gradient"), feeds, target=classes)
        assert distance(plain.values["relevance"], slope) < GATE
    assert distance(found.values["relevance"], product) < GATE
