"""From a file to a model that can be walked, and what is refused on the way."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from support import close, explain, lines, model, node, normal, run

import onnxlrp
from onnxlrp.errors import ModelError
from onnxlrp.graph.loading import load

W = {"w": normal(6, 5, seed=1), "v": normal(5, 3, seed=3)}
BODY = [
    node("MatMul", ["x", "w"], "z"),
    node("Relu", ["z"], "a"),
    node("MatMul", ["a", "v"], "logits"),
]
X = normal(2, 6, seed=4)
NEWEST = max(version for domain, version in helper.OP_SET_ID_VERSION_MAP if domain == "ai.onnx")
NEWEST_RUN = 26


def small(opset=18):
    return model(BODY, {"x": ["N", 6]}, {"logits": ["N", 3]}, W, opset)


@pytest.mark.parametrize("opset", range(7, NEWEST + 1))
def test_every_opset(opset):
    """Lifted to 18 if older, left alone if newer."""
    explainer = onnxlrp.convert(small(opset), lines("*: epsilon")).to_proto()
    onnx.checker.check_model(explainer, full_check=True)
    written = {entry.domain: entry.version for entry in explainer.opset_import}
    assert written == {"": max(18, opset)}
    if opset > NEWEST_RUN:
        pytest.skip(f"onnxruntime runs no opset above {NEWEST_RUN}; converted and checked only")
    wanted = explain(small(18), lines("*: epsilon"), {"x": X})
    values = run(explainer, {"x": X, "target": np.array([-1])})
    np.testing.assert_array_equal(values["relevance"], wanted.values["relevance"])


def test_a_newer_opset_than_onnx_knows():
    proto = small()
    proto.opset_import[0].version = 99
    with pytest.raises(ModelError, match="upgrade onnx"):
        load(proto)


def test_the_lift_does_not_lose_large_weights():
    weights = {"w": normal(6, 900, seed=1), "v": normal(900, 3, seed=3)}
    proto = model(BODY, {"x": ["N", 6]}, ["logits"], weights, 9)
    lifted = load(proto).model.graph
    np.testing.assert_array_equal(lifted.initializers["w"].const_value.numpy(), weights["w"])
    assert [value.name for value in lifted.inputs] == ["x"]


def test_initializers_listed_as_inputs():
    """IR 3 lists every weight as an input."""
    proto = small(8)
    assert [value.name for value in proto.graph.input] == ["x", "w", "v"]
    assert [name for name, _, _ in onnxlrp.convert(proto).inputs] == ["x", "target"]


def test_weights_filled_by_constant_of_shape():
    shape = np.array([6, 5], np.int64)
    value = numpy_helper.from_array(np.array([0.5], np.float32))
    body = [node("ConstantOfShape", ["s"], "w", value=value), *BODY]
    proto = model(body, {"x": ["N", 6]}, ["logits"], {"s": shape, "v": W["v"]})
    weights = {"w": np.full((6, 5), 0.5, np.float32), "v": W["v"]}
    plain = model(BODY, {"x": ["N", 6]}, ["logits"], weights)
    maps = [explain(p, lines("*: epsilon"), {"x": X}).values["relevance"] for p in (proto, plain)]
    close(*maps, 1e-7)


def test_functions_are_inlined():
    function = helper.make_function(
        "test.functions",
        "Layer",
        ["i", "k"],
        ["o"],
        [helper.make_node("MatMul", ["i", "k"], ["m"]), helper.make_node("Relu", ["m"], ["o"])],
        [helper.make_opsetid("", 18)],
    )
    body = [
        helper.make_node("Layer", ["x", "w"], ["a"], domain="test.functions", name="layer"),
        node("MatMul", ["a", "v"], "logits"),
    ]
    graph = helper.make_graph(
        body,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(array, name) for name, array in W.items()],
    )
    proto = helper.make_model(
        graph,
        functions=[function],
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("test.functions", 1)],
        ir_version=8,
    )
    explained = explain(proto, lines("*: epsilon"), {"x": X})
    assert not explained.proto.functions
    wanted = explain(small(), lines("*: epsilon"), {"x": X})
    close(explained.values["relevance"], wanted.values["relevance"], 1e-7)


def test_external_data(tmp_path):
    """Weights stay in their file, and are found again wherever the explainer goes."""
    source, elsewhere = tmp_path / "source", tmp_path / "elsewhere"
    source.mkdir()
    elsewhere.mkdir()
    weights = {"w": normal(6, 500, seed=1), "v": normal(500, 3, seed=3)}
    proto = model(BODY, {"x": ["N", 6]}, ["logits"], weights)
    wanted = explain(proto, lines("*: epsilon"), {"x": X}).values["relevance"]
    onnx.save_model(
        proto, source / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0
    )
    conversion = onnxlrp.convert(source / "m.onnx", lines("*: epsilon"))
    feeds = {"x": X, "target": np.array([-1])}

    conversion.save(elsewhere / "embedded.onnx")
    close(run(onnx.load(elsewhere / "embedded.onnx"), feeds)["relevance"], wanted, 1e-7)
    conversion.save(elsewhere / "apart.onnx", external_data=True)
    assert sorted(file.name for file in elsewhere.iterdir()) == [
        "apart.onnx",
        "apart.onnx.data",
        "embedded.onnx",
    ]
    close(run(onnx.load(elsewhere / "apart.onnx"), feeds)["relevance"], wanted, 1e-7)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "m.data").unlink(), "m.data of 'w' is missing"),
        (lambda folder: (folder / "m.data").write_bytes(b"short"), "m.data is truncated"),
    ],
)
def test_damaged_external_data(tmp_path, damage, message):
    onnx.save_model(
        small(),
        tmp_path / "m.onnx",
        save_as_external_data=True,
        location="m.data",
        size_threshold=0,
    )
    damage(tmp_path)
    with pytest.raises(ModelError, match=message):
        load(tmp_path / "m.onnx")


def truncated(path):
    path.write_bytes(small().SerializeToString()[:-100])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.write_text("hello, I am no protobuf"), "not an ONNX model"),
        (lambda path: path.write_bytes(b""), "not an ONNX model"),
        (truncated, "truncated"),
        (lambda path: onnxlrp.convert(small()).save(path), "an explainer already"),
    ],
)
def test_what_is_no_model(tmp_path, write, message):
    write(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=message):
        load(tmp_path / "m.onnx")


def test_nodes_without_names_are_named_after_what_they_compute():
    proto = small()
    for entry in proto.graph.node:
        entry.name = ""
    assert [n.name for n in onnxlrp.convert(proto).nodes] == ["z", "a", "logits"]


def test_a_fixed_batch_can_be_freed():
    """The leading 1 of a Reshape is repaired, and inner shapes forgotten."""
    body = [
        node("Reshape", ["x", "s"], "r"),
        node("MatMul", ["r", "w"], "z"),
        node("MatMul", ["z", "v"], "logits"),
    ]
    weights = {**W, "s": np.array([1, 6], np.int64)}
    proto = model(body, {"x": [1, 2, 3]}, ["logits"], weights)
    explained = explain(proto, lines("*: epsilon"), {"x": X.reshape(2, 2, 3)}, dynamic_batch=True)
    assert explained.conversion.inputs[0][2][0] == "batch"
    for index in (0, 1):
        single = explain(proto, lines("*: epsilon"), {"x": X[index].reshape(1, 2, 3)})
        close(explained.values["relevance"][index : index + 1], single.values["relevance"], 1e-6)


def test_a_freed_batch_keeps_its_symbol_and_parameters_their_shape():
    """One constant may reshape a parameter, which has no batch, and the data."""
    body = [
        node("Reshape", ["bias", "s"], "b"),
        node("Reshape", ["x", "s"], "r"),
        node("Add", ["r", "b"], "z"),
        node("MatMul", ["z", "w"], "logits"),
    ]
    weights = {"w": W["w"], "bias": normal(2, 3), "s": np.array([1, 6], np.int64)}
    proto = model(body, {"x": ["samples", 2, 3]}, {"logits": ["samples", 5]}, weights)
    x = X.reshape(2, 2, 3)
    explained = explain(proto, lines("*: epsilon"), {"x": x}, dynamic_batch=True)
    assert explained.conversion.inputs[0][2] == ("samples", 2, 3)
    logits = (X + weights["bias"].reshape(1, 6)) @ weights["w"]
    close(explained.values["logits"], logits, 1e-6)


def test_a_freed_batch_takes_masks():
    """One number a sample, here in front of the second layer."""
    proto = model(BODY, {"x": [1, 6]}, {"logits": [1, 3]}, W)
    conversion = onnxlrp.convert(proto, lines("*: epsilon"), dynamic_batch=True, masks=["a"])
    feeds = {"x": X, "target": np.array([-1])}
    explainer = conversion.to_proto()
    whole, halved = (
        run(explainer, {**feeds, "mask_a": np.array([[1], [second]], np.float32)})["relevance"]
        for second in (1, 0.5)
    )
    close(halved, whole * np.array([[1], [0.5]]), 1e-6)


def test_a_freed_batch_of_a_model_with_a_table_for_a_shape():
    proto = model([node("MatMul", ["x", "w"], "logits")], {"x": [1, 6]}, ["logits"], {"w": W["w"]})
    proto.graph.node[0].op_type = "Reshape"
    with pytest.raises(ModelError, match="malformed"):
        load(proto, dynamic_batch=True)


def test_libraries_say_nothing_of_what_they_cannot_fold(caplog):
    """An LRN of a constant row, which onnxscript's folder logs, and Python prints."""
    body = [BODY[0], node("LRN", ["row"], "c", size=3), node("Add", ["z", "c"], "logits")]
    proto = model(body, {"x": ["N", 6]}, ["logits"], {"w": W["w"], "row": normal(5)})
    load(proto)
    assert not caplog.records


def test_a_batch_that_cannot_be_freed_is_refused():
    """For one sample the transpose and the reshape undo each other; for two they do not."""
    body = [
        node("Transpose", ["x"], "t", perm=[1, 0]),
        node("Reshape", ["t", "s"], "r"),
        node("MatMul", ["r", "w"], "z"),
        node("MatMul", ["z", "v"], "logits"),
    ]
    weights = {**W, "s": np.array([-1, 6], np.int64)}
    proto = model(body, {"x": [1, 6]}, ["logits"], weights)
    with pytest.raises(ModelError, match="mixes up the samples"):
        onnxlrp.convert(proto, lines("*: epsilon"), dynamic_batch=True)


def test_weights_are_mapped_and_not_loaded(tmp_path):
    weights = {"w": normal(6, 500, seed=1), "v": normal(500, 3, seed=3)}
    onnx.save_model(
        model(BODY, {"x": ["N", 6]}, ["logits"], weights),
        tmp_path / "m.onnx",
        save_as_external_data=True,
        location="m.data",
        size_threshold=0,
    )
    graph = load(tmp_path / "m.onnx").model.graph
    assert isinstance(graph.initializers["w"].const_value, ir.ExternalTensor)


def test_a_pooling_window_that_would_start_in_the_padding_does_not_count():
    """7 + 2 rows by twos are 4 windows, whatever onnx's shape inference says of ceil_mode."""
    pool = node(
        "MaxPool", ["x"], "p", kernel_shape=[2, 2], strides=[2, 2], pads=[1] * 4, ceil_mode=1
    )
    body = [pool, node("GlobalAveragePool", ["p"], "g"), node("Flatten", ["g"], "logits")]
    proto = model(body, {"x": ["N", 3, 7, 7]}, ["logits"], {})
    x = np.abs(normal(2, 3, 7, 7))
    explained = explain(proto, "epsilon", {"x": x}, inside=["p"])
    assert explained.relevance("p").shape == (2, 3, 4, 4)
    np.testing.assert_array_equal(explained.values["logits"], run(proto, {"x": x})["logits"])


@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool"])
def test_one_axis_may_gain_a_window_and_another_not(operator, tmp_path):
    """7 + 2 rows by twos are 4 windows of 2; 8 + 2 columns by twos are 5 windows of 3, not 4."""
    pool = node(
        operator, ["x"], "p", kernel_shape=[2, 3], strides=[2, 2], pads=[1] * 4, ceil_mode=1
    )
    body = [pool, node("GlobalAveragePool", ["p"], "g"), node("Flatten", ["g"], "logits")]
    proto = model(body, {"x": ["N", 3, 7, 8]}, ["logits"], {})
    x = np.abs(normal(2, 3, 7, 8))
    explained = explain(proto, "epsilon", {"x": x}, inside=["p"])
    assert explained.relevance("p").shape == (2, 3, 4, 5)
    np.testing.assert_allclose(explained.values["logits"], run(proto, {"x": x})["logits"], 1e-6)
    explained.conversion.save(tmp_path / "e.onnx")


@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool"])
def test_padding_that_is_not_read_does_not_count(operator):
    """With auto_pad VALID, one row of windows of 1 by 2, and (9 - 2) / 4 + 1 = 3 in it, rounded."""
    pool = node(
        operator,
        ["x"],
        "p",
        kernel_shape=[1, 2],
        strides=[3, 4],
        auto_pad="VALID",
        ceil_mode=1,
    )
    body = [pool, node("GlobalAveragePool", ["p"], "g"), node("Flatten", ["g"], "logits")]
    proto = model(body, {"x": ["N", 3, 3, 9]}, ["logits"], {})
    x = np.abs(normal(2, 3, 3, 9))
    explained = explain(proto, "epsilon", {"x": x}, inside=["p"])
    assert explained.relevance("p").shape == (2, 3, 1, 3)
    np.testing.assert_allclose(explained.values["logits"], run(proto, {"x": x})["logits"], 1e-6)


def test_the_model_is_never_overwritten(tmp_path, monkeypatch):
    onnx.save(small(), tmp_path / "m.onnx")
    monkeypatch.chdir(tmp_path)
    conversion = onnxlrp.convert("m.onnx", "epsilon")
    with pytest.raises(onnxlrp.InputError, match="is the model itself"):
        conversion.save(tmp_path / "m.onnx")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        conversion.save(tmp_path / "nowhere/e.onnx")
    assert onnx.load(tmp_path / "m.onnx") == small()


def test_constants_too_large_to_hold_are_not_written_out():
    """2^40 zeros, of which the model reads the sum of none."""
    body = [
        node("ConstantOfShape", ["sizes"], "zeros"),
        node("Shape", ["zeros"], "shape", start=0, end=1),
        node("Cast", ["shape"], "many", to=TensorProto.FLOAT),
        node("Mul", ["x", "many"], "y"),
        node("MatMul", ["y", "w"], "logits"),
    ]
    weights = {"w": W["w"], "sizes": np.array([1 << 40], np.int64)}
    loaded = load(model(body, {"x": ["N", 6]}, ["logits"], weights)).model
    largest = max(value.const_value.size for value in loaded.graph.initializers.values())
    assert largest <= 30
