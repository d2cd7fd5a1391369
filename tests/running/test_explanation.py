"""Explanations made by hand, of pictures whose relevance is known."""

import concurrent.futures

import numpy as np
import pytest
import tabular
from PIL import Image
from support import normal

import onnxlrp
from onnxlrp.demo import MODEL, PREPROCESSING
from onnxlrp.drawing.bars import bars
from onnxlrp.inputs.preprocessing import Preprocessing
from onnxlrp.running.explainer import Explainer
from onnxlrp.running.explanation import Account, Explanation, Region, is_flat, title


def explanation(relevance: np.ndarray, preprocessing: Preprocessing | None = None, logit=True):
    count = len(relevance)
    return Explanation(
        relevance=relevance,
        outputs={"logits": np.full((count, 3), 4.0)},
        target=np.arange(count),
        score=np.full(count, 4.0),
        scores=np.full((count, 3), 4.0),
        score_is_logit=logit,
        intermediates={},
        inputs={"image": np.full(relevance.shape, 100.0, np.float32)},
        preprocessing=preprocessing,
    )


def spots(*places: tuple[int, int, float]) -> np.ndarray:
    relevance = np.zeros((1, 2, 8, 8), np.float32)
    for row, column, value in places:
        relevance[0, :, row, column] = value / 2
    return relevance


def test_the_account_says_what_share_of_the_score_the_map_holds():
    assert explanation(spots((1, 1, 3.0))).account() == Account(4.0, 3.0, 0.75, 3.0)
    assert explanation(spots((1, 1, 3.0)), logit=False).account() == Account(4.0, 3.0, None, 3.0)
    said = explanation(spots((1, 1, 3.0))).account().in_words()
    assert said == "score 4, relevance sums to 3 (75.0% of the score)"


def test_regions_come_by_relevance_and_do_not_overlap():
    found = explanation(spots((0, 0, 5.0), (1, 1, 4.0), (6, 6, 3.0), (6, 1, -9.0))).top_regions(
        size=2
    )
    assert found == [Region(0, 0, 2, 2, 9.0), Region(5, 5, 2, 2, 3.0)]
    (single,) = explanation(spots((3, 4, 1.0))).top_regions(count=1, size=1)
    assert single == Region(3, 4, 1, 1, 1.0)
    assert explanation(spots((3, 4, -1.0))).top_regions(size=2) == []


def test_a_square_must_fit():
    with pytest.raises(onnxlrp.InputError, match="a square of 9 does not fit in 8x8"):
        explanation(spots()).top_regions(size=9)


def test_a_plot_shows_the_photograph_where_it_is_known():
    alone = explanation(np.zeros((1, 3, 8, 8), np.float32))
    assert alone.plot().width == 224 + 24
    beside = explanation(np.zeros((1, 3, 8, 8), np.float32), Preprocessing())
    drawn = beside.plot(labels=["cat"])
    assert drawn.width == 3 * 224 + 4 * 12
    # Values of 100 without scale or mean are a grey of 100.
    assert drawn.getpixel((100, 150)) == (100, 100, 100)


def test_jupyter_gets_a_picture_or_the_text():
    assert explanation(spots((1, 1, 1.0)))._repr_png_().startswith(b"\x89PNG")
    assert explanation(np.zeros((1, 3, 2, 2, 2)))._repr_png_() is None


def test_saving_keeps_everything(tmp_path):
    made = explanation(spots((1, 1, 1.0)))
    made.save(tmp_path / "made.npz")
    with np.load(tmp_path / "made.npz") as arrays:
        assert sorted(arrays) == ["output_logits", "relevance", "score", "scores", "target"]
        np.testing.assert_array_equal(arrays["relevance"], made.relevance)


def test_several_inputs_are_asked_for_by_name():
    both = explanation(spots())
    both = Explanation(
        **(vars(both) | {"relevance": {"a": spots(), "b": spots((1, 1, 2.0))}})
        | {"inputs": {"a": spots(), "b": spots()}}
    )
    with pytest.raises(onnxlrp.InputError, match="name one of the inputs: a, b"):
        both.heatmap()
    assert both.of(0, "b")[0].sum() == 2
    assert both.account().relevance == 2


@pytest.fixture(scope="module")
def bundled():
    from importlib.resources import files

    proto = (files("onnxlrp.bundled") / MODEL).read_bytes()
    import onnx

    conversion = onnxlrp.convert(onnx.load_model_from_string(proto), preprocessing=PREPROCESSING)
    return conversion.to_proto().SerializeToString()


def test_a_row_is_drawn_with_the_names_that_are_stored_and_several_inputs_as_one():
    rows = normal(2, 4) + np.array([0, 0, 30, 5], np.float32)
    conversion = onnxlrp.convert(tabular.matrix(), "epsilon", features=["u", "v", "age", "pay"])
    one = Explainer(conversion.to_proto().SerializeToString())(rows, 1)
    wanted = bars(
        one.relevance[1],
        rows[1],
        title=title("class 1", one.account(1)),
        names=["u", "v", "age", "pay"],
    )
    assert one.plot(1).tobytes() == wanted.tobytes()
    conversion = onnxlrp.convert(tabular.several(), "epsilon")
    columns = {
        "age": rows[:, 2:3].round().astype(np.int64),
        "pay": rows[:, 3:],
        "rest": rows[:, :2],
    }
    several = Explainer(conversion.to_proto().SerializeToString())(columns, 1)
    joined = np.concatenate([several.relevance[name][0] for name in columns])
    values = np.concatenate([columns[name][0] for name in columns])
    names = ["age", "pay", "rest 0", "rest 1"]
    wanted = bars(joined, values, title=title("class 1", several.account()), names=names)
    assert several.plot().tobytes() == wanted.tobytes()
    assert several.plot(name="rest").height < wanted.height
    assert several._repr_png_().startswith(b"\x89PNG")


def test_many_threads_share_one_explainer(bundled):
    """Every thread gets what a single one gets, bit for bit."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)
    with onnxlrp.Explainer(bundled) as run:
        images = [PREPROCESSING(Image.fromarray(one))[None] for one in pixels]
        expected = [run(image).relevance for image in images]
        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            found = list(threads.map(lambda image: run(image).relevance, images * 4))
    for one, other in zip(found, expected * 4, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_closed_explainer_says_so(bundled):
    with onnxlrp.Explainer(bundled) as run:
        pass
    with pytest.raises(onnxlrp.InputError, match="is closed"):
        run(np.zeros((1, 3, 32, 32), np.float32))


@pytest.mark.parametrize(
    ("array", "hint"),
    [
        (np.zeros((1, 32, 32, 3), np.float32), r"give array.transpose\(0, 3, 1, 2\)"),
        (np.zeros((3, 32, 32), np.float32), r"give array\[None\]"),
        (np.zeros((1, 3, 32, 32)), r"give array.astype\('float32'\)"),
        (np.zeros((1, 3, 32, 32), np.uint8), r"explainer.preprocessing\(picture\)\[None\]"),
    ],
)
def test_messages_say_how_to_make_an_array_fit(bundled, array, hint):
    with pytest.raises(onnxlrp.InputError, match=hint):
        onnxlrp.Explainer(bundled)(array)


def test_values_that_no_picture_has_raise_one_warning(bundled):
    run = onnxlrp.Explainer(bundled)
    image = np.random.default_rng(0).random((1, 3, 32, 32), np.float32)
    with pytest.warns(UserWarning, match=r"values of 0.00019 to 1; pictures, .*, lie within -125"):
        run(image)
    run(image)
    run = onnxlrp.Explainer(bundled)
    with pytest.warns(UserWarning, match="lie within"):
        run(image * 1000)


@pytest.mark.parametrize(
    ("scores", "logits", "flat"),
    [
        ([0.25, 0.25, 0.25, 0.25], False, True),
        ([0.9, 0.04, 0.03, 0.03], False, False),
        ([0.01, 0.02, 0.01, 0.03], False, False),
        ([0.01, 0.02, 0.01, 0.03], True, True),
        ([0.48, 0.52, 0.5, 0.51], False, True),
        ([0.9, 0.8, 0.02, 0.7], False, False),
        ([-40.0, -40.1, -40.0, -39.9], True, True),
        ([-40.0, -40.1, -0.01, -39.9], False, False),
        ([7.0, 1.0, 0.0, -2.0], True, False),
        ([0.3], True, False),
    ],
)
def test_flat_scores(scores, logits, flat):
    """Logits, probabilities of classes or their logarithm, and of labels that may all be right."""
    assert is_flat(np.array(scores, np.float32), logits) is flat


def test_more_than_the_score_is_explained_in_words():
    assert (
        Account(2.0, 2.0, 1.0, 2.0).in_words()
        == "score 2, relevance sums to 2 (100.0% of the score)"
    )
    assert "biases and stabilisers hold the difference" in Account(2.0, 2.2, 1.1, 2.2).in_words()
    assert "biases and stabilisers hold the difference" in Account(2.0, -2.2, -1.1, 2.2).in_words()


@pytest.mark.parametrize(
    ("account", "said"),
    [
        (Account(2.0, 1.2, 0.6, 9.0), ""),
        (Account(2.0, 0.8, 0.4, 1.0), "the map accounts for 40.0% of the score"),
        (Account(2.0, 4.2, 2.1, 9.0), "the map accounts for 210.0% of the score"),
        (
            Account(2.0, -1.0, -0.5, 9.0, "difference of scores"),
            "-50.0% of the difference of scores",
        ),
        (Account(-2.0, -2.0, 1.0, 50.0), "the map's magnitudes sum to 25 times the score"),
        (Account(0.3, 0.001, None, 50.0), ""),
    ],
)
def test_a_map_that_says_little_is_doubted(account, said):
    assert account.doubt.endswith(said)
    assert bool(account.doubt) == bool(said)
