"""Pictures read between their pixels: GridSample, DeformConv, RoiAlign; and where, AffineGrid.

Each is a sum of pixels times weights. Which pixels, and what weights, follows from coordinates: if
these depend on the input as well, the weights are gates, for they are bounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from onnxlrp.graph.bodies import Call, Lines, UnfitError, body, integers

_CUBIC = -0.75


def _row(name: str, numbers: Sequence[float], shape: Sequence[int], kind: int) -> Lines:
    """Write a constant tensor of real numbers."""
    text = ", ".join(f"{number:.9e}" for number in numbers)
    sizes = f"[{', '.join(map(str, shape))}]" if shape else ""
    yield f"{name}_32 = Constant<value = float{sizes} {{{text}}}>()"
    yield f"{name} = Cast<to={kind}>({name}_32)"


@dataclass(frozen=True)
class _Axis:
    """An axis of a picture, and how it is read between its pixels.

    Attributes
    ----------
    name : of the coordinates along it, and the prefix of what is made of them
    size : of the axis
    kind : of the coordinates' elements
    mode : linear, nearest or cubic
    padding : zeros, border or reflection
    low, high : between what lies the picture

    """

    name: str
    size: int
    kind: int
    mode: str = "linear"
    padding: str = "zeros"
    low: float = 0.0
    high: float = 0.0

    def number(self, name: str, value: float) -> Lines:
        yield from _row(f"{self.name}_{name}", [value], [], self.kind)

    def clipped(self, made: str, given: str, low: str = "first", high: str = "end") -> str:
        return f"{made} = Clip({given}, {self.name}_{low}, {self.name}_{high})"

    def reflected(self, made: str, given: str) -> Lines:
        """Reflect what lies outside, until it lies inside."""
        at = f"{made}_"
        yield f"{at}o = Sub({given}, {self.name}_low)"
        yield f"{at}m = Mod<fmod=1>({at}o, {self.name}_twice)"
        yield f"{at}n = Add({at}m, {self.name}_twice)"
        yield f"{at}p = Mod<fmod=1>({at}n, {self.name}_twice)"
        yield f"{at}d = Sub({at}p, {self.name}_range)"
        yield f"{at}a = Abs({at}d)"
        yield f"{at}i = Sub({self.name}_high, {at}a)"
        yield f"{at}below = Less({given}, {self.name}_low)"
        yield f"{at}above = Greater({given}, {self.name}_high)"
        yield f"{at}out = Or({at}below, {at}above)"
        yield f"{made} = Where({at}out, {at}i, {given})"

    def taps(self) -> Lines:
        """Write the pixels next to the coordinates, NAME_i0, ..., and their weights, NAME_w0."""
        n = self.name
        numbers = {"first": 0, "end": self.size - 1, "one": 1, "low": self.low, "high": self.high}
        numbers |= {"range": self.high - self.low, "twice": 2 * (self.high - self.low)}
        for name, value in numbers.items():
            yield from self.number(name, value)
        here = n
        if self.mode == "nearest":
            yield f"{n}_near = Round({here})"
            here = f"{n}_near"
        if self.padding == "border":
            yield self.clipped(f"{n}_in", here)
            here = f"{n}_in"
        elif self.padding == "reflection":
            yield from self.reflected(f"{n}_in", here)
            here = f"{n}_in"
        yield f"{n}_floor = Floor({here})"
        yield f"{n}_less = Sub({here}, {n}_floor)"
        # It is already; but not every reader sees that.
        yield self.clipped(f"{n}_f", f"{n}_less", "first", "one")
        steps = {"nearest": [0], "linear": [0, 1], "cubic": [-1, 0, 1, 2]}[self.mode]
        for tap, step in enumerate(steps):
            yield from self.number(f"s{tap}", step)
            yield f"{n}_p{tap} = Add({n}_floor, {n}_s{tap})"
            place = f"{n}_p{tap}"
            if self.padding == "reflection":
                yield from self.reflected(f"{n}_r{tap}", place)
                place = f"{n}_r{tap}"
            yield self.clipped(f"{n}_c{tap}", place)
            yield f"{n}_i{tap} = Cast<to=7>({n}_c{tap})"
            yield from self.weight(tap, step)
            if self.padding == "zeros":
                yield f"{n}_off{tap} = Sub({place}, {n}_c{tap})"
                yield f"{n}_away{tap} = Cast<to=9>({n}_off{tap})"
                yield f"{n}_seen{tap} = Not({n}_away{tap})"
                yield f"{n}_mask{tap} = Cast<to={self.kind}>({n}_seen{tap})"
                yield f"{n}_w{tap} = Mul({n}_v{tap}, {n}_mask{tap})"
            else:
                yield f"{n}_w{tap} = Identity({n}_v{tap})"

    def weight(self, tap: int, step: int) -> Lines:
        n, made = self.name, f"{self.name}_v{tap}"
        if self.mode == "nearest":
            yield f"{made}_0 = Mul({n}_f, {n}_first)"
            yield f"{made} = Add({made}_0, {n}_one)"
        elif self.mode == "linear":
            yield f"{made} = {f'Sub({n}_one, {n}_f)' if step == 0 else f'Identity({n}_f)'}"
        else:
            # Keys 1981: a cubic of the distance, one within 1 of it, another within 2.
            a = _CUBIC
            near = [1.0, 0.0, -(a + 3), a + 2]
            far = [-4 * a, 8 * a, -5 * a, a]
            ends = (f"{n}_f", f"{n}_s{tap}") if step <= 0 else (f"{n}_s{tap}", f"{n}_f")
            yield f"{made}_d = Sub({', '.join(ends)})"
            coefficients = near if step in (0, 1) else far
            yield from self.number(f"k{tap}_3", coefficients[3])
            total = f"{n}_k{tap}_3"
            for power in (2, 1, 0):
                yield from self.number(f"k{tap}_{power}", coefficients[power])
                yield f"{made}_x{power} = Mul({total}, {made}_d)"
                yield f"{made}_y{power} = Add({made}_x{power}, {n}_k{tap}_{power})"
                total = f"{made}_y{power}"
            yield f"{made} = Identity({total})"

    @property
    def count(self) -> int:
        return {"nearest": 1, "linear": 2, "cubic": 4}[self.mode]


def _read(x: str, axes: Sequence[_Axis], groups: int, channels: int, points: int) -> Lines:
    """Read x, [N, groups * channels, ...], at points of every group, as `read`.

    The coordinates are [N, groups, 1, points] each, what is read [N, groups, channels, points].
    """
    for axis in axes:
        yield from axis.taps()
    taps = list(product(*(range(axis.count) for axis in axes)))
    strides = [prod(axis.size for axis in axes[i + 1 :]) for i in range(len(axes))]
    for i, stride in enumerate(strides):
        yield f"stride_{i} = Constant<value = int64 {{{stride}}}>()"
    for t, chosen in enumerate(taps):
        place = weight = ""
        for i, (axis, tap) in enumerate(zip(axes, chosen, strict=True)):
            yield f"at_{t}_{i} = Mul({axis.name}_i{tap}, stride_{i})"
            step, own = f"at_{t}_{i}", f"{axis.name}_w{tap}"
            yield f"to_{t}_{i} = {f'Add({place}, {step})' if place else f'Identity({step})'}"
            yield f"by_{t}_{i} = {f'Mul({weight}, {own})' if weight else f'Identity({own})'}"
            place, weight = f"to_{t}_{i}", f"by_{t}_{i}"
    last = len(axes) - 1
    for name in ("to", "by"):
        parts = [f"{name}_{t}_{last}" for t in range(len(taps))]
        yield f"{name} = Concat<axis=3>({', '.join(parts)})"
    yield integers("wide", 1, 1, channels, 1)
    yield "places = Expand(to, wide)"
    yield integers("pixels", 0, groups, channels, -1)
    yield f"flat = Reshape({x}, pixels)"
    yield "seen = GatherElements<axis=3>(flat, places)"
    yield "weighted = Mul(seen, by)"
    yield integers("each", 0, groups, channels, len(taps), points)
    yield "by_tap = Reshape(weighted, each)"
    yield integers("taps", 3)
    yield "read = ReduceSum<keepdims=0>(by_tap, taps)"


@body("x grid -> y", "GridSample")
def _grid_sample(call: Call) -> Lines:
    sizes, places = call.sizes(0), call.sizes(1)
    inside, made = sizes[2:], places[1:-1]
    if None in (*sizes[1:], *made):
        raise UnfitError
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(call.text("mode"), call.text("mode"))
    padding, corners = call.text("padding_mode") or "zeros", bool(call.get("align_corners"))
    kind, rank, points = call.kind(1), len(inside), prod(n or 0 for n in made)
    yield integers("listed", 0, -1, rank)
    yield "list = Reshape(grid, listed)"
    yield "turned = Transpose<perm=[0, 2, 1]>(list)"
    # Their first is along the last axis.
    names = [f"u{i}" for i in reversed(range(rank))]
    yield f"{', '.join(names)} = Split<axis=1, num_outputs={rank}>(turned)"
    axes = []
    for i, size in enumerate(inside):
        assert size is not None
        if padding == "reflection" and size == 1:
            raise UnfitError
        # Of [-1, 1] to pixels.
        factor, offset = ((size - 1) / 2, (size - 1) / 2) if corners else (size / 2, (size - 1) / 2)
        yield from _row(f"f{i}", [factor], [], kind)
        yield from _row(f"o{i}", [offset], [], kind)
        yield f"scaled{i} = Mul(u{i}, f{i})"
        yield f"moved{i} = Add(scaled{i}, o{i})"
        yield integers(f"own{i}", 0, 1, 1, points)
        yield f"x{i} = Reshape(moved{i}, own{i})"
        low, high = (0.0, size - 1.0) if corners else (-0.5, size - 0.5)
        axes.append(_Axis(f"x{i}", size, kind, mode or "linear", padding, low, high))
    yield from _read("x", axes, 1, sizes[1] or 0, points)
    yield integers("shape", 0, *(n or 0 for n in (sizes[1], *made)))
    yield "y = Reshape(read, shape)"


@body("theta size -> y", "AffineGrid")
def _affine_grid(call: Call) -> Lines:
    """Move the corners of a grid: a product with each point and a 1."""
    sizes = [int(n) for n in call.constant(1)][2:]
    corners = call.get("align_corners")

    def place(i: int, size: int) -> float:
        return (2 * i / (size - 1) if size > 1 else 1.0) - 1 if corners else (2 * i + 1) / size - 1

    grid = [
        number
        for at in product(*map(range, sizes))
        for number in [*(place(i, n) for i, n in zip(at[::-1], sizes[::-1], strict=True)), 1.0]
    ]
    yield from _row("grid", grid, [1, prod(sizes), len(sizes) + 1], call.kind())
    yield "turned = Transpose<perm=[0, 2, 1]>(theta)"
    yield "list = MatMul(grid, turned)"
    yield integers("shape", 0, *sizes, len(sizes))
    yield "y = Reshape(list, shape)"


@body("x w offset b mask -> y", "DeformConv")
def _deformed(call: Call) -> Lines:
    """Read the picture where each weight wants to, and take the products."""
    (_, channels, *inside), (filters, _, *window) = call.sizes(0), call.known(1)
    _, _, *made = call.sizes(2)
    rank, parts = len(window), int(call.get("offset_group", 1))
    if None in (channels, *inside, *made):
        raise UnfitError
    sizes = [n or 0 for n in inside]
    outs, per, taps = [n or 0 for n in made], (channels or 0) // parts, prod(window)
    strides, dilations = (call.numbers(name) or [1] * rank for name in ("strides", "dilations"))
    pads = call.numbers("pads") or [0] * (2 * rank)
    points = taps * prod(outs)
    yield integers("apart", 0, parts, taps, rank, prod(outs))
    yield "apart_o = Reshape(offset, apart)"
    yield f"{', '.join(f'o{i}' for i in range(rank))} = Split<axis=3, num_outputs={rank}>(apart_o)"
    yield integers("point", 0, parts, 1, points)
    axes = []
    for i in range(rank):
        base = [
            float(out[i] * strides[i] - pads[i] + tap[i] * dilations[i])
            for tap in product(*map(range, window))
            for out in product(*map(range, outs))
        ]
        yield from _row(f"base{i}", base, [1, 1, 1, points], call.kind(2))
        yield f"row{i} = Reshape(o{i}, point)"
        yield f"x{i} = Add(row{i}, base{i})"
        axes.append(_Axis(f"x{i}", sizes[i], call.kind(2)))
    yield from _read("x", axes, parts, per, points)
    if call.has(4):
        yield "masks = Reshape(mask, point)"
        yield "masked = Mul(read, masks)"
    yield integers("columns", 0, (channels or 0) * taps, prod(outs))
    yield f"column = Reshape({'masked' if call.has(4) else 'read'}, columns)"
    yield integers("rows", filters, -1, 1)
    yield "weights = Reshape(w, rows)"
    bias = ", b" if call.has(3) else ""
    yield f"c = Conv<group={int(call.get('group', 1))}>(column, weights{bias})"
    yield integers("shape", 0, filters, *outs)
    yield "y = Reshape(c, shape)"


@body("x rois batch -> y", "RoiAlign")
def _roi_align(call: Call) -> Lines:
    """The average of some points of every cell of a region."""
    _, channels, *inside = call.sizes(0)
    samples = int(call.get("sampling_ratio"))
    if samples < 1 or call.text("mode") == "max" or None in (channels, *inside):
        raise UnfitError
    kind, half = call.kind(1), call.text("coordinate_transformation_mode") in ("", "half_pixel")
    outs = [int(call.get(f"output_{name}", 1)) for name in ("height", "width")]
    yield "own = Gather<axis=0>(x, batch)"
    yield from _row("scale", [call.get("spatial_scale", 1.0)], [], kind)
    yield from _row("half", [0.5 if half else 0.0], [], kind)
    yield from _row("one", [1.0], [], kind)
    yield from _row("minus", [-1.0], [], kind)
    yield "scaled = Mul(rois, scale)"
    yield "region = Sub(scaled, half)"
    yield "left, top, right, bottom = Split<axis=1, num_outputs=4>(region)"
    counts = [n * samples for n in outs]
    axes = []
    for i, (begin, end) in enumerate((("top", "bottom"), ("left", "right"))):
        size = inside[i] or 0
        yield f"long{i} = Sub({end}, {begin})"
        yield f"length{i} = {f'Identity(long{i})' if half else f'Max(long{i}, one)'}"
        yield from _row(f"outs{i}", [outs[i]], [], kind)
        yield f"cell{i} = Div(length{i}, outs{i})"
        steps = [k // samples + (k % samples + 0.5) / samples for k in range(counts[i])]
        yield from _row(f"steps{i}", steps, [1, counts[i]], kind)
        yield f"way{i} = Mul(cell{i}, steps{i})"
        yield f"line{i} = Add({begin}, way{i})"
        yield integers(f"crossed{i}", -1, 1, *((counts[0], 1) if i == 0 else (1, counts[1])))
        yield f"cross{i} = Reshape(line{i}, crossed{i})"
        yield integers(f"plane{i}", 1, 1, *counts)
        yield f"raw{i} = Expand(cross{i}, plane{i})"
        yield integers(f"flat{i}", 0, 1, 1, prod(counts))
        yield f"x{i} = Reshape(raw{i}, flat{i})"
        # A pixel beyond the edge is not there any more; up to that the edge goes on.
        yield from _row(f"size{i}", [size], [], kind)
        yield f"before{i} = Less(x{i}, minus)"
        yield f"behind{i} = Greater(x{i}, size{i})"
        yield f"out{i} = Or(before{i}, behind{i})"
        axes.append(_Axis(f"x{i}", size, kind, padding="border"))
    yield from _read("own", axes, 1, channels or 0, prod(counts))
    yield "out = Or(out0, out1)"
    yield from call.number("nothing", 0)
    yield "inner = Where(out, nothing, read)"
    yield integers("cells", 0, channels or 0, outs[0], samples, outs[1], samples)
    yield "celled = Reshape(inner, cells)"
    yield integers("within", 3, 5)
    yield "y = ReduceMean<keepdims=0>(celled, within)"
