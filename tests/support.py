"""What the tests build models with, and how they put an explainer beside the definition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

import onnxlrp
from onnxlrp import reference
from onnxlrp.compiler.composite import available

Array = np.ndarray[Any, Any]

SHARING = [
    replace(c, reference={})
    for c in available()
    if c.yields == "relevance" and "" not in c.reference
]
"""Composites that share the score itself out, whatever network they see; the zoo has all others."""

EXACT = 1e-5
"""Largest difference of one operator's relevance from the definition, as a part of max|R|."""


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> Array:
    """Draw reproducible float32 values of both signs."""
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str | None]],
    outputs: Sequence[str] | Mapping[str, Sequence[int | str]],
    weights: Mapping[str, Array],
    opset: int = 18,
    dtype: int = onnx.TensorProto.FLOAT,
    inside: Mapping[str, Sequence[int | str | None]] | None = None,
) -> onnx.ModelProto:
    """Build a model; types are inferred where no shape is given, for outputs or values `inside`."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(name, dtype, shape) for name, shape in inputs.items()],
        [
            helper.make_tensor_value_info(name, dtype, outputs[name])
            if isinstance(outputs, Mapping)
            else helper.make_empty_tensor_value_info(name)
            for name in outputs
        ],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
        value_info=[
            helper.make_tensor_value_info(name, dtype, shape)
            for name, shape in (inside or {}).items()
        ],
    )
    opsets = [helper.make_opsetid("", opset)]
    proto = helper.make_model(
        graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets)
    )
    if proto.ir_version < 4:
        proto.graph.input.extend(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            for tensor in proto.graph.initializer
        )
    proto = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    onnx.checker.check_model(proto)
    return proto


def node(op: str, inputs: Sequence[str], output: str = "y", **attributes: Any) -> onnx.NodeProto:
    """Build a node named after what it computes."""
    return helper.make_node(op, list(inputs), [output], name=f"node_{output}", **attributes)


def run(
    proto: onnx.ModelProto, feeds: Mapping[str, Array], optimise: bool = True
) -> dict[str, Array]:
    """Run a model in onnxruntime on the CPU; all outputs by name."""
    return _run(_session(proto, optimise), feeds)


def _session(proto: onnx.ModelProto, optimise: bool = True) -> ort.InferenceSession:
    options = ort.SessionOptions()
    # Exceptions carry what it would also log.
    options.log_severity_level = 4
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _run(session: ort.InferenceSession, feeds: Mapping[str, Array]) -> dict[str, Array]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(feeds)), strict=True))


def with_outputs(proto: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Make inner values outputs of a copy of a model."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    present = {output.name for output in copy.graph.output}
    copy.graph.output.extend(
        helper.make_empty_tensor_value_info(name) for name in names if name not in present
    )
    return onnx.shape_inference.infer_shapes(copy)


@dataclass(frozen=True)
class Explained:
    """An explainer, checked, with every value it computes on some inputs."""

    conversion: onnxlrp.Conversion
    proto: onnx.ModelProto
    values: dict[str, Array]

    def relevance(self, value: str) -> Array:
        """Relevance of a value of the model."""
        return self.values[f"onnxlrp/relevance/{value}"]

    @property
    def classes(self) -> int:
        """Number of classes, at most three."""
        first = next(iter(self.values.values()))
        return min(3, int(np.prod(self.values.get("scores", first).shape[1:])))


def explain(
    proto: onnx.ModelProto,
    composite: onnxlrp.Composite,
    feeds: Mapping[str, Array],
    target: int | Sequence[int] = -1,
    inside: Sequence[str] = (),
    **options: Any,
) -> Explained:
    """Convert, check fully, and run, with the relevance of the values `inside` as well.

    Of one sample, the classes together must be explained as each alone, or not at all.
    """
    conversion = onnxlrp.convert(proto, composite, intermediates=inside, **options)
    explainer = conversion.to_proto()
    onnx.checker.check_model(explainer, full_check=True)
    inputs = dict(feeds)
    if any(entry.name == "target" for entry in explainer.graph.input):
        inputs["target"] = np.atleast_1d(np.asarray(target, np.int64))
    session = _session(explainer)
    explained = Explained(conversion, explainer, _run(session, inputs))
    if "target" in inputs and all(isinstance(axes[0], str) for _, _, axes in conversion.inputs):
        one = {name: array[:1] for name, array in feeds.items()}
        explained_together(session, one, range(explained.classes), tolerance=1e-6)
    return explained


def lines(*text: str, **parameters: float | str) -> onnxlrp.Composite:
    """Write a composite as command-line lines, the first match deciding."""
    composite = onnxlrp.Composite("test", ()).with_lines(text)
    return composite.with_parameters(parameters) if parameters else composite


def crosses_as_defined(
    tested: onnx.NodeProto,
    x: Array,
    rule: str,
    weights: Mapping[str, Array] | None = None,
    spread: bool = False,
    symbolic: Sequence[int] = (0,),
    opset: int = 18,
    tolerance: float = EXACT,
    root: Array | None = None,
    **parameters: float | str,
) -> Explained:
    """Compare the relevance that crosses one node with the definition, under a reference or not.

    The node reads `x` and writes `y`; a dense layer behind it sends relevance of both signs,
    proportional to y or, with `spread`, also where y is 0. Outputs whose contributions cancel to
    less than a twentieth get none: there float32 cannot tell what the definition says.
    """
    weights = dict(weights or {})
    shape: list[int | str | None] = [
        f"axis{axis}" if axis in symbolic else size for axis, size in enumerate(x.shape)
    ]
    known = {"x": x, **weights}
    inputs = [known.get(name) for name in tested.input]
    at_root = None if root is None else [root if n == "x" else known.get(n) for n in tested.input]
    if at_root is None:
        sure = certain(tested, inputs, int(parameters.get("power", 1)))
    else:
        sure = changes(tested, inputs, at_root)
    features = sure.size
    weights["rows"] = np.array([-1, features], np.int64)
    weights["offset"] = normal(features, seed=8) if spread else np.zeros(features, np.float32)
    weights["readout"] = normal(features, 3, seed=7) * sure[:, None]
    body = [
        tested,
        node("Reshape", ["y", "rows"], "flat"),
        # An Add would be merged into a layer.
        node("Sum", ["flat", "offset"], "shifted"),
        node("Gemm", ["shifted", "readout"], "logits"),
    ]
    # onnx cannot infer the shape of every function operator.
    inside = {"y": shape} if tested.op_type in reference.operators.NORMALISATIONS else {}
    proto = model(body, {"x": shape}, ["logits"], weights, opset, inside=inside)
    written = " ".join(f"{key}={value}" for key, value in parameters.items())
    composite = lines(
        f"name=node_y: {rule} {written}",
        "name=node_shifted: pass",
        "Gemm: epsilon",
        "LRN: taylor",
        "MaxPool: winner-takes-all",
    )
    explained = explain(
        proto, composite, {"x": x}, target=[1] * len(x), inside=["y"],
        reference=None if root is None else root[0],
    )  # fmt: skip
    applied = next(entry for entry in explained.conversion.nodes if entry.name == "node_y")
    expected = reference.propagate(
        tested,
        inputs,
        [explained.relevance("y")],
        rule,
        dict(applied.parameters),
        [name == "x" for name in tested.input],
        root=at_root,
    )
    wanted = sum(part for part in expected.relevance if part is not None)
    close(explained.values["relevance"], wanted, tolerance)
    return explained


def explained_together(
    session: ort.InferenceSession,
    sample: Mapping[str, Array],
    classes: Sequence[int],
    tolerance: float,
) -> None:
    """Compare some classes of one sample in one run with a run for each.

    An explainer that says it cannot must fail.
    """
    names = [one.name for one in session.get_outputs() if "relevance" in one.name]
    asked = {**sample, "target": np.array(classes)}
    said = session.get_modelmeta().custom_metadata_map
    if len(classes) > 1 and said["onnxlrp.several"] == "false":
        with pytest.raises(Exception, match="ONNXRuntimeError"):
            session.run(names, asked)
        return
    each = [session.run(names, {**sample, "target": np.array([number])}) for number in classes]
    for found, *apart in zip(session.run(names, asked), *each, strict=True):
        close(found, np.concatenate(apart), tolerance)


BIASED = ("Conv", "ConvTranspose", "Gemm")


def certain(tested: onnx.NodeProto, inputs: Sequence[Array | None], power: int) -> Array:
    """Which outputs do not nearly cancel, in any sample, with or without bias."""
    result: Array = np.array(True)
    for exponent in (1, power):
        for biased in (True, False):
            raised = [
                None
                if value is None or (index == 2 and tested.op_type in BIASED and not biased)
                else value
                if value.dtype == np.int64
                else value**exponent
                for index, value in enumerate(inputs)
            ]
            sizes = [
                value if value is None or value.dtype == np.int64 else np.abs(value)
                for value in raised
            ]
            y, most = reference.forward(tested, raised)[0], reference.forward(tested, sizes)[0]
            result = result & (np.abs(y) >= 0.05 * np.abs(most)).all(axis=0)
    return result.reshape(-1)


def changes(
    tested: onnx.NodeProto, inputs: Sequence[Array | None], root: Sequence[Array | None]
) -> Array:
    """Which outputs change by more than float32's cancellation, in every sample."""
    after, before = (reference.forward(tested, values)[0] for values in (inputs, root))
    size = np.abs(after) + np.abs(before)
    return np.asarray((np.abs(after - before) >= 0.05 * size).all(axis=0)).reshape(-1)


def close(actual: Array, expected: Array, tolerance: float = EXACT) -> None:
    """Compare by the largest difference as a part of the largest expected value."""
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    scale = max(np.abs(expected).max(), 1e-30)
    worst = np.abs(actual - expected).max() / scale
    assert worst <= tolerance, f"differs by {worst:.2e} of max|R|"


def operators(proto: onnx.ModelProto, node_name: str) -> list[str]:
    """Operators of the nodes that an explainer has for one node of the model."""
    return [
        entry.op_type
        for entry in proto.graph.node
        if any(p.key == "onnxlrp.node" and p.value == node_name for p in entry.metadata_props)
    ]
