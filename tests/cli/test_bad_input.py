"""What users get wrong, at the command: one line that names it, status 1, nothing written."""

import csv
import os
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


@pytest.fixture
def refused(run):
    """Converts with the options given; returns the line that says why it cannot be done."""

    def convert(model: str = "model.onnx", *options: str) -> str:
        result = run("convert", model, "explainer.onnx", *options)
        assert result.exit_code == 1, result.output
        assert result.stdout == ""
        assert re.fullmatch(r"Error: [^\n]+\n", result.stderr)
        assert not Path("explainer.onnx").exists()
        assert not list(Path().glob(".*"))
        return result.stderr

    return convert


def save(nodes, inputs, outputs, initializers=()) -> None:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initializers)
    opset = helper.make_opsetid("", 18)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), "model.onnx")


def value(name: str, *shape: int | str, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


@pytest.mark.parametrize("content", [b"", b"no protobuf", b"\x00" * 1000])
def test_no_protobuf(refused, content):
    Path("model.onnx").write_bytes(content)
    assert "model.onnx is not an ONNX model" in refused()


def test_a_model_cut_short(refused, model):
    model.write_bytes(model.read_bytes()[:300])
    assert "model.onnx is not an ONNX model, or it is truncated" in refused()


def test_no_file_and_a_folder(refused):
    assert "model.onnx does not exist" in refused()
    Path("model.onnx").mkdir()
    assert "model.onnx is a folder" in refused()


def test_external_data_missing(refused, classifier):
    onnx.save(
        classifier(), "model.onnx", save_as_external_data=True, location="weights", size_threshold=0
    )
    Path("weights").unlink()
    assert "external data file weights" in refused()


def test_external_data_outside_of_the_models_folder(refused, classifier):
    model = classifier()
    Path("weights").write_bytes(bytes(10_000))
    Path("inner").mkdir()
    onnx.save(model, "inner/model.onnx", save_as_external_data=True, location="w", size_threshold=0)
    model = onnx.load("inner/model.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        tensor.external_data[0].value = "../weights"
    Path("inner/model.onnx").write_bytes(model.SerializeToString())
    assert "outside the model's folder" in refused("inner/model.onnx")


def test_no_input_that_looks_like_an_image(refused):
    save(
        [helper.make_node("Gather", ["table", "word"], ["logits"])],
        [value("word", "N", dtype=TensorProto.INT64)],
        [value("logits", "N", 3)],
        [numpy_helper.from_array(np.ones((5, 3), np.float32), "table")],
    )
    assert "input" in refused()


def test_no_output_with_classes(refused):
    save(
        [helper.make_node("Relu", ["image"], ["sharp"])],
        [value("image", "N", 3, 8, 8)],
        [value("sharp", "N", 3, 8, 8)],
    )
    assert "output" in refused()


@pytest.mark.parametrize("wrong", [{"bias": 0.0}, {"alpha": -1.0}, {"beta": -0.5}])
def test_lrn_whose_taylor_expansion_is_not_defined(run, wrong):
    save(
        [
            helper.make_node("LRN", ["image"], ["normal"], name="norm1", size=3, **wrong),
            helper.make_node("Flatten", ["normal"], ["flat"]),
            helper.make_node("Gemm", ["flat", "matrix"], ["logits"]),
        ],
        [value("image", 1, 3, 2, 2)],
        [value("logits", 1, 3)],
        [numpy_helper.from_array(np.ones((12, 3), np.float32), "matrix")],
    )
    result = run("convert", "model.onnx", "explainer.onnx")
    assert result.exit_code == 1
    assert "norm1 (LRN" in result.stderr
    assert next(iter(wrong)) in result.stderr
    assert not Path("explainer.onnx").exists()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[[rules]]\nrule = 'epsilon'\noperator = ['Conv']\n", 3),
        ("[[rules]]\noperators = 'Conv'\nrule = 'epsilon'\n", 2),
        ("[[rules]]\nrule = 'epsilom'\n", 2),
        ("[parameters]\nepsilon = 'small'\n\n[[rules]]\nrule = 'epsilon'\n", 2),
        ("[[rules]\n", 1),
    ],
)
def test_a_composite_with_a_mistake_names_file_and_line(refused, model, text, line):
    Path("mine.toml").write_text(text)
    assert re.search(
        rf"mine\.toml.*(:|line ){line}\b", refused("model.onnx", "--composite", "mine.toml")
    )


def test_a_composite_that_leaves_a_node_without_a_rule(refused, model):
    Path("mine.toml").write_text("[[rules]]\noperators = ['Conv']\nrule = 'epsilon'\n")
    assert re.search("pool|classify", refused("model.onnx", "--composite", "mine.toml"))


def test_a_composite_nobody_knows_is_answered_with_those_that_ship(refused, model):
    assert "epsilon_plus_flat" in refused("model.onnx", "--composite", "epsilom")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--target", "3-99"), "target 99 is not a class; 'y' has classes 0 to 3"),
        (("--target", "2-2"), "does not differ from itself"),
        (("--target", "weights", "--contrast", "others"), "a contrast is of one class"),
        (("--at", "0,0"), "a classifier has no places, leave it out; outputs: y float[N, 4]"),
        (("--class-axis", "1"), "add --at"),
    ],
)
def test_what_a_classifier_does_not_explain(refused, options, text):
    weight = numpy_helper.from_array(np.ones((3, 4), np.float32), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="dense")]
    save(nodes, [value("x", "N", 3)], [value("y", "N", 4)], [weight])
    assert text in refused("model.onnx", *options)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ((), "`convert` has to know where the score is: --at 0,0 is one place"),
        (("--at", "8,0"), "'8' is no index and no range FIRST:END within axis 2 of [N, 4, 8, 8]"),
        (("--at", "0"), "write an index or a range for each of 2 axes, as in --at 0,0, or all"),
        (("--at", "0,0", "--class-axis", "7"), "--class-axis 7 is no axis of [N, 4, 8, 8]"),
    ],
)
def test_where_a_dense_output_is_not_explained(refused, options, text):
    weight = numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="conv")]
    save(nodes, [value("x", "N", 3, 8, 8)], [value("y", "N", 4, 8, 8)], [weight])
    assert text in refused("model.onnx", *options)


@pytest.fixture
def odd_name(photo) -> Path:
    """A picture whose name is no UTF-8."""
    path = Path(os.fsdecode(b"odd\xff.png"))
    try:
        path.write_bytes(photo.read_bytes())
    except OSError:
        pytest.skip("this file system takes no such name")
    return path


def test_names_that_are_no_text_are_written_out(run, model, explainer, odd_name):
    result = run("explain", explainer, odd_name, "-o", "out")
    assert result.exit_code == 0, result.output
    (row,) = csv.DictReader(Path("out/results.csv").read_text("utf-8").splitlines())
    assert row["source"].endswith(r"odd\udcff.png")
    known = ["--preprocess", "imagenet", "--resize", "8x8"]
    result = run(
        "convert", model, "e.onnx", "--composite", "epsilon", "--reference", odd_name, *known
    )
    assert result.exit_code == 0, result.output
    stored = {entry.key: entry.value for entry in onnx.load("e.onnx").metadata_props}
    assert stored["onnxlrp.reference"] == r"odd\xff.png"


def test_a_number_where_arrays_are_wanted(run, model, photo):
    np.save("one.npy", np.float32(3))
    asked = ["evaluate", model, "--data", photo, "--preprocess", "imagenet", "--resize", "8x8"]
    for option, noun in (("--maps", "maps"), ("--masks", "masks")):
        file = "one.npy" if option == "--masks" else "theirs=one.npy"
        told = run(*asked, "--composite", "epsilon", option, file, "-o", "out").stderr
        assert told.endswith(f"one.npy holds one number, not {noun} for 1 pictures\n")


def test_arrays_that_cannot_be_read_are_told_without_words_of_numpy(run, model, explainer):
    np.save("objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    told = run("check", model, explainer, "--inputs", "objects.npy").stderr
    assert told == "Error: objects.npy is not a readable array, .npy or .npz\n"


def test_tables_where_none_are_read(run, model, explainer):
    """Said of the table, not of a picture that it is not."""
    Path("data.csv").write_text("a,b\n1,2\n")
    told = run("compare", explainer, explainer, "--data", "data.csv").stderr
    assert told.startswith("Error: data.csv is a table, and compare runs on pictures and arrays: ")
    told = run("sheet", model, "data.csv", "--composite", "epsilon", "-o", "s.png").stderr
    assert told.startswith("Error: data.csv is a table, and a sheet is of pictures, or of texts")
    Path("names.txt").write_text("\n")
    told = run("convert", model, "e.onnx", "--features", "names.txt").stderr
    assert told == "Error: names.txt names no feature\n"
