import numpy as np
import pytest

from onnxlrp.audit import inputs
from onnxlrp.errors import InputError
from onnxlrp.inputs.preprocessing import Preprocessing
from onnxlrp.running.contract import Tensor

IMAGE = {"image": Tensor("float32", ("N", 3, 8, 8))}
TWO = {"image": Tensor("float32", ("N", 3)), "table": Tensor("float32", ("N", 2))}


def test_arrays_from_files(tmp_path):
    array = np.random.default_rng(0).normal(size=(2, 3, 8, 8))
    np.save(tmp_path / "one.npy", array)
    np.savez(tmp_path / "one.npz", anything=array)
    for name in ("one.npy", "one.npz"):
        found = inputs.load(tmp_path / name, IMAGE)
        assert found["image"].dtype == np.float32
        np.testing.assert_array_equal(found["image"], array.astype(np.float32))
    np.savez(tmp_path / "two.npz", table=np.ones((1, 2)), image=np.ones((1, 3)))
    assert {k: v.shape for k, v in inputs.load(tmp_path / "two.npz", TWO).items()} == {
        "image": (1, 3),
        "table": (1, 2),
    }


def test_what_does_not_fit_is_named(tmp_path):
    (tmp_path / "text.npy").write_text("no array")
    with pytest.raises(InputError, match=r"text\.npy is not a readable array, \.npy or \.npz"):
        inputs.load(tmp_path / "text.npy", IMAGE)
    with pytest.raises(InputError, match=r"takes float32 \[N, 3, 8, 8\], not float64 \[1, 3, 8\]"):
        inputs.fitted(np.ones((1, 3, 8)), IMAGE)
    with pytest.raises(InputError, match=r"takes float32 .*, not int64"):
        inputs.fitted(np.ones((1, 3, 8, 8), np.int64), IMAGE)
    with pytest.raises(InputError, match="several inputs: give an array for each of 'image', 'tab"):
        inputs.fitted(np.ones((1, 3)), TWO)
    with pytest.raises(InputError, match="input 'table' is missing"):
        inputs.fitted({"image": np.ones((1, 3))}, TWO)
    with pytest.raises(InputError, match="has no input 'tabel'"):
        inputs.fitted({"image": np.ones((1, 3)), "tabel": np.ones((1, 2))}, TWO)


def test_normal_numbers_without_preprocessing():
    drawn = inputs.draw(IMAGE, 50, None)["image"]
    assert drawn.shape == (50, 3, 8, 8)
    assert drawn.dtype == np.float32
    assert abs(drawn.mean()) < 0.05
    assert drawn.std() == pytest.approx(1, abs=0.05)
    np.testing.assert_array_equal(drawn, inputs.draw(IMAGE, 50, None)["image"])


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_pixels_with_preprocessing(layout):
    shape = ("N", 3, None, None) if layout == "NCHW" else ("N", None, None, 3)
    preprocessing = Preprocessing(
        resize=9, crop=(8, 6), scale=1 / 255, mean=(0.5,), std=(0.25,), layout=layout
    )
    drawn = inputs.draw({"image": Tensor("float32", shape)}, 4, preprocessing)["image"]
    assert drawn.shape == ((4, 3, 8, 6) if layout == "NCHW" else (4, 8, 6, 3))
    assert -2 <= drawn.min() < -1.8
    assert 1.8 < drawn.max() <= 2
    levels = (drawn * 0.25 + 0.5) * 255
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-3)


def test_integers_are_pixels_too():
    drawn = inputs.draw({"image": Tensor("uint8", (1, 8, 8, 3))}, 1, None)["image"]
    assert drawn.dtype == np.uint8
    assert drawn.max() > 200


def test_sizes_that_nobody_knows():
    with pytest.raises(InputError, match=r"axis 2 has no fixed size to draw; give --inputs FILE"):
        inputs.draw({"image": Tensor("float32", ("N", 3, "H", "W"))}, 1, None)
    with pytest.raises(InputError, match="it is one batch of 1"):
        inputs.draw({"image": Tensor("float32", (1, 3))}, 2, None)
