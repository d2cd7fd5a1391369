from pathlib import Path

import numpy as np
import pytest

from onnxlrp.inputs.items import Item
from onnxlrp.inputs.targets import Aim
from onnxlrp.reporting import Show, entry, thumbnail_side
from onnxlrp.running.stream import Explained, Result, Sample

SHOW = Show(["a.onnx", "b.onnx"], None, ["cat", "dog", "owl"], None, True, "orange-blue", 224)


def result(relevance: np.ndarray, score: float = 4.0) -> Result:
    sample = Sample(Item("one", Path("one.npy")), np.zeros_like(relevance))
    explained = Explained(Aim(1), score, relevance)
    return Result(sample, np.array([1.0, 4.0, 2.0]), (explained,))


def test_what_is_said_of_a_picture():
    relevance = np.zeros((2, 16, 16))
    # A square of side 2 is an eighth; both channels count.
    relevance[0, 3, 5], relevance[1, 4, 6], relevance[0, 10, 10] = 3.0, 2.0, -1.0
    said = entry([result(relevance)], SHOW)
    assert (said["label"], said["target"], said["score"]) == ("dog", 1, 4.0)
    assert [(one["label"], one["score"]) for one in said["next"]] == [
        ("dog", 4.0),
        ("owl", 2.0),
        ("cat", 1.0),
    ]
    (drawn,) = said["maps"]
    assert (drawn["share"], drawn["relevance"], drawn["doubt"]) == (1.0, 4.0, "")
    (first,) = drawn["regions"]
    assert first["box"] == [3 / 16, 5 / 16, 2 / 16, 2 / 16]
    assert first["text"] == "rows 3 to 4, columns 5 to 6: +5"
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


def test_the_loudest_values_of_a_signal():
    relevance = np.array([[0.0, 3.0, 0.0], [0.0, -5.0, 1.0]])
    (drawn,) = entry([result(relevance)], SHOW)["maps"]
    assert drawn["loud"] == "1, 1: -5; 0, 1: +3; 1, 2: +1"


@pytest.mark.parametrize(
    ("items", "maps", "side"), [(10, 1, 224), (1000, 1, 224), (1000, 4, 180), (10**6, 1, 64)]
)
def test_many_thumbnails_are_smaller(items: int, maps: int, side: int):
    assert thumbnail_side(items, maps) == side
