"""Quantised networks: outputs bit for bit, relevance by the definition of what they compute."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support import Array, close, lines, model, node, normal, run, with_outputs

import onnxlrp
from onnxlrp.audit.checking import check
from onnxlrp.errors import ModelError, UnsupportedError

MICROSOFT = "com.microsoft"
EPSILON = 1e-6


def step(largest: float, bits: int = 8) -> Array:
    """Distance of two neighbours."""
    return np.array(largest / (2**bits - 1), np.float32)


W1, B1 = normal(3, 2, 3, 3, seed=1, scale=0.4), normal(3, seed=2, scale=0.2)
W2, B2 = normal(48, 4, seed=3, scale=0.3), normal(4, seed=4, scale=0.2)
X = normal(3, 2, 6, 6, seed=5)
SCALES = {"x": step(6.0), "h": step(3.0), "y": step(10.0)}
ZEROS = {"x": 128, "h": 0, "y": 128}


def whole(real: Array, scale: Array, zero: int, kind: type) -> Array:
    """Quantise: round to even, and cut to what the type holds."""
    limits = np.iinfo(kind)
    return np.clip(np.rint(real / scale) + zero, limits.min, limits.max).astype(kind)


class Definition:
    """The network in float64, from what its integers mean, and relevance from z_ij."""

    def __init__(self, per_channel: bool, signed: bool) -> None:
        self.kind: type = np.int8 if signed else np.uint8
        move = 128 if signed else 0
        self.zeros = {name: zero - move for name, zero in ZEROS.items()}
        axis = (1, 2, 3) if per_channel else None
        self.w1_scale = np.asarray(np.abs(W1).max(axis) / 63, np.float32)
        self.w2_scale = np.asarray(np.abs(W2).max(0 if per_channel else None) / 63, np.float32)
        spread = self.w1_scale.reshape(-1, 1, 1, 1)
        self.w1 = whole(W1, spread, 0, np.int8)
        self.w2 = whole(W2, self.w2_scale, 0, np.int8)
        self.b1_scale = SCALES["x"] * self.w1_scale
        self.b2_scale = SCALES["h"] * self.w2_scale
        self.b1, self.b2 = (
            np.rint(b / s).astype(np.int32) for b, s in ((B1, self.b1_scale), (B2, self.b2_scale))
        )
        wide = np.float64
        self.matrix, self.bias = _as_matrix(self.w1 * wide(1) * spread, self.b1 * self.b1_scale)
        self.second = self.w2 * wide(1) * self.w2_scale
        self.last_bias = self.b2 * wide(1) * self.b2_scale

    def run(self, proto: onnx.ModelProto) -> None:
        """Take what the model itself rounds to, where that is the nearest number, or the next."""
        found = run(with_outputs(proto, ["x_q", "h_q", "y_q"]), {"x": X})
        held = (self._meant(found[f"{name}_q"], name) for name in SCALES)
        self.x, self.h, self.y = (array.reshape(len(X), -1) for array in held)
        self.z1 = self.x @ self.matrix + self.bias
        self.z2 = self.h @ self.second + self.last_bias
        for name, real, rounded in (("h", np.maximum(self.z1, 0), self.h), ("y", self.z2, self.y)):
            nearest = whole(real, np.float64(SCALES[name]), self.zeros[name], self.kind)
            off = np.abs(self._meant(nearest, name) - rounded)
            assert off.max() < 1.5 * SCALES[name]
            assert np.count_nonzero(off > SCALES[name] / 2) <= 2

    def _meant(self, q: Array, name: str) -> Array:
        return np.asarray((q.astype(np.float64) - self.zeros[name]) * SCALES[name])

    def relevance(self, target: int, rule: str) -> Array:
        arriving = np.zeros_like(self.y)
        arriving[:, target] = self.y[:, target]
        hidden = _back(self.h, self.second, self.last_bias, arriving, rule)
        return _back(self.x, self.matrix, self.bias, hidden, rule).reshape(X.shape)

    def gradient(self, target: int) -> Array:
        """Straight through what is rounded, 0 where it is cut off."""
        open_ = (self.z1 > 0) & (self.z1 < 255 * SCALES["h"])
        inside = np.abs(X) < 127 * SCALES["x"]
        return ((self.second[:, target] * open_) @ self.matrix.T).reshape(X.shape) * inside


def _as_matrix(w: Array, b: Array) -> tuple[Array, Array]:
    """Write the convolution, 3x3 on 6x6 without padding, as a matrix."""
    matrix = np.zeros((2, 6, 6, 3, 4, 4))
    for row in range(4):
        for column in range(4):
            window = matrix[:, row : row + 3, column : column + 3, :, row, column]
            window += w.transpose(1, 2, 3, 0)
    return matrix.reshape(72, 48), np.repeat(b, 16)


def _back(x: Array, w: Array, b: Array, relevance: Array, rule: str) -> Array:
    z = x[:, :, None] * w
    total = z.sum(1) + b
    if rule == "z-plus":
        z = np.maximum(z, 0)
        total = z.sum(1) + np.maximum(b, 0)
    stabilised = total + EPSILON * np.where(total >= 0, 1, -1)
    return np.asarray((z * (relevance / stabilised)[:, None]).sum(2))


# --- The same network in each form ---------------------------------------------------------------


def qdq(d: Definition) -> onnx.ModelProto:
    """QuantizeLinear and DequantizeLinear around each layer."""
    weights = stored(d)
    per_channel = d.w1_scale.size > 1

    def pair(name: str, source: str) -> list[onnx.NodeProto]:
        q = [source, f"{name}_scale", f"{name}_zero"]
        return [
            node("QuantizeLinear", q, f"{name}_q"),
            node("DequantizeLinear", [f"{name}_q", *q[1:]], f"{name}_d"),
        ]

    def held(name: str, axis: int) -> onnx.NodeProto:
        attributes = {"axis": axis} if per_channel else {}
        return node("DequantizeLinear", [name, f"{name}_scale"], f"{name}_d", **attributes)

    body = [
        *pair("x", "x"),
        *(held("w1", 0), held("b1", 0), held("w2", 1), held("b2", 0)),
        node("Conv", ["x_d", "w1_d", "b1_d"], "z1"),
        node("Relu", ["z1"], "r1"),
        *pair("h", "r1"),
        node("Flatten", ["h_d"], "f"),
        node("Gemm", ["f", "w2_d", "b2_d"], "z2"),
        *pair("y", "z2"),
    ]
    return model(body, {"x": ["N", 2, 6, 6]}, ["y_d"], weights, opset=21)


def stored(d: Definition) -> dict[str, Array]:
    """What every form stores."""
    scales = {f"{name}_scale": scale for name, scale in SCALES.items()}
    zeros = {f"{name}_zero": np.array(zero, d.kind) for name, zero in d.zeros.items()}
    weights = {"w1": d.w1, "b1": d.b1, "w2": d.w2, "b2": d.b2}
    more = {f"{name}_scale": getattr(d, f"{name}_scale") for name in weights}
    return {**scales, **zeros, **weights, **more}


def qoperator(d: Definition) -> onnx.ModelProto:
    """QLinearConv, and com.microsoft's QGemm."""
    kept = stored(d)
    kept |= {"w1_zero": np.zeros_like(d.w1_scale, np.int8)}
    kept |= {"w2_zero": np.zeros_like(d.w2_scale, np.int8)}
    conv = ["x_q", "x_scale", "x_zero", "w1", "w1_scale", "w1_zero", "h_scale", "h_zero", "b1"]
    gemm = ["f", "h_scale", "h_zero", "w2", "w2_scale", "w2_zero", "b2", "y_scale", "y_zero"]
    body = [
        node("QuantizeLinear", ["x", "x_scale", "x_zero"], "x_q"),
        node("QLinearConv", conv, "h_q"),
        node("Flatten", ["h_q"], "f"),
        node("QGemm", gemm, "y_q", domain=MICROSOFT),
        node("DequantizeLinear", ["y_q", "y_scale", "y_zero"], "y_d"),
    ]
    return of_microsoft(body, {"x": ["N", 2, 6, 6]}, {"y_d": ["N", 4]}, kept)


def of_microsoft(
    body: Sequence[onnx.NodeProto],
    inputs: dict[str, Sequence[int | str]],
    outputs: dict[str, Sequence[int | str]],
    weights: dict[str, Array | onnx.TensorProto],
    opset: int = 21,
) -> onnx.ModelProto:
    """Build a model of operators that onnx does not know."""
    graph = helper.make_graph(
        list(body),
        "test",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [
            array if isinstance(array, onnx.TensorProto) else numpy_helper.from_array(array, name)
            for name, array in weights.items()
        ],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def as_torch_exports_it(d: Definition) -> onnx.ModelProto:
    """Constants are nodes."""
    proto = qdq(d)
    held = [
        helper.make_node("Constant", [], [tensor.name], value=tensor)
        for tensor in proto.graph.initializer
    ]
    nodes = [*held, *proto.graph.node]
    del proto.graph.node[:], proto.graph.initializer[:]
    proto.graph.node.extend(nodes)
    return proto


FORMS = {
    "QDQ": (qdq, False, False),
    "QDQ of constants, per channel": (as_torch_exports_it, True, False),
    "QDQ, per channel": (qdq, True, False),
    "QDQ, int8": (qdq, True, True),
    "QOperator": (qoperator, False, False),
    "QOperator, per channel": (qoperator, True, False),
    "QOperator, int8": (qoperator, True, True),
}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> tuple[onnx.ModelProto, Definition]:
    build, per_channel, signed = FORMS[request.param]
    defined = Definition(per_channel, signed)
    proto = build(defined)
    defined.run(proto)
    return proto, defined


def explained(
    proto: onnx.ModelProto, composite: onnxlrp.Composite | str, x: Array, target: int
) -> dict[str, Array]:
    """Run an explainer, whose outputs must be the model's, bit for bit, however it is optimised."""
    explainer = onnxlrp.convert(proto, composite).to_proto()
    onnx.checker.check_model(explainer)
    feeds = {"x": x, "target": np.array([target])}
    for optimise in (True, False):
        before, found = run(proto, {"x": x}, optimise), run(explainer, feeds, optimise)
        for name, values in before.items():
            np.testing.assert_array_equal(values, found[name])
    return found


@pytest.mark.parametrize("rule", ["epsilon", "z-plus"])
def test_relevance_is_that_of_the_quantised_activations_and_dequantised_weights(
    form: tuple[onnx.ModelProto, Definition], rule: str
) -> None:
    proto, defined = form
    given = f"{rule} epsilon={EPSILON}" if rule == "epsilon" else rule
    composite = lines(f"Conv: {given}", f"Gemm: {given}")
    for target in (0, 3):
        found = explained(proto, composite, X, target)
        close(found["y_d"], defined.y)
        close(found["relevance"], defined.relevance(target, rule))


def test_relevance_starts_from_what_the_model_puts_out(
    form: tuple[onnx.ModelProto, Definition],
) -> None:
    """Rounded and cut off, and not from what the last layer gave before that."""
    proto, _ = form
    assert onnxlrp.convert(proto).score == "y_d"


def test_gradients_go_straight_through_what_is_rounded(
    form: tuple[onnx.ModelProto, Definition],
) -> None:
    proto, defined = form
    close(explained(proto, "gradient", X, 2)["relevance"], defined.gradient(2))


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3)])
def test_gradients_through_time_are_those_at_what_comes_in_quantised(op: str, gates: int) -> None:
    """By central differences; the steps of a layer read values outside them."""
    layer = [
        node("Transpose", ["d"], "steps", perm=[1, 0, 2]),
        helper.make_node(op, ["steps", "w", "r", "b"], ["", "last"], hidden_size=4),
        node("Squeeze", ["last", "first"], "h"),
        node("MatMul", ["h", "readout"], "logits"),
    ]
    kept: dict[str, Array | onnx.TensorProto] = {
        **{"w": normal(1, gates * 4, 3, seed=51), "r": normal(1, gates * 4, 4, seed=52)},
        **{"b": normal(1, gates * 8, seed=53), "readout": normal(4, 3, seed=54)},
        **{"s": np.float32([0.05]).reshape(()), "zero": np.array(128, np.uint8)},
        "first": np.array([0]),
    }
    rounded = [
        node("QuantizeLinear", ["x", "s", "zero"], "q"),
        node("DequantizeLinear", ["q", "s", "zero"], "d"),
    ]
    sizes: tuple[dict[str, Sequence[int | str]], ...] = ({"logits": ["N", 3]}, {"d": ["N", 5, 3]})
    outputs, inputs = sizes
    proto = of_microsoft([*rounded, *layer], {"x": ["N", 5, 3]}, outputs, kept)
    x = normal(1, 5, 3, seed=55)
    found = explained(proto, "gradient", x, 1)["relevance"]
    step = 0.01 * np.eye(15).reshape(15, 5, 3)
    meant = (whole(x, np.float32(0.05), 128, np.uint8) - 128.0) * 0.05
    plain = of_microsoft(layer, inputs, outputs, kept)
    up, down = (
        run(plain, {"d": (meant + way * step).astype(np.float32)})["logits"][:, 1]
        for way in (1, -1)
    )
    close(found[0], ((up - down) / 0.02).reshape(5, 3), 1e-3)


def test_audit_passes(form: tuple[onnx.ModelProto, Definition]) -> None:
    proto, _ = form
    audit = check(proto, onnxlrp.convert(proto).to_proto(), {"x": X})
    assert audit.passed
    assert audit.outputs == {"y_d": 0.0}
    assert all(layer.difference is not None for layer in audit.layers)


def test_relevance_against_a_reference_sums_to_the_change_of_the_quantised_network(
    form: tuple[onnx.ModelProto, Definition],
) -> None:
    proto, _ = form
    black = np.full_like(X[:1], -1.5)
    composite = lines("Conv: epsilon", "Gemm: epsilon", epsilon=1e-9)
    explainer = onnxlrp.convert(proto, composite, reference=black[0]).to_proto()
    found = run(explainer, {"x": X, "target": np.array([1])})
    # Unoptimised, as the reference is: it is no part of the model.
    at_reference = run(proto, {"x": black}, optimise=False)["y_d"]
    np.testing.assert_allclose(
        found["reference_scores"], np.broadcast_to(at_reference, (3, 4)), atol=1e-6
    )
    sums = found["relevance"].reshape(3, -1).sum(1)
    np.testing.assert_allclose(sums, (found["y_d"] - at_reference)[:, 1], rtol=1e-4)
    assert check(proto, explainer, {"x": X}).passed


def changed(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Return two copies, without the first node and without the last."""
    first, last = onnx.ModelProto(), onnx.ModelProto()
    first.CopyFrom(proto)
    last.CopyFrom(proto)
    del first.graph.node[0], first.graph.input[:], last.graph.node[-1], last.graph.output[:]
    return first, last


def test_whole_numbers_may_be_what_comes_in_and_what_comes_out() -> None:
    """What an output of integers means is an output of the explainer, beside the model's own."""
    defined = Definition(per_channel=True, signed=False)
    proto = qdq(defined)
    before = onnxlrp.convert(proto).to_proto()
    wanted = run(before, {"x": X, "target": np.array([1])})["relevance"]
    whole_in, whole_out = changed(proto)
    sizes = {"x_q": ["N", 2, 6, 6], "y_q": ["N", 4]}
    ends = {n: helper.make_tensor_value_info(n, TensorProto.UINT8, s) for n, s in sizes.items()}
    whole_in.graph.input.append(ends["x_q"])
    whole_out.graph.output.append(ends["y_q"])
    q = whole(X, SCALES["x"], ZEROS["x"], np.uint8)
    for changed_proto, feeds, output in (
        (whole_in, {"x_q": q}, "y_d"),
        (whole_out, {"x": X}, "y_q"),
    ):
        explainer = onnxlrp.convert(changed_proto).to_proto()
        found = run(explainer, {**feeds, "target": np.array([1])})
        np.testing.assert_array_equal(found[output], run(changed_proto, feeds)[output])
        np.testing.assert_array_equal(found["relevance"], wanted)
        assert check(changed_proto, explainer, feeds).passed


def test_folding_weights_leaves_the_model_as_it_is() -> None:
    proto = qdq(Definition(per_channel=True, signed=True))
    explainer = onnxlrp.convert(proto, fold_weights=True).to_proto()
    found = run(explainer, {"x": X, "target": np.array([1])})
    np.testing.assert_array_equal(found["y_d"], run(proto, {"x": X})["y_d"])
    assert check(proto, explainer, {"x": X}).passed


@pytest.mark.parametrize("composite", ["integrated_gradients", "grad_cam", "deeplift"])
def test_other_methods_pass_the_audit(composite: str) -> None:
    proto = qoperator(Definition(per_channel=False, signed=False))
    audit = check(proto, onnxlrp.convert(proto, composite).to_proto(), {"x": X})
    assert audit.passed
    assert audit.outputs == {"y_d": 0.0}


# --- Other operators -----------------------------------------------------------------------------

PICTURE = normal(2, 4, 6, 6, seed=11)
S, Z = ["s", "zero"], ["t", "one"]
QUANTISED: dict[str, Array | onnx.TensorProto] = {
    "s": np.array(0.03, np.float32),
    "zero": np.array(120, np.uint8),
    "t": np.array(0.05, np.float32),
    "one": np.array(100, np.uint8),
    "u": np.array(1 / 256, np.float32),
    "nothing": np.array(0, np.uint8),
    "w": whole(normal(4, 4, 3, 3, seed=12, scale=0.3), np.float32(0.02), 0, np.int8),
    "ws": np.array([0.02, 0.015, 0.01, 0.03], np.float32),
    "wz": np.zeros(4, np.int8),
    "b": np.arange(4, dtype=np.int32) * 50 - 70,
    "readout": normal(4, 3, seed=13),
    "wide": normal(144, 3, seed=14),
    "some": (np.arange(144).reshape(1, 4, 6, 6) % 3 > 0),
}


def of_one(op: str, inputs: Sequence[str], **attributes: object) -> list[onnx.NodeProto]:
    return [node(op, inputs, "z", domain=MICROSOFT, **attributes)]


TRANSPOSED = [node("Transpose", ["q"], "last", perm=[0, 2, 3, 1])]
BACK = [node("Transpose", ["z_last"], "z", perm=[0, 3, 1, 2])]
CONV = ["w", "ws", "wz", *Z, "b"]

OPERATORS: dict[str, tuple[list[onnx.NodeProto], list[str]]] = {
    "QLinearAdd": (of_one("QLinearAdd", ["q", *S, "r", *Z, *Z]), Z),
    "QLinearMul": (of_one("QLinearMul", ["q", *S, "r", *Z, *Z]), Z),
    "QLinearSigmoid": (of_one("QLinearSigmoid", ["q", *S, "u", "nothing"]), ["u", "nothing"]),
    "QLinearLeakyRelu": (of_one("QLinearLeakyRelu", ["q", *S, *Z], alpha=0.1), Z),
    "QLinearAveragePool": (
        of_one("QLinearAveragePool", ["q", *S, *Z], kernel_shape=[2, 2], strides=[2, 2]),
        Z,
    ),
    "QLinearGlobalAveragePool": (of_one("QLinearGlobalAveragePool", ["q", *S, *Z]), Z),
    "QLinearConcat": (of_one("QLinearConcat", [*Z, "q", *S, "r", *Z], axis=1), Z),
    "QLinearSoftmax": (
        of_one("QLinearSoftmax", ["q", *S, "u", "nothing"], axis=-1, opset=13),
        ["u", "nothing"],
    ),
    "QLinearWhere": (of_one("QLinearWhere", ["some", "q", *S, "r", *Z, *Z]), Z),
    "QLinearConv": ([node("QLinearConv", ["q", *S, *CONV], "z", pads=[1] * 4)], Z),
    "QLinearConv, channels last": (
        [
            *TRANSPOSED,
            node(
                "QLinearConv", ["last", *S, *CONV], "z_last", domain=MICROSOFT,
                pads=[1] * 4, kernel_shape=[3, 3], channels_last=1,
            ),
            *BACK,
        ],
        Z,
    ),
    "QLinearGlobalAveragePool, channels last": (
        [
            *TRANSPOSED,
            node(
                "QLinearGlobalAveragePool", ["last", *S, *Z], "z_last", domain=MICROSOFT,
                channels_last=1,
            ),
            *BACK,
        ],
        Z,
    ),
    "MaxPool of integers": ([node("MaxPool", ["q"], "z", kernel_shape=[2, 2])], S),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_on_integers_are_crossed_as_they_are_on_what_those_mean(name: str) -> None:
    """The audit recomputes each on what the explainer dequantises; the model knows no real one."""
    tested, ends = OPERATORS[name]
    body = [
        node("QuantizeLinear", ["x", *S], "q"),
        node("QuantizeLinear", ["x", *Z], "r"),
        *tested,
        node("DequantizeLinear", ["z", *ends], "d"),
        node("GlobalAveragePool", ["d"], "g"),
        node("Flatten", ["g"], "f"),
        node("Gemm", ["f", "readout"], "logits"),
    ]
    wide = {**QUANTISED, "readout": normal(8, 3, seed=13)} if "Concat" in name else QUANTISED
    proto = of_microsoft(body, {"x": ["N", 4, 6, 6]}, {"logits": ["N", 3]}, wide, opset=18)
    feeds = {"x": PICTURE}
    explainer = onnxlrp.convert(proto).to_proto()
    before = run(proto, feeds)["logits"]
    found = run(explainer, {**feeds, "target": np.array([1])})
    np.testing.assert_array_equal(found["logits"], before)
    assert np.abs(found["relevance"]).max() > 0
    audit = check(proto, explainer, feeds)
    assert audit.passed
    assert all(layer.difference is not None for layer in audit.layers)


def dynamic(body: Sequence[onnx.NodeProto], weights: dict[str, Array]) -> onnx.ModelProto:
    return of_microsoft(body, {"x": ["N", 8]}, {"logits": ["N", 3]}, dict(weights), opset=18)


DENSE = normal(8, 3, seed=21)
DENSE_SCALES = np.array([0.02, 0.03, 0.025], np.float32)
DENSE_Q = whole(DENSE, DENSE_SCALES, 0, np.int8)
ROWS = normal(3, 8, seed=22)
DYNAMIC_WEIGHTS = {
    "w": DENSE_Q,
    "ws": DENSE_SCALES,
    "wz": np.zeros(3, np.int8),
    "bias": np.array([0.1, -0.2, 0.3], np.float32),
}
QUANTISES = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])
DYNAMIC = {
    "MatMulInteger": [
        QUANTISES,
        node("MatMulInteger", ["q", "w", "z", "wz"], "sums"),
        node("Cast", ["sums"], "real", to=1),
        node("Mul", ["s", "ws"], "step"),
        node("Mul", ["real", "step"], "scaled"),
        node("Add", ["scaled", "bias"], "logits"),
    ],
    "MatMulIntegerToFloat": [
        QUANTISES,
        node(
            "MatMulIntegerToFloat", ["q", "w", "s", "ws", "z", "wz", "bias"], "logits",
            domain=MICROSOFT,
        ),
    ],
    "DynamicQuantizeMatMul": [
        node("DynamicQuantizeMatMul", ["x", "w", "ws", "wz", "bias"], "logits", domain=MICROSOFT)
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", DYNAMIC)
def test_what_is_quantised_when_it_runs_is_explained_at_what_it_was_rounded_to(name: str) -> None:
    proto = dynamic(DYNAMIC[name], DYNAMIC_WEIGHTS)
    low, high = min(ROWS.min(), 0), max(ROWS.max(), 0)
    scale = np.float32((high - low) / 255)
    zero = np.rint(-low / scale)
    x = (np.rint(ROWS / scale).astype(np.float64) + zero).clip(0, 255) - zero
    x = x * scale
    w = DENSE_Q * DENSE_SCALES.astype(np.float64)
    logits = x @ w + DYNAMIC_WEIGHTS["bias"]
    composite = lines(f"MatMul: epsilon epsilon={EPSILON}", "Add: norm")
    found = explained(proto, composite, ROWS, 2)
    close(found["logits"], logits)
    arriving = np.zeros_like(logits)
    arriving[:, 2] = logits[:, 2]
    close(found["relevance"], _back(x, w, DYNAMIC_WEIGHTS["bias"], arriving, "epsilon"))
    assert check(proto, onnxlrp.convert(proto).to_proto(), {"x": ROWS}).passed


# --- Weights alone -------------------------------------------------------------------------------

BITS = normal(64, 48, seed=31, scale=0.4)


def packed(q: Array, bits: int) -> Array:
    """Pack numbers along the last axis, the first in the lowest bits."""
    parts = q.reshape(*q.shape[:-1], -1, 8 // bits).astype(np.uint8)
    shifts = np.arange(8 // bits, dtype=np.uint8) * bits
    return np.bitwise_or.reduce(parts << shifts, axis=-1).astype(np.uint8)


@pytest.mark.parametrize(
    ("bits", "zeros"), [(4, ""), (4, "packed"), (4, "real"), (8, ""), (8, "packed")]
)
def test_matmul_of_a_few_bits_has_the_weights_that_they_mean(bits: int, zeros: str) -> None:
    """[K, N] = [64, 48] in blocks of 32 along K."""
    blocked = BITS.T.reshape(48, 2, 32)
    half = 2 ** (bits - 1)
    scale = np.asarray(np.abs(blocked).max(-1) / (half - 1), np.float32)
    shift = np.full((48, 2), half) if not zeros else (np.arange(96).reshape(48, 2) % 3 + half - 2)
    q = np.rint(blocked / scale[..., None]) + shift[..., None]
    q = q.clip(0, 2 * half - 1)
    kept = {"w": packed(q, bits), "s": scale.reshape(-1), "readout": normal(48, 3, seed=32)}
    inputs = ["x", "w", "s"]
    if zeros:
        real = zeros == "real"
        kept["z"] = shift.astype(np.float32) if real else packed(shift, bits).reshape(-1)
        kept["z"] = kept["z"].reshape(-1) if not real else kept["z"]
        inputs.append("z")
    body = [
        node(
            "MatMulNBits", inputs, "h", domain=MICROSOFT, K=64, N=48, bits=bits, block_size=32
        ),
        node("MatMul", ["h", "readout"], "logits"),
    ]  # fmt: skip
    proto = of_microsoft(body, {"x": ["N", 64]}, {"logits": ["N", 3]}, dict(kept), opset=18)
    x = normal(2, 64, seed=33)
    found = explained(proto, lines(f"MatMul: epsilon epsilon={EPSILON}"), x, 1)
    w = ((q - shift[..., None]) * scale[..., None].astype(np.float64)).reshape(48, 64).T
    hidden = x @ w
    arriving = np.zeros((2, 3))
    arriving[:, 1] = (hidden @ kept["readout"])[:, 1]
    inner = _back(hidden, kept["readout"].astype(float), np.zeros(3), arriving, "epsilon")
    close(found["relevance"], _back(x, w, np.zeros(48), inner, "epsilon"), 1e-4)
    assert check(proto, onnxlrp.convert(proto).to_proto(), {"x": x}).passed


WEIGHT_TYPES = [
    *(TensorProto.INT4, TensorProto.UINT4, TensorProto.INT8, TensorProto.INT16),
    *(TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2),
]


@pytest.mark.parametrize("kind", WEIGHT_TYPES, ids=TensorProto.DataType.Name)
def test_weights_are_stored_as_small_as_they_were(kind: int) -> None:
    proto = weight_only(kind)
    x = normal(2, 64, seed=33)
    found = explained(proto, lines(f"MatMul: epsilon epsilon={EPSILON}"), x, 1)
    table = {tensor.name: tensor for tensor in proto.graph.initializer}
    scale = numpy_helper.to_array(table["s"]).astype(np.float64)
    w = numpy_helper.to_array(table["w"]).astype(np.float64) * np.repeat(scale, 16, 0)
    logits = x @ w
    arriving = np.zeros((2, 48))
    arriving[:, 1] = logits[:, 1]
    close(found["relevance"], _back(x, w, np.zeros(48), arriving, "epsilon"), 1e-4)
    stored = onnxlrp.convert(proto).to_proto().graph.initializer
    large = [tensor.data_type for tensor in stored if np.prod(tensor.dims) >= w.size]
    # onnxruntime packs integers for its MatMulNBits, if nothing else reads them.
    assert large == [kind] * (2 if kind in WEIGHT_TYPES[:3] else 1)


def weight_only(kind: int) -> onnx.ModelProto:
    """MatMul by a constant in blocks of 16 along its axis 0."""
    largest = {TensorProto.INT4: 7, TensorProto.UINT4: 15}.get(kind, 100)
    least = 0 if kind == TensorProto.UINT4 else -largest
    q = (BITS / np.abs(BITS).max() * largest).round().clip(least, largest)
    scale = np.asarray(np.random.default_rng(1).uniform(0.01, 0.02, (4, 48)), np.float32)
    body = [
        node("DequantizeLinear", ["w", "s"], "d", axis=0, block_size=16),
        node("MatMul", ["x", "d"], "logits"),
    ]
    held = helper.make_tensor("w", kind, q.shape, q.reshape(-1).tolist())
    kept = {"w": held, "s": scale}
    return of_microsoft(body, {"x": ["N", 64]}, {"logits": ["N", 48]}, kept, opset=21)


def test_products_of_the_twin_do_not_overflow_in_whole_numbers() -> None:
    # 255 x 127 twice is more than 16 bits hold, in which some processors add it up.
    weights = np.array([[127, 0], [127, 0], [0, 127], [1, 127]], np.int8)
    kept: dict[str, Array | onnx.TensorProto] = {
        **{"w": weights, "sw": step(2.0), "b": np.zeros(2, np.int32)},
        **{"sx": step(1.0), "sy": step(8.0), "of_w": np.array(0, np.int8)},
        **{"zero": np.array(0, np.uint8), "of_y": np.array(128, np.uint8)},
    }
    gemm = ["q", "sx", "zero", "w", "sw", "of_w", "b", "sy", "of_y"]
    body = [
        node("QuantizeLinear", ["x", "sx", "zero"], "q"),
        node("QGemm", gemm, "y_q", domain=MICROSOFT),
        node("DequantizeLinear", ["y_q", "sy", "of_y"], "y"),
    ]
    proto = of_microsoft(body, {"x": ["N", 4]}, {"y": ["N", 2]}, kept)
    explainer = onnxlrp.convert(proto, lines("Gemm: epsilon epsilon=1e-6")).to_proto()
    found = run(explainer, {"x": np.ones((1, 4), np.float32), "target": np.array([0])})
    # The model's own sum may have overflowed; what is shared is that, by what each adds.
    share = weights[:, 0] / weights[:, 0].sum()
    np.testing.assert_allclose(found["relevance"][0], found["y"][0, 0] * share, rtol=1e-5)


def test_tokens_choose_rows_of_a_quantised_table() -> None:
    """Without biases, of a mean over T tokens, R_t = sum_d e_td w_dc / T."""
    table, scale = whole(normal(10, 6, seed=41), np.float32(0.02), 3, np.int8), np.float32(0.02)
    kept = {"table": table, "s": scale, "z": np.int8(3), "w": normal(6, 3, seed=42)}
    body = [
        node("Gather", ["table", "ids"], "rows"),
        node("DequantizeLinear", ["rows", "s", "z"], "e"),
        node("ReduceMean", ["e", "axis"], "m", keepdims=0),
        node("Gemm", ["m", "w"], "logits"),
    ]
    kept["axis"] = np.array([1])
    proto = of_microsoft(
        body, {"ids": ["N", 4]}, {"logits": ["N", 3]}, {k: np.asarray(v) for k, v in kept.items()}
    )
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    ids = np.array([[1, 5, 9, 0], [2, 2, 7, 3]])
    explainer = onnxlrp.convert(proto, lines("*: epsilon epsilon=1e-9")).to_proto()
    found = run(explainer, {"ids": ids, "target": np.array([2])})
    meant = (table.astype(np.float64) - 3) * scale
    close(found["relevance"], meant[ids] @ kept["w"][:, 2] / 4)
    np.testing.assert_array_equal(found["logits"], run(proto, {"ids": ids})["logits"])


def test_integers_of_no_real_meaning_are_refused_by_name() -> None:
    body = [
        node("QuantizeLinear", ["x", "s", "zero"], "q"),
        node("Cast", ["q"], "c", to=TensorProto.INT32),
        node("Mod", ["c", "seven"], "m"),
        node("Cast", ["m"], "f", to=TensorProto.FLOAT),
        node("Gemm", ["f", "readout"], "logits"),
    ]
    kept = {**QUANTISED, "seven": np.array(7, np.int32)}
    proto = of_microsoft(body, {"x": ["N", 4]}, {"logits": ["N", 3]}, kept)
    with pytest.raises(ModelError, match=r"node_c \(Cast\) computes with .* before it was quant"):
        onnxlrp.convert(proto)


MISFITS: dict[str, tuple[dict[str, int], dict[str, Array], str]] = {
    "axis too high": ({"axis": 7}, {}, "along axis 7, where there are 4 axes"),
    "axis too low": ({"axis": -(2**63)}, {}, "where there are 4 axes"),
    "axis of another size": (
        {"axis": -1}, {}, r"scale has the sizes \[4\], where \[3\] are asked for along axis -1"
    ),
    "no axis": ({}, {"w": normal(4, 3, 3, 3) > 0}, r"sizes \[4\], where \[3\] .* along axis 1"),
    "no scale": ({"axis": 0}, {"ws": np.zeros(0, np.float32)}, r"scale has the sizes \[0\]"),
    "few scales": ({"axis": 0}, {"ws": np.ones(3, np.float32)}, r"sizes \[3\], .* point \[4\]"),
    "one scale": ({"axis": 0}, {"ws": np.float32([1])}, r"sizes \[1\], its zero point \[4\]"),
    "no zero point": ({"axis": 0}, {"wz": np.zeros(0, np.int8)}, r"its zero point \[0\]"),
    "few zero points": ({"axis": 0}, {"wz": np.zeros(3, np.int8)}, r"\[4\], its zero point \[3\]"),
    "weights of another size": (
        {"axis": 0},
        {"w": normal(5, 4, 3, 3) > 0, "readout": normal(5, 3)},
        r"sizes \[4\], where \[5\] are asked for",
    ),
    "blocks": ({"axis": 0, "block_size": 2}, {}, r"where \[2, 4, 3, 3\] are asked for"),
    "blocks of less than one": ({"axis": 0, "block_size": -2}, {}, "block_size is -2"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISFITS)
def test_scales_that_do_not_fit_are_refused_by_name(case: str) -> None:
    attributes, other, told = MISFITS[case]
    kept = {**QUANTISED, **{k: v.astype(np.int8) if k == "w" else v for k, v in other.items()}}
    body = [
        node("QuantizeLinear", ["x", *S], "q"),
        node("DequantizeLinear", ["q", *S], "d"),
        node("DequantizeLinear", ["w", "ws", "wz"], "w_d", **attributes),
        node("Conv", ["d", "w_d"], "c"),
        node("GlobalAveragePool", ["c"], "g"),
        node("Flatten", ["g"], "f"),
        node("Gemm", ["f", "readout"], "logits"),
    ]
    proto = of_microsoft(body, {"x": ["N", 4, 6, 6]}, {"logits": ["N", 3]}, kept)
    with pytest.raises(ModelError, match=f"node_w_d is malformed.* 'w' .* 'ws': .*{told}"):
        onnxlrp.convert(proto)


@pytest.mark.parametrize(
    ("axis", "told"), [(9, "along axis 9, where there are 4"), (2, r"\[4\], where \[6\] are asked")]
)
def test_scales_that_do_not_fit_activations_are_refused_by_name(axis: int, told: str) -> None:
    body = [
        node("QuantizeLinear", ["x", "ws", "wz"], "q", axis=axis),
        node("DequantizeLinear", ["q", "ws", "wz"], "d", axis=axis),
        node("GlobalAveragePool", ["d"], "g"),
        node("Flatten", ["g"], "f"),
        node("Gemm", ["f", "readout"], "logits"),
    ]
    proto = of_microsoft(body, {"x": ["N", 4, 6, 6]}, {"logits": ["N", 3]}, QUANTISED)
    with pytest.raises(ModelError, match=f"node_q is malformed.* 'q' .* 'ws': .*{told}"):
        onnxlrp.convert(proto)


def test_an_operator_without_a_counterpart_is_named_with_what_to_do() -> None:
    inputs = ["q", "w", "b", "s", "u", "", "zero", "one"]
    body = [
        node("QuantizeLinear", ["x", "s", "zero"], "q"),
        node("QAttention", inputs, "h", domain=MICROSOFT, num_heads=2),
        node("ReduceMean", ["h", "axis"], "m", keepdims=0),
        node("Gemm", ["m", "readout"], "logits"),
    ]
    kept = {**QUANTISED, "axis": np.array([1])}
    proto = of_microsoft(body, {"x": ["N", 5, 4]}, {"logits": ["N", 3]}, kept)
    with pytest.raises(UnsupportedError) as caught:
        onnxlrp.convert(proto)
    first = caught.value.obstacles[0]
    assert (first.node, first.operator) == ("node_h", "QAttention")
    assert "before it was quantised" in first.advice


def test_what_overflows_to_another_sign_is_divided_by_the_layers_own_sum() -> None:
    def rounded(name: str) -> list[onnx.NodeProto]:
        parts = [f"{name}_{part}" for part in ("q", "s", "z")]
        return [helper.make_node("DynamicQuantizeLinear", [name], parts)]

    def scaled(x: str, w: str, y: str) -> list[onnx.NodeProto]:
        return [
            node("MatMulInteger", [f"{x}_q", w, f"{x}_z", "wz"], f"{y}_sums"),
            node("Cast", [f"{y}_sums"], f"{y}_real", to=1),
            node("Mul", [f"{x}_s", "ws"], f"{y}_step"),
            node("Mul", [f"{y}_real", f"{y}_step"], y),
        ]

    # Below 0 in all; but -2 x 127 x 255 is more than 16 bits hold, and cut off there it is above.
    w = np.array([[-127], [-127], [127], [0], [127], [0], [-1]], np.int8)
    body = [
        *rounded("x"), *scaled("x", "w", "hidden"), node("Relu", ["hidden"], "h"),
        *rounded("h"), *scaled("h", "v", "logits"),
    ]  # fmt: skip
    weights = {"w": w, "v": np.array([[100, 50]], np.int8), "ws": step(2.0), "wz": np.int8([0])}
    outputs: dict[str, Sequence[int | str]] = {"logits": ["N", 2], "h": ["N", 1]}
    proto = of_microsoft(body, {"x": ["N", 7]}, outputs, {**weights})
    x = np.ones((1, 7), np.float32)
    explainer = onnxlrp.convert(proto, lines("MatMul: epsilon epsilon=1e-6"), output="logits")
    found = run(explainer.to_proto(), {"x": x, "target": np.array([0])})
    # On processors that add up in 32 bits nothing arrives at a unit that is off.
    terms = x[0] * w[:, 0] * float(step(2.0))
    expected = terms / (terms.sum() - 1e-6) * found["logits"][0, 0]
    np.testing.assert_allclose(found["relevance"][0], expected, rtol=1e-3, atol=1e-5)
