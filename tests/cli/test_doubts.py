import pytest

from onnxlrp.cli.doubts import doubt, mistrust
from onnxlrp.running.explanation import Account


@pytest.mark.parametrize(
    ("flat", "predicted", "warning"),
    [
        ([True, True, False], [1, 2, 3], "for 2 of 3 items the model scores all classes nearly"),
        ([True, False], [1, 1], ""),
        ([False] * 12, [7] * 10 + [1, 2], "predicts class 7 for 10 of 12 items: is this how"),
        ([False] * 12, [7] * 9 + [1, 2, 3], ""),
        ([False] * 9, [7] * 9, ""),
        ([], [], ""),
    ],
)
def test_what_raises_a_doubt(flat, predicted, warning, capsys):
    doubt(flat, predicted)
    said = capsys.readouterr().err
    assert warning in said
    assert bool(warning) == bool(said)


@pytest.mark.parametrize(
    ("against", "advice"),
    [
        (False, "biases hold the rest; convert --reference zero leaves them nothing"),
        (True, "try a composite with gamma"),
    ],
)
def test_what_is_advised_where_biases_hold_the_score(against, advice, capsys):
    mistrust([Account(4.0, 1.0, 0.25, 1.0)], against, "zero")
    assert f"(25.0% in the middle): {advice}\n" in capsys.readouterr().err
