"""LSTM, GRU and RNN: relevance goes back through time, by one Scan for each direction.

What h was before a step, the operator's own output says, so gates and denominators of all steps are
computed at once. A step is linear in the relevance that reaches it: asked with a relevance of 1,
its equations say by what the Scan multiplies, and with what arrived at every step, what each input
gets. Only c of an LSTM, which is no output, takes a Scan of its own.

Notation: h and c are what a step makes, `h_before` and `c_before` what it starts from, z is what a
gate's function is applied to. A share t = R / stab(z) goes to x by t W, and to h_before by t R.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from onnxlrp.propagation import layout
from onnxlrp.propagation.expression import Tensor
from onnxlrp.propagation.registry import Crossing
from onnxlrp.propagation.scan import Factor, scan
from onnxlrp.propagation.steps import Function, Gate, Rule, Value, is_zero, of, plus, product

Tensors = Sequence[Tensor]


@dataclass(frozen=True)
class Came:
    """Relevance that reaches a direction's outputs.

    Attributes
    ----------
    h, c : of every step, [T, N, H], or zero
    last_h, last_c : of the states behind the last, [N, H], or zero
    like : [N, H], of as many samples

    """

    h: Tensor
    c: Tensor
    last_h: Tensor
    last_c: Tensor
    like: Tensor

    @property
    def start(self) -> tuple[Tensor, Tensor]:
        """The states that the Scan goes back from."""
        nothing = layout.expand(self.like.emitter.scalar(0.0, self.like), self.like)
        h, c = (nothing if state.is_zero else state for state in (self.last_h, self.last_c))
        return h, c


class Sent(NamedTuple):
    """What a direction hands on.

    Attributes
    ----------
    shares : of each gate's z, at every step
    h0, c0 : relevance of the states at the start, [N, H]; zero where there is no such state

    """

    shares: Sequence[Factor]
    h0: Tensor
    c0: Tensor


class Weights(NamedTuple):
    """A matrix for each gate, one upon the other: [gates H, features]."""

    stacked: Tensor
    size: int

    def of(self, first: int, count: int = 1) -> Tensor:
        """Return the matrices of some gates that lie together."""
        ends = [first * self.size], [(first + count) * self.size]
        return layout.slice(self.stacked, *ends, [0])


@dataclass(frozen=True)
class Cell:
    """One direction of an operator. Where it is backwards, all sequences are turned.

    Attributes
    ----------
    crossing : of the operator
    rule : of the operator, as it crosses what a step is made of
    w, r : of all gates
    wb, rb : by gate, [H], or zero
    peepholes : of the gates i, o and f, [H], or zero
    functions : in the operator's order
    x, h, h_before : of every step
    c0 : at the start, [N, H]

    """

    crossing: Crossing
    rule: Rule
    w: Weights
    r: Weights
    wb: Sequence[Tensor]
    rb: Sequence[Tensor]
    peepholes: Sequence[Tensor]
    functions: Sequence[Function]
    x: Value
    h: Value
    h_before: Value
    c0: Value

    @property
    def zero(self) -> Tensor:
        return self.crossing.emitter.zero

    @property
    def reach(self) -> Factor:
        """What a share that has come to h_before by R is multiplied by there."""
        return self.rule.contributed(self.h_before, 1.0)

    def says(self, attribute: str) -> bool:
        return bool(self.crossing.attribute(attribute, 0))

    def read(self, gate: int) -> tuple[Value, Tensor]:
        """Return z of a gate without peephole, and its bias."""
        bias = self.wb[gate] + self.rb[gate]
        of_x = of(lambda x: _applied(x, self.w.of(gate)), self.x)
        of_h = of(lambda h: _applied(h, self.r.of(gate)), self.h_before)
        return of(lambda a, b: a + b + bias, of_x, of_h), bias

    def gate(self, gate: int, function: int) -> Gate:
        z, bias = self.read(gate)
        f = self.functions[function]
        return Gate(z, of(f, z), bias, f)

    def seeing(self, gate: int, c: Value) -> Gate:
        """Compute a gate of an LSTM whose peephole sees c."""
        z, bias = self.read(gate)
        f, peephole = self.functions[0], self.peepholes[gate]
        z = of(lambda z, c: z + c * peephole, z, c)
        return Gate(z, of(f, z), bias, f)


def _applied(x: Tensor, weights: Tensor) -> Tensor:
    """Return x Wᵀ."""
    turned = layout.transpose(weights, [1, 0])
    shape = (*x.shape[:-1], weights.shape[0])
    return x.emitter.node("MatMul", x, turned, shape=shape, dtype=x.dtype)


def summed(shares: Sequence[Factor], weights: Weights, zero: Tensor, first: int = 0) -> Tensor:
    """Return the sum of t W over gates, the first of which is `first`."""
    total, together = zero, list[Tensor]()
    for place, t in enumerate([*shares, zero], first):
        if isinstance(t, Tensor) and not t.is_zero:
            together.append(t)
        elif together:
            w = weights.of(place - len(together), len(together))
            shape = (*together[0].shape[:-1], w.shape[0])
            joined, dtype = together[0], w.dtype
            emitter = joined.emitter
            if len(together) > 1:
                joined = emitter.node("Concat", *together, shape=shape, dtype=dtype, axis=-1)
            shape = (*shape[:-1], w.shape[1])
            total = total + emitter.node("MatMul", joined, w, shape=shape, dtype=dtype)
            together = []
    return total


def lstm(cell: Cell, came: Came) -> Sent:
    """c = f c_before + i g, h = o tanh(c)."""
    rule, zero, outer = cell.rule, cell.zero, replace(cell.functions[2], clip=None)
    c, c_before = _remembered(cell)
    i, g, o = cell.seeing(0, c_before), cell.gate(3, 1), cell.seeing(1, c)
    f = _forgetting(cell, i, c_before)
    fc, ig, shown = product(f.y, c_before), product(i.y, g.y), of(outer, c)

    def output(relevance: Factor) -> tuple[Factor, Factor]:
        """Relevance of c of that of h, and the share of o."""
        of_o, of_shown = rule.product(relevance, o.y, shown, cell.h)
        t = rule.gate(of_o, o)
        seen = rule.contributed(c, t * cell.peepholes[1])
        return plus(rule.function(of_shown, outer, c, shown), seen), t

    def state(relevance: Factor) -> tuple[Factor, list[Factor]]:
        """Relevance of c_before of that of c, and the shares of i, f and g."""
        s = rule.share(relevance, c, zero)
        of_f, of_before = rule.product(rule.contributed(fc, s), f.y, c_before, fc)
        of_i, of_g = rule.product(rule.contributed(ig, s), i.y, g.y, ig)
        if cell.says("input_forget"):
            of_i, of_f = plus(of_i, rule.complement(of_f, f.y, i.y)), zero
        t_i, t_f, t_g = rule.gate(of_i, i), rule.gate(of_f, f), rule.gate(of_g, g)
        seen = rule.contributed(c_before, t_i * cell.peepholes[0] + t_f * cell.peepholes[2])
        return plus(of_before, seen), [t_i, t_f, t_g]

    def step(states: Tensors, read: Sequence[Factor]) -> tuple[Tensors, Tensors]:
        (h, c), (came_h, came_c, through, kept, reach, b_i, b_o, b_f, b_g) = states, read
        h = h + came_h
        c = c + came_c + h * through
        back = summed([c * b_i, h * b_o, c * b_f, c * b_g], cell.r, zero) * reach
        return [back, c * kept], [h, c]

    (through, b_o), (kept, (b_i, b_f, b_g)) = rule.at_one(output), rule.at_one(state)
    factors = [came.h, came.c, through, kept, cell.reach, b_i, b_o, b_f, b_g]
    (h0, c0), (of_h, of_c) = scan(step, came.start, factors, cell.h.now, backwards=True)
    t_i, t_f, t_g = state(of_c)[1]
    return Sent([t_i, output(of_h)[1], t_f, t_g], h0, c0)


def _remembered(cell: Cell) -> tuple[Value, Value]:
    """Compute c and c_before at every step, the one value that no output holds."""
    z_i, z_f, g = cell.read(0)[0], cell.read(2)[0], cell.gate(3, 1).y
    f, coupled = cell.functions[0], cell.says("input_forget")
    peeps = not all(peephole.is_zero for peephole in cell.peepholes)

    def run(z_i: Tensor, z_f: Tensor, g: Tensor, start: Tensor) -> Tensor:
        def sees(states: Tensors, read: Sequence[Factor]) -> tuple[Tensors, Tensors]:
            (c,), (z_i, z_f, g) = states, read
            i = f(c * cell.peepholes[0] + z_i)
            forget = 1.0 - i if coupled else f(c * cell.peepholes[2] + z_f)
            c = c * forget + i * g
            return [c], [c]

        def plain(states: Tensors, read: Sequence[Factor]) -> tuple[Tensors, Tensors]:
            (c,), (forget, added) = states, read
            c = c * forget + added
            return [c], [c]

        if peeps:
            return scan(sees, [start], [z_i, z_f, g], g)[1][0]
        i = f(z_i)
        return scan(plain, [start], [1.0 - i if coupled else f(z_f), i * g], g)[1][0]

    c = of(run, z_i, z_f, g, cell.c0)
    return c, of(before, c, cell.c0)


def _forgetting(cell: Cell, i: Gate, c_before: Value) -> Gate:
    """Return the gate f; 1 - i where the two are coupled."""
    if not cell.says("input_forget"):
        return cell.seeing(2, c_before)
    return i._replace(y=of(lambda y: 1.0 - y, i.y))


def gru(cell: Cell, came: Came) -> Sent:
    """h = (1 - z) n + z h_before, n = tanh(x W + (r h_before) R), or + r (h_before R)."""
    rule, zero, before = cell.rule, cell.zero, cell.h_before
    linear = cell.says("linear_before_reset")
    z, r = cell.gate(0, 0), cell.gate(1, 0)
    reset, x, tail = before, of(lambda x: _applied(x, cell.w.of(2)), cell.x), cell.rb[2]
    if linear:
        reset = of(lambda h: _applied(h, cell.r.of(2)) + tail, before)
    q = product(r.y, reset)
    own, bias = q, cell.wb[2]
    if not linear:
        own, bias = of(lambda q: _applied(q, cell.r.of(2)), q), bias + tail
    pre, f = of(lambda a, b: a + b + bias, x, own), cell.functions[1]
    n = Gate(pre, of(f, pre), bias, f)
    left = of(lambda z: 1.0 - z, z.y)
    fresh, kept = product(left, n.y), product(z.y, before)

    def output(relevance: Factor) -> tuple[Factor, Factor, Factor]:
        """Relevance of h_before beside the gates, and the shares of z and n."""
        s = rule.share(relevance, cell.h, zero)
        of_left, of_n = rule.product(rule.contributed(fresh, s), left, n.y, fresh)
        of_z, of_before = rule.product(rule.contributed(kept, s), z.y, before, kept)
        if not is_zero(of_left):
            of_z = plus(of_z, rule.complement(of_left, left, z.y))
        return of_before, rule.gate(of_z, z), rule.gate(of_n, n)

    def inner(share: Factor) -> tuple[Factor, Factor]:
        """Relevance of what r is multiplied with, of the share that r times it got; share of r."""
        of_r, of_reset = rule.product(rule.contributed(q, share), r.y, reset, q)
        return of_reset, rule.gate(of_r, r)

    def whole(relevance: Factor) -> tuple[Factor, list[Factor], Factor]:
        """Relevance of h_before beside the gates, all that reaches it by R, and the share of n."""
        of_before, t_z, t_n = output(relevance)
        of_reset, t_r = inner(t_n)
        return of_before, [t_z, t_r, rule.share(of_reset, reset, tail)], t_n

    def step_linear(states: Tensors, read: Sequence[Factor]) -> tuple[Tensors, Tensors]:
        (h,), (came, direct, reach, b_z, b_r, b_v) = states, read
        h = h + came
        back = summed([h * b_z, h * b_r, h * b_v], cell.r, zero) * reach
        return [back + h * direct], [h]

    def step(states: Tensors, read: Sequence[Factor]) -> tuple[Tensors, Tensors]:
        (h,), (came, direct, reach, b_z, b_r, b_n, through) = states, read
        h = h + came
        of_q = summed([h * b_n], cell.r, zero, 2)
        back = summed([h * b_z, of_q * b_r], cell.r, zero) * reach
        return [back + of_q * through + h * direct], [h]

    start = came.start[:1]
    if linear:
        direct, factors, _ = rule.at_one(whole)
        factors = [came.h, direct, cell.reach, *factors]
        (h0,), (of_h,) = scan(step_linear, start, factors, cell.h.now, backwards=True)
        # The tail's share goes with that of n, for no input waits for its own.
        of_tail = rule.at_one(lambda one: rule.share(inner(one)[0], reset, tail))
        n = n._replace(bias=n.bias + tail * of_tail)
        _, (t_z, t_r, _), t_n = whole(of_h)
        return Sent([t_z, t_r, t_n], h0, zero)
    (direct, b_z, b_n), (through, b_r) = rule.at_one(output), rule.at_one(inner)
    factors = [came.h, direct, cell.reach, b_z, b_r, b_n, through]
    (h0,), (of_h,) = scan(step, start, factors, cell.h.now, backwards=True)
    _, t_z, t_n = output(of_h)
    return Sent([t_z, inner(summed([t_n], cell.r, zero, 2))[1], t_n], h0, zero)


def rnn(cell: Cell, came: Came) -> Sent:
    """h = f(x W + h_before R + b)."""
    gate = cell.gate(0, 0)

    def step(states: Tensors, read: Sequence[Factor]) -> tuple[Tensors, Tensors]:
        (h,), (came, b, reach) = states, read
        h = h + came
        return [summed([h * b], cell.r, cell.zero) * reach], [h]

    b = cell.rule.at_one(lambda one: cell.rule.gate(one, gate))
    factors = [came.h, b, cell.reach]
    (h0,), (of_h,) = scan(step, came.start[:1], factors, cell.h.now, backwards=True)
    return Sent([cell.rule.gate(of_h, gate)], h0, cell.zero)


def before(sequence: Tensor, start: Tensor) -> Tensor:
    """Return what stands one step before, a state, [N, H], before the first."""
    first = layout.unsqueeze(start, [0])
    rest = layout.slice(sequence, [0], [-1], [0])
    shape = sequence.shape
    return sequence.emitter.node("Concat", first, rest, shape=shape, dtype=sequence.dtype, axis=0)
