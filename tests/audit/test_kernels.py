import numpy as np
import onnx
import pytest
from audit.networks import explained, residual
from onnx import helper
from support import model, node, normal

import onnxlrp
from onnxlrp.audit import kernels
from onnxlrp.audit.kernels import Missing
from onnxlrp.audit.written import read


def missing(proto: onnx.ModelProto, *rules: str) -> list[Missing]:
    return kernels.missing(read(explained(proto, *rules)))


def sliced(opset: int) -> onnx.ModelProto:
    """Relevance of a Slice is padded back into its place."""
    nodes = [
        node("Slice", ["x", "start", "end", "axis"], "cut"),
        node("Flatten", ["cut"], "flat"),
        node("Gemm", ["flat", "w"], "logits"),
    ]
    weights = {
        "start": np.array([1], np.int64),
        "end": np.array([3], np.int64),
        "axis": np.array([1], np.int64),
        "w": normal(2, 3),
    }
    return model(nodes, {"x": [1, 4]}, ["logits"], weights, opset)


def test_every_provider_has_all_of_a_plain_network():
    assert missing(residual(), "name=node_c1: flat") == []


@pytest.mark.parametrize(
    ("opset", "expected"),
    [(18, []), (22, [("Pad", 21, "version")])],
)
def test_a_kernel_without_a_last_version_takes_the_first_alone(opset, expected):
    found = [entry for entry in missing(sliced(opset)) if entry.provider == "cuda"]
    assert [(entry.operator, entry.version, entry.cause) for entry in found] == expected


def test_types_matter():
    found = missing(residual(dtype=onnx.TensorProto.DOUBLE))
    absent = {(entry.provider, entry.operator, entry.types) for entry in found}
    assert ("cpu", "Conv", "T=f64") in absent
    assert {entry.cause for entry in found if entry.provider == "cpu"} == {"types"}
    assert ("cuda", "Conv", "T=f64") not in absent


def test_operators_that_a_provider_lacks():
    """A path integral bounds a divisor by Max, of which the table for WebGPU has none."""
    body = [node("LRN", ["x"], "y", size=3), node("GlobalAveragePool", ["y"], "logits")]
    proto = model(body, {"x": [1, 4, 3, 3]}, ["logits"], {})
    found = missing(proto, "LRN: path-integral", "*: norm")
    assert {(e.provider, e.operator, e.cause) for e in found} == {("webgpu", "Max", "operator")}


def test_the_table_is_whole():
    for (provider, _operator), listed in kernels._table().items():
        assert provider in kernels.PROVIDERS
        assert all(kernel.first <= kernel.last for kernel in listed)
    assert len(kernels._table()) > 200


def test_operators_of_tables_have_their_own_versions():
    """At a reference a category is looked up again: on the CPU alone, which has it."""
    encoder = helper.make_node(
        "OneHotEncoder", ["x"], ["hot"], name="hot", domain="ai.onnx.ml", cats_int64s=[1, 2]
    )
    body = [encoder, node("Flatten", ["hot"], "flat"), node("Gemm", ["flat", "w"], "logits")]
    x, logits = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", size])
        for name, size in (("x", 1), ("logits", 3))
    )
    weights = [onnx.numpy_helper.from_array(normal(2, 3), "w")]
    graph = helper.make_graph(body, "g", [x], [logits], weights)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    conversion = onnxlrp.convert(proto, "epsilon", reference="input")
    found = kernels.missing(read(conversion.to_proto()))
    lacking = {e.provider for e in found if e.operator == "ai.onnx.ml::OneHotEncoder"}
    assert lacking == {"cuda", "webgpu"}
    assert not [e for e in found if e.provider == "cpu"]


def test_what_a_scan_does_at_every_step():
    """CUDA's kernel for Scan takes the versions up to opset 20; WebGPU has none."""
    layer = helper.make_node("RNN", ["x", "w", "r"], ["", "last"], name="cell", hidden_size=3)
    body = [layer, node("Squeeze", ["last", "first"], "h"), node("Gemm", ["h", "v"], "logits")]
    weights = {"w": normal(1, 3, 4), "r": normal(1, 3, 3), "v": normal(3, 2)}
    weights["first"] = np.array([0])
    proto = model(body, {"x": [5, 1, 4]}, ["logits"], weights, 22)
    written = read(explained(proto, "*: epsilon"))
    looked_up = [entry.op_type for entry in kernels.run_each_time(written)]
    assert looked_up[looked_up.index("Scan") + 1 :][:4].count("MatMul") == 1
    found = {(e.provider, e.operator, e.cause) for e in kernels.missing(written)}
    assert {("cuda", "Scan", "version"), ("webgpu", "Scan", "operator")} <= found
