import click
import pytest

from onnxlrp.cli.options import chosen_preprocessing, numbers, size, target_number
from onnxlrp.errors import InputError
from onnxlrp.inputs.preprocessing import Preprocessing
from onnxlrp.inputs.presets import PRESETS

NOTHING = dict.fromkeys(
    ["preprocess", "resize", "crop", "scale", "mean", "std", "channels", "layout"]
)


@pytest.mark.parametrize(("text", "number"), [("7", 7), ("0", 0), ("top", -1), ("-1", -1)])
def test_a_target_is_a_class_or_the_top_one(text, number):
    assert target_number(text) == number


@pytest.mark.parametrize("text", ["-2", "cat", "1.5", ""])
def test_other_targets_are_refused(text):
    with pytest.raises(click.BadParameter):
        target_number(text)


def test_a_size_is_a_length_or_height_and_width():
    assert size("224") == 224
    assert size("224x200") == (224, 200)
    with pytest.raises(click.BadParameter, match="neither a length nor HEIGHTxWIDTH"):
        size("big")


def test_numbers_may_be_fractions():
    assert numbers("104,117.5,1e-3") == (104, 117.5, 0.001)
    assert numbers("1/255") == (1 / 255,)
    assert numbers("1/127.5,-1/2") == (1 / 127.5, -0.5)
    for wrong in ("a", "1,,2", "1/0"):
        with pytest.raises(click.BadParameter):
            numbers(wrong)


def test_without_options_the_stored_settings_stay():
    assert chosen_preprocessing(NOTHING) is None
    assert chosen_preprocessing(NOTHING, PRESETS["imagenet-caffe"]) is PRESETS["imagenet-caffe"]


def test_a_preset_replaces_the_stored_settings():
    assert (
        chosen_preprocessing(NOTHING | {"preprocess": "imagenet"}, PRESETS["imagenet-caffe"])
        is PRESETS["imagenet"]
    )


def test_single_options_change_the_preset_or_the_stored_settings():
    crop = NOTHING | {"crop": 200}
    assert chosen_preprocessing(crop, PRESETS["imagenet-caffe"]).crop == (200, 200)
    assert (
        chosen_preprocessing(crop, PRESETS["imagenet-caffe"]).mean == PRESETS["imagenet-caffe"].mean
    )
    assert chosen_preprocessing(crop | {"preprocess": "imagenet"}).std == PRESETS["imagenet"].std


def test_without_preset_they_start_from_rgb_of_0_to_255():
    changed = chosen_preprocessing(NOTHING | {"scale": (0.5,), "resize": (8, 9)})
    assert changed == Preprocessing(scale=0.5, resize=(8, 9))


def test_wrong_settings_are_named():
    with pytest.raises(
        InputError, match="unknown preprocessing 'vgg': it is a JSON file, or one of imagenet, "
    ):
        chosen_preprocessing(NOTHING | {"preprocess": "vgg"})
    with pytest.raises(InputError, match="--scale is one number"):
        chosen_preprocessing(NOTHING | {"scale": (1.0, 2.0)})
    with pytest.raises(InputError, match="mean"):
        chosen_preprocessing(NOTHING | {"mean": (1.0, 2.0)})


def test_options_that_commands_share_have_headings_of_their_own():
    from click.testing import CliRunner

    from onnxlrp.cli import main

    text = CliRunner().invoke(main, ["convert", "--help"]).output
    own, *shared = text.split("\n\n")[-4:]
    assert own.startswith("Options:\n  --features FILE ")
    headings = ["Which rules:", "What the explainer does:", "How pictures are made:"]
    assert [section.splitlines()[0] for section in shared] == headings
    for section, first in zip(shared, ("--composite", "--input", "--preprocess"), strict=True):
        assert section.splitlines()[1].split()[0] == first
    for option in main.commands["convert"].params:
        for name in option.opts if option.param_type_name == "option" else ():
            assert text.count(f" {name} ") >= 1


def test_a_name_that_is_nearly_right_is_suggested(tmp_path):
    from click.testing import CliRunner

    from onnxlrp.cli import main

    def told(*words):
        return CliRunner().invoke(main, words).stderr

    assert "No such option" in told("convert", "a", "b", "--composit", "x")
    assert "--composite" in told("convert", "a", "b", "--composit", "x")
    line = told("convert", "a", "b", "--composite", "epsilon-plus")
    assert "no composite 'epsilon-plus' (did you mean epsilon_plus " in line
