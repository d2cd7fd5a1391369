"""The oracle's own tests: who judges the judge.

Its forward pass is held against onnxruntime, its two ways to the contributions against each other,
and its rules against neurons worked out by hand, conservation, and the closed form for LRN.
"""

import math

import numpy as np
import onnxruntime
import pytest
import reference_cases as cases
from reference_cases import LINEAR_RULES, X2, model_of, node, normal, residual_network

from onnxlrp import reference
from onnxlrp.reference import rules


def run_onnxruntime(model, feeds):
    # Only float32 has kernels for every operator here.
    narrow = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in feeds.items()}
    file, providers = model.SerializeToString(), ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(file, providers=providers).run(None, narrow)


def run_node(one, inputs):
    feeds = {f"x{i}": v for i, v in enumerate(inputs) if v is not None}
    return run_onnxruntime(model_of([one], feeds, one.output), feeds)


def named(some):
    return [pytest.param(*c, id=f"{c[0]}-{i}") for i, c in enumerate(some)]


# --- The forward pass ----------------------------------------------------------------------------


@pytest.mark.parametrize(("op_type", "inputs", "attributes"), named(cases.NUMERIC))
def test_forward_agrees_with_onnxruntime(op_type, inputs, attributes):
    one = node(op_type, inputs, **attributes)
    (expected,) = run_node(one, inputs)
    (found,) = reference.forward(one, inputs)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("op_type", "inputs", "outputs", "attributes"), named(cases.STRUCTURAL))
def test_structural_forward_agrees_with_onnxruntime(op_type, inputs, outputs, attributes):
    one = node(op_type, inputs, outputs, **attributes)
    found = reference.forward(one, inputs)
    for y, expected in zip(found, run_node(one, inputs), strict=True):
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(
    ("size", "window"),
    [(1, [4]), (2, [4, 5]), (3, [3, 4, 5]), (4, [3, 4, 5, 6]), (5, [2, 3, 4, 5, 6])],
)
def test_lrn_window_looks_further_forward_than_back(size, window):
    x = np.full((1, 9, 1), 1e3)
    x[0, window] = 1.0
    one = node("LRN", [x], size=size, alpha=float(size), beta=1.0)
    (y,) = reference.forward(one, [x])
    assert y[0, 4, 0] == 1 / (1 + size)


# --- Contributions -------------------------------------------------------------------------------


def small(op_type, inputs):
    """Leave little to probe: one sample, and two channels where that needs no other weights."""
    x, *rest = inputs
    return [x[:1, :2] if op_type == "AveragePool" else x[:1], *rest]


TINY = [(op, small(op, inputs), a) for op, inputs, a in cases.LINEAR if "transA" not in a]


def assert_routes_agree(one, inputs, live):
    (y,) = reference.forward(one, inputs)
    relevance = normal(*y.shape, seed=7)
    dense = list(reference.probed(one, inputs, live))
    for rule, parameters in LINEAR_RULES:
        arguments = one, inputs, [relevance], rule, parameters, live
        found, expected = (
            reference.propagate(*arguments),
            reference.propagate(*arguments, lambda *_: dense),
        )
        for r, e, alive in zip(found.relevance, expected.relevance, live, strict=True):
            assert (r is None) == (not alive)
            if alive:
                np.testing.assert_allclose(r, e, rtol=1e-8, atol=1e-9 * np.abs(e).max())
        np.testing.assert_allclose(found.bias, expected.bias, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(found.stabiliser, expected.stabiliser, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("op_type", "inputs", "attributes"), named(TINY))
def test_gathered_contributions_are_the_probed_ones(op_type, inputs, attributes):
    one = node(op_type, inputs, **attributes)
    assert_routes_agree(one, inputs, [i == 0 for i in range(len(inputs))])


@pytest.mark.parametrize(("op_type", "inputs", "attributes"), named(cases.BOTH_WAYS))
def test_any_operand_can_be_live(op_type, inputs, attributes):
    one = node(op_type, inputs, **attributes)
    assert_routes_agree(one, inputs, [i == 1 for i in range(len(inputs))])


@pytest.mark.parametrize("op_type", ["Add", "Sub", "Sum"])
def test_all_operands_can_be_live(op_type):
    inputs = [normal(2, 3), normal(3)]
    assert_routes_agree(node(op_type, inputs), inputs, [True, True])


def test_chunks_do_not_change_the_result(monkeypatch):
    inputs = [X2, normal(6, 4, 3, 2), normal(6)]
    one = node("Conv", inputs, pads=[1, 1, 1, 1])
    (y,) = reference.forward(one, inputs)
    arguments = one, inputs, [y], "z-plus", {"bias": "distribute"}, [True, False, False]
    whole = reference.propagate(*arguments)
    monkeypatch.setattr(rules, "CHUNK", 50)
    chunked = reference.propagate(*arguments)
    np.testing.assert_allclose(chunked.relevance[0], whole.relevance[0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(chunked.stabiliser, whole.stabiliser, rtol=1e-9, atol=1e-15)


# --- Conservation --------------------------------------------------------------------------------


def per_sample(array):
    return array.reshape(len(array), -1).sum(axis=1)


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


# --- Neurons worked out by hand ------------------------------------------------------------------


def neuron(weights, b, x, rule, parameters):
    """Propagate the output f of one neuron; return the relevance of its inputs over f."""
    inputs = [np.array([x]), np.array(weights)[:, None], np.array([b])]
    one = node("Gemm", inputs)
    (f,) = reference.forward(one, inputs)
    done = reference.propagate(one, inputs, [f], rule, parameters, [True, False, False])
    return done.relevance[0][0] / f.item(), done.bias.item() / f.item(), f.item()


@pytest.mark.parametrize(
    ("bias", "rule", "parameters", "shares", "bias_share"),
    [
        # z = (2, 1), f = 3 + b.
        (-0.5, "alpha-beta", {"alpha": 1, "beta": 0}, (2 / 3, 1 / 3), 0),
        (-0.5, "z-plus", {}, (2 / 3, 1 / 3), 0),
        (-0.5, "epsilon", {"bias": "absorb"}, (4 / 5, 2 / 5), -1 / 5),
        (-0.5, "norm", {}, (4 / 5, 2 / 5), -1 / 5),
        (-0.5, "epsilon", {"bias": "exclude"}, (2 / 3, 1 / 3), 0),
        (-0.5, "epsilon", {"bias": "distribute"}, (4 / 5 - 1 / 10, 2 / 5 - 1 / 10), 0),
        (-0.5, "epsilon", {"power": 2}, (4 / 5, 1 / 5), 0),
        (-0.5, "flat", {}, (1 / 2, 1 / 2), 0),
        # Nothing inhibits but the bias: it takes all of the part with beta.
        (-0.5, "alpha-beta", {"alpha": 2, "beta": 1}, (4 / 3, 2 / 3), -1),
        (-0.5, "alpha-beta", {"alpha": 2, "beta": 1, "bias": "distribute"}, (5 / 6, 1 / 6), 0),
        (1.0, "alpha-beta", {"alpha": 2, "beta": 1}, (1, 1 / 2), 1 / 2),
        (1.0, "z-plus", {}, (1 / 2, 1 / 4), 1 / 4),
        (1.0, "z-plus", {"bias": "distribute"}, (5 / 8, 3 / 8), 0),
    ],
)
def test_two_excited_inputs(bias, rule, parameters, shares, bias_share):
    found, taken, f = neuron([1.0, -1.0], bias, [2.0, -1.0], rule, parameters)
    assert f == 3 + bias
    np.testing.assert_allclose(found, shares, rtol=1e-5)
    assert taken == pytest.approx(bias_share, rel=1e-5, abs=1e-15)


@pytest.mark.parametrize(
    ("rule", "parameters", "shares"),
    [
        ("epsilon", {}, (3 / 2, -1 / 2)),
        ("z-plus", {}, (1, 0)),
        ("alpha-beta", {"alpha": 2, "beta": 1}, (2, -1)),
        ("beta", {"beta": 0.5}, (3 / 2, -1 / 2)),
    ],
)
def test_one_excited_and_one_inhibited_input(rule, parameters, shares):
    found, _, f = neuron([1.0, -1.0], 0.0, [3.0, 1.0], rule, parameters)
    assert f == 2
    np.testing.assert_allclose(found, shares, rtol=1e-5)


def test_what_an_empty_part_had_goes_to_the_stabiliser():
    inputs = [np.array([[1.0, 3.0]]), np.ones((2, 1))]
    rule = "alpha-beta", {"alpha": 2, "beta": 1}
    done = reference.propagate(
        node("Gemm", inputs), inputs, [np.array([[4.0]])], *rule, [True, False]
    )
    np.testing.assert_allclose(done.relevance[0], [[2.0, 6.0]], rtol=1e-6)
    assert done.stabiliser.item() == pytest.approx(-4, rel=1e-5)


def test_stabiliser_pushes_zero_up():
    d = np.array([2.0, 0.0, -0.0, -2.0])
    np.testing.assert_array_equal(reference.stab(d, 0.5), [2.5, 0.5, 0.5, -2.5])


def test_padding_gets_no_part_of_flat():
    inputs = [normal(1, 1, 4, 4), normal(1, 1, 3, 3)]
    one = node("Conv", inputs, pads=[1, 1, 1, 1])
    done = reference.propagate(one, inputs, [np.ones((1, 1, 4, 4))], "flat", {}, [True, False])
    r = done.relevance[0][0, 0]
    assert r[0, 0] == pytest.approx(1 / 4 + 2 / 6 + 1 / 9, rel=1e-5)
    assert r[1, 1] == pytest.approx(1 / 4 + 4 / 6 + 4 / 9, rel=1e-5)
    assert r.sum() == pytest.approx(16, rel=1e-5)


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

    monkeypatch.setattr(rules, "lrn_window", mirrored)
    attributes = {"size": 4, "alpha": 2.0}
    found = lrn(LRN_X, LRN_R, "taylor", **attributes)
    assert np.abs(found - closed_form(LRN_X, LRN_R, **attributes)).max() > 1e-3


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


# --- Networks ------------------------------------------------------------------------------------


def rule_of(one):
    return {"MaxPool": ("winner-takes-all", {}), "LRN": ("taylor", {}), "Conv": ("z-plus", {})}.get(
        one.op_type, ("epsilon", {"epsilon": 1e-9})
    )


def test_network_conserves_through_fork_and_sum():
    model, feeds = residual_network()
    asked = []
    relevance = reference.explain(
        model, feeds, lambda one: asked.append(one.op_type) or rule_of(one), ["image"], "logits"
    )
    logits = reference.evaluate(model, feeds)["logits"]
    assert asked == ["Gemm", "MaxPool", "Add", "Conv", "LRN", "Conv"]
    np.testing.assert_allclose(per_sample(relevance["image"]), logits.max(axis=1), rtol=1e-4)
    np.testing.assert_array_equal(relevance["z1"], relevance["a1"])
    assert "w1" not in relevance
    assert "shape" not in relevance
    assert "probabilities" not in relevance


def test_target_is_one_for_all_or_one_each():
    model, feeds = residual_network()
    logits = reference.evaluate(model, feeds)["logits"]
    for target, chosen in [(3, [3, 3]), ([1, 4], [1, 4]), ([-1, 0], [logits[0].argmax(), 0])]:
        r = reference.explain(model, feeds, rule_of, ["image"], "logits", target)["logits"]
        expected = np.zeros_like(logits)
        expected[[0, 1], chosen] = logits[[0, 1], chosen]
        np.testing.assert_array_equal(r, expected)


def test_values_agree_with_onnxruntime():
    model, feeds = residual_network()
    (expected,) = run_onnxruntime(model, feeds)
    found = reference.evaluate(model, feeds)["probabilities"]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


def test_old_opsets_are_refused():
    with pytest.raises(ValueError, match="opset 17"):
        reference.evaluate(*residual_network(opset=17))
