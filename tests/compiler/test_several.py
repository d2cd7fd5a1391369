"""One sample, several classes: all at once is each alone, or an error.

That every operator under every rule can do it, `support.explain` asks wherever it is used.
"""

from pathlib import Path

import numpy as np
import pytest
from support import close, explained_together, lines, model, node, normal, run

import onnxlrp
from onnxlrp.compiler.composite import available
from onnxlrp.errors import InputError
from onnxlrp.inputs.presets import PRESETS
from onnxlrp.runtime import open_session

BUNDLED = Path(__file__).parents[2] / "models/cifar10_lrn.onnx"
SHARED = Path(__file__).parents[3] / "shared"
EPSILON = lines("MatMul: epsilon", "Add: norm", "ReduceMean: norm")
X = normal(1, 4, 6, seed=1)


def opened(conversion):
    return open_session(conversion.to_proto().SerializeToString(), "the explainer", "cpu")


@pytest.mark.parametrize("composite", [c.name for c in available() if c.name != "deepshap"])
def test_every_composite_on_a_trained_network(composite):
    """But for the one that takes its reference at run time, for each sample."""
    picture = np.random.default_rng(0).random((1, 3, 32, 32), np.float32)
    session = opened(onnxlrp.convert(BUNDLED, composite, preprocessing=PRESETS["cifar10"]))
    explained_together(session, {"image": picture}, [3, 9, -1], tolerance=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the networks of the development machine")
@pytest.mark.parametrize(
    "name", ["cifar10_resnet20_bn", "googlenet_bvlc", "ch_ppocr_mobile_v2.0_cls_infer"]
)
def test_trained_networks(name):
    conversion = onnxlrp.convert(SHARED / f"models/{name}.onnx")
    source, _, (_, *sizes) = conversion.inputs[0]
    picture = normal(1, *(size if isinstance(size, int) else 48 for size in sizes), seed=3)
    explained_together(opened(conversion), {source: picture}, [0, 1, -1], tolerance=1e-6)


def attending(merged):
    """Score 3 classes by attention, its two heads beside the batch, or one axis with it."""
    heads = [-1, 4, 3] if merged else [-1, 2, 4, 3]
    body = [
        *(node("MatMul", ["x", f"w{part}"], part) for part in "qkv"),
        *(node("Reshape", [part, "split"], f"{part}s") for part in "qkv"),
        *(node("Transpose", [f"{part}s"], f"{part}t", perm=[0, 2, 1, 3]) for part in "qkv"),
        *(node("Reshape", [f"{part}t", "heads"], f"{part}h") for part in "qkv"),
        node("Transpose", ["kh"], "kc", perm=[0, 2, 1] if merged else [0, 1, 3, 2]),
        node("MatMul", ["qh", "kc"], "s"),
        node("Softmax", ["s"], "a", axis=-1),
        node("MatMul", ["a", "vh"], "mixed"),
        node("Reshape", ["mixed", "back"], "m"),
        node("ReduceMean", ["m", "axes"], "pooled", keepdims=0),
        node("MatMul", ["pooled", "readout"], "logits"),
    ]
    weights = {f"w{part}": normal(6, 6, seed=seed) for seed, part in enumerate("qkv")}
    weights |= {
        "split": np.array([0, 4, 2, 3]),
        "heads": np.array(heads),
        "back": np.array([-1, 2, 4, 3]),
        "axes": np.array([1, 2]),
        "readout": normal(3, 3, seed=9),
    }
    return model(body, {"x": ["N", 4, 6]}, ["logits"], weights)


def mixing(operator):
    """Score 3 classes of samples of which one depends on the others."""
    first = {
        "Softmax": node("Softmax", ["h"], "y", axis=0),
        "MeanVarianceNormalization": node("MeanVarianceNormalization", ["h"], "y", axes=[0, 1]),
    }[operator]
    body = [
        node("MatMul", ["x", "w"], "h"),
        first,
        node("ReduceMean", ["y", "axes"], "pooled", keepdims=0),
        node("MatMul", ["pooled", "readout"], "logits"),
    ]
    weights = {"w": normal(6, 5), "axes": np.array([1]), "readout": normal(5, 3, seed=9)}
    return model(body, {"x": ["N", 4, 6]}, ["logits"], weights)


@pytest.mark.parametrize("merged", [False, True], ids=["axis of their own", "one with the batch"])
def test_heads_beside_the_batch(merged):
    """Where the two are one axis a run fails, and the explainer feeds the sample often."""
    explainer = onnxlrp.convert(attending(merged), EPSILON).to_proto()
    asked = {"x": X, "target": np.array([2, 0])}
    if merged:
        with pytest.raises(Exception, match="ONNXRuntimeError"):
            run(explainer, asked)
    else:
        assert run(explainer, asked)["logits"].shape == (1, 3)
    with onnxlrp.Explainer(explainer.SerializeToString()) as both:
        together = both(X, target=[2, 0])
        for row, number in enumerate((2, 0)):
            alone = both(X, target=number)
            close(together.relevance[row : row + 1], alone.relevance, 1e-6)
            assert together.score[row] == pytest.approx(alone.score[0])
            np.testing.assert_array_equal(together.of(row)[1], X[0])
            assert together.account(row).share == pytest.approx(alone.account().share, rel=1e-4)
        assert together.target.tolist() == [2, 0]
        assert together.outputs["logits"].shape == together.scores.shape == (2, 3)


@pytest.mark.parametrize("operator", ["Softmax", "MeanVarianceNormalization"])
def test_samples_that_depend_on_each_other(operator):
    """Relevance of two classes would mix as that of two samples does: a run fails."""
    conversion = onnxlrp.convert(mixing(operator), EPSILON)
    session = opened(conversion)
    assert session.get_modelmeta().custom_metadata_map["onnxlrp.several"] == "false"
    with pytest.raises(Exception, match="ONNXRuntimeError"):
        session.run(None, {"x": X, "target": np.array([0, 1])})


def test_weights_as_classes():
    """Weights [K, classes] of one sample: by linearity what the classes make of them."""
    taking = onnxlrp.convert(attending(merged=False), EPSILON, target="weights").to_proto()
    weights = np.array([[1, 0, 0], [0, 0, 1], [2, 0, -1]], np.float32)
    with onnxlrp.Explainer(taking.SerializeToString()) as explainer:
        found = explainer(X, weights=weights)
    classes = run(
        onnxlrp.convert(attending(merged=False), EPSILON).to_proto(),
        {"x": X, "target": np.array([0, 2])},
    )["relevance"]
    close(found.relevance[:2], classes, 1e-6)
    close(found.relevance[2], 2 * classes[0] - classes[1], 1e-5)
    np.testing.assert_allclose(found.score, (found.scores[:1] * weights).sum(axis=1), rtol=1e-6)


def test_weights_for_samples_that_are_not_there():
    """More weights than samples are an error where relevance of samples mixes."""
    explainer = onnxlrp.convert(mixing("Softmax"), EPSILON, target="weights").to_proto()
    with pytest.raises(Exception, match="ONNXRuntimeError"):
        run(explainer, {"x": X, "weights": np.ones((2, 3), np.float32)})


def test_several_samples_take_one_class_each_or_one_for_all():
    explainer = onnxlrp.convert(attending(merged=False), EPSILON).to_proto()
    pair = normal(2, 4, 6, seed=1)
    each = run(explainer, {"x": pair, "target": np.array([1, 2])})["relevance"]
    for row, number in enumerate((1, 2)):
        whole = run(explainer, {"x": pair, "target": np.array([number])})["relevance"]
        assert whole.shape == pair.shape
        close(each[row], whole[row], 1e-6)
    with pytest.raises(Exception, match="ONNXRuntimeError"):
        run(explainer, {"x": pair, "target": np.array([0, 1, 2])})
    session = onnxlrp.Explainer(explainer.SerializeToString())
    with pytest.raises(InputError, match="one for each of the 2 inputs"):
        session(pair, target=[0, 1, 2])


def test_sizes_of_relevance_have_a_name_of_their_own():
    """Or onnxruntime would let them share memory with values of one sample."""
    conversion = onnxlrp.convert(attending(merged=False), EPSILON)
    assert conversion.outputs[-1] == ("relevance", "float32", ("explained_N", 4, 6))
    written = onnxlrp.convert(attending(merged=False), EPSILON, target=1)
    assert written.outputs[-1] == ("relevance", "float32", ("N", 4, 6))
