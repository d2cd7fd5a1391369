"""Every rule on a few neurons, worked out by hand: by the definition and by an explainer."""

import numpy as np
import pytest
from hand_sized import check, check_neuron, differs, row
from support import lines, node

# --- Every rule ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("epsilon", (2, 1)),
        ("epsilon epsilon=0.5", (5 / 2 * 2 / 3, 5 / 2 * 1 / 3)),
        ("epsilon bias=exclude", (5 / 2 * 2 / 3, 5 / 2 * 1 / 3)),
        ("epsilon bias=distribute", (2 - 1 / 4, 1 - 1 / 4)),
        ("epsilon power=2", (5 / 2 * 4 / 5, 5 / 2 * 1 / 5)),
        ("norm", (2, 1)),
        ("norm stabiliser=0.5", (5 / 2 * 2 / 3, 5 / 2 * 1 / 3)),
        ("z-plus", (5 / 2 * 2 / 3, 5 / 2 * 1 / 3)),
        ("alpha-beta alpha=2 beta=1", (5 * 2 / 3, 5 * 1 / 3)),
        ("alpha-beta alpha=2 beta=1 bias=distribute", (5 * 2 / 3 - 5 / 4, 5 * 1 / 3 - 5 / 4)),
        ("beta beta=1", (5 * 2 / 3, 5 * 1 / 3)),
        ("gamma gamma=0.5", (5 / 2 * 3 / 4, 5 / 2 * 1.5 / 4)),
        ("gamma-original gamma=0.5", (5 / 2 * 3 / 3.5, 5 / 2 * 1 / 3.5)),
        ("flat", (5 / 4, 5 / 4)),
        ("w-square", (5 / 2 * 4 / 9, 5 / 2 * 4 / 9)),
        ("w-square bias=exclude", (5 / 4, 5 / 4)),
        ("w-square bias=distribute", (5 / 4, 5 / 4)),
        ("z-box low=-2 high=3", (5 / 2 * 4 / 8, 5 / 2 * 4 / 8)),
        ("zero", (0, 0)),
    ],
)
def test_two_excited_inputs(rule, expected):
    """z = (2, 1) and b = -1/2, so f = 5/2."""
    check_neuron((1, -1), -1 / 2, (2, -1), rule, expected)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("epsilon", (2, 1)),
        ("epsilon bias=exclude", (8 / 3, 4 / 3)),
        ("epsilon bias=distribute", (5 / 2, 3 / 2)),
        ("z-plus", (2, 1)),
        ("z-plus bias=exclude", (8 / 3, 4 / 3)),
        ("z-plus bias=distribute", (5 / 2, 3 / 2)),
        ("gamma gamma=0.5", (2, 1)),
        ("gamma gamma=0.5 bias=exclude", (8 / 3, 4 / 3)),
        ("gamma gamma=0.5 bias=distribute", (5 / 2, 3 / 2)),
        ("gamma-original gamma=0.5", (4 * 3 / 5.5, 4 * 1 / 5.5)),
        ("gamma-original gamma=0.5 bias=exclude", (4 * 3 / 4, 4 * 1 / 4)),
        ("gamma-original gamma=0.5 bias=distribute", (4 * 3.75 / 5.5, 4 * 1.75 / 5.5)),
        ("w-square", (4 / 3, 4 / 3)),
        ("w-square bias=distribute", (2, 2)),
    ],
)
def test_an_excited_bias(rule, expected):
    """z = (2, 1) and b = 1, so f = 4."""
    check_neuron((1, -1), 1, (2, -1), rule, expected)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("epsilon", (3, -1)),
        ("epsilon epsilon=0.5", (3 * 2 / 2.5, -2 / 2.5)),
        ("epsilon power=3", (2 * 27 / 26, 2 * -1 / 26)),
        ("z-plus", (2, 0)),
        ("alpha-beta alpha=2 beta=1", (4, -2)),
        ("alpha-beta alpha=1 beta=0", (2, 0)),
        ("beta beta=0.5", (3, -1)),
        ("beta beta=0", (2, 0)),
        ("gamma gamma=0", (3, -1)),
        ("gamma gamma=0.5", (2 * 4.5 / 3.5, 2 * -1 / 3.5)),
        ("flat", (1, 1)),
        ("w-square", (1, 1)),
        ("z-box low=0 high=4", (1, 1)),
        ("z-box low=-1,0 high=4,2", (2 * 4 / 5, 2 * 1 / 5)),
    ],
)
def test_one_excited_and_one_inhibited_input(rule, expected):
    """z = (3, -1), so f = 2."""
    check_neuron((1, -1), 0, (3, 1), rule, expected)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("epsilon epsilon=0.25", (4 / 5, -8 / 5)),
        ("gamma gamma=0.5", (1 / 2, -3 / 2)),
        ("z-plus", (-1, 0)),
        ("alpha-beta alpha=2 beta=1", (-2, 1)),
        ("flat", (-1 / 2, -1 / 2)),
    ],
)
def test_a_negative_output(rule, expected):
    """z = (1, -2), so f = -1."""
    check_neuron((1, -1), 0, (1, 2), rule, expected)


def test_even_evens_out_what_windows_share():
    """Windows of three at a stride of two: flat gives the middle pixel, which both see, twice."""
    body = [
        node("Conv", ["x", "w"], "h", strides=[2]),
        node("Flatten", ["h"], "f"),
        node("Gemm", ["f", "v"]),
    ]
    weights = {"w": np.ones((1, 1, 3), np.float32), "v": row(1, 1).T}
    x = np.array([[[1, 1, 1, 2, 0]]], np.float32)
    composite = lines("Conv: flat", "Gemm: epsilon")
    check(body, x, weights, composite, [[[1, 1, 2, 1, 1]]])
    check(body, x, weights, lines("Conv: even", "Gemm: epsilon"), [[[6 / 5] * 5]])


def test_pass_hands_relevance_on_unchanged():
    """Flat gives each of two neurons f / 2, whatever made them."""
    body = [node("Gemm", ["x", "w", "c"], "h"), node("Gemm", ["h", "v", "b"])]
    weights = {
        "w": np.array([[1, 2], [3, 4]], np.float32),
        "c": np.array([5, 6], np.float32),
        "v": row(1, -1).T,
        "b": np.array([10], np.float32),
    }
    # h = (1 + 6 + 5, 2 + 8 + 6) = (12, 16), f = 12 - 16 + 10.
    composite = lines("name=node_h: pass", "Gemm: flat")
    check(body, row(1, 2), weights, composite, (3, 3))


# --- Local response normalisation ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("treatment", "shares"),
    [
        ("identity", (1, 0)),
        ("gradient", (1 / 6 - 2 / 36, -4 / 36)),
        ("taylor-unnormalised", (1 / 2, -8 / 36)),
        ("taylor", ((1 / 2) / (1 / 2 - 8 / 36), (-8 / 36) / (1 / 2 - 8 / 36))),
        ("taylor-2", ((1 / 2) / (1 / 2 - 11 / 27), (-11 / 27) / (1 / 2 - 11 / 27))),
        ("path-integral", (6 / 2, 1 - 6 / 2)),
    ],
)
def test_local_response_normalisation(treatment, shares):
    """y_1 = x_1 / (1 + x_1² + x_2²) of x = (1, 2), so u = 2, T = 4, S = 6.

    The gradient, whose sum is 0, is what zennit and iNNvestigate compute without saying so;
    `taylor-unnormalised` is the LRP Toolbox's for Caffe. The paper's is `taylor`: eq. 15's terms
    1/2 and -8/36, divided by their sum as eqs. 3 and 7 ask.
    """
    body = [
        node("LRN", ["x"], "n", size=3, alpha=3.0, beta=1.0, bias=1.0),
        node("Flatten", ["n"], "f"),
        node("Gemm", ["f", "w"]),
    ]
    x = row([[1]], [[2]])
    composite = lines(f"LRN: {treatment}", "Gemm: z-plus")
    check(body, x, {"w": row(1, 0).T}, composite, [1 / 6 * share for share in shares])


# --- Max pooling ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("winner-takes-all", (0, 3, 0, 0)),
        ("proportional", (3 * 1 / 8, 3 * 3 / 8, 3 * 3 / 8, 3 * 1 / 8)),
        ("proportional stabiliser=1", (3 * 1 / 9, 3 * 3 / 9, 3 * 3 / 9, 3 * 1 / 9)),
    ],
)
def test_max_pooling(rule, expected):
    """The first of equal maxima wins, as in torch, and so zennit.

    The LRP Toolbox splits ties; an equality mask gives R to each.
    """
    body = [
        node("MaxPool", ["x"], "p", kernel_shape=[2, 2]),
        node("Flatten", ["p"], "f"),
        node("Gemm", ["f", "w"]),
    ]
    x = np.array([[[[1, 3], [3, 1]]]], np.float32)
    check(body, x, {"w": row(1)}, lines(f"MaxPool: {rule}", "Gemm: epsilon"), expected)
    toolbox, masks = (0, 3 / 2, 3 / 2, 0), (0, 3, 3, 0)
    differs(expected, toolbox, masks)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("winner-takes-all", (0, 3 + 3, 0)),
        ("proportional", (3 * 1 / 4, 3 * 3 / 4 + 3 * 3 / 5, 3 * 2 / 5)),
    ],
)
def test_overlapping_windows_add_up(rule, expected):
    """x = (1, 3, 2), windows of two: both maxima are the 3, and f = 6."""
    body = [
        node("MaxPool", ["x"], "p", kernel_shape=[2]),
        node("Flatten", ["p"], "f"),
        node("Gemm", ["f", "w"]),
    ]
    composite = lines(f"MaxPool: {rule}", "Gemm: epsilon")
    check(body, row([1, 3, 2]), {"w": row(1, 1).T}, composite, expected)
