import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxlrp.inputs.preprocessing import Preprocessing


def test_it_shows_what_convert_would_do_and_writes_nothing(run, model: Path):
    before = sorted(Path().iterdir())
    shown = run("inspect", model)
    assert shown.exit_code == 0, shown.output
    assert "default:" in shown.stdout
    assert "relevance starts from 'logits'" in shown.stdout
    assert sorted(Path().iterdir()) == before


def test_json_is_what_convert_prints(run, model: Path):
    seen = json.loads(run("inspect", model, "--json", "--composite", "epsilon").stdout)
    done = run("convert", model, "explainer.onnx", "--json", "--composite", "epsilon")
    converted = json.loads(done.stdout)
    assert seen == {key: converted[key] for key in seen}
    assert seen["composite"] == "epsilon"


def test_every_node_in_the_way_is_a_row(run, classifier):
    model = classifier(operator="Mystery", domain="com.example")
    onnx.save(model, "model.onnx")
    result = run("inspect", "model.onnx")
    assert result.exit_code == 1
    for word in ("activation", "Mystery", "com.example 1"):
        assert word in result.stdout
    assert result.stderr == "Error: model.onnx cannot be converted: 1 node in the way\n"


def test_obstacles_as_json(run, classifier):
    onnx.save(classifier(operator="Mystery", domain="com.example"), "model.onnx")
    result = run("inspect", "model.onnx", "--json")
    assert result.exit_code == 1
    (obstacle,) = json.loads(result.stdout)["obstacles"]
    assert obstacle["node"] == "activation"
    assert obstacle["operator"] == "Mystery"
    assert obstacle["domain"] == "com.example"
    assert obstacle["opset"] == 1
    assert obstacle["advice"]


def test_an_explainer_says_what_it_is_of_and_how_to_use_it(run, explainer: Path, preprocessing):
    result = run("inspect", explainer)
    assert result.exit_code == 0, result.output
    facts, rules, values, usage = result.stdout.split("\n\n")
    told = dict(line.split("  ", 1) for line in facts.splitlines())
    assert {name: said.strip() for name, said in told.items() if name != "explainer"} == {
        "model": "model.onnx",
        "SHA-256": hashlib.sha256(Path("model.onnx").read_bytes()).hexdigest(),
        "written by": f"onnxlrp {version('onnxlrp')}",
        "composite": "default",
        "starts from": "'logits'",
        "target": "input 'target'",
        "reference": "none",
        "pictures": preprocessing.in_words(),
        "graph": f"5 nodes of the model, and {len(onnx.load(explainer).graph.node) - 5} for "
        "relevance",
    }
    assert rules.splitlines()[1].split() == ["Conv", "1", "even", "stabiliser=1e-06"]
    lines = [" ".join(line.split()) for line in values.splitlines()]
    assert lines[1] == "input image float32 [N, 3, 8, 8] the model's own, explained"
    assert lines[-1] == "output relevance float32 [explained_N, 3, 8, 8] relevance of 'image'"
    assert usage.splitlines() == [
        f"onnxlrp explain {explainer} photo.jpg -o maps",
        f"onnxlrp check model.onnx {explainer}",
    ]


@pytest.mark.parametrize("composite", ["default", "epsilon", "grad_cam", "guided_backprop"])
def test_an_explainer_tells_the_rules_that_its_model_was_given(run, model: Path, composite: str):
    run("convert", model, "e.onnx", "--composite", composite)
    told = json.loads(run("inspect", "e.onnx", "--json").stdout)["nodes"]
    given = json.loads(run("inspect", model, "--composite", composite, "--json").stdout)["nodes"]
    assert told == [node | {"line": ""} for node in given]
    assert "classify" in run("inspect", "e.onnx", "--nodes").stdout


def test_an_explainer_names_its_reference(run, model: Path):
    np.save("root.npy", np.zeros((3, 8, 8), np.float32))
    for given, said in {
        "zero": "zero",
        "input": "an input, at each run",
        "root.npy": "root.npy",
    }.items():
        run("convert", model, "e.onnx", "--reference", given, "--composite", "epsilon")
        told = run("inspect", "e.onnx").stdout
        assert f"reference    {said}\n" in told
    assert "reference    none\n" not in told


def test_an_explainer_as_json(run, explainer: Path, preprocessing):
    stored = json.loads(run("inspect", explainer, "--json").stdout)
    assert stored["relevance"] == {"image": "relevance"}
    assert stored["target_input"] == "target"
    assert Preprocessing.from_json(json.dumps(stored["preprocessing"])) == preprocessing
    assert [value["name"] for value in stored["inputs"]] == ["image", "target"]
    assert stored["bytes"] == explainer.stat().st_size


def test_an_explainer_is_not_converted_again(run, explainer: Path):
    result = run("convert", explainer, "again.onnx")
    assert result.exit_code == 1
    assert "explainer already; give the original model" in result.stderr
    assert not Path("again.onnx").exists()


def test_a_file_that_is_no_model(run):
    Path("notes.txt").write_text("no model")
    result = run("inspect", "notes.txt")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: notes.txt is not an ONNX model")
    assert result.stderr.count("\n") == 1
    assert "missing.onnx" in run("inspect", "missing.onnx").stderr


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--target", "2-0"), "target       2-0, the difference of two scores"),
        (("--target", "weights"), "target       all scores, times input 'weights'"),
        (("--contrast", "others"), "target       input 'target', against all others"),
        (("--contrast", "softmax", "--target", "1"), "target       1, by the gradient of softmax"),
    ],
)
def test_an_explainer_says_what_it_explains(run, model, options, text):
    assert run("convert", model, "e.onnx", *options).exit_code == 0
    assert text in run("inspect", "e.onnx").stdout


def ending(*last: onnx.NodeProto, output: onnx.ValueInfoProto) -> None:
    """Write a model of one dense layer, `m`, with `last` behind it."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"], name="dense"), *last]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [output],
        [numpy_helper.from_array(np.ones((4, 3), np.float32), "w")],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.example", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), "model.onnx")


def loop(source: str, result: str) -> list[onnx.NodeProto]:
    """Nodes that apply Relu as often as the input's sum says."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["on"]),
            helper.make_node("Relu", ["state"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    return [
        helper.make_node("ReduceSum", ["x"], ["sum"], name="sum", keepdims=0),
        helper.make_node("Cast", ["sum"], ["times"], name="times", to=TensorProto.INT64),
        helper.make_node("Loop", ["times", "", source], [result], name="again", body=body),
    ]


def test_a_node_that_says_no_shape_is_named(run):
    """Of another domain, or a loop, where the model does not say it either."""
    unknown = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    odd = helper.make_node("Mystery", ["m"], ["y"], name="odd", domain="com.example")
    ending(odd, output=unknown)
    told = run("inspect", "model.onnx").stderr
    assert "what node 'odd' (Mystery) computes has no known shape: declare it" in told
    ending(*loop("m", "y"), output=unknown)
    assert (
        "what node 'again' (Loop) computes has no known shape"
        in run("inspect", "model.onnx").stderr
    )
    ending(odd, output=helper.make_empty_tensor_value_info("y"))
    told = run("inspect", "model.onnx").stderr
    assert told == (
        "Error: the model is malformed: output 'y', which node 'odd' (Mystery) computes, has no "
        "type: declare it with its shape\n"
    )


def test_a_loop_in_front_of_the_score_is_a_row(run):
    known = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])
    ending(*loop("m", "y"), output=known)
    result = run("inspect", "model.onnx")
    assert result.exit_code == 1
    rows = {line.split()[0]: line for line in result.stdout.splitlines()[1:] if line}
    assert "how many steps it takes is known only when it runs" in rows["again"]
