"""A file holds what the model does, and nobody holds its weights for that."""

import os
import re
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from support import lines, model, node, normal

import onnxlrp
from onnxlrp.errors import ModelError

EPSILON = lines("*: epsilon")


def mixed():
    """Large weights of several types: as bytes, as numbers, and beside small ones."""
    nodes = [
        node("MatMul", ["x", "w"], "z"),
        node("Cast", ["v"], "v32", to=TensorProto.FLOAT),
        node("MatMul", ["z", "v32"], "y"),
        node("Gather", ["u", "i"], "picked", axis=1),
        node("MatMul", ["y", "picked"], "logits"),
    ]
    weights = {"w": normal(30, 50), "v": normal(50, 40).astype(np.float16), "u": normal(40, 35)}
    proto = model(nodes, {"x": ["N", 30]}, ["logits"], weights | {"i": np.arange(7)})
    for tensor in proto.graph.initializer:
        if tensor.name == "u":
            array = numpy_helper.to_array(tensor)
            tensor.CopyFrom(helper.make_tensor("u", TensorProto.FLOAT, array.shape, array.ravel()))
    return proto


@pytest.mark.parametrize("outside", [False, True])
def test_a_file_holds_the_explainer(tmp_path, outside):
    """Whether its weights came as numbers, bytes, or from a file beside the model."""
    proto = mixed()
    options = {"save_as_external_data": True, "location": "m.data", "size_threshold": 0}
    onnx.save(proto, tmp_path / "m.onnx", **(options if outside else {}))
    conversion = onnxlrp.convert(tmp_path / "m.onnx", EPSILON)
    assert conversion.save(tmp_path / "e.onnx")
    assert {path.name for path in tmp_path.iterdir()} <= {"m.onnx", "m.data", "e.onnx"}
    found, wanted = onnx.load(tmp_path / "e.onnx"), conversion.to_proto()
    tensors = [
        {t.name: numpy_helper.to_array(t) for t in of.graph.initializer} for of in (found, wanted)
    ]
    assert sum(array.size > 1024 for array in tensors[0].values()) >= 2
    assert tensors[0].keys() == tensors[1].keys()
    for name, array in tensors[0].items():
        np.testing.assert_array_equal(array, tensors[1][name])
        assert array.dtype == tensors[1][name].dtype
    for of in (found, wanted):
        del of.graph.initializer[:]
    assert found == wanted
    x, target = normal(2, 30), np.array([3, 6])
    logits, relevance = ort.InferenceSession(tmp_path / "e.onnx").run(
        ["logits", "relevance"], {"x": x, "target": target}
    )
    np.testing.assert_allclose(relevance.sum(1), logits[[0, 1], target], rtol=1e-3)


def vast(folder, rows):
    """Write a model whose weights beside it are zeros that take no place on the disk."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[rows, 1 << 14])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="m.data")
    graph = helper.make_graph(
        [node("Gemm", ["x", "w"], "z"), node("Relu", ["z"], "a"), node("Gemm", ["a", "v"], "y")],
        "vast",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", rows])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [tensor, numpy_helper.from_array(normal(1 << 14, 3), "v")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    with (folder / "m.data").open("wb") as data:
        data.truncate(rows << 16)
    return folder / "m.onnx"


def in_memory(file):
    """Return how much of a file this process has in its memory, in kB."""
    maps = Path("/proc/self/smaps").read_text()
    sizes = re.findall(rf"{re.escape(str(file))}\n(?:\w+: .*\n)*?Rss: +(\d+) kB", maps)
    return sum(map(int, sizes))


def test_more_than_a_protobuf_holds(tmp_path):
    conversion = onnxlrp.convert(vast(tmp_path, 1 << 15), EPSILON)
    with pytest.raises(ModelError, match=r"larger than 2 GB; write it with --external-data"):
        conversion.save(tmp_path / "e.onnx")
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "m.data"}


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel what is in memory")
@pytest.mark.parametrize("composite", ["epsilon", "epsilon_plus_flat", "epsilon_alpha2_beta1"])
def test_weights_beside_a_model_are_not_read(tmp_path, composite):
    """No page of the file is ever in memory: what was mapped of it, if anything, stays out."""
    conversion = onnxlrp.convert(vast(tmp_path, 1 << 10), composite)
    assert in_memory(tmp_path / "m.data") == 0
    weights = conversion.model.graph.initializers["w"].const_value
    assert weights is not None
    assert weights.numpy().max() == 0
    assert in_memory(tmp_path / "m.data") >= 1 << 16


def explained(path: Path) -> list:
    """What an explainer, read anew, makes of a sample."""
    feeds = {"x": normal(2, 30), "target": np.array([3, 6])}
    return ort.InferenceSession(str(path)).run(None, feeds)


def test_replacing_an_explainer_removes_the_weights_it_had_beside_it(tmp_path):
    """Again with external data their file has another name; without there is none."""
    conversion, path = onnxlrp.convert(mixed(), EPSILON), tmp_path / "e.onnx"
    wanted = None
    for external, beside in [
        (True, {"e.onnx.data"}),
        (True, {"e.onnx.2.data"}),
        (True, {"e.onnx.data"}),
        (False, set()),
        (False, set()),
    ]:
        conversion.save(path, external_data=external)
        assert {file.name for file in tmp_path.iterdir()} == {"e.onnx"} | beside
        found = explained(path)
        wanted = wanted or found
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("external", [True, False])
def test_files_of_others_stay(tmp_path, external):
    """Of a plain model, though called alike; and of nobody."""
    path, data = tmp_path / "e.onnx", tmp_path / "e.onnx.data"
    options = {"save_as_external_data": True, "location": data.name, "size_threshold": 0}
    onnx.save(mixed(), path, **options)
    (tmp_path / "e.onnx.2.data").write_bytes(b"notes")
    (tmp_path / "e.onnx.3.data").symlink_to("nowhere")
    before = data.read_bytes()
    onnxlrp.convert(mixed(), EPSILON).save(path, external_data=external)
    assert data.read_bytes() == before
    assert (tmp_path / "e.onnx.2.data").read_bytes() == b"notes"
    assert (tmp_path / "e.onnx.3.data").is_symlink()
    assert (tmp_path / "e.onnx.4.data").exists() is external
    explained(path)
    onnxlrp.convert(mixed(), EPSILON).save(path)
    assert not (tmp_path / "e.onnx.4.data").exists()
    assert data.read_bytes() == before


@pytest.mark.parametrize("external", [True, False])
@pytest.mark.parametrize("step", [0, 1, 2])
def test_an_interruption_leaves_the_old_pair_or_the_new_one(tmp_path, monkeypatch, external, step):
    """Whichever step it comes before; what is left behind is of no explainer, and in no way."""
    path = tmp_path / "e.onnx"
    onnxlrp.convert(mixed(), EPSILON, target=0).save(path, external_data=True)
    new = onnxlrp.convert(mixed(), EPSILON, target=1)
    relevance = {0: _relevance(path)}
    new.save(tmp_path / "new.onnx")
    relevance[1] = _relevance(tmp_path / "new.onnx")
    steps = iter(range(3))

    def unless(do):
        def done(*arguments, **options):
            if str(tmp_path) == str(Path(arguments[-1]).parent) and next(steps) == step:
                raise KeyboardInterrupt
            return do(*arguments, **options)

        return done

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", unless(os.replace))
        patched.setattr(Path, "unlink", unless(Path.unlink))
        with suppress(KeyboardInterrupt):
            new.save(path, external_data=external)
    found = _relevance(path)
    assert any(np.array_equal(found, one) for one in relevance.values())
    new.save(path, external_data=external)
    np.testing.assert_array_equal(_relevance(path), relevance[1])


def _relevance(path: Path):
    return ort.InferenceSession(str(path)).run(["relevance"], {"x": normal(2, 30)})[0]
