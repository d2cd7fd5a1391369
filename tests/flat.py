"""Networks with control flow and sequences, against what they are when they are written out."""

import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from support import close, explain, lines, normal, run

import onnxlrp
from onnxlrp import reference
from onnxlrp.errors import UnsupportedError
from onnxlrp.graph.loading import load

EPSILON = lines("*: epsilon")
X = normal(2, 4, seed=1)
W = {"w": normal(4, 4, seed=2), "b": normal(4, seed=3), "readout": normal(4, 3, seed=4)}


def read(text, opset=18, **weights):
    """Read a graph in onnx's own notation, and give it its weights."""
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> {text}')
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in weights.items()
    )
    return proto


def flattened(proto):
    """Load a model, and check that nothing in it is a graph of its own."""
    flat = ir.to_proto(load(proto).model)
    onnx.checker.check_model(flat, full_check=True)
    assert not [n for n in flat.graph.node if any(a.HasField("g") for a in n.attribute)]
    names = [name for n in flat.graph.node for name in n.output if name]
    assert len(names) == len(set(names))
    assert len({n.name for n in flat.graph.node}) == len(flat.graph.node)
    return flat


def holds(proto, x=X, **options):
    """Compare outputs with onnxruntime's run of the model, and the map with the definition's."""
    flat = flattened(proto)
    explained = explain(proto, EPSILON, {"x": x}, target=[1] * len(x), **options)
    for name, value in run(proto, {"x": x}).items():
        close(explained.values[name], value, 1e-6)
    rules = {n.name: (n.rule, dict(n.parameters)) for n in explained.conversion.nodes}
    wanted = reference.explain(flat, {"x": x}, lambda n: rules[n.name], ["x"], "y", target=1)
    close(explained.values["relevance"], wanted["x"])
    return flat


def operators(proto):
    return [node.op_type for node in proto.graph.node]


def refused(proto):
    with pytest.raises(UnsupportedError) as caught:
        onnxlrp.convert(proto, EPSILON)
    found = caught.value.obstacles
    assert not [each for each in found if "--plugin" in each.advice]
    return found
