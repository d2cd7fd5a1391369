"""Operators of ONNX that are others in a new order: pooling by norms, choices, unpooling, Det."""

from __future__ import annotations

from itertools import combinations
from math import prod

from onnxlrp.graph.bodies import Call, Lines, UnfitError, body, integers, kept

# --- Norms ---------------------------------------------------------------------------------------


def _powers(call: Call, x: str) -> tuple[Lines, float]:
    """|x|^p as `powers`, and p."""
    p = call.get("p", 2)

    def lines() -> Lines:
        if p == 2:
            yield f"powers = Mul({x}, {x})"
            return
        yield f"size = Abs({x})"
        if p == 1:
            yield "powers = Identity(size)"
            return
        yield from call.number("p", p)
        yield "powers = Pow(size, p)"

    return lines(), p


def _root(call: Call, total: str, p: float) -> Lines:
    if p == 1:
        yield f"y = Identity({total})"
    elif p == 2:
        yield f"y = Sqrt({total})"
    else:
        yield from call.number("inverse", 1 / p)
        yield f"y = Pow({total}, inverse)"


@body("x -> y", "LpPool")
def _lp_pool(call: Call) -> Lines:
    """The p-norm of each window: an average of powers, times how many a window has."""
    window = call.numbers("kernel_shape")
    dilated = any(n != 1 for n in call.numbers("dilations"))
    if call.get("ceil_mode") or (dilated and call.opset < 19):
        raise UnfitError
    powers, p = _powers(call, "x")
    yield from powers
    attributes = kept(call, "auto_pad", "dilations", "kernel_shape", "pads", "strides")
    yield f"mean = AveragePool{attributes[:-1]}, count_include_pad=1>(powers)"
    yield from call.number("count", prod(window))
    yield "total = Mul(mean, count)"
    yield from _root(call, "total", p)


@body("x -> y", "GlobalLpPool")
def _global_lp_pool(call: Call) -> Lines:
    powers, p = _powers(call, "x")
    yield from powers
    yield integers("axes", *range(2, len(call.sizes(0))))
    yield "total = ReduceSum(powers, axes)"
    yield from _root(call, "total", p)


@body("x -> y", "LpNormalization")
def _absolute_normalization(call: Call) -> Lines:
    """By the sum of absolute values: a gate. Nothing divided by nothing is nothing."""
    if call.get("p", 2) != 1:
        raise UnfitError
    yield "size = Abs(x)"
    yield integers("along", int(call.get("axis", -1)))
    yield "total = ReduceSum(size, along)"
    yield from call.number("least", 1e-30)
    yield "norm = Clip(total, least)"
    yield "y = Div(x, norm)"


@body("x axis -> y", "CumProd")
def _running_product(call: Call) -> Lines:
    """Multiply every beginning of an axis: products, each shared by its factors."""
    sizes = call.sizes(0)
    (axis,) = call.constant(1)
    size, backwards, shifted = sizes[axis], call.get("reverse"), call.get("exclusive")
    if size is None:
        raise UnfitError
    yield integers("along", axis)
    made = []
    for place in range(size):
        begin, end = (place, size) if backwards else (0, place + 1)
        if shifted:
            begin, end = begin + bool(backwards), end - (not backwards)
        made.append(f"y{place}")
        if begin == end:
            yield integers("none", 0)
            yield integers("single", 1)
            yield "some = Slice(x, none, single, along)"
            yield "shape = Shape(some)"
            yield from call.number("one", 1)
            yield f"y{place} = Expand(one, shape)"
            continue
        yield integers(f"begin{place}", begin)
        yield integers(f"end{place}", end)
        yield f"part{place} = Slice(x, begin{place}, end{place}, along)"
        yield f"y{place} = ReduceProd(part{place}, along)"
    yield f"y = Concat<axis={axis}>({', '.join(made)})"


@body("x w b past -> y present", "CausalConvWithState")
def _causal_convolution(call: Call) -> Lines:
    """Convolve each channel with what stands behind; what is past stands in front."""
    channels, _, size = call.known(1)
    kind = call.text("activation")
    if kind not in ("", "none", "silu", "swish"):
        raise UnfitError
    if call.has(3):
        yield "whole = Concat<axis=2>(past, x)"
    else:
        yield integers("pads", 0, 0, size - 1, 0, 0, 0)
        yield "whole = Pad(x, pads)"
    yield f"c = Conv<group={channels}>(whole, w{', b' if call.has(2) else ''})"
    if kind in ("silu", "swish"):
        yield "s = Sigmoid(c)"
        yield "y = Mul(c, s)"
    else:
        yield "y = Identity(c)"
    if call.wants(1):
        yield integers("begin", -(size - 1) or 1 << 31)
        yield integers("end", 1 << 31)
        yield integers("along", 2)
        yield "present = Slice(whole, begin, end, along)"


# --- What is moved -------------------------------------------------------------------------------


@body("x condition -> y", "Compress")
def _compress(call: Call) -> Lines:
    """Gather the places at which the condition holds."""
    along = any(a.name == "axis" for a in call.node.attribute)
    if not along:
        yield integers("flat", -1)
        yield "row = Reshape(x, flat)"
    yield integers("first", 0)
    yield "found = NonZero(condition)"
    yield "places = Squeeze(found, first)"
    axis = int(call.get("axis")) if along else 0
    yield f"y = Gather<axis={axis}>({'x' if along else 'row'}, places)"


@body("x places size -> y", "MaxUnpool")
def _max_unpool(call: Call) -> Lines:
    """Put every element where it was the largest; all else is 0.

    Places are counted in the output, of whatever size that is asked to have, as onnxruntime and
    PyTorch do.
    """
    shape = call.known(0)
    window = call.numbers("kernel_shape")
    rank = len(window)
    strides = call.numbers("strides") or [1] * rank
    pads = call.numbers("pads") or [0] * (2 * rank)
    made = [
        (shape[i + 2] - 1) * strides[i] - pads[i] - pads[i + rank] + window[i] for i in range(rank)
    ]
    whole = [*shape[:2], *made]
    if call.has(2):
        whole = [int(n) for n in call.constant(2)]
    yield integers("flat", -1)
    yield "row = Reshape(x, flat)"
    yield "index = Reshape(places, flat)"
    yield integers("count", prod(whole))
    yield "none_32 = Constant<value = float {0}>()"
    yield f"none = Cast<to={call.kind()}>(none_32)"
    yield "zeros = Expand(none, count)"
    yield "spread = ScatterElements<axis=0>(zeros, index, row)"
    yield integers("whole", *whole)
    yield "y = Reshape(spread, whole)"


@body("past update places -> y", "TensorScatter")
def _tensor_scatter(call: Call) -> Lines:
    """Take each place along an axis from what is new, if it is within, or else from what was."""
    rank = len(call.sizes(0))
    axis = int(call.get("axis", -2)) % rank
    longest, length = call.sizes(0)[axis], call.sizes(1)[axis]
    if longest is None or length is None:
        raise UnfitError
    yield f"all = Constant<value_ints=[{', '.join(map(str, range(longest)))}]>()"
    yield integers("line", *[1 if a != axis else longest for a in range(rank)])
    yield "place = Reshape(all, line)"
    if call.has(2):
        yield integers("column", -1, *[1] * (rank - 1))
        yield "begin = Reshape(places, column)"
        yield "distance = Sub(place, begin)"
    else:
        yield "distance = Identity(place)"
    yield f"whole = Constant<value = int64 {{{longest}}}>()"
    yield f"long = Constant<value = int64 {{{length}}}>()"
    yield "zero = Constant<value = int64 {0}>()"
    if call.text("mode") == "circular":
        yield "behind = Mod(distance, whole)"
    else:
        yield "behind = Identity(distance)"
    yield "late = Less(behind, long)"
    yield "early = Less(behind, zero)"
    yield "after = Not(early)"
    yield "new = And(late, after)"
    yield "source = Where(new, behind, zero)"
    yield "shape = Shape(past)"
    yield "sources = Expand(source, shape)"
    yield f"moved = GatherElements<axis={axis}>(update, sources)"
    yield "y = Where(new, moved, past)"


# --- Det -----------------------------------------------------------------------------------------

_LARGEST = 4


@body("x -> y", "Det")
def _det(call: Call) -> Lines:
    """Expand it along rows, of matrices up to 4 x 4: products, each shared by its factors."""
    *batch, rows, columns = call.sizes(0)
    if rows is None or rows != columns or rows > _LARGEST:
        raise UnfitError
    yield integers("flat", -1, rows * rows)
    yield "all = Reshape(x, flat)"
    cells = [f"e{i}{j}" for i in range(rows) for j in range(rows)]
    yield f"{', '.join(cells)} = Split<axis=1, num_outputs={len(cells)}>(all)"

    # Minors of the last rows, by the columns that they take.
    minors: dict[tuple[int, ...], str] = {(j,): f"e{rows - 1}{j}" for j in range(rows)}
    for row in reversed(range(rows - 1)):
        wider: dict[tuple[int, ...], str] = {}
        for chosen in combinations(range(rows), rows - row):
            terms = []
            for sign, j in enumerate(chosen):
                rest = tuple(k for k in chosen if k != j)
                name = f"t{row}_{j}_{''.join(map(str, rest))}"
                yield f"{name} = Mul(e{row}{j}, {minors[rest]})"
                terms.append((sign % 2, name))
            total = terms[0][1]
            for place, (odd, name) in enumerate(terms[1:]):
                made = f"m{row}_{''.join(map(str, chosen))}_{place}"
                yield f"{made} = {'Sub' if odd else 'Add'}({total}, {name})"
                total = made
            wider[chosen] = total
        minors = wider
    (made,) = minors.values()
    if batch:
        yield "shape = Shape<start=0, end=-2>(x)"
        yield f"y = Reshape({made}, shape)"
    else:
        yield integers("both", 0, 1)
        yield f"y = Squeeze({made}, both)"
