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


@microsoft("a b -> y", "FusedMatMulActivation")
def _fused_matmul_activation(call: Call) -> Lines:
    kept_lines = list(_fused_matmul(call))
    yield from (f"z{line[1:]}" if line.startswith("y = ") else line for line in kept_lines)
    names = ("activation_alpha", "activation_beta", "activation_gamma")
    given = [call.get(n) for n in names if any(a.name == n for a in call.node.attribute)]
    yield from _activated(call, "z", given)


@microsoft("x w b z -> y", "NhwcFusedConv")
def _nhwc_fused_conv(call: Call) -> Lines:
    """With channels last, but weights as ever."""
    yield "first = Transpose<perm=[0, 3, 1, 2]>(x)"
    attributes = kept(call, "auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
    yield f"c = Conv{attributes}(first, w{', b' if call.has(2) else ''})"
    yield "last = Transpose<perm=[0, 2, 3, 1]>(c)"
    if call.has(3):
        yield "s = Add(last, z)"
    given = [n for a in call.node.attribute if a.name == "activation_params" for n in a.floats]
    yield from _activated(call, "s" if call.has(3) else "last", given)


# --- What ONNX has under the same name, or another ------------------------------------------------


@microsoft("x axis -> y", "ExpandDims")
def _expand_dims(call: Call) -> Lines:
    yield integers("one", 1)
    yield "row = Reshape(axis, one)"
    yield "axes = Cast<to=7>(row)"
    yield "y = Unsqueeze(x, axes)"


@microsoft("x indices -> y", "GatherND")
def _gather_parts(call: Call) -> Lines:
    yield "places = Cast<to=7>(indices)"
    yield "y = GatherND(x, places)"


@microsoft("x pads value -> y", "Pad")
def _pad(call: Call) -> Lines:
    yield integers("every", -1)
    yield "row = Reshape(pads, every)"
    value = ", value" if call.has(2) else ""
    yield f"y = Pad{kept(call, 'mode')}(x, row{value})"


@microsoft("x k -> y", "Trilu")
def _trilu(call: Call) -> Lines:
    yield f"y = Trilu{kept(call, 'upper')}(x{', k' if call.has(1) else ''})"


@microsoft("x grid -> y", "GridSample")
def _grid_sample(call: Call) -> Lines:
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(call.text("mode"), call.text("mode"))
    attributes = [f'mode="{mode or "linear"}"']
    attributes += [f'padding_mode="{call.text("padding_mode") or "zeros"}"']
    attributes += [f"align_corners={int(call.get('align_corners'))}"]
    yield f"y = GridSample<{', '.join(attributes)}>(x, grid)"


@microsoft("x ratio training -> y mask", "BitmaskDropout")
def _bitmask_dropout(call: Call) -> Lines:
    if call.wants(1) or (call.has(2) and any(call.constant(2))):
        raise UnfitError
    yield "y = Identity(x)"


@microsoft("x b skip ratio training -> y mask", "BiasDropout", "BitmaskBiasDropout")
def _bias_dropout(call: Call) -> Lines:
    if call.wants(1) or (call.has(4) and any(call.constant(4))):
        raise UnfitError
    yield "s = Add(x, b)"
    yield "y = Add(s, skip)" if call.has(2) else "y = Identity(s)"


@microsoft("a b -> y", "ComplexMul", "ComplexMulConj")
def _complex_product(call: Call) -> Lines:
    """Of pairs of a real and an imaginary part, along the last axis."""
    conjugated = call.node.op_type == "ComplexMulConj"
    yield "ar, ai = Split<axis=-1, num_outputs=2>(a)"
    yield "br, bi = Split<axis=-1, num_outputs=2>(b)"
    for name, left, right in (("rr", "ar", "br"), ("ii", "ai", "bi"), ("ir", "ai", "br")):
        yield f"{name} = Mul({left}, {right})"
    yield "ri = Mul(ar, bi)"
    yield f"real = {'Add' if conjugated else 'Sub'}(rr, ii)"
    yield f"imaginary = {'Sub' if conjugated else 'Add'}(ir, ri)"
    yield "y = Concat<axis=-1>(real, imaginary)"


@microsoft("emb q q_rot k k_rot -> y z", "GemmaRotaryEmbedding")
def _gemma_rotary(call: Call) -> Lines:
    yield integers("heads", 1)
    for function in ("Sin", "Cos"):
        yield f"{function}0 = {function}(emb)"
        yield f"{function}1 = Unsqueeze({function}0, heads)"
        yield f"{function}2 = Cast<to={call.kind(1)}>({function}1)"
    for made, x in (("y", "q"), ("z", "k")):
        yield f"{made}0 = Mul({x}, Cos2)"
        yield f"{made}1 = Mul({x}_rot, Sin2)"
        yield f"{made} = Add({made}0, {made}1)"


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


def _group_norm(call: Call, x: str) -> Lines:
    """onnxruntime's, for a CUDA device: channels last as a rule, and a Swish behind it."""
    last, rank = call.get("channels_last", 1), len(call.sizes(0))
    if rank != 4:
        raise UnfitError
    yield f"c = Transpose<perm=[0, 3, 1, 2]>({x})" if last else f"c = Identity({x})"
    groups = int(call.get("groups"))
    yield integers("grouped", 0, groups, -1)
    yield "rows = Reshape(c, grouped)"
    for name, value in (("ones", 1), ("nothing", 0)):
        yield f"{name}_32 = Constant<value_floats=[{', '.join([str(float(value))] * groups)}]>()"
        yield f"{name} = Cast<to={call.kind()}>({name}_32)"
    epsilon = f"{call.get('epsilon', 1e-5):.9e}"
    yield f"n = InstanceNormalization<epsilon={epsilon}>(rows, ones, nothing)"
    yield "whole = Shape(c)"
    yield "m = Reshape(n, whole)"
    yield integers("column", 1, -1, 1, 1)
    for name in ("scale", "shift"):
        yield f"{name}_c = Reshape({name}, column)"
        yield f"{name}_k = Cast<to={call.kind()}>({name}_c)"
    yield "g = Mul(m, scale_k)"
    yield "z = Add(g, shift_k)"
    if call.get("activation"):
        yield "s = Sigmoid(z)"
        yield "a = Mul(z, s)"
    made = "a" if call.get("activation") else "z"
    yield f"y = Transpose<perm=[0, 2, 3, 1]>({made})" if last else f"y = Identity({made})"


@microsoft("x scale shift -> y", "GroupNorm")
def _group_norm_alone(call: Call) -> Lines:
    yield from _group_norm(call, "x")


@microsoft("x scale shift skip bias -> y total", "SkipGroupNorm")
def _skip_group_norm(call: Call) -> Lines:
    yield "s = Add(x, bias)" if call.has(4) else "s = Identity(x)"
    if len(call.sizes(3)) == 2:
        yield integers("places", 1, 2)
        yield "skip4 = Unsqueeze(skip, places)"
    yield f"total = Add(s, {'skip4' if len(call.sizes(3)) == 2 else 'skip'})"
    yield from _group_norm(call, "total")
