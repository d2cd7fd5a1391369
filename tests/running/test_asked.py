"""What an open explainer is asked: classes, differences, weights; and what it tells of them."""

import re

import numpy as np
import pytest
from support import close, lines, model, node, normal

import onnxlrp
from onnxlrp.errors import InputError
from onnxlrp.inputs.targets import Aim, Difference
from onnxlrp.running.explainer import Explainer

W = {"w": normal(6, 5, seed=1), "v": normal(5, 4, seed=3)}
BODY = [
    node("Gemm", ["x", "w"], "z"),
    node("Relu", ["z"], "a"),
    node("Gemm", ["a", "v"], "logits"),
]
X = normal(3, 6, seed=4)
NAMES = ["cat", "dog", "owl", "ant"]


def opened(softmax=False, **options):
    head = [node("Softmax", ["logits"], "out", axis=1)] if softmax else []
    proto = model([*BODY, *head], {"x": ["N", 6]}, ["out" if softmax else "logits"], W)
    made = onnxlrp.convert(proto, lines("*: epsilon"), **options)
    return Explainer(made.to_proto().SerializeToString())


@pytest.fixture(scope="module")
def plain():
    return opened()


@pytest.fixture(scope="module")
def weighted():
    return opened(target="weights")


@pytest.mark.parametrize("target", ["3-1", Difference(3, 1), ["3-1"] * 3])
def test_a_difference_of_scores(plain, weighted, target):
    found = weighted(X, target)
    one, other = plain(X, 3), plain(X, 1)
    close(found.relevance, one.relevance - other.relevance)
    np.testing.assert_allclose(found.score, one.score - other.score, rtol=1e-6)
    assert found.target.tolist() == [3, 3, 3]
    assert found.aim(0) == Aim(3, 1)
    account = found.account(0)
    assert account.score == pytest.approx(float(one.score[0] - other.score[0]))
    # No biases: nothing is lost but to the stabiliser.
    assert account.share == pytest.approx(1, abs=1e-4)
    assert re.fullmatch(
        r"difference of scores .*, relevance sums to .* \(100.0% of the difference of scores\)",
        account.in_words(),
    )
    assert found.aim(0).in_words(NAMES) == "ant (3) minus dog (1)"


def test_each_sample_may_ask_for_something_else(plain, weighted):
    best = plain(X).target
    assert best[1] != 0
    found = weighted(X, [2, "0-top", "top"])
    separate = [plain(X, 2).relevance[0], plain(X, 0).relevance[1] - plain(X).relevance[1]]
    close(found.relevance[:2], np.stack(separate))
    close(found.relevance[2], plain(X).relevance[2])
    assert found.aims == (Aim(2), Aim(0, int(best[1])), Aim(int(best[2])))


def test_the_best_class_does_not_differ_from_itself(plain, weighted):
    """Known only once it has run: written in or not, no empty map is handed out."""
    best = int(plain(X[:1]).target[0])
    for run, target in ((weighted, f"top-{best}"), (opened(target=f"{best}-top"), -1)):
        with pytest.raises(InputError, match=f"class {best} has the best score itself"):
            run(X[:1], target)


@pytest.mark.parametrize("target", [-1, "top", 2, [0, 1, 2]])
def test_an_explainer_that_takes_weights_takes_classes_too(plain, weighted, target):
    found, wanted = weighted(X, target), plain(X, target)
    close(found.relevance, wanted.relevance, 1e-6)
    np.testing.assert_array_equal(found.target, wanted.target)
    np.testing.assert_array_equal(found.score, wanted.score)


@pytest.mark.parametrize("shape", [(4,), (1, 4), (3, 4)])
def test_weights_over_the_outputs(plain, weighted, shape):
    weights = normal(*shape, seed=5).astype(np.float64)
    found = weighted(X, weights=weights)
    rows = np.broadcast_to(weights, (3, 4))
    maps = [plain(X, number).relevance for number in range(4)]
    close(found.relevance, sum(rows[:, [n]] * maps[n] for n in range(4)))
    np.testing.assert_allclose(found.score, (rows * found.scores).sum(axis=1), rtol=1e-5)
    assert found.account(2).share == pytest.approx(1, abs=1e-3)
    assert found.aim(0).in_words() == "weighted scores"
    assert found.target.tolist() == [-1, -1, -1]


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        (np.ones(3), "weights are real numbers, [4] or [3, 4], not float64 [3]"),
        (np.ones((2, 4)), "not float64 [2, 4]"),
        (np.array([1, np.nan, 0, 0]), "holds NaN or infinity"),
        (np.zeros(4), "a row of zeros"),
        (["a"] * 4, "weights are real numbers"),
    ],
)
def test_weights_that_are_none(weighted, weights, text):
    with pytest.raises(InputError, match=re.escape(text)):
        weighted(X, weights=weights)


def test_who_takes_what(plain, weighted):
    with pytest.raises(InputError, match="takes no weights: convert with target 'weights'"):
        plain(X, weights=np.ones(4))
    with pytest.raises(InputError, match="for a difference of two scores convert with --target"):
        plain(X, "3-1")
    with pytest.raises(InputError, match="not both"):
        weighted(X, 2, weights=np.ones(4))
    for target in ("3-9", ["3-9"] * 3, Difference(9, 1)):
        with pytest.raises(InputError, match="9 is not a class: the model's are 0 to 3"):
            weighted(X, target)
    with pytest.raises(InputError, match="does not differ from itself"):
        weighted(X, "1-1")


def test_a_difference_that_is_written_in(weighted):
    run = opened(target="3-1")
    close(run(X).relevance, weighted(X, "3-1").relevance)
    close(run(X, "3-1").relevance, run(X).relevance)
    assert run(X).aims == (Aim(3, 1),) * 3
    for target in (3, "1-3"):
        with pytest.raises(InputError, match=r"written into this explainer \(3-1\)"):
            run(X, target)


def test_a_difference_is_one_of_logits_behind_a_softmax_too():
    run = opened(softmax=True, target="weights")
    found = run(X, "3-1")
    assert found.account().share == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(found.score, found.scores[:, 3] - found.scores[:, 1], rtol=1e-5)


@pytest.mark.parametrize("contrast", ["others", "softmax"])
def test_a_contrast_has_no_share_of_a_score(contrast):
    """All that it starts from adds up to 0."""
    found = opened(contrast=contrast)(X, 2)
    assert found.account().share is None
    assert abs(found.account().relevance) < 1e-4 * np.abs(found.relevance[0]).sum()
    said = {"others": "owl against all others", "softmax": "owl by softmax's gradient"}
    assert found.aim().in_words(NAMES, numbers=False) == said[contrast]


def test_the_score_of_a_dense_output_is_that_of_its_places():
    """Behind a softmax, too: what the map adds up to is told, and not a probability."""
    kernels = {"k": normal(4, 2, 1, 1, seed=7), "c": normal(3, 4, 1, 1, seed=8)}
    body = [
        node("Conv", ["x", "k"], "h"),
        node("Relu", ["h"], "a"),
        node("Conv", ["a", "c"], "logits"),
        node("Softmax", ["logits"], "out", axis=1),
    ]
    proto = model(body, {"x": ["N", 2, "H", "W"]}, ["out"], kernels)
    made = onnxlrp.convert(proto, lines("*: epsilon"), at="1:3,0")
    run = Explainer(made.to_proto().SerializeToString())
    x = normal(2, 2, 4, 5, seed=9)
    h = np.maximum(np.einsum("oi,nihw->nohw", kernels["k"][:, :, 0, 0], x), 0)
    logits = np.einsum("oi,nihw->nohw", kernels["c"][:, :, 0, 0], h)
    found = run(x)
    scores = logits[:, :, 1:3, 0].sum(axis=2)
    close(found.scores, scores)
    np.testing.assert_array_equal(found.target, scores.argmax(axis=1))
    assert list(found.outputs) == ["out"]
    assert found.account().share == pytest.approx(1, abs=1e-4)
    assert run.classes == 3
    assert found.aim().in_words().endswith(" at 1:3,0")
    with pytest.raises(InputError, match=r"is there a place 1:3,0\?"):
        run(x[:, :, :2])
