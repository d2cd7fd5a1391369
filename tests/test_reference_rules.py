"""The oracle's rules: who judges the judge.

They are held against conservation, and for LRN against the closed form and the numerical Hessian.
Neurons worked out by hand are in ``test_hand_sized``.
"""

import math

import numpy as np
import pytest
import reference_cases as cases
from reference_cases import LINEAR_RULES, X2, named, node, normal, per_sample

from onnxlrp import reference
from onnxlrp.reference import normalization

# --- Conservation --------------------------------------------------------------------------------


@pytest.mark.parametrize(("op_type", "inputs", "attributes"), named(cases.LINEAR))
def test_what_comes_in_is_accounted_for(op_type, inputs, attributes):
    one = node(op_type, inputs, **attributes)
    (y,) = reference.forward(one, inputs)
    # Relevance in proportion to the outputs keeps the quotients, and so the rounding, small.
    relevance = y * (1 + 0.5 * np.abs(normal(*y.shape, seed=5)))
    live = [i == 0 for i in range(len(inputs))]
    for rule, parameters in LINEAR_RULES:
        done = reference.propagate(one, inputs, [relevance], rule, parameters, live)
        accounted = done.relevance[0].sum() + done.bias.sum() + done.stabiliser.sum()
        scale = np.abs(relevance).sum() + np.abs(done.relevance[0]).sum()
        assert abs(accounted - relevance.sum()) <= 1e-12 * scale
        if op_type in ("Conv", "ConvTranspose", "AveragePool", "BatchNormalization"):
            accounted = per_sample(done.relevance[0]) + done.bias + done.stabiliser
            np.testing.assert_allclose(accounted, per_sample(relevance), atol=1e-12 * scale)


# --- Rules ---------------------------------------------------------------------------------------


def test_stabiliser_pushes_zero_up():
    d = np.array([2.0, 0.0, -0.0, -2.0])
    np.testing.assert_array_equal(reference.stab(d, 0.5), [2.5, 0.5, 0.5, -2.5])


@pytest.mark.parametrize(
    ("rule", "parameters"),
    [("flat", {}), ("w-square", {}), ("z-box", {"low": -1.0, "high": 1.0})],
)
def test_padding_gets_no_part(rule, parameters):
    """A corner's window has 4 inputs, an edge's 6; all inputs and weights are alike."""
    inputs = [np.zeros((1, 1, 4, 4)), np.ones((1, 1, 3, 3))]
    one = node("Conv", inputs, pads=[1, 1, 1, 1])
    done = reference.propagate(
        one, inputs, [np.ones((1, 1, 4, 4))], rule, parameters, [True, False]
    )
    r = done.relevance[0][0, 0]
    assert r[0, 0] == pytest.approx(1 / 4 + 2 / 6 + 1 / 9, rel=1e-5)
    assert r[1, 1] == pytest.approx(1 / 4 + 4 / 6 + 4 / 9, rel=1e-5)
    assert r.sum() == pytest.approx(16, rel=1e-5)


def box(one, inputs, low, high):
    (y,) = reference.forward(one, inputs)
    rule = "z-box", {"low": low, "high": high}
    live = [i == 0 for i in range(len(inputs))]
    return reference.propagate(one, inputs, [np.ones_like(y)], *rule, live).relevance[0]


def test_box_bounds_per_channel_are_those_of_the_inputs_channels():
    low, high = [-1.0, -2.0, -3.0, -4.0], [1.0, 2.0, 3.0, 4.0]
    inputs = [X2, normal(3, 4, 2, 2), normal(3)]
    scale = np.array(high)[:, None, None]
    scaled = [X2 / scale, inputs[1] * scale, inputs[2]]
    one = node("Conv", inputs, pads=[1, 0, 1, 0])
    np.testing.assert_allclose(box(one, inputs, low, high), box(one, scaled, -1, 1), rtol=1e-9)


def test_box_bounds_per_channel_are_on_the_last_axis_of_a_matrix():
    inputs = [normal(3, 2), normal(2, 5)]
    one, scale = node("Gemm", inputs), np.array([2.0, 3.0])
    scaled = [inputs[0] / scale, inputs[1] * scale[:, None]]
    found = box(one, inputs, [0, -3.0], [2.0, 3.0])
    np.testing.assert_allclose(found, box(one, scaled, [0, -1.0], 1.0), rtol=1e-9)


def test_gamma_original_is_gamma_where_nothing_is_negative():
    inputs = [np.abs(normal(3, 5)), normal(5, 4), normal(4)]
    one = node("Gemm", inputs)
    (y,) = reference.forward(one, inputs)
    above = [np.where(y >= 0, y, 0.0)], "gamma", {"gamma": 0.5}, [True, False, False]
    below = [np.where(y < 0, y, 0.0)], "gamma", {"gamma": 0.5}, [True, False, False]
    general, original = (
        reference.propagate(one, inputs, above[0], rule, *above[2:]).relevance[0]
        for rule in ("gamma", "gamma-original")
    )
    np.testing.assert_allclose(general, original, rtol=1e-12)
    # Below zero it is gamma of the mirrored layer.
    mirrored = [inputs[0], -inputs[1], -inputs[2]]
    general = reference.propagate(one, inputs, *below).relevance[0]
    original = reference.propagate(one, mirrored, below[0], "gamma-original", *below[2:])
    np.testing.assert_allclose(general, original.relevance[0], rtol=1e-12)


# --- Local response normalisation ----------------------------------------------------------------


def lrn(x, relevance, rule, **attributes):
    one = node("LRN", [x], **attributes)
    return reference.propagate(one, [x], [relevance], rule, {}, [True]).relevance[0]


def closed_form(x, relevance, size, alpha=1e-4, beta=0.75, bias=1.0):
    """Taylor at once for all channels, with x_k cancelled on paper, and no window but a matrix."""
    a, k = alpha / size, np.arange(x.shape[1])
    step = k[None, :] - k[:, None]
    window = (
        (step >= -math.floor((size - 1) / 2)) & (step <= math.ceil((size - 1) / 2)) & (step != 0)
    )
    u = bias + a * x**2
    t = np.einsum("kj,njhw->nkhw", window, x**2)
    s = u + a * t
    r = (u / s) ** beta / s
    g = relevance / (1 - 2 * a * beta * t * r)
    return g - 2 * a * beta * x**2 * np.einsum("kj,nkhw->njhw", window, r * g)


SIZES = [*cases.NORMALIZATIONS, {"size": 4, "alpha": 2.0}, {"size": 2, "alpha": 1.0, "bias": 2.0}]
LRN_X = np.where(normal(2, 9, 2, 3, seed=1) > -1, 2 * normal(2, 9, 2, 3), 0.0)
LRN_R = normal(2, 9, 2, 3, seed=2)


@pytest.mark.parametrize("rule", ["taylor", "identity", "path-integral"])
@pytest.mark.parametrize("attributes", SIZES)
def test_lrn_conserves(attributes, rule):
    r = lrn(LRN_X, LRN_R, rule, **attributes)
    # LRN works on each pixel alone.
    np.testing.assert_allclose(r.sum(axis=1), LRN_R.sum(axis=1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("attributes", SIZES)
def test_lrn_taylor_is_the_closed_form(attributes):
    expected = closed_form(LRN_X, LRN_R, **attributes)
    np.testing.assert_allclose(lrn(LRN_X, LRN_R, "taylor", **attributes), expected, atol=1e-12)


def test_lrn_with_a_mirrored_window_is_not_the_closed_form(monkeypatch):
    def mirrored(k, size, channels):
        return range(max(0, k - size // 2), min(channels - 1, k + (size - 1) // 2) + 1)

    monkeypatch.setattr(normalization, "lrn_window", mirrored)
    attributes = {"size": 4, "alpha": 2.0}
    found = lrn(LRN_X, LRN_R, "taylor", **attributes)
    assert np.abs(found - closed_form(LRN_X, LRN_R, **attributes)).max() > 1e-3


def taylor_2_by_differences(x, relevance, size, alpha=1e-4, beta=0.75, bias=1.0, h=1e-4):
    """Second order at one pixel, gradient and Hessian of y_k by central differences."""
    channels, r_in = len(x), np.zeros_like(x)
    steps = h * np.eye(channels)
    for k in range(channels):
        start = k - math.floor((size - 1) / 2)
        window = range(max(0, start), min(channels, start + size))

        def y(v, k=k, window=window):
            return v[k] / (bias + alpha / size * sum(v[j] ** 2 for j in window)) ** beta

        slope = np.array([y(x + d) - y(x - d) for d in steps]) / (2 * h)
        curvature = [
            [y(x + d + e) - y(x + d - e) - y(x - d + e) + y(x - d - e) for d in steps]
            for e in steps
        ]
        others = np.arange(channels) != k
        d = np.where(others, -x, 0.0)
        pairs = d[:, None] * np.array(curvature) / (4 * h**2) * d
        # Of each pair's term, half goes to either; the diagonal is all its own.
        z = -d * slope - pairs.sum(axis=1) / 2
        z[k] = y(np.where(others, 0.0, x))
        r_in += z / z.sum() * relevance[k]
    return r_in


@pytest.mark.parametrize("attributes", [a for a in SIZES if a.get("bias", 1) >= 1])
def test_lrn_taylor_2_is_the_expansion_to_second_order(attributes):
    x, r = 1.5 + normal(1, 6, 1, seed=3) / 4, normal(1, 6, 1, seed=4)
    found = lrn(x, r, "taylor-2", **attributes)[0, :, 0]
    expected = taylor_2_by_differences(x[0, :, 0], r[0, :, 0], **attributes)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_lrn_taylor_2_without_the_second_order_is_not_the_expansion(monkeypatch):
    whole = normalization.second_order

    def first_order(x, k, others, a, bias, beta):
        u = bias + a * x[:, k] ** 2
        s = u + a * sum(x[:, j] ** 2 for j in others)
        slope = -2 * a * beta * (u / s) ** beta / s
        return whole(x, k, [], a, bias, beta) | {j: slope * x[:, j] ** 2 for j in others}

    monkeypatch.setattr(normalization, "second_order", first_order)
    with pytest.raises(AssertionError):
        test_lrn_taylor_2_is_the_expansion_to_second_order(SIZES[1])


@pytest.mark.parametrize("attributes", [*SIZES, {"size": 5, "alpha": 2.0, "beta": 3.0}])
def test_lrn_taylor_2_conserves_up_to_the_stabiliser(attributes):
    one = node("LRN", [LRN_X], **attributes)
    done = reference.propagate(one, [LRN_X], [LRN_R], "taylor-2", {"stabiliser": 0.1}, [True])
    accounted = per_sample(done.relevance[0]) + done.stabiliser
    np.testing.assert_allclose(accounted, per_sample(LRN_R), rtol=1e-10)
    assert np.abs(done.stabiliser).min() > 1e-3


def test_lrn_by_hand():
    # y = x / (1 + x_1^2 + x_2^2), so u = (2, 5) and S = 6.
    x, r = np.array([1.0, 2.0]).reshape(1, 2, 1), np.array([1.0, 0.0]).reshape(1, 2, 1)
    attributes = {"size": 3, "alpha": 3.0, "beta": 1.0}
    own, other = 1 / 2, -2 * 4 / 36
    for rule, expected in {
        "taylor-unnormalised": (own, other),
        "taylor": (own / (own + other), other / (own + other)),
        "path-integral": (3, -2),
        "identity": (1, 0),
        "gradient": (1 / 6 - 2 / 36, -4 / 36),
    }.items():
        np.testing.assert_allclose(lrn(x, r, rule, **attributes)[0, :, 0], expected, rtol=1e-13)


# --- Max pooling, structure, activations ---------------------------------------------------------


def test_first_of_equal_maxima_wins():
    x = np.array([[[[1.0, 5.0, 5.0], [5.0, 0.0, 5.0], [2.0, 2.0, 2.0]]]])
    one = node("MaxPool", [x], kernel_shape=[2, 2])
    r = np.array([[[[1.0, 2.0], [4.0, 8.0]]]])
    (back,) = reference.propagate(one, [x], [r], "winner-takes-all", {}, [True]).relevance
    np.testing.assert_array_equal(back[0, 0], [[0, 3, 0], [4, 0, 8], [0, 0, 0]])


@pytest.mark.parametrize(("op_type", "inputs", "attributes"), named(cases.MAX_POOLS))
def test_max_pooling_conserves_also_below_zero(op_type, inputs, attributes):
    x = inputs[0] - 10
    one = node(op_type, [x], **attributes)
    (y,) = reference.forward(one, [x])
    (back,) = reference.propagate(one, [x], [y], "winner-takes-all", {}, [True]).relevance
    # The winner has the pool's own value, so relevance y comes back as multiples of x.
    times = back / x
    np.testing.assert_allclose(times, np.round(times), atol=1e-12)
    assert back.sum() == pytest.approx(y.sum(), rel=1e-12)


@pytest.mark.parametrize(("op_type", "inputs", "attributes"), named(cases.MAX_POOLS))
def test_proportional_max_pooling_is_sharing_out_the_mean(op_type, inputs, attributes):
    x = np.abs(inputs[0])
    (y,) = reference.forward(node(op_type, [x], **attributes), [x])
    r = normal(*y.shape)

    def shared(name, rule):
        rule = rule, {"stabiliser": 1e-12}, [True]
        return reference.propagate(node(name, [x], **attributes), [x], [r], *rule).relevance[0]

    means = shared("AveragePool", "norm")
    np.testing.assert_allclose(shared(op_type, "proportional"), means, atol=1e-10)


@pytest.mark.parametrize(("op_type", "inputs", "outputs", "attributes"), named(cases.STRUCTURAL))
def test_elements_get_back_what_they_were_given(op_type, inputs, outputs, attributes):
    one = node(op_type, inputs, outputs, **attributes)
    ys = reference.forward(one, inputs)
    relevance = [normal(*y.shape, seed=i) for i, y in enumerate(ys)]
    live = [i == 0 or op_type == "Concat" for i in range(len(inputs))]
    done = reference.propagate(one, inputs, relevance, "pass", {}, live)
    given = sum((y * r).sum() for y, r in zip(ys, relevance, strict=True))
    found = sum((v * r).sum() for v, r in zip(inputs, done.relevance, strict=True) if r is not None)
    constant = inputs[2] * done.bias.sum() if op_type == "Pad" and inputs[2] is not None else 0
    assert found + constant == pytest.approx(given, rel=1e-12)


def test_constants_in_a_concat_keep_what_reaches_them():
    inputs = [normal(2, 3), normal(2, 4)]
    done = reference.propagate(
        node("Concat", inputs, axis=1), inputs, [np.ones((2, 7))], "pass", {}, [False, True]
    )
    assert done.relevance[0] is None
    np.testing.assert_array_equal(done.relevance[1], np.ones((2, 4)))
    np.testing.assert_array_equal(done.bias, [3, 3])


@pytest.mark.parametrize(("op_type", "inputs", "attributes"), named(cases.ACTIVATIONS))
def test_activations_pass_relevance_on(op_type, inputs, attributes):
    r = normal(*X2.shape, seed=3)
    live = [i == 0 for i in range(len(inputs))]
    done = reference.propagate(node(op_type, inputs, **attributes), inputs, [r], "pass", {}, live)
    np.testing.assert_array_equal(done.relevance[0], r)


@pytest.mark.parametrize("op_type", ["Mul", "Div", "MatMul"])
def test_products_of_live_values_are_refused(op_type):
    inputs = [normal(3, 3), normal(3, 3)]
    with pytest.raises(NotImplementedError, match="2 live inputs"):
        reference.propagate(node(op_type, inputs), inputs, inputs[:1], "epsilon", {}, [True, True])
