"""LSTM, GRU and RNN in float64: the plain operators that they are short for, step after step.

A step is written as nodes of ONNX, and relevance crosses those one by one: products of a gate and a
signal by the operator's rule, all that is linear by epsilon, functions of one value unchanged.
Under a reference a signal answers by `signal` for g (s - s⁰), and its gate for (g - g⁰) s⁰. What
arrives at a state that the sequence starts from, and that is a constant, a bias took.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

Array = npt.NDArray[Any]

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
"""How many matrices an operator's weights hold, one upon the other."""

_DEFAULT = {
    "LSTM": ("Sigmoid", "Tanh", "Tanh"),
    "GRU": ("Sigmoid", "Tanh"),
    "RNN": ("Tanh",),
}
_NUMBERS = {
    "LeakyRelu": {"alpha": 0.01},
    "ThresholdedRelu": {"alpha": 1.0},
    "Elu": {"alpha": 1.0},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    "Affine": {"alpha": 1.0, "beta": 0.0},
    "ScaledTanh": {"alpha": 1.0, "beta": 1.0},
}
"""Numbers that an activation takes, and what they are where nothing says so."""

_KINDS = {
    kind.lower(): kind for kind in (*_NUMBERS, "Relu", "Tanh", "Sigmoid", "Softsign", "Softplus")
}

Forward = Callable[[onnx.NodeProto, Sequence[Array | None]], list[Array]]


@dataclass
class Tape:
    """What an operator computes, written out, and every value of it.

    Attributes
    ----------
    forward : computes one node
    nodes : in order
    values : by name
    followed : names of what depends on the sequence, or on the states that it starts from
    functions : names of what belongs to a function of one value that is no operator of its own
    """

    forward: Forward
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    values: dict[str, Array] = field(default_factory=dict)
    followed: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)

    def put(self, array: Any, followed: bool = False) -> str:
        """Take in a value."""
        name = f"v{len(self.values)}"
        self.values[name] = np.asarray(array)
        if followed:
            self.followed.add(name)
        return name

    def several(self, op: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """Compute a node of several outputs."""
        names = [f"v{len(self.values) + k}" for k in range(count)]
        node = helper.make_node(op, inputs, names, **attributes)
        found = self.forward(node, [self.values[name] for name in inputs])
        self.values.update(zip(names, found, strict=True))
        self.nodes.append(node)
        if self.followed.intersection(inputs):
            self.followed.update(names)
        return names

    def __call__(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Compute a node."""
        return self.several(op, 1, *inputs, **attributes)[0]

    def gated(self, gate: str, signal: str) -> str:
        """Multiply a signal by its gate."""
        name = self("Mul", gate, signal)
        self.nodes[-1].attribute.append(helper.make_attribute("signal", 1))
        return name

    def affine(self, parts: Sequence[str], weights: Sequence[Array], bias: Array) -> str:
        """Add up what some parts are times their weights, [outputs, inputs], and a bias."""
        joined = self("Concat", *parts, axis=1)
        matrix = self.put(np.concatenate(weights, axis=1))
        return self("Gemm", joined, matrix, self.put(bias), transB=1)


@dataclass(frozen=True)
class _Cell:
    """One direction's weights: W, R and P by gate, both biases, and the functions."""

    w: Sequence[Array]
    r: Sequence[Array]
    wb: Sequence[Array]
    rb: Sequence[Array]
    p: Sequence[Array]
    functions: Sequence[tuple[str, dict[str, float]]]
    clip: float | None

    def apply(self, tape: Tape, which: int, z: str) -> str:
        """Apply the function that stands at a place, to what is cut at `clip`."""
        kind, numbers = self.functions[which]
        if self.clip is not None:
            z = tape("Clip", z, tape.put(-self.clip), tape.put(self.clip))
        if kind not in ("Affine", "ScaledTanh"):
            return tape(kind, z, **numbers)
        before = len(tape.nodes)
        alpha, beta = (tape.put(numbers[name]) for name in ("alpha", "beta"))
        if kind == "Affine":
            y = tape("Add", tape("Mul", z, alpha), beta)
        else:
            y = tape("Mul", tape("Tanh", tape("Mul", z, beta)), alpha)
        tape.functions.update(node.output[0] for node in tape.nodes[before:])
        return y


def _lstm(tape: Tape, cell: _Cell, a: Mapping[str, Any], x: str, h: str, c: str) -> tuple[str, str]:
    """Return h_t and c_t.

    i, f = f(x W + h R + P c + b), g = g(x W + h R + b), c_t = f c + i g,
    o = f(x W + h R + P c_t + b), h_t = o h(c_t).
    """

    def z(gate: int, seen: str) -> str:
        parts, weights = [x, h], [cell.w[gate], cell.r[gate]]
        if cell.p and gate < 3:
            parts, weights = [*parts, seen], [*weights, np.diag(cell.p[gate])]
        return tape.affine(parts, weights, cell.wb[gate] + cell.rb[gate])

    i = cell.apply(tape, 0, z(0, c))
    coupled = a.get("input_forget", 0)
    f = tape("Sub", tape.put(1.0), i) if coupled else cell.apply(tape, 0, z(2, c))
    g = cell.apply(tape, 1, z(3, c))
    c = tape("Add", tape.gated(f, c), tape.gated(i, g))
    o = cell.apply(tape, 0, z(1, c))
    return tape.gated(o, replace(cell, clip=None).apply(tape, 2, c)), c


def _gru(tape: Tape, cell: _Cell, a: Mapping[str, Any], x: str, h: str) -> str:
    """z, r = f(x W + h R + b), n = g(x W + (r h) R + b), h_t = (1 - z) n + z h.

    With ``linear_before_reset`` n = g(x W + b + r (h R + b')).
    """
    z, r = (
        cell.apply(
            tape,
            0,
            tape.affine([x, h], [cell.w[k], cell.r[k]], cell.wb[k] + cell.rb[k]),
        )
        for k in (0, 1)
    )
    if a.get("linear_before_reset", 0):
        own = tape.gated(r, tape.affine([h], [cell.r[2]], cell.rb[2]))
        pre = tape.affine([x, own], [cell.w[2], np.eye(len(cell.rb[2]))], cell.wb[2])
    else:
        own = tape.gated(r, h)
        pre = tape.affine([x, own], [cell.w[2], cell.r[2]], cell.wb[2] + cell.rb[2])
    n = cell.apply(tape, 1, pre)
    return tape("Add", tape.gated(tape("Sub", tape.put(1.0), z), n), tape.gated(z, h))


def _rnn(tape: Tape, cell: _Cell, x: str, h: str) -> str:
    """h_t = f(x W + h R + b)."""
    z = tape.affine([x, h], [cell.w[0], cell.r[0]], cell.wb[0] + cell.rb[0])
    return cell.apply(tape, 0, z)


def functions(op: str, a: Mapping[str, Any], directions: int) -> list[tuple[str, dict[str, float]]]:
    """Return each function and its numbers, of all directions, one after the other."""
    names = [n.decode() if isinstance(n, bytes) else n for n in a.get("activations", ())]
    left = {key: list(a.get(f"activation_{key}", ())) for key in ("alpha", "beta")}
    found = []
    for name in names or _DEFAULT[op] * directions:
        kind = _KINDS[name.lower()]
        taken = {
            key: left[key].pop(0) if left[key] else default
            for key, default in _NUMBERS.get(kind, {}).items()
        }
        found.append((kind, taken))
    return found


@dataclass(frozen=True)
class Written:
    """The tape, and what on it are the operator's inputs and outputs."""

    tape: Tape
    inputs: Sequence[str]
    outputs: Sequence[str]


def written_out(
    node: onnx.NodeProto, a: Mapping[str, Any], inputs: Sequence[Array | None], forward: Forward
) -> Written:
    """Compute an operator step by step; `a` are its attributes."""
    op, tape = node.op_type, Tape(forward)
    x, w, r, b, lens, h0, c0, p = (*inputs, *[None] * 8)[:8]
    assert x is not None
    assert w is not None
    assert r is not None
    if a.get("layout", 0):
        raise NotImplementedError(f"{op} with layout 1")
    (length, samples, _), (directions, _, size) = x.shape, r.shape
    gates, kinds = GATES[op], functions(op, a, directions)
    if b is None:
        b = np.zeros((directions, 2 * gates * size))
    empty = np.zeros((directions, samples, size))
    given = tape.put(x, followed=True)
    states = [tape.put(empty if s is None else s, followed=True) for s in (h0, c0)]
    starts = [
        [
            tape("Squeeze", part, tape.put(np.array([0])))
            for part in tape.several("Split", directions, whole, axis=0, num_outputs=directions)
        ]
        for whole in states
    ]
    made: list[list[str]] = [[], [], []]
    for d in range(directions):
        each = len(kinds) // directions
        cell = _Cell(
            np.split(w[d], gates),
            np.split(r[d], gates),
            np.split(b[d][: gates * size], gates),
            np.split(b[d][gates * size :], gates),
            [] if p is None else np.split(p[d], 3),
            kinds[d * each : (d + 1) * each],
            a.get("clip"),
        )
        back = a.get("direction", "forward") == "reverse" or d == 1
        turned = np.full(samples, length) if lens is None else np.asarray(lens, np.int64)
        order = tape.put(turned)
        turn = {"batch_axis": 1, "time_axis": 0}
        seen = tape("ReverseSequence", given, order, **turn) if back else given
        steps = [
            tape("Squeeze", part, tape.put(np.array([0])))
            for part in tape.several("Split", length, seen, axis=0, num_outputs=length)
        ]
        h, c = (start[d] for start in starts)
        zero, hidden = tape.put(np.zeros((samples, size))), []
        for t, step in enumerate(steps):
            if op == "LSTM":
                new = list(_lstm(tape, cell, a, step, h, c))
            elif op == "GRU":
                new = [_gru(tape, cell, a, step, h), c]
            else:
                new = [_rnn(tape, cell, step, h), c]
            shown = new[0]
            if lens is not None:
                inside = tape.put((t < turned)[:, None])
                shown = tape("Where", inside, new[0], zero)
                new = [tape("Where", inside, *pair) for pair in zip(new, (h, c), strict=True)]
            h, c = new
            hidden.append(tape("Unsqueeze", shown, tape.put(np.array([0]))))
        y = tape("Concat", *hidden, axis=0)
        y = tape("ReverseSequence", y, order, **turn) if back else y
        made[0].append(tape("Unsqueeze", y, tape.put(np.array([1]))))
        for place, last in ((1, h), (2, c)):
            made[place].append(tape("Unsqueeze", last, tape.put(np.array([0]))))
    outputs = [tape("Concat", *parts, axis=int(k == 0)) for k, parts in enumerate(made)]
    places = [given, "", "", "", "", *states, ""]
    return Written(tape, places[: len(inputs)], outputs[: len(node.output)])


def cross(
    whole: Written,
    root: Written | None,
    relevance: Sequence[Array | None],
    rule: str,
    epsilon: float,
    propagate: Callable[..., Any],
) -> tuple[dict[str, Array], float, float]:
    """Take relevance back along the tape.

    Returns
    -------
    what arrives at values by name, and what biases and stabilisers took, added up
    """
    tape = whole.tape
    found = {name: r for name, r in zip(whole.outputs, relevance, strict=False) if r is not None}
    bias = stabiliser = 0.0
    for node in reversed(tape.nodes):
        came = [found.get(name) for name in node.output]
        live = [name in tape.followed for name in node.input]
        if not any(live) or all(r is None for r in came):
            continue
        at = [tape.values[name] for name in node.input]
        base = None if root is None else [root.tape.values[name] for name in node.input]
        gated = node.op_type == "Mul" and node.output[0] not in tape.functions
        if gated and base is not None and rule in ("signal", "taylor"):
            (r,) = came
            assert r is not None
            (g, s), (g0, s0) = at, base
            change = g * s - g0 * s0
            ratio = r / (change + np.where(change < 0, -epsilon, epsilon))
            parts = [(g - g0) * s0 * ratio, g * (s - s0) * ratio]
            stabiliser += float(r.sum() - sum(part.sum() for part in parts))
            _add(found, node.input, parts)
            continue
        own, parameters = "epsilon", {"epsilon": epsilon}
        if rule == "gradient":
            own, parameters = "gradient", {}
        elif node.output[0] in tape.functions:
            own, parameters = "pass", {}
        elif gated:
            own, parameters = rule, {"stabiliser": epsilon}
        done = propagate(
            node,
            at,
            came,
            own,
            parameters,
            live,
            root=base,
        )
        bias += float(done.bias.sum())
        stabiliser += float(done.stabiliser.sum())
        _add(found, node.input, done.relevance)
    return found, bias, stabiliser


def _add(found: dict[str, Array], names: Sequence[str], parts: Sequence[Array | None]) -> None:
    for name, part in zip(names, parts, strict=True):
        if part is not None:
            found[name] = found[name] + part if name in found else part
