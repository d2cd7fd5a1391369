"""Loops, scans and branches are written out: outputs stay, and the map is the flat network's."""

import importlib.util
import re

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from flat import EPSILON, W, X, flattened, holds, operators, read, refused
from onnxruntime.tools.onnx_model_utils import make_dim_param_fixed
from support import close, explain, normal, run

import onnxlrp
from onnxlrp.errors import ModelError
from onnxlrp.graph import editing

STEP = "t = Gemm(s, w, b) o = Tanh(t)"


def counted(trips, condition, body=f"{STEP} again = Identity(c)", weights=W, **more):
    """Build a Loop of one state, whose last one is read out."""
    return read(
        f"""g (float[N, 4] x) => (float[N, 3] y) {{
            h = Loop({trips}, {condition}, x)
                <body = step (int64 i, bool c, float[N, 4] s)
                    => (bool again, float[N, 4] o) {{{body}}}>
            y = MatMul(h, readout)
        }}""",
        **weights, **more,
    )  # fmt: skip


THREE = {"n": np.array(3)}
YES = {"go": np.array(True)}


@pytest.mark.parametrize(
    ("trips", "condition", "known"),
    [("n", "go", THREE | YES), ("n", "", THREE), ("n", "go", {"n": np.array([3]), **YES})],
)
def test_a_loop_of_so_many_steps(trips, condition, known):
    flat = holds(counted(trips, condition, **known))
    assert operators(flat) == ["Gemm", "Tanh"] * 3 + ["MatMul"]
    assert [n.name for n in flat.graph.node][:3] == ["h/0/t", "h/0/o", "h/1/t"]


def test_every_step_is_computed_with_the_same_weights():
    """By hand: f(f(f(x)))."""
    flat = flattened(counted("n", "", **THREE))
    assert sorted(tensor.name for tensor in flat.graph.initializer) == ["b", "readout", "w"]
    h = X
    for _ in range(3):
        h = np.tanh(h @ W["w"] + W["b"])
    close(run(flat, {"x": X})["y"], h @ W["readout"])


@pytest.mark.parametrize("trips", ["", "many"])
def test_a_loop_that_ends_when_a_counter_says_so(trips):
    """Nothing else limits it, or a number that is never reached."""
    body = f"{STEP} two = Constant<value_int = 2>() again = Less(i, two)"
    many = {"many": np.array(1 << 62)} if trips else {}
    flat = holds(counted(trips, "go", body, **YES, **many))
    assert operators(flat).count("Tanh") == 3


def test_a_loop_whose_condition_comes_round():
    """The condition is not read but by the next step, which hands on its contrary."""
    body = f"{STEP} again = Not(c)"
    flat = holds(counted("n", "go", body, **THREE, **YES))
    assert operators(flat).count("Tanh") == 1


@pytest.mark.parametrize(
    ("trips", "go"), [(0, True), (3, False), (-2, True)], ids=["no trips", "no", "negative"]
)
def test_a_loop_that_takes_no_step(trips, go):
    flat = holds(counted("n", "go", n=np.array(trips), go=np.array(go)))
    assert operators(flat) == ["MatMul"]


def test_what_every_step_makes_is_stacked():
    proto = read(
        """g (float[N, 4] x) => (float[N, 3] y, float[N, 4] h, float[K, N, 4] all) {
            h, all = Loop(n, "", x)
                <body = step (int64 i, bool c, float[N, 4] s)
                    => (bool again, float[N, 4] o, float[N, 4] o2) {
                    t = Gemm(s, w, b) o = Tanh(t) o2 = Neg(o) again = Identity(c)
                }>
            sum = ReduceSum<keepdims = 0>(all, first)
            y = MatMul(sum, readout)
        }""",
        **W, **THREE, first=np.array([0]),
    )  # fmt: skip
    flat = holds(proto, output="y")
    assert [value.name for value in flat.graph.output] == ["y", "h", "all"]
    assert operators(flat).count("Concat") == 1


def test_nothing_is_stacked_where_no_step_is_taken():
    proto = read(
        """g (float[N, 4] x) => (float[N, 3] y) {
            all = Loop(n, "")
                <body = step (int64 i, bool c) => (bool again, float[4] o) {
                    o = Identity(b) again = Identity(c)
                }>
            rows = Concat<axis = 0>(x, all)
            y = MatMul(rows, readout)
        }""",
        **W, n=np.array(0),
    )  # fmt: skip
    holds(proto)


def test_a_loop_in_a_loop_whose_length_is_the_outer_step():
    """Steps 0, 1 and 2 take as many inner ones."""
    proto = read(
        """g (float[N, 4] x) => (float[N, 3] y) {
            h = Loop(n, "", x)
                <body = outer (int64 i, bool c, float[N, 4] s) => (bool again, float[N, 4] o) {
                    o = Loop(i, "", s)
                        <body = inner (int64 j, bool d, float[N, 4] r)
                            => (bool more, float[N, 4] q) {
                            p = Gemm(r, w, b) q = Tanh(p) more = Identity(d)
                        }>
                    again = Identity(c)
                }>
            y = MatMul(h, readout)
        }""",
        **W, **THREE,
    )  # fmt: skip
    flat = holds(proto)
    assert operators(flat).count("Tanh") == 3
    assert "h/2/o/1/q" in [n.name for n in flat.graph.node]


def test_a_loop_in_a_loop_captures_what_is_around_both():
    proto = read(
        """g (float[N, 4] x) => (float[N, 3] y) {
            base = Relu(x)
            h = Loop(n, "", x)
                <body = outer (int64 i, bool c, float[N, 4] s) => (bool again, float[N, 4] o)
                    <float[4, 4] v = {1, 2, 3, 4, 0, 1, 0, 1, 2, 0, 2, 0, 1, 1, 1, 1}> {
                    m = Gemm(s, v, b)
                    k = Loop(two, "", m)
                        <body = inner (int64 j, bool d, float[N, 4] r)
                            => (bool more, float[N, 4] q) {
                            a = Add(r, m) q = Add(a, base) more = Identity(d)
                        }>
                    o = Tanh(k)
                    again = Identity(c)
                }>
            y = MatMul(h, readout)
        }""",
        **W, n=np.array(2), two=np.array(2),
    )  # fmt: skip
    flat = holds(proto)
    assert operators(flat).count("Add") == 8
    assert [t.name for t in flat.graph.initializer].count("v") == 1


def test_what_a_loop_hands_on_may_change_places():
    """Fibonacci's way: a, b becomes b, f(a, b)."""
    proto = read(
        """g (float[N, 4] x) => (float[N, 3] y) {
            f, l = Loop(n, "", x, x)
                <body = step (int64 i, bool c, float[N, 4] a, float[N, 4] e)
                    => (bool c, float[N, 4] e, float[N, 4] o) {
                    t = Gemm(e, w, b) s = Add(t, a) o = Tanh(s)
                }>
            both = Add(f, l)
            y = MatMul(both, readout)
        }""",
        **W, **THREE,
    )  # fmt: skip
    flat = holds(proto)
    assert operators(flat).count("Tanh") == 3
    a, b = X, X
    for _ in range(3):
        a, b = b, np.tanh(b @ W["w"] + W["b"] + a)
    close(run(flat, {"x": X})["y"], (a + b) @ W["readout"])


def test_what_a_loop_hands_on_may_grow():
    proto = read(
        """g (float[N, 4] x) => (float[N, 3] y) {
            h = Loop(n, "", x)
                <body = step (int64 i, bool c, float[N, K] s) => (bool again, float[N, L] o) {
                    t = Gemm(x, w, b) o = Concat<axis = 1>(s, t) again = Identity(c)
                }>
            y = MatMul(h, readout)
        }""",
        w=W["w"], b=W["b"], readout=normal(12, 3, seed=4), n=np.array(2),
    )  # fmt: skip
    flat = holds(proto)
    assert operators(flat) == ["Gemm", "Concat", "Gemm", "Concat", "MatMul"]


def test_the_sizes_that_a_body_tells_may_be_stale():
    """Of the one sample that it was traced with; so may those behind it be."""
    proto = read(
        """g (float[N, 4] x) => (float[N, 3] y) <float[1, 4] h, float[1, 4] g> {
            h = Loop(n, "", x)
                <body = step (int64 i, bool c, float[1, 4] s) => (bool again, float[1, 4] o)
                    <float[1, 4] t> {
                    t = Gemm(s, w, b) rows = Shape<end = 1>(t) count = Cast<to = 1>(rows)
                    part = Div(t, count) o = Tanh(part) again = Identity(c)
                }>
            g = Relu(h)
            number = Shape<end = 1>(g)
            real = Cast<to = 1>(number)
            k = Mul(g, real)
            y = MatMul(k, readout)
        }""",
        **W, **THREE,
    )  # fmt: skip
    x = normal(5, 4, seed=1)
    h = x
    for _ in range(3):
        h = np.tanh((h @ W["w"] + W["b"]) / 5)
    close(run(flattened(proto), {"x": x})["y"], 5 * np.maximum(h, 0) @ W["readout"])


def test_a_branch_in_a_loop_that_the_values_choose():
    """In every step anew."""
    proto = read(
        """g (float[N, 4] x) => (float[N, 3] y) {
            h = Loop(n, "", x)
                <body = step (int64 i, bool c, float[N, 4] s) => (bool again, float[N, 4] o) {
                    total = ReduceSum<keepdims = 0>(s) up = Greater(total, zero)
                    o = If(up) <then_branch = then () => (float[N, 4] p) { p = Gemm(s, w, b) },
                                else_branch = other () => (float[N, 4] q) { q = Tanh(s) }>
                    again = Identity(c)
                }>
            y = MatMul(h, readout)
        }""",
        **W, **THREE, zero=np.zeros((), np.float32),
    )  # fmt: skip
    flat = flattened(proto)
    h, taken = np.abs(X), []
    for _ in range(3):
        taken.append(h.sum() > 0)
        h = h @ W["w"] + W["b"] if taken[-1] else np.tanh(h)
    assert set(taken) == {True, False}
    close(run(flat, {"x": np.abs(X)})["y"], h @ W["readout"])
    assert operators(flat).count("Where") == 9


def test_what_an_inner_loop_stacks_is_what_an_outer_one_hands_on():
    proto = read(
        """g (float[N, 4] x) => (float[N, 3] y) {
            h = Loop(n, "", x)
                <body = outer (int64 i, bool c, float[N, 4] s) => (bool again, float[N, 4] o) {
                    back = Sub(two, i)
                    k = Loop(back, "")
                        <body = inner (int64 j, bool d) => (bool more, float[N, 4] q) {
                            p = Gemm(s, w, b) q = Tanh(p) more = Identity(d)
                        }>
                    o = ReduceSum<keepdims = 0>(k, first)
                    again = Identity(c)
                }>
            y = MatMul(h, readout)
        }""",
        **W, n=np.array(2), two=np.array(2), first=np.array([0]),
    )  # fmt: skip
    flat = holds(proto)
    h = 2 * np.tanh(X @ W["w"] + W["b"])
    close(run(flat, {"x": X})["y"], np.tanh(h @ W["w"] + W["b"]) @ W["readout"])


def test_what_an_inner_loop_stacks_may_be_what_a_step_makes():
    """Nothing reads it in the step."""
    proto = read(
        """g (float[N, 4] x) => (float[N, 3] y) {
            k = Loop(n, "")
                <body = outer (int64 i, bool c) => (bool again, float[K, N, 4] o) {
                    again = Identity(c)
                    o = Loop(n, "")
                        <body = inner (int64 j, bool d) => (bool more, float[N, 4] q) {
                            both = Add(i, j) real = Cast<to = 1>(both) p = Gemm(x, w, b)
                            q = Pow(p, real) more = Identity(d)
                        }>
                }>
            h = ReduceSum<keepdims = 0>(k, axes)
            y = MatMul(h, readout)
        }""",
        **W, n=np.array(2), axes=np.array([0, 1]),
    )  # fmt: skip
    p = X @ W["w"] + W["b"]
    close(run(flattened(proto), {"x": X})["y"], (1 + 2 * p + p**2) @ W["readout"])


def test_two_loops_with_the_same_names_inside():
    """Also the names of initializers of a body, and one that hides a value around it."""
    body = """<body = step (int64 i, bool c, float[N, 4] s) => (bool again, float[N, 4] o)
                  <float[4] v = {VALUES}> {
                  t = Mul(s, v) o = Tanh(t) again = Identity(c)
              }>"""
    proto = read(
        f"""g (float[N, 4] x) => (float[N, 3] y) {{
            h = Loop(n, "", x) {body.replace("VALUES", "1, 2, 3, 4")}
            k = Loop(n, "", h) {body.replace("VALUES", "4, 3, 2, 1")}
            t = Relu(k)
            y = MatMul(t, readout)
        }}""",
        **W, **THREE,
    )  # fmt: skip
    holds(proto)


def test_the_number_of_a_step_is_a_constant_in_it():
    """Of the rank that the body declares."""
    proto = read(
        """g (float[N, 4, 5] x) => (float[N, 3] y) {
            h = Loop(n, "", start)
                <body = step (int64[1] i, bool c, float[N, 4] s) => (bool again, float[N, 4] o) {
                    part = Gather<axis = 2>(x, i) one = Squeeze(part, last)
                    sum = Add(s, one) o = Tanh(sum) again = Identity(c)
                }>
            start = ReduceMean<keepdims = 0>(x, last)
            y = MatMul(h, readout)
        }""",
        **W, n=np.array(5), last=np.array([2]),
    )  # fmt: skip
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([nodes[1], nodes[0], nodes[2]])
    holds(proto, normal(2, 4, 5))


def test_an_output_that_is_left_out_stays_so():
    """A MaxPool's places, a Dropout's mask: whatever has no name."""
    proto = read(
        """g (float[N, 4, 1] x) => (float[N, 4, 3] y) {
            h = Loop(n, "", x)
                <body = step (int64 i, bool c, float[N, 4, 1] s)
                    => (bool again, float[N, 4, 1] o) {
                    o, m = MaxPool<kernel_shape = [1]>(s) again = Identity(c)
                }>
            k, l = MaxPool<kernel_shape = [1]>(h)
            y = MatMul(k, readout)
        }""",
        readout=normal(1, 3), n=np.array(2),
    )  # fmt: skip
    for made in (proto.graph.node[1], proto.graph.node[0].attribute[0].g.node[0]):
        made.output[1] = ""
    assert [list(n.output) for n in flattened(proto).graph.node][:2] == [["h/0/o"], ["h/1/o"]]


SCAN = """g (float[N, 5, 4] x) => (float[N, 3] y) {
    zero = Constant<value = float {0}>()
    first = Gather<axis = 1>(x, none)
    none = Constant<value_int = 0>()
    start = Mul(first, zero)
    h, all = Scan<num_scan_inputs = 1,
        body = step (float[N, 4] s, float[N, 4] e) => (float[N, 4] o, float[N, 4] p) {
        in = Add(e, s) t = Gemm(in, w, b) o = Tanh(t) p = Relu(t)
    }, ATTRIBUTES>(start, x)
    sum = ReduceMean<keepdims = 0>(all, axis)
    both = Add(sum, h)
    y = MatMul(both, readout)
}"""


@pytest.mark.parametrize("backward", [0, 1])
@pytest.mark.parametrize("out", [-1, 0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
def test_a_scan(backward, out, reverse):
    attributes = (
        f"scan_input_axes = [1], scan_input_directions = [{backward}], "
        f"scan_output_axes = [{out}], scan_output_directions = [{reverse}]"
    )
    text = SCAN.replace("ATTRIBUTES", attributes).split("\n")
    text[2], text[3] = text[3], text[2]
    # What a step makes is weighted by its place, so that the order counts.
    text = "\n".join(text).replace(
        "ReduceMean<keepdims = 0>(all, axis)", "Gather<axis = AT>(all, one)"
    )
    text = text.replace("AT", str(out % 3))
    holds(read(text, **W, one=np.array(1)), normal(2, 5, 4))


def test_a_scan_along_axes_of_its_own_for_each_input():
    proto = read(
        """g (float[5, N, 4] x, float[N, 4, 5] z) => (float[N, 3] y) {
            all = Scan<num_scan_inputs = 2, scan_input_axes = [0, -1],
                scan_input_directions = [1, 0],
                body = step (float[N, 4] a, float[N, 4] c) => (float[N, 4] o) {
                    t = Gemm(a, w, b) o = Mul(t, c)
                }>(x, z)
            sum = ReduceSum<keepdims = 0>(all, first)
            y = MatMul(sum, readout)
        }""",
        **W, first=np.array([0]),
    )  # fmt: skip
    flattened(proto)
    x, z = normal(5, 2, 4, seed=7), normal(2, 4, 5, seed=8)
    explained = explain(proto, EPSILON, {"x": x, "z": z}, [1, 1], inputs=["z"])
    wanted = sum((x[4 - t] @ W["w"] + W["b"]) * z[:, :, t] for t in range(5)) @ W["readout"]
    close(explained.values["y"], wanted)


def lstm(text, steps, **more):
    """Gates of a cell with four units, as exporters spell them."""
    gates = {"wi": normal(3, 16, seed=5), "wh": normal(4, 16, seed=6), "bias": normal(16, seed=7)}
    cell = """xi = Gemm(e, wi, bias) hh = MatMul(hid, wh) all = Add(xi, hh)
              gi, gf, gg, go = Split<axis = 1, num_outputs = 4>(all)
              si = Sigmoid(gi) sf = Sigmoid(gf) tg = Tanh(gg) so = Sigmoid(go)
              old = Mul(sf, cel) new = Mul(si, tg) cel2 = Add(old, new) tc = Tanh(cel2)
              hid2 = Mul(so, tc)"""
    return read(
        text.replace("CELL", cell),
        **gates,
        **more,
        readout=W["readout"],
        zero=np.zeros((2, 4), "f4"),
    )


def test_a_cell_written_as_a_loop_and_as_a_scan_is_one_network():
    """As tf2onnx writes Keras' cells: a while loop that gathers, its length a shape; and a Scan."""
    loop = lstm(
        """g (float[2, 6, 3] x) => (float[2, 3] y) {
            sizes = Shape(x) length = Gather(sizes, one) yes = Constant<value = bool {1}>()
            turned = Transpose<perm = [1, 0, 2]>(x)
            count, cell, last = Loop(length, yes, none, zero, zero)
                <body = step (int64 i, bool c, int64 k, float[2, 4] cel, float[2, 4] hid)
                    => (bool again, int64 k2, float[2, 4] cel2, float[2, 4] hid2) {
                    e = Gather(turned, k) k2 = Add(k, one)
                    CELL
                    below = Less(k2, length) again = And(below, c)
                }>
            y = MatMul(last, readout)
        }""",
        6,
        one=np.array(1),
        none=np.array(0),
    )
    scan = lstm(
        """g (float[2, 6, 3] x) => (float[2, 3] y) {
            cell, last = Scan<num_scan_inputs = 1, scan_input_axes = [1],
                body = step (float[2, 4] cel, float[2, 4] hid, float[2, 3] e)
                    => (float[2, 4] cel2, float[2, 4] hid2) { CELL }>(zero, zero, x)
            y = MatMul(last, readout)
        }""",
        6,
    )
    x = normal(2, 6, 3, seed=9)
    composite = onnxlrp.Composite.load("attn_lrp")
    first, second = (explain(p, composite, {"x": x}, [1, 1]).values for p in (loop, scan))
    plain = run(scan, {"x": x})["y"]
    close(first["y"], plain, 1e-6)
    close(second["y"], plain, 1e-6)
    close(first["relevance"], second["relevance"], 1e-6)


def chosen(condition, then, other, more="", **weights):
    return read(
        f"""g (float[N, 4] x) => (float[N, 3] y) {{
            {condition}
            h = If(c) <then_branch = then () => (float[N, 4] p) {{{then}}},
                       else_branch = other () => (float[N, 4] q) {{{other}}}>
            {more}
            y = MatMul(h, readout)
        }}""",
        **W, **weights,
    )  # fmt: skip


BRANCHES = "t = Gemm(x, w, b) p = Tanh(t)", "t = Gemm(x, w) q = Relu(t)"


@pytest.mark.parametrize(("value", "kept"), [(True, "Tanh"), (False, "Relu")])
def test_a_branch_that_is_known_stands_in_the_place_of_both(value, kept):
    flat = holds(chosen("", *BRANCHES, c=np.array(value)))
    assert operators(flat) == ["Gemm", kept, "MatMul"]


def test_a_branch_that_sizes_choose():
    """Beside a batch of any size."""
    sizes = "s = Shape(x) n = Gather(s, one) c = Equal(n, four)"
    flat = holds(chosen(sizes, *BRANCHES, one=np.array(1), four=np.array(4)))
    assert operators(flat) == ["Gemm", "Tanh", "MatMul"]


def test_branches_may_share_names():
    """What onnx's inference of shapes takes for one value otherwise."""
    branch = "s = Shape({}) r = Reshape(x, s) o = {}(r)"
    then, other = branch.format("x", "Tanh"), branch.format("x", "Relu")
    inner = f"""i = If(no) <then_branch = t () => (float[N, 4] o) {{ {then} }},
                            else_branch = e () => (float[N, 4] o) {{ {other} }}>
                q = Neg(i)"""
    more = f"""k = If(yes) <then_branch = t2 () => (float[N, 4] o) {{ {then} }},
                            else_branch = e2 () => (float[N, 4] o) {{ {other} }}>
               h2 = Add(h, k)"""
    known = {"c": np.array(False), "no": np.array(False), "yes": np.array(True)}
    proto = chosen("", "s = Shape(x) p = Reshape(x, s)", inner, more, **known)
    proto.graph.node[-1].input[0] = "h2"
    flat = holds(proto)
    assert operators(flat) == ["Relu", "Neg", "Tanh", "Add", "MatMul"]


def test_torchs_squeeze_of_an_axis_that_may_be_one():
    proto = read(
        """g (float[N, 4, 1] x) => (float[N, 3] y) {
            s = Shape<start = 2, end = 3>(x) c = Equal(s, one)
            h = If(c) <then_branch = then () => (float[N, 4] p) { p = Squeeze(x, two) },
                       else_branch = other () => (float[N, 4, 1] q) { q = Identity(x) }>
            y = MatMul(h, readout)
        }""",
        readout=W["readout"], one=np.array([1]), two=np.array([2]),
    )  # fmt: skip
    flat = holds(proto, normal(2, 4, 1))
    assert operators(flat) == ["Squeeze", "MatMul"]


@pytest.mark.parametrize("sign", [1, -1])
def test_both_branches_are_explained_where_the_values_choose(sign):
    """The map is that of the branch that was taken, and nothing of the other is in it."""
    condition = "total = ReduceSum<keepdims = 0>(x) c = Greater(total, zero)"
    proto = chosen(condition, *BRANCHES, zero=np.array(0, np.float32))
    x = sign * np.abs(X)
    # What each branch reads, and what is chosen of them.
    assert operators(flattened(proto)).count("Where") == 3
    one = chosen("", *BRANCHES, c=np.array(sign > 0))
    found, wanted = (explain(p, EPSILON, {"x": x}, [1, 1]).values for p in (proto, one))
    close(found["y"], run(proto, {"x": x})["y"], 1e-6)
    close(found["relevance"], wanted["relevance"], 1e-6)


@pytest.mark.parametrize("composite", ["epsilon", "gradient_x_input"])
def test_a_branch_that_is_not_taken_may_divide_by_zero(composite):
    """Or have an infinite slope: nothing of it is in the map."""
    condition = "total = ReduceSum<keepdims = 0>(x) c = Greater(total, zero)"
    proto = chosen(
        condition, "p = Relu(x)", "r = Relu(x) s = Sqrt(r) l = Log(s) q = Div(x, l)",
        zero=np.array(0, np.float32),
    )  # fmt: skip
    x = np.abs(X) * [0, 1, 1, 1]
    x[:, 1] = -1e-3
    x = x.astype(np.float32)
    found = explain(proto, onnxlrp.Composite.load(composite), {"x": x}, [1, 1]).values
    close(found["relevance"], np.maximum(x, 0) * W["readout"][:, 1])


UNKNOWN = {
    "trips": (
        counted("n", "", "o = Tanh(s) again = Identity(c)"),
        "Loop", "how many steps it takes is known only when it runs", "for one length",
    ),
    "condition": (
        counted("n", "", """o = Tanh(s) total = ReduceSum<keepdims = 0>(o)
                            again = Greater(total, zero)""", **THREE, zero=np.zeros((), "f4")),
        "Loop", "when it ends depends on what it computes", "fixed number of steps",
    ),
    "no end": (
        counted("", "", "o = Tanh(s) again = Identity(c)"),
        "Loop", "more than 200 nodes", "shorter",
    ),
    "long": (
        counted("n", "", "o = Tanh(s) again = Identity(c)", n=np.array(1 << 40)),
        "Loop", "more than 200 nodes", "shorter",
    ),
    "sizes": (
        chosen("total = ReduceSum<keepdims = 0>(x) c = Greater(total, zero)", "p = Identity(x)",
               "q = ReduceSum(x, zero_axis)", zero=np.float32(0).reshape(()),
               zero_axis=np.array([0])),
        "If", "other sizes: [N, 4] or [1, 4]", "for one size of its input",
    ),
    "may fail": (
        chosen("total = ReduceSum<keepdims = 0>(x) c = Greater(total, zero)", "p = Identity(x)",
               "k = Cast<to = 7>(total) q = Gather<axis = 1>(x, columns) columns = Add(k, four)",
               zero=np.float32(0).reshape(()), four=np.arange(4)),
        "If", "Gather 'q' in a branch may fail", "one case",
    ),
}  # fmt: skip


def test_of_a_branch_it_is_said_what_in_it_is_not_known():
    loop = """p = Loop(n, "", x) <body = step (int64 i, bool d, float[N, 4] s)
                  => (bool again, float[N, 4] o) { o = Tanh(s) again = Identity(d) }>"""
    condition = "total = ReduceSum<keepdims = 0>(x) c = Greater(total, zero)"
    proto = with_trips(chosen(condition, loop, "q = Relu(x)", zero=np.zeros((), np.float32)))
    (found,) = refused(proto)
    assert "of Loop 'p' in a branch: how many steps it takes" in found.reason


def with_trips(proto):
    proto.graph.input.append(onnx.helper.make_tensor_value_info("n", 7, []))
    return proto


def sorted_branch(proto):
    nodes = proto.graph.node[2].attribute[1].g.node
    copies = [onnx.NodeProto.FromString(nodes[i].SerializeToString()) for i in (0, 2, 1)]
    del nodes[:]
    nodes.extend(copies)
    return proto


with_trips(UNKNOWN["trips"][0])
sorted_branch(UNKNOWN["may fail"][0])


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known_is_refused_by_name(name, monkeypatch):
    monkeypatch.setattr(editing, "MOST_NODES", 200)
    proto, operator, reason, advice = UNKNOWN[name]
    (found,) = refused(proto)
    assert (found.node, found.operator, found.opset) == ("h", operator, 18)
    assert reason in found.reason
    assert advice in found.advice


def test_a_scan_of_any_length_is_refused_and_what_is_advised_works():
    proto = read(
        """g (float[N, T, 4] x) => (float[N, 3] y) {
            h = Scan<num_scan_inputs = 1, scan_input_axes = [1],
                body = step (float[2, 4] s, float[2, 4] e) => (float[2, 4] o) { o = Add(s, e) }
                >(zero, x)
            y = MatMul(h, readout)
        }""",
        readout=W["readout"], zero=np.zeros((2, 4), np.float32),
    )  # fmt: skip
    (found,) = refused(proto)
    assert "how long the axis is" in found.reason
    tool = re.search(r"-m ([\w.]+)", found.advice)[1]
    assert importlib.util.find_spec(tool) is not None
    make_dim_param_fixed(proto.graph, "T", 5)
    holds(proto, normal(2, 5, 4))


def test_a_loop_beside_the_explained_path_stays():
    """And the file says nothing of why."""
    proto = read(
        """g (float[N, 4] x, int64 n) => (float[N, 3] y, float[N, 4] h) {
            h = Loop(n, "", x)
                <body = step (int64 i, bool c, float[N, 4] s) => (bool again, float[N, 4] o) {
                    o = Tanh(s) again = Identity(c)
                }>
            y = MatMul(x, readout)
        }""",
        readout=W["readout"],
    )  # fmt: skip
    explainer = onnxlrp.convert(proto, EPSILON, output="y").to_proto()
    assert "Loop" in operators(explainer)
    assert b"onnxlrp.why" not in explainer.SerializeToString()
    feeds = {"x": X, "n": np.array(2)}
    found = run(explainer, {**feeds, "target": np.array([1])})
    np.testing.assert_array_equal(found["h"], run(proto, feeds)["h"])


def test_a_scan_of_opset_8_is_refused():
    """It goes along the axis behind that of samples; onnx's converter takes the first."""
    proto = read(
        """g (float[N, 5, 4] x) => (float[N, 5, 4] y) {
            y = Scan<num_scan_inputs = 1,
                body = step (float[4] e) => (float[4] o) { o = Relu(e) }>("", x)
        }""",
        opset=8,
    )
    with pytest.raises(ModelError, match=r"cannot lift Scan from opset 8.* opset 9 or later"):
        onnxlrp.convert(proto, EPSILON)


def test_an_old_loop_is_lifted_with_what_it_holds():
    """Opset 11 has axes as attributes, also inside."""
    inside = "u = Unsqueeze<axes = [0]>(s) r = Squeeze<axes = [0]>(u)"
    body = f"{inside} {STEP.replace('s,', 'r,')} again = Identity(c)"
    proto = counted("n", "", body, **THREE)
    proto.opset_import[0].version = 11
    assert ort.InferenceSession(proto.SerializeToString()) is not None
    holds(proto)
