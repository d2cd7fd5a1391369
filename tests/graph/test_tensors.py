"""Every tensor of a file is looked at before any is read."""

import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support import lines, model, node, normal

import onnxlrp
from onnxlrp.errors import ModelError
from onnxlrp.graph.loading import load
from onnxlrp.graph.tensors import check_tensors, tensors_of

LARGE = {"w": normal(6, 500, seed=1), "v": normal(500, 3, seed=3)}
BODY = [node("MatMul", ["x", "w"], "z"), node("MatMul", ["z", "v"], "logits")]


def plain():
    return model(BODY, {"x": ["N", 6]}, ["logits"], LARGE)


def external(location="m.data", dims=(6,), **info):
    """Describe float32 values that lie in a file."""
    tensor = TensorProto(name="outside", data_type=TensorProto.FLOAT, dims=dims)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **info}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def with_initializer(tensor):
    proto = plain()
    proto.graph.initializer.append(tensor)
    return proto


def in_attribute(tensor):
    proto = plain()
    proto.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))
    return proto


def in_list(tensor):
    proto = plain()
    entry = helper.make_node("Own", ["x"], ["c"], domain="own")
    entry.attribute.add(name="values", type=onnx.AttributeProto.TENSORS).tensors.append(tensor)
    proto.graph.node.append(entry)
    return proto


def in_sparse_values(tensor):
    proto = plain()
    proto.graph.sparse_initializer.add(values=tensor, dims=[100])
    return proto


def in_sparse_indices(tensor):
    proto = plain()
    values = numpy_helper.from_array(normal(6), "s")
    proto.graph.sparse_initializer.add(values=values, indices=tensor, dims=[100])
    return proto


def in_subgraph(tensor):
    proto = plain()
    out = helper.make_tensor_value_info("b", TensorProto.FLOAT, [6])
    branch = helper.make_graph([node("Identity", ["outside"], "b")], "b", [], [out], [tensor])
    proto.graph.node.append(
        helper.make_node("If", ["yes"], ["c"], then_branch=branch, else_branch=branch)
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    return proto


def in_function(tensor):
    proto = plain()
    body = [
        helper.make_node("Constant", [], ["c"], value=tensor),
        helper.make_node("Mul", ["i", "c"], ["o"]),
    ]
    opsets = [helper.make_opsetid("", 18)]
    proto.functions.append(helper.make_function("own", "Scale", ["i"], ["o"], body, opsets))
    proto.opset_import.append(helper.make_opsetid("own", 1))
    proto.graph.node[0].input[0] = "scaled"
    proto.graph.node.insert(0, helper.make_node("Scale", ["x"], ["scaled"], domain="own"))
    return proto


PLACES = [
    with_initializer,
    in_attribute,
    in_list,
    in_sparse_values,
    in_sparse_indices,
    in_subgraph,
    in_function,
]


def written(folder, proto):
    """Write a model into a folder of its own, beside which lies what it may not read."""
    (folder / "secret").write_bytes(b"The secret of somebody else")
    (folder / "sub").mkdir()
    path = folder / "sub/m.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "link", "hard", "folder/secret"])
def test_nothing_outside_the_folder_is_read(tmp_path, place, location):
    """Neither by its path, nor by a link to a file or a folder, wherever the tensor hangs."""
    path = written(tmp_path, place(external(location)))
    (path.parent / "link").symlink_to(tmp_path / "secret")
    (path.parent / "folder").symlink_to(tmp_path)
    os.link(tmp_path / "secret", path.parent / "hard")
    with pytest.raises(ModelError, match="outside the model's folder"):
        load(path)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (external("no\0where"), "have no place"),
        (external(offset=-4), "offset of 'outside' is no byte count: '-4'"),
        (external(length="many"), "length of 'outside' is no byte count: 'many'"),
        (external(offset="1" * 5000), "is no byte count"),
        (external(length=20), r"\[6\], 24 bytes, but 20 bytes"),
        (external(offset=8), "truncated: 'outside' ends at byte 32, the file at 24"),
        (external(dims=[1 << 40]), "truncated"),
        (external(dims=[-6]), r"sizes of 'outside' are not: \[-6\]"),
        (TensorProto(name="t", data_type=1, dims=[1 << 31], raw_data=bytes(8)), "do not fit"),
        (TensorProto(name="t", data_type=1, dims=[1 << 31], float_data=[1, 2]), "do not fit"),
        (TensorProto(name="t", data_type=22, dims=[3], int32_data=[1]), "do not fit"),
        (TensorProto(name="t", data_type=99, dims=[1], raw_data=bytes(4)), "unknown type"),
        (TensorProto(name="t", dims=[1], raw_data=bytes(4)), "no type"),
    ],
)
@pytest.mark.parametrize("place", PLACES)
def test_sizes_that_do_not_fit(tmp_path, place, tensor, message):
    path = written(tmp_path, place(tensor))
    (path.parent / "m.data").write_bytes(bytes(24))
    with pytest.raises(ModelError, match=message):
        load(path)


@pytest.mark.parametrize("array", [normal(3, 2), np.array([1, 2]), np.array(True), normal(0)])
def test_what_fits_is_let_through(tmp_path, array):
    for raw in (True, False):
        tensor = helper.make_tensor(
            "t",
            helper.np_dtype_to_tensor_dtype(array.dtype),
            array.shape,
            array.tobytes() if raw else array.ravel(),
            raw=raw,
        )
        check_tensors(with_initializer(tensor), tmp_path)
    packed = helper.make_tensor("t", TensorProto.INT4, [3], [1, -2, 3])
    check_tensors(with_initializer(packed), tmp_path)
    check_tensors(
        with_initializer(helper.make_tensor("t", TensorProto.STRING, [1], [b"a"])), tmp_path
    )


def test_a_function_reads_beside_the_model(tmp_path, monkeypatch):
    """Its paths are relative to the model's folder, not to where the program runs."""
    factors = normal(6, seed=5)
    path = written(tmp_path, in_function(external("m.data", offset=4)))
    (path.parent / "m.data").write_bytes(b"head" + factors.tobytes())
    monkeypatch.chdir(tmp_path)
    explainer = onnxlrp.convert(path, lines("*: epsilon")).to_proto()
    held = {tuple(t.dims): numpy_helper.to_array(t) for t, _ in tensors_of(explainer)}
    np.testing.assert_array_equal(held[(6,)], factors)
