"""onnx's own tests of every operator, each made a classifier: it conserves, or is refused by name.

A case is one node with its inputs. In front of it every input becomes one sample of a batch; behind
it a fixed layer reads three classes from all that is real of its outputs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper
from onnx.backend.test.case import node as onnx_cases
from onnx.reference import ReferenceEvaluator
from support import close, lines, normal, run

import onnxlrp
from onnxlrp.audit import check
from onnxlrp.errors import ModelError, UnsupportedError
from onnxlrp.graph.loading import load

COMPOSITE = lines(
    "LRN: taylor",
    "MaxPool,GlobalMaxPool,ReduceMax,ReduceMin: winner-takes-all",
    "*: epsilon",
)
REAL = [np.dtype(name) for name in ("float16", "float32", "float64")]

WRITTEN_OUT = {
    "attention": "test_attention_3d_gqa_with_past_and_present "
    "test_attention_4d_with_past_and_present test_attention_causal_boolmask_nan_robustness",
    "affinegrid": "test_affine_grid_2d",
    "center_crop_pad": "test_center_crop_pad_crop_and_pad",
    "compress": "test_compress_0 test_compress_default_axis",
    "convtranspose": "test_convtranspose_output_shape test_convtranspose_autopad_same",
    "cumprod": "test_cumprod_2d_axis_1 test_cumprod_1d_reverse_exclusive",
    "scatterelements": "test_scatter_elements_with_duplicate_indices",
    "deformconv": "test_deform_conv_with_mask_bias",
    "det": "test_det_2d test_det_nd",
    "dft": "test_dft_inverse test_dft_irfft",
    "gridsample": "test_gridsample_bicubic test_gridsample_reflection_padding",
    "lpnormalization": "test_l1normalization_axis_1",
    "lppool": "test_lppool_1d_default test_lppool_2d_dilations",
    "maxunpool": "test_maxunpool_export_with_output_shape",
    "resize": "test_resize_downsample_scales_cubic_align_corners",
    "roialign": "test_roialign_aligned_false",
    "rotaryembedding": "test_rotary_embedding_with_interleaved_rotary_dim",
    "softmax_cross_entropy_loss": "test_sce_none_weights_log_prob",
    "stft": "test_stft_with_window",
    "tensorscatter": "test_tensorscatter test_tensorscatter_circular",
}
"""What is written out, and what was wrong once, by onnx's module."""

LINEAR = (
    *("center_crop_pad", "compress", "deformconv", "dft", "gridsample", "maxunpool", "roialign"),
    *("stft", "tensorscatter"),
)
"""Of these, what is linear in its first input."""


HEAVY = ("attention", "gridsample", "lppool")


def marked(module):
    """Mark what takes seconds."""
    return pytest.param(module, marks=pytest.mark.slow) if module in HEAVY else module


def collect(module: str) -> None:
    """Let onnx collect the cases of one module."""
    pytest.importorskip(f"onnx.backend.test.case.node.{module}", reason="an older onnx lacks it")


def found(module: str, names: str) -> Iterator[onnx_cases.TestCase]:
    """Take some cases of one module."""
    collect(module)
    known = {case.name: case for case in onnx_cases._NodeTestCases}
    return (known[name] for name in names.split())


class UnfitError(Exception):
    """A case that says nothing of relevance; the argument is why."""


def classifier(case, all_live=True):
    """Make a network of one node: x -> its outputs -> three classes; return it and its inputs.

    With `all_live` every real input is explained, else the first alone.
    """
    proto = onnx.ModelProto.FromString(case.model.SerializeToString())
    graph, (given, made) = proto.graph, case.data_sets[0]
    if len(graph.node) != 1:
        raise UnfitError("several nodes")
    values = dict(zip((value.name for value in graph.input), given, strict=True))
    if not all(isinstance(value, np.ndarray | np.generic) for value in [*given, *made]):
        raise UnfitError("no tensors")
    real = [name for name, v in values.items() if v.dtype in REAL and v.size]
    live = [name for name in real if np.isfinite(values[name]).all()]
    if not live:
        raise UnfitError("no real input")
    live = live if all_live else live[:1]
    kinds = {value.name: value.type.tensor_type.elem_type for value in graph.input}
    constants = {name: v for name, v in values.items() if name not in live}
    constants |= {f"{name}_shape": np.array(values[name].shape, np.int64) for name in live}
    body = [helper.make_node("Reshape", [f"{n}_batch", f"{n}_shape"], [n]) for n in live]
    body.append(onnx.NodeProto.FromString(graph.node[0].SerializeToString()))
    features, size = [], 0
    for value, result in zip(graph.output, map(np.asarray, made), strict=True):
        if result.dtype in REAL and result.size:
            if not np.isfinite(result).all():
                raise UnfitError("infinite output")
            body.append(helper.make_node("Cast", [value.name], [f"{value.name}_single"], to=1))
            reshaped = [f"{value.name}_single", "as_row"]
            body.append(helper.make_node("Reshape", reshaped, [f"{value.name}_row"]))
            features.append(f"{value.name}_row")
            size += result.size
    if not features:
        raise UnfitError("no real output")
    constants |= {"as_row": np.array([1, -1]), "nothing": np.zeros(3, np.float32)}
    constants["readout"] = (normal(size, 3, seed=3) / np.sqrt(size)).astype(np.float32)
    body.append(helper.make_node("Concat", features, ["features"], axis=1))
    body.append(helper.make_node("Gemm", ["features", "readout", "nothing"], ["logits"]))
    inputs = [
        helper.make_tensor_value_info(f"{name}_batch", kinds[name], [1, *values[name].shape])
        for name in live
    ]
    logits = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1, 3])
    weights = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    network = helper.make_model(helper.make_graph(body, case.name, inputs, [logits], weights))
    # The newest that onnxruntime runs; of RoiAlign it has no newer kernel.
    newest = 21 if graph.node[0].op_type == "RoiAlign" else 26
    for entry in proto.opset_import:
        if entry.domain == "":
            entry.version = min(entry.version, newest)
    del network.opset_import[:]
    network.opset_import.extend(proto.opset_import)
    if "" not in {entry.domain for entry in proto.opset_import}:
        network.opset_import.append(helper.make_opsetid("", 18))
    network.ir_version = min(max(proto.ir_version, 8), 11)
    return network, {f"{name}_batch": values[name][None] for name in live}


def runs(proto, feeds, others=()):
    """Run it, as it is and with other inputs; the scores must be finite."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
        scores = [session.run(None, each)[0] for each in (feeds, *others)]
    except Exception as error:
        raise UnfitError("onnxruntime cannot run it") from error
    if not np.isfinite(scores).all():
        raise UnfitError("infinite output")
    return np.concatenate(scores)


def explained(case):
    """Explain all inputs, or the first alone where all are refused; return both files."""
    for all_live in (True, False):
        proto, feeds = classifier(case, all_live)
        runs(proto, feeds)
        try:
            conversion = onnxlrp.convert(proto, COMPOSITE, inputs=list(feeds))
        except (UnsupportedError, ModelError):
            if not all_live:
                raise
        else:
            return proto, conversion.to_proto(), feeds
    raise AssertionError


def faults(audit):
    """What the audit finds, and what it could not recompute."""
    crossed = [operation for layer in audit.layers for operation in layer.operations]
    return [
        *(f"output {name}: {d}" for name, d in audit.outputs.items() if d > audit.allowed_change),
        *(f"{layer.name} leaks {layer.leak}" for layer in audit.layers if layer.leaks),
        *(f"{layer.name} differs {layer.difference}" for layer in audit.layers if layer.differs),
        *(f"{entry.value} is not finite" for entry in audit.special if entry.nan or entry.infinite),
        *(f"{entry.operator}: {entry.skipped}" for entry in crossed if entry.skipped),
    ]


@pytest.mark.parametrize("module", [marked(module) for module in WRITTEN_OUT])
def test_what_is_written_out_conserves(module):
    for case in found(module, WRITTEN_OUT[module]):
        audit = check(*explained(case), target=1)
        assert audit.passed, (case.name, faults(audit))
        assert faults(audit) == []


@pytest.mark.parametrize("module", [marked(module) for module in LINEAR])
def test_what_is_linear_gives_every_element_its_slope_times_its_value(module):
    """Brute force, as for gradients: the network runs once for every element of its input."""
    for case in found(module, WRITTEN_OUT[module]):
        proto, feeds = classifier(case, all_live=False)
        ((name, x),) = feeds.items()
        single = [{name: row.reshape(x.shape)} for row in np.eye(x.size, dtype=x.dtype)]
        outputs = runs(proto, {name: np.zeros_like(x)}, single)
        slopes = outputs[1:, 1] - outputs[0, 1]
        slopes = slopes.reshape(x.shape)
        precise = COMPOSITE.with_lines(["*: epsilon epsilon=1e-12"])
        root = np.random.default_rng(7).normal(size=x.shape[1:]).astype(x.dtype)
        asked = {name: x, "target": np.array([1])}
        for composite, reference, wanted in (
            (precise, None, slopes * x),
            (precise, root, slopes * (x - root)),
            (onnxlrp.Composite.load("gradient"), None, slopes),
        ):
            explainer = onnxlrp.convert(proto, composite, reference=reference).to_proto()
            close(run(explainer, asked)["relevance"], wanted, 1e-4)


REFUSED = {
    "Attention": "it gives out its scores, is told lengths, or looks through a window",
    "BatchNormalization": "it is in training mode, or its statistics are not constant",
    "CumSum": "it mixes the samples of a batch",
    "DequantizeLinear": "its scale depends on the explained input",
    "Dropout": "it is in training mode",
    "DynamicQuantizeLinear": "y_scale_single (Cast) computes with a quantised network's whole "
    "numbers in a way that has no counterpart in real ones",
    "Gemm": "its bias differs between the rows of a batch; transA=1 puts the batch behind the "
    "features",
    "MatMul": "its weight has 3 dimensions",
    "MelWeightMatrix": "the score 'logits' does not depend on input 'lower_edge_hertz_batch'",
    "OneHot": "it makes a vector of a number that depends on the explained input",
    "Range": "the score 'logits' does not depend on input 'start_batch'",
    "Resize": "it fills what lies outside with a number other than 0; it resizes by the policy "
    "'not_larger'; it resizes by the policy 'not_smaller'",
    "RoiAlign": "it takes the largest of corners that are weighted, or as many points as a region "
    "is large",
    "Scan": "onnx cannot lift Scan from opset 8",
    "ScatterElements": "it computes with what it replaces",
    "ScatterND": "it computes with what it replaces",
    "Unique": "how much it keeps depends on what it is given",
}
"""Why cases are refused, by operator: reasons, and no other."""


@pytest.mark.slow
def test_every_case_of_onnx_conserves_or_is_refused_for_a_reason():
    """Cases whose node onnx writes out are left to the nodes themselves."""
    told, refused, wrong = Counter(), {}, {}
    for case in onnx_cases.collect_testcases(None):
        if "_expanded" in case.name:
            continue
        operator = case.model.graph.node[0].op_type
        try:
            audit = check(*explained(case), target=1)
        except UnfitError as error:
            told[str(error)] += 1
        except UnsupportedError as error:
            told["refused"] += 1
            refused.setdefault(operator, set()).update(o.reason for o in error.obstacles)
        except ModelError as error:
            told["no model that can be explained"] += 1
            refused.setdefault(operator, set()).add(str(error).replace(";", ",").partition(",")[0])
        else:
            told["conserved"] += 1
            if not audit.passed or faults(audit):
                wrong[case.name] = faults(audit)
    print(dict(told))
    assert wrong == {}
    assert {name: "; ".join(sorted(reasons)) for name, reasons in refused.items()} == REFUSED
    assert told["conserved"] > 700


@pytest.mark.parametrize("module", ["causal_conv_with_state", "flexattention", "swiglu"])
def test_what_no_runtime_has_yet_is_written_out_as_what_it_is(module):
    """By onnx's own evaluator, against the results that onnx states."""
    collect(module)
    kind = {"causal_conv_with_state": "CausalConvWithState", "flexattention": "FlexAttention"}
    cases = [
        case
        for case in onnx_cases._NodeTestCases
        if case.model.graph.node[0].op_type == kind.get(module, "SwiGLU")
    ]
    assert len(cases) >= 3
    for case in cases:
        written = ir.to_proto(load(case.model).model)
        assert case.model.graph.node[0].op_type not in {n.op_type for n in written.graph.node}
        given, made = case.data_sets[0]
        names = (value.name for value in case.model.graph.input)
        found = ReferenceEvaluator(written).run(None, dict(zip(names, given, strict=True)))
        tolerance = 1e-5 if given[0].dtype.itemsize > 2 else 2e-3
        assert [mine.shape for mine in found] == [theirs.shape for theirs in made]
        for mine, theirs in ((a, b) for a, b in zip(found, made, strict=True) if b.size):
            close(mine.astype(float), theirs.astype(float), tolerance)
