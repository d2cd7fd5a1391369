"""One spelling for each thing: what is merged into a layer, and what must not be."""

import numpy as np
import pytest
from onnx import helper, numpy_helper
from support import close, crosses_as_defined, explain, lines, model, node, normal

import onnxlrp
from onnxlrp import reference
from onnxlrp.audit import check

C = 4
BN = {
    "gamma": normal(C, seed=1),
    "beta": normal(C, seed=2),
    "mean": normal(C, seed=3),
    "variance": np.abs(normal(C, seed=4)) + 0.1,
}
W = normal(C, 3, 3, 3, seed=5)
B = normal(C, seed=6)


def merged(composite, body, x_shape, weights):
    """Explain a network, and the names of the nodes that were merged into `node_z`."""
    proto = model([*body, *HEAD], {"x": x_shape}, ["logits"], {**weights, "readout": READOUT})
    x = normal(*[d if isinstance(d, int) else 2 for d in x_shape], seed=9)
    explained = explain(proto, composite, {"x": x})
    found = {entry.name: entry.merged for entry in explained.conversion.nodes}
    return explained, proto, x, found


HEAD = [
    node("Relu", ["y"], "a"),
    node("GlobalAveragePool", ["a"], "g"),
    node("Flatten", ["g"], "f"),
    node("Gemm", ["f", "readout"], "logits"),
]
READOUT = normal(C, 3, seed=7)
COMPOSITE = lines("Conv,Gemm: z-plus", "*: norm")

AFFINE = {
    "BatchNormalization": (
        [node("BatchNormalization", ["z", *BN])],
        BN,
        BN["gamma"] / np.sqrt(BN["variance"] + 1e-5),
        BN["beta"] - BN["mean"] * BN["gamma"] / np.sqrt(BN["variance"] + 1e-5),
    ),
    "Mul, Add": (
        [node("Mul", ["z", "s"], "m"), node("Add", ["t", "m"])],
        {"s": normal(C, 1, 1, seed=10), "t": normal(1, C, 1, 1, seed=11)},
        normal(C, seed=10),
        normal(C, seed=11),
    ),
    "Sub": ([node("Sub", ["t", "z"])], {"t": np.float32(2)}, -np.ones(C), np.full(C, 2.0)),
    "Div": ([node("Div", ["z", "s"])], {"s": normal(C, 1, 1)}, 1 / normal(C), np.zeros(C)),
}


@pytest.mark.parametrize("rule", ["epsilon", "z-plus", "alpha-beta"])
@pytest.mark.parametrize("affine", AFFINE)
def test_what_follows_a_convolution_is_merged_into_it(affine, rule):
    """The oracle explains the network with weights merged by hand."""
    behind, constants, scale, shift = AFFINE[affine]
    constants = {name: np.asarray(array) for name, array in constants.items()}
    body = [node("Conv", ["x", "w", "b"], "z"), *behind]
    composite = lines(f"Conv: {rule}", "*: norm", "Gemm: epsilon")
    explained, _, x, found = merged(composite, body, ["N", 3, 6, 6], {"w": W, "b": B, **constants})
    assert found["node_z"] == tuple(entry.name for entry in behind)
    by_hand = model(
        [node("Conv", ["x", "w", "b"], "y"), *HEAD],
        {"x": ["N", 3, 6, 6]},
        ["logits"],
        {
            "w": (W * scale[:, None, None, None]).astype(np.float32),
            "b": (B * scale + shift).astype(np.float32),
            "readout": READOUT,
        },
    )
    rules = {
        e.name.replace("z", "y"): (e.rule, dict(e.parameters)) for e in explained.conversion.nodes
    }
    expected = reference.explain(by_hand, {"x": x}, lambda n: rules[n.name], ["x"], "logits")
    close(explained.values["relevance"], expected["x"], 1e-4)


def test_a_convolution_with_another_reader_is_not_merged():
    body = [
        node("Conv", ["x", "w", "b"], "z"),
        node("BatchNormalization", ["z", *BN], "n"),
        node("Add", ["n", "z"]),
    ]
    _, _, _, found = merged(COMPOSITE, body, ["N", 3, 6, 6], {"w": W, "b": B, **BN})
    assert found["node_z"] == ()
    assert "node_n" in found


def test_a_constant_that_varies_over_the_image_is_not_merged():
    body = [node("Conv", ["x", "w", "b"], "z"), node("Add", ["z", "t"])]
    weights = {"w": W, "b": B, "t": normal(1, 1, 4, 4)}
    _, _, _, found = merged(COMPOSITE, body, ["N", 3, 6, 6], weights)
    assert found["node_z"] == ()


def test_a_separate_pad_belongs_to_its_convolution():
    """Flat puts no ones into the padding, wherever that was written."""
    composite = lines("Conv: flat", "Gemm: epsilon", "*: norm")
    pads = np.array([0, 0, 1, 0, 0, 0, 2, 1], np.int64)
    apart, _, _, found = merged(
        composite,
        [node("Pad", ["x", "p"], "z0"), node("Conv", ["z0", "w", "b"], "z"), node("Relu", ["z"])],
        ["N", 3, 6, 6],
        {"w": W, "b": B, "p": pads},
    )
    inside, _, _, _ = merged(
        composite,
        [node("Conv", ["x", "w", "b"], "z", pads=[1, 0, 2, 1]), node("Relu", ["z"])],
        ["N", 3, 6, 6],
        {"w": W, "b": B},
    )
    assert found["node_z"] == ("node_z0",)
    np.testing.assert_array_equal(apart.values["relevance"], inside.values["relevance"])


@pytest.mark.parametrize("shape", [(2, 3, 5), (4, 5)])
def test_matmul_takes_its_bias(shape):
    weights = {"w": normal(5, 4, seed=1), "t": normal(4, seed=2)}
    body = [
        node("MatMul", ["x", "w"], "z"),
        node("Add", ["z", "t"], "y"),
        node("ReduceMean", ["y", "axes"], "g", keepdims=0),
        node("Gemm", ["g", "readout"], "logits"),
    ]
    if len(shape) == 2:
        body[2] = node("Relu", ["y"], "g")
    constants = {**weights, "readout": normal(4, 3, seed=3)}
    if len(shape) == 3:
        constants["axes"] = np.array([1], np.int64)
    proto = model(body, {"x": ["N", *shape[1:]]}, ["logits"], constants)
    x = normal(*shape, seed=4)
    explained = explain(proto, lines("*: norm", "MatMul: epsilon bias=distribute"), {"x": x})
    assert {e.name: e.merged for e in explained.conversion.nodes}["node_z"] == ("node_y",)


def torch_lrn(size):
    """`torch.nn.functional.local_response_norm` as torch exports it."""
    before, after = size // 2, (size - 1) // 2
    nodes = [
        node("Mul", ["x", "x"], "sq"),
        node("Reshape", ["sq", "five"], "v"),
        node("Pad", ["v", "pads"], "p"),
        node("AveragePool", ["p"], "m", kernel_shape=[size, 1, 1], strides=[1, 1, 1]),
        node("Squeeze", ["m", "one"], "u"),
        node("Reshape", ["u", "four"], "r"),
        node("Mul", ["r", "alpha"], "ra"),
        node("Add", ["ra", "k"], "rk"),
        node("Pow", ["rk", "beta"], "d"),
        node("Div", ["x", "d"]),
    ]
    weights = {
        "five": np.array([0, 1, 7, 3, -1], np.int64),
        "four": np.array([-1, 7, 3, 2], np.int64),
        "pads": np.array([0, 0, before, 0, 0, 0, 0, after, 0, 0], np.int64),
        "one": np.array([1], np.int64),
        "alpha": np.float32(0.8),
        "k": np.float32(1.5),
        "beta": np.float32(0.75),
    }
    return nodes, {name: np.asarray(array) for name, array in weights.items()}


@pytest.mark.parametrize("treatment", ["taylor", "path-integral"])
def test_a_decomposed_lrn_is_one_operation(treatment):
    nodes, weights = torch_lrn(5)
    readout = [node("Flatten", ["y"], "f"), node("Gemm", ["f", "readout"], "logits")]
    weights["readout"] = normal(42, 3)
    proto = model([*nodes, *readout], {"x": [2, 7, 3, 2]}, ["logits"], weights)
    x = normal(2, 7, 3, 2, seed=1)
    explained = explain(proto, lines("Gemm: epsilon", f"LRN: {treatment}"), {"x": x})
    lrn = node("LRN", ["x"], size=5, alpha=0.8, beta=0.75, bias=1.5)
    whole = model([lrn, *readout], {"x": [2, 7, 3, 2]}, ["logits"], {"readout": weights["readout"]})
    rules = {"LRN": (treatment, {}), "Gemm": ("epsilon", {})}
    expected = reference.explain(whole, {"x": x}, lambda n: rules[n.op_type], ["x"], "logits")
    close(explained.values["relevance"], expected["x"])


def test_an_even_window_is_torchs_not_its_mirror_image():
    """Taylor conserves for either window; only the neighbours' relevance tells them apart."""
    nodes, weights = torch_lrn(4)
    readout = [node("Flatten", ["y"], "f"), node("Gemm", ["f", "readout"], "logits")]
    # Only channel 3 of the output counts; torch's window around it is channels 1 to 4.
    read = np.zeros((7, 3, 2, 3), np.float32)
    read[3] = 1
    weights["readout"] = read.reshape(42, 3)
    proto = model([*nodes, *readout], {"x": [1, 7, 3, 2]}, ["logits"], weights)
    x = np.abs(normal(1, 7, 3, 2, seed=1))
    explained = explain(proto, lines("Gemm: epsilon", "LRN: taylor"), {"x": x})
    channels = np.abs(explained.values["relevance"]).sum((0, 2, 3))
    assert [c for c in range(7) if channels[c] > 1e-6] == [1, 2, 3, 4]


NEARLY_LRN = {
    "padded by the mean itself, which does not count it": {
        "p": node("Identity", ["v"], "p"),
        "m": node("AveragePool", ["p"], "m", kernel_shape=[5, 1, 1], pads=[2, 0, 0, 2, 0, 0]),
    },
    "padded with ones": {"p": node("Pad", ["v", "pads", "k"], "p")},
    "reflected": {"p": node("Pad", ["v", "pads"], "p", mode="reflect")},
    "dilated": {
        "m": node(
            "AveragePool", ["p"], "m", kernel_shape=[3, 1, 1], dilations=[2, 1, 1], strides=[1] * 3
        )
    },
}


@pytest.mark.parametrize("change", NEARLY_LRN)
def test_what_is_only_nearly_lrn_is_not_taken_for_it(change):
    nodes, weights = torch_lrn(5)
    nodes = [NEARLY_LRN[change].get(one.output[0], one) for one in nodes]
    readout = [node("Flatten", ["y"], "f"), node("Gemm", ["f", "readout"], "logits")]
    weights["readout"] = normal(42, 3)
    used = {name for one in nodes for name in one.input} | {"readout"}
    weights = {name: array for name, array in weights.items() if name in used}
    proto = model([*nodes, *readout], {"x": [2, 7, 3, 2]}, ["logits"], weights, opset=22)
    operators = {one.operator for one in onnxlrp.convert(proto, "epsilon").nodes}
    assert "LRN" not in operators
    assert "Gate" in operators


def test_the_rows_of_a_picture_of_one_channel_are_not_its_channels():
    nodes, weights = torch_lrn(5)
    by_rows = {
        "v": node("Identity", ["sq"], "v"),
        "m": node("AveragePool", ["p"], "m", kernel_shape=[5, 1], strides=[1, 1]),
        "u": node("Identity", ["m"], "u"),
        "r": node("Identity", ["u"], "r"),
    }
    nodes = [by_rows.get(one.output[0], one) for one in nodes]
    weights["pads"] = np.array([0, 0, 2, 0, 0, 0, 2, 0], np.int64)
    readout = [node("Flatten", ["y"], "f"), node("Gemm", ["f", "readout"], "logits")]
    weights["readout"] = normal(42, 3)
    used = {name for one in nodes for name in one.input} | {"readout"}
    weights = {name: array for name, array in weights.items() if name in used}
    proto = model([*nodes, *readout], {"x": [2, 1, 7, 6]}, ["logits"], weights)
    assert "LRN" not in {one.operator for one in onnxlrp.convert(proto, "epsilon").nodes}


@pytest.mark.parametrize("operator", ["Add", "Pad", "BatchNormalization"])
def test_an_operator_of_another_domain_is_another_operator(operator):
    """`com.acme::Add` may do anything: it is named, neither merged nor passed."""
    weights = {"k": normal(3, 3, 1, 1), "b": normal(3, 1, 1), "v": normal(75, 2)}
    body = [
        node("Conv", ["x", "k"], "c"),
        node(operator, ["c", "b"], "y"),
        node("Flatten", ["y"], "f"),
        node("Gemm", ["f", "v"], "logits"),
    ]
    body[1].domain = "com.acme"
    graph = helper.make_graph(
        body,
        "foreign",
        [helper.make_tensor_value_info("x", 1, ["N", 3, 5, 5])],
        [helper.make_tensor_value_info("logits", 1, ["N", 2])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.acme", 1)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    with pytest.raises(onnxlrp.UnsupportedError) as caught:
        onnxlrp.convert(proto, "epsilon")
    assert [one.node for one in caught.value.obstacles] == ["node_y"]


def test_every_operator_of_a_merge_keeps_its_outputs():
    """The model inside its explainer is untouched."""
    tested = node("Conv", ["x", "w"])
    crosses_as_defined(tested, normal(1, 3, 5, 5), "z-plus", {"w": W})


@pytest.mark.parametrize("groups", [1, 2])
def test_batch_normalization_behind_a_transposed_convolution(groups):
    """A channel's scale goes to the weights of its own group."""
    w = normal(4, 4 // groups, 2, 2, seed=5)
    attributes = {"group": groups, "strides": [2, 2]}
    tail = [node("GlobalAveragePool", ["y"], "g"), node("Flatten", ["g"], "logits")]
    proto = model(
        [
            node("ConvTranspose", ["x", "w"], "z", **attributes),
            *AFFINE["BatchNormalization"][0],
            *tail,
        ],
        {"x": ["N", 4, 3, 3]},
        ["logits"],
        {"w": w, **BN},
    )
    _, _, scale, shift = AFFINE["BatchNormalization"]
    each = np.repeat(scale.reshape(groups, -1), 4 // groups, axis=0)[..., None, None]
    weights = {"w": (w * each).astype(np.float32), "b": shift.astype(np.float32)}
    by_hand = model(
        [node("ConvTranspose", ["x", "w", "b"], "y", **attributes), *tail],
        {"x": ["N", 4, 3, 3]},
        ["logits"],
        weights,
    )
    x = normal(2, 4, 3, 3, seed=6)
    explained = explain(proto, lines("ConvTranspose: z-plus", "*: norm"), {"x": x})
    assert {e.name: e.merged for e in explained.conversion.nodes}["node_z"] == ("node_y",)
    rules = {"ConvTranspose": ("z-plus", {}), "GlobalAveragePool": ("norm", {})}
    wanted = reference.explain(by_hand, {"x": x}, lambda n: rules[n.op_type], ["x"], "logits")
    close(explained.values["relevance"], wanted["x"])


@pytest.mark.parametrize(
    ("sum_", "constant", "passes"),
    [
        (node("Add", ["z", "c"]), np.zeros((1, 3, 1)), True),
        (node("Add", ["c", "z"]), np.zeros(()), True),
        (node("Sub", ["z", "c"]), np.zeros(4), True),
        (node("Sub", ["c", "z"]), np.zeros(4), False),
        (node("Add", ["z", "c"]), np.array([0, 0, 1e-30, 0]), False),
        (node("Add", ["z", "c"]), np.zeros((2, 3, 4)), False),
    ],
)
def test_a_sum_with_nothing_hands_relevance_on(sum_, constant, passes):
    """A mask that masks nothing: a stabiliser of 1 would halve what crosses it."""
    body = [node("Relu", ["x"], "z"), sum_, node("ReduceMean", ["y"], "m", keepdims=0, axes=[1])]
    body.append(node("Gemm", ["m", "readout"], "logits"))
    weights = {"c": constant.astype(np.float32), "readout": normal(4, 3)}
    proto = model(body, {"x": [1, 3, 4]}, ["logits"], weights, opset=17)
    x = np.abs(normal(1, 3, 4, seed=1)) + 0.5
    composite = lines("Add,Sub: epsilon epsilon=1", "ReduceMean: norm", "Gemm: epsilon")
    explained = explain(proto, composite, {"x": x}, inside=["y"])
    crossed = explained.relevance("y").sum(axis=0, keepdims=True)
    assert np.allclose(explained.values["relevance"], crossed, rtol=1e-6) == passes


IN, BEHIND = [0, 3, 1, 2], [0, 2, 3, 1]
W2, S, T = normal(5, C, 2, 2, seed=20), normal(C, seed=21), normal(5, seed=22)
CHANNELS_LAST = [
    node("Transpose", ["x"], "x0", perm=IN),
    node("Conv", ["x0", "w", "b"], "z", pads=[1, 1, 1, 1]),
    node("Transpose", ["z"], "moved", perm=BEHIND),
    node("Mul", ["moved", "s"], "scaled"),
    node("Add", ["t", "scaled"], "shifted"),
    node("Relu", ["shifted"], "a"),
    node("Transpose", ["a"], "a0", perm=IN),
    node("Conv", ["a0", "w2"], "z2"),
    node("Transpose", ["z2"], "moved2", perm=BEHIND),
    node("Sub", ["moved2", "t2"], "shifted2"),
    node("ReduceMean", ["shifted2", "spatial"], "f", keepdims=0),
    node("MatMul", ["f", "readout"], "logits"),
]
CHANNELS_SECOND = [
    node("Conv", ["x", "w", "b"], "z", pads=[1, 1, 1, 1]),
    node("Relu", ["z"], "a"),
    node("Conv", ["a", "w2", "b2"], "z2"),
    node("ReduceMean", ["z2", "spatial"], "f", keepdims=0),
    node("MatMul", ["f", "readout"], "logits"),
]


def channels_last():
    weights = {"w": W, "b": B, "s": S, "t": BN["beta"], "w2": W2, "t2": T}
    weights |= {"spatial": np.array([1, 2]), "readout": normal(5, 3, seed=7)}
    return model(CHANNELS_LAST, {"x": ["N", 6, 6, 3]}, ["logits"], weights)


@pytest.mark.parametrize("rule", ["epsilon", "epsilon bias=distribute", "z-plus", "gamma", "flat"])
def test_what_is_added_behind_a_transpose_belongs_to_the_layer(rule):
    """The oracle explains the same network with channels on axis 1 and merged by hand."""
    composite = lines(f"Conv: {rule}", "ReduceMean: norm", "MatMul: epsilon")
    x = normal(2, 6, 6, 3, seed=9)
    explained = explain(channels_last(), composite, {"x": x})
    merged_into = {entry.name: entry.merged for entry in explained.conversion.nodes}
    assert merged_into["node_z"] == ("node_moved", "node_scaled", "node_shifted")
    assert merged_into["node_z2"] == ("node_moved2", "node_shifted2")
    weights = {
        "w": (W * S[:, None, None, None]).astype(np.float32),
        "b": B * S + BN["beta"],
        "w2": W2,
        "b2": -T,
        "spatial": np.array([2, 3]),
        "readout": normal(5, 3, seed=7),
    }
    by_hand = model(CHANNELS_SECOND, {"x": ["N", 3, 6, 6]}, ["logits"], weights)
    rules = {
        entry.name: (entry.rule, dict(entry.parameters)) for entry in explained.conversion.nodes
    }
    expected = reference.explain(
        by_hand, {"x": x.transpose(IN)}, lambda n: rules[n.name], ["x"], "logits"
    )
    close(explained.values["relevance"], expected["x"].transpose(BEHIND))


REARRANGED = {
    "squeezed": (("Squeeze", ["z", "k"]), np.array([2]), normal(4, 1, seed=1), True),
    "split": (("Reshape", ["z", "k"]), np.array([0, 2, 2, 5]), normal(2, 1, 1, seed=1), False),
    "lengthwise": (("Squeeze", ["z", "k"]), np.array([2]), normal(5, seed=1), False),
    "joined": (("Reshape", ["z", "k"]), np.array([-1, 20]), normal(20, seed=1), False),
}


@pytest.mark.parametrize("case", REARRANGED)
def test_channels_that_stay_an_axis_of_their_own_keep_their_bias(case):
    """Keras' Conv1D is a Conv with an axis of length 1 for rows, squeezed out in front of Add."""
    (operator, inputs), k, constant, belongs = REARRANGED[case]
    body = [
        node("Conv", ["x", "w"], "z"),
        node(operator, inputs, "moved"),
        node("Add", ["moved", "t"], "a"),
        node("Flatten", ["a"], "f"),
        node("MatMul", ["f", "readout"], "logits"),
    ]
    weights = {"w": normal(4, 3, 1, 2, seed=2), "k": k, "t": constant}
    weights["readout"] = normal(20, 3, seed=3)
    proto = model(body, {"x": ["N", 3, 1, 6]}, ["logits"], weights)
    composite = lines("Conv: gamma", "Add,MatMul: epsilon")
    x = normal(2, 3, 1, 6, seed=4)
    explained = explain(proto, composite, {"x": x})
    merged_into = {entry.name: entry.merged for entry in explained.conversion.nodes}
    assert merged_into["node_z"] == (("node_moved", "node_a") if belongs else ())
    if belongs:
        body[0] = node("Conv", ["x", "w", "t"], "z")
        body[2] = node("Identity", ["moved"], "a")
        weights["t"] = constant.reshape(-1)
        by_hand = model(body, {"x": ["N", 3, 1, 6]}, ["logits"], weights)
        rules = {e.name: (e.rule, dict(e.parameters)) for e in explained.conversion.nodes}
        expected = reference.explain(by_hand, {"x": x}, lambda n: rules[n.name], ["x"], "logits")
        close(explained.values["relevance"], expected["x"])


def test_a_dense_layer_on_tokens_in_rows_takes_its_bias():
    """Dense on [N, T, features] as tf2onnx writes it: rows of a matrix, then a Reshape and Add."""
    body = [
        node("Reshape", ["x", "rows"], "x0"),
        node("MatMul", ["x0", "w"], "z"),
        node("Reshape", ["z", "tokens"], "moved"),
        node("Add", ["moved", "t"], "y"),
        node("Relu", ["y"], "a"),
        node("ReduceMean", ["a", "axes"], "g", keepdims=0),
        node("MatMul", ["g", "readout"], "logits"),
    ]
    weights = {"w": normal(5, 4, seed=1), "t": normal(4, seed=2), "readout": normal(4, 3, seed=3)}
    shapes = {"rows": np.array([-1, 5]), "tokens": np.array([-1, 3, 4]), "axes": np.array([1])}
    proto = model(body, {"x": [2, 3, 5]}, ["logits"], weights | shapes)
    x = normal(2, 3, 5, seed=4)
    explained = explain(proto, lines("ReduceMean: norm", "MatMul: z-plus"), {"x": x}, target=0)
    merged_into = {entry.name: entry.merged for entry in explained.conversion.nodes}
    assert merged_into["node_z"] == ("node_moved", "node_y")
    body[1:4] = [node("Gemm", ["x0", "w", "t"], "z"), node("Reshape", ["z", "tokens"], "y")]
    by_hand = model(body, {"x": [2, 3, 5]}, ["logits"], weights | shapes)
    rules = {e.name: (e.rule, dict(e.parameters)) for e in explained.conversion.nodes}
    expected = reference.explain(by_hand, {"x": x}, lambda n: rules[n.name], ["x"], "logits", 0)
    close(explained.values["relevance"], expected["x"])


@pytest.mark.parametrize("given", [{}, {"reference": normal(6, 6, 3, seed=23)}])
@pytest.mark.parametrize("rule", ["epsilon", "gamma"])
def test_the_audit_recomputes_layers_whose_bias_stands_behind_a_transpose(rule, given):
    composite = lines(f"Conv: {rule}", "ReduceMean: norm", "MatMul: epsilon")
    proto = channels_last()
    explainer = onnxlrp.convert(proto, composite, **given).to_proto()
    audit = check(proto, explainer, normal(2, 6, 6, 3, seed=9))
    recomputed = {o.name: layer for layer in audit.layers for o in layer.operations}
    assert not any(o.skipped for layer in audit.layers for o in layer.operations)
    assert all(recomputed[name].difference < 1e-5 for name in ("node_z", "node_z2"))
    assert all(layer.leak < 1e-6 for layer in audit.layers if layer.judged)
