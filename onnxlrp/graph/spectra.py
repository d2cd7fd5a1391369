"""Fourier transforms, which are linear: a product with a matrix, and for frames a convolution.

The matrices are written as what makes them, in float64, and are constants once that is folded.
"""

from __future__ import annotations

from math import pi

from onnxlrp.graph.bodies import Call, Lines, UnfitError, body, integers, microsoft

_DOUBLE = 11


def _waves(call: Call, size: int, bins: int, length: int, parts: int, inverse: bool) -> Lines:
    """A matrix [size, parts, bins, 2] as `waves`: exp(-2 pi j t k / length), or its inverse's.

    Of `parts`, the first is real and the second, if there is one, imaginary.
    """
    for name, count, shape in (("time", size, f"{size}, 1"), ("bin", bins, f"1, {bins}")):
        numbers = ", ".join(f"{number}.0" for number in range(count))
        yield f"{name} = Constant<value = double[{shape}] {{{numbers}}}>()"
    yield "turns = Mul(time, bin)"
    yield f"whole = Constant<value = double {{{length}.0}}>()"
    yield "rest = Mod<fmod=1>(turns, whole)"
    yield f"turn = Constant<value = double {{{2 * pi / length:.17e}}}>()"
    yield "angle = Mul(rest, turn)"
    factor = 1 / length if inverse else 1.0
    yield f"factor = Constant<value = double {{{factor:.17e}}}>()"
    for name, function in (("even", "Cos"), ("odd", "Sin")):
        yield f"{name}_1 = {function}(angle)"
        yield f"{name} = Mul({name}_1, factor)"
    yield "negative = Neg(odd)"
    # (a + jb)(cos - j sin), of the inverse (a + jb)(cos + j sin).
    down, up = ("odd", "negative") if inverse else ("negative", "odd")
    yield integers("last", -1)
    yield integers("inner", 1)
    rows = []
    for part, (real, imaginary) in enumerate([("even", down), (up, "even")][:parts]):
        yield f"real_{part} = Unsqueeze({real}, last)"
        yield f"imaginary_{part} = Unsqueeze({imaginary}, last)"
        yield f"pair_{part} = Concat<axis=-1>(real_{part}, imaginary_{part})"
        yield f"row_{part} = Unsqueeze(pair_{part}, inner)"
        rows.append(f"row_{part}")
    yield f"waves_64 = Concat<axis=1>({', '.join(rows)})"
    yield f"waves = Cast<to={call.kind()}>(waves_64)"


def _transformed(
    call: Call, x: str, sizes: list[int | None], axis: int, length: int = 0, half: bool = False
) -> Lines:
    """The transform of x along an axis, as y; the last axis holds the parts of a number."""
    rank = len(sizes)
    axis %= rank
    size, parts = sizes[axis], sizes[-1]
    if size is None or parts not in (1, 2) or axis == rank - 1:
        raise UnfitError
    inverse = bool(call.get("inverse"))
    # Half of a spectrum is that of real numbers.
    back = half and inverse
    if half and parts != (2 if inverse else 1):
        raise UnfitError
    length = length or (2 * (size - 1) if back else size)
    bins = length // 2 + 1 if half and not back else length
    used = min(size, length // 2 + 1 if back else length)
    if used < size:
        for name, value in (("begin", 0), ("end", used), ("cut", axis)):
            yield integers(name, value)
        yield f"short = Slice({x}, begin, end, cut)"
    yield from _waves(call, used, bins, length, parts, inverse)
    waves, made = "waves", 2
    if back:
        # All bins stand for two, but the first, and the last of an even number.
        twice = ", ".join("1" if 2 * k in (0, length) else "2" for k in range(used))
        yield f"twice = Constant<value = double[{used}, 1, 1, 1] {{{twice}}}>()"
        yield f"both = Cast<to={call.kind()}>(twice)"
        yield integers("front", 0)
        yield integers("one", 1)
        yield "real_waves = Slice(waves, front, one, last)"
        yield "whole_waves = Mul(real_waves, both)"
        waves, made = "whole_waves", 1
    order = [*(a for a in range(rank - 1) if a != axis), axis, rank - 1]
    yield f"moved = Transpose<perm={order}>({'short' if used < size else x})"
    yield integers("flat", *[0] * (rank - 2), used * parts)
    yield "row = Reshape(moved, flat)"
    yield integers("table", used * parts, bins * made)
    yield f"matrix = Reshape({waves}, table)"
    yield "product = MatMul(row, matrix)"
    yield integers("apart", *[0] * (rank - 2), bins, made)
    yield "made = Reshape(product, apart)"
    yield f"y = Transpose<perm={[order.index(a) for a in range(rank)]}>(made)"


@body("x size axis -> y", "DFT")
def _dft(call: Call) -> Lines:
    """Its axis is an attribute below opset 20."""
    axis = int(call.get("axis", 1)) if call.opset < 20 else -2
    if call.has(2):
        (axis,) = call.constant(2)
    length = int(call.constant(1)[0]) if call.has(1) else 0
    yield from _transformed(call, "x", call.sizes(0), axis, length, bool(call.get("onesided")))


@microsoft("x -> y", "Rfft")
def _rfft(call: Call) -> Lines:
    if call.get("signal_ndim", 1) != 1 or not call.get("onesided", 1) or call.get("normalized"):
        raise UnfitError
    yield integers("end", -1)
    yield "column = Unsqueeze(x, end)"
    sizes = [*call.sizes(0), 1]
    yield from _transformed(call, "column", sizes, -2, half=True)


@body("x step window size -> y", "STFT")
def _stft(call: Call) -> Lines:
    """A convolution: its filters are windowed waves, its stride is the step."""
    sizes = call.sizes(0)
    parts = sizes[2] if len(sizes) == 3 else 1
    (step,) = call.constant(1)
    size = call.constant(3)[0] if call.has(3) else call.known(2)[0]
    half = bool(call.get("onesided", 1))
    if parts not in (1, 2) or (half and parts == 2):
        raise UnfitError
    bins = size // 2 + 1 if half else size
    yield from _waves(call, size, bins, size, parts, False)
    yield "filters = Transpose<perm=[2, 3, 1, 0]>(waves)"
    yield f"windowed = {'Mul(filters, window)' if call.has(2) else 'Identity(filters)'}"
    yield integers("shape", bins * 2, parts, size)
    yield "weights = Reshape(windowed, shape)"
    if len(sizes) == 2:
        yield integers("end", -1)
        yield "column = Unsqueeze(x, end)"
    yield f"row = Transpose<perm=[0, 2, 1]>({'x' if len(sizes) == 3 else 'column'})"
    yield f"frames = Conv<strides=[{step}], kernel_shape=[{size}]>(row, weights)"
    yield "turned = Transpose<perm=[0, 2, 1]>(frames)"
    yield integers("apart", 0, 0, bins, 2)
    yield "y = Reshape(turned, apart)"
