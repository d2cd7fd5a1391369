"""Operators that hold weights of a few bits, several in a byte: what they compute."""

from __future__ import annotations

from onnx import TensorProto

from onnxlrp.graph.bodies import Call, Lines, UnfitError, integers, microsoft

_PACKED = 21
"""The first opset whose DequantizeLinear takes blocks, and integers of 4 bits."""


def _digits(call: Call, name: str, bits: int) -> Lines:
    """Write the numbers in each byte, the lowest bits first, on an axis of their own behind.

    By arithmetic: of shifts not every provider has a kernel.
    """
    yield f"{name}_0 = Cast<to={call.kind(0)}>({name})"
    count = 8 // bits
    for place in range(count):
        yield f"{name}_part_{place} = Div({name}_{place}, base)"
        yield f"{name}_{place + 1} = Floor({name}_part_{place})"
        yield f"{name}_above_{place} = Mul({name}_{place + 1}, base)"
        yield f"{name}_digit_{place} = Sub({name}_{place}, {name}_above_{place})"
        yield f"{name}_column_{place} = Unsqueeze({name}_digit_{place}, last)"
    columns = ", ".join(f"{name}_column_{place}" for place in range(count))
    yield f"{name}_digits = Concat<axis=-1>({columns})"


@microsoft("a b s z g bias -> y", "MatMulNBits")
def _matmul_bits(call: Call) -> Lines:
    call.refuse(4)
    depth, width, bits, size = (int(call.get(n)) for n in ("K", "N", "bits", "block_size"))
    bits = bits or 4
    if bits not in (2, 4, 8):
        raise UnfitError
    blocks = -(-depth // size)
    yield from call.number("base", 2.0**bits)
    yield integers("last", -1)
    yield integers("blocked", width, blocks, size)
    yield integers("single", width, blocks, 1)
    yield integers("rows", width, blocks * size)
    yield from _digits(call, "b", bits)
    yield "q = Reshape(b_digits, blocked)"
    if not call.has(3):
        yield from call.number("zero", 2.0 ** (bits - 1))
    elif call.kind(3) == TensorProto.UINT8:
        yield from _digits(call, "z", bits)
        yield integers("several", width, -1)
        yield "zeros = Reshape(z_digits, several)"
        yield from _first("zeros", "held", blocks)
        yield "zero = Reshape(held, single)"
    else:
        yield "zero = Reshape(z, single)"
    yield "centred = Sub(q, zero)"
    yield "scale = Reshape(s, single)"
    yield "real = Mul(centred, scale)"
    yield "padded = Reshape(real, rows)"
    yield from _first("padded", "turned", depth)
    yield "w = Transpose<perm=[1, 0]>(turned)"
    yield f"{'m' if call.has(5) else 'y'} = MatMul(a, w)"
    if call.has(5):
        yield "y = Add(m, bias)"


def _first(x: str, y: str, count: int) -> Lines:
    """Cut off what lies behind the first places of axis 1."""
    yield integers(f"{y}_from", 0)
    yield integers(f"{y}_to", count)
    yield integers(f"{y}_axis", 1)
    yield f"{y} = Slice({x}, {y}_from, {y}_to, {y}_axis)"


@microsoft("data indices s z -> y", "GatherBlockQuantized")
def _gather_blocks(call: Call) -> Lines:
    if call.opset < _PACKED or call.kind(0) == TensorProto.UINT8:
        raise UnfitError
    axis, size = int(call.get("quantize_axis", 1)), int(call.get("block_size", 128))
    zero = ", z" if call.has(3) else ""
    yield f"table = DequantizeLinear<axis={axis}, block_size={size}>(data, s{zero})"
    yield f"y = Gather<axis={int(call.get('gather_axis', 0))}>(table, indices)"
