"""LSTM, GRU and RNN in every form that ONNX gives them, against the definition step by step."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from support import close, explain, lines, model, node, normal, run

import onnxlrp
from onnxlrp import reference
from onnxlrp.audit import check
from onnxlrp.errors import UnsupportedError

T, N, F, H = 3, 2, 4, 3
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
OUTPUTS = ("y", "yh", "yc")
VOICE = Path(__file__).parents[3] / "shared" / "models" / "silero_vad_16k_sequence.onnx"


def network(op, given=(), outputs=("y",), layout=0, **attributes):
    """Build a classifier of what some outputs hold; `given` names the optional inputs there are."""
    both = 2 if attributes.get("direction") == "bidirectional" else 1
    rows = GATES[op] * H
    every = {
        "w": normal(both, rows, F, seed=1, scale=0.5),
        "r": normal(both, rows, H, seed=2, scale=0.5),
        "b": normal(both, 2 * rows, seed=3, scale=0.3),
        "lengths": np.array([T, 2], np.int32),
        "h0": normal(both, N, H, seed=4),
        "c0": normal(both, N, H, seed=5),
        "p": normal(both, 3 * H, seed=6),
    }
    order = ["w", "r", "b", "lengths", "h0", "c0", "p"][: 7 if op == "LSTM" else 5]
    names = [name if name in ("w", "r", *given) else "" for name in order]
    weights = {name: every[name] for name in names if name}
    made = [name if name in outputs else "" for name in OUTPUTS[: 3 if op == "LSTM" else 2]]
    if layout:
        attributes["layout"] = 1
        weights |= {name: weights[name].swapaxes(0, 1) for name in ("h0", "c0") if name in weights}
    cell = helper.make_node(op, ["x", *names], made, name="cell", hidden_size=H, **attributes)
    body = [node("Transpose", ["series"], "x", perm=[0, 1, 2] if layout else [1, 0, 2]), cell]
    flat, size = [], 0
    for name in filter(None, made):
        steps = T if name == "y" else 1
        perm = [2, 0, 1, 3] if name == "y" else [1, 0, 2]
        perm = list(range(len(perm))) if layout else perm
        body.append(node("Transpose", [name], f"{name}_n", perm=perm))
        body.append(node("Reshape", [f"{name}_n", "rows"], f"{name}_flat"))
        flat.append(f"{name}_flat")
        size += steps * both * H
    body += [node("Concat", flat, "features", axis=1), node("Gemm", ["features", "v"], "logits")]
    weights |= {"rows": np.array([N, -1]), "v": normal(size, 3, seed=7)}
    return model(body, {"series": ["N", T, F]}, {"logits": ["N", 3]}, weights), cell, weights


def crosses(op, rule, given=(), referred=False, outputs=("y",), **attributes):
    """Explain, and hold what crosses the operator against the definition."""
    proto, cell, weights = network(op, given, outputs, **attributes)
    x = normal(N, T, F, seed=9)
    zero = normal(T, F, seed=10)
    # A small one would leave what float32 loses where a z nearly cancels.
    parameters = {} if rule == "gradient" else {"epsilon": 0.1}
    given_rule = " ".join([rule, *(f"{k}={v}" for k, v in parameters.items())])
    composite = lines(f"{op}: {given_rule}", "*: gradient" if rule == "gradient" else "*: epsilon")
    made = [name for name in cell.output if name]
    options = {"reference": {"series": zero}} if referred else {}
    found = explain(proto, composite, {"series": x}, [1] * N, made, inputs=["series"], **options)
    values = [x.swapaxes(0, 1)] + [weights.get(name) for name in cell.input[1:]]
    values = [v.astype(float) if v is not None and v.dtype == np.float32 else v for v in values]
    root = [np.repeat(zero[:, None].astype(float), N, axis=1), *values[1:]] if referred else None
    sent = [found.values.get(f"onnxlrp/relevance/{name}") for name in cell.output]
    live = [name == "x" for name in cell.input]
    done = reference.propagate(cell, values, sent, rule, parameters, live, root=root)
    wanted = done.relevance[0].swapaxes(0, 1)
    close(found.values["relevance"], wanted, 1e-5)


@pytest.mark.parametrize("rule", ["signal", "uniform", "gradient"])
@pytest.mark.parametrize("op", GATES)
class TestEveryForm:
    def test_plain(self, op, rule):
        crosses(op, rule, ["b"])

    def test_cut_and_without_bias(self, op, rule):
        crosses(op, rule, clip=0.5)

    def test_last_states_alone(self, op, rule):
        crosses(op, rule, ["b"], outputs=OUTPUTS[1:])

    def test_reverse_from_states(self, op, rule):
        crosses(op, rule, ["b", "h0", "c0"], outputs=OUTPUTS[:2], direction="reverse")

    def test_both_directions_and_samples_of_different_length(self, op, rule):
        given = ["b", "lengths", "h0", "c0"]
        crosses(op, rule, given, outputs=OUTPUTS, direction="bidirectional")


REFERRED = [(op, {}) for op in GATES] + [("GRU", {"linear_before_reset": 1})]


@pytest.mark.parametrize("rule", ["signal", "uniform"])
@pytest.mark.parametrize(("op", "attributes"), REFERRED)
def test_against_a_reference(op, attributes, rule):
    crosses(op, rule, ["b", "h0", "c0"], referred=True, **attributes)


@pytest.mark.parametrize("rule", ["signal", "taylor", "uniform"])
@pytest.mark.parametrize(("op", "attributes"), REFERRED)
@pytest.mark.parametrize("given", [["b"], ["b", "h0", "c0"]], ids=["from_zero", "from_states"])
def test_of_a_difference_nothing_is_lost(op, attributes, rule, given):
    """Not even where a gate differs from the reference, and what it lets through does not."""
    proto, _, _ = network(op, given, OUTPUTS, **attributes)
    x, zero = normal(N, T, F, seed=9), normal(T, F, seed=10)
    composite = lines(f"{op}: {rule}", "*: epsilon")
    explainer = onnxlrp.convert(proto, composite, reference={"series": zero}).to_proto()
    relevance = run(explainer, {"series": x, "target": np.ones(N, np.int64)})["relevance"]
    (at,), (base,) = (run(proto, {"series": v}).values() for v in (x, np.stack([zero] * N)))
    close(relevance.sum(axis=(1, 2)), (at - base)[:, 1], 1e-4)
    audit = check(proto, explainer, {"series": x}, target=1)
    assert audit.passed


@pytest.mark.parametrize("rule", ["signal", "uniform", "gradient"])
@pytest.mark.parametrize(
    ("given", "attributes"),
    [
        (["p", "c0"], {}),
        (["p"], {"input_forget": 1}),
        (
            ["b"],
            {
                "activations": ["HardSigmoid", "Affine", "Elu"],
                "activation_alpha": [0.3, 1.2, 0.6],
                "activation_beta": [0.5, 0.1],
            },
        ),
        (
            ["b"],
            {
                "activations": ["HardSigmoid", "ScaledTanh", "Softsign"],
                "activation_alpha": [0.3, 1.2],
                "activation_beta": [0.5, 0.8],
            },
        ),
    ],
    ids=["peepholes", "coupled", "affine", "scaled"],
)
def test_what_an_lstm_has_besides(rule, given, attributes):
    crosses("LSTM", rule, given, **attributes)


@pytest.mark.parametrize("rule", ["signal", "uniform", "gradient"])
def test_a_gru_that_resets_behind_its_matrix(rule):
    crosses("GRU", rule, ["b", "h0"], linear_before_reset=1)


def lstm_by_hand(x, weights, clip):
    """Compute logits in float64, step by step, of `network("LSTM", ["b", "h0", "c0"])`."""
    w, r, b, h, c = (weights[name][0].astype(float) for name in ("w", "r", "b", "h0", "c0"))
    made, most = [], 0.0
    for step in range(T):
        z = x[:, step].astype(float) @ w.T + h @ r.T + b[: 4 * H] + b[4 * H :]
        i, o, f, g = np.split(z.clip(-clip, clip), 4, axis=1)
        i, o, f = (1 / (1 + np.exp(-gate)) for gate in (i, o, f))
        c = f * c + i * np.tanh(g)
        # What it remembers is not cut, though the standard may be read so: onnxruntime does not.
        h = o * np.tanh(c)
        made.append(h)
        most = max(most, np.abs(c).max())
    assert most > 1.5 * clip
    return np.stack(made, axis=1).reshape(N, -1) @ weights["v"].astype(float)


def test_an_lstm_remembers_more_than_it_is_cut_at():
    clip, tiny = 0.3, 1e-6
    proto, _, weights = network("LSTM", ["b", "h0", "c0"], clip=clip)
    x = normal(N, T, F, seed=9)
    logits = lstm_by_hand(x, weights, clip)
    close(run(proto, {"series": x})["logits"], logits, 1e-6)
    slope = np.zeros(x.shape)
    for place in np.ndindex(*x.shape):
        more, less = x.astype(float), x.astype(float)
        more[place] += tiny
        less[place] -= tiny
        change = lstm_by_hand(more, weights, clip) - lstm_by_hand(less, weights, clip)
        slope[place] = change[place[0], 1] / (2 * tiny)
    found = explain(proto, lines("*: gradient"), {"series": x}, [1] * N, inputs=["series"])
    close(found.values["relevance"], slope * logits[:, 1, None, None], 1e-5)


@pytest.mark.parametrize("op", GATES)
def test_samples_along_axis_0(op):
    """Layout 1, for which onnxruntime has no kernel, is layout 0 between Transposes."""
    x, maps = normal(N, T, F, seed=9), []
    for layout in (0, 1):
        proto, _, _ = network(op, ["b", "h0", "c0"], OUTPUTS, layout=layout)
        composite = lines("*: epsilon")
        found = explain(proto, composite, {"series": x}, [1] * N, inputs=["series"])
        maps.append(found.values["relevance"])
    close(maps[1], maps[0], 1e-6)


def live_states(op):
    """Build a network that is explained at the states it starts from, too."""
    names = ["h0", "c0"][: 2 if op == "LSTM" else 1]
    rows = GATES[op] * H
    cell = helper.make_node(
        op, ["x", "w", "r", "b", "", *names], ["", "last"], name="cell", hidden_size=H
    )
    body = [cell, node("Squeeze", ["last", "first"], "h"), node("Gemm", ["h", "v"], "logits")]
    weights = {
        "w": normal(1, rows, F, seed=1, scale=0.5),
        "r": normal(1, rows, H, seed=2, scale=0.5),
        "b": normal(1, 2 * rows, seed=3, scale=0.3),
        "first": np.array([0]),
        "v": normal(H, 3, seed=7),
    }
    inputs = {"x": [T, N, F], **{name: [1, N, H] for name in names}}
    return model(body, inputs, {"logits": [N, 3]}, weights), cell, weights, names


@pytest.mark.parametrize("rule", ["signal", "uniform", "gradient"])
@pytest.mark.parametrize("op", GATES)
def test_states_that_are_explained(op, rule):
    proto, cell, weights, names = live_states(op)
    feeds = {"x": normal(T, N, F, seed=9)}
    feeds |= {name: normal(1, N, H, seed=11 + k) for k, name in enumerate(names)}
    composite = lines(f"{op}: {rule}", "*: gradient" if rule == "gradient" else "*: epsilon")
    found = explain(proto, composite, feeds, [1] * N, ["last"], inputs=list(feeds))
    given = [(feeds | weights).get(name) for name in cell.input]
    values = [None if v is None else v.astype(float) for v in given]
    sent = [None, found.relevance("last")]
    done = reference.propagate(cell, values, sent, rule, {}, [name in feeds for name in cell.input])
    for name, wanted in zip(cell.input, done.relevance, strict=True):
        if name in feeds:
            close(found.values[f"relevance_{name}"], wanted, 2e-5)


@pytest.mark.parametrize("op", GATES)
def test_what_constants_took_is_booked(op):
    """Biases and the states that a sequence starts from keep a share, which the audit finds."""
    proto, _, _ = network(op, ["b", "h0", "c0", "p"], OUTPUTS, direction="bidirectional")
    explainer = onnxlrp.convert(proto, lines("*: epsilon")).to_proto()
    audit = check(proto, explainer, {"series": normal(N, T, F, seed=9)}, target=1)
    (layer,) = (x for x in audit.layers for o in x.operations if o.operator == op)
    assert abs(layer.bias) > 1e-3 * layer.size
    assert abs(layer.unexplained) < 1e-5 * layer.size
    assert audit.passed


@pytest.mark.parametrize(
    ("op", "bodies"),
    [
        ("LSTM", [["Add", "Mul"], ["Add", "Add", "MatMul", "Mul", "Mul", "Mul"]]),
        ("GRU", [["Add", "Add", "MatMul", "Mul", "Mul", "Mul"]]),
        ("RNN", [["Add", "MatMul", "Mul", "Mul"]]),
    ],
)
def test_what_has_to_go_step_by_step(op, bodies):
    """All else is computed for all steps at once; the last state is where relevance starts."""
    proto, _, _ = network(op, ["b"], ("y", "yh"))
    graph = onnxlrp.convert(proto, lines("*: epsilon")).to_proto().graph
    steps = [n.attribute for n in graph.node if n.op_type == "Scan"]
    steps = [next(a.g for a in attributes if a.name == "body") for attributes in steps]
    kinds = [sorted(n.op_type for n in step.node if n.op_type != "Identity") for step in steps]
    assert sorted(kinds, key=len) == bodies


@pytest.mark.slow
@pytest.mark.skipif(not VOICE.exists(), reason="the voice detector is not here")
@pytest.mark.parametrize("composite", ["default", "epsilon"])
def test_a_voice_detector(composite):
    """Silero VAD: its frames lie along time, and so along what other models take for samples."""
    feeds = {"input": normal(20, 576, scale=0.05)} | dict.fromkeys("hc", np.zeros((1, 1, 128), "f"))
    options = {"inputs": ["input"], "output": "/output/Conv_output_0", "at": "all", "class_axis": 1}
    explainer = onnxlrp.convert(VOICE, composite, **options).to_proto()
    audit = check(VOICE, explainer, feeds)
    assert audit.passed
    assert max(audit.outputs.values()) == 0
    assert max(layer.leak for layer in audit.layers) < 1e-6
    assert not [o for layer in audit.layers for o in layer.operations if o.skipped]


def test_values_named_as_the_step_of_a_scan_would_be():
    """torch's names are val_0, val_1, ..., and so are those that onnx_ir gives to a subgraph's."""
    proto, _, _ = network("GRU", ["b"])
    taken = {name: f"val_{k}" for k, name in enumerate(["x", "y", "y_n", "y_flat", "features"], 4)}
    for one in proto.graph.node:
        for field in (one.input, one.output):
            field[:] = [taken.get(n, n) for n in field]
    del proto.graph.value_info[:]
    explain(proto, lines("*: epsilon"), {"series": normal(N, T, F)}, [1] * N, inputs=["series"])


@pytest.mark.parametrize("op", GATES)
def test_several_classes_of_one_sample_in_one_run(op):
    """Length and number of samples are open, and relevance has more rows than its values."""
    both = {"direction": "bidirectional"}
    _, cell, weights = network(op, ["b"], **both)
    weights |= {"rows": np.array([0, 0, 2 * H]), "last": np.array(-1), "v": normal(2 * H, 3)}
    body = [
        node("Transpose", ["series"], "x", perm=[1, 0, 2]),
        cell,
        node("Transpose", ["y"], "apart", perm=[0, 2, 1, 3]),
        node("Reshape", ["apart", "rows"], "hidden"),
        node("Gather", ["hidden", "last"], "end"),
        node("Gemm", ["end", "v"], "logits"),
    ]
    proto = model(body, {"series": ["N", "T", F]}, {"logits": ["N", 3]}, weights)
    explainer = onnxlrp.convert(proto, lines("*: epsilon")).to_proto()
    x = normal(1, 7, F, seed=9)

    def relevance(*classes):
        return run(explainer, {"series": x, "target": np.array(classes)})["relevance"]

    together = relevance(0, 1, 2)
    assert together.shape == (3, 7, F)
    np.testing.assert_array_equal(together, np.concatenate([relevance(k) for k in range(3)]))


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["Affine", "Tanh", "Tanh"], "alpha"),
        # onnxruntime takes 0, ONNX says 1.
        (["ThresholdedRelu", "Tanh", "Tanh"], "alpha of its ThresholdedRelu"),
        (["Sigmoid", "Cube", "Tanh"], "Cube"),
        (["Sigmoid", "Tanh"], "names 2 functions, and each of its 1 directions has 3"),
    ],
)
def test_functions_that_nothing_is_known_of(names, reason):
    proto, _, _ = network("LSTM", activations=names)
    with pytest.raises(UnsupportedError, match=reason):
        onnxlrp.convert(proto, lines("*: epsilon"))


@pytest.mark.parametrize("r", [np.float32(1), np.zeros((0, GATES["GRU"] * H, H), "f")])
def test_weights_of_no_direction(r):
    proto, _, _ = network("GRU")
    (kept,) = (one for one in proto.graph.initializer if one.name == "r")
    kept.CopyFrom(onnx.numpy_helper.from_array(np.asarray(r), "r"))
    del proto.graph.value_info[:]
    with pytest.raises(UnsupportedError, match=r"R \[.*\] are not those of 1 x 3 gates"):
        onnxlrp.convert(proto, lines("*: epsilon"))


def test_weights_that_depend_on_the_input():
    proto, _, _ = network("RNN")
    moved = onnx.ModelProto.FromString(proto.SerializeToString())
    (one,) = (n for n in moved.graph.node if n.op_type == "RNN")
    scaled = node("ReduceMean", ["x"], "mean", keepdims=0)
    times = node("Mul", ["w", "mean"], "scaled")
    one.input[1] = "scaled"
    nodes = list(moved.graph.node)
    del moved.graph.node[:]
    moved.graph.node.extend([nodes[0], scaled, times, *nodes[1:]])
    with pytest.raises(UnsupportedError, match=r"weight 'scaled' depends.*fixed weights"):
        onnxlrp.convert(moved, lines("*: epsilon"))
