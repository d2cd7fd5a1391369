from pathlib import Path

import numpy as np
from PIL import Image

import onnxlrp
from onnxlrp.drawing.heatmap import heatmap


def test_a_column_for_each_composite_and_a_row_for_each_class(
    run, model: Path, photo: Path, preprocessing
):
    flags = ["--resize", "8x8", "--scale", "1/255", "--target", "top:2"]
    names = ["epsilon_plus", "epsilon_plus; Conv: flat"]
    chosen = [flag for name in names for flag in ("--composite", name)]
    result = run("sheet", model, photo, "-o", "sheet.png", *chosen, *flags)
    assert result.exit_code == 0, result.output
    drawn = np.asarray(Image.open("sheet.png")).astype(int)
    with Image.open(photo) as picture:
        images = preprocessing(picture)[None]
    # The two columns differ, and each shows its own composite's map.
    for column, name in enumerate(names, 1):
        explainer = onnxlrp.Explainer(onnxlrp.convert(model, name).to_proto().SerializeToString())
        expected = np.asarray(heatmap(explainer(images).relevance[0])).astype(int)
        left = 12 + column * (224 + 12)
        panel = drawn[:, left : left + 224]
        tops = [
            top
            for top in range(len(panel) - 224)
            if np.array_equal(panel[top : top + 224], expected)
        ]
        assert len(tops) == 1


def test_without_preprocessing_it_asks(run, model: Path, photo: Path):
    result = run("sheet", model, photo, "-o", "sheet.png")
    assert result.exit_code == 1
    assert "say how pictures are made" in result.stderr
