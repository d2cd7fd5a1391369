"""Whatever onnxruntime runs in float16 or double is explained, and passes the audit by its type."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from support import run
from zoo import BRANCHES, network

import onnxlrp
from onnxlrp.audit import check

KINDS = {"float16": TensorProto.FLOAT16, "float64": TensorProto.DOUBLE}


def in_precision(proto: onnx.ModelProto, dtype: str) -> onnx.ModelProto:
    """Return a float32 network in another type throughout."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for tensor in copy.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            array = numpy_helper.to_array(tensor).astype(dtype)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for value in (*copy.graph.input, *copy.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = KINDS[dtype]
    for attribute in (a for node in copy.graph.node for a in node.attribute):
        if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = KINDS[dtype]
    return copy


OFTEN = ("Conv", "Gemm", "MaxPool", "LRN", "LayerNormalization", "Softmax", "Mul")
OPERATORS = [
    pytest.param(name, marks=[] if name in OFTEN else [pytest.mark.slow]) for name in BRANCHES
]


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_is_explained_in_other_precisions(operator: str, dtype: str) -> None:
    whole, feeds = network([BRANCHES[operator]])
    proto = in_precision(whole, dtype)
    given = {n: x.astype(dtype) if x.dtype == np.float32 else x for n, x in feeds.items()}
    try:
        run(proto, given)
    except Exception as error:
        pytest.skip(f"onnxruntime does not run it: {str(error)[:80]}")
    explainer = onnxlrp.convert(proto, inputs=list(feeds)).to_proto()
    held = {v.name: v.type.tensor_type.elem_type for v in explainer.graph.output}
    wanted = TensorProto.DOUBLE if dtype == "float64" else TensorProto.FLOAT
    assert {kind for name, kind in held.items() if "relevance" in name} == {wanted}
    audit = check(proto, explainer, given)
    assert audit.passed
