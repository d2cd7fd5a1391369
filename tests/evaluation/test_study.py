import numpy as np
import onnx
import pytest
from support import model, node, normal

import onnxlrp
from onnxlrp.compiler.composite import Composite
from onnxlrp.evaluation import Flipping, Judge, Pictures, Sample, ScoredModel, Study
from onnxlrp.evaluation.randomisation import randomise
from onnxlrp.evaluation.study import RANDOM, interval
from onnxlrp.inputs.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(scale=1 / 255, mean=(0.5,))


HEADS = {
    "softmax": [node("Softmax", ["logits"], "probability")],
    "sigmoid": [node("Sigmoid", ["logits"], "probability")],
    "log-softmax": [node("LogSoftmax", ["logits"], "probability")],
}


@pytest.fixture
def network(tmp_path):
    return written(tmp_path, "softmax")


def written(folder, head):
    body = [
        node("Conv", ["x", "w"], "c", pads=[1] * 4),
        node("Relu", ["c"], "r"),
        node("GlobalAveragePool", ["r"], "g"),
        node("Flatten", ["g"], "f"),
        node("Gemm", ["f", "v"], "logits"),
        *HEADS[head],
    ]
    weights = {"w": normal(6, 3, 3, 3), "v": normal(6, 4, seed=1)}
    path = folder / "model.onnx"
    onnx.save(model(body, {"x": ["N", 3, 7, 7]}, ["probability"], weights), path)
    return path


def pictures(count: int, maps: dict | None = None) -> list[Sample]:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 7, 7, 3), dtype=np.uint8)
    return [
        Sample(
            str(number),
            number,
            {"pixels": one},
            {name: array[number] for name, array in (maps or {}).items()},
        )
        for number, one in enumerate(pixels)
    ]


def judge(network, methods=("epsilon", "epsilon_plus"), **options) -> Judge:
    chosen = {name: Composite.load(name) for name in methods}
    probability = options.pop("probability", False)
    scored = ScoredModel(network, preprocessing=PREPROCESSING, probability=probability)
    return Judge(scored, chosen, Flipping(), Pictures("x", PREPROCESSING), **options)


def test_the_score_is_the_logit_though_the_model_returns_probabilities(network):
    run = judge(network)
    images = PREPROCESSING.values(pictures(2)[0].content["pixels"])[None]
    explanation = onnxlrp.Explainer(
        onnxlrp.convert(network, "epsilon").to_proto().SerializeToString()
    )(images)
    logits = run.model.scores({"x": images})
    np.testing.assert_allclose(
        np.exp(logits) / np.exp(logits).sum(), explanation.outputs["probability"], rtol=1e-5
    )
    probability = judge(network, probability=True).model.scores({"x": images})
    np.testing.assert_allclose(probability, explanation.outputs["probability"], rtol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_the_probability_is_the_models_own(tmp_path, head):
    path = written(tmp_path, head)
    images = PREPROCESSING.values(pictures(1)[0].content["pixels"])[None]
    found = judge(path, probability=True).model.scores({"x": images})
    logits = judge(path).model.scores({"x": images})
    expected = 1 / (1 + np.exp(-logits))
    if head != "sigmoid":
        expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_batch_size_changes_no_curve(network):
    one, many = (judge(network, batch=size)(pictures(1)[0]) for size in (1, 50))
    for method in ("epsilon", "epsilon_plus", RANDOM):
        for order, curve in one["methods"][method]["curves"].items():
            np.testing.assert_allclose(curve, many["methods"][method]["curves"][order], atol=1e-4)


def test_a_row_is_what_flipping_by_hand_gives(network):
    (picture,) = pictures(1)
    run = judge(network, ["epsilon"], prefixes=[10])
    row = run(picture)
    explainer = onnxlrp.Explainer(
        onnxlrp.convert(network, "epsilon").to_proto().SerializeToString()
    )
    explanation = explainer(PREPROCESSING.values(picture.content["pixels"])[None])
    target = int(explanation.target[0])
    assert row["class"] == target
    relevance = explanation.relevance[0].astype(float).sum(axis=0)
    noise = run.medium.replaced(picture.content["pixels"], Flipping().random(0))
    flipped, curve = picture.content["pixels"].copy(), []
    for place in [None, *sorted(np.ndindex(7, 7), key=lambda place: -relevance[place])]:
        if place is not None:
            flipped[place] = noise[place]
        curve.append(run.model.scores({"x": PREPROCESSING.values(flipped)[None]})[0, target])
    values = row["methods"]["epsilon"]["values"]
    assert values["AUC descending"] == pytest.approx(np.mean(curve), abs=1e-4)
    assert values["AUC descending at 10"] == pytest.approx(np.mean(curve[:11]), abs=1e-4)
    assert values["AOPC"] == pytest.approx(curve[0] - np.mean(curve), abs=1e-4)
    assert values["share of score"] == pytest.approx(relevance.sum() / curve[0], rel=1e-3)


def test_no_share_of_the_score_is_measured_of_gradients(network):
    methods = judge(network, ["gradient", "integrated_gradients; steps=3", "epsilon"])(
        pictures(1)[0]
    )["methods"]
    assert "AUC descending" in methods["gradient"]["values"]
    told = [name for name, one in methods.items() if "share of score" in one["values"]]
    assert told == ["epsilon"]


def test_maps_of_another_library_are_judged_alike(network):
    run = judge(network, ["epsilon"])
    own = []
    explainer = onnxlrp.Explainer(
        onnxlrp.convert(network, "epsilon").to_proto().SerializeToString()
    )
    for picture in pictures(3):
        own.append(explainer(PREPROCESSING.values(picture.content["pixels"])[None]).relevance[0])
    rows = [run(picture) for picture in pictures(3, {"theirs": np.stack(own)})]
    study = Study(rows, ["epsilon", "theirs", RANDOM])
    assert study.difference("epsilon", "theirs", "AUC descending").mean == pytest.approx(
        0, abs=1e-5
    )
    np.testing.assert_array_equal(
        study.values("theirs", "sparseness"), study.values("epsilon", "sparseness")
    )
    assert np.isnan(study.values(RANDOM, "sparseness")).all()


def test_chance_is_measured_in_either_direction(network):
    row = judge(network, prefixes=[10])(pictures(1)[0])["methods"][RANDOM]
    values, curve = row["values"], row["curves"]["random"]
    assert values["AUC descending"] == values["AUC ascending"]
    assert values["AUC descending"] == pytest.approx(np.mean(curve), abs=1e-4)
    assert values["AUC ascending at 10"] == pytest.approx(np.mean(curve[:11]), abs=1e-4)
    assert values["AOPC"] == pytest.approx(curve[0] - np.mean(curve), abs=1e-4)


def test_random_values_are_the_same_for_all_methods(network):
    alone = judge(network, ["epsilon_plus"])(pictures(2)[1])
    together = judge(network)(pictures(2)[1])
    for method in ("epsilon_plus", RANDOM):
        assert alone["methods"][method]["values"] == pytest.approx(
            together["methods"][method]["values"], abs=1e-5
        )


def test_intervals_cover_the_mean_they_are_of():
    """Of 200 samples with mean 0, about 95 % of the intervals must hold 0."""
    random = np.random.default_rng(0)
    held = [
        low <= 0 <= high for _, low, high in (interval(random.normal(size=60)) for _ in range(200))
    ]
    assert 0.90 < np.mean(held) < 0.99


def test_intervals_of_little():
    assert interval(np.array([3.0])) == (3, 3, 3)
    assert interval(np.array([2.0, 2.0, np.nan])) == (2, 2, 2)
    assert np.isnan(interval(np.array([np.nan])).mean)


def test_maps_change_when_weights_are_shuffled(network):
    images = [{"x": PREPROCESSING.values(one.content["pixels"])[None]} for one in pictures(4)]
    scored = ScoredModel(network)
    steps = list(randomise(scored, Composite.load("epsilon"), images))
    assert len(steps) == 2
    assert all(found.shape == (4,) for _, found in steps)
    assert abs(steps[-1][1].mean()) < 0.6
    again = list(randomise(scored, Composite.load("epsilon"), images))
    np.testing.assert_array_equal(steps[-1][1], again[-1][1])


def test_a_line_that_matches_nothing_is_told(network):
    """`LRN: identity` on a network without LRN is the same method under another name."""
    with pytest.warns(UserWarning, match="epsilon; LRN: identity.*matches no node"):
        judge(network, ("epsilon; LRN: identity",))


def test_against_a_reference_the_share_is_of_the_difference(network):
    """The network's layers have no bias of their own, so that black alone scores 0."""
    proto = onnx.load(network)
    offset = onnx.numpy_helper.from_array(normal(4, seed=7, scale=5), "offset")
    proto.graph.initializer.append(offset)
    (readout,) = [n for n in proto.graph.node if n.op_type == "Gemm"]
    readout.input.append("offset")
    onnx.save(proto, network)
    row = judge(network, ("epsilon", "deeplift"))(pictures(1)[0])
    shares = [row["methods"][name]["values"]["share of score"] for name in ("epsilon", "deeplift")]
    assert shares[1] == pytest.approx(1, abs=1e-4)
    assert abs(shares[0] - 1) > 0.05


def test_composites_that_wait_for_a_reference_are_refused(network):
    with pytest.raises(onnxlrp.InputError, match="deepshap takes its reference when"):
        judge(network, ("deepshap",))
