"""Attention and rotary embedding: ONNX's and onnxruntime's, which are one thing with many doors.

onnx has bodies for its own, but leaves ranks behind them unknown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from onnxlrp.graph.bodies import Call, Lines, UnfitError, body, integers, microsoft

_LOWEST = -3.4028235e38
_BOOL = 9


def _heads(source: str, heads: int, made: str) -> Lines:
    """Split the last axis of [N, T, heads * size] into [N, heads, T, size]."""
    yield integers(f"{made}_shape", 0, 0, heads, -1)
    yield f"{made}_split = Reshape({source}, {made}_shape)"
    yield f"{made} = Transpose<perm=[0, 2, 1, 3]>({made}_split)"


def _joined(source: str) -> Lines:
    """Undo `_heads`, into y."""
    yield f"{source}_back = Transpose<perm=[0, 2, 1, 3]>({source})"
    yield integers("joined", 0, 0, -1)
    yield f"y = Reshape({source}_back, joined)"


def _repeated(source: str, heads: int, times: int) -> Lines:
    """Repeat each head of [N, heads, S, size], for the queries that share it."""
    yield integers(f"{source}_own", 2)
    yield f"{source}_one = Unsqueeze({source}, {source}_own)"
    yield f"{source}_many = Concat<axis=2>({', '.join([f'{source}_one'] * times)})"
    # A 0 copies the axis in its own place; the last of five is not the last of four.
    yield f"{source}_size = Shape<start=-1>({source})"
    yield integers(f"{source}_front", 0, heads * times, -1)
    yield f"{source}_whole = Concat<axis=0>({source}_front, {source}_size)"
    yield f"{source}r = Reshape({source}_many, {source}_whole)"


def _attend(
    call: Call, scale: float, masks: Sequence[str], cap: float = 0.0, seen: str = ""
) -> Lines:
    """softmax(scale q k^T + masks) v, of q, k and v as [N, heads, T, size].

    Who sees nothing, by the truths `seen`, gets nothing.
    """
    yield "kt = Transpose<perm=[0, 1, 3, 2]>(k)"
    yield "raw = MatMul(q, kt)"
    yield from call.number("scale", scale)
    yield "scores0 = Mul(raw, scale)"
    here = "scores0"
    if cap:
        yield from call.number("cap", cap)
        yield f"capped0 = Div({here}, cap)"
        yield "capped1 = Tanh(capped0)"
        yield "capped = Mul(capped1, cap)"
        here = "capped"
    for i, mask in enumerate(masks):
        yield f"scores{i + 1} = Add({here}, {mask})"
        here = f"scores{i + 1}"
    yield f"shares = Softmax<axis=-1>({here})"
    if seen:
        yield from call.number("unshared", 0)
        yield f"given = Where({seen}, shares, unshared)"
    yield f"mixed = MatMul({'given' if seen else 'shares'}, v)"


def _causal(call: Call, q: str, k: str, past: str = "") -> Lines:
    """No query sees what stands after it: a mask [T, S]; all stand behind what is past."""
    yield "zero_i = Constant<value = int64 {0}>()"
    yield "one_i = Constant<value = int64 {1}>()"
    yield integers("first_i", 0)
    yield integers("second_i", 1)
    for name, source in (("t", q), ("s", k)):
        yield f"{name}_length = Shape<start=2, end=3>({source})"
        yield f"{name}_count = Squeeze({name}_length, first_i)"
        yield f"{name}_range = Range(zero_i, {name}_count, one_i)"
    yield "t_place = Unsqueeze(t_range, second_i)"
    yield "s_place = Unsqueeze(s_range, first_i)"
    if past:
        yield f"p_length = Shape<start=2, end=3>({past})"
        yield "t_behind = Add(t_place, p_length)"
    yield f"hidden = Greater(s_place, {'t_behind' if past else 't_place'})"
    yield from call.number("nothing", 0)
    yield from call.number("lowest", _LOWEST)
    yield "causal = Where(hidden, lowest, nothing)"


@body("q_in k_in v_in mask past_k past_v lengths -> y present_k present_v scores", "Attention")
def _attention(call: Call) -> Lines:
    """ONNX's, from opset 23 on; a cache is what stands in front of the keys and values."""
    call.refuse(6)
    if call.wants(3) or call.get("left_window_size", -1) >= 0:
        raise UnfitError
    if call.get("right_window_size", -1) >= 0:
        raise UnfitError
    sizes = [call.sizes(i) for i in range(3)]
    flat = len(sizes[0]) == 3
    if flat:
        many, few = int(call.get("q_num_heads")), int(call.get("kv_num_heads"))
        width = sizes[0][2]
        size = None if width is None else width // many
        for name, heads in (("q", many), ("k", few), ("v", few)):
            yield from _heads(f"{name}_in", heads, f"{name}_own")
    else:
        if sizes[0][1] is None or sizes[1][1] is None:
            raise UnfitError
        many, few, size = sizes[0][1], sizes[1][1], sizes[0][3]
        for name in "qkv":
            yield f"{name}_own = Identity({name}_in)"
    yield "q = Identity(q_own)"
    for index, name in ((4, "k"), (5, "v")):
        made = name if many == few else f"{name}_few"
        if call.has(index):
            yield f"{made} = Concat<axis=2>(past_{name}, {name}_own)"
        else:
            yield f"{made} = Identity({name}_own)"
    if many != few:
        for name in "kv":
            yield from _repeated(f"{name}_few", few, many // few)
            yield f"{name} = Identity({name}_fewr)"
    given = call.get("scale")
    if not given and size is None:
        raise UnfitError
    masks = []
    if call.has(3):
        if call.kind(3) == _BOOL:
            yield from call.number("seen", 0)
            yield from call.number("unseen", _LOWEST)
            yield "allowed = Where(mask, seen, unseen)"
        else:
            yield "allowed = Identity(mask)"
        masks.append("allowed")
    if call.get("is_causal"):
        yield from _causal(call, "q", "k", "past_k" if call.has(4) else "")
        masks.append("causal")
    seen = "mask" if call.has(3) and call.kind(3) == _BOOL else ""
    yield from _attend(call, given or 1 / math.sqrt(size or 1), masks, call.get("softcap"), seen)
    if flat:
        yield from _joined("mixed")
    else:
        yield "y = Identity(mixed)"
    for index, name in ((1, "k"), (2, "v")):
        if call.wants(index):
            yield f"present_{name} = Identity({name if many == few else f'{name}_few'})"


def _key_mask(call: Call, index: int) -> Lines:
    """onnxruntime's mask of keys, [N, S], [N, T, S] or [N]: lengths; as `padding`."""
    rank = len(call.sizes(index))
    yield from call.number("filter", call.get("mask_filter_value", -10000.0))
    yield from call.number("full", 1)
    name = call.node.input[index]
    if rank == 1:
        if call.sizes(index)[0] is None and call.sizes(0)[0] is not None:
            raise UnfitError
        yield "zero_k = Constant<value = int32 {0}>()"
        yield "one_k = Constant<value = int32 {1}>()"
        yield integers("first_k", 0)
        yield integers("second_k", 1)
        yield "k_length = Shape<start=2, end=3>(k)"
        yield "k_scalar = Squeeze(k_length, first_k)"
        yield "k_count = Cast<to=6>(k_scalar)"
        yield "k_range = Range(zero_k, k_count, one_k)"
        yield "k_end = Unsqueeze(mask, second_k)"
        yield "k_seen = Less(k_range, k_end)"
        yield f"visible = Cast<to={call.kind()}>(k_seen)"
    elif rank in (2, 3):
        yield f"visible = Cast<to={call.kind()}>(mask)"
    else:
        raise UnfitError(name)
    yield "masked = Sub(full, visible)"
    yield "filtered = Mul(masked, filter)"
    yield integers("heads_axes", *((1, 2) if rank < 3 else (1,)))
    yield "padding = Unsqueeze(filtered, heads_axes)"


@microsoft("x w b mask past bias -> y present", "Attention")
def _packed_attention(call: Call) -> Lines:
    """onnxruntime's, with the projections of queries, keys and values as one matrix."""
    call.refuse(4, 6)
    if call.wants(1) or call.get("do_rotary") or call.get("past_present_share_buffer"):
        raise UnfitError
    heads, width = int(call.get("num_heads")), call.sizes(1)[1]
    if width is None or any(a.name == "qkv_hidden_sizes" for a in call.node.attribute):
        raise UnfitError
    yield "product = MatMul(x, w)"
    yield f"projected = {'Add(product, b)' if call.has(2) else 'Identity(product)'}"
    yield "q_in, k_in, v_in = Split<axis=-1, num_outputs=3>(projected)"
    for name in "qkv":
        yield from _heads(f"{name}_in", heads, name)
    yield from _with_masks(call, 3, 5, width // 3 // heads)


def _with_masks(call: Call, mask: int, bias: int, size: int) -> Lines:
    masks = []
    if call.has(mask):
        yield from _key_mask(call, mask)
        masks.append("padding")
    if call.has(bias):
        masks.append("bias")
    if call.get("unidirectional"):
        yield from _causal(call, "q", "k")
        masks.append("causal")
    yield from _attend(call, call.get("scale") or 1 / math.sqrt(size), masks)
    yield from _joined("mixed")


@microsoft(
    "q_in k_in v_in b mask bias past_k past_v -> y present_k present_v", "MultiHeadAttention"
)
def _multi_head_attention(call: Call) -> Lines:
    """onnxruntime's, of queries, keys and values that are not packed, without a cache."""
    call.refuse(6, 7, 8, 9)
    if not call.has(1) or not call.has(2) or any(len(call.sizes(i)) != 3 for i in range(3)):
        raise UnfitError
    heads, width = int(call.get("num_heads")), call.sizes(0)[2]
    if width is None:
        raise UnfitError
    if call.has(3):
        length = call.sizes(3)[0]
        if length is None:
            raise UnfitError
        yield integers("parts", width, width, length - 2 * width)
        yield "q_b, k_b, v_b = Split<axis=0>(b, parts)"
    for name in "qkv":
        if call.has(3):
            yield f"{name}_sum = Add({name}_in, {name}_b)"
        yield from _heads(f"{name}_{'sum' if call.has(3) else 'in'}", heads, name)
    for index, name in ((1, "k"), (2, "v")):
        if call.wants(index):
            yield f"present_{name} = Identity({name})"
    yield from _with_masks(call, 4, 5, width // heads)


@body("x cos_cache sin_cache positions -> y", "RotaryEmbedding")
def _rotary(call: Call) -> Lines:
    """ONNX's, from opset 23 on."""
    yield from _rotated(call, 3, 1)


@microsoft("x positions cos_cache sin_cache -> y", "RotaryEmbedding")
def _microsoft_rotary(call: Call) -> Lines:
    """onnxruntime's: the caches come last, and positions of one number are where it starts."""
    if call.get("is_packed_batching") or call.get("scale", 1.0) != 1 or len(call.sizes(1)) != 2:
        raise UnfitError
    yield from _rotated(call, 1, 2)


def _rotated(call: Call, positions: int, cache: int) -> Lines:
    """Turn pairs of features by an angle that grows with their place.

    They stand in the two halves of a head, or, interleaved, side by side.
    """
    sizes, half = call.sizes(0), call.sizes(cache)[-1]
    flat, heads = len(sizes) == 3, int(call.get("num_heads"))
    if half is None:
        raise UnfitError
    size = sizes[-1]
    if size is None:
        raise UnfitError
    if flat:
        heads = heads or size // (2 * half)
        size //= heads
        yield from _heads("x", heads, "z")
    else:
        yield "z = Identity(x)"
    chosen = call.has(positions)
    for name in ("cos", "sin"):
        if chosen:
            yield f"{name}_at = Gather({name}_cache, positions)"
        yield integers(f"{name}_axis", 1)
        yield f"{name} = Unsqueeze({name}_{'at' if chosen else 'cache'}, {name}_axis)"
    if size == 2 * half:
        yield "turned = Identity(z)"
    else:
        yield integers("kept", 2 * half, size - 2 * half)
        yield "turned, still = Split<axis=-1>(z, kept)"
    if call.get("interleaved"):
        yield integers("pairs", 0, 0, 0, half, 2)
        yield "paired = Reshape(turned, pairs)"
        yield "left_p, right_p = Split<axis=-1, num_outputs=2>(paired)"
        yield integers("pair_axis", -1)
        yield "left = Squeeze(left_p, pair_axis)"
        yield "right = Squeeze(right_p, pair_axis)"
    else:
        yield "left, right = Split<axis=-1, num_outputs=2>(turned)"
    yield "lc = Mul(left, cos)"
    yield "rs = Mul(right, sin)"
    yield "real = Sub(lc, rs)"
    yield "ls = Mul(left, sin)"
    yield "rc = Mul(right, cos)"
    yield "imaginary = Add(ls, rc)"
    if call.get("interleaved"):
        yield "real_u = Unsqueeze(real, pair_axis)"
        yield "imaginary_u = Unsqueeze(imaginary, pair_axis)"
        yield "beside = Concat<axis=-1>(real_u, imaginary_u)"
        yield integers("unpaired", 0, 0, 0, 2 * half)
        yield "whole0 = Reshape(beside, unpaired)"
    else:
        yield "whole0 = Concat<axis=-1>(real, imaginary)"
    yield f"whole = {'Identity(whole0)' if size == 2 * half else 'Concat<axis=-1>(whole0, still)'}"
    if flat:
        yield from _joined("whole")
    else:
        yield "y = Identity(whole)"
