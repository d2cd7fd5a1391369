"""Programs drawn at random, of loops, scans, branches and lists in each other: all are flat."""

import random

import numpy as np
import onnx_ir as ir
import pytest
from flat import W, read
from support import close, normal, run

from onnxlrp.graph.loading import load

KNOWN = {
    "w": W["w"] / 2, "b": W["b"] / 4, "readout": W["readout"],
    "n0": np.array(0), "n1": np.array(1), "n2": np.array(2), "n3": np.array(3),
    "yes": np.array(True), "no": np.array(False), "nothing": np.zeros((), np.float32),
    "four": np.array([4]), "five": np.array([5]), "first": np.array([0]),
    "thrice": np.array([3, 1, 1]),
}  # fmt: skip


class Program:
    """Statements that make tensors [N, 4] of such tensors, in onnx's own notation."""

    def __init__(self, seed: int) -> None:
        self.random, self.count = random.Random(seed), 0

    def new(self, stem: str) -> str:
        """Return a name that is not taken."""
        self.count += 1
        return f"{stem}{self.count}"

    def block(self, known: list[str], numbers: list[str], depth: int, size: int) -> tuple[str, str]:
        """Draw statements; return them, and the last one's result."""
        known, lines = [*known], []
        kinds = [
            self.layer,
            self.sum,
            self.list,
            *[self.loop, self.scan, self.branch] * (depth > 0),
        ]
        for _ in range(size):
            made = self.new("v")
            kind = self.random.choice(kinds)
            lines.append(kind(made, known, numbers, depth - 1))
            known.append(made)
        return " ".join(lines), known[-1]

    def layer(self, made, known, numbers, depth):
        x = self.random.choice(known)
        return f"{made}t = Gemm({x}, w, b) {made} = Tanh({made}t)"

    def sum(self, made, known, numbers, depth):
        x, y = self.random.choices(known, k=2)
        if not numbers:
            return f"{made} = Sub({x}, {y})"
        return f"{made}r = Cast<to = 1>({self.random.choice(numbers)}) {made} = Sub({x}, {made}r)"

    def list(self, made, known, numbers, depth):
        x, y = self.random.choices(known, k=2)
        place = self.random.choice(["n0", "n1"])
        return f"{made}s = SequenceConstruct({x}, {y}) {made} = SequenceAt({made}s, {place})"

    def loop(self, made, known, numbers, depth):
        i, c, s, t = (self.new(stem) for stem in "icst")
        inner, last = self.block([*known, s, t], [*numbers, i], depth, self.random.randint(1, 3))
        steps = self.random.choice(["n0", "n1", "n2", "n3", *numbers])
        again = self.random.choice([f"Identity({c})", f"Less({i}, n1)"])
        x, y = self.random.choices(known, k=2)
        return f"""{made}, {made}b = Loop({steps}, yes, {x}, {y})
            <body = b{made} (int64 {i}, bool {c}, float[N, 4] {s}, float[N, 4] {t})
                => (bool {c}o, float[N, 4] {t}, float[N, 4] {s}o) {{
                {inner} {s}o = Add({last}, {s}) {c}o = {again} }}>"""

    def scan(self, made, known, numbers, depth):
        s, e = self.new("s"), self.new("e")
        inner, last = self.block([*known, s], numbers, depth, self.random.randint(1, 2))
        way, out = self.random.randint(0, 1), self.random.randint(0, 1)
        x, y = self.random.choices(known, k=2)
        return f"""{made}u = Unsqueeze({x}, first) {made}e = Expand({made}u, thrice)
            {made}o, {made}k = Scan<num_scan_inputs = 1, scan_input_directions = [{way}],
                scan_output_axes = [{self.random.randint(-3, 2)}], scan_output_directions = [{out}],
                body = b{made} (float[N, 4] {s}, float[N, 4] {e})
                    => (float[N, 4] {s}o, float[N, 4] {e}o) {{
                    {inner} {s}o = Add({last}, {e}) {e}o = Neg({last}) }}>({y}, {made}e)
            {made}n = ReduceMax<keepdims = 0>({made}k) {made} = Sub({made}o, {made}n)"""

    def branch(self, made, known, numbers, depth):
        sides = [self.block(known, numbers, depth, self.random.randint(1, 2)) for _ in range(2)]
        (then, p), (other, q) = sides
        x = self.random.choice(known)
        condition = self.random.choice([
            f"{made}c = Identity({self.random.choice(['yes', 'no'])})",
            f"{made}z = Shape<start = 1>({x}) "
            f"{made}c = Equal({made}z, {self.random.choice(['four', 'five'])})",
            f"{made}z = ReduceSum<keepdims = 0>({x}) {made}c = Greater({made}z, nothing)",
            *[f"{made}c = Less({number}, n1)" for number in numbers],
        ])  # fmt: skip
        shape = "float[N, 4]"
        return f"""{condition} {made} = If({made}c) <
            then_branch = t{made} () => ({shape} {made}p) {{ {then} {made}p = Identity({p}) }},
            else_branch = e{made} () => ({shape} {made}q) {{ {other} {made}q = Identity({q}) }}>"""


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=pytest.mark.slow if seed > 4 else ()) for seed in range(100)]
)
def test_a_program_is_written_out(seed):
    lines, last = Program(seed).block(["x"], [], 3, 4)
    proto = read(
        f"g (float[N, 4] x) => (float[N, 3] y) {{ {lines} y = MatMul({last}, readout) }}", **KNOWN
    )
    flat = ir.to_proto(load(proto).model)
    assert not [n.op_type for n in flat.graph.node if any(a.HasField("g") for a in n.attribute)]
    x = normal(3, 4, seed=seed)
    close(run(flat, {"x": x})["y"], run(proto, {"x": x}, optimise=False)["y"])
