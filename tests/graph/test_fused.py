"""onnxruntime's operators that run on no CPU, or under another name: what they are written out as.

Expected is the formula of onnxruntime's documentation, in numpy and float64.
"""

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator
from support import Array, close, normal, run

from onnxlrp.graph.expanding import expand

DOMAIN = "com.microsoft"
X = normal(2, 4, 5, 6, seed=1)
A, B = normal(3, 4, 2, seed=2), normal(3, 4, 2, seed=3)
PAIR = normal(2, 3, 4, seed=4), normal(2, 5, 4, seed=5)
CHANNELS = normal(6, seed=6), normal(6, seed=7)
EMBEDDED = normal(2, 3, 8, seed=8)
HEADS = [normal(2, 4, 3, 8, seed=seed) for seed in (9, 10, 11, 12)]
GRID = np.tanh(normal(2, 3, 3, 2, seed=13))


def complex_of(a: Array) -> Array:
    return a[..., 0] + 1j * a[..., 1]


def pairs_of(z: Array) -> Array:
    return np.stack([z.real, z.imag], -1)


def grouped(x: Array, scale: Array, shift: Array, groups: int, swish: bool) -> Array:
    """Normalise each group of the last axis, of a picture with channels last."""
    parted = x.reshape(len(x), -1, groups, x.shape[-1] // groups)
    mean = parted.mean((1, 3), keepdims=True)
    spread = parted.var((1, 3), keepdims=True)
    y = ((parted - mean) / np.sqrt(spread + 1e-5)).reshape(x.shape) * scale + shift
    return y / (1 + np.exp(-y)) if swish else y


SKIP = normal(2, 6, seed=14)
FORMULAS = {
    "FusedMatMulActivation": (
        [PAIR[0], PAIR[1]],
        {"transB": 1, "alpha": 0.5, "activation": "LeakyRelu", "activation_alpha": 0.1},
        lambda a, b: (lambda z: np.where(z < 0, 0.1 * z, z))(0.5 * a @ b.swapaxes(1, 2)),
    ),
    "BiasDropout": ([X, CHANNELS[0], X], {}, lambda x, b, s: x + b + s),
    "BitmaskBiasDropout": ([X, CHANNELS[0]], {}, lambda x, b: x + b),
    "BitmaskDropout": ([X], {}, lambda x: x),
    "ComplexMul": ([A, B], {}, lambda a, b: pairs_of(complex_of(a) * complex_of(b))),
    "ComplexMulConj": ([A, B], {}, lambda a, b: pairs_of(complex_of(a) * complex_of(b).conj())),
    "GemmaRotaryEmbedding": (
        [EMBEDDED, *HEADS],
        {},
        lambda e, q, r, k, s: (
            q * np.cos(e)[:, None] + r * np.sin(e)[:, None],
            k * np.cos(e)[:, None] + s * np.sin(e)[:, None],
        ),
    ),
    "GroupNorm": (
        [X, *CHANNELS],
        {"groups": 3, "activation": 1},
        lambda x, scale, shift: grouped(x, scale, shift, 3, True),
    ),
    "SkipGroupNorm": (
        [X, *CHANNELS, SKIP],
        {"groups": 2, "activation": 0},
        lambda x, scale, shift, skip: (
            grouped(x + skip[:, None, None], scale, shift, 2, False),
            x + skip[:, None, None],
        ),
    ),
    "Rfft": ([X], {"onesided": 1, "signal_ndim": 1}, lambda x: pairs_of(np.fft.rfft(x))),
    "NhwcFusedConv": (
        [X, normal(3, 6, 1, 1, seed=15), normal(3, seed=16)],
        {"activation": "Relu", "kernel_shape": [1, 1]},
        lambda x, w, b: np.maximum(x @ w[:, :, 0, 0].T + b, 0),
    ),
}


def one_node(operator, inputs, attributes, outputs, domain=DOMAIN):
    names = [f"i{place}" for place in range(len(inputs))]
    made = [f"o{place}" for place in range(outputs)]
    kinds = [helper.np_dtype_to_tensor_dtype(array.dtype) for array in inputs]
    graph = helper.make_graph(
        [helper.make_node(operator, names, made, "fused", domain=domain, **attributes)],
        "one",
        [
            helper.make_tensor_value_info(name, kind, array.shape)
            for name, kind, array in zip(names, kinds, inputs, strict=True)
        ],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in made],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 1)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return proto, dict(zip(names, inputs, strict=True))


@pytest.mark.parametrize("operator", FORMULAS)
def test_it_is_the_formula(operator):
    inputs, attributes, formula = FORMULAS[operator]
    wanted = formula(*(array.astype(float) for array in inputs))
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    proto, feeds = one_node(operator, inputs, attributes, len(wanted))
    proto = expand(proto)
    assert all(node.domain == "" for node in proto.graph.node)
    for mine, theirs in zip(ReferenceEvaluator(proto).run(None, feeds), wanted, strict=True):
        close(mine.astype(float), theirs, 1e-5)


SAME = {
    "ExpandDims": ([X, np.array(1, np.int32)], {}),
    "GatherND": ([X, np.array([[0, 1], [1, 3]], np.int32)], {}),
    "GridSample": ([X, GRID], {"mode": "bilinear", "padding_mode": "border"}),
    "Pad": ([X, np.array([0, 1, 0, 0, 0, 2, 0, 1]), np.array(3, np.float32)], {}),
    "Trilu": ([X, np.array(1)], {"upper": 0}),
}


@pytest.mark.parametrize("operator", SAME)
def test_it_is_what_onnxruntime_computes(operator):
    proto, feeds = one_node(operator, *SAME[operator], 1)
    wanted = run(proto, feeds)["o0"]
    proto = expand(proto)
    assert all(node.domain == "" for node in proto.graph.node)
    close(run(proto, feeds)["o0"], wanted, 1e-6)
