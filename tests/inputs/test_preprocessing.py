import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnxlrp.errors import InputError
from onnxlrp.inputs.items import load_picture
from onnxlrp.inputs.preprocessing import Preprocessing
from onnxlrp.inputs.presets import PRESETS


def picture(*rows: list[tuple[int, int, int]]) -> Image.Image:
    return Image.fromarray(np.array(rows, dtype=np.uint8))


def test_pixels_are_scaled_then_shifted_then_divided():
    preprocessing = Preprocessing(scale=0.5, mean=(1.0, 2.0, 3.0), std=(1.0, 2.0, 4.0))
    array = preprocessing(picture([(10, 20, 30)]))
    assert array.dtype == np.float32
    np.testing.assert_allclose(array, [[[4.0]], [[4.0]], [[3.0]]])


def test_without_settings_the_model_reads_rgb_of_0_to_255():
    array = Preprocessing()(picture([(1, 2, 3), (4, 5, 6)]))
    np.testing.assert_array_equal(array, [[[1, 4]], [[2, 5]], [[3, 6]]])


def test_mean_is_in_the_order_of_the_channels():
    array = Preprocessing(channels="BGR", mean=(30.0, 20.0, 10.0))(picture([(11, 22, 33)]))
    np.testing.assert_array_equal(array.ravel(), [3, 2, 1])


def test_nhwc_keeps_the_channels_last():
    array = Preprocessing(layout="NHWC")(picture([(1, 2, 3), (4, 5, 6)]))
    np.testing.assert_array_equal(array, [[[1, 2, 3], [4, 5, 6]]])


@pytest.mark.parametrize(("layout", "shape"), [("NCHW", (1, 1, 2)), ("NHWC", (1, 2, 1))])
def test_grey_has_one_channel(layout, shape):
    array = Preprocessing(channels="grey", layout=layout)(picture([(7, 7, 7), (9, 9, 9)]))
    assert array.shape == shape
    np.testing.assert_array_equal(array.ravel(), [7, 9])


def test_one_length_is_the_shorter_side():
    image = Image.new("RGB", (300, 200))
    assert Preprocessing(resize=100).crop_of(image).size == (150, 100)
    assert Preprocessing(resize=100).crop_of(image.transpose(2)).size == (100, 150)


def test_two_lengths_are_height_and_width():
    assert Preprocessing(resize=(40, 50)).crop_of(Image.new("RGB", (300, 200))).size == (50, 40)


def test_shrinking_averages_and_does_not_skip():
    # A checkerboard of single pixels; sampling without antialiasing would return 0 or 255.
    board = np.indices((64, 64)).sum(axis=0) % 2 * np.uint8(255)
    array = Preprocessing(resize=8)(Image.fromarray(board.astype(np.uint8)))
    np.testing.assert_allclose(array, 127.5, atol=2)


def test_the_crop_is_the_middle():
    columns = np.tile(np.arange(10, dtype=np.uint8), (6, 1))
    array = Preprocessing(crop=(2, 4), channels="grey")(Image.fromarray(columns))
    np.testing.assert_array_equal(array, [[[3, 4, 5, 6], [3, 4, 5, 6]]])


def test_crop_of_is_what_the_model_sees():
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    seen = np.asarray(PRESETS["imagenet-caffe"].crop_of(image), dtype=np.float32)
    expected = (seen[..., ::-1] - [104, 117, 123]).transpose(2, 0, 1)
    np.testing.assert_allclose(PRESETS["imagenet-caffe"](image), expected)


@pytest.mark.parametrize(
    "preprocessing",
    [PRESETS["imagenet-caffe"], PRESETS["imagenet"], Preprocessing(), Preprocessing(resize=90)],
)
def test_enlarged_it_shows_the_same_part(preprocessing):
    ramp = np.add.outer(np.arange(300), np.arange(400)) * (255 / 700)
    image = Image.fromarray(ramp.astype(np.uint8))
    seen, enlarged = preprocessing.crop_of(image), preprocessing.crop_of(image, factor=3)
    assert enlarged.size == (3 * seen.width, 3 * seen.height)
    middles = np.asarray(enlarged)[1::3, 1::3].astype(int)
    assert np.abs(middles - np.asarray(seen)).max() <= 2


def test_imagenet_preset_on_a_plain_grey_picture():
    array = PRESETS["imagenet"](Image.new("RGB", (500, 400), (128, 128, 128)))
    assert array.shape == (3, 224, 224)
    expected = [
        (128 / 255 - 0.485) / 0.229,
        (128 / 255 - 0.456) / 0.224,
        (128 / 255 - 0.406) / 0.225,
    ]
    np.testing.assert_allclose(array[:, 100, 100], expected, rtol=1e-6)


def test_a_photograph_lying_on_its_side_is_turned_upright(tmp_path: Path):
    lying = Image.new("RGB", (30, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: turn by 90 degrees clockwise to view.
    lying.save(tmp_path / "lying.jpg", exif=exif)
    assert Preprocessing().crop_of(load_picture(tmp_path / "lying.jpg")).size == (20, 30)


def test_palettes_and_transparency_become_rgb():
    assert Preprocessing()(Image.new("P", (4, 3))).shape == (3, 3, 4)
    assert Preprocessing()(Image.new("RGBA", (4, 3), (1, 2, 3, 255)))[:, 0, 0].tolist() == [1, 2, 3]


def test_white_shows_through_what_is_transparent(tmp_path: Path):
    half = np.array([[[0, 0, 0, 0], [0, 100, 200, 51], [1, 2, 3, 255]]], np.uint8)
    seen = Preprocessing().pixels(Image.fromarray(half))
    # One fifth of the colour, four of white.
    np.testing.assert_array_equal(seen, [[[255] * 3, [204, 224, 244], [1, 2, 3]]])
    grey = Preprocessing(channels="grey").pixels(Image.fromarray(half[..., [0, 3]]))
    np.testing.assert_array_equal(grey[0, :, 0], [255, 204, 1])
    palette = Image.new("P", (2, 1), 1)
    palette.putpalette([0, 0, 0, 9, 9, 9])
    palette.putpixel((0, 0), 0)
    palette.save(tmp_path / "palette.png", transparency=0)
    np.testing.assert_array_equal(
        Preprocessing().pixels(load_picture(tmp_path / "palette.png")), [[[255] * 3, [9] * 3]]
    )


@pytest.mark.parametrize(
    "preprocessing",
    [
        PRESETS["imagenet"],
        PRESETS["imagenet-caffe"],
        Preprocessing(),
        Preprocessing(channels="grey", layout="NHWC", resize=28),
    ],
)
def test_json_returns_the_same_settings(preprocessing):
    assert Preprocessing.from_json(preprocessing.to_json()) == preprocessing


def test_json_is_keyed_by_attribute():
    assert json.loads(PRESETS["imagenet-caffe"].to_json())["crop"] == [224, 224]


@pytest.mark.parametrize("text", ["", "[]", '{"zoom": 2}', '{"channels": "CMYK"}', '{"mean": "a"}'])
def test_json_of_anything_else_is_refused(text):
    with pytest.raises(InputError):
        Preprocessing.from_json(text)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"resize": 0}, "resize"),
        ({"resize": (1, 2, 3)}, "resize"),
        ({"crop": 224}, "crop"),
        ({"scale": 0.0}, "scale"),
        ({"scale": float("nan")}, "scale"),
        ({"mean": (1.0, 2.0)}, "mean"),
        ({"std": (1.0, 0.0, 1.0)}, "std"),
        ({"channels": "grey", "mean": (1.0, 2.0, 3.0)}, "mean"),
        ({"layout": "CHW"}, "layout"),
    ],
)
def test_settings_that_make_no_sense_are_named(wrong, message):
    with pytest.raises(InputError, match=message):
        replace(Preprocessing(), **wrong)


def test_a_picture_smaller_than_the_crop_is_refused():
    with pytest.raises(InputError, match=r"20x30 .* smaller than the crop of 224x224"):
        Preprocessing(crop=(224, 224))(Image.new("RGB", (30, 20)))


def test_sixteen_bits_are_refused_and_not_clipped_to_white():
    image = Image.fromarray(np.full((4, 4), 30000, dtype=np.uint16))
    with pytest.raises(InputError, match="8-bit"):
        Preprocessing()(image)


def test_a_file_that_is_no_picture(tmp_path: Path):
    path = tmp_path / "notes.jpg"
    path.write_text("not a picture")
    with pytest.raises(InputError, match=r"notes\.jpg is not a picture"):
        load_picture(path)


def test_a_picture_cut_short(tmp_path: Path):
    path = tmp_path / "half.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"half\.png is not a readable picture"):
        load_picture(path)


@pytest.mark.parametrize("name", PRESETS)
def test_a_picture_comes_back_from_what_the_model_reads(name):
    preprocessing = replace(PRESETS[name], resize=None, crop=None)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    back = preprocessing.picture_of(preprocessing(Image.fromarray(pixels)))
    np.testing.assert_array_equal(np.asarray(back), pixels)


def test_many_pictures_at_once_become_what_each_becomes():
    preprocessing = replace(PRESETS["imagenet-caffe"], resize=None, crop=None)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
    each = [preprocessing(Image.fromarray(one)) for one in pixels]
    np.testing.assert_array_equal(preprocessing.values(pixels), each)


def test_in_words():
    assert PRESETS["imagenet-caffe"].in_words() == (
        "resized to 256x256 (height x width), middle 224x224 cut out, BGR, values 0..255, "
        "minus (104, 117, 123), NCHW"
    )


def test_a_long_and_narrow_picture_is_refused_before_it_is_held():
    with pytest.raises(InputError, match=r"30000x1 .* would be resized to 7680000x256"):
        PRESETS["imagenet"](Image.new("RGB", (1, 30000)))
