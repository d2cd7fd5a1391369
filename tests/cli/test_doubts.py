import pytest

from onnxlrp.cli.doubts import doubt


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
