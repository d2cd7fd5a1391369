"""Nothing is written that is not valid or does not load."""

import sys

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper
from support import lines, model, node, normal, run

import onnxlrp
from onnxlrp.cli import main
from onnxlrp.errors import ModelError

EPSILON = lines("*: epsilon")


def dense():
    body = [node("MatMul", ["x", "w"], "z"), node("MatMul", ["z", "v"], "logits")]
    return model(body, {"x": ["N", 7]}, ["logits"], {"w": normal(7, 5), "v": normal(5, 3)})


def own_operator():
    """Compute a second output that only another runtime knows how to compute."""
    proto = dense()
    proto.graph.node.append(helper.make_node("Own", ["x"], ["more"], domain="own", name="own"))
    proto.graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, ["N", 7, 7]))
    proto.opset_import.append(helper.make_opsetid("own", 1))
    return proto


@pytest.mark.parametrize("external", [False, True])
def test_what_is_not_valid_is_not_written(tmp_path, external):
    """Here a product is broken by hand: 7 features by a matrix of 5."""
    conversion = onnxlrp.convert(dense(), EPSILON)
    graph = conversion.model.graph
    graph.node("node_z").replace_input_with(1, graph.initializers["v"])
    with pytest.raises(ModelError, match="would not be valid, and is not written"):
        conversion.save(tmp_path / "e.onnx", external_data=external)
    assert list(tmp_path.iterdir()) == []


def test_what_onnxruntime_cannot_load_is_written_on_demand(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(own_operator(), "m.onnx")
    arguments = ["convert", "m.onnx", "e.onnx", "--composite", "epsilon"]
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 1
    assert "onnxruntime cannot load the explainer" in refused.stderr
    assert "--no-load-check" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    assert CliRunner().invoke(main, [*arguments, "--no-load-check"]).exit_code == 0
    assert {output.name for output in onnx.load("e.onnx").graph.output} >= {"more", "relevance"}


def test_without_onnxruntime_it_is_written_and_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    onnx.save(dense(), "m.onnx")
    told = CliRunner().invoke(main, ["convert", "m.onnx", "e.onnx", "--composite", "epsilon"])
    assert told.exit_code == 0
    assert "onnxruntime is not installed: that the explainer loads is not checked" in told.stderr
    onnx.checker.check_model("e.onnx", full_check=True)


@pytest.mark.parametrize("external", [False, True])
def test_what_loads_is_written(tmp_path, external):
    assert onnxlrp.convert(dense(), EPSILON).save(tmp_path / "e.onnx", external_data=external)
    assert (tmp_path / "e.onnx").exists()


def test_names_as_an_explainer_has_them(tmp_path):
    """Values of the model may be called what the emitted ones would be."""
    proto = dense()
    plain = onnxlrp.convert(proto, EPSILON)
    emitted = [output for entry in plain.to_proto().graph.node for output in entry.output]
    clash = next(name for name in emitted if name.startswith("onnxlrp/") and "start" in name)
    renamed = onnx.ModelProto.FromString(proto.SerializeToString())
    renamed.graph.node[0].output[0] = renamed.graph.node[1].input[0] = clash
    del renamed.graph.value_info[:]
    conversion = onnxlrp.convert(renamed, EPSILON)
    conversion.save(tmp_path / "e.onnx")
    feeds = {"x": normal(2, 7), "target": np.array([-1])}
    np.testing.assert_array_equal(
        run(onnx.load(tmp_path / "e.onnx"), feeds)["relevance"],
        run(plain.to_proto(), feeds)["relevance"],
    )
