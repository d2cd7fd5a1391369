"""The explainers here are written by hand: logits = W x, relevance = x * W[target]."""

import json
import os
import re
import sys
import types
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support import model, node

import onnxlrp
from onnxlrp.errors import DeviceError, InputError, ModelError
from onnxlrp.inputs.preprocessing import Preprocessing
from onnxlrp.inputs.presets import PRESETS
from onnxlrp.running.contract import Contract
from onnxlrp.running.explainer import Explainer

WEIGHT = np.array([[1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 3, -1]], dtype=np.float32)
"""[classes, pixels] of a network on pictures of 1 x 2 x 2."""

METADATA = {
    "version": "0.1.0",
    "composite": "name = 'by hand'",
    "model_sha256": "0" * 64,
    "score": "logits",
    "output": "logits",
    "target": "",
    "target_input": "target",
    "relevance": json.dumps({"image": "relevance"}),
    "intermediates": "{}",
}


def explainer(
    metadata: dict[str, str] | None = None, batch: int | str = "N", probability: bool = False
) -> bytes:
    """Write one; with `probability` the model's output is the softmax, not the logits."""
    own = "probability" if probability else "logits"
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight"], ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], ["probability"]),
        helper.make_node("ArgMax", ["logits"], ["top"], axis=1, keepdims=0),
        helper.make_node("Less", ["target", "zero"], ["unset"]),
        helper.make_node("Where", ["unset", "top", "target"], ["class"]),
        helper.make_node("Gather", ["weight", "class"], ["row"]),
        helper.make_node("Mul", ["flat", "row"], ["product"]),
        helper.make_node("Shape", ["image"], ["shape"]),
        helper.make_node("Reshape", ["product", "shape"], ["relevance"]),
    ]
    stored = METADATA if metadata is None else metadata
    inputs = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 1, 2, 2]),
        helper.make_tensor_value_info("target", TensorProto.INT64, ["targets"]),
    ]
    initializers = [
        numpy_helper.from_array(WEIGHT, "weight"),
        numpy_helper.from_array(np.array(0, dtype=np.int64), "zero"),
    ]
    if not stored.get("target_input", "target"):
        inputs.pop()
        baked = -1 if stored["target"] == "top" else int(stored["target"])
        initializers.append(numpy_helper.from_array(np.array([baked]), "target"))
    graph = helper.make_graph(
        nodes,
        "by_hand",
        inputs,
        [
            helper.make_tensor_value_info(own, TensorProto.FLOAT, [batch, 3]),
            helper.make_tensor_value_info("relevance", TensorProto.FLOAT, [batch, 1, 2, 2]),
        ],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {f"onnxlrp.{key}": text for key, text in stored.items()})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def images(*rows: list[float]) -> np.ndarray:
    return np.array(rows, dtype=np.float32).reshape(-1, 1, 2, 2)


def test_by_default_the_top_class_is_explained():
    explanation = Explainer(explainer())(images([1, 1, 1, 1], [9, 1, 1, 1]))
    np.testing.assert_array_equal(explanation.outputs["logits"], [[1, 2, 2], [9, 2, 2]])
    np.testing.assert_array_equal(explanation.target, [1, 0])
    assert explanation.target.dtype == np.int64
    np.testing.assert_array_equal(explanation.score, [2, 9])
    assert explanation.relevance.shape == (2, 1, 2, 2)
    np.testing.assert_array_equal(explanation.relevance[0].ravel(), [0, 2, 0, 0])
    np.testing.assert_array_equal(explanation.relevance[1].ravel(), [9, 0, 0, 0])


def test_one_class_for_all_pictures():
    explanation = Explainer(explainer())(images([1, 1, 1, 1], [9, 1, 1, 5]), target=2)
    np.testing.assert_array_equal(explanation.target, [2, 2])
    np.testing.assert_array_equal(explanation.score, [2, -2])
    np.testing.assert_array_equal(explanation.relevance[1].ravel(), [0, 0, 3, -5])


@pytest.mark.parametrize("target", [[0, -1], (0, -1), np.array([0, -1], dtype=np.int32)])
def test_a_class_for_each_picture(target):
    explanation = Explainer(explainer())(images([1, 1, 1, 1], [1, 9, 1, 1]), target=target)
    np.testing.assert_array_equal(explanation.target, [0, 1])
    np.testing.assert_array_equal(explanation.score, [1, 18])


def test_only_the_models_own_outputs_are_its_outputs():
    assert list(Explainer(explainer())(images([1, 1, 1, 1])).outputs) == ["logits"]


def test_the_inputs_are_named_with_type_and_shape():
    run = Explainer(explainer())
    assert {name: str(value) for name, value in run.inputs.items()} == {
        "image": "float32 [N, 1, 2, 2]"
    }
    assert run.classes == 3


def test_a_size_without_a_name_is_a_question_mark():
    proto = model(
        [node("MatMul", ["x", "w"], "y")], {"x": [None, 2]}, ["y"], {"w": np.ones((2, 3), "f4")}
    )
    run = Explainer(onnxlrp.convert(proto, "epsilon").to_proto().SerializeToString())
    assert str(run.inputs["x"]) == "float32 [?, 2]"


def test_behind_a_softmax_the_score_is_the_probability():
    metadata = METADATA | {"output": "probability"}
    run = Explainer(explainer(metadata, probability=True))
    explanation = run(images([1, 1, 0, 0]))
    assert not run.score_is_output
    np.testing.assert_array_equal(explanation.target, [1])
    np.testing.assert_allclose(explanation.score, np.exp(2) / (np.exp(1) + np.exp(2) + 1))


def test_it_says_what_it_takes():
    assert repr(Explainer(explainer())).startswith("Explainer(image float32 [")
    assert repr(Explainer(explainer())).endswith("-> relevance of 'logits', 3 classes)")


def test_a_path_works_as_well_as_bytes(tmp_path: Path):
    path = tmp_path / "explainer.onnx"
    path.write_bytes(explainer())
    for given in (path, os.fspath(path)):
        assert Explainer(given, threads=1)(images([1, 1, 1, 1])).target == [1]


def test_the_stored_preprocessing_is_found():
    stored = Explainer(explainer(METADATA | {"preprocessing": PRESETS["imagenet-caffe"].to_json()}))
    assert stored.preprocessing == PRESETS["imagenet-caffe"]
    assert Explainer(explainer()).preprocessing is None


def test_a_class_written_into_the_file():
    run = Explainer(explainer(METADATA | {"target": "2", "target_input": ""}))
    explanation = run(images([1, 1, 1, 3], [1, 1, 1, 1]))
    np.testing.assert_array_equal(explanation.target, [2, 2])
    np.testing.assert_array_equal(explanation.score, [0, 2])
    with pytest.raises(InputError, match="written into this explainer \\(2\\)"):
        run(images([1, 1, 1, 1]), target=1)


def test_the_top_class_written_into_the_file():
    run = Explainer(explainer(METADATA | {"target": "top", "target_input": ""}))
    np.testing.assert_array_equal(run(images([1, 0, 0, 0], [0, 1, 0, 0])).target, [0, 1])


def two_inputs() -> bytes:
    """An explainer of the sum of `left` and `right`, each explained, with one value inside."""
    nodes = [
        helper.make_node("Add", ["left", "right"], ["logits"]),
        helper.make_node("Identity", ["left"], ["relevance_left"]),
        helper.make_node("Identity", ["right"], ["relevance_right"]),
        helper.make_node("Identity", ["logits"], ["onnxlrp/relevance/logits"]),
        helper.make_node("Identity", ["target"], ["ignored"]),
    ]

    def value(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1])

    outputs = ["logits", "relevance_left", "relevance_right", "onnxlrp/relevance/logits"]
    graph = helper.make_graph(
        nodes,
        "two_inputs",
        [
            value("left"),
            value("right"),
            helper.make_tensor_value_info("target", TensorProto.INT64, ["N"]),
        ],
        [value(name) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    stored = METADATA | {
        "relevance": json.dumps({"left": "relevance_left", "right": "relevance_right"}),
        "intermediates": json.dumps({"logits": "onnxlrp/relevance/logits"}),
    }
    helper.set_model_props(model, {f"onnxlrp.{key}": text for key, text in stored.items()})
    return model.SerializeToString()


def test_several_inputs_are_a_mapping_and_so_is_their_relevance():
    column = np.array([[1.0], [2.0]], dtype=np.float32)
    explanation = Explainer(two_inputs())({"left": column, "right": 10 * column})
    assert list(explanation.relevance) == ["left", "right"]
    np.testing.assert_array_equal(explanation.relevance["right"], 10 * column)
    np.testing.assert_array_equal(explanation.score, [11, 22])
    np.testing.assert_array_equal(explanation.intermediates["logits"], 11 * column)
    assert list(explanation.outputs) == ["logits"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (images([1, 1, 1, 1]), "several inputs: give a mapping of 'left', 'right'"),
        (
            {"left": np.zeros((1, 1), np.float32)},
            "input 'right' is missing: it takes float32 [N, 1]",
        ),
        ({"up": np.zeros(1)}, "no input 'up', only 'left', 'right'"),
    ],
)
def test_missing_and_unknown_inputs_are_named(given, message):
    with pytest.raises(InputError, match=re.escape(message)):
        Explainer(two_inputs())(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (images([1, 1, 1, 1]).astype(np.float64), "not float64 [1, 1, 2, 2]"),
        (images([1, 1, 1, 1]).astype(np.uint8), "not uint8 [1, 1, 2, 2]"),
        (images([1, 1, 1, 1])[0], "not float32 [1, 2, 2]"),
        (np.zeros((2, 3, 2, 2), np.float32), "not float32 [2, 3, 2, 2]"),
    ],
)
def test_an_array_that_does_not_fit_is_told_what_was_expected(given, message):
    expected = "input 'image' takes float32 [N, 1, 2, 2], "
    with pytest.raises(InputError, match=re.escape(expected + message)):
        Explainer(explainer())(given)


def test_a_fixed_batch_stays_fixed():
    with pytest.raises(InputError, match=re.escape("takes float32 [1, 1, 2, 2], not float32 [2,")):
        Explainer(explainer(batch=1))(images([1, 1, 1, 1], [1, 1, 1, 1]))


def test_a_list_is_not_an_array():
    with pytest.raises(InputError, match="takes a numpy array, not list"):
        Explainer(explainer())({"image": [1, 2]})


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (3, "3 is not a class: the model's are 0 to 2"),
        ([0, 7], "7 is not a class"),
        (-2, "-2 is not a class: -1 is the top class"),
        (0.5, "a class number, or one for each of the 2 inputs, not 0.5"),
        (True, "not True"),
        ([0, 1, 2], "one for each of the 2 inputs, not [0, 1, 2]"),
        ([[0, 1]], "one for each of the 2 inputs"),
    ],
)
def test_targets_that_are_no_class(target, message):
    with pytest.raises(InputError, match=re.escape(message)):
        Explainer(explainer())(images([1, 1, 1, 1], [1, 1, 1, 1]), target=target)


def test_a_plain_model_is_refused_with_what_to_do():
    with pytest.raises(ModelError, match="not an explainer: make one with `onnxlrp convert"):
        Explainer(explainer(metadata={}))


def test_damaged_metadata_are_refused():
    damaged = METADATA | {"intermediates": "{"}
    with pytest.raises(ModelError, match="metadata are damaged"):
        Explainer(explainer(damaged))
    damaged.pop("intermediates")
    with pytest.raises(ModelError, match="intermediates"):
        Contract.read({f"onnxlrp.{key}": text for key, text in damaged.items()})


def test_a_file_that_is_no_model(tmp_path: Path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(explainer()[:100])
    with pytest.raises(ModelError, match=r"cannot load .*broken\.onnx") as caught:
        Explainer(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="no such file"):
        Explainer(tmp_path / "missing.onnx")


def test_a_failing_run_is_one_line():
    model = onnx.load_from_string(explainer())
    # A symbolic channel axis lets an array through that the weights do not fit.
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "C"
    with pytest.raises(InputError, match="onnxruntime failed") as caught:
        Explainer(model.SerializeToString())(np.zeros((1, 2, 2, 2), np.float32))
    assert "\n" not in str(caught.value)


def fake_onnxruntime(monkeypatch: pytest.MonkeyPatch, module: types.ModuleType | None) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", module)


def test_without_onnxruntime_both_install_lines_are_told(monkeypatch: pytest.MonkeyPatch):
    fake_onnxruntime(monkeypatch, None)
    with pytest.raises(
        DeviceError, match=r"pip install onnxruntime-gpu .* pip install onnxruntime "
    ):
        Explainer(explainer())


def test_an_onnxruntime_whose_files_are_gone(monkeypatch: pytest.MonkeyPatch):
    fake_onnxruntime(monkeypatch, types.ModuleType("onnxruntime"))
    with pytest.raises(DeviceError, match="damaged: uninstall"):
        Explainer(explainer())


def test_an_onnxruntime_built_without_cuda(monkeypatch: pytest.MonkeyPatch):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(DeviceError, match="built without CUDA"):
        Explainer(explainer(), device="cuda")


def test_an_onnxruntime_that_falls_back_to_the_cpu(monkeypatch: pytest.MonkeyPatch):
    import onnxruntime

    class FallenBack(onnxruntime.InferenceSession):
        def get_providers(self):
            return ["CPUExecutionProvider"]

    available = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    monkeypatch.setattr(onnxruntime, "InferenceSession", FallenBack)
    with pytest.raises(DeviceError, match="could not start CUDA"):
        Explainer(explainer(), device="cuda")


def test_an_unknown_device():
    with pytest.raises(DeviceError, match="cpu or cuda, not 'tpu'"):
        Explainer(explainer(), device="tpu")


def test_preprocessing_feeds_the_explainer():
    from PIL import Image

    preprocessing = Preprocessing(channels="grey", resize=(2, 2))
    batch = preprocessing(Image.new("L", (2, 2), 3))[None]
    np.testing.assert_array_equal(Explainer(explainer())(batch).score, [6])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_arrays_with_nan_or_infinity_are_refused(value):
    x = images([1, 2, 3, 4])
    x.flat[0] = value
    with pytest.raises(InputError, match="NaN or infinity"):
        Explainer(explainer())(x)
    with pytest.raises(InputError, match="empty"):
        Explainer(explainer())(x[:0])
