import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from audit.networks import (
    applied,
    dense,
    explained,
    multiplied,
    residual,
    with_metadata,
    with_weight,
)
from support import model, node, normal

import onnxlrp
from onnxlrp.audit import check, findings, inputs, read
from onnxlrp.audit.findings import Audit
from onnxlrp.audit.words import verdict
from onnxlrp.errors import InputError, ModelError
from onnxlrp.inputs.targets import Difference

RELEVANCE = "onnxlrp/relevance/"


def told(audit: Audit, kind: str) -> list[str]:
    return [finding.text for finding in findings(audit) if finding.kind == kind]


def layer(audit: Audit, name: str):
    return next(n for n in audit.layers if any(o.name == name for o in n.operations))


@pytest.fixture(scope="module")
def network():
    return residual()


@pytest.fixture(scope="module")
def explainer(network):
    return explained(network)


# --- A sound explainer ---------------------------------------------------------------------------


def test_a_sound_explainer_passes_and_the_books_balance(network, explainer):
    audit = check(network, explainer, random=2)
    assert audit.passed
    assert told(audit, "failure") == told(audit, "warning") == []
    assert audit.samples == 2
    assert audit.outputs == {"probability": pytest.approx(0, abs=1e-5)}
    assert audit.start == 0
    assert all(0 <= entry.difference <= 2e-6 for entry in audit.layers)
    assert all(entry.leak <= 1e-6 for entry in audit.layers)
    taken = sum(entry.bias + entry.stabiliser for entry in audit.layers)
    assert audit.heatmap + taken == pytest.approx(audit.score, rel=1e-5)
    assert not any(operation.skipped for n in audit.layers for operation in n.operations)
    assert [operation.name for operation in audit.layers[0].operations] == ["node_logits"]


def test_a_layer_takes_together_what_shares_an_input(network, explainer):
    block = layer(check(network, explainer), "node_c2")
    assert {"node_c2", "node_s"} <= {operation.name for operation in block.operations}
    assert block.name == "node_c2 + 1 more"
    assert block.rules == "z-plus, norm"


def test_one_neuron_by_hand():
    """f = 2 + 1 + 1: a quarter of it is the bias."""
    proto = dense([[1.0], [1.0]], [1.0])
    audit = check(proto, explained(proto), np.array([[2.0, 1.0]]))
    (only,) = audit.layers
    assert audit.score == audit.scale == only.incoming == 4
    assert only.bias == pytest.approx(1, rel=1e-6)
    assert audit.heatmap == only.outgoing == pytest.approx(3, rel=1e-6)
    assert only.stabiliser == pytest.approx(1e-6, rel=0.2)
    assert told(audit, "note")[0].startswith("25 % of the score is in biases, most at node_logits")
    assert "--set bias=distribute" in told(audit, "note")[0]
    distributed = explained(proto, "Gemm: epsilon bias=distribute")
    audit = check(proto, distributed, np.array([[2.0, 1.0]]))
    assert audit.passed
    assert audit.heatmap == pytest.approx(4, rel=1e-6)
    assert audit.layers[0].bias == 0
    assert told(audit, "note") == []


def test_a_large_stabiliser_is_told():
    proto = dense([[1.0], [1.0]], [0.0])
    audit = check(proto, explained(proto, "Gemm: epsilon epsilon=1.0"), np.array([[2.0, 1.0]]))
    assert audit.layers[0].stabiliser == pytest.approx(0.75)
    assert told(audit, "note") == [
        "25 % of the score stays in stabilisers, most at node_logits (25 %): epsilon=1 is large "
        "beside the denominators: try a smaller one"
    ]


def test_relevance_of_outputs_without_contributions_ends_there():
    """All weights inhibit: z-plus has nothing to share 1 - 2 = -1 among."""
    proto = dense([[-1.0], [-1.0]], [0.0])
    audit = check(proto, explained(proto, "Gemm: z-plus"), np.array([[0.5, 0.5]]))
    assert audit.passed
    assert audit.layers[0].empty == audit.layers[0].stabiliser == pytest.approx(-1)
    assert any("to which nothing contributes" in text for text in told(audit, "note"))


def test_a_part_known_to_be_empty_is_the_stabilisers():
    """No weight of a mean inhibits, so no division for beta is even written."""
    nodes = [
        node("Relu", ["x"], "a"),
        node("GlobalAveragePool", ["a"], "g"),
        node("Flatten", ["g"], "logits"),
    ]
    proto = model(nodes, {"x": [1, 3, 4, 4]}, ["logits"], {})
    rule = "GlobalAveragePool: alpha-beta alpha=2 beta=1"
    audit = check(proto, explained(proto, rule))
    assert audit.passed
    pool = layer(audit, "node_g")
    assert pool.stabiliser == pytest.approx(-audit.score, rel=1e-4)
    assert pool.outgoing == pytest.approx(2 * audit.score, rel=1e-4)


def test_a_rule_that_does_not_conserve_is_no_leak(network):
    audit = check(network, explained(network, "LRN: taylor-unnormalised"))
    assert audit.passed
    assert abs(layer(audit, "node_l1").beyond) > 0.01 * audit.scale
    assert layer(audit, "node_l1").leak <= 1e-6


def test_relevance_that_a_rule_stops_is_no_leak(network):
    audit = check(network, explained(network, "name=node_c2: zero"))
    assert audit.passed
    block = layer(audit, "node_c2")
    assert not any(operation.skipped for n in audit.layers for operation in n.operations)
    assert abs(block.stabiliser) > 0.01 * audit.scale


def test_double_precision():
    proto = residual(dtype=onnx.TensorProto.DOUBLE)
    with pytest.raises(ModelError, match="onnxruntime cannot load"):
        check(proto, explained(proto))


def test_an_output_may_differ_by_what_the_runtimes_own_fusions_change(network, explainer):
    """Measured on the model itself: as it is run, and with none of its nodes fused."""
    audit = check(network, explainer)
    assert 0 <= audit.noise < 1e-6
    assert audit.allowed_change == pytest.approx(1e-5)
    noisy = replace(audit, noise=5e-6, outputs={"probability": 4e-5})
    assert noisy.allowed_change == pytest.approx(5e-5)
    assert noisy.passed
    assert not replace(noisy, outputs={"probability": 6e-5}).passed


def test_half_precision_is_held_to_its_own_rounding():
    proto = residual(dtype=onnx.TensorProto.FLOAT16)
    audit = check(proto, explained(proto))
    assert audit.precision == audit.allowed_change == 2**-10
    assert audit.passed
    assert not check(proto, multiplied(explained(proto), f"{RELEVANCE}p1", 1.01)).passed


def test_targets_baked_in_and_chosen(network):
    chosen = check(network, explained(network), target=1)
    baked = check(network, explained(network, target=1))
    assert chosen.targets == baked.targets == (1,)
    assert chosen.score == baked.score
    with pytest.raises(InputError, match="written into this explainer"):
        check(network, explained(network, target=1), target=2)
    with pytest.raises(InputError, match="3 is not a class"):
        check(network, explained(network), target=3)


def test_a_batch_of_a_model_with_a_fixed_batch():
    proto = dense([[1.0, 0.5], [1.0, 2.0]], [1.0, 0.0])
    audit = check(proto, explained(proto, dynamic_batch=True), normal(3, 2))
    assert audit.passed
    assert len(audit.targets) == 3


def test_masks_let_everything_pass(network):
    masked = check(network, explained(network, masks=["p1"]))
    assert masked.passed
    assert masked.heatmap == check(network, explained(network)).heatmap


def test_weights_in_a_file_beside_it(tmp_path):
    # Saving so changes what is saved.
    onnx.save(residual(), tmp_path / "model.onnx", save_as_external_data=True, size_threshold=0)
    conversion = onnxlrp.convert(tmp_path / "model.onnx", "epsilon_plus")
    conversion.save(tmp_path / "explainer.onnx", external_data=True)
    assert (tmp_path / "explainer.onnx.data").exists()
    audit = check(tmp_path / "model.onnx", tmp_path / "explainer.onnx")
    assert audit.passed
    assert all(entry.difference <= 2e-6 for entry in audit.layers)


# --- Negative controls ---------------------------------------------------------------------------


def test_a_changed_weight_changes_the_outputs(network, explainer):
    audit = check(network, with_weight(explainer, "w3", 1.01))
    assert not audit.passed
    assert 1e-4 < audit.outputs["probability"] < 0.1
    assert told(audit, "failure")[0].startswith("output 'probability' is not the model's: it diff")


def test_a_weight_changed_for_relevance_alone_makes_one_layer_differ():
    nodes = [
        node("Conv", ["x", "w", "b"], "c", strides=[2, 2]),
        node("Relu", ["c"], "a"),
        node("GlobalAveragePool", ["a"], "g"),
        node("Flatten", ["g"], "logits"),
    ]
    weights = {"w": normal(3, 2, 3, 3, seed=1), "b": normal(3, seed=2)}
    proto = model(nodes, {"x": [1, 2, 9, 9]}, ["logits"], weights)
    whole = explained(proto)
    (twin,) = [t.name for t in whole.graph.initializer if t.name.startswith("onnxlrp/transposed/")]
    assert check(proto, whole).passed
    audit = check(proto, with_weight(whole, twin, 1.01))
    assert not audit.passed
    assert set(audit.outputs.values()) == {0.0}
    assert [entry.name for entry in audit.layers if entry.differs] == ["node_c"]
    assert layer(audit, "node_c").difference == pytest.approx(0.01, rel=0.1)


def test_relevance_that_grows_on_its_way_leaks_and_differs(network, explainer):
    audit = check(network, multiplied(explainer, f"{RELEVANCE}p1", 1.001))
    assert not audit.passed
    leaking = [entry for entry in audit.layers if entry.leaks]
    assert [entry.name for entry in leaking] == ["node_c2 + 1 more"]
    assert leaking[0].difference == pytest.approx(1e-3, rel=0.01)
    assert [entry.name for entry in audit.layers if entry.differs] == ["node_c2 + 1 more"]
    assert [text.split(":")[0] for text in told(audit, "failure")] == ["node_c2 + 1 more"] * 2


def test_relevance_that_only_moves_differs_without_a_leak(network, explainer):
    def turned(before: str) -> list[onnx.NodeProto]:
        order = [0, 1, 3, 2]
        return [
            onnx.helper.make_node(
                "Transpose", [before], [f"{RELEVANCE}p1"], "onnxlrp/turned", perm=order
            )
        ]

    audit = check(network, applied(explainer, f"{RELEVANCE}p1", turned))
    assert [entry.name for entry in audit.layers if entry.differs] == ["node_c2 + 1 more"]
    assert not any(entry.leaks for entry in audit.layers)


def test_relevance_that_starts_from_something_else(network, explainer):
    audit = check(network, multiplied(explainer, f"{RELEVANCE}logits", 2.0))
    assert audit.start == pytest.approx(0.5)
    assert told(audit, "failure")[0].startswith("relevance starts from something else")


@pytest.mark.parametrize(("number", "word"), [(np.nan, "nan"), (np.inf, "infinite")])
def test_numbers_that_are_none(network, explainer, number, word):
    audit = check(network, multiplied(explainer, f"{RELEVANCE}l1", number))
    assert not audit.passed
    assert "l1" in {entry.value for entry in audit.special if getattr(entry, word) or entry.nan}
    assert any(text.startswith("relevance of 'l1' holds") for text in told(audit, "failure"))
    json.dumps(audit.to_json(), allow_nan=False)


def test_denormals_are_told_and_no_fault(network, explainer, tmp_path):
    """In a process of its own: the first session of one decides whether it knows denormals."""
    onnx.save(network, tmp_path / "model.onnx")
    faint = multiplied(explainer, f"{RELEVANCE}logits", 1.2e-38)
    onnx.save(faint, tmp_path / "explainer.onnx")
    code = "from onnxlrp.cli import main; main()"
    command = [sys.executable, "-c", code, "check", "model.onnx", "explainer.onnx", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    said = [
        finding for finding in json.loads(done.stdout)["findings"] if "denormal" in str(finding)
    ]
    assert [finding["kind"] for finding in said] == ["note"]


def test_an_explainer_of_another_major_version(network, explainer):
    with pytest.raises(ModelError, match=r"the explainer was written by onnxlrp 7\.2\.0, and this"):
        check(network, with_metadata(explainer, "onnxlrp.version", "7.2.0"))
    check(network, with_metadata(explainer, "onnxlrp.version", "0.9.3"))


def test_an_explainer_of_another_model(explainer):
    with pytest.raises(ModelError, match=r"explains a model with SHA-256 \w{12}\.\.\., but"):
        check(residual(opset=19), explainer)


def test_what_is_no_explainer(network, explainer):
    with pytest.raises(ModelError, match="a plain model, not an explainer"):
        check(network, network)
    with pytest.raises(ModelError, match=r"nothing\.onnx: no such file"):
        check(network, "nothing.onnx")
    with pytest.raises(ModelError, match="damaged: it has no value 'gone'"):
        check(network, with_metadata(explainer, "onnxlrp.score", "gone"))


# --- What is odd, and what cannot be said --------------------------------------------------------


def test_excluding_biases_explodes():
    """Without its bias 1 the first neuron's relevance is divided by 1 - 0.9999."""
    nodes = [
        node("Gemm", ["x", "w1", "b1"], "h"),
        node("Gemm", ["h", "w2"], "logits"),
    ]
    weights = {
        "w1": np.array([[1.0], [-0.9999]], np.float32),
        "b1": np.array([1.0], np.float32),
        "w2": np.array([[1.0]], np.float32),
    }
    proto = model(nodes, {"x": [1, 2]}, ["logits"], weights)
    inputs = np.ones((1, 2))
    audit = check(proto, explained(proto, "Gemm: epsilon bias=exclude"), inputs)
    assert audit.layers[-1].spread == pytest.approx(2e4, rel=0.02)
    (warning,) = told(audit, "warning")
    assert warning.startswith("relevance explodes: from node_h on the sum of |R| is more than 1e+0")
    assert "bias=absorb" in warning
    assert not check(proto, explained(proto), inputs).explodes


def cancelling() -> tuple[onnx.ModelProto, np.ndarray]:
    """Return a network whose first output nearly cancels: 1e-6 of its contributions is left."""
    x, w = normal(1, 512, seed=1), normal(512, 2, seed=2)
    z = float(x[0].astype(np.float64) @ w[:, 0].astype(np.float64))
    size = float(np.abs(x[0] * w[:, 0]).sum())
    w[0, 0] += np.float32((1e-6 * size - z) / x[0, 0])
    nodes = [node("Gemm", ["x", "w"], "h"), node("Gemm", ["h", "r"], "logits")]
    weights = {"w": w, "r": np.array([[1e5], [1.0]], np.float32)}
    return model(nodes, {"x": [1, 512]}, ["logits"], weights), x


def test_denominators_that_nearly_cancel_are_no_fault():
    proto, x = cancelling()
    explainer = explained(proto, "Gemm: epsilon epsilon=1e-9")
    audit = check(proto, explainer, x)
    first = layer(audit, "node_h")
    assert first.noise > 1e-3
    assert 1e-4 < first.difference < 10 * first.noise
    assert audit.passed
    assert "node_h" in next(text for text in told(audit, "warning") if "rounding" in text)
    broken = check(proto, multiplied(explainer, "relevance", 1e3), x)
    assert layer(broken, "node_h").differs


def test_a_rule_that_the_reference_does_not_know(network, explainer):
    copy = onnx.ModelProto()
    copy.CopyFrom(explainer)
    for entry in copy.graph.node:
        notes = {note.key: note for note in entry.metadata_props}
        if "onnxlrp.node" in notes and notes["onnxlrp.node"].value == "node_c2":
            notes["onnxlrp.rule"].value = "mine"
    audit = check(network, copy)
    assert audit.passed
    block = layer(audit, "node_c2")
    assert block.difference is None
    (warning,) = told(audit, "warning")
    assert warning.startswith("not recomputed: node_c2 (the reference does not cover mine on Conv")


def test_layers_that_there_are_not(network, explainer):
    with pytest.raises(InputError, match="no layer is called 'nope': `onnxlrp inspect MODEL"):
        check(network, explainer, layers="nope")


@pytest.mark.parametrize(
    ("value", "said"),
    [(np.nan, "holds NaN"), (np.inf, "holds NaN or infinity"), (None, "is empty")],
)
def test_inputs_that_say_nothing(network, explainer, value, said):
    written = read(explainer)
    ((name, given),) = inputs.draw(written.inputs, 2, None).items()
    given[1] = value or 0
    given = given[: 0 if value is None else 2]
    with pytest.raises(InputError, match=f"input '{name}' {said}"):
        check(network, explainer, given)


def test_only_the_layers_asked_for(network, explainer):
    audit = check(network, explainer, layers="node_c*")
    done = {o.name for n in audit.layers for o in n.operations if not o.skipped}
    assert done & {"node_c1", "node_l1", "node_p1", "node_c2", "node_s", "node_logits"} == {
        "node_c1",
        "node_c2",
    }
    assert audit.passed
    assert layer(audit, "node_c1").difference <= 2e-6
    # The sum around it sends relevance to the same value.
    assert layer(audit, "node_c2").difference is None


def test_layers_that_are_too_large(network, explainer, monkeypatch):
    monkeypatch.setattr("onnxlrp.audit.recomputed.LARGEST", 5000)
    (warning,) = told(check(network, explainer), "warning")
    assert warning.startswith("not recomputed: node_c1 (6.9e+03 contributions are too many; ask")
    asked = check(network, explainer, layers="node_c1")
    assert layer(asked, "node_c1").difference <= 2e-6


def test_a_group_of_a_normalisation_that_is_too_large():
    body = [
        node("GroupNormalization", ["x", "s", "b"], "n", num_groups=1),
        node("Flatten", ["n"], "f"),
    ]
    body.append(node("Gemm", ["f", "w"], "y"))
    weights = {"s": normal(4, seed=1), "b": normal(4, seed=2), "w": normal(17424, 2, seed=3)}
    sizes = ["N", 4, 66, 66]
    proto = model(body, {"x": sizes}, ["y"], weights, opset=21, inside={"n": sizes})
    (warning,) = told(check(proto, explained(proto)), "warning")
    assert warning.startswith("not recomputed: node_n (2.4e+09 contributions are too many; ask")


def test_parameters_are_read_back_as_they_were_written():
    from onnxlrp.audit.written import _parameters

    assert _parameters("low=(-2.1, -2.0) high=[1, 2.5] bias=absorb stabiliser=1e-06") == {
        "low": (-2.1, -2.0),
        "high": [1, 2.5],
        "bias": "absorb",
        "stabiliser": 1e-6,
    }


def test_a_sum_that_cancels_in_half_precision_is_no_fault():
    """Its result is rounded, which moves what is divided by it more than float32 would."""
    weights = {
        "w": normal(6, 40, seed=1),
        "v": -normal(6, 40, seed=1) + normal(6, 40, seed=2, scale=0.02),
        "u": normal(40, 3, seed=3),
    }
    weights = {name: array.astype(np.float16) for name, array in weights.items()}
    body = [
        node("MatMul", ["x", "w"], "a"),
        node("MatMul", ["x", "v"], "b"),
        node("Add", ["a", "b"], "s"),
        node("MatMul", ["s", "u"], "logits"),
    ]
    proto = model(body, {"x": ["N", 6]}, ["logits"], weights, dtype=onnx.TensorProto.FLOAT16)
    audit = check(proto, onnxlrp.convert(proto, "epsilon").to_proto(), random=4)
    assert layer(audit, "node_s").difference > 2**-10
    assert audit.passed


@pytest.mark.parametrize("contrast", ["others", "softmax"])
def test_a_contrast_is_checked_by_its_definition(network, contrast):
    explainer = explained(network, contrast=contrast)
    audit = check(network, explainer, target=1)
    assert audit.passed
    assert audit.start < 1e-6
    assert abs(audit.score) < 1e-9 * audit.scale
    assert "class 1 contrasted to" in verdict(audit)[0]
    assert not check(network, multiplied(explainer, f"{RELEVANCE}logits", 1.01)).passed


def test_a_contrast_by_softmax_starts_at_the_scores_under_a_reference_too(network):
    audit = check(network, explained(network, contrast="softmax", reference="zero"), target=1)
    assert audit.passed
    assert audit.start < 1e-6


def test_a_difference_written_in_or_by_weights(network):
    baked = check(network, explained(network, target="2-0"))
    weighted = explained(network, target="weights")
    chosen = check(network, weighted, target=Difference(2, 0))
    assert baked.passed
    assert chosen.passed
    assert baked.targets == chosen.targets == ("2-0",)
    assert baked.score == pytest.approx(chosen.score)
    assert baked.heatmap == pytest.approx(chosen.heatmap, rel=1e-4)
    assert "difference of scores 2-0" in verdict(baked)[0]
    top = check(network, weighted)
    assert top.score == pytest.approx(check(network, explained(network)).score)
    with pytest.raises(InputError, match="convert with --target 2-0 or --target weights"):
        check(network, explained(network), target=Difference(2, 0))


def test_the_places_of_a_dense_output():
    body = [node("Conv", ["x", "k"], "h"), node("Relu", ["h"], "a"), node("Conv", ["a", "c"], "y")]
    weights = {"k": normal(4, 2, 3, 3, seed=1), "c": normal(3, 4, 1, 1, seed=2)}
    proto = model(body, {"x": ["N", 2, 6, 7]}, ["y"], weights)
    for at in ("1,2", "0:2,3:", "all"):
        audit = check(proto, explained(proto, "Conv: epsilon", at=at), random=2)
        assert audit.passed
        assert audit.start < 1e-6
        assert audit.share(audit.heatmap) == pytest.approx(1, abs=1e-3)


def test_a_map_that_says_little_of_the_score_is_doubted():
    """Biases hold nearly all of it; a map that is the same for both classes; one that cancels."""
    body = [node("Gemm", ["x", "w", "b"], "y")]
    alike = np.array([[1, 2], [0.5, 1.0], [2, 4]], np.float32)
    for weights, wanted in (
        ({"w": alike, "b": np.full(2, 500, np.float32)}, ("(0.7% in the middle)", "by 1.000 with")),
        ({"w": normal(3, 2, seed=1), "b": np.zeros(2, np.float32)}, ()),
        ({"w": np.array([[90, 0], [-90, 1], [1, 0]], np.float32), "b": np.zeros(2, np.float32)},
         ("(181 in the middle)",)),
    ):  # fmt: skip
        proto = model(body, {"x": ["N", 3]}, ["y"], weights)
        audit = check(
            proto, explained(proto, "Gemm: epsilon"), np.ones((1, 3), np.float32), target=0
        )
        doubts = told(audit, "doubt")
        assert audit.passed
        assert len(doubts) == len(wanted)
        assert all(part in said for part, said in zip(wanted, doubts, strict=True))
