"""The bundled network, explained by every composite, against the definition end to end."""

from importlib import resources

import numpy as np
import onnx
import onnx.version_converter
import pytest
from PIL import Image
from support import close, run

import onnxlrp
from onnxlrp import reference
from onnxlrp.compiler.composite import available
from onnxlrp.demo import PREPROCESSING

BUNDLED = resources.files("onnxlrp.bundled")
COMPOSITES = [composite.name for composite in available()]


def network():
    return onnx.load_model_from_string(BUNDLED.joinpath("cifar10_lrn.onnx").read_bytes())


def photograph():
    with BUNDLED.joinpath("demo.png").open("rb") as file:
        return PREPROCESSING(Image.open(file))[None]


def test_the_network_says_cat():
    assert run(network(), {"image": photograph()})["logits"].argmax() == 3


@pytest.mark.parametrize("treatment", ["taylor", "identity", "path-integral", "taylor-2"])
@pytest.mark.parametrize("composite", COMPOSITES)
def test_every_composite_is_as_defined_end_to_end(composite, treatment):
    """Where denominators cancel (epsilon on signed values), float32 itself is the limit.

    Its noise is measured: the same explainer on the photograph shifted by one float32 step.
    """
    chosen = onnxlrp.Composite.load(composite).with_lines([f"LRN: {treatment}"])
    conversion = onnxlrp.convert(network(), chosen, preprocessing=PREPROCESSING)
    explainer = conversion.to_proto()
    x = photograph()
    relevance = run(explainer, {"image": x, "target": np.array([-1])})["relevance"]
    rules = {entry.name: (entry.rule, dict(entry.parameters)) for entry in conversion.nodes}
    lifted = onnx.version_converter.convert_version(network(), 18)
    wanted = reference.explain(lifted, {"image": x}, lambda n: rules[n.name], ["image"], "logits")
    nudged = np.nextafter(x, np.float32(np.inf), dtype=np.float32)
    moved = run(explainer, {"image": nudged, "target": np.array([-1])})["relevance"]
    noise = np.abs(moved - relevance).max() / np.abs(relevance).max()
    close(relevance, wanted["image"], max(1e-4, 10 * noise))
    assert noise < 1e-2


def test_lrn_treatments_differ():
    """LRN really acts in this network: identity and Taylor give different maps."""
    maps = [
        run(
            onnxlrp.convert(
                network(), onnxlrp.Composite.load("epsilon_plus").with_lines([f"LRN: {treatment}"])
            ).to_proto(),
            {"image": photograph(), "target": np.array([-1])},
        )["relevance"]
        for treatment in ("taylor", "identity")
    ]
    assert np.abs(maps[0] - maps[1]).max() > 0.01 * np.abs(maps[0]).max()
