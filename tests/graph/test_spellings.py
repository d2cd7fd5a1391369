"""Operators that are written out in several nodes are what they compute, and nothing else is."""

import numpy as np
import onnx
import pytest
from support import close, explain, lines, model, node, normal

import onnxlrp
from onnxlrp.audit import check
from onnxlrp.graph.canonical import operations
from onnxlrp.graph.loading import load

C = 8
NUMBERS = {
    "two": 2, "half": 0.5, "one": 1, "three": 3, "six": 6, "sixth": 1 / 6, "zero": 0, "eps": 1e-5,
    "root": 2**0.5, "cubic": 0.044715, "tanh": (2 / np.pi) ** 0.5, "least": 1e-12, "minus": -0.5,
}  # fmt: skip
CONSTANTS = {
    **{name: np.float32(value) for name, value in NUMBERS.items()},
    "last": np.array([-1]),
    "first": np.array([1]),
    "both": np.array([1, 2]),
    "scale": normal(C, seed=1),
    "bias": normal(C, seed=2),
    "scale21": normal(3, seed=1).reshape(3, 1),
    "bias21": normal(3, seed=2).reshape(3, 1),
    "ones": np.ones(2, np.float32),
    "zeros": np.zeros(2, np.float32),
}


def steps(text):
    """Read `y = Add x b; ...`, one node each; `@3` behind a name is an attribute's axis."""
    written = []
    for step in text.split(";"):
        output, _, rest = step.partition("=")
        operator, *inputs = rest.split()
        written.append(node(operator, inputs, output.strip()))
    return written


MOMENTS = "m = ReduceMean x last; c = Sub x m; q = {} ; v = ReduceMean q last; w = Add v eps; "
LAYER = node("LayerNormalization", ["x", "scale", "bias"])
PLAIN = node("LayerNormalization", ["x", "unit"])
RMS = node("RMSNormalization", ["x", "scale"], epsilon=1e-5)
UNIT = node("LpNormalization", ["x"])
GELU = "u = Div x root; e = Erf u; f = Add e one; "
TANH = (
    "x2 = Mul x x; x3 = Mul x2 x; k = Mul x3 cubic; s = Add x k; t = Mul s tanh; e = Tanh t;"
    "f = Add one e; "
)

SPELLINGS = {
    "layer, torch": (
        LAYER,
        MOMENTS.format("Pow c two")
        + "s = Sqrt w; d = Div c s; n = Mul d scale; y = Add n bias",
    ),
    "layer, x * x": (
        LAYER,
        MOMENTS.format("Mul c c")
        + "s = Sqrt w; r = Reciprocal s; d = Mul r c; n = Mul scale d; y = Add bias n",
    ),
    "layer, tensorflow": (
        LAYER,
        MOMENTS.format("Mul c c")
        + "s = Sqrt w; r = Reciprocal s; g = Mul r scale; a = Mul x g; b = Mul m g;"
        "o = Sub bias b; y = Add a o",
    ),
    "layer, moments": (
        LAYER,
        "m = ReduceMean x last; xx = Mul x x; q = ReduceMean xx last; mm = Mul m m; v = Sub q mm;"
        "w = Add v eps; r = Pow w minus; c = Sub x m; d = Mul c r; n = Mul d scale; y = Add n bias",
    ),
    "layer, bare": (PLAIN, MOMENTS.format("Pow c two") + "s = Sqrt w; y = Div c s"),
    "rms": (
        RMS,
        "q = Pow x two; v = ReduceMean q last; w = Add v eps; s = Sqrt w; r = Reciprocal s;"
        "n = Mul x r; y = Mul scale n",
    ),
    "rms, x * x": (
        RMS,
        "q = Mul x x; v = ReduceMean q last; w = Add eps v; s = Sqrt w; n = Div x s;"
        "y = Mul n scale",
    ),
    "unit, torch": (
        UNIT,
        "q = ReduceL2 x last; v = Clip q least; s = Shape x; e = Expand v s; y = Div x e",
    ),
    "unit, tensorflow": (
        UNIT,
        "q = Mul x x; v = ReduceSum q last; w = Max v least; s = Sqrt w; r = Reciprocal s;"
        "y = Mul x r",
    ),
    "softmax": (node("Softmax", ["x"]), "e = Exp x; s = ReduceSum e last; y = Div e s"),
    "softmax, stable": (
        node("Softmax", ["x"]),
        "m = ReduceMax x last; d = Sub x m; e = Exp d; s = ReduceSum e last; y = Div e s",
    ),
    "log-softmax": (
        node("LogSoftmax", ["x"]),
        "m = ReduceMax x last; d = Sub x m; e = Exp d; s = ReduceSum e last; l = Log s;"
        "y = Sub d l",
    ),
    "log-softmax, whole": (
        node("LogSoftmax", ["x"]), "l = ReduceLogSumExp x last; y = Sub x l",
    ),
    "log of softmax": (node("LogSoftmax", ["x"]), "s = Softmax x; y = Log s"),
    "gelu": (node("Gelu", ["x"]), GELU + "g = Mul x f; y = Mul g half"),
    "gelu, half first": (node("Gelu", ["x"]), GELU + "h = Mul half x; y = Mul h f"),
    "gelu, half last": (node("Gelu", ["x"]), GELU + "h = Mul f half; y = Mul h x"),
    "gelu, tanh": (
        node("Gelu", ["x"], approximate="tanh"), TANH + "h = Mul x half; y = Mul h f",
    ),
    "silu": (node("Swish", ["x"]), "s = Sigmoid x; y = Mul x s"),
    "silu, exp": (node("Swish", ["x"]), "n = Neg x; e = Exp n; d = Add e one; y = Div x d"),
    "quick gelu": (
        node("Swish", ["x"], alpha=3.0), "t = Mul three x; s = Sigmoid t; y = Mul s x",
    ),
    "mish": (node("Mish", ["x"]), "s = Softplus x; t = Tanh s; y = Mul t x"),
    "mish, log": (
        node("Mish", ["x"]), "e = Exp x; a = Add e one; s = Log a; t = Tanh s; y = Mul t x",
    ),
    "hard swish": (
        node("HardSwish", ["x"]), "a = Add x three; c = Clip a zero six; m = Mul x c; y = Div m six"
    ),
    "hard swish, relu6": (
        node("HardSwish", ["x"]),
        "a = Add x three; r = Relu a; c = Min r six; g = Mul c sixth; y = Mul x g",
    ),
}  # fmt: skip
COMPOSITE = lines("MatMul,Gemm: epsilon")


def network(body, shape=(2, 3, C), **others):
    """Build a network around what turns x into y; a second layer in front makes x signed."""
    size = int(np.prod(shape[1:]))
    weights = {
        **CONSTANTS,
        **others,
        "unit": np.ones(C, np.float32),
        "rows": np.array([-1, size]),
        "mix": normal(shape[-1], shape[-1], seed=3),
        "offset": normal(shape[-1], seed=4),
        "readout": normal(size, 3, seed=5),
    }
    around = [
        node("MatMul", ["image", "mix"], "z"),
        node("Add", ["z", "offset"], "x"),
        *body,
        node("Reshape", ["y", "rows"], "flat"),
        node("Gemm", ["flat", "readout"], "logits"),
    ]
    used = {name for entry in around for name in entry.input}
    weights = {name: array for name, array in weights.items() if name in used}
    # onnx cannot infer the shape of every function operator.
    inside = {"y": ["N", *shape[1:]]}
    return model(around, {"image": ["N", *shape[1:]]}, ["logits"], weights, 24, inside=inside)


def found(proto):
    """Operators of a model's operations, those of several nodes only."""
    several = [op for op in operations(load(proto).model.graph) if len(op.nodes) > 1]
    return [op.operator for op in several if op.operator != "MatMul"]


@pytest.mark.parametrize("name", SPELLINGS)
def test_two_spellings_give_one_map(name):
    whole, text = SPELLINGS[name]
    image = normal(2, 3, C, seed=6)
    written = network(steps(text))
    assert found(written) == [whole.op_type]
    apart, together = (
        explain(proto, COMPOSITE, {"image": image}, target=[1, 0])
        for proto in (written, network([whole]))
    )
    close(apart.values["logits"], together.values["logits"])
    close(apart.values["relevance"], together.values["relevance"])


@pytest.mark.parametrize("name", SPELLINGS)
def test_the_audit_recomputes_them(name):
    proto = network(steps(SPELLINGS[name][1]))
    audit = check(proto, onnxlrp.convert(proto, COMPOSITE).to_proto())
    crossed = [operation for layer in audit.layers for operation in layer.operations]
    assert [operation for operation in crossed if operation.skipped] == []
    assert SPELLINGS[name][0].op_type in [operation.operator for operation in crossed]
    assert audit.passed


def test_a_normalisation_over_channels():
    """ConvNeXt's: an axis that ONNX's own operator cannot name."""
    image = normal(2, 3, C, seed=6)
    text = SPELLINGS["layer, torch"][1]
    for old, new in (("last", "first"), ("scale", "scale21"), ("bias", "bias21")):
        text = text.replace(old, new)
    written = network(steps(text))
    assert found(written) == ["LayerNormalization"]
    turned = network(
        [
            node("Transpose", ["x"], "t", perm=[0, 2, 1]),
            node("LayerNormalization", ["t", "flat_scale", "flat_bias"], "n"),
            node("Transpose", ["n"], perm=[0, 2, 1]),
        ],
        flat_scale=CONSTANTS["scale21"].reshape(-1),
        flat_bias=CONSTANTS["bias21"].reshape(-1),
    )
    apart, together = (
        explain(proto, COMPOSITE, {"image": image}, target=[1, 0]) for proto in (written, turned)
    )
    close(apart.values["relevance"], together.values["relevance"])
    audit = check(written, apart.proto)
    assert audit.passed
    assert not any(o.skipped for layer in audit.layers for o in layer.operations)


@pytest.mark.parametrize("behind", ["y = Add n channel_bias", "y = Identity n"])
@pytest.mark.parametrize("batch", ["zero", "size"])
def test_groups_as_torch_writes_them(behind, batch):
    """Reshape to groups, normalise each, reshape back, then scale and bias of each channel."""
    shape = (2, 4, 3, 5)
    factors = {"channel_scale": normal(4, 1, 1, seed=7), "channel_bias": normal(4, 1, 1, seed=8)}
    weights = {
        **factors,
        "grouped": np.array([0, 2, -1]),
        "flat_scale": factors["channel_scale"].reshape(-1),
        "flat_bias": factors["channel_bias"].reshape(-1) * ("Add" in behind),
    }
    back = "h = Shape x; b = Reshape i h;" if batch == "size" else "b = Reshape i whole;"
    weights["whole"] = np.array([0, 4, 3, 5])
    text = "g = Reshape x grouped; i = InstanceNormalization g ones zeros;" + back
    written = network(steps(f"{text} n = Mul b channel_scale; {behind}"), shape, **weights)
    assert found(written) == ["GroupNormalization"]
    group = node("GroupNormalization", ["x", "flat_scale", "flat_bias"], num_groups=2)
    image = normal(*shape, seed=6)
    apart, together = (
        explain(proto, COMPOSITE, {"image": image}, target=[1, 0])
        for proto in (written, network([group], shape, **weights))
    )
    close(apart.values["relevance"], together.values["relevance"])
    assert check(written, apart.proto).passed


NOT_QUITE = {
    "deviation outside the root": MOMENTS.format("Pow c two")
    + "s = Sqrt v; t = Add s eps; y = Div c t",
    "mean over another axis": (
        MOMENTS.format("Pow c two") + "s = Sqrt w; o = ReduceMean x first; d = Sub x o; y = Div d s"
    ),
    "another power": MOMENTS.format("Pow c three") + "s = Sqrt w; y = Div c s",
    "no root": MOMENTS.format("Pow c two") + "y = Div c w",
    "mean subtracted twice": (MOMENTS.format("Pow c two") + "s = Sqrt w; d = Sub c m; y = Div d s"),
    "another root": GELU.replace("root", "three") + "g = Mul x f; y = Mul g half",
    "another factor": GELU + "g = Mul x f; y = Mul g six",
    "another cubic": TANH.replace("cubic", "half") + "h = Mul x half; y = Mul h f",
    "another offset": "a = Add x two; c = Clip a zero six; m = Mul x c; y = Div m six",
    "another bound": "a = Add x three; c = Clip a zero three; m = Mul x c; y = Div m six",
    "another value's gate": "t = Mul x x; s = Sigmoid t; y = Mul x s",
    "softmax over two axes": "e = Exp x; s = ReduceSum e both; y = Div e s",
    "sum of others": "e = Exp x; t = Mul e two; u = Exp t; s = ReduceSum u last; y = Div e s",
    "a bound that matters": "q = ReduceL2 x last; v = Clip q half; y = Div x v",
    "a norm of absolute values": "a = Abs x; q = ReduceSum a last; y = Div x q",
}


@pytest.mark.parametrize("name", NOT_QUITE)
def test_what_is_only_nearly_an_operator(name):
    assert found(network(steps(NOT_QUITE[name]))) == []


def test_an_operator_of_another_domain():
    proto = network(steps("s = Sigmoid x; y = Mul x s"))
    gate = next(entry for entry in proto.graph.node if entry.op_type == "Sigmoid")
    gate.domain = "some.domain"
    proto.opset_import.append(onnx.helper.make_opsetid("some.domain", 1))
    assert found(proto) == []


@pytest.mark.parametrize("behind", ["y = Add n m", "g = Exp m; y = Mul n g"])
def test_what_others_read_stays_an_operation(behind):
    """The mean is read by the normalisation, and by what is done to its result."""
    written = network(steps(SPELLINGS["layer, bare"][1].replace("y =", "n =") + ";" + behind))
    loaded = operations(load(written).model.graph)
    assert [o.operator for o in loaded if o.name in ("node_m", "node_n", "node_y")] == [
        "ReduceMean",
        "LayerNormalization",
        behind.split("=")[-1].split()[0],
    ]


def test_a_constant_that_is_larger_than_what_is_normalised():
    """Its sum has as many rows as the constant, and the normalisation ends in front of it."""
    text = SPELLINGS["layer, bare"][1].replace("y =", "n =") + "; y = Add n rows5"
    proto = network(steps(text), rows5=normal(2, 3, C, seed=7))
    several = [o for o in operations(load(proto).model.graph) if o.operator == "LayerNormalization"]
    assert [o.name for o in several] == ["node_n"]


def test_shares_that_are_written_out_mix():
    """What a softmax makes of scores is a mixture's weights, however it is spelt."""
    text = SPELLINGS["softmax, stable"][1].replace("y =", "p =")
    body = [node("Transpose", ["x"], "t", perm=[0, 2, 1]), node("MatMul", ["x", "t"], "xx")]
    body += [*steps(text.replace(" x", " xx")), node("MatMul", ["p", "x"])]
    conversion = onnxlrp.convert(network(body), COMPOSITE)
    assert {entry.name: entry.operator for entry in conversion.nodes}["node_y"] == "Mixture"


def test_a_long_chain_is_looked_at_and_left():
    """No operator is as long, and following it to its end would take for ever."""
    steps_of = [f"y{k + 2} = Add t{k} y{k}; t{k + 1} = Tanh y{k + 2}" for k in range(600)]
    text = "y0 = Relu x; y1 = Tanh x; t0 = Tanh y1; " + "; ".join(steps_of) + "; y = Add t600 y601"
    assert found(network(steps(text))) == []


def test_numbers_that_overflow():
    text = "a = Add x large; e = Exp a; s = ReduceSum e last; y = Div e s"
    proto = network(steps(text), large=np.float32(1e4))
    assert found(proto) in ([], ["Softmax"])


def test_half_precision():
    """With the moments in float32, as mixed precision is exported."""
    text = (
        "xf = Cast x; m = ReduceMean xf last; c = Sub xf m; q = Mul c c; v = ReduceMean q last;"
        "w = Add v eps; s = Sqrt w; d = Div c s; n = Mul d scale; k = Add n bias; y = Cast k"
    )
    body = steps(text)
    for entry, kind in ((body[0], 1), (body[-1], 10)):
        entry.attribute.append(onnx.helper.make_attribute("to", kind))
    front = [node("Cast", ["x16"], "x", to=10)]
    around = [node("Identity", ["x32"], "x16"), *front, *body]
    around[-1].output[0] = "y16"
    proto = network(
        [*steps("x32 = Relu x"), *rename(around), node("Cast", ["y16"], to=1)],
    )
    assert found(proto) == ["LayerNormalization"]


def rename(nodes):
    """Call x what is cast to half precision, beside the network's own x."""
    for entry in nodes:
        entry.input[:] = ["half_x" if name == "x" else name for name in entry.input]
        entry.output[:] = ["half_x" if name == "x" else name for name in entry.output]
    return nodes
