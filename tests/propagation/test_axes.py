"""Resize in every mode, Pad that repeats, running sums: each against its matrix written out."""

import numpy as np
import pytest
from reference_cases import LINEAR_RULES
from support import close, crosses_as_defined, explain, lines, model, node, normal, operators, run

import onnxlrp
from onnxlrp import reference

COORDINATES = (
    *("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"),
    "tf_crop_and_resize",
)
SIZES = np.array([2, 3, 7, 9])


def resized(given, **attributes):
    """Resize by sizes, or by scales; what is cropped is the middle."""
    weights = {"region": np.array([0, 0, 0.1, 0.1, 1, 1, 0.8, 0.9], np.float32)}
    if attributes.get("coordinate_transformation_mode") != "tf_crop_and_resize":
        weights = {}
    weights["given"] = given
    names = ["x", "region" if "region" in weights else "", "given"]
    return node(
        "Resize", names if given.dtype == np.float32 else [*names[:2], "", "given"], **attributes
    ), weights


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("scales", [(2, 1.5), (0.6, 0.75)], ids=["up", "down"])
def test_every_mode(mode, coordinates, scales):
    given = np.array([1, 1, *scales], np.float32)
    tested, weights = resized(given, mode=mode, coordinate_transformation_mode=coordinates)
    crosses_as_defined(tested, normal(2, 3, 5, 8, seed=1), "norm", weights)


@pytest.mark.parametrize(
    "attributes",
    [
        *({"mode": "nearest", "nearest_mode": m} for m in ("floor", "ceil", "round_prefer_ceil")),
        *({"mode": mode, "antialias": 1} for mode in ("linear", "cubic")),
        {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1},
    ],
    ids=str,
)
def test_every_attribute(attributes):
    tested, weights = resized(np.array([1, 1, 0.5, 2], np.float32), **attributes)
    crosses_as_defined(tested, normal(2, 3, 6, 5, seed=1), "epsilon", weights)


@pytest.mark.parametrize(("rule", "parameters"), LINEAR_RULES, ids=str)
@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_every_rule_on_an_interpolation(mode, rule, parameters):
    tested, weights = resized(SIZES, mode=mode)
    crosses_as_defined(tested, normal(2, 3, 5, 6, seed=1), rule, weights, **parameters)


@pytest.mark.parametrize("symbolic", [(0, 2, 3), (0, 1, 2, 3)], ids=str)
@pytest.mark.parametrize("mode", ["nearest", "cubic"])
def test_scales_of_sizes_that_are_symbols(mode, symbolic):
    tested, weights = resized(np.array([1, 1, 2, 1.5], np.float32), mode=mode)
    x = normal(2, 3, 5, 6, seed=1)
    crosses_as_defined(tested, x, "z-plus", weights, symbolic=symbolic)


@pytest.mark.parametrize(
    ("shape", "scales"), [((2, 3, 6), [1, 1, 2]), ((1, 2, 3, 4, 3), [1, 1, 2, 1, 2])]
)
def test_signals_and_volumes(shape, scales):
    tested, weights = resized(np.array(scales, np.float32), mode="linear")
    crosses_as_defined(tested, normal(*shape, seed=1), "norm", weights)


def test_some_axes_only():
    tested, weights = resized(np.array([12, 3]), mode="linear", axes=[3, 2])
    crosses_as_defined(tested, normal(2, 3, 5, 6, seed=1), "norm", weights)


def test_empty_lists_beside_the_sizes():
    """As exporters to opset 11 write them, where all inputs had to be there."""
    tested, weights = resized(SIZES, mode="linear")
    tested.input[1:3] = ["none", "none"]
    weights["none"] = np.zeros(0, np.float32)
    crosses_as_defined(tested, normal(2, 3, 5, 6, seed=1), "epsilon", weights)


def test_sizes_that_are_computed():
    """A decoder resizes what it has to the size of what it is joined with."""
    weights = {
        "w": normal(3, 3, 2, 2, seed=1),
        "front": np.array([0, 1]),
        "back": np.array([2, 3]),
        "r": normal(3, 3, seed=2),
    }
    body = [
        node("Conv", ["x", "w"], "low", strides=[2, 2]),
        node("Shape", ["x"], "shape"),
        node("Shape", ["low"], "small"),
        node("Gather", ["small", "front"], "n"),
        node("Gather", ["shape", "back"], "m"),
        node("Concat", ["n", "m"], "sizes", axis=0),
        node("Resize", ["low", "", "", "sizes"], mode="linear"),
        node("Relu", ["y"], "a"),
        node("GlobalAveragePool", ["a"], "p"),
        node("Flatten", ["p"], "f"),
        node("Gemm", ["f", "r"], "logits"),
    ]
    proto = model(body, {"x": ["N", 3, "height", "width"]}, ["logits"], weights)
    x = normal(2, 3, 6, 8, seed=3)
    explained = explain(proto, lines("Conv: z-plus", "*: epsilon"), {"x": x}, target=1)
    rules = {e.name: (e.rule, dict(e.parameters)) for e in explained.conversion.nodes}
    expected = reference.explain(proto, {"x": x}, lambda n: rules[n.name], ["x"], "logits", 1)
    close(explained.values["relevance"], expected["x"])


def test_an_interpolation_of_what_is_never_negative_needs_no_negative_part():
    """One product each way and axis; the denominator is the model's own value."""
    tested, weights = resized(SIZES, mode="linear")
    explained = crosses_as_defined(tested, np.abs(normal(2, 3, 5, 6)), "norm", weights)
    assert operators(explained.proto, "node_y").count("MatMul") == 2


@pytest.mark.parametrize(
    ("attributes", "scales", "reason"),
    [
        ({}, [2, 1, 2, 2], "it resizes the batch"),
        (
            {"extrapolation_value": 1.0, "coordinate_transformation_mode": "tf_crop_and_resize"},
            [1, 1, 2, 2],
            "other than 0",
        ),
    ],
)
def test_what_is_refused(attributes, scales, reason):
    tested, weights = resized(np.array(scales, np.float32), mode="linear", **attributes)
    body = [tested, node("GlobalAveragePool", ["y"], "p"), node("Flatten", ["p"], "logits")]
    proto = model(body, {"x": [2, 3, 4, 4]}, ["logits"], weights)
    with pytest.raises(onnxlrp.UnsupportedError, match=f"node_y .*{reason}"):
        onnxlrp.convert(proto, lines("*: epsilon"))


PADS = {
    "spatial": (np.array([0, 0, 2, 1, 0, 0, 1, 3]), None),
    "one axis": (np.array([2, 1]), np.array([-1])),
    "channels": (np.array([0, 1, 0, 0, 0, 1, 0, 2]), None),
}


@pytest.mark.parametrize("symbolic", [(0, 2, 3)], ids=str)
@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
@pytest.mark.parametrize("amounts", PADS)
def test_pads_that_repeat(mode, amounts, symbolic):
    pads, axes = PADS[amounts]
    weights = {"pads": pads} if axes is None else {"pads": pads, "axes": axes}
    names = ["x", "pads"] if axes is None else ["x", "pads", "", "axes"]
    opset = 19 if mode == "wrap" else 18
    tested = node("Pad", names, mode=mode)
    x = normal(2, 3, 4, 5, seed=1)
    crosses_as_defined(tested, x, "pass", weights, spread=True, symbolic=symbolic, opset=opset)


def test_a_convolution_behind_a_reflection():
    weights = {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "w": normal(4, 3, 3, 3, seed=1)}
    weights["r"] = normal(4, 3, seed=2)
    body = [
        node("Pad", ["x", "p"], "q", mode="reflect"),
        node("Conv", ["q", "w"], "c"),
        node("Relu", ["c"], "a"),
        node("GlobalAveragePool", ["a"], "g"),
        node("Flatten", ["g"], "f"),
        node("Gemm", ["f", "r"], "logits"),
    ]
    proto = model(body, {"x": ["N", 3, 6, 6]}, ["logits"], weights)
    x = normal(2, 3, 6, 6, seed=3)
    composite = lines("Conv: z-box low=-4 high=4", "*: epsilon")
    explained = explain(proto, composite, {"x": x}, target=1)
    rules = {e.name: (e.rule, dict(e.parameters)) for e in explained.conversion.nodes}
    expected = reference.explain(proto, {"x": x}, lambda n: rules[n.name], ["x"], "logits", 1)
    close(explained.values["relevance"], expected["x"])


RUNNING = [*((rule, {}) for rule in ("z-plus", "alpha-beta", "flat", "w-square", "gamma"))]
RUNNING += [("norm", a) for a in ({}, {"reverse": 1}, {"exclusive": 1, "reverse": 1})]


@pytest.mark.parametrize(("rule", "attributes"), RUNNING, ids=str)
@pytest.mark.parametrize("axis", [1, -1])
def test_running_sums(axis, rule, attributes):
    tested = node("CumSum", ["x", "axis"], **attributes)
    crosses_as_defined(tested, normal(2, 4, 3, seed=1), rule, {"axis": np.array(axis)})


def test_the_matrices_are_those_that_onnxruntime_interpolates_with():
    """The oracle's own are, too: neither is taken from the other."""
    tested, weights = resized(SIZES, mode="cubic")
    proto = model([tested], {"x": [2, 3, 5, 6]}, ["y"], weights)
    x = normal(2, 3, 5, 6, seed=1)
    close(
        run(proto, {"x": x})["y"],
        reference.forward(tested, [x.astype(float), None, None, SIZES])[0],
    )
