"""What onnxruntime-web fails on in a browser."""

import numpy as np
import onnx
import pytest
from audit.networks import explained
from onnx import TensorProto
from support import model, node, normal

from onnxlrp import audit
from onnxlrp.audit import limits
from onnxlrp.audit.words import findings


def found(proto: onnx.ModelProto) -> set[tuple[str, str, str]]:
    """Package, operator and condition of what limits the explainer, of the model's own nodes."""
    return {
        (limit.package, limit.operator, limit.condition)
        for limit in limits.limits(audit.read(explained(proto)))
    }


def pooled(**attributes) -> onnx.ModelProto:
    body = [
        node("MaxPool", ["x"], "p", kernel_shape=[3, 3], strides=[2, 2], **attributes),
        node("GlobalAveragePool", ["p"], "m"),
        node("Flatten", ["m"], "logits"),
    ]
    return model(body, {"x": ["N", 3, 8, 8]}, ["logits"], {})


def cut(parts: int) -> onnx.ModelProto:
    """Split and put together again in another order."""
    names = [f"s{k}" for k in range(parts)]
    split = onnx.helper.make_node("Split", ["x"], names, name="split", axis=1, num_outputs=parts)
    return model(
        [split, node("Concat", names[::-1], "logits", axis=1)], {"x": ["N", parts]}, ["logits"], {}
    )


def test_pools_that_round_up():
    assert found(pooled()) == set()
    assert found(pooled(ceil_mode=1)) == {("onnxruntime-web", "MaxPool", "ceil_mode=1")}


@pytest.mark.parametrize("parts", [7, 8])
def test_more_tensors_than_a_kernel_holds(parts: int):
    few = {(operator, condition) for _, operator, condition in found(cut(parts))}
    many = {("Concat", "inputs>7"), ("Split", "outputs>7")}
    assert few == (many if parts > 7 else set())


def test_convolutions_of_volumes_in_groups():
    def convolved(group: int) -> onnx.ModelProto:
        body = [node("Conv", ["x", "w"], "c", group=group), node("Flatten", ["c"], "logits")]
        weights = {"w": normal(2, 2 // group, 2, 2, 2)}
        return model(body, {"x": ["N", 2, 2, 2, 2]}, ["logits"], weights)

    package = "onnxruntime-web/webgpu"
    grouped = (package, "Conv", "rank>4 group>1")
    assert grouped in found(convolved(2))
    assert grouped not in found(convolved(1))


@pytest.mark.parametrize(
    ("channels", "maps", "kernel", "attributes", "wrong"),
    [
        (9, 8, 3, {}, True),
        (6, 4, 1, {"strides": [2, 2]}, True),
        (6, 4, 1, {"pads": [1, 1, 1, 1]}, True),
        (6, 4, 1, {}, False),
        (9, 8, 5, {}, False),
        (9, 6, 3, {}, False),
        (12, 8, 3, {}, False),
        (3, 8, 3, {}, False),
        (8, 8, 3, {}, False),
    ],
)
def test_convolutions_of_three_channels_at_a_time(channels, maps, kernel, attributes, wrong):
    """A kernel takes three, or four, at a time; but not where the layer is a matrix product."""
    body = [node("Conv", ["x", "w"], "c", **attributes), node("Flatten", ["c"], "logits")]
    weights = {"w": normal(maps, channels, kernel, kernel)}
    proto = model(body, {"x": ["N", channels, 5, 5]}, ["logits"], weights)
    own = [
        limit
        for limit in limits.limits(audit.read(explained(proto)))
        if limit.outcome == "wrong" and limit.package == "onnxruntime-web/webgpu"
    ]
    assert [limit.operator for limit in own if "node_c" in limit.nodes] == ["Conv"] * wrong


def test_numbers_that_no_browser_computes_with():
    body = [node("Relu", ["x"], "a"), node("Mul", ["a", "w"], "logits")]
    proto = model(body, {"x": ["N", 3]}, ["logits"], {"w": np.ones(3)}, dtype=TensorProto.DOUBLE)
    assert ("WebAssembly", "Mul", "T=f64") in found(proto)


def test_check_names_the_nodes_and_what_becomes_of_them():
    proto = pooled(ceil_mode=1)
    checked = audit.check(proto, explained(proto), normal(1, 3, 8, 8))
    told = [one.text for one in findings(checked) if "onnxruntime-web" in one.text]
    assert told == [
        "in a browser WebGPU by onnxruntime-web refuses MaxPool with ceil_mode=1; by WebAssembly "
        "it runs, slower: node_p, onnxlrp/node_p/winner-takes-all/1"
    ]
