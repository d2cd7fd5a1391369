import csv
import json
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image

import onnxlrp
from onnxlrp.explainer import Explainer


@pytest.fixture
def maps(tmp_path: Path) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, 2, 6, 5)).astype(np.float32)


def test_files_of_any_library(run, maps):
    np.save("a.npy", maps)
    np.savez("b.npz", attribution=maps, label=np.arange(3))
    with h5py.File("c.h5", "w") as file:
        file["attribution"] = maps
    result = run("compare", "a.npy", "b.npz", "c.h5", "--tolerance", "0")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("the same explanation within 0.0e+00") == 2


def test_the_worst_item_and_the_exit_status(run, maps):
    np.save("a.npy", maps)
    other = maps.copy()
    other[1, 0, 0, 0] += 0.5 * np.abs(maps[1]).max()
    np.save("b.npy", other)
    result = run("compare", "a.npy", "b.npy", "--json", "--csv", "items.csv")
    (pair,) = json.loads(result.stdout)
    assert pair["items"]["1"]["relative max"] == pytest.approx(0.5, rel=1e-5)
    assert pair["items"]["0"]["relative max"] == 0
    with open("items.csv", newline="") as file:
        assert [float(row["relative max"]) > 0 for row in csv.DictReader(file)] == [0, 1, 0]
    failing = run("compare", "a.npy", "b.npy", "--tolerance", "0.4")
    assert failing.exit_code == 1
    assert "differ by 5.00e-01, more than 0.4" in failing.stderr
    assert run("compare", "a.npy", "b.npy", "--tolerance", "0.6").exit_code == 0


def test_layouts_and_channels_are_brought_together(run, maps):
    np.save("a.npy", maps)
    np.save("nhwc.npy", maps.transpose(0, 2, 3, 1))
    np.save("summed.npy", maps.sum(axis=1))
    result = run("compare", "a.npy", "nhwc.npy", "summed.npy", "--tolerance", "1e-6")
    assert result.exit_code == 0, result.output
    assert "Note: compared after a transpose to [C, H, W]" in result.stdout
    assert "Note: compared after a sum over channels" in result.stdout


def test_an_explainer_a_model_a_folder_and_an_array(run, explainer: Path, model: Path, photo: Path):
    """The same explanation, once computed by each way there is."""
    Image.open(photo).save("other.png")
    assert run("explain", explainer, photo, "other.png", "-o", "out").exit_code == 0
    saved = [np.load(f"out/{name}.relevance.npy") for name in ("photo", "other")]
    np.save("saved.npy", np.stack(saved))
    flags = ["--data", photo, "--data", "other.png", "--resize", "8x8", "--scale", "1/255"]
    result = run("compare", explainer, model, "out", "saved.npy", *flags, "--tolerance", "1e-5")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("the same explanation") == 3


def test_a_model_that_reads_the_other_layout(run, explainer: Path, model: Path, photo: Path):
    proto = onnx.load(model)
    proto.graph.input[0].type.CopyFrom(
        helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, ["N", 8, 8, 3])
    )
    proto.graph.node.insert(
        0, helper.make_node("Transpose", ["image"], ["turned"], "turn", perm=[0, 3, 1, 2])
    )
    proto.graph.node[1].input[0] = "turned"
    onnx.save(proto, "nhwc.onnx")
    flags = ["--resize", "8x8", "--scale", "1/255"]
    for given in (["--data", photo, *flags], ["--random", 3]):
        result = run("compare", explainer, "nhwc.onnx", *given, "--tolerance", "1e-5")
        assert result.exit_code == 0, result.output
        assert "transpose" in result.stdout


def test_other_composites_explain_otherwise(run, explainer: Path, model: Path):
    onnxlrp.convert(model, "epsilon").save(Path("epsilon.onnx"))
    result = run("compare", explainer, "epsilon.onnx", "--random", 4, "--plot", "worst.png")
    assert result.exit_code == 0
    assert "different explanations" in result.stdout
    # Four rows of two maps and their difference.
    assert Image.open("worst.png").size[0] == 3 * (224 + 12) + 12
    with Explainer(explainer) as one, Explainer("epsilon.onnx") as other:
        image = np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32)[:1]
        a, b = (r(image).relevance[0].astype(float) for r in (one, other))
    found = json.loads(run("compare", explainer, "epsilon.onnx", "--random", 4, "--json").stdout)
    expected = np.corrcoef(a.ravel(), b.ravel())[0, 1]
    assert found[0]["items"]["0"]["pearson"] == pytest.approx(expected)


def test_what_cannot_be_compared(run, explainer: Path, maps):
    np.save("a.npy", maps)
    np.save("b.npy", maps[:2])
    assert "not about the same items: 2" in run("compare", "a.npy", "b.npy").stderr
    np.save("c.npy", maps[..., :4])
    line = run("compare", "a.npy", "c.npy").stderr
    assert "maps of [2, 6, 5] and [2, 6, 4] cannot be compared" in line
    assert "--data FOLDER, or --random N" in run("compare", explainer, "a.npy").stderr
    Path("d.h5").write_bytes(b"no HDF5")
    assert "no HDF5 file with a dataset 'attribution'" in run("compare", "a.npy", "d.h5").stderr
    Path("empty").mkdir()
    assert "is it a folder of `onnxlrp explain`?" in run("compare", "a.npy", "empty").stderr
