"""Where others compute something else under the same name, on networks of a few neurons.

What they compute is written down beside our own numbers, from their formulas.
"""

import numpy as np
import pytest
from hand_sized import check, check_neuron, differs, row
from support import explain, lines, model, node

import onnxlrp

# --- the bias ----------------------------------------------------------------


def test_bias_in_the_positive_part():
    """Captum's z-plus leaves the input signed and the bias unclipped: (3.33, 0)."""
    ours, captum = (5 / 2 * 2 / 3, 5 / 2 * 1 / 3), (5 / 2 * 2 / (2 - 1 / 2), 0)
    np.testing.assert_allclose((*ours, *captum), (1.67, 0.83, 3.33, 0), atol=0.005)
    check_neuron((1, -1), -1 / 2, (2, -1), "z-plus", ours)
    check_neuron((1, -1), -1 / 2, (2, -1), "alpha-beta alpha=1 beta=0", ours)
    differs(ours, captum)


def test_z_plus_has_the_biass_positive_part():
    """iNNvestigate's has no bias: (8/3, 4/3), ours with bias=exclude."""
    ours, innvestigate = (4 * 2 / 4, 4 * 1 / 4), (4 * 2 / 3, 4 * 1 / 3)
    check_neuron((1, -1), 1, (2, -1), "z-plus", ours)
    check_neuron((1, -1), 1, (2, -1), "z-plus bias=exclude", innvestigate)
    differs(ours, innvestigate)


def test_alpha_beta_has_half_the_bias_in_each_part():
    """iNNvestigate has all of it in both: (4, 2)."""
    ours, innvestigate = (5 * 2 / 3, 5 * 1 / 3), (5 * 2 / (3 - 1 / 2), 5 * 1 / (3 - 1 / 2))
    check_neuron((1, -1), -1 / 2, (2, -1), "alpha-beta alpha=2 beta=1", ours)
    differs(ours, innvestigate)


def test_alpha_beta_does_not_explode_where_bias_and_inputs_cancel():
    """iNNvestigate, whose 1 - 1 = 0 becomes 1e-7, gives -1e7."""
    innvestigate = 1 * -1 / 1e-7
    assert innvestigate == pytest.approx(-1e7)
    check_neuron((1, -1), -1, (1, 1), "alpha-beta alpha=1 beta=0", (-1, 0))


def test_an_empty_part_is_not_made_up_for():
    """As in zennit: nothing inhibits, so the heatmap and the bias hold 2 f together."""
    check_neuron((1, -1), 1, (2, -1), "alpha-beta alpha=2 beta=1", (2 * 4 * 2 / 4, 2 * 4 * 1 / 4))


def test_beta_is_the_toolboxs_other_spelling():
    """The LRP Toolbox adds its beta = 1 - alpha where the papers subtract beta = alpha - 1."""
    alpha = 1 + 1 / 2
    toolbox = 2 * (alpha * 3 / 3), 2 * ((1 - alpha) * -1 / -1)
    assert toolbox == (3, -1)
    check_neuron((1, -1), 0, (3, 1), "beta beta=0.5", toolbox)
    check_neuron((1, -1), 0, (3, 1), "alpha-beta alpha=1.5 beta=0.5", toolbox)


def test_squared_weights_have_a_squared_bias():
    """As in zennit; iNNvestigate, the Toolbox and Julia leave it out: (6/5, 24/5)."""
    ours, others = (6 * 1 / 6, 6 * 4 / 6), (6 * 1 / 5, 6 * 4 / 5)
    check_neuron((1, 2), 1, (3, 1), "w-square", ours)
    check_neuron((1, 2), 1, (3, 1), "w-square bias=exclude", others)
    differs(ours, others)


def test_a_boxs_bias_cancels():
    """b - max(b, 0) - min(b, 0) = 0, so iNNvestigate, without bias, and zennit agree."""
    zennit = [(1 / 2 + b - max(b, 0) - min(b, 0)) for b in (5, -5)]
    assert zennit == [1 / 2, 1 / 2]
    for b in (5, -5):
        f = 1 / 2 - 1 / 2 + b
        check_neuron((1, -2), b, (1 / 2, 1 / 4), "z-box low=0 high=1", (f * 1 / 4, f * 3 / 4))


def test_a_bias_takes_its_share_of_the_contributions():
    """autoLRP parts R between |z| and |b| first: (10/7, 5/7)."""
    ours, others = (2, 1), [5 / 2 * 3 / (3 + 1 / 2) * share for share in (2 / 3, 1 / 3)]
    check_neuron((1, -1), -1 / 2, (2, -1), "epsilon", ours)
    differs(ours, others)


# --- gamma -------------------------------------------------------------------


def test_gammas_bias_is_scaled():
    """Captum leaves the bias as it is: (2, -2/3)."""
    ours, captum = (2 * 3 / 3.5, 2 * -1 / 3.5), (2 * 3 / 3, 2 * -1 / 3)
    check_neuron((1, -1), 1, (2, 1), "gamma gamma=0.5", ours)
    check_neuron((1, -1), 1, (2, 1), "gamma-original gamma=0.5", ours)
    differs(ours, captum)


def test_gamma_of_a_negative_output_favours_what_is_negative():
    """Captum's and Julia's, the original, favours what is positive: (3, -4)."""
    ours, original = (-1 * 1 / -2, -1 * -3 / -2), (-1 * 1.5 / -0.5, -1 * -2 / -0.5)
    check_neuron((1, -1), 0, (1, 2), "gamma gamma=0.5", ours)
    check_neuron((1, -1), 0, (1, 2), "gamma-original gamma=0.5", original)
    differs(ours, original)


def test_the_original_gamma_adds_the_weights_positive_part():
    """TorchLRP adds the weight's square: w + gamma w² is (3/2, -1/2)."""
    ours, torchlrp = (3 * 3 / 4, 3 * 1 / 4), (3 * 3 / 3.5, 3 * 0.5 / 3.5)
    check_neuron((1, -1), 0, (2, -1), "gamma-original gamma=0.5", ours)
    differs(ours, torchlrp)


def test_gammas_gate_keeps_a_bias_that_is_excluded():
    """As in zennit: z = (1, -2) and b = 3 count as positive; without the bias: (-1, 3)."""
    ours, gated_without = (2 * 1.5 / -0.5, 2 * -2 / -0.5), (2 * 1 / -2, 2 * -3 / -2)
    check_neuron((1, -1), 3, (1, 2), "gamma gamma=0.5 bias=exclude", ours)
    differs(ours, gated_without)


SILENT = [node("Gemm", ["x", "w"], "h"), node("Gemm", ["h", "v"])]
SILENT_WEIGHTS = {"w": np.array([[1, 1], [-1, 0]], np.float32), "v": row(1, 2).T}


def test_gamma_keeps_the_relevance_of_a_silent_output():
    """h = (1 - 1, 1) gets (1, 1) by flat; zennit drops the first: (1, 0)."""
    ours, zennit = (1.5 / 0.5 + 1, -1 / 0.5), (1, 0)
    composite = lines("name=node_h: gamma gamma=0.5", "Gemm: flat")
    check(SILENT, row(1, 1), SILENT_WEIGHTS, composite, ours)
    differs(ours, zennit)


# --- the stabiliser ----------------------------------------------------------


def test_the_stabiliser_has_the_sign_of_the_output():
    """LXT and lrp-pf-auc add it to negative outputs as well: (4/3, -8/3)."""
    ours, unsigned = (-1 / (-1 - 1 / 4), 2 / (-1 - 1 / 4)), (-1 / (-1 + 1 / 4), 2 / (-1 + 1 / 4))
    check_neuron((1, -1), 0, (1, 2), "epsilon epsilon=0.25", ours)
    differs(ours, unsigned)


def test_the_stabiliser_of_zero_is_positive():
    """h = (1 - 1, 1) gets (1, 1) by flat; the Toolbox's Caffe does not divide: (5/3, -1)."""
    ours, caffe = (1 / 0.5 + 1 / 1.5, -1 / 0.5), (1 + 1 / 1.5, -1)
    composite = lines("name=node_h: epsilon epsilon=0.5", "Gemm: flat")
    check(SILENT, row(1, 1), SILENT_WEIGHTS, composite, ours)
    differs(ours, caffe)


POOLED = [
    node("AveragePool", ["x"], "p", kernel_shape=[2]),
    node("Flatten", ["p"], "f"),
    node("Gemm", ["f", "w"]),
]


def test_a_mean_is_stabilised_as_a_mean():
    """As in zennit and Captum; iNNvestigate adds nothing, autoLRP gives each the same: (1, 1)."""
    ours, on_sum = (2 * 0.5 / 2.5, 2 * 1.5 / 2.5), (2 * 1 / 4.5, 2 * 3 / 4.5)
    innvestigate, others = (2 * 1 / 4, 2 * 3 / 4), (2 / 2, 2 / 2)
    composite = lines("AveragePool: norm stabiliser=0.5", "Gemm: epsilon")
    check(POOLED, row([1, 3]), {"w": row(1)}, composite, ours)
    differs(ours, on_sum, innvestigate, others)


def test_a_mean_of_one_is_not_the_identity():
    """As zennit's Norm on adaptive pooling from 7x7 to 7x7: x / (x + eps) R."""
    body = [node("AveragePool", ["x"], "p", kernel_shape=[1]), *POOLED[1:]]
    composite = lines("AveragePool: norm stabiliser=0.5", "Gemm: epsilon")
    check(body, row([1, 3]), {"w": row(1, 1).T}, composite, (1 / 1.5, 3 * 3 / 3.5))


# --- convolutions and their padding ------------------------------------------


def test_flat_divides_by_fewer_at_the_border():
    """As zennit, padding inside the layer: a corner's window has 4 inputs, an edge's 6."""
    body = [
        node("Conv", ["x", "w"], "z", pads=[1, 1, 1, 1]),
        node("ReduceSum", ["z", "axes"], "y", keepdims=0),
    ]
    w = np.zeros((1, 1, 3, 3), np.float32)
    w[0, 0, 1, 1] = 1
    corner = 1 / 4 + 2 / 6 + 1 / 9
    edge = 1 / 4 + 3 / 6 + 2 / 9
    centre = 1 / 4 + 4 / 6 + 4 / 9
    np.testing.assert_allclose((corner, centre), (0.694, 1.361), atol=0.0005)
    assert 4 * corner + 8 * edge + 4 * centre == pytest.approx(16)
    outer, inner = [corner, edge, edge, corner], [edge, centre, centre, edge]
    x = np.ones((1, 1, 4, 4), np.float32)
    weights = {"w": w, "axes": np.array([2, 3])}
    check(body, x, weights, lines("Conv: flat", "ReduceSum: norm"), [outer, inner, inner, outer])


def test_padding_written_as_a_node_belongs_to_its_layer():
    """In zennit a separate ZeroPad is an input like any other: (1, 1/2)."""
    ours, zennit = (1 + 1 / 2, 1 / 2), (1 / 2 + 1 / 2, 1 / 2)
    readout = node("ReduceSum", ["z", "axes"], "y", keepdims=0)
    body = [node("Pad", ["x", "pads"], "p"), node("Conv", ["p", "w"], "z"), readout]
    weights = {
        "pads": np.array([0, 0, 1, 0, 0, 0]),
        "w": np.array([[[0, 1]]], np.float32),
        "axes": np.array([2]),
    }
    merged = [node("Conv", ["x", "w"], "z", pads=[1, 0]), readout]
    composite = lines("Conv: flat", "ReduceSum: norm")
    check(body, row([1, 1]), weights, composite, ours, (merged, weights))
    differs(ours, zennit)


# --- sums --------------------------------------------------------------------

RESIDUAL = [node("Gemm", ["x", "w"], "p"), node("Add", ["p", "x"])]


def test_a_residual_sum_shares_in_proportion():
    """As zennit with its Sum module; a plain + gives both branches all, together 8."""
    proto = model(RESIDUAL, {"x": ["N", 1]}, ["y"], {"w": row(1 / 3)})
    composite = lines("Add: norm", "Gemm: epsilon")
    explained = explain(proto, composite, {"x": row(3)}, inside=["p"])
    np.testing.assert_allclose(explained.relevance("p"), [[4 * 1 / 4]], rtol=1e-5)
    check(RESIDUAL, row(3), {"w": row(1 / 3)}, composite, 4 * 1 / 4 + 4 * 3 / 4)
    zennit = 4 + 4
    differs(4, zennit)


def test_an_inhibiting_branch_gets_negative_relevance():
    """autoLRP shares by |a| / (|a| + |b|), which is never negative: (3/2, 1/2)."""
    ours, others = (2 * 3 / 2, 2 * -1 / 2), (2 * 3 / 4, 2 * 1 / 4)
    proto = model(RESIDUAL, {"x": ["N", 1]}, ["y"], {"w": row(-1 / 3)})
    composite = lines("Add: norm", "Gemm: epsilon")
    explained = explain(proto, composite, {"x": row(3)}, inside=["p"])
    np.testing.assert_allclose(explained.relevance("p"), [[ours[1]]], rtol=1e-5)
    check(RESIDUAL, row(3), {"w": row(-1 / 3)}, composite, sum(ours))
    differs(ours, others)


# --- BatchNormalization ------------------------------------------------------


def test_batch_normalization_is_merged_into_its_layer():
    """y = 4 (z - 1) + 1, z = (2, 1): as zennit's canonizer.

    zennit without it hands relevance on: (6, 3). iNNvestigate squares the variance once more and
    forgets the scale in the bias: (48/7, 24/7).
    """
    body = [
        node("Gemm", ["x", "w"], "z"),
        node("BatchNormalization", ["z", "scale", "shift", "mean", "variance"], epsilon=0.0),
    ]
    statistics = {"scale": 2, "shift": 1, "mean": 1, "variance": 1 / 4}
    weights = {"w": row(1, -1).T} | {k: np.array([v], np.float32) for k, v in statistics.items()}
    merged = [node("Gemm", ["x", "w", "b"], "y")]
    merged[0].name = "node_z"
    ours = 4 * 2, 4 * 1
    scale, bias = 2 / np.sqrt((1 / 4) ** 2), -1 / np.sqrt((1 / 4) ** 2) + 1
    innvestigate = [9 * scale * z / (scale * 3 + bias) for z in (2, 1)]
    np.testing.assert_allclose(innvestigate, (48 / 7, 24 / 7))
    handed_on = 9 * 2 / 3, 9 * 1 / 3
    merged_weights = {"w": row(4, -4).T, "b": np.array([1 - 4], np.float32)}
    check(body, row(2, -1), weights, lines("*: epsilon"), ours, (merged, merged_weights))
    differs(ours, handed_on, innvestigate)


# --- the first layer, and where relevance starts -----------------------------


def test_flat_on_a_first_dense_layer_is_constant():
    """As zennit and iNNvestigate; Julia puts flat on convolutions only: (1, 2)."""
    ours, julia = (3 / 2, 3 / 2), (1, 2)
    body = [node("Gemm", ["x", "w"], "h"), node("Relu", ["h"], "a"), node("Gemm", ["a", "v"])]
    weights = {"w": row(1, 1).T, "v": row(1)}
    check(body, row(1, 2), weights, onnxlrp.Composite.load("epsilon_plus_flat"), ours)
    check(body, row(1, 2), weights, onnxlrp.Composite.load("epsilon_plus"), julia)
    differs(ours, julia)


def test_every_layer_that_reads_the_input_is_a_first_layer():
    """zennit takes the first in definition order alone: (3.5, 1.5)."""
    ours, zennit = (3 / 2 + 2 / 2, 3 / 2 + 2 / 2), (3 / 2 + 2, 3 / 2)
    body = [
        node("Gemm", ["x", "u"], "p"),
        node("Gemm", ["x", "v"], "q"),
        node("Add", ["p", "q"]),
    ]
    weights = {"u": row(1, 1).T, "v": row(2, 0).T}
    check(body, row(1, 2), weights, onnxlrp.Composite.load("epsilon_plus_flat"), ours)
    differs(ours, zennit)


def test_relevance_starts_from_the_score_of_one_class():
    """f = (2, 3). zennit starts from all scores unless told: (3, 2); from 1 in its examples."""
    w = np.array([[2, 1], [0, 2]], np.float32)
    zennit, one = (2 * 2 / 2 + 1, 0 + 2), (2 / 2, 0)
    proto = model([node("Gemm", ["x", "w"])], {"x": ["N", 2]}, ["y"], {"w": w})
    for target, ours in ((0, (2, 0)), (1, (1, 2)), (-1, (1, 2))):
        explained = explain(proto, lines("Gemm: epsilon"), {"x": row(1, 1)}, target)
        np.testing.assert_allclose(explained.values["relevance"], [ours], rtol=1e-5)
        differs(ours, zennit, one)


def test_all_inputs_get_their_relevance():
    """zennit and its peers explain the first alone, and lose what is the others'."""
    body = [node("Concat", ["left", "right"], "c", axis=1), node("Gemm", ["c", "w"])]
    proto = model(body, {"left": ["N", 1], "right": ["N", 1]}, ["y"], {"w": row(2, 3).T})
    feeds = {"left": row(1), "right": row(2)}
    explained = explain(proto, lines("Gemm: epsilon"), feeds, 0, inputs=["left", "right"])
    for name, ours in (("left", 2), ("right", 6)):
        np.testing.assert_allclose(explained.values[f"relevance_{name}"], [[ours]], rtol=1e-5)
