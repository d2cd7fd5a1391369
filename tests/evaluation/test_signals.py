"""Flipping moments and windows of signals, against doing it by hand."""

import numpy as np
import onnx
import onnxruntime
import pytest
from scipy.interpolate import interp1d
from support import model, node, normal

import onnxlrp
from onnxlrp.compiler.composite import Composite
from onnxlrp.evaluation import Flipping, Judge, Sample, ScoredModel, Signals, Study
from onnxlrp.evaluation.signals import joined
from onnxlrp.evaluation.study import RANDOM

CHANNELS, LENGTH = 2, 20
SIGNALS = normal(16, CHANNELS, LENGTH) + 1


@pytest.fixture
def path(tmp_path):
    body = [
        node("Conv", ["x", "w"], "c", pads=[1, 1]),
        node("Relu", ["c"], "r"),
        node("GlobalAveragePool", ["r"], "g"),
        node("Flatten", ["g"], "f"),
        node("Gemm", ["f", "v"], "logits"),
    ]
    weights = {"w": normal(4, CHANNELS, 3), "v": normal(4, 3, seed=1)}
    proto = model(body, {"x": ["N", CHANNELS, LENGTH]}, ["logits"], weights)
    onnx.save(proto, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def sample(number: int, maps=None) -> Sample:
    return Sample(str(number), number, {"values": SIGNALS[number]}, maps or {})


def without(values: np.ndarray, gone: list[int], replacement: str) -> np.ndarray:
    """Replace moments of [C, T] one by one, as the documentation says."""
    out = values.copy()
    left = [moment for moment in range(LENGTH) if moment not in gone]
    for channel, moment in np.ndindex(CHANNELS, LENGTH):
        if moment in gone:
            one = values[channel]
            new = {"mean": one.mean(), "zero": 0, "2.5": 2.5, "linear": between(left, one, moment)}
            out[channel, moment] = new[replacement]
    return out


def between(left: list[int], values: np.ndarray, moment: int) -> float:
    if not left:
        return values.mean()
    if len(left) == 1:
        return values[left[0]]
    ends = (values[left[0]], values[left[-1]])
    return interp1d(left, values[left], bounds_error=False, fill_value=ends)(moment)


@pytest.mark.parametrize("replacement", ["mean", "zero", "2.5", "linear"])
@pytest.mark.parametrize("region", [1, 3])
def test_a_row_is_what_flipping_by_hand_gives(path, replacement, region):
    scored = ScoredModel(path)
    run = Judge(
        scored,
        {"epsilon": Composite.load("epsilon")},
        Flipping(region=region),
        Signals("x", -1, replacement),
    )
    row = run(sample(0))
    explainer = onnxlrp.Explainer(onnxlrp.convert(path, "epsilon").to_proto().SerializeToString())
    explanation = explainer(SIGNALS[:1])
    of_time = explanation.relevance[0].sum(axis=0, dtype=np.float64)
    windows = [
        list(range(start, min(start + region, LENGTH))) for start in range(0, LENGTH, region)
    ]
    windows.sort(key=lambda window: -of_time[window].sum())
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    curve = []
    for count in range(len(windows) + 1):
        gone = [moment for window in windows[:count] for moment in window]
        made = without(SIGNALS[0], gone, replacement)[None]
        curve.append(session.run(None, {"x": made})[0][0, row["class"]])
    found = row["methods"]["epsilon"]
    np.testing.assert_allclose(found["curves"]["descending"], curve, atol=1e-4)
    assert found["values"]["AUC descending"] == pytest.approx(np.mean(curve), abs=1e-4)
    assert row["flips"] == -(-LENGTH // region)


def test_time_may_be_any_axis(tmp_path, path):
    """[T, C] as Keras has it, and [T], give what [C, T] gives."""
    proto = onnx.load(path)
    proto.graph.node.insert(0, node("Transpose", ["time_first"], "x", perm=[0, 2, 1]))
    proto.graph.input[0].name = "time_first"
    shape = proto.graph.input[0].type.tensor_type.shape.dim
    shape[1].dim_value, shape[2].dim_value = LENGTH, CHANNELS
    onnx.save(proto, tmp_path / "last.onnx")
    method = {"epsilon": Composite.load("epsilon")}
    for replacement in ("noise", "blur", "linear"):
        first = Judge(ScoredModel(path), method, Flipping(), Signals("x", -1, replacement))
        other = Signals("time_first", 0, replacement)
        last = Judge(ScoredModel(tmp_path / "last.onnx"), method, Flipping(), other)
        turned = Sample("0", 0, {"values": SIGNALS[0].T}, {})
        expected, found = first(sample(0)), last(turned)
        for name in ("epsilon", RANDOM):
            assert found["methods"][name]["values"] == pytest.approx(
                expected["methods"][name]["values"], abs=1e-4
            )


def test_the_largest_terms_of_a_sum_go_first(tmp_path):
    """Of a linear model of [T] the curve is known, and maps of chance are no better than chance."""
    weights = {"w": normal(LENGTH, 2, seed=4)}
    proto = model([node("Gemm", ["x", "w"], "logits")], {"x": ["N", LENGTH]}, ["logits"], weights)
    onnx.save(proto, tmp_path / "linear.onnx")
    scored = ScoredModel(tmp_path / "linear.onnx")
    method = {"epsilon": Composite.load("epsilon")}
    run = Judge(scored, method, Flipping(), Signals("x", replacement="zero"))
    rows = []
    for number, values in enumerate(SIGNALS[:, 0]):
        chance = np.random.default_rng([1, number]).normal(size=LENGTH)
        row = run(Sample(str(number), number, {"values": values}, {"chance": chance}))
        terms = np.sort(values * weights["w"][:, row["class"]])[::-1]
        curve = terms.sum() - np.array([0, *np.cumsum(terms)])
        found = row["methods"]["epsilon"]["values"]
        assert found["AUC descending"] == pytest.approx(curve.mean(), abs=1e-4)
        rows.append(row)
    study = Study(rows, ["epsilon", "chance", RANDOM])
    assert study.difference("epsilon", RANDOM, "AUC descending").high < 0
    low, high = study.difference("chance", RANDOM, "AUC descending")[1:]
    assert low < 0 < high


def test_replacements_have_the_channels_own_mean_and_deviation():
    values = normal(CHANNELS, 4000).astype(np.float64) * [[1], [3]] + [[0], [5]]
    noise = Signals("x", replacement="noise").replaced(values, Flipping().random(0))
    np.testing.assert_allclose(noise.mean(axis=1), [0, 5], atol=0.2)
    np.testing.assert_allclose(noise.std(axis=1), [1, 3], rtol=0.05)
    blur = Signals("x", replacement="blur").replaced(values, Flipping().random(0))
    np.testing.assert_allclose(blur.mean(axis=1), [0, 5], atol=0.4)
    assert (blur.std(axis=1) < values.std(axis=1) / 10).all()


def test_the_ends_hold_the_nearest_that_is_left():
    values = np.array([[1.0, 2, 4, 8, 16]])
    gone = np.array([True, False, True, False, True])
    np.testing.assert_array_equal(joined(values, gone), [[2, 2, 5, 8, 8]])
    np.testing.assert_allclose(joined(values, np.ones(5, bool)), np.full((1, 5), 6.2))


def test_what_does_not_fit_is_told(path):
    with pytest.raises(onnxlrp.InputError, match=r"replaced by mean, zero, .*, not uniform"):
        Signals("x", replacement="uniform")
    run = Judge(ScoredModel(path), {}, Flipping(region=21), Signals("x"))
    with pytest.raises(onnxlrp.InputError, match="0: regions of 21 are larger than 20"):
        run.check(sample(0))
    run = Judge(ScoredModel(path), {}, Flipping(), Signals("x"))
    with pytest.raises(onnxlrp.InputError, match=r"0: a map \[3, 20\] for a signal \[2, 20\]"):
        run.check(sample(0, {"theirs": np.zeros((3, 20))}))
