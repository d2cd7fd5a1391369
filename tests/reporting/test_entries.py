import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onnxlrp.errors import InputError
from onnxlrp.inputs.items import Item
from onnxlrp.inputs.targets import Aim
from onnxlrp.reporting import Show, entry, thumbnail_side
from onnxlrp.running.stream import Explained, Result, Sample

SHOW = Show(None, ["cat", "dog", "owl"], None, True, "orange-blue", 224)


def result(relevance: np.ndarray, score: float = 4.0) -> Result:
    sample = Sample(Item("one", Path("one.npy")), np.zeros_like(relevance))
    explained = Explained(Aim(1), score, relevance)
    return Result(sample, np.array([1.0, 4.0, 2.0]), (explained,))


def test_what_is_said_of_a_picture():
    relevance = np.zeros((2, 16, 16))
    # A square of side 2 is an eighth; both channels count.
    relevance[0, 3, 5], relevance[1, 4, 6], relevance[0, 10, 10] = 3.0, 2.0, -1.0
    said = entry([result(relevance)], SHOW)
    assert (said["label"], said["target"], said["best"], said["score"]) == ("dog", 1, 1, 4.0)
    assert [(one["label"], one["score"]) for one in said["next"]] == [
        ("dog", 4.0),
        ("owl", 2.0),
        ("cat", 1.0),
    ]
    (drawn,) = said["maps"]
    assert (drawn["share"], drawn["relevance"], drawn["doubt"]) == (1.0, 4.0, "")
    (first,) = drawn["regions"]
    assert first["box"] == [3 / 16, 5 / 16, 2 / 16, 2 / 16]
    assert (first["text"], first["relevance"]) == ("rows 3–4, columns 5–6", 5.0)
    assert drawn["picture"].startswith("data:image/webp;base64,")
    assert (said["disagreement"], said["astray"]) == (None, 0.0)


def test_maps_that_disagree_and_one_that_accounts_for_little():
    relevance = np.arange(8.0).reshape(1, 2, 4) / 7
    said = entry([result(relevance), result(-relevance)], SHOW)
    # Ranks are reversed: a correlation of -1.
    assert said["disagreement"] == pytest.approx(2)
    assert [one["share"] for one in said["maps"]] == pytest.approx([1.0, -1.0])
    assert said["maps"][1]["doubt"] == "the map accounts for -100.0% of the score"
    assert said["astray"] == pytest.approx(2)


def test_the_loudest_windows_of_a_signal():
    # A sixteenth of its length is 2 moments; what is below a twentieth of the loudest is left out.
    relevance = np.zeros((2, 32))
    relevance[0, 7], relevance[1, 8], relevance[1, 20], relevance[0, 28] = 3.0, 2.0, -4.0, 0.2
    (drawn,) = entry([result(relevance)], SHOW)["maps"]
    assert drawn["for"] == [["7–8", 5.0]]
    assert drawn["against"] == [["19–20", -4.0]]
    assert (drawn["of"], drawn["length"], drawn["full"]) == (2, 32, 4.0)


def test_the_strongest_features_of_a_row_and_the_sum_of_the_others():
    relevance = np.array([0.5, -2.0, *[0.125] * 10])
    show = replace(SHOW, features=["age", "debt", *"abcdefghij"])
    (drawn,) = entry([result(relevance)], show)["maps"]
    assert drawn["bars"][:2] == [["debt", " = 0", -2.0], ["age", " = 0", 0.5]]
    assert drawn["bars"][-1] == ["sum of the other 2", "", 0.25]
    assert len(drawn["bars"]) == 11


def test_what_is_true_and_how_sure_the_model_is():
    found = result(np.full((1, 2, 2), 1.0))
    said = entry([found], SHOW)
    assert (said["truth"], said["right"], said["margin"]) == (None, None, 2.0)
    wrong = entry([found], SHOW, truth=2)
    assert (wrong["truth"], wrong["right"]) == ("owl", False)
    assert entry([found], SHOW, truth=1)["right"] is True


def test_scores_that_json_has_no_word_for():
    found = replace(result(np.full((1, 2, 2), 1.0)), scores=np.array([4.0, np.nan, -np.inf]))
    said = entry([found], SHOW)
    assert [one["score"] for one in said["next"]] == [4.0, None, None]
    json.dumps(said, allow_nan=False)


def test_what_has_too_many_axes_is_refused():
    with pytest.raises(InputError, match="an input with 4 axes besides the batch cannot be shown"):
        entry([result(np.ones((1, 2, 2, 2)))], SHOW)


@pytest.mark.parametrize(
    ("items", "maps", "side"), [(10, 1, 224), (1000, 1, 224), (1000, 4, 180), (10**6, 1, 64)]
)
def test_many_thumbnails_are_smaller(items: int, maps: int, side: int):
    assert thumbnail_side(items, maps) == side
