import numpy as np

from onnxlrp.drawing.colours import coloured
from onnxlrp.reporting.curves import COLUMNS, curves


def test_a_path_goes_through_every_value_and_stripes_have_its_relevance():
    values = np.array([[0.0, 10.0, 5.0], [1.0, 1.0, 1.0]])
    relevance = np.array([[2.0, -4.0, 0.0], [0.0, 0.0, 1.0]])
    drawn, stripes = curves(relevance, values, "orange-blue")
    # The least value is a tenth above the channel's foot, the greatest a tenth below its top; what
    # is constant lies in the middle.
    assert drawn["path"] == "M1 90 3 10 5 50M1 150 3 150 5 150"
    assert drawn["channels"] == [[0, 0.0, 10.0], [1, 1.0, 1.0]]
    assert (drawn["full"], drawn["columns"], drawn["length"]) == (4.0, 3, 3)
    assert (np.asarray(stripes) == coloured(relevance / 4, "orange-blue")).all()


def test_of_a_long_signal_no_peak_is_lost():
    length = 10 * COLUMNS + 7
    values, relevance = np.zeros((1, length)), np.zeros((1, length))
    values[0, 1234], relevance[0, 2345] = 1.0, -3.0
    drawn, stripes = curves(relevance, values, "orange-blue")
    assert stripes.size == (COLUMNS, 1)
    # One column goes from the least value to the greatest and all others stay below.
    points = drawn["path"].removeprefix("M").split(" ")
    assert points[1::2].count("10") == 1
    strongest = coloured(np.array(-1.0), "orange-blue")
    assert (np.asarray(stripes)[0] == strongest).all(axis=1).sum() == 1


def test_of_many_channels_the_most_relevant_are_drawn():
    relevance = np.zeros((20, 4))
    relevance[3:19, 0] = np.arange(16)
    drawn, _ = curves(relevance, np.zeros((20, 4)), "orange-blue")
    assert [channel for channel, _, _ in drawn["channels"]] == list(range(11, 19))
    assert drawn["of"] == 20
