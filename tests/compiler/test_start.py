"""What relevance starts from: differences, weights, contrasts, and places of dense outputs."""

import numpy as np
import pytest
from support import close, explain, lines, model, node, normal, run

import onnxlrp
from onnxlrp import reference
from onnxlrp.errors import InputError, ModelError

W = {"w": normal(6, 5, seed=1), "b": normal(5, seed=2), "v": normal(5, 4, seed=3)}
BODY = [
    node("Gemm", ["x", "w", "b"], "z"),
    node("Relu", ["z"], "a"),
    node("Gemm", ["a", "v"], "logits"),
]
SMALL = model(BODY, {"x": ["N", 6]}, ["logits"], W)
X = normal(4, 6, seed=4)
EPSILON = lines("*: epsilon")
RULE = ("epsilon", {"epsilon": 1e-6, "bias": "absorb", "power": 1})


def of_class(target):
    return explain(SMALL, EPSILON, {"x": X}, target).values["relevance"]


def defined(proto=SMALL, x=X, score="logits", target=-1, **begin):
    return reference.explain(proto, {"x": x}, lambda _: RULE, ["x"], score, target, **begin)["x"]


@pytest.mark.parametrize("pair", [(3, 1), (-1, 1), (0, -1)])
def test_a_difference_is_the_map_of_one_class_minus_that_of_the_other(pair):
    text = "-".join("top" if number == -1 else str(number) for number in pair)
    conversion = onnxlrp.convert(SMALL, EPSILON, target=text)
    assert [name for name, _, _ in conversion.inputs] == ["x"]
    values = run(conversion.to_proto(), {"x": X})
    close(values["relevance"], of_class(pair[0]) - of_class(pair[1]))
    close(values["relevance"], defined(target=pair[0], minus=pair[1]))


@pytest.mark.parametrize("rows", [1, 4])
def test_weights_multiply_the_scores(rows):
    weights = normal(rows, 4, seed=5)
    conversion = onnxlrp.convert(SMALL, EPSILON, target="weights")
    assert conversion.inputs[1:] == [("weights", "float32", ("weights", 4))]
    values = run(conversion.to_proto(), {"x": X, "weights": weights})
    maps = [of_class(number) for number in range(4)]
    close(values["relevance"], sum(weights[:, [n]] * maps[n] for n in range(4)))
    close(values["relevance"], defined(weights=weights))


@pytest.mark.parametrize("target", [0, 2, -1, [0, 1, 2, -1]])
def test_the_contrast_to_the_others_gives_them_what_the_class_has_negated_and_shared(target):
    """Gu et al. 2018: R_j = -f_c / (classes - 1), whatever f_j is, so that all sums to 0."""
    explained = explain(SMALL, EPSILON, {"x": X}, target, ["logits"], contrast="others")
    scores = run(SMALL, {"x": X})["logits"]
    classes = np.broadcast_to(np.asarray(target), 4)
    classes = np.where(classes < 0, scores.argmax(axis=1), classes)
    own = scores[np.arange(4), classes][:, None]
    wanted = np.where(np.arange(4) == classes[:, None], own, -own / 3)
    close(explained.relevance("logits"), wanted)
    close(explained.values["relevance"], defined(target=target, contrast="others"))


COMPOSITES = ["epsilon_plus", "epsilon_alpha2_beta1", "epsilon_gamma_box", "deep_taylor"]


@pytest.mark.parametrize("composite", COMPOSITES)
def test_a_contrast_is_the_map_of_the_class_minus_that_of_the_others(composite):
    """Every rule is linear in relevance, so f_c / (K - 1) f_j are the weights of the others."""
    body = [
        node("Conv", ["x", "k"], "h", pads=[1, 1, 1, 1]),
        node("Relu", ["h"], "a"),
        node("MaxPool", ["a"], "m", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["m"], "flat"),
        node("Gemm", ["flat", "g"], "logits"),
    ]
    weights = {"k": normal(4, 2, 3, 3, seed=7), "g": normal(36, 4, seed=8)}
    proto = model(body, {"x": ["N", 2, 6, 6]}, ["logits"], weights)
    x = normal(1, 2, 6, 6, seed=9)
    chosen = onnxlrp.Composite.load(composite)
    if composite == "epsilon_gamma_box":
        chosen = chosen.with_parameters({"low": -4, "high": 4})
    scores = run(proto, {"x": x})["logits"]
    others = scores[0, 2] / 3 / scores
    others[0, 2] = 0
    weighted = onnxlrp.convert(proto, chosen, target="weights").to_proto()
    dual = run(weighted, {"x": x, "weights": others})["relevance"]
    plain = explain(proto, chosen, {"x": x}, 2).values["relevance"]
    contrasted = explain(proto, chosen, {"x": x}, 2, contrast="others").values["relevance"]
    close(contrasted, plain - dual)


def test_a_batch_that_was_fixed_is_freed_under_weights_too():
    proto = model(BODY, {"x": [1, 6]}, ["logits"], W)
    freed = onnxlrp.convert(proto, EPSILON, target="weights", dynamic_batch=True)
    weights = normal(4, 4, seed=5)
    values = run(freed.to_proto(), {"x": X, "weights": weights})
    close(values["relevance"], defined(weights=weights))


@pytest.mark.parametrize("target", [0, -1, [0, 1, 2, -1]])
def test_the_contrast_by_softmax_starts_from_its_gradient(target):
    """Iwana et al. 2019: by the definition, and by a difference quotient of softmax itself."""
    explained = explain(SMALL, EPSILON, {"x": X}, target, ["logits"], contrast="softmax")
    scores = run(SMALL, {"x": X})["logits"].astype(np.float64)
    classes = np.broadcast_to(np.asarray(target), 4)
    classes = np.where(classes < 0, scores.argmax(axis=1), classes)

    def likely(f):
        return (np.exp(f) / np.exp(f).sum(axis=1, keepdims=True))[np.arange(4), classes]

    step = 1e-5 * np.eye(4)
    slopes = [(likely(scores + row) - likely(scores - row)) / 2e-5 for row in step]
    close(explained.relevance("logits"), np.stack(slopes, axis=1), 1e-4)
    close(explained.values["relevance"], defined(target=target, contrast="softmax"))


def test_a_contrast_of_a_certain_class_keeps_its_digits():
    """1 - y is about 1e-9 there, which float32 cannot tell from 0 by subtraction."""
    sure = model(
        [node("MatMul", ["x", "v"], "logits")],
        {"x": ["N", 2]},
        ["logits"],
        {"v": np.array([[20, 0, 1], [1, 2, 0]], np.float32)},
    )
    x = np.ones((1, 2), np.float32)
    explained = explain(sure, EPSILON, {"x": x}, 0, ["logits"], contrast="softmax")
    wanted = reference.start(run(sure, {"x": x})["logits"], 0, contrast="softmax")
    close(explained.relevance("logits"), wanted, 1e-4)


def test_a_contrast_reaches_classes_whose_score_a_relu_made_0():
    """Relevance that is not 0 where the score is: no activation may stand in for the layer."""
    body = [*BODY[:2], node("Gemm", ["a", "v"], "h"), node("Relu", ["h"], "logits")]
    proto = model(body, {"x": ["N", 6]}, ["logits"], W)
    assert (run(proto, {"x": X})["logits"] == 0).any()
    explained = explain(proto, EPSILON, {"x": X}, 1, contrast="others")
    close(explained.values["relevance"], defined(proto, target=1, contrast="others"), 1e-4)


def test_the_classes_of_one_logit():
    """Of 1 - sigmoid(z) and sigmoid(z) the scores are -z and z: they differ by 2 z."""
    body = [
        *BODY[:2],
        node("Gemm", ["a", "u"], "z1"),
        node("Sigmoid", ["z1"], "p"),
        node("Sub", ["one", "p"], "q"),
        node("Concat", ["q", "p"], "out", axis=1),
    ]
    weights = {**W, "u": normal(5, 1, seed=6), "one": np.ones(1, np.float32)}
    weights.pop("v")
    proto = model(body, {"x": ["N", 6]}, ["out"], weights)
    one = explain(proto, EPSILON, {"x": X}, 1).values["relevance"]
    difference = run(onnxlrp.convert(proto, EPSILON, target="1-0").to_proto(), {"x": X})
    close(difference["relevance"], 2 * one)
    given = {"x": X, "weights": np.array([[0.5, 3]], np.float32)}
    weighted = run(onnxlrp.convert(proto, EPSILON, target="weights").to_proto(), given)
    close(weighted["relevance"], 2.5 * one)
    with pytest.raises(InputError, match="'z1' holds one"):
        onnxlrp.convert(proto, EPSILON, contrast="others")


# A segmenter of 3 classes, its sizes known or not; its softmax is set aside.
KERNELS = {"k": normal(4, 2, 3, 3, seed=7), "c": normal(3, 4, 1, 1, seed=8)}
IMAGE = normal(2, 2, 5, 7, seed=9)


def segmenter(sizes=(5, 7), softmax=True):
    body = [
        node("Conv", ["x", "k"], "h", pads=[1, 1, 1, 1]),
        node("Relu", ["h"], "a"),
        node("Conv", ["a", "c"], "logits"),
    ]
    if softmax:
        body.append(node("Softmax", ["logits"], "out", axis=1))
    return model(body, {"x": ["N", 2, *sizes]}, ["out" if softmax else "logits"], KERNELS)


PLACES = {
    "2,3": (slice(2, 3), slice(3, 4)),
    "-1,0": (slice(4, 5), slice(0, 1)),
    "1:4, :3": (slice(1, 4), slice(0, 3)),
    "-3:-1,2:": (slice(2, 4), slice(2, 7)),
    ":,6": (slice(0, 5), slice(6, 7)),
    "all": (slice(None), slice(None)),
}


@pytest.mark.parametrize("sizes", [(5, 7), ("H", "W")], ids=["known", "symbolic"])
@pytest.mark.parametrize("at", PLACES)
def test_the_score_of_a_dense_output_is_the_sum_over_its_places(at, sizes):
    explained = explain(segmenter(sizes), EPSILON, {"x": IMAGE}, [1, -1], ["logits"], at=at)
    logits = run(segmenter(sizes, softmax=False), {"x": IMAGE})["logits"]
    every = (slice(None), slice(None), *PLACES[at])
    scores = logits[every].sum(axis=(2, 3))
    close(explained.values["scores"], scores)
    wanted = np.zeros_like(logits)
    for n, c in enumerate((1, scores[1].argmax())):
        wanted[n, c][PLACES[at]] = logits[n, c][PLACES[at]]
    close(explained.relevance("logits"), wanted)
    proto = segmenter(softmax=False)
    begin = {"target": [1, -1], "places": every}
    close(explained.values["relevance"], defined(proto, IMAGE, **begin))
    assert explained.conversion.score == "logits"


KINDS = [{"target": "0-2"}, {"contrast": "others"}, {"contrast": "softmax"}, {"target": "weights"}]


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_a_dense_output_knows_them_all(options):
    conversion = onnxlrp.convert(segmenter(), EPSILON, at="1:4,3", **options)
    feeds = {"x": IMAGE}
    begin = {"places": (slice(None), slice(None), slice(1, 4), slice(3, 4))}
    names = [name for name, _, _ in conversion.inputs]
    if "target" in names:
        feeds["target"] = np.array([2], np.int64)
        begin |= {"target": 2, **options}
    elif "weights" in names:
        begin["weights"] = feeds["weights"] = normal(2, 3, seed=1)
    else:
        begin |= {"target": 0, "minus": 2}
    values = run(conversion.to_proto(), feeds)
    close(values["relevance"], defined(segmenter(softmax=False), IMAGE, **begin))


@pytest.mark.parametrize("at", ["5,0", "0,7:9", "-6,0", "4:6,0"])
def test_a_place_that_lies_outside_at_run_time_is_an_error_and_not_an_empty_map(at):
    with pytest.raises(Exception, match=r"Reshape|Pad|Slice|GatherElements"):
        explain(segmenter(("H", "W")), EPSILON, {"x": IMAGE}, 0, at=at)


def tagger(length="T"):
    """Score 3 tags for each of T tokens, of which each knows its neighbours' sum."""
    body = [
        node("MatMul", ["x", "w"], "h"),
        node("ReduceSum", ["h", "axis"], "s"),
        node("Add", ["h", "s"], "m"),
        node("Relu", ["m"], "a"),
        node("MatMul", ["a", "v"], "logits"),
    ]
    weights = {"w": normal(4, 5, seed=2), "v": normal(5, 3, seed=3), "axis": np.array([1])}
    return model(body, {"x": ["N", length, 4]}, ["logits"], weights)


TOKENS = normal(2, 6, 4, seed=5)


@pytest.mark.parametrize(
    ("at", "axis", "class_axis", "places"),
    [
        ("3", None, 2, (slice(3, 4), slice(None))),
        ("-1", None, 2, (slice(5, 6), slice(None))),
        ("2", 1, 1, (slice(None), slice(2, 3))),
        ("3,1", None, None, (slice(3, 4), slice(1, 2))),
    ],
)
def test_classes_lie_last_of_three_axes_or_where_they_are_said_to(at, axis, class_axis, places):
    """An index for every axis leaves no classes: that one number is the score."""
    length = 6 if axis == 1 else "T"
    explained = explain(tagger(length), EPSILON, {"x": TOKENS}, 0, at=at, class_axis=axis)
    begin = {"target": 0, "class_axis": class_axis, "places": (slice(None), *places)}
    wanted = defined(tagger(length), TOKENS, **begin)
    close(explained.values["relevance"], wanted)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"target": "3-99"}, "target 99 is not a class; 'logits' has classes 0 to 3"),
        ({"target": "2-2"}, "does not differ from itself"),
        ({"target": "cat"}, "neither the number of a class nor 'top'"),
        ({"target": "1-0", "contrast": "others"}, "a contrast is of one class"),
        ({"target": "weights", "contrast": "softmax"}, "a contrast is of one class"),
        ({"contrast": "all"}, "neither 'others' nor 'softmax'"),
        ({"at": "0"}, r"--at 0: a classifier has no places, leave it out; outputs: logits"),
        ({"class_axis": 1}, "add --at"),
    ],
)
def test_what_a_classifier_cannot_start_from(options, text):
    with pytest.raises(InputError, match=text):
        onnxlrp.convert(SMALL, EPSILON, **options)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"at": "5,0"}, r"'5' is no index and no range FIRST:END within axis 2 of \[N, 3, 5, 7\]"),
        ({"at": "3:3,0"}, "'3:3' is no index and no range"),
        ({"at": "0,-8"}, "'-8' is no index"),
        ({"at": "here"}, r"classes on axis 1, so write an index or a range for each of 2 axes"),
        ({"at": "0"}, "as in --at 0,0, or all"),
        ({"at": "0,0", "class_axis": 4}, "1 to 3, or counted from the end"),
        ({"at": "0,0", "class_axis": 0}, "--class-axis 0 is no axis"),
        ({}, "--at 0,0 is one place, --at all the sum over them"),
    ],
)
def test_where_no_score_is(options, text):
    with pytest.raises((InputError, ModelError), match=text):
        onnxlrp.convert(segmenter(), EPSILON, **options)
