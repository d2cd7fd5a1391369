import pytest

from onnxlrp.errors import InputError
from onnxlrp.inputs.preprocessing import Preprocessing
from onnxlrp.inputs.presets import PRESETS, doubts, load_preprocessing, misfits


def test_a_file_says_what_a_name_says(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(PRESETS["tf"].to_json())
    assert load_preprocessing(str(path)) == load_preprocessing("tf")
    path.write_text('{"sise": 3}')
    with pytest.raises(InputError, match=r"mine.json: stored preprocessing has other keys"):
        load_preprocessing(str(path))


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("tf", -1, 1), ("raw", 0, 255), ("imagenet-caffe", -123, 151), ("imagenet", -2.118, 2.64)],
)
def test_bounds_of_what_the_model_reads(name, low, high):
    least, greatest = PRESETS[name].bounds
    assert min(least) == pytest.approx(low, abs=1e-3)
    assert max(greatest) == pytest.approx(high, abs=1e-3)


def test_doubts_about_channels_and_range():
    said = {"Image.BitmapPixelFormat": "Bgr8", "Image.NominalPixelRange": "NominalRange_0_255"}
    assert doubts(said, PRESETS["imagenet-caffe"]) == []
    channels, values = doubts(said, PRESETS["imagenet"])
    assert channels.endswith("are BGR, the preprocessing makes them RGB")
    assert values.endswith("span 255 (NominalRange_0_255), those of the preprocessing 4.76")
    (missing,) = doubts(said, None)
    assert "BGR and NominalRange_0_255; no preprocessing was given" in missing


def test_a_model_that_says_nothing_raises_no_doubt():
    assert doubts({"author": "me"}, None) == doubts({}, PRESETS["raw"]) == []


@pytest.mark.parametrize(
    ("chosen", "shape", "fits"),
    [
        (Preprocessing(), (None, 3, 32, 32), True),
        (Preprocessing(crop=(24, 24)), ("N", 3, "h", "w"), True),
        (Preprocessing(crop=(24, 24)), (1, 3, 32, 32), False),
        (Preprocessing(layout="NHWC"), (1, 3, 32, 32), False),
        (Preprocessing(layout="NHWC"), (1, 32, 32, 3), True),
        (Preprocessing(channels="grey"), (1, 3, 32, 32), False),
        (Preprocessing(), (1, 10), False),
        (None, (1, 10), True),
    ],
)
def test_pictures_of_another_shape_than_the_models_are_told(chosen, shape, fits):
    assert (misfits([shape], chosen) == []) is fits


@pytest.mark.parametrize("name", ["scale", "mean", "std"])
def test_numbers_that_are_not_whole_are_told_where_the_model_reads_whole_ones(name):
    chosen = Preprocessing(**{name: 0.5 if name == "scale" else (1, 2, 3)})
    shape = (1, 3, 32, 32)
    [told] = misfits([shape], chosen, whole=True)
    assert told.endswith("drop --scale, --mean and --std")
    assert misfits([shape], chosen) == misfits([shape], Preprocessing(), whole=True) == []
