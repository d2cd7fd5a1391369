"""onnxruntime's fused operators (com.microsoft), as its ContribOperators.md has them.

Those of its memory layouts (com.microsoft.nchwc) are not among them.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnxlrp.graph.bodies import Call, Lines, UnfitError, integers, kept, microsoft

# --- Layers with an activation -------------------------------------------------------------------


def _activated(call: Call, z: str, numbers: Sequence[float]) -> Lines:
    kind = call.text("activation")
    if kind in ("", "Relu", "Sigmoid", "Tanh", "HardSwish", "Softplus"):
        yield f"y = {kind or 'Identity'}({z})"
    elif kind in ("LeakyRelu", "Elu") and numbers:
        yield f"y = {kind}<alpha={numbers[0]:.9e}>({z})"
    elif kind == "HardSigmoid" and len(numbers) == 2:
        yield f"y = HardSigmoid<alpha={numbers[0]:.9e}, beta={numbers[1]:.9e}>({z})"
    elif kind == "Clip" and len(numbers) == 2:
        yield from call.number("low", numbers[0])
        yield from call.number("high", numbers[1])
        yield f"y = Clip({z}, low, high)"
    else:
        raise UnfitError


@microsoft("x w b z -> y", "FusedConv")
def _fused_conv(call: Call) -> Lines:
    attributes = kept(call, "auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
    yield f"c = Conv{attributes}(x, w{', b' if call.has(2) else ''})"
    if call.has(3):
        yield "s = Add(c, z)"
    given = [n for a in call.node.attribute if a.name == "activation_params" for n in a.floats]
    yield from _activated(call, "s" if call.has(3) else "c", given)


@microsoft("a b c -> y", "FusedGemm")
def _fused_gemm(call: Call) -> Lines:
    attributes = kept(call, "alpha", "beta", "transA", "transB")
    yield f"g = Gemm{attributes}(a, b{', c' if call.has(2) else ''})"
    names = ("activation_alpha", "activation_beta")
    given = [call.get(n) for n in names if any(a.name == n for a in call.node.attribute)]
    yield from _activated(call, "g", given)


@microsoft("a b -> y", "FusedMatMul", "TransposeMatMul")
def _fused_matmul(call: Call) -> Lines:
    if call.get("transBatchA") or call.get("transBatchB"):
        raise UnfitError
    for index, name in enumerate("ab"):
        if call.get(f"trans{name.upper()}"):
            rank = len(call.sizes(index))
            # A vector stays as it is.
            axes = [*range(rank - 2), rank - 1, rank - 2] if rank > 1 else [0]
            yield f"{name}t = Transpose<perm={axes}>({name})"
        else:
            yield f"{name}t = Identity({name})"
    yield "m = MatMul(at, bt)"
    if call.get("alpha", 1.0) == 1:
        yield "y = Identity(m)"
    else:
        yield from call.number("alpha", call.get("alpha", 1.0))
        yield "y = Mul(m, alpha)"


# --- Activations ---------------------------------------------------------------------------------


def _erf_gelu(call: Call, x: str, y: str = "y") -> Lines:
    yield from call.number("half", 0.5)
    yield from call.number("one", 1)
    yield from call.number("root", 0.5**0.5)
    yield f"u = Mul({x}, root)"
    yield "e = Erf(u)"
    yield "f = Add(e, one)"
    yield f"g = Mul({x}, f)"
    yield f"{y} = Mul(g, half)"


def _tanh_gelu(call: Call, x: str) -> Lines:
    yield from call.number("half", 0.5)
    yield from call.number("one", 1)
    yield from call.number("cubic", 0.044715)
    yield from call.number("root", (2 / 3.141592653589793) ** 0.5)
    yield f"x2 = Mul({x}, {x})"
    yield f"x3 = Mul(x2, {x})"
    yield "c = Mul(x3, cubic)"
    yield f"s = Add({x}, c)"
    yield "r = Mul(s, root)"
    yield "t = Tanh(r)"
    yield "f = Add(t, one)"
    yield f"g = Mul({x}, f)"
    yield "y = Mul(g, half)"


@microsoft("x -> y", "Gelu")
def _gelu(call: Call) -> Lines:
    yield from _erf_gelu(call, "x")


@microsoft("x b -> y", "BiasGelu")
def _bias_gelu(call: Call) -> Lines:
    yield "s = Add(x, b)"
    yield from _erf_gelu(call, "s")


@microsoft("x b -> y", "FastGelu")
def _fast_gelu(call: Call) -> Lines:
    if call.has(1):
        yield "z = Add(x, b)"
    yield from _tanh_gelu(call, "z" if call.has(1) else "x")


@microsoft("x w b -> y", "GemmFastGelu")
def _gemm_fast_gelu(call: Call) -> Lines:
    yield "m = MatMul(x, w)"
    yield f"z = {'Add(m, b)' if call.has(2) else 'Identity(m)'}"
    yield from _tanh_gelu(call, "z")


@microsoft("x -> y", "QuickGelu")
def _quick_gelu(call: Call) -> Lines:
    yield from call.number("alpha", call.get("alpha", 1.702))
    yield "z = Mul(x, alpha)"
    yield "s = Sigmoid(z)"
    yield "y = Mul(x, s)"


@microsoft("x b -> y", "BiasSplitGelu")
def _bias_split_gelu(call: Call) -> Lines:
    yield "s = Add(x, b)"
    yield "left, right = Split<axis=-1, num_outputs=2>(s)"
    yield from _erf_gelu(call, "right", "gate")
    yield "y = Mul(left, gate)"


@microsoft("x b skip -> y", "BiasAdd")
def _bias_add(call: Call) -> Lines:
    yield "s = Add(x, b)"
    yield "y = Add(s, skip)"


@microsoft("x b -> y", "BiasSoftmax")
def _bias_softmax(call: Call) -> Lines:
    if not call.get("is_inner_broadcast"):
        raise UnfitError
    yield "s = Add(x, b)"
    yield f"y = Softmax<axis={int(call.get('axis', 1))}>(s)"


@microsoft("x -> y", "NhwcMaxPool")
def _nhwc_max_pool(call: Call) -> Lines:
    names = ("auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides")
    yield "c = Transpose<perm=[0, 3, 1, 2]>(x)"
    yield f"p = MaxPool{kept(call, *names)}(c)"
    yield "y = Transpose<perm=[0, 2, 3, 1]>(p)"


# --- Normalisations ------------------------------------------------------------------------------


def _with_skip(call: Call, bias: int) -> Lines:
    """Add the bias first: it was that of the product in front."""
    yield f"s = {'Add(x, bias)' if call.has(bias) else 'Identity(x)'}"
    yield "total = Add(s, skip)"


def _root_mean_square(call: Call, x: str, epsilon: float) -> Lines:
    yield from call.number("epsilon", epsilon)
    yield integers("last", -1)
    yield f"q = Mul({x}, {x})"
    yield "v = ReduceMean(q, last)"
    yield "w = Add(v, epsilon)"
    yield "d = Sqrt(w)"
    yield f"n = Div({x}, d)"
    yield "y = Mul(n, scale)"


@microsoft("x scale bias -> y mean deviation", "LayerNormalization")
def _layer_normalization(call: Call) -> Lines:
    """Under ai.onnx before opset 17, as onnxruntime's optimisers write it."""
    if call.wants(1) or call.wants(2):
        raise UnfitError
    bias = ", bias" if call.has(2) else ""
    yield f"y = LayerNormalization{kept(call, 'axis', 'epsilon')}(x, scale{bias})"


@microsoft("x scale -> y deviation", "SimplifiedLayerNormalization")
def _simplified(call: Call) -> Lines:
    rank_known = call.get("axis", -1) == -1 or call.get("axis") == len(call.sizes(0)) - 1
    if call.wants(1) or not rank_known:
        raise UnfitError
    yield from _root_mean_square(call, "x", call.get("epsilon", 1e-5))


@microsoft("x skip scale shift bias -> y mean deviation total", "SkipLayerNormalization")
def _skip_normalization(call: Call) -> Lines:
    if call.wants(1) or call.wants(2):
        raise UnfitError
    yield from _with_skip(call, 4)
    shift = ", shift" if call.has(3) else ""
    epsilon = f"{call.get('epsilon', 1e-12):.9e}"
    yield f"y = LayerNormalization<axis=-1, epsilon={epsilon}>(total, scale{shift})"


@microsoft("x skip scale bias -> y mean deviation total", "SkipSimplifiedLayerNormalization")
def _skip_simplified(call: Call) -> Lines:
    if call.wants(1) or call.wants(2):
        raise UnfitError
    yield from _with_skip(call, 3)
    yield from _root_mean_square(call, "total", call.get("epsilon", 1e-12))


@microsoft(
    "ids segments words places kinds scale shift mask positions -> y index total",
    "EmbedLayerNormalization",
)
def _embed(call: Call) -> Lines:
    yield "w = Gather(words, ids)"
    if call.has(8):
        yield "p = Gather(places, positions)"
    else:
        yield integers("zero", 0)
        yield integers("front", 0)
        yield "length = Shape<start=1, end=2>(ids)"
        yield "p = Slice(places, zero, length, front)"
    # Sums of three in the order of transformers' BERT, for the stabiliser sees the first two.
    if call.has(1):
        yield "k = Gather(kinds, segments)"
        yield "a = Add(w, k)"
    yield f"total = Add({'a' if call.has(1) else 'w'}, p)"
    epsilon = f"{call.get('epsilon', 1e-12):.9e}"
    yield f"y = LayerNormalization<axis=-1, epsilon={epsilon}>(total, scale, shift)"
    if call.wants(1) and call.has(7):
        yield integers("second", 1)
        yield "index = ReduceSum<keepdims=0>(mask, second)"
    elif call.wants(1):
        # Without a mask the index says nothing, and is all 0.
        yield integers("rows", 0)
        yield "batch = Shape<start=0, end=1>(ids)"
        yield "none = Constant<value = int32[1] {0}>()"
        yield "index = Expand(none, batch)"
