import numpy as np
import onnx
import pytest
import torch
from support import normal, run
from witness.attribution import by_explainer, by_zennit, classes_of, distances
from witness.ledger import NETWORKS as TABLE
from witness.ledger import ON_REQUEST, Ledger
from witness.networks import (
    NETWORKS,
    ROOT,
    SHARED,
    load_weights,
    network,
    trained_lrn,
    trained_resnet20,
)
from witness.normalisation import Taylor
from witness.writer import to_onnx
from zennit import composites
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.rules import Pass

import onnxlrp

COMPOSITES = {
    "epsilon_plus": composites.EpsilonPlus,
    "epsilon_plus_flat": composites.EpsilonPlusFlat,
    "epsilon_alpha2_beta1": composites.EpsilonAlpha2Beta1,
    "epsilon_alpha2_beta1_flat": composites.EpsilonAlpha2Beta1Flat,
    "epsilon_gamma_box": composites.EpsilonGammaBox,
    "excitation_backprop": composites.ExcitationBackprop,
}

VARIANTS = {
    "": ({}, {}),
    ", epsilon 0.25, stabiliser 0.01": (
        {"epsilon": 0.25, "stabilizer": 0.01},
        {"epsilon": 0.25, "stabiliser": 0.01},
    ),
    ", bias excluded": ({"zero_params": "bias"}, {"bias": "exclude"}),
}
"""Parameters of the composites, in both spellings."""

NORMALISATIONS = {
    "identity": [(torch.nn.LocalResponseNorm, Pass())],
    "taylor": [(torch.nn.LocalResponseNorm, Taylor())],
    "gradient": [],
}
"""Treatments of LRN, and what zennit has to be told for each."""

BOUNDS = {"low": -6.0, "high": 6.0}
SAMPLES = 32


def measured(name, proto, built, x, parameters=({}, {}), lrn="taylor"):
    """Distance from zennit in float64 of ours, and of zennit's in float32, sample by sample."""
    theirs, ours = (dict(spelling) for spelling in parameters)
    if name == "epsilon_gamma_box":
        theirs |= BOUNDS
        ours |= BOUNDS
    if name == "excitation_backprop":
        theirs.pop("epsilon", None)
        ours.pop("epsilon", None)
    classes = classes_of(built, x)

    def zennit(dtype):
        composite = COMPOSITES[name](
            layer_map=NORMALISATIONS[lrn], canonizers=[SequentialMergeBatchNorm()], **theirs
        )
        return by_zennit(built, composite, x, classes, dtype)

    wanted = zennit(torch.float64)
    composite = onnxlrp.Composite.load(name).with_parameters(ours).with_lines([f"LRN: {lrn}"])
    found = by_explainer(proto, composite, x, classes)
    return distances(found, wanted), distances(zennit(torch.float32), wanted)


def compare(ledger: Ledger, row: str, name: str, *what, **how) -> None:
    """Hold our distance from zennit in float64 to zennit's own in float32.

    In some samples of some networks a denominator nearly cancels, and either may be further off,
    by chance; so the typical of many samples is held to the gate, and the worst to a wide one.
    """
    apart, own = measured(name, *what, **how)
    typical, usual = float(np.median(apart)), float(np.median(own))
    ledger.compare((TABLE, row, name), typical, 2 * usual + 1e-6, usual)
    assert apart.max() <= 10 * own.max() + 1e-6


def same_outputs(proto: onnx.ModelProto, built, x) -> None:
    with torch.no_grad():
        wanted = built(torch.tensor(x)).numpy()
    (found,) = run(proto, {proto.graph.input[0].name: x}).values()
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_as_in_zennit(name, variant, composite, ledger):
    built, shape = network(name)
    x = normal(SAMPLES, *shape, seed=1)
    proto = to_onnx(built, torch.tensor(x))
    same_outputs(proto, built, x)
    parameters = VARIANTS[variant]
    compare(ledger, name + variant, composite, proto, built, x, parameters, lrn="identity")


def test_another_stabiliser_is_seen():
    """The negative control: what is this little off exceeds the gate."""
    built, shape = network("VGG-like")
    x = normal(SAMPLES, *shape, seed=1)
    parameters = {}, {"stabiliser": 1e-4}
    apart, own = measured("epsilon_plus", to_onnx(built, torch.tensor(x)), built, x, parameters)
    assert np.median(apart) > 2 * (2 * np.median(own) + 1e-6)


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("lrn", ["taylor", "gradient"])
def test_lrn_is_as_in_torch(lrn, composite, ledger):
    built, shape = network("AlexNet-like")
    x = normal(SAMPLES, *shape, seed=1)
    proto = to_onnx(built, torch.tensor(x))
    compare(ledger, f"AlexNet-like, LRN {lrn}", composite, proto, built, x, lrn=lrn)


@pytest.mark.parametrize("composite", COMPOSITES)
def test_the_bundled_network_is_as_in_zennit(composite, ledger):
    proto = onnx.load(ROOT / "models/cifar10_lrn.onnx")
    built = trained_lrn()
    load_weights(built, proto)
    x = normal(SAMPLES, 3, 32, 32, seed=1, scale=60)
    same_outputs(proto, built, x)
    compare(ledger, "trained, LRN", composite, proto, built, x)


@pytest.mark.skipif(
    not SHARED.is_dir(), reason="needs the trained networks of the development machine"
)
@pytest.mark.parametrize("composite", COMPOSITES)
def test_a_trained_resnet_is_as_in_zennit(composite, ledger):
    proto = onnx.load(SHARED / "models/cifar10_resnet20_bn.onnx")
    built = trained_resnet20()
    load_weights(built, proto)
    pixels = np.load(SHARED / "data/cifar10_test.npz")["x"][:SAMPLES] / 255.0
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    x = ((pixels - mean) / deviation).transpose(0, 3, 1, 2).astype(np.float32)
    same_outputs(proto, built, x)
    compare(ledger, ON_REQUEST, composite, proto, built, x)
