import csv
import json
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import onnxlrp
from onnxlrp.drawing.heatmap import full_scale, heatmap
from onnxlrp.drawing.panels import seen
from onnxlrp.running.explainer import Explainer


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


def test_a_factor_alone(run, maps):
    np.save("a.npy", maps)
    np.save("b.npy", 1.05 * maps)
    assert "same explanation but for a factor" in run("compare", "a.npy", "b.npy").stdout
    np.save("zeros.npy", 0 * maps)
    result = run("compare", "zeros.npy", "a.npy", "--json")
    json.loads(result.stdout, parse_constant=pytest.fail)
    assert json.loads(result.stdout)[0]["items"]["0"]["relative L2"] is None


def test_what_explain_left_in_its_folder(run, explainer: Path):
    """Items by name where there are names, else in their order; classes where they are known."""
    np.save("x.npy", np.random.default_rng(0).normal(size=(12, 3, 8, 8)).astype(np.float32))
    flags = ("--format", "npy,hdf5", "-o")
    assert run("explain", explainer, "x.npy", "--target", "1", *flags, "out").exit_code == 0
    order = [11, *range(11)]
    with h5py.File("out/attribution.h5") as file, h5py.File("turned.h5", "w") as turned:
        np.save("maps.npy", file["attribution"][:])
        for name in ("attribution", "label", "item"):
            turned[name] = [file[name][:][place] for place in order]
    for other in ("out/attribution.h5", "turned.h5", "maps.npy"):
        result = run("compare", "out", other, "--tolerance", 0)
        assert result.exit_code == 0, result.output
        assert ("compared in their order" in result.stdout) == (other == "maps.npy")
    with h5py.File("turned.h5", "a") as turned:
        del turned["label"]
        turned["label"] = np.eye(12, 3)
    assert "different classes" not in run("compare", "out", "turned.h5").stdout
    as_npz = ("explain", explainer, "x.npy", "--target", 1, "--format", "npz", "-o", "z")
    assert run(*as_npz).exit_code == 0
    assert run("compare", "out", "z", "--tolerance", 0).exit_code == 0
    data = ("out", explainer, "--data", "x.npy")
    assert "different classes are explained for" in run("compare", *data).stdout
    same = run("compare", *data, "--target", 1, "--tolerance", 1e-5)
    assert same.exit_code == 0, same.output
    assert "different classes" not in same.stdout


def test_a_class_that_is_written_into_one_of_them(run, explainer: Path, model: Path):
    onnxlrp.convert(model, target=1).save(Path("one.onnx"))
    arguments = ("compare", explainer, "one.onnx", "--random", 5)
    assert "different classes are explained for" in run(*arguments).stdout
    same = run(*arguments, "--target", 1, "--tolerance", 1e-5)
    assert same.exit_code == 0, same.output
    assert "the class is written into" in run(*arguments, "--target", 2).stderr


def test_a_difference_of_classes(run, explainer: Path, model: Path, photo: Path):
    """Of a model, one that is written in, and one that takes weights; a class alone is refused."""
    onnxlrp.convert(model, target="2-0").save("written.onnx")
    onnxlrp.convert(model, target="weights").save("weighted.onnx")
    how = ("--data", photo, "--resize", "8x8", "--scale", "1/255", "--target", "2-0")
    result = run("compare", model, "written.onnx", "weighted.onnx", *how)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("the same explanation within") == 2
    refused = run("compare", model, explainer, *how)
    assert refused.exit_code == 1
    assert "convert with --target weights" in refused.stderr


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
    assert "a.npy holds 3 maps, b.npy 2" in run("compare", "a.npy", "b.npy").stderr
    np.save("none.npy", maps[:0])
    assert "none.npy holds no maps" in run("compare", "none.npy", "a.npy").stderr
    broken = maps.copy()
    broken[1, 0, 0, 0] = np.nan
    np.save("nan.npy", broken)
    line = run("compare", "a.npy", "nan.npy").stderr
    assert "a.npy, nan.npy: item 1: a map holds NaN or infinity" in line
    with h5py.File("group.h5", "w") as file:
        file.create_group("attribution")
    assert "no HDF5 file with an array" in run("compare", "a.npy", "group.h5").stderr
    np.save("c.npy", maps[..., :4])
    line = run("compare", "a.npy", "c.npy").stderr
    assert "maps of [2, 6, 5] and [2, 6, 4] cannot be compared" in line
    assert "--data FOLDER, or --random N" in run("compare", explainer, "a.npy").stderr
    Path("d.h5").write_bytes(b"no HDF5")
    assert "no HDF5 file with an array 'attribution'" in run("compare", "a.npy", "d.h5").stderr
    Path("empty").mkdir()
    assert (
        "is it a folder of `onnxlrp explain --format npy`?"
        in run("compare", "a.npy", "empty").stderr
    )


def panels_of(drawn: Image.Image, columns: int, size: tuple[int, int]) -> list[np.ndarray]:
    """Cut the panels of (width, height) out of a grid with one row."""
    return [
        np.asarray(drawn)[26 : 26 + size[1], 12 + column * (size[0] + 12) :][:, : size[0]]
        for column in range(columns)
    ]


def test_a_weak_map_is_drawn_as_clearly_as_a_strong_one(run, maps):
    """Maps on scales of their own look alike but for a factor; their difference tells it."""
    np.save("a.npy", maps[:1])
    np.save("b.npy", maps[:1] / 100)
    assert run("compare", "a.npy", "b.npy", "--plot", "p.png").exit_code == 0
    strong, weak, difference = panels_of(Image.open("p.png"), 3, (190, 228))
    expected = np.asarray(heatmap(maps[0]))
    for drawn in (strong, weak):
        np.testing.assert_array_equal(drawn, expected)
    apart = heatmap(-0.99 * maps[0], full=full_scale(maps[0]))
    assert np.abs(difference.astype(int) - np.asarray(apart)).max() <= 2


def test_maps_of_the_other_layout_are_drawn_alike(run):
    maps = np.random.default_rng(0).normal(size=(1, 3, 6, 5)).astype(np.float32)
    np.save("nchw.npy", maps)
    np.save("nhwc.npy", maps.transpose(0, 2, 3, 1))
    for name in ("nchw", "nhwc"):
        files = (f"{name}.npy", f"{name}.npy")
        assert run("compare", *files, "--plot", f"{name}.png").exit_code == 0
    one, other = (panels_of(Image.open(f"{name}.png"), 3, (190, 228)) for name in ("nchw", "nhwc"))
    np.testing.assert_array_equal(one, other)


def test_the_photograph_stands_beside_its_maps(run, explainer: Path, photo: Path, preprocessing):
    arguments = ("compare", explainer, explainer, "--data", photo, "--plot", "p.png")
    assert run(*arguments).exit_code == 0
    photograph, one, other, difference = panels_of(Image.open("p.png"), 4, (224, 224))
    shown = seen(preprocessing, Image.open(photo))
    np.testing.assert_array_equal(photograph, np.asarray(shown))
    np.testing.assert_array_equal(one, other)
    assert np.ptp(difference) < 10


def test_rows_are_compared_by_an_explainer_with_itself(run):
    """One path twice is no file of relevance, and rows have one axis."""
    body = [helper.make_node("MatMul", ["x", "w"], ["logits"], name="dense")]
    graph = helper.make_graph(
        body,
        "rows",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(4, 3), "w")],
    )
    opset = helper.make_opsetid("", 18)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), "rows.onnx")
    onnxlrp.convert("rows.onnx", "epsilon").save("e.onnx")
    np.save("rows.npy", np.eye(4, dtype=np.float32))
    result = run("compare", "e.onnx", "e.onnx", "--data", "rows.npy")
    assert result.exit_code == 0, result.output
    assert "e.onnx against e.onnx, 4 items" in result.stdout
    assert "the same explanation within 0.0e+00" in result.stdout


def test_the_file_of_one_item_is_one_map(run, explainer: Path, photo: Path):
    assert run("explain", explainer, photo, "-o", "out", "--format", "npy,hdf5").exit_code == 0
    result = run("compare", "out/attribution.h5", "out/photo.relevance.npy", "--tolerance", 1e-6)
    assert result.exit_code == 0, result.output
    assert "1 items" in result.stdout


def test_a_file_that_is_no_picture_is_named_once(run, explainer: Path):
    Path("broken.png").write_bytes(b"no picture")
    result = run("compare", explainer, explainer, "--data", "broken.png")
    assert (result.exit_code, result.stderr.count("broken.png")) == (1, 1)
