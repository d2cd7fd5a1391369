"""Relevance against a reference: each family of operators, by the definition of its change."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from support import close, crosses_as_defined, explain, lines, model, node, normal, run

import onnxlrp
from onnxlrp import reference
from onnxlrp.audit import check
from onnxlrp.graph.shapes import broadcast

X, ROOT = normal(2, 4, 6, 6, seed=1) + 0.3, np.repeat(normal(1, 4, 6, 6, seed=2), 2, axis=0)
RULES = {
    **{"epsilon": {}, "norm": {}, "z-plus": {}, "flat": {}, "w-square": {}},
    **{"alpha-beta": {"alpha": 2, "beta": 1}, "beta": {"beta": 1}, "gamma": {"gamma": 0.3}},
    **{"gamma-original": {"gamma": 0.3}, "z-box": {"low": -4, "high": 4}},
}
SYMBOLIC = pytest.mark.parametrize("symbolic", [(0,), (0, 2, 3)], ids=["constant", "run-time"])


@SYMBOLIC
@pytest.mark.parametrize("rule", RULES)
def test_linear_rules_on_a_convolution(rule, symbolic):
    conv = node("Conv", ["x", "w", "b"], strides=[2, 2], pads=[1, 1, 1, 1])
    weights = {"w": normal(3, 4, 3, 3, seed=3), "b": normal(3, seed=4, scale=5)}
    parameters = RULES[rule]
    crosses_as_defined(
        conv, X, rule, weights, spread=True, root=ROOT, symbolic=symbolic, **parameters
    )


@pytest.mark.parametrize("rule", RULES)
def test_linear_rules_on_a_dense_layer(rule):
    gemm = node("Gemm", ["x", "w", "b"])
    weights = {"w": normal(6, 5, seed=3), "b": normal(5, seed=4, scale=5)}
    x, root = normal(3, 6, seed=1), np.repeat(normal(1, 6, seed=2), 3, axis=0)
    crosses_as_defined(gemm, x, rule, weights, spread=True, root=root, **RULES[rule])


@SYMBOLIC
@pytest.mark.parametrize("rule", ["winner-takes-all", "proportional"])
def test_the_winner_is_that_of_the_larger_of_both(rule, symbolic):
    pool = node("MaxPool", ["x"], kernel_shape=[3, 3], strides=[2, 2])
    crosses_as_defined(pool, X, rule, spread=True, root=ROOT, symbolic=symbolic)


@SYMBOLIC
def test_local_response_normalisation_is_split_without_a_remainder(symbolic):
    lrn = node("LRN", ["x"], size=3, alpha=2.0, beta=0.75, bias=1.0)
    explained = crosses_as_defined(
        lrn, X, "taylor", spread=True, root=ROOT, symbolic=(0,), tolerance=2e-5
    )
    sums = [explained.values["relevance"].sum(), explained.relevance("y").sum()]
    assert np.isclose(*sums, rtol=1e-4)


NORMALISATIONS = {
    "LayerNormalization": ({"axis": 1}, {"s": normal(4, 6, 6, seed=5), "b": normal(4, 6, 6)}),
    "RMSNormalization": ({"axis": 1}, {"s": normal(4, 6, 6, seed=5)}),
    "InstanceNormalization": ({}, {"s": normal(4, seed=5), "b": normal(4, seed=6)}),
    "LpNormalization": ({"axis": 1}, {}),
}


@pytest.mark.parametrize("rule", ["epsilon", "gamma", "taylor"])
@pytest.mark.parametrize("operator", NORMALISATIONS)
def test_normalisations(operator, rule):
    attributes, weights = NORMALISATIONS[operator]
    normalise = node(operator, ["x", *weights], **attributes)
    crosses_as_defined(
        normalise, X, rule, weights, spread=True, root=ROOT, opset=23, tolerance=3e-5
    )


@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_softmax(operator, scale):
    softmax = node(operator, ["x"], axis=1)
    x, root = normal(2, 5, seed=1) * scale, np.repeat(normal(1, 5, seed=2), 2, axis=0) * scale
    crosses_as_defined(softmax, x, "taylor", spread=True, root=root, tolerance=2e-5)


@pytest.mark.parametrize("distance", [1e-4, 1e-3, 0.01, 0.05])
@pytest.mark.parametrize("operator", ["Softmax", "LRN"])
def test_close_to_the_reference_neither_rounding_nor_the_series_shows(operator, distance):
    """Differences of what is nearly alike would leave 1e-3 and worse."""
    attributes, shape = {
        "Softmax": ({"axis": 1}, (5,)),
        "LRN": ({"size": 3, "alpha": 9.0}, (5, 1, 1)),
    }[operator]
    tested = node(operator, ["x"], "s", **attributes)
    body = [tested, node("Flatten", ["s"], "f"), node("Gemm", ["f", "w"], "y")]
    proto = model(body, {"x": ["N", *shape]}, ["y"], {"w": normal(5, 3, seed=3)})
    root = normal(1, *shape, seed=2) * 0.3
    x = root + distance * normal(2, *shape, seed=1)
    composite = lines(f"{operator}: taylor", "Gemm: flat")
    explained = explain(proto, composite, {"x": x}, target=[0, 1], inside=["s"], reference=root[0])
    relevance = explained.relevance("s")
    roots = [np.repeat(root, 2, axis=0).astype(float)]
    wanted = reference.propagate(
        tested, [x.astype(float)], [relevance], "taylor", {}, [True], root=roots
    )
    close(explained.values["relevance"], wanted.relevance[0], 5e-5)


@pytest.mark.parametrize("rule", ["uniform", "signal"])
@pytest.mark.parametrize("operator", ["Mul", "MatMul"])
def test_products_share_their_change(operator, rule):
    """a = x u and b = x v: of a b - a⁰ b⁰ each has its change times the other's middle."""
    shape = {"Mul": (3, 4), "MatMul": (3, 3)}[operator]
    stabiliser = {"Mul": "stabiliser", "MatMul": "epsilon"}[operator]
    body = [
        node("Mul", ["x", "u"], "a"),
        node("Mul", ["x", "v"], "b"),
        node(operator, ["a", "b"], "y"),
        node("Flatten", ["y"], "flat"),
        node("Gemm", ["flat", "w"], "logits"),
    ]
    size = int(np.prod(shape))
    weights = {"u": normal(*shape, seed=3), "v": normal(*shape, seed=4), "w": normal(size, 2)}
    proto = model(body, {"x": ["N", *shape]}, ["logits"], weights)
    x, root = normal(2, *shape, seed=1), normal(*shape, seed=2)
    explained = explain(
        proto,
        lines(f"name=node_y: {rule} {stabiliser}=0.05", "Mul: pass", "Gemm: epsilon"),
        {"x": x},
        target=[0, 1],
        inside=["y", "a"] if rule == "signal" else ["y", "a", "b"],
        reference=root,
    )
    at = {name: v.astype(float) for name, v in weights.items()}
    values, base = ([v * at["u"], v * at["v"]] for v in (x.astype(float), root[None].astype(float)))
    base = [np.repeat(v, 2, axis=0) for v in base]
    tested = body[2]
    wanted = reference.propagate(
        tested,
        values,
        [explained.relevance("y")],
        rule,
        {stabiliser: 0.05},
        [True, True],
        root=base,
    )
    for name, part in zip("ab", wanted.relevance, strict=True):
        if part is not None:
            close(explained.relevance(name), part, 5e-5)


def deep(seed, *, biases=5.0):
    """A convolution with large biases, rectified, pooled, normalised, read out."""
    body = [
        node("Conv", ["x", "w", "b"], "c"),
        node("Relu", ["c"], "r"),
        node("MaxPool", ["r"], "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("LRN", ["p"], "n", size=3, alpha=0.5),
        node("Flatten", ["n"], "f"),
        node("Gemm", ["f", "v", "d"], "logits"),
    ]
    weights = {
        "w": normal(5, 3, 3, 3, seed=seed),
        "b": normal(5, seed=seed + 1, scale=biases),
        "v": normal(125, 4, seed=seed + 2),
        "d": normal(4, seed=seed + 3, scale=biases),
    }
    return model(body, {"x": ["N", 3, 12, 12]}, ["logits"], weights)


@pytest.mark.parametrize("given", ["array", "zero", "input"])
@pytest.mark.parametrize("rule", ["epsilon", "z-plus", "gamma"])
def test_relevance_sums_to_the_change_of_the_score(rule, given):
    proto, x = deep(1), normal(2, 3, 12, 12, seed=9)
    root = normal(3, 12, 12, seed=8) * (given != "zero")
    composite = lines(f"Conv: {rule}", "Gemm: epsilon", "LRN: taylor", "MaxPool: winner-takes-all")
    feeds = {"x": x, "reference": root[None]} if given == "input" else {"x": x}
    written = "input" if given == "input" else root
    explained = explain(proto, composite, feeds, target=[1, 2], reference=written)
    change = run(proto, {"x": x})["logits"] - run(proto, {"x": root[None]})["logits"]
    sums = explained.values["relevance"].sum(axis=(1, 2, 3))
    wanted = change[[0, 1], [1, 2]]
    if rule != "z-plus":
        # z-plus drops what only inhibits.
        assert np.allclose(sums, wanted, rtol=1e-3)
    plain = explain(proto, composite, {"x": x}, target=[1, 2])
    assert not np.allclose(plain.values["relevance"].sum(axis=(1, 2, 3)), wanted, rtol=0.05)


def test_the_reference_itself_has_no_relevance():
    proto, root = deep(3), normal(3, 12, 12, seed=8)
    composite = lines("Conv: gamma", "Gemm: epsilon", "LRN: taylor", "MaxPool: winner-takes-all")
    explained = explain(proto, composite, {"x": root[None]}, target=[1], reference=root)
    assert np.abs(explained.values["relevance"]).max() < 1e-6


def test_explainers_and_audits_know_what_they_count_from(tmp_path):
    proto, x = deep(5), normal(2, 3, 12, 12, seed=9)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    change = run(proto, {"x": x})["logits"] - run(proto, {"x": 0 * x[:1]})["logits"]
    for given in ("zero", "input"):
        path = tmp_path / f"{given}.onnx"
        onnxlrp.convert(tmp_path / "m.onnx", "epsilon", reference=given).save(path)
        explainer = onnxlrp.Explainer(path)
        options = {"reference": 0 * x[:1]} if given == "input" else {}
        explanation = explainer(x, [3, 1], **options)
        assert np.allclose(explanation.score, change[[0, 1], [3, 1]], atol=1e-4)
        assert np.isclose(explanation.account().share, 1, atol=1e-3)
        assert "above the reference's" in explanation.account().in_words()
        assert explanation.outputs.keys() == {"logits"}
        audit = check(tmp_path / "m.onnx", path, {"x": x}, target=1)
        assert audit.passed
        assert not any(o.skipped for layer in audit.layers for o in layer.operations)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((3, 5, 5)), "does not fit a sample of 'x'"),
        ({"y": "zero"}, "a reference is needed for each of x"),
    ],
)
def test_what_is_no_reference(given, message):
    with pytest.raises(onnxlrp.InputError, match=message):
        onnxlrp.convert(deep(1), "epsilon", reference=given)


def test_a_reference_at_run_time_is_checked(tmp_path):
    onnxlrp.convert(deep(1), "epsilon", reference="input").save(tmp_path / "e.onnx")
    explainer, x = onnxlrp.Explainer(tmp_path / "e.onnx"), normal(2, 3, 12, 12)
    for given, message in [
        (None, "a reference is needed for"),
        (np.zeros((3, 3, 12, 12)), "takes float32"),
        (np.full((1, 3, 12, 12), np.nan), "NaN or infinity"),
    ]:
        with pytest.raises(onnxlrp.InputError, match=message):
            explainer(x, reference=given)


def test_a_batch_that_moves_to_other_axes():
    """Windows of an image become a batch of their own: the reference is run for every sample."""
    body = [
        node("Reshape", ["x", "windows"], "w"),
        node("MatMul", ["w", "m"], "h"),
        node("Relu", ["h"], "r"),
        node("Reshape", ["r", "back"], "f"),
        node("Gemm", ["f", "v", "d"], "logits"),
    ]
    weights = {
        "windows": np.array([-1, 2, 4]),
        "back": np.array([-1, 12]),
        "m": normal(4, 3, seed=1),
        "v": normal(12, 3, seed=2),
        "d": normal(3, seed=3, scale=5),
    }
    proto = model(body, {"x": ["N", 4, 4]}, ["logits"], weights)
    x, root = normal(3, 4, 4, seed=4), normal(4, 4, seed=5)
    explained = explain(
        proto, lines("MatMul: epsilon", "Gemm: epsilon"), {"x": x}, target=1, reference=root
    )
    change = run(proto, {"x": x})["logits"] - run(proto, {"x": root[None]})["logits"]
    assert np.allclose(explained.values["relevance"].sum(axis=(1, 2)), change[:, 1], rtol=1e-4)


def test_a_reference_of_an_input_of_any_size_beside_one_of_a_known_size():
    body = [
        node("GlobalAveragePool", ["x"], "p"),
        node("Flatten", ["p"], "f"),
        node("Concat", ["f", "u"], "c", axis=1),
        node("Gemm", ["c", "w"], "logits"),
    ]
    shapes = {"x": ["N", 2, "height", "width"], "u": ["N", 3]}
    proto = model(body, shapes, ["logits"], {"w": normal(5, 3)})
    feeds = {"x": normal(3, 2, 4, 4, seed=1), "u": normal(3, 3, seed=2)}
    nothing = {"x": "zero", "u": "zero"}
    options = {"inputs": ["x", "u"], "reference": nothing}
    found = explain(proto, onnxlrp.Composite.load("epsilon"), feeds, 1, **options).values
    total = found["relevance_x"].sum(axis=(1, 2, 3)) + found["relevance_u"].sum(axis=1)
    assert total == pytest.approx(found["logits"][:, 1], rel=1e-4)


def test_a_value_of_samples_and_one_reference_is_not_taken_for_as_large_as_the_reference():
    """Under its name onnxruntime would give the product the memory of a single sample."""
    assert broadcast(("references", 4), ("N", 1)) == ("N", 4)
    assert broadcast(("references", 4), (None, 4)) == (None, 4)


@pytest.mark.parametrize("last", [False, True], ids=["NCHW", "NHWC"])
def test_a_blurred_picture_is_made_of_the_picture(last):
    """A Gaussian whose deviation is an eighth of the shorter side, edges repeated."""
    body = [
        node("Conv", ["turned" if last else "x", "w"], "c"),
        node("Relu", ["c"], "r"),
        node("GlobalAveragePool", ["r"], "p"),
        node("Flatten", ["p"], "f"),
        node("Gemm", ["f", "v"], "logits"),
    ]
    turn = [node("Transpose", ["x"], "turned", perm=[0, 3, 1, 2])] if last else []
    shape = [9, 16, 3] if last else [3, 9, 16]
    weights = {"w": normal(4, 3, 3, 3, seed=1), "v": normal(4, 5, seed=2)}
    proto = model([*turn, *body], {"x": ["N", *shape]}, ["logits"], weights)
    x = normal(2, *shape, seed=3)
    deviation = [0, 9 / 8, 9 / 8, 0] if last else [0, 0, 9 / 8, 9 / 8]
    blurred = gaussian_filter(x.astype(float), deviation, mode="nearest", radius=4)
    conversion = onnxlrp.convert(proto, "epsilon", reference="blur")
    explainer = onnxlrp.Explainer(conversion.to_proto().SerializeToString())
    given = onnxlrp.Explainer(
        onnxlrp.convert(proto, "epsilon", reference="input").to_proto().SerializeToString()
    )
    close(explainer(x, 1).relevance, given(x, 1, reference=blurred).relevance)
    assert check(proto, conversion.to_proto(), {"x": x}).passed


def test_a_constant_of_more_places_than_the_value_it_is_added_to():
    """The change of the sum is that of the value, at every place of the constant."""
    body = [
        node("ReduceMax", ["x"], "m", axes=[2]),
        node("Add", ["m", "places"], "a"),
        node("Flatten", ["a"], "f"),
        node("Gemm", ["f", "v"], "logits"),
    ]
    weights = {"places": normal(3, 4, seed=1), "v": normal(12, 5, seed=2)}
    proto = model(body, {"x": ["N", 3, 4]}, ["logits"], weights, opset=17)
    x, root = normal(2, 3, 4, seed=3), normal(3, 4, seed=4)
    composite = lines("ReduceMax: winner-takes-all", "*: epsilon")
    explained = explain(proto, composite, {"x": x}, target=1, reference=root)
    found = explained.values
    change = found["logits"] - run(proto, {"x": root[None]})["logits"]
    sums = found["relevance"].sum(axis=(1, 2))
    np.testing.assert_allclose(sums, change[:, 1], rtol=1e-4)
    assert check(proto, explained.proto, {"x": x}).passed


def test_of_inputs_without_sides_none_is_blurred():
    proto = model(
        [node("Gemm", ["x", "v"], "logits")], {"x": ["N", 4]}, ["logits"], {"v": normal(4, 3)}
    )
    with pytest.raises(onnxlrp.InputError, match="'x' has no sides of known size"):
        onnxlrp.convert(proto, "epsilon", reference="blur")


def test_explanations_against_several_references_are_averaged():
    explainer = onnxlrp.Explainer(
        onnxlrp.convert(deep(3), "deepshap").to_proto().SerializeToString()
    )
    x, roots = normal(2, 3, 12, 12, seed=9), [normal(1, 3, 12, 12, seed=s) for s in (4, 5, 6)]
    apart = [explainer(x, [1, 2], reference=root) for root in roots]
    found = explainer(x, [1, 2], reference=roots)
    np.testing.assert_allclose(
        found.relevance, np.mean([one.relevance for one in apart], axis=0), rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(found.score, np.mean([one.score for one in apart], axis=0), 1e-5)
    assert found.account().share == pytest.approx(1, abs=1e-3)
    with pytest.raises(onnxlrp.InputError, match="the list of references is empty"):
        explainer(x, reference=[])
    explainer.against([root[0] for root in roots])
    np.testing.assert_array_equal(explainer(x, [1, 2]).relevance, found.relevance)
    with pytest.raises(onnxlrp.InputError, match="and the reference is float64"):
        explainer.against([np.zeros((3, 5, 5))])


def test_deeplift_is_against_zero_unless_it_is_told_otherwise():
    proto, x, root = deep(3), normal(2, 3, 12, 12, seed=9), normal(3, 12, 12, seed=8)
    for given, base in ((None, np.zeros_like(root)), (root, root)):
        conversion = onnxlrp.convert(proto, "deeplift", reference=given)
        found = onnxlrp.Explainer(conversion.to_proto().SerializeToString())(x, [1, 2])
        change = run(proto, {"x": x})["logits"] - run(proto, {"x": base[None]})["logits"]
        sums = found.relevance.sum(axis=(1, 2, 3))
        np.testing.assert_allclose(sums, change[[0, 1], [1, 2]], rtol=1e-4)


@pytest.mark.parametrize("given", ["input", "zero"])
def test_a_fixed_batch_may_be_written_into_shapes(given):
    body = [
        node("Transpose", ["x"], "t", perm=[0, 2, 1]),
        node("Shape", ["x"], "shape"),
        node("Reshape", ["t", "shape"], "r"),
        node("Add", ["x", "r"], "s"),
        node("Flatten", ["s"], "f"),
        node("Gemm", ["f", "w"], "logits"),
    ]
    proto = model(body, {"x": [3, 2, 4]}, ["logits"], {"w": normal(8, 2, seed=1)})
    x, root = normal(3, 2, 4, seed=2), normal(1, 2, 4, seed=3) * (given == "input")
    conversion = onnxlrp.convert(proto, "epsilon", reference=given)
    explainer = onnxlrp.Explainer(conversion.to_proto().SerializeToString())
    found = explainer(x, 1, **({"reference": root} if given == "input" else {}))
    change = run(proto, {"x": x})["logits"] - run(proto, {"x": np.repeat(root, 3, 0)})["logits"]
    np.testing.assert_allclose(found.relevance.sum(axis=(1, 2)), change[:, 1], rtol=1e-4)
