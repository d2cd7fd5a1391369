"""The bundled networks, explained by every composite, against the definition."""

from importlib import resources
from pathlib import Path

import numpy as np
import onnx
import onnx.version_converter
import pytest
from PIL import Image
from support import SHARING, close, run

import onnxlrp
from onnxlrp import audit, reference
from onnxlrp.demo import PREPROCESSING
from onnxlrp.inputs.presets import PRESETS

BUNDLED = resources.files("onnxlrp.bundled")
COMPOSITES = [composite.name for composite in SHARING]


def network():
    return onnx.load_model_from_string(BUNDLED.joinpath("cifar10_lrn.onnx").read_bytes())


def photograph():
    with BUNDLED.joinpath("demo.png").open("rb") as file:
        return PREPROCESSING(Image.open(file))[None]


def test_the_network_says_cat():
    assert run(network(), {"image": photograph()})["logits"].argmax() == 3


@pytest.mark.parametrize(
    "treatment",
    [
        "taylor",
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in ("identity", "path-integral", "taylor-2")
        ),
    ],
)
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


ATTENTION = ["cifar10_vit", "reviews"]
SHARED = Path(__file__).parents[2] / "shared/data"
held_out = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the data of the workplace")


def stored(name):
    return onnx.load_model_from_string(BUNDLED.joinpath(f"{name}.onnx").read_bytes())


def tokens(*texts):
    """Encode sentences as the card says."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_str(
        BUNDLED.joinpath("reviews.tokenizer.json").read_text("utf-8")
    )
    encoded = tokenizer.encode_batch(list(texts))
    return {
        "input_ids": np.array([e.ids for e in encoded]),
        "attention_mask": np.array([e.attention_mask for e in encoded]),
    }, [e.tokens for e in encoded]


def sample(name):
    if name == "reviews":
        return tokens("a fine , moving film .", "dull .")[0]
    with BUNDLED.joinpath("demo.png").open("rb") as file:
        return {"image": PRESETS["cifar10"](Image.open(file))[None]}


@pytest.mark.parametrize("composite", ["attn_lrp", "cp_lrp"])
@pytest.mark.parametrize("name", ATTENTION)
def test_every_layer_of_a_network_with_attention_is_as_defined(name, composite):
    proto = stored(name)
    conversion = onnxlrp.convert(proto, composite)
    assert "attention" in conversion.kinds
    found = audit.check(proto, conversion.to_proto(), sample(name))
    # Of every layer, with what float32 cannot do better where terms cancel.
    assert found.passed
    assert max(found.outputs.values()) <= 1e-5
    assert {"Mixture", "LayerNormalization", "Gelu"} <= {
        operation.operator for layer in found.layers for operation in layer.operations
    }


def test_the_word_that_decides_has_the_most_relevance():
    """Padding gets none."""
    fed, words = tokens("a moving film .", "this movie is a waste of time .")
    explainer = onnxlrp.convert(stored("reviews")).to_proto()
    found = run(explainer, {**fed, "target": np.array([-1])})
    assert found["logits"].argmax(1).tolist() == [1, 0]
    relevance = found["relevance"]
    assert [line[row.argmax()] for line, row in zip(words, relevance, strict=True)] == [
        "moving",
        "waste",
    ]
    assert np.all(relevance[fed["attention_mask"] == 0] == 0)


@held_out
def test_the_vision_transformer_knows_images_it_has_not_seen():
    with np.load(SHARED / "cifar10_test.npz") as data:
        pixels, labels = data["x"][:1000], data["y"][:1000]
    x = np.stack([PRESETS["cifar10"].values(image) for image in pixels])
    assert (run(stored("cifar10_vit"), {"image": x})["logits"].argmax(1) == labels).mean() > 0.64


@held_out
def test_the_text_classifier_knows_sentences_it_has_not_seen():
    lines = (SHARED / "movie_reviews.tsv").read_text("utf-8").splitlines()[-1066:]
    labels, texts = zip(*(line.split("\t") for line in lines), strict=True)
    logits = run(stored("reviews"), tokens(*texts)[0])["logits"]
    assert (logits.argmax(1) == np.array(labels, int)).mean() > 0.74
