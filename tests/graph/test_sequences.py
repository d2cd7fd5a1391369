"""Sequences and optionals are replaced by the tensors that they hold."""

import numpy as np
import pytest
from flat import W, X, holds, operators, read, refused
from support import close, normal, run

A, B = normal(4, 4, seed=5), normal(4, 4, seed=6)


def around(body, more="", **weights):
    """Build a classifier around what makes h of x and of two layers' outputs, p and q."""
    return read(
        f"""g (float[N, 4] x{more}) => (float[N, 3] y) {{
            p = MatMul(x, a) q = MatMul(x, b)
            {body}
            y = MatMul(h, readout)
        }}""",
        readout=W["readout"], a=A, b=B, **weights,
    )  # fmt: skip


LISTS = {
    "at": ("s = SequenceConstruct(p, q, x) h = SequenceAt(s, one)", X @ B),
    "at the end": ("s = SequenceConstruct(p, q) h = SequenceAt(s, last)", X @ B),
    "insert": (
        """s = SequenceEmpty() s1 = SequenceInsert(s, p) s2 = SequenceInsert(s1, q, zero)
           h = SequenceAt(s2, zero)""",
        X @ B,
    ),
    "insert before the last": (
        """s = SequenceConstruct(p, q) s2 = SequenceInsert(s, x, last) h = SequenceAt(s2, one)""",
        X,
    ),
    "erase": (
        "s = SequenceConstruct(p, q) t = SequenceErase(s, zero) h = SequenceAt(t, zero)",
        X @ B,
    ),
    "erase the last": (
        "s = SequenceConstruct(p, q) t = SequenceErase(s) h = SequenceAt(t, zero)",
        X @ A,
    ),
    "renamed": ("s = SequenceConstruct(p, q) t = Identity(s) h = SequenceAt(t, zero)", X @ A),
    "length": (
        """s = SequenceConstruct(p, q) n = SequenceLength(s) c = Equal(n, two)
           h = If(c) <then_branch = t () => (float[N, 4] u) { u = SequenceAt(s, zero) },
                      else_branch = e () => (float[N, 4] v) { v = Identity(q) }>""",
        X @ A,
    ),
    "concat": (
        "s = SequenceConstruct(p, q) c = ConcatFromSequence<axis = 0>(s) h = Slice(c, start, end)",
        X @ B,
    ),
    "stack": (
        """s = SequenceConstruct(p, q) c = ConcatFromSequence<axis = -1, new_axis = 1>(s)
           h = Gather<axis = 2>(c, one)""",
        X @ B,
    ),
    "split by one": (
        """s = SplitToSequence<axis = 1, keepdims = 0>(p) o = SequenceAt(s, zero)
           u = Unsqueeze(o, first) h = Mul(q, u)""",
        X @ B * (X @ A)[:, :1],
    ),
    "split by three": (
        """s = SplitToSequence<axis = 1>(p, three) l = SequenceAt(s, one) f = SequenceAt(s, zero)
           h = Concat<axis = 1>(l, f)""",
        (X @ A)[:, [3, 0, 1, 2]],
    ),
    "split by sizes": (
        """s = SplitToSequence<axis = -1>(p, sizes) l = SequenceAt(s, one) f = SequenceAt(s, zero)
           h = Concat<axis = 1>(l, f)""",
        (X @ A)[:, [1, 2, 3, 0]],
    ),
    "map": (
        """s = SequenceConstruct(p, q)
           m = SequenceMap(s, x) <body = each (float[N, 4] e, float[N, 4] k) => (float[N, 4] o) {
               r = Relu(e) o = Add(r, k) }>
           h = SequenceAt(m, one)""",
        np.maximum(X @ B, 0) + X,
    ),
    "optional": (
        """o = Optional(p) f = OptionalHasElement(o) g = OptionalGetElement(o)
           h = If(f) <then_branch = t () => (float[N, 4] u) { u = Relu(g) },
                      else_branch = e () => (float[N, 4] v) { v = Identity(q) }>""",
        np.maximum(X @ A, 0),
    ),
    "no optional": (
        """f = OptionalHasElement() t = OptionalHasElement(p)
           k = If(f) <then_branch = t1 () => (float[N, 4] u) { u = Relu(p) },
                      else_branch = e1 () => (float[N, 4] v) { v = Identity(q) }>
           h = If(t) <then_branch = t2 () => (float[N, 4] u) { u = Relu(k) },
                      else_branch = e2 () => (float[N, 4] v) { v = Identity(k) }>""",
        np.maximum(X @ B, 0),
    ),
    "collected by a loop": (
        """s = SequenceEmpty()
           l = Loop(trips, "", s) <body = step (int64 i, bool c, seq(float[N, 4]) m)
                    => (bool again, seq(float[N, 4]) n) {
               j = Add(i, one) k = Cast<to = 1>(j) e = Mul(p, k) n = SequenceInsert(m, e)
               again = Identity(c) }>
           c = ConcatFromSequence<axis = 1>(l) h = Slice(c, four, twelve, first)
           """,
        2 * X @ A,
    ),
}  # fmt: skip

KNOWN = {
    "zero": np.array(0), "one": np.array(1), "two": np.array(2), "last": np.array(-1),
    "three": np.array(3), "trips": np.array(3), "sizes": np.array([1, 3]), "first": np.array([1]),
    "start": np.array([2]), "end": np.array([4]), "four": np.array([4]), "twelve": np.array([8]),
}  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
def test_what_a_list_holds(name):
    body, wanted = LISTS[name]
    proto = around(body, **{n: v for n, v in KNOWN.items() if n in body})
    flat = holds(proto, X)
    assert not [o for o in operators(flat) if o.startswith(("Seq", "Opt")) or "Sequence" in o]
    close(run(flat, {"x": X})["y"], wanted @ W["readout"])


@pytest.mark.parametrize(
    ("body", "operator", "reason"),
    [
        ("s = SequenceConstruct(p, q) h = SequenceAt(s, n)", "SequenceAt", "its position is known"),
        ("s = SplitToSequence(x, m) h = SequenceAt(s, zero)", "SplitToSequence", "how many parts"),
        ("s = SequenceConstruct(p, q) h = SequenceAt(s, two)", "SequenceAt", "no position 2"),
    ],
)  # fmt: skip
def test_what_is_known_only_at_run_time_is_refused(body, operator, reason):
    more = ", int64 n" * ("n)" in body) + ", int64 m" * ("m)" in body)
    proto = around(body, more, **{n: KNOWN[n] for n in ("zero", "two") if n in body})
    (found,) = (each for each in refused(proto) if each.operator == operator)
    assert reason in found.reason
    assert "positions that are constants" in found.advice or operator == "SequenceAt"
