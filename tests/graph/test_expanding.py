"""Operators that are written out: the outputs stay, and the map is that of the plain spelling."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper
from support import close, explain, lines, node, normal, run

import onnxlrp
from onnxlrp.audit import check
from onnxlrp.errors import UnsupportedError
from onnxlrp.graph.loading import load

N, T, C, H = 2, 5, 8, 2
COMPOSITE = lines(
    "Conv,Gemm,MatMul,Add,Mul,Sub,Div,ReduceSum: epsilon", "MaxPool: winner-takes-all"
)


def fused(operator, inputs, outputs="y", domain="com.microsoft", **attributes):
    """Build a node of onnxruntime's own."""
    made = [outputs] if isinstance(outputs, str) else outputs
    return helper.make_node(operator, inputs, made, f"fused_{made[0]}", domain=domain, **attributes)


def network(body, shape, weights, out=None, opset=18, **inputs):
    """Build a network around what turns x into y, onnxruntime's operators among it."""
    out = out or shape
    size = int(np.prod(out[1:]))
    weights = {**weights, "rows": np.array([-1, size]), "readout": normal(size, 3, seed=5)}
    weights |= {"mix": normal(shape[-1], shape[-1], seed=3, scale=0.5)}
    nodes = [
        node("MatMul", ["image", "mix"], "x"),
        *body,
        node("Reshape", ["y", "rows"], "flat"),
        node("Gemm", ["flat", "readout"], "logits"),
    ]
    used = {name for entry in nodes for name in entry.input}
    values = [helper.make_tensor_value_info("image", 1, ["N", *shape[1:]])]
    for name, array in inputs.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        values.append(helper.make_tensor_value_info(name, kind, ["N", *array.shape[1:]]))
    graph = helper.make_graph(
        nodes,
        "test",
        values,
        [helper.make_tensor_value_info("logits", 1, ["N", 3])],
        [onnx.numpy_helper.from_array(a, n) for n, a in weights.items() if n in used],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def same(whole, plain, image, inputs=None, tolerance=1e-5):
    """Compare two networks: outputs with onnxruntime's own run of the first, and both maps."""
    feeds = {"image": image, **(inputs or {})}
    first, second = (
        explain(proto, COMPOSITE, feeds, target=[1] * len(image), inputs=["image"])
        for proto in (whole, plain)
    )
    close(first.values["logits"], run(whole, feeds)["logits"], tolerance)
    close(first.values["relevance"], second.values["relevance"], tolerance)


W = {
    "w": normal(C, C, seed=1),
    "b": normal(C, seed=2),
    "scale": normal(C, seed=3),
    "shift": normal(C, seed=4),
    "half": np.float32(0.5),
    "alpha": np.float32(1.702),
    "two": np.float32(2),
    "eps": np.float32(1e-5),
    "last": np.array([-1]),
    "many": normal(C, 2 * C, seed=6),
    "b2": normal(2 * C, seed=7),
}
RMS = [
    node("Mul", ["s", "s"], "q"),
    node("ReduceMean", ["q", "last"], "v"),
    node("Add", ["v", "eps"], "ve"),
    node("Sqrt", ["ve"], "d"),
    node("Div", ["s", "d"], "n"),
    node("Mul", ["n", "scale"]),
]
SUM = node("Add", ["x", "image"], "s")
BIASED = node("Add", ["x", "b"], "s")
LAYER = node("LayerNormalization", ["s", "scale", "shift"], epsilon=1e-5)

FUSED = {
    "Gelu": ([fused("Gelu", ["x"])], [node("Gelu", ["x"])]),
    "BiasGelu": ([fused("BiasGelu", ["x", "b"])], [BIASED, node("Gelu", ["s"])]),
    "FastGelu": ([fused("FastGelu", ["x"])], [node("Gelu", ["x"], approximate="tanh")]),
    "FastGelu, bias": (
        [fused("FastGelu", ["x", "b"])],
        [BIASED, node("Gelu", ["s"], approximate="tanh")],
    ),
    "QuickGelu": (
        [fused("QuickGelu", ["x"], alpha=1.702)],
        [node("Mul", ["x", "alpha"], "t"), node("Sigmoid", ["t"], "g"), node("Mul", ["x", "g"])],
    ),
    "FusedMatMul": (
        [fused("FusedMatMul", ["x", "w"], transB=1, alpha=0.5)],
        [
            node("Transpose", ["w"], "wt", perm=[1, 0]),
            node("MatMul", ["x", "wt"], "m"),
            node("Mul", ["m", "half"]),
        ],
    ),
    "FusedMatMul of two live values": (
        [fused("FusedMatMul", ["x", "image"], "p", transA=1), node("MatMul", ["image", "p"])],
        [
            node("Transpose", ["x"], "xt", perm=[0, 2, 1]),
            node("MatMul", ["xt", "image"], "p"),
            node("MatMul", ["image", "p"]),
        ],
    ),
    "SkipLayerNormalization": (
        [fused("SkipLayerNormalization", ["x", "image", "scale", "shift"], epsilon=1e-5)],
        [SUM, LAYER],
    ),
    "SkipLayerNormalization, bias and sum": (
        [
            fused(
                "SkipLayerNormalization",
                ["x", "image", "scale", "shift", "b"],
                ["n", "", "", "total"],
                epsilon=1e-5,
            ),
            node("Add", ["n", "total"]),
        ],
        [
            node("Add", ["x", "b"], "r"),
            node("Add", ["r", "image"], "s"),
            node("LayerNormalization", ["s", "scale", "shift"], "n", epsilon=1e-5),
            node("Add", ["n", "s"]),
        ],
    ),
    "SkipSimplifiedLayerNormalization": (
        [fused("SkipSimplifiedLayerNormalization", ["x", "image", "scale"], epsilon=1e-5)],
        [SUM, *RMS],
    ),
    "SimplifiedLayerNormalization": (
        [SUM, fused("SimplifiedLayerNormalization", ["s", "scale"], domain="", epsilon=1e-5)],
        [SUM, *RMS],
    ),
}


@pytest.mark.parametrize("name", FUSED)
def test_onnxruntimes_fused_operators(name):
    whole, plain = FUSED[name]
    shape = (N, T, C)
    same(
        network(whole, shape, W),
        network(plain, shape, W, opset=20 if "Gelu" in name else 18),
        normal(*shape, seed=8),
    )


def test_layer_normalization_before_there_was_one():
    """Below opset 17 onnxruntime has one of its own in ONNX's domain."""
    shape = (N, T, C)
    old = network([SUM, LAYER], shape, W, opset=13)
    same(old, network([SUM, LAYER], shape, W), normal(*shape, seed=8))


CONV = {"w": normal(4, 3, 3, 3, seed=1), "b": normal(4, seed=2), "z": normal(1, 4, 6, 6, seed=3)}
ACTIVATIONS = {
    "Relu": ([], {}),
    "LeakyRelu": ([0.2], {"alpha": 0.2}),
    "HardSigmoid": ([0.2, 0.4], {"alpha": 0.2, "beta": 0.4}),
    "Tanh": ([], {}),
    "Sigmoid": ([], {}),
}


@pytest.mark.parametrize("operator", ACTIVATIONS)
def test_a_convolution_with_its_activation(operator):
    numbers, attributes = ACTIVATIONS[operator]
    given = {"activation_params": numbers} if numbers else {}
    one = fused("FusedConv", ["x", "w", "b"], activation=operator, pads=[1] * 4, **given)
    plain = [
        node("Conv", ["x", "w", "b"], "c", pads=[1] * 4),
        node(operator, ["c"], **attributes),
    ]
    shape, out = (N, 3, 6, 6), (N, 4, 6, 6)
    same(
        network([one], shape, CONV, out),
        network(plain, shape, CONV, out),
        normal(*shape, seed=8),
    )


def test_a_convolution_with_a_sum_and_bounds():
    weights = {**CONV, "low": np.float32(0), "high": np.float32(6)}
    inputs = ["x", "w", "b", "image4"]
    body = [node("Concat", ["image", "first"], "image4", axis=1)]
    cut = {"zero": np.array([0]), "one": np.array([1]), "axis": np.array([1])}
    body = [node("Slice", ["image", "zero", "one", "axis"], "first"), *body]
    whole = fused("FusedConv", inputs, activation="Relu", pads=[1] * 4)
    plain = [
        node("Conv", ["x", "w", "b"], "c", pads=[1] * 4),
        node("Add", ["c", "image4"], "s"),
        node("Relu", ["s"]),
    ]
    shape, out = (N, 3, 6, 6), (N, 4, 6, 6)
    same(
        network([*body, whole], shape, weights | cut, out),
        network([*body, *plain], shape, weights | cut, out),
        normal(*shape, seed=8),
    )


def test_a_gemm_with_its_activation():
    whole = fused("FusedGemm", ["x", "w", "b"], transB=1, activation="LeakyRelu",
                  activation_alpha=0.1)  # fmt: skip
    plain = [
        node("Gemm", ["x", "w", "b"], "g", transB=1),
        node("LeakyRelu", ["g"], alpha=0.1),
    ]
    same(network([whole], (N, C), W), network(plain, (N, C), W), normal(N, C, seed=8))


def test_onnxruntimes_own_optimiser(tmp_path):
    """A network with attention, as onnxruntime writes it once it is optimised."""
    shape = (N, T, C)
    gelu = [
        node("Div", ["h", "root"], "g1"),
        node("Erf", ["g1"], "g2"),
        node("Add", ["g2", "one"], "g3"),
        node("Mul", ["h", "g3"], "g4"),
        node("Mul", ["g4", "half"], "g"),
    ]
    body = [
        node("MatMul", ["x", "many"], "m"),
        node("Add", ["m", "b2"], "h"),
        *gelu,
        node("MatMul", ["g", "back"], "o"),
        node("Add", ["o", "b"], "ob"),
        node("Add", ["ob", "x"], "s"),
        LAYER,
    ]
    weights = {**W, "root": np.float32(2**0.5), "one": np.float32(1), "back": normal(2 * C, C)}
    plain = network(body, shape, weights, opset=17)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    ort.InferenceSession(plain.SerializeToString(), options, providers=["CPUExecutionProvider"])
    whole = onnx.load(tmp_path / "fused.onnx")
    assert {entry.domain for entry in whole.graph.node} == {"", "com.microsoft"}
    same(whole, plain, normal(*shape, seed=8))


HEADS = {
    "q": ("image", "wq"),
    "k": ("x", "wk"),
    "v": ("x", "wv"),
}
PROJECTED = [node("MatMul", list(pair), name) for name, pair in HEADS.items()]
ATTENTION = {
    "wq": normal(C, C, seed=1),
    "wk": normal(C, C, seed=2),
    "wv": normal(C, C, seed=3),
    "split": np.array([0, 0, H, -1]),
    "few": np.array([0, 0, 1, -1]),
    "join": np.array([0, 0, -1]),
    "scale": np.float32((C // H) ** -0.5),
    "cap": np.float32(2),
    "seen": np.array([1, 1, 1, 1, 0], np.float32) * 0,
    "tail": np.array([0, 0, 0, 0, -1e4], np.float32),
    "future": np.triu(np.full((T, T), np.finfo(np.float32).min), 1),
    "wf": normal(C, C // H, seed=4),
    "wfv": normal(C, C // H, seed=5),
}


def spelt(*between, shares="scaled", scale="scale"):
    """Attention as exporters write it, in nodes of its own."""
    parts = []
    for name, shape in (("q", "split"), ("k", "split"), ("v", "split")):
        parts += [
            node("Reshape", [name, shape], f"{name}r"),
            node("Transpose", [f"{name}r"], f"{name}h", perm=[0, 2, 1, 3]),
        ]
    return [
        *parts,
        node("Transpose", ["kh"], "kt", perm=[0, 1, 3, 2]),
        node("MatMul", ["qh", "kt"], "raw"),
        node("Mul", ["raw", scale], "scaled"),
        *between,
        node("Softmax", [shares], "shares"),
        node("MatMul", ["shares", "vh"], "mixed"),
        node("Transpose", ["mixed"], "back", perm=[0, 2, 1, 3]),
        node("Reshape", ["back", "join"]),
    ]


CAP = [
    node("Div", ["scaled", "cap"], "c1"),
    node("Tanh", ["c1"], "c2"),
    node("Mul", ["c2", "cap"], "capped"),
]
ONNX_ATTENTION = {
    "plain": ({}, [], spelt()),
    "causal": (
        {"is_causal": 1},
        [],
        spelt(node("Add", ["scaled", "future"], "masked"), shares="masked"),
    ),
    "masked": ({}, ["tail2"], spelt(node("Add", ["scaled", "tail2"], "masked"), shares="masked")),
    "soft cap": ({"softcap": 2.0}, [], spelt(*CAP, shares="capped")),
    "all": (
        {"softcap": 2.0, "is_causal": 1},
        ["tail2"],
        spelt(
            *CAP,
            node("Add", ["capped", "tail2"], "m1"),
            node("Add", ["m1", "future"], "m2"),
            shares="m2",
        ),
    ),
    "scaled": ({"scale": 0.7}, [], spelt(scale="own")),
}


@pytest.mark.parametrize("opset", [23, 24])
@pytest.mark.parametrize("name", ONNX_ATTENTION)
def test_attention_of_onnx(name, opset):
    attributes, masks, plain = ONNX_ATTENTION[name]
    weights = {**ATTENTION, "tail2": np.tile(ATTENTION["tail"], (T, 1)), "own": np.float32(0.7)}
    whole = node("Attention", ["q", "k", "v", *masks], q_num_heads=H, kv_num_heads=H, **attributes)
    shape = (N, T, C)
    same(
        network([*PROJECTED, whole], shape, weights, opset=opset),
        network([*PROJECTED, *plain], shape, weights),
        normal(*shape, seed=8),
    )


def test_attention_of_onnx_with_heads_apart():
    """Four axes, and a mask that says which keys are seen."""
    weights = {**ATTENTION, "mask": np.array([[True, True, True, True, False]] * T)}
    before, after = spelt()[:6], spelt()[-2:]
    whole = node("Attention", ["qh", "kh", "vh", "mask"], "mixed")
    lowest = np.where(weights["mask"], 0, np.finfo(np.float32).min).astype(np.float32)
    plain = spelt(node("Add", ["scaled", "lowest"], "masked"), shares="masked")
    shape = (N, T, C)
    same(
        network([*PROJECTED, *before, whole, *after], shape, weights, opset=23),
        network([*PROJECTED, *plain], shape, {**weights, "lowest": lowest}),
        normal(*shape, seed=8),
    )


def test_queries_that_share_heads():
    """Grouped-query attention is attention with heads repeated in the weights."""
    size = C // H
    projected = [
        PROJECTED[0],
        node("MatMul", ["x", "wf"], "k"),
        node("MatMul", ["x", "wfv"], "v"),
    ]
    whole = node("Attention", ["q", "k", "v"], q_num_heads=H, kv_num_heads=1)
    repeated = {name: np.tile(ATTENTION[given], (1, H)) for name, given in
                (("wk", "wf"), ("wv", "wfv"))}  # fmt: skip
    assert repeated["wk"].shape == (C, H * size)
    shape = (N, T, C)
    same(
        network([*projected, whole], shape, ATTENTION, opset=23),
        network([*PROJECTED, *spelt()], shape, {**ATTENTION, **repeated}),
        normal(*shape, seed=8),
    )


def masked():
    """What a mask of onnxruntime's adds to the scores."""
    return [
        node("Cast", ["mask"], "seen_f", to=1),
        node("Sub", ["one", "seen_f"], "unseen"),
        node("Mul", ["unseen", "filter"], "filtered"),
        node("Unsqueeze", ["filtered", "axes"], "padding"),
        node("Add", ["scaled", "padding"], "masked"),
    ]


MASK = {"one": np.float32(1), "filter": np.float32(-10000), "axes": np.array([1, 2])}
SEEN = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], np.int32)


@pytest.mark.parametrize(
    ("packed", "mask"),
    [(True, m) for m in ("none", "seen", "lengths", "unidirectional")]
    + [(False, m) for m in ("none", "seen", "unidirectional")],
)
def test_attention_of_onnxruntime(packed, mask):
    """With its projections as one matrix (Attention), or without (MultiHeadAttention)."""
    weights = {**ATTENTION, **MASK, "b3": normal(3 * C, seed=9)}
    weights["w3"] = np.concatenate([weights[w] for w in ("wq", "wk", "wv")], axis=1)
    for i, name in enumerate("qkv"):
        weights[f"b{name}"] = weights["b3"][i * C : (i + 1) * C]
    extra = {"unidirectional": 1} if mask == "unidirectional" else {}
    wanted = "mask" if mask in ("seen", "lengths") else ""
    if packed:
        inputs = ["x", "w3", "b3", wanted]
        whole = [fused("Attention", inputs, num_heads=H, **extra)]
    else:
        made = [node("MatMul", ["x", f"w{n}"], n) for n in "qkv"]
        whole = [
            *made,
            fused("MultiHeadAttention", ["q", "k", "v", "b3", wanted], num_heads=H, **extra),
        ]
    plain = [
        entry
        for n in "qkv"
        for entry in (
            node("MatMul", ["x", f"w{n}"], f"{n}_"),
            node("Add", [f"{n}_", f"b{n}"], n),
        )
    ]
    if wanted:
        plain += spelt(*masked(), shares="masked")
    elif extra:
        plain += spelt(node("Add", ["scaled", "future"], "masked"), shares="masked")
    else:
        plain += spelt()
    given = {"mask": SEEN} if wanted else {}
    whole_given = {"mask": SEEN.sum(axis=1).astype(np.int32)} if mask == "lengths" else given
    shape = (N, T, C)
    image = normal(*shape, seed=8)
    results = []
    for body, more in ((whole, whole_given), (plain, given)):
        proto = network(body, shape, weights, **more)
        done = explain(proto, COMPOSITE, {"image": image, **more}, [1, 1], inputs=["image"])
        close(done.values["logits"], run(proto, {"image": image, **more})["logits"])
        results.append(done.values["relevance"])
    close(*results)


CIRCLE = np.arange(7)[:, None] * np.array([0.3, 1.1])
ROTARY = {
    "cos": np.cos(CIRCLE).astype(np.float32),
    "sin": np.sin(CIRCLE).astype(np.float32),
    "cos_5": np.cos(CIRCLE[:5])[None].astype(np.float32),
    "sin_5": np.sin(CIRCLE[:5])[None].astype(np.float32),
    "places": np.arange(5)[None],
    "split": np.array([0, 0, H, -1]),
    "join": np.array([0, 0, -1]),
    "pairs": np.array([0, 0, 0, 2, 2]),
    "alone": np.array([0, 0, 0, 4]),
    "last": np.array([-1]),
    "cos_h": np.cos(CIRCLE[:5])[None, None].astype(np.float32),
    "sin_h": np.sin(CIRCLE[:5])[None, None].astype(np.float32),
}


def rotated(interleaved):
    """Rotary embedding as it is written out by hand, of heads of 4."""
    pairs = [
        node("Reshape", ["h", "pairs"], "hp"),
        helper.make_node("Split", ["hp"], ["a1", "b1"], "cut", axis=-1, num_outputs=2),
        node("Squeeze", ["a1", "last"], "a"),
        node("Squeeze", ["b1", "last"], "b"),
    ]
    halves = [helper.make_node("Split", ["h"], ["a", "b"], "cut", axis=-1, num_outputs=2)]
    joined = [
        node("Unsqueeze", ["re", "last"], "re1"),
        node("Unsqueeze", ["im", "last"], "im1"),
        node("Concat", ["re1", "im1"], "two", axis=-1),
        node("Reshape", ["two", "alone"], "whole"),
    ]
    return [
        node("Reshape", ["x", "split"], "r"),
        node("Transpose", ["r"], "h", perm=[0, 2, 1, 3]),
        *(pairs if interleaved else halves),
        node("Mul", ["a", "cos_h"], "ac"),
        node("Mul", ["b", "sin_h"], "bs"),
        node("Sub", ["ac", "bs"], "re"),
        node("Mul", ["a", "sin_h"], "as"),
        node("Mul", ["b", "cos_h"], "bc"),
        node("Add", ["as", "bc"], "im"),
        *(joined if interleaved else [node("Concat", ["re", "im"], "whole", axis=-1)]),
        node("Transpose", ["whole"], "back", perm=[0, 2, 1, 3]),
        node("Reshape", ["back", "join"]),
    ]


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("written", ["onnx", "onnx, positions", "onnxruntime"])
def test_rotary_embedding(written, interleaved):
    attributes = {"interleaved": interleaved, "num_heads": H}
    whole = {
        "onnx": node("RotaryEmbedding", ["x", "cos_5n", "sin_5n"], **attributes),
        "onnx, positions": node("RotaryEmbedding", ["x", "cos", "sin", "places_n"], **attributes),
        "onnxruntime": fused("RotaryEmbedding", ["x", "places_n", "cos", "sin"], **attributes),
    }[written]
    weights = {f"{name}_n": np.repeat(ROTARY[name], N, axis=0) for name in ("places",)}
    weights |= {f"{name}n": np.repeat(ROTARY[name], N, axis=0) for name in ("cos_5", "sin_5")}
    shape = (N, T, C)
    opset = 23 if "onnx" in written and written != "onnxruntime" else 18
    same(
        network([whole], shape, ROTARY | weights, opset=opset),
        network(rotated(interleaved), shape, ROTARY),
        normal(*shape, seed=8),
    )


NO_KERNEL = {
    "BiasAdd": (
        fused("BiasAdd", ["x", "b", "image"]),
        [BIASED, node("Add", ["s", "image"])],
    ),
    "BiasSoftmax": (
        fused("BiasSoftmax", ["x", "b"], axis=-1, is_inner_broadcast=1),
        [BIASED, node("Softmax", ["s"], axis=-1)],
    ),
    "GemmFastGelu": (
        fused("GemmFastGelu", ["x", "w", "b"]),
        [
            node("MatMul", ["x", "w"], "m"),
            node("Add", ["m", "b"], "s"),
            node("Gelu", ["s"], approximate="tanh"),
        ],
    ),
    "BiasSplitGelu": (
        fused("BiasSplitGelu", ["wide", "b2"]),
        [
            node("Add", ["wide", "b2"], "s"),
            helper.make_node("Split", ["s"], ["l", "r"], "cut", axis=-1, num_outputs=2),
            node("Gelu", ["r"], "g"),
            node("Mul", ["l", "g"]),
        ],
    ),
}


@pytest.mark.parametrize("name", NO_KERNEL)
def test_operators_that_a_processor_has_no_kernel_for(name):
    whole, plain = NO_KERNEL[name]
    front = [node("MatMul", ["x", "many"], "wide")] if "wide" in whole.input else []
    shape = (N, T, C)
    image = normal(*shape, seed=8)
    first, second = (
        explain(network([*front, *body], shape, W, opset=20), COMPOSITE, {"image": image}, [1, 1])
        for body in ([whole], plain)
    )
    close(first.values["logits"], second.values["logits"])
    close(first.values["relevance"], second.values["relevance"])


INLINED = {
    "ReduceL2": (
        [node("ReduceL2", ["x", "last"], "d"), node("Div", ["x", "d"])],
        [node("LpNormalization", ["x"])],
    ),
    "ReduceLogSumExp": (
        [node("ReduceLogSumExp", ["x", "last"], "d"), node("Sub", ["x", "d"])],
        [node("LogSoftmax", ["x"])],
    ),
    "ReduceSumSquare": (
        [node("ReduceSumSquare", ["x", "last"], "d"), node("Mul", ["x", "d"])],
        [
            node("Mul", ["x", "x"], "q"),
            node("ReduceSum", ["q", "last"], "d"),
            node("Mul", ["x", "d"]),
        ],
    ),
    "ReduceL1": (
        [node("ReduceL1", ["x", "last"], "d"), node("Add", ["x", "d"])],
        [
            node("Abs", ["x"], "q"),
            node("ReduceSum", ["q", "last"], "d"),
            node("Add", ["x", "d"]),
        ],
    ),
    "CastLike": (
        [node("CastLike", ["x", "half"], "d"), node("Relu", ["d"])],
        [node("Relu", ["x"])],
    ),
}


@pytest.mark.parametrize("name", INLINED)
def test_operators_that_onnx_has_a_body_for(name):
    whole, plain = INLINED[name]
    shape = (N, T, C)
    same(network(whole, shape, W), network(plain, shape, W), normal(*shape, seed=8))


def test_what_no_body_covers_is_refused_by_name():
    """Scores as an output of their own; a memory layout of onnxruntime's own."""
    shape = (N, T, C)
    whole = helper.make_node(
        "Attention", ["q", "k", "v"], ["y", "", "", "scores"], q_num_heads=H, kv_num_heads=H
    )
    telling = network([*PROJECTED, whole], shape, ATTENTION, opset=23)
    inner = fused("Conv", ["x", "w"], domain="com.microsoft.nchwc")
    blocked = network([inner], (N, 3, 6, 6), CONV, (N, 4, 4, 4))
    blocked.opset_import.append(helper.make_opsetid("com.microsoft.nchwc", 1))
    for proto, message in ((telling, "Attention"), (blocked, "ORT_ENABLE_EXTENDED")):
        with pytest.raises(UnsupportedError, match=message):
            onnxlrp.convert(proto, COMPOSITE)


def test_the_audit_recomputes_what_was_written_out():
    shape = (N, T, C)
    body = [
        *PROJECTED,
        fused("MultiHeadAttention", ["q", "k", "v"], "a", num_heads=H),
        fused("SkipLayerNormalization", ["a", "x", "scale", "shift"], "n", epsilon=1e-5),
        fused("BiasGelu", ["n", "b"]),
    ]
    proto = network(body, shape, {**W, **ATTENTION, "scale": W["scale"]})
    audit = check(proto, onnxlrp.convert(proto, COMPOSITE, inputs=["image"]).to_proto())
    assert audit.passed
    crossed = [operation for layer in audit.layers for operation in layer.operations]
    assert {o.operator for o in crossed} >= {"LayerNormalization", "Gelu", "Softmax", "Mixture"}
    assert [o.skipped for o in crossed if o.skipped] == []


def outputs_stay(proto, feeds):
    """Compare what onnxruntime computes of a model before and after it was loaded."""
    loaded = ir.to_proto(load(proto).model)
    assert {entry.domain for entry in loaded.graph.node} == {""}
    after = run(loaded, feeds)
    for name, array in run(proto, feeds).items():
        np.testing.assert_allclose(after[name], array, atol=1e-5)


@pytest.mark.parametrize("segments", [True, False])
@pytest.mark.parametrize("mask", [True, False])
def test_embedding_with_its_normalisation(segments, mask):
    tables = {name: normal(9, C, seed=i) for i, name in enumerate(("words", "places", "kinds"))}
    inputs = ["ids", "kind" if segments else "", "words", "places", "kinds" if segments else ""]
    embed = fused(
        "EmbedLayerNormalization",
        [*inputs, "scale", "shift", "mask" if mask else ""],
        ["y", "index"],
        epsilon=1e-5,
    )
    used = [name for name in ("ids", "kind", "mask") if name in embed.input]
    constants = {**tables, "scale": W["scale"], "shift": W["shift"]}
    graph = helper.make_graph(
        [embed],
        "test",
        [helper.make_tensor_value_info(name, 6, ["N", T]) for name in used],
        [helper.make_tensor_value_info(n, t, None) for n, t in (("y", 1), ("index", 6))],
        [onnx.numpy_helper.from_array(a, n) for n, a in constants.items() if n in embed.input],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    random = np.random.default_rng(0)
    feeds = {"ids": random.integers(0, 9, (N, T)), "kind": random.integers(0, 2, (N, T))}
    feeds["mask"] = SEEN
    outputs_stay(proto, {name: feeds[name].astype(np.int32) for name in used})


def test_pooling_with_channels_last():
    pool = fused("NhwcMaxPool", ["x"], kernel_shape=[2, 2], strides=[2, 2], pads=[1, 0, 0, 1])
    graph = helper.make_graph(
        [pool],
        "test",
        [helper.make_tensor_value_info("x", 2, ["N", 5, 6, 3])],
        [helper.make_tensor_value_info("y", 2, None)],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    x = np.random.default_rng(0).integers(0, 255, (N, 5, 6, 3)).astype(np.uint8)
    outputs_stay(proto, {"x": x})


def test_the_map_of_tokens_is_that_of_the_plain_embedding():
    weights = {name: normal(9, C, seed=i) for i, name in enumerate(("words", "places", "kinds"))}
    weights |= {"scale": W["scale"], "shift": W["shift"], "places_5": weights["places"][:T]}
    weights |= {"rows": np.array([-1, T * C]), "readout": normal(T * C, 3, seed=5)}
    inputs = ["ids", "kind", "words", "places", "kinds", "scale", "shift"]
    whole = [fused("EmbedLayerNormalization", inputs, ["y", ""], epsilon=1e-5)]
    plain = [
        node("Gather", ["words", "ids"], "w"),
        node("Gather", ["kinds", "kind"], "k"),
        node("Add", ["w", "k"], "a"),
        node("Add", ["a", "places_5"], "s"),
        LAYER,
    ]
    random = np.random.default_rng(0)
    feeds = {"ids": random.integers(0, 9, (N, T)), "kind": random.integers(0, 2, (N, T))}
    feeds = {name: array.astype(np.int32) for name, array in feeds.items()}
    results = []
    for body in (whole, plain):
        nodes = [
            *body,
            node("Reshape", ["y", "rows"], "flat"),
            node("Gemm", ["flat", "readout"], "logits"),
        ]
        read = {name for entry in nodes for name in entry.input}
        graph = helper.make_graph(
            nodes,
            "test",
            [helper.make_tensor_value_info(name, 6, ["N", T]) for name in feeds],
            [helper.make_tensor_value_info("logits", 1, ["N", 3])],
            [onnx.numpy_helper.from_array(a, n) for n, a in weights.items() if n in read],
        )
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
        proto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        done = explain(proto, COMPOSITE, feeds, target=[1, 2], inputs=["ids"])
        close(done.values["logits"], run(proto, feeds)["logits"])
        results.append(done.values["relevance"])
    assert results[0].shape == (N, T)
    close(*results)


@pytest.mark.parametrize("left", [False, True])
def test_a_product_with_a_vector_is_one_with_a_matrix_of_one_column(left):
    size, made = (T, C) if left else (C, T)
    vector = normal(size, seed=4)
    weights = {"v": vector, "m": vector.reshape((1, T) if left else (C, 1))}
    weights["rows2"] = np.array([-1, made])
    plain = [node("MatMul", ["m", "x"] if left else ["x", "m"], "p")]
    plain.append(node("Reshape", ["p", "rows2"]))
    whole = [node("MatMul", ["v", "x"] if left else ["x", "v"])]
    first, second = (network(body, (N, T, C), weights, (N, made)) for body in (whole, plain))
    same(first, second, normal(N, T, C, seed=8))
