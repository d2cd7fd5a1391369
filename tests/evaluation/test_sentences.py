"""Flipping tokens against doing it by hand, with a model whose best order is known."""

import numpy as np
import onnx
import onnxruntime
import pytest
from texts import READOUT, TABLE, classifier

import onnxlrp
from onnxlrp.compiler.composite import Composite
from onnxlrp.evaluation import Flipping, Judge, Sample, ScoredModel, Sentences, Study
from onnxlrp.evaluation.study import RANDOM
from onnxlrp.inputs.tokens import Vocabulary

PAD, UNKNOWN, START, END, MASK = range(5)
VOCABULARY = Vocabulary(PAD, MASK, UNKNOWN, frozenset((PAD, START, END, MASK)))
WORDS, LENGTH = len(TABLE), 12


def bag(path, masked: bool = True):
    """Open a classifier whose logits are the sums of what each token there says."""
    onnx.save(classifier(("input_ids", *(["attention_mask"] if masked else []))), path)
    return ScoredModel(path)


@pytest.fixture
def scored(tmp_path):
    return bag(tmp_path / "model.onnx")


def sentence(number: int, words: int) -> dict[str, np.ndarray]:
    """Return ids with a start, an end and padding, and their mask."""
    ids = np.full(LENGTH, PAD)
    drawn = np.random.default_rng([2, number]).choice(np.arange(5, WORDS), words, replace=False)
    ids[: words + 2] = [START, *drawn, END]
    return {"input_ids": ids, "attention_mask": (ids != PAD).astype(np.int64)}


def judge(scored, replacement, *methods, **options):
    medium = Sentences(scored.explained[0], VOCABULARY, replacement, scored.inputs)
    chosen = {name: Composite.load(name) for name in methods or ["epsilon"]}
    return Judge(scored, chosen, options.pop("flipping", Flipping()), medium, **options)


def sample(run, number: int, words: int, maps=None, mask=None) -> Sample:
    given = sentence(number, words)
    content = {name: row for name, row in given.items() if name in run.model.inputs}
    return run.medium.sample(str(number), number, content, maps or {}, mask)


def by_hand(path, target: int, ids: np.ndarray, order: list[int], replacement: str) -> list[float]:
    """Flip one token after the other, each time a list of numbers with its own mask."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    curve = []
    for count in range(len(order) + 1):
        gone = order[:count]
        tokens = {"mask": MASK, "unknown": UNKNOWN, "7": 7}.get(replacement)
        if tokens is None:
            left = [number for place, number in enumerate(ids) if place not in gone]
        else:
            left = [tokens if place in gone else number for place, number in enumerate(ids)]
        feeds = {"input_ids": np.array([left]), "attention_mask": np.ones((1, len(left)), int)}
        curve.append(session.run(None, {name: feeds[name] for name in names})[0][0, target])
    return curve


@pytest.mark.parametrize("order", ["descending", "ascending"])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("replacement", ["mask", "unknown", "7", "remove", "cut"])
def test_curves_are_what_flipping_by_hand_gives(tmp_path, replacement, masked, order):
    path = tmp_path / "model.onnx"
    run = judge(bag(path, masked), replacement)
    words = 6
    whole = sentence(3, words)["input_ids"]

    row = run(sample(run, 3, words))
    there = whole if not masked else whole[: words + 2]
    explainer = onnxlrp.Explainer(onnxlrp.convert(path, "epsilon").to_proto().SerializeToString())
    names = explainer.inputs
    feeds = {"input_ids": there[None], "attention_mask": np.ones_like(there)[None]}
    explanation = explainer({name: feeds[name] for name in names})
    assert row["class"] == explanation.target[0]
    sign = -1 if order == "descending" else 1
    places = sorted(range(1, words + 1), key=lambda place: sign * explanation.relevance[0, place])
    if replacement in ("remove", "cut") and not masked:
        expected = []
        for count in range(words + 1):
            left = [number for place, number in enumerate(whole) if place not in places[:count]]
            left += [PAD] * count
            expected.append(TABLE[left].sum(axis=0) @ READOUT[:, row["class"]])
    else:
        expected = by_hand(path, row["class"], there, places, replacement)
    assert row["flips"] == words
    found = row["methods"]["epsilon"]
    np.testing.assert_allclose(found["curves"][order], expected, atol=1e-4)
    assert found["values"][f"AUC {order}"] == pytest.approx(np.mean(expected), abs=1e-4)
    if order == "descending":
        assert found["values"]["AOPC"] == pytest.approx(expected[0] - np.mean(expected), abs=1e-4)


def test_a_sum_of_tokens_is_judged_best_by_what_each_says(scored):
    """The score falls fastest when the largest terms of a sum go first; nothing beats that."""
    run = judge(scored, "remove", orders=("descending", "random"))
    rows = []
    for number in range(24):
        words = 4 + number % 5
        ids = sentence(number, words)["input_ids"]
        chance = np.random.default_rng([7, number]).normal(size=LENGTH)
        row = run(sample(run, number, words, {"chance": chance}))
        says = np.sort((TABLE[ids[1 : words + 1]] @ READOUT)[:, row["class"]])[::-1]
        curve = row["score"] - np.array([0, *np.cumsum(says)])
        best = row["methods"]["epsilon"]["values"]
        assert best["AUC descending"] == pytest.approx(curve.mean(), abs=1e-4)
        assert best["share of score"] == pytest.approx(1, abs=1e-4)
        for other in ("chance", RANDOM):
            assert best["AUC descending"] <= row["methods"][other]["values"]["AUC descending"]
        rows.append(row)
    study = Study(rows, ["epsilon", "chance", RANDOM])
    assert study.difference("epsilon", RANDOM, "AUC descending").high < 0
    low, high = study.difference("chance", RANDOM, "AUC descending")[1:]
    assert low < 0 < high


def test_curves_of_several_lengths_are_averaged_at_equal_shares(scored):
    run = judge(scored, "mask")
    rows = [run(sample(run, number, words)) for number, words in ((0, 4), (1, 8))]
    study = Study(rows, ["epsilon", RANDOM])
    assert study.flips is None
    short, long = (row["methods"]["epsilon"]["curves"]["descending"] for row in rows)
    assert (len(short), len(long)) == (5, 9)
    mean = study.curve("epsilon", "descending")
    assert mean[32] == pytest.approx((short[2] + long[4]) / 2)
    assert mean[16] == pytest.approx((short[1] + long[2]) / 2)
    assert mean[8] == pytest.approx(((short[0] + short[1]) / 2 + long[1]) / 2)


def test_prefixes_are_shares_or_of_those_that_are_long_enough(scored):
    run = judge(scored, "mask", prefixes=(6, "50%"))
    rows = [run(sample(run, number, words)) for number, words in ((0, 5), (1, 8))]
    study = Study(rows, ["epsilon"])
    curves = [row["methods"]["epsilon"]["curves"]["descending"] for row in rows]
    found = study.values("epsilon", "AUC descending at 50%")
    np.testing.assert_allclose(found, [np.mean(curves[0][:4]), np.mean(curves[1][:5])], atol=1e-4)
    found = study.values("epsilon", "AUC descending at 6")
    np.testing.assert_allclose(found, [np.nan, np.mean(curves[1][:7])], atol=1e-4)


def test_padding_is_left_out_of_what_is_run_and_of_maps(scored):
    run = judge(scored, "mask")
    padded = sample(run, 0, 5, {"theirs": np.arange(LENGTH)}, np.arange(LENGTH) == 2)
    assert padded.content["input_ids"].shape == (7,)
    np.testing.assert_array_equal(padded.maps["theirs"], np.arange(7))
    np.testing.assert_array_equal(padded.mask, np.arange(1, 6) == 2)
    values = run(padded)["methods"]["theirs"]["values"]
    assert values["mass accuracy"] == pytest.approx(2 / 15)
    assert values["rank accuracy"] == 0


def test_positions_of_a_shorter_sentence_count_on(scored):
    medium = Sentences("ids", VOCABULARY, "cut", {})
    content = {
        "ids": np.array([START, 9, 8, 7, END, PAD]),
        "segment_ids": np.array([0, 0, 1, 1, 1, 0]),
        "position_ids": np.arange(6),
        "mask": np.array([1, 1, 1, 1, 1, 0]),
    }
    gone = np.array([[False, True, False], [True, False, True]])
    batches = list(medium.replacing(Sample("one", 0, content, {}), Flipping())(gone))
    found = {name: np.concatenate([one[name] for one in batches]).tolist() for name in content}
    assert found == {
        "ids": [[START, 9, 7, END, PAD, PAD], [START, 8, END, PAD, PAD, PAD]],
        "segment_ids": [[0, 0, 1, 1, 0, 0], [0, 1, 1, 0, 0, 0]],
        "position_ids": [[0, 1, 2, 3, 4, 5]] * 2,
        "mask": [[1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0]],
    }


def test_what_is_filled_up_at_the_front_stays_so(scored):
    medium = Sentences("ids", VOCABULARY, "cut", {})
    content = {"ids": np.array([PAD, 9, 8, 7]), "mask": np.array([0, 1, 1, 1])}
    (feeds,) = medium.replacing(Sample("one", 0, content, {}), Flipping())(
        np.array([[False, True, False]])
    )
    assert feeds["ids"].tolist() == [[PAD, PAD, 9, 7]]
    assert feeds["mask"].tolist() == [[0, 0, 1, 1]]


def test_something_is_always_left(tmp_path):
    """Without special tokens the last word stays where words are taken out."""
    scored = bag(tmp_path / "model.onnx", masked=False)
    none = Vocabulary()
    for replacement, last in (("cut", 3), ("remove", 3), ("7", 4)):
        medium = Sentences(scored.explained[0], none, replacement, scored.inputs)
        run = Judge(scored, {"epsilon": Composite.load("epsilon")}, Flipping(), medium)
        content = {"input_ids": np.array([9, 8, 7, 6])}
        assert run(medium.sample("one", 0, content, {}, None))["flips"] == last


def test_what_does_not_fit_is_told(scored):
    with pytest.raises(onnxlrp.InputError, match="which token is 'mask'"):
        Sentences("ids", Vocabulary(), "mask", {})
    with pytest.raises(onnxlrp.InputError, match="which token is 'blur'"):
        Sentences("ids", VOCABULARY, "blur", {})
    run = judge(scored, "mask")
    for wrong in (np.zeros(3), np.ones(14), np.zeros((12, 1))):
        with pytest.raises(onnxlrp.InputError, match=r"4: theirs is \[.*\] for 12 tokens"):
            sample(run, 4, 5, {"theirs": wrong})
    longer = np.array([*range(12), 0, np.nan])
    np.testing.assert_array_equal(sample(run, 4, 5, {"t": longer}).maps["t"], np.arange(7))
    only = {"input_ids": np.array([START, END]), "attention_mask": np.ones(2, np.int64)}
    with pytest.raises(onnxlrp.InputError, match="empty: there is no token to replace"):
        run.check(run.medium.sample("empty", 0, only, {}, None))
    many = judge(scored, "mask", flipping=Flipping(flips=6))
    with pytest.raises(onnxlrp.InputError, match="0: 6 flips where 5 make 5"):
        many.check(sample(many, 0, 5))
    beyond = judge(scored, "99")
    with pytest.raises(onnxlrp.InputError, match="0: onnxruntime failed"):
        beyond(sample(beyond, 0, 5))
