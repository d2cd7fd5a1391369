"""References by name, from files, as arrays."""

import numpy as np
import pytest
from PIL import Image

from onnxlrp.errors import InputError
from onnxlrp.inputs.preprocessing import Preprocessing
from onnxlrp.inputs.references import read_reference

CAFFE = Preprocessing(mean=(104.0, 117.0, 123.0), channels="BGR")


def test_the_mean_picture_is_zero_and_black_is_minus_the_mean():
    assert not read_reference("mean", CAFFE).any()
    assert read_reference("black", CAFFE).ravel().tolist() == [-104, -117, -123]
    assert not read_reference("zero", None).any()
    assert read_reference("input", None) == "input"


def test_files(tmp_path):
    array = np.arange(12.0, dtype=np.float32).reshape(3, 2, 2)
    np.save(tmp_path / "x.npy", array)
    assert (read_reference(tmp_path / "x.npy", None) == array).all()
    Image.new("RGB", (2, 2), (10, 20, 30)).save(tmp_path / "x.png")
    read = read_reference(str(tmp_path / "x.png"), CAFFE)
    assert read[:, 0, 0].tolist() == [30 - 104, 20 - 117, 10 - 123]


@pytest.mark.parametrize(
    ("given", "preprocessing", "message"),
    [
        ("mean", None, "is a picture: say how it is made"),
        ("mean", Preprocessing(scale=1 / 255), "subtracts no mean"),
        ("grey", CAFFE, "is no file, and none of mean, black, zero, blur, input"),
        (np.array([np.nan]), CAFFE, "not a finite number"),
    ],
)
def test_what_is_none(given, preprocessing, message):
    with pytest.raises(InputError, match=message):
        read_reference(given, preprocessing)
