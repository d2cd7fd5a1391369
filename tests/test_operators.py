"""Every operator is accounted for, and what is said of it is what happens."""

import runpy
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from support import lines, model, node, normal

import onnxlrp
from onnxlrp.compiler.outside import REFUSED
from onnxlrp.errors import UnsupportedError
from onnxlrp.propagation.registry import OPERATORS

DOCS = Path(__file__).parents[1] / "docs"
SCRIPT = runpy.run_path(str(DOCS / "make_operators.py"))
KERNELS = Path(__file__).parents[2] / "shared" / "data" / "ort_kernels.tsv"


NEWEST = (1, 23)
"""The page tells of the operators of this onnx."""


@pytest.mark.skipif(
    tuple(map(int, onnx.__version__.split(".")[:2])) < NEWEST, reason="an older onnx knows fewer"
)
def test_the_page_says_what_is_registered():
    """If this fails, run `python docs/make_operators.py` and look at what changed."""
    assert SCRIPT["text"]() == (DOCS / "operators.md").read_text("utf-8")


def test_every_operator_that_onnx_knows_is_accounted_for():
    known = [name for names in SCRIPT["operators"]().values() for name in names]
    assert len(known) > len(onnx.defs.get_all_schemas())
    assert [name for name in known if not SCRIPT["standing"](name)[0]] == []


def test_nothing_is_both_explained_and_refused():
    assert not REFUSED.keys() & OPERATORS.keys()


@pytest.mark.skipif(not KERNELS.exists(), reason="the list of onnxruntime's kernels is not here")
def test_every_operator_of_onnxruntime_is_accounted_for():
    rows = [line.split("\t") for line in KERNELS.read_text("utf-8").splitlines()]
    names = {f"{row[1]}::{row[2]}" for row in rows if row[0] == "cpu" or row[0] == "cuda"}
    ours = {name for name in names if name.startswith("com.microsoft")}
    assert len(ours) > 80
    assert [name for name in sorted(ours) if not SCRIPT["standing"](name)[0]] == []


@pytest.mark.parametrize(
    ("operator", "attributes"),
    [("RandomNormalLike", {}), ("RandomUniformLike", {}), ("EyeLike", {})],
)
def test_what_reads_only_a_shape_carries_none(operator, attributes):
    """All relevance goes to the other operand, as if a constant stood in its place."""
    body = [
        node("MatMul", ["x", "w"], "h"),
        node(operator, ["h"], "other", **attributes),
        node("Cast", ["other"], "real", to=1),
        node("ReduceSum", ["real"], "number", keepdims=0),
        node("Add", ["h", "number"], "y"),
    ]
    proto = model(body, {"x": (2, 3)}, {"y": (2, 3)}, {"w": normal(3, 3)})
    conversion = onnxlrp.convert(proto, lines("*: epsilon"))
    assert {entry.name for entry in conversion.nodes} == {"node_h", "node_y"}


def test_a_refused_operator_is_named_with_its_own_reason():
    """onnxruntime's layouts, too: what to do is said there, not guessed from the domain."""
    body = [
        helper.make_node("Conv", ["x", "w"], ["h"], "inner", domain="com.microsoft.nchwc"),
        node("Flatten", ["h"], "y"),
    ]
    graph = helper.make_graph(
        body,
        "optimised",
        [helper.make_tensor_value_info("x", 1, ["N", 8, 4, 4])],
        [helper.make_tensor_value_info("y", 1, ["N", 128])],
        [onnx.numpy_helper.from_array(np.ones((8, 8, 1, 1), np.float32), "w")],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft.nchwc", 1)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    with pytest.raises(UnsupportedError) as caught:
        onnxlrp.convert(proto, lines("*: epsilon"))
    (found,) = caught.value.obstacles
    reason, advice = REFUSED["com.microsoft.nchwc::Conv"]
    assert (found.node, found.reason, found.advice) == ("inner", reason, advice)
    assert "ORT_ENABLE_EXTENDED" in advice
