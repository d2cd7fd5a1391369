"""Operators that move elements, and activations: relevance returns to where it came from."""

import numpy as np
import pytest
from support import close, crosses_as_defined, explain, lines, model, node, normal

from onnxlrp import reference

INT = np.int64
MOVES = {
    "Reshape": (node("Reshape", ["x", "s"]), {"s": np.array([0, -1, 2], INT)}),
    "Flatten": (node("Flatten", ["x"]), {}),
    "Unsqueeze": (node("Unsqueeze", ["x", "a"]), {"a": np.array([1, -1], INT)}),
    "Transpose": (node("Transpose", ["x"], perm=[0, 2, 3, 1]), {}),
    "Slice": (
        node("Slice", ["x", "b", "e", "a"]),
        {"b": np.array([1, -3], INT), "e": np.array([4, 99], INT), "a": np.array([1, 2], INT)},
    ),
    "Slice steps": (
        node("Slice", ["x", "b", "e", "a", "t"]),
        {
            "b": np.array([0, -1], INT),
            "e": np.array([6, -99], INT),
            "a": np.array([3, 1], INT),
            "t": np.array([2, -2], INT),
        },
    ),
    "Pad": (node("Pad", ["x", "p"]), {"p": np.array([0, 1, 0, 2, 0, 0, 3, -1], INT)}),
    "Pad axes": (
        node("Pad", ["x", "p", "v", "a"]),
        {
            "p": np.array([1, 2], INT),
            "v": np.array(3, np.float32),
            "a": np.array([-1], INT),
        },
    ),
    "Trilu": (node("Trilu", ["x", "k"], upper=0), {"k": np.array(1, INT)}),
    "ReverseSequence": (
        node("ReverseSequence", ["x", "n"], batch_axis=0, time_axis=1),
        {"n": np.array([3, 5], INT)},
    ),
    "Concat": (node("Concat", ["x", "c", "x"], axis=1), {"c": normal(2, 3, 4, 6, seed=2)}),
    "Relu": (node("Relu", ["x"]), {}),
    "Clip": (node("Clip", ["x", "l", "h"]), {"l": np.float32(-0.5), "h": np.float32(0.7)}),
    "LeakyRelu": (node("LeakyRelu", ["x"], alpha=0.2), {}),
    "Sigmoid": (node("Sigmoid", ["x"]), {}),
    "Tanh": (node("Tanh", ["x"]), {}),
    "Elu": (node("Elu", ["x"]), {}),
}


@pytest.mark.parametrize("move", MOVES)
def test_moves(move):
    tested, weights = MOVES[move]
    weights = {name: np.asarray(array) for name, array in weights.items()}
    symbolic = () if move in ("Concat", "ReverseSequence") else (0,)
    crosses_as_defined(tested, normal(2, 5, 4, 6), "pass", weights, spread=True, symbolic=symbolic)


SPACES = [
    ("DepthToSpace", (2, 8, 2, 3), {}),
    ("DepthToSpace", (2, 8, 2, 3), {"mode": "CRD"}),
    ("SpaceToDepth", (2, 2, 4, 6), {}),
]


@pytest.mark.parametrize("symbolic", [(0,), (0, 2, 3)], ids=["batch", "sizes"])
@pytest.mark.parametrize(("op", "shape", "attributes"), SPACES, ids=str)
def test_depth_and_space(op, shape, attributes, symbolic):
    tested = node(op, ["x"], blocksize=2, **attributes)
    crosses_as_defined(tested, normal(*shape), "pass", spread=True, symbolic=symbolic)


@pytest.mark.parametrize("symbolic", [(0,), (0, 2, 3)], ids=["batch", "sizes"])
def test_a_slice_with_steps_in_front_of_sizes_that_are_not_known(symbolic):
    weights = {
        "b": np.array([1], np.int64),
        "e": np.array([5], np.int64),
        "a": np.array([1], np.int64),
        "t": np.array([2], np.int64),
    }
    tested = node("Slice", ["x", *weights])
    x = normal(2, 5, 4, 6)
    crosses_as_defined(tested, x, "pass", weights, spread=True, symbolic=symbolic)


@pytest.mark.parametrize("op", ["Min", "Max"])
def test_a_constant_bound_passes_relevance_on(op):
    body = [
        node(op, ["c", "x"], "y"),
        node("Gemm", ["y", "r"], "logits"),
    ]
    weights = {"c": np.array(0.3, np.float32), "r": normal(5, 3)}
    proto = model(body, {"x": ["N", 5]}, ["logits"], weights)
    explained = explain(proto, lines("Gemm: flat"), {"x": normal(2, 5)}, inside=["y"])
    np.testing.assert_array_equal(explained.values["relevance"], explained.relevance("y"))


def test_squeeze():
    tested = node("Squeeze", ["x", "a"])
    crosses_as_defined(tested, normal(2, 5, 1, 1), "pass", {"a": np.array([2, 3], np.int64)})


@pytest.mark.parametrize("sizes", [None, [1, 4]])
def test_split_joins_its_parts(sizes):
    """A part that nobody uses gets no relevance; the others keep their places."""
    from onnx import helper

    inputs = ["x"] if sizes is None else ["x", "sizes"]
    weights = {"readout": normal(4, 3, seed=1)}
    kept = ["u", "v"] if sizes is None else ["v", "u"]
    if sizes is None:
        split = helper.make_node("Split", inputs, ["u", "v"], axis=1, num_outputs=2, name="split")
        width = 8
    else:
        split = helper.make_node("Split", inputs, ["u", "v"], axis=1, name="split")
        weights["sizes"] = np.array(sizes, np.int64)
        width = 5
    body = [split, node("Gemm", [kept[0], "readout"], "logits")]
    proto = model(body, {"x": ["N", width]}, ["logits"], weights)
    x = normal(2, width)
    explained = explain(proto, lines("Gemm: epsilon"), {"x": x})
    rule = ("epsilon", {})
    expected = reference.explain(proto, {"x": x}, lambda _: rule, ["x"], "logits")
    close(explained.values["relevance"], expected["x"])


COMPUTED = {
    "half of the rows": ([1], [0], "half", None),
    "from the middle on": ([1], "half", [99], None),
    "all but the last row": ([1], [0], [-1], None),
    "a negative start, computed": ([2], "minus", [99], None),
    "beyond the end": ([1], [0], "double", None),
}


@pytest.mark.parametrize("cut", COMPUTED)
def test_bounds_that_are_computed_from_a_shape(cut):
    """TorchScript writes windows so: sizes are symbols, and bounds come from Shape."""
    axes, start, end, _ = COMPUTED[cut]
    weights = {
        "at": np.array([axes[0]]),
        "two": np.array([2]),
        "axes": np.array(axes),
        "s": np.array([0] if isinstance(start, str) else start),
        "e": np.array([0] if isinstance(end, str) else end),
        "m": np.array([1, 2], INT),
        "w": normal(3, 2, seed=2),
    }
    body = [
        node("Shape", ["x"], "shape"),
        node("Gather", ["shape", "at"], "size"),
        node("Div", ["size", "two"], "half"),
        node("Neg", ["half"], "minus"),
        node("Mul", ["size", "two"], "double"),
        node(
            "Slice",
            [
                "x",
                start if isinstance(start, str) else "s",
                end if isinstance(end, str) else "e",
                "axes",
            ],
        ),
        node("ReduceSum", ["y", "m"], "f", keepdims=0),
        node("Gemm", ["f", "w"], "logits"),
    ]
    used = {name for one in body for name in one.input}
    weights = {name: array for name, array in weights.items() if name in used}
    proto = model(body, {"x": ["N", "rows", "columns", 3]}, ["logits"], weights)
    x = normal(2, 5, 4, 3, seed=1)
    explained = explain(proto, lines("*: epsilon"), {"x": x}, target=[1, 0])
    numbers = {"half": x.shape[axes[0]] // 2, "double": 2 * x.shape[axes[0]]}
    numbers["minus"] = -numbers["half"]
    bounds = slice(*(numbers[b] if isinstance(b, str) else b[0] for b in (start, end)))
    kept = np.zeros_like(x)
    place = (slice(None), bounds) if axes == [1] else (slice(None), slice(None), bounds)
    kept[place] = x[place]
    close(explained.values["relevance"], kept * weights["w"].T[[1, 0]][:, None, None, :], 1e-4)


def test_padding_that_is_computed():
    weights = {
        "seven": np.array([7]),
        "at": np.array([1]),
        "before": np.zeros(4, INT),
        "after": np.zeros(2, INT),
        "m": np.array([1, 2], INT),
        "w": normal(3, 2, seed=2),
    }
    body = [
        node("Shape", ["x"], "shape"),
        node("Gather", ["shape", "at"], "size"),
        node("Sub", ["seven", "size"], "missing"),
        node("Concat", ["before", "zero1", "missing", "after"], "pads", axis=0),
        node("Pad", ["x", "pads"]),
        node("ReduceSum", ["y", "m"], "f", keepdims=0),
        node("Gemm", ["f", "w"], "logits"),
    ]
    weights["zero1"] = np.zeros(1, INT)
    proto = model(body, {"x": ["N", "rows", "columns", 3]}, ["logits"], weights)
    x = normal(2, 5, 4, 3, seed=1)
    explained = explain(proto, lines("*: epsilon"), {"x": x}, target=[1, 0])
    expected = x * weights["w"].T[[1, 0]][:, None, None, :]
    close(explained.values["relevance"], expected, 1e-4)


@pytest.mark.parametrize("size", [6, 7])
@pytest.mark.parametrize("start", [0, 1, -5])
def test_every_other_row_of_a_symbolic_size(start, size):
    """As networks of shifted windows merge patches."""
    bounds = {
        "start": np.array([start]), "end": np.array([2**62]), "axis": np.array([1]),
        "step": np.array([2]), "rows": np.array([1]), "w": normal(4, 3, seed=1),
    }  # fmt: skip
    body = [
        node("Slice", ["x", "start", "end", "axis", "step"], "y"),
        node("ReduceMean", ["y", "rows"], "m", keepdims=0),
        node("Gemm", ["m", "w"], "logits"),
    ]
    proto = model(body, {"x": ["N", "rows", 4]}, ["logits"], bounds)
    x = normal(2, size, 4, seed=2)
    explained = explain(proto, lines("*: epsilon"), {"x": x}, target=1, inside=["y"])
    expected = np.zeros_like(x)
    expected[:, start::2] = explained.relevance("y")
    np.testing.assert_array_equal(explained.values["relevance"], expected)
