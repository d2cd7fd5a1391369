"""Composites that yield gradients: where they start, what they are multiplied by, what is said."""

import numpy as np
import onnx
import pytest
from support import close, explain, lines, model, node, normal, run

import onnxlrp
from onnxlrp import reference
from onnxlrp.audit import check, findings
from onnxlrp.audit.words import verdict
from onnxlrp.errors import InputError, UnsupportedError

W = {"w": normal(6, 5, seed=1), "b": normal(5, seed=2), "v": normal(5, 4, seed=3)}
BODY = [
    node("Gemm", ["x", "w", "b"], "z"),
    node("Tanh", ["z"], "a"),
    node("Gemm", ["a", "v"], "logits"),
]
SMALL = model(BODY, {"x": ["N", 6]}, ["logits"], W)
X = normal(4, 6, seed=4)
FAMILY = ("gradient", "gradient_x_input", "guided_backprop", "deconvnet")
ONE = np.eye(4)


def slopes(function, x, step=1e-6):
    """Brute force: how a number of each sample changes with each of its inputs, in float64."""
    x = x.astype(np.float64)
    result = np.zeros(x.shape)
    for place in np.ndindex(*x.shape[1:]):
        up, down = x.copy(), x.copy()
        up[(slice(None), *place)] += step
        down[(slice(None), *place)] -= step
        result[(slice(None), *place)] = (function(up) - function(down)) / (2 * step)
    return result


def weighted(weights, proto=SMALL, score="logits"):
    """What is explained: the scores, times weights."""
    return lambda x: (reference.evaluate(proto, {"x": x})[score] * weights).sum(axis=1)


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({"target": 2}, ONE[2]),
        ({"target": "3-1"}, ONE[3] - ONE[1]),
        ({"target": 2, "contrast": "others"}, ONE[2] * 4 / 3 - 1 / 3),
    ],
)
def test_it_starts_from_the_derivatives_of_what_is_explained(options, weights):
    conversion = onnxlrp.convert(SMALL, "gradient", **options)
    close(run(conversion.to_proto(), {"x": X})["relevance"], slopes(weighted(weights), X))


def test_a_softmaxs_gradient_is_one_already():
    def likely(x):
        scores = np.exp(reference.evaluate(SMALL, {"x": x})["logits"])
        return scores[:, 1] / scores.sum(axis=1)

    conversion = onnxlrp.convert(SMALL, "gradient", target=1, contrast="softmax")
    close(run(conversion.to_proto(), {"x": X})["relevance"], slopes(likely, X))


def test_weights_are_where_it_starts():
    weights = normal(4, 4, seed=5)
    proto = onnxlrp.convert(SMALL, "gradient", target="weights").to_proto()
    found = run(proto, {"x": X, "weights": weights})["relevance"]
    close(found, slopes(weighted(weights), X))


def test_several_classes_in_one_run():
    """`explain` compares the classes together with each alone."""
    for name in FAMILY:
        explain(SMALL, onnxlrp.Composite.load(name), {"x": X}, target=1)
    explainer = onnxlrp.Explainer(onnxlrp.convert(SMALL, "gradient").to_proto().SerializeToString())
    found = explainer(X[:1], target=[0, 1, 2, 3])
    wanted = [slopes(weighted(ONE[number]), X[:1])[0] for number in range(4)]
    close(found.relevance, np.array(wanted))


def test_one_logit_stands_for_two_classes():
    body = [
        node("Gemm", ["x", "w"], "z"),
        node("Sigmoid", ["z"], "p"),
        node("Sub", ["one", "p"], "q"),
        node("Concat", ["q", "p"], "probabilities", axis=1),
    ]
    weights = {"w": W["w"][:, :1], "one": np.float32([1])}
    proto = model(body, {"x": ["N", 6]}, ["probabilities"], weights)
    for number, sign in ((0, -1), (1, 1)):
        conversion = onnxlrp.convert(proto, "gradient", target=number)
        assert conversion.score == "z"
        found = run(conversion.to_proto(), {"x": X})["relevance"]
        close(found, np.broadcast_to(sign * W["w"][:, 0], X.shape))


def test_places_of_a_dense_output_add_up():
    body = [node("Conv", ["x", "k"], "logits", pads=[1, 1, 1, 1])]
    proto = model(body, {"x": ["N", 2, 4, 4]}, ["logits"], {"k": normal(3, 2, 3, 3)})
    x = normal(2, 2, 4, 4, seed=6)
    conversion = onnxlrp.convert(proto, "gradient", target=1, at="1:3,0")

    def explained(x):
        return reference.evaluate(proto, {"x": x})["logits"][:, 1, 1:3, 0].sum(axis=1)

    close(run(conversion.to_proto(), {"x": x})["relevance"], slopes(explained, x))


def test_times_the_input_it_is_epsilon_where_nothing_is_biased():
    body = [
        node("Conv", ["x", "k"], "c", pads=[1, 1, 1, 1]),
        node("Relu", ["c"], "r"),
        node("MaxPool", ["r"], "m", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["m"], "f"),
        node("Gemm", ["f", "v"], "logits"),
    ]
    weights = {"k": normal(4, 2, 3, 3), "v": normal(16, 3, seed=7)}
    proto = model(body, {"x": ["N", 2, 4, 4]}, ["logits"], weights)
    x = normal(2, 2, 4, 4, seed=8)
    epsilon = onnxlrp.Composite.load("epsilon").with_parameters({"epsilon": 1e-12})
    maps = [
        explain(proto, composite, {"x": x}, target=1).values
        for composite in (onnxlrp.Composite.load("gradient_x_input"), epsilon)
    ]
    close(maps[0]["relevance"], maps[1]["relevance"])
    close(maps[0]["relevance"].sum(axis=(1, 2, 3)), maps[0]["logits"][:, 1])


ROWS = [
    node("Cast", ["tokens"], "places", to=7),
    node("Gather", ["table", "places"], "rows"),
    node("Tanh", ["rows"], "a"),
    node("ReduceSum", ["a", "one"], "s", keepdims=0),
    node("Gemm", ["s", "v"], "logits"),
]
TABLE = {"table": normal(7, 5, seed=9), "v": W["v"], "one": np.array([1])}


def whole_tokens():
    proto = model(ROWS, {"tokens": ["N", 3]}, ["logits"], TABLE)
    proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT32
    return proto


def test_of_tokens_it_is_that_of_their_rows_times_these():
    tokens = np.array([[0, 3, 3], [6, 1, 2]], np.int32)
    composite = onnxlrp.Composite.load("gradient_x_input")
    found = explain(whole_tokens(), composite, {"tokens": tokens}, target=2).values["relevance"]
    rows = TABLE["table"].astype(np.float64)[tokens]
    close(found, (rows * (1 - np.tanh(rows) ** 2)) @ W["v"][:, 2])


def test_tokens_have_no_gradient():
    with pytest.raises(InputError, match=r"node_rows: a token .* take composite gradient_x_input"):
        onnxlrp.convert(whole_tokens(), "gradient")
    real = model(ROWS, {"tokens": ["N", 3]}, ["logits"], TABLE)
    with pytest.raises(InputError, match="'tokens' holds tokens as real numbers"):
        onnxlrp.convert(real, "gradient_x_input")


def test_a_product_with_zeros_has_a_gradient():
    x = normal(5, 4, seed=1)
    x[1, 2] = x[2, 0] = x[2, 1] = 0
    body = [
        node("ReduceProd", ["x", "one"], "p", keepdims=1),
        node("MatMul", ["p", "v"], "logits"),
    ]
    proto = model(body, {"x": ["N", 4]}, ["logits"], {"one": np.array([1]), "v": normal(1, 3)})
    found = explain(proto, onnxlrp.Composite.load("gradient"), {"x": x}, target=0)
    close(found.values["relevance"], slopes(weighted(np.eye(3)[0], proto), x))


def test_half_precision_is_computed_with_in_single():
    weights = {name: array.astype(np.float16) for name, array in W.items()}
    proto = model(BODY, {"x": ["N", 6]}, ["logits"], weights, dtype=10)
    found = explain(
        proto, onnxlrp.Composite.load("gradient"), {"x": X.astype(np.float16)}, target=1
    )
    close(found.values["relevance"], slopes(weighted(ONE[1]), X), 5e-3)


@pytest.mark.parametrize("name", FAMILY)
def test_it_knows_no_reference(name):
    with pytest.raises(InputError, match=f"composite {name} yields a gradient.*no reference"):
        onnxlrp.convert(SMALL, name, reference=np.float32(0))


@pytest.mark.parametrize("rule", ["gradient", "guided", "deconvnet"])
def test_neither_does_a_single_line(rule):
    mixed = lines(f"*: {rule}", "*: epsilon")
    with pytest.raises(UnsupportedError, match=f"rule '{rule}' knows no reference"):
        onnxlrp.convert(SMALL, mixed, reference=np.float32(1))


@pytest.mark.parametrize("name", FAMILY)
def test_the_audit_recomputes_it_and_claims_nothing_of_the_score(name):
    proto = onnxlrp.convert(SMALL, name).to_proto()
    audit = check(SMALL, proto, X, target=1)
    assert audit.passed
    assert not [finding.text for finding in findings(audit)]
    assert not [one for layer in audit.layers for one in layer.operations if one.skipped]
    assert max(layer.difference for layer in audit.layers) < 1e-5
    assert max(layer.leak for layer in audit.layers) < 1e-5
    assert "no part of the score" in verdict(audit)[-1]


@pytest.mark.parametrize("name", FAMILY)
def test_no_share_of_the_score_is_told(name):
    explainer = onnxlrp.convert(SMALL, name).to_proto().SerializeToString()
    account = onnxlrp.Explainer(explainer)(X).account()
    assert account.share is None
    assert "%" not in account.in_words()


def test_what_it_yields_is_written_and_read():
    composite = onnxlrp.Composite.load("gradient_x_input")
    assert 'yields = "gradient times input"' in composite.to_toml()
    assert "yields" not in onnxlrp.Composite.load("epsilon").to_toml()


def test_what_it_cannot_yield(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text('description = ""\nyields = "truth"\n[[rules]]\nrule = "gradient"\n')
    with pytest.raises(onnxlrp.CompositeError, match=r"own\.toml:2: 'yields' must be one of"):
        onnxlrp.Composite.load(path)


# --- Averaged over points ------------------------------------------------------------------------


def opened(composite, proto=SMALL, **options):
    conversion = onnxlrp.convert(proto, composite, **options)
    return onnxlrp.Explainer(conversion.to_proto().SerializeToString())


@pytest.mark.parametrize("steps", [1, 3, 40])
def test_integrated_gradients_are_the_integral_times_the_way(steps):
    """Gauss and Legendre's rule, worked out in float64 by brute force."""
    found = opened(f"integrated_gradients; steps={steps}")(X, 2).relevance
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    mean = sum(
        weight / 2 * slopes(weighted(ONE[2]), X * (node + 1) / 2)
        for node, weight in zip(nodes, weights, strict=True)
    )
    close(found, mean * X)


def test_integrated_gradients_add_up_to_the_difference_of_scores():
    found = opened("integrated_gradients")(X)
    logits = run(SMALL, {"x": np.concatenate([X, X[:1] * 0])})["logits"]
    assert found.target.tolist() == logits[:4].argmax(axis=1).tolist()
    change = (logits[:4] - logits[4])[np.arange(4), found.target]
    np.testing.assert_allclose(found.relevance.sum(axis=1), change, rtol=1e-5, atol=1e-5)
    assert found.account().share is None


def test_the_class_is_the_inputs_at_every_point():
    explainer = opened("integrated_gradients; steps=7")
    top = explainer(X)
    close(top.relevance, explainer(X, top.target).relevance, 1e-7)


def test_one_sample_for_several_classes_and_samples_alone():
    explainer = opened("smooth_grad; samples=5")
    together = explainer(X[:1], [0, 1, 2, 3]).relevance
    alone = np.concatenate([explainer(X[:1], number).relevance for number in range(4)])
    close(together, alone)
    batch = explainer(X, 1).relevance
    close(batch, np.concatenate([explainer(X[n : n + 1], 1).relevance for n in range(4)]))


def test_weights_of_all_scores_are_kept_at_every_point():
    explainer = opened("integrated_gradients; steps=5", target="weights")
    one, other = (explainer(X, number).relevance for number in (3, 1))
    close(explainer(X, "3-1").relevance, one - other)
    close(explainer(X, weights=2 * ONE[3]).relevance, 2 * one)


def test_smooth_gradients_are_the_mean_around_the_input():
    found = opened("smooth_grad; samples=6; noise=0.3; seed=4")(X, 1).relevance
    random = np.random.default_rng(4)
    spread = 0.3 * np.ptp(X, axis=1, keepdims=True)
    points = [X + spread * random.normal(size=6) for _ in range(6)]
    close(found, sum(slopes(weighted(ONE[1]), point) for point in points) / 6)


def test_a_baseline_by_the_stored_preprocessing():
    body = [
        node("GlobalAveragePool", ["x"], "p"),
        node("Tanh", ["p"], "t"),
        node("Flatten", ["t"], "f"),
        node("Gemm", ["f", "v"], "logits"),
    ]
    proto = model(body, {"x": ["N", 3, 2, 2]}, ["logits"], {"v": normal(3, 4)})
    preprocessing = onnxlrp.Preprocessing(scale=1 / 255, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    explainer = opened("integrated_gradients; baseline=black", proto, preprocessing=preprocessing)
    x = normal(2, 3, 2, 2, seed=3) / 4
    black = np.broadcast_to(np.float32([-2.5, -4 / 3, -0.75]).reshape(3, 1, 1), x[:1].shape)
    score = run(proto, {"x": np.concatenate([x, black])})["logits"][:, 1]
    found = explainer(x, 1).relevance.sum(axis=(1, 2, 3))
    np.testing.assert_allclose(found, score[:2] - score[2], rtol=1e-4)


def test_a_model_with_a_fixed_batch_goes_point_by_point():
    fixed = model(BODY, {"x": [2, 6]}, ["logits"], W)
    one, other = (opened("smooth_grad; samples=4", proto) for proto in (fixed, SMALL))
    close(one(X[:2], 1).relevance, other(X[:2], 1).relevance)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("integrated_gradients; steps=0", "'steps' must be a whole number from 1 on"),
        ("integrated_gradients; baseline=grey", "'baseline' must be one of mean, black, zero"),
        ("smooth_grad; noise=-1", "'noise' must be a number greater than 0"),
        ("gradient; steps=3", "takes a parameter 'steps'"),
    ],
)
def test_points_that_are_none(text, message):
    with pytest.raises(onnxlrp.CompositeError, match=message):
        onnxlrp.Composite.load(text)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ('yields = "gradient"\n[points]\nmany = 3', "2: .*holds steps and baseline.*not many"),
        ("[points]\nsteps = 3", "1: only what yields a gradient has points"),
    ],
)
def test_points_of_a_file(tmp_path, head, message):
    path = tmp_path / "own.toml"
    path.write_text(f'{head}\n[[rules]]\nrule = "gradient"\n')
    with pytest.raises(onnxlrp.CompositeError, match=f"own.toml:{message}"):
        onnxlrp.Composite.load(path)


def test_the_best_class_cannot_be_written_in_for_several_points():
    with pytest.raises(InputError, match="which class scores best is not the same"):
        onnxlrp.convert(SMALL, "integrated_gradients", target="top")
    explainer = opened("integrated_gradients", target=1)
    close(explainer(X).relevance, opened("integrated_gradients")(X, 1).relevance)


def test_between_whole_numbers_there_are_no_gradients():
    body = [node("Cast", ["x"], "real", to=1), *BODY]
    body[1] = node("Gemm", ["real", "w", "b"], "z")
    proto = model(body, {"x": ["N", 6]}, ["logits"], W, dtype=onnx.TensorProto.UINT8)
    with pytest.raises(InputError, match="'x' holds whole numbers"):
        onnxlrp.convert(proto, "integrated_gradients")
