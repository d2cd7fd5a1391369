"""A user's own rule and operator, in a file named with --plugin."""

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import helper, numpy_helper
from support import close, node, normal, run

import onnxlrp
from onnxlrp.cli import main
from onnxlrp.errors import InputError
from onnxlrp.plugin import load
from onnxlrp.propagation.formulas import RULES
from onnxlrp.propagation.registry import OPERATORS

RULE = '''
from onnxlrp.plugin import rule


@rule("half")
def half(layer, x, relevance, share, part=0.5):
    """The epsilon rule on a part of the relevance."""
    return x * layer.adjoint(share(part * relevance, layer(x), layer.bias))
'''
OPERATOR = '''
from onnxlrp.plugin import Relevance, operator


@operator("com.microsoft::Inverse")
def inverse(crossing):
    """Of one number, like an activation: relevance passes on."""
    value = crossing.operation.inputs[0]
    return [(value, Relevance(crossing.incoming.tensor, crossing.incoming.grounded))]
'''
BODY = [
    node("Gemm", ["x", "w"], "z"),
    node("Unsqueeze", ["z", "behind"], "u"),
    node("Inverse", ["u"], "p", domain="com.microsoft"),
    node("Squeeze", ["p", "behind"], "a"),
    node("Gemm", ["a", "v"], "logits"),
]
W = {"w": normal(6, 5, seed=1), "v": normal(5, 3, seed=3), "behind": np.array([2, 3])}


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """Write the two files; what they register is forgotten afterwards."""
    for registry in (RULES, OPERATORS):
        for name in list(registry):
            monkeypatch.setitem(registry, name, registry[name])
    (tmp_path / "my_rules.py").write_text(RULE)
    (tmp_path / "my_operators.py").write_text(OPERATOR)
    yield tmp_path
    RULES.pop("half", None)
    OPERATORS.pop("com.microsoft::Inverse", None)


def test_a_rule_and_an_operator_of_ones_own(plugins):
    sizes = {"x": ["N", 6], "logits": ["N", 3], "p": ["N", 5, 1, 1]}
    x, logits, p = (helper.make_tensor_value_info(name, 1, size) for name, size in sizes.items())
    weights = [numpy_helper.from_array(array, name) for name, array in W.items()]
    graph = helper.make_graph(BODY, "test", [x], [logits], weights, value_info=[p])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), plugins / "m.onnx")
    with pytest.raises(onnxlrp.UnsupportedError, match="Inverse"):
        onnxlrp.convert(plugins / "m.onnx", "epsilon")
    command = ["convert", "m.onnx", "e.onnx", "--composite", "epsilon"]
    command += ["--plugin", "my_rules.py", "--plugin", "my_operators.py"]
    command += ["--rule", "name=node_z: half part=0.25"]
    command = [str(plugins / word) if "." in word and "=" not in word else word for word in command]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    x = normal(2, 6, seed=4)
    feeds = {"x": x, "target": np.array([1])}
    mine = run(onnx.load(plugins / "e.onnx"), feeds)["relevance"]
    whole = run(onnxlrp.convert(plugins / "m.onnx", "epsilon").to_proto(), feeds)["relevance"]
    close(mine, 0.25 * whole, 1e-6)


@pytest.mark.parametrize(
    ("text", "message"), [("1 / 0", "ZeroDivisionError"), ("import nowhere", "nowhere")]
)
def test_a_plugin_that_fails(tmp_path, text, message):
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(InputError, match=message):
        load(tmp_path / "bad.py")
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path / "missing.py")
