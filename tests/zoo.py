"""One network with a branch for every operator that can be explained.

A branch has inputs of its own. A product with an identity matrix stands in front of the operator,
so that it is no first layer and reads exactly what it was given; behind it all branches are joined
and read out by one Gemm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import reference_cases as cases
from onnx import helper, numpy_helper
from support import Array, certain, node

from onnxlrp import reference
from onnxlrp.reference.network import CHOICES

OPSET = 24
BATCH = 2


@dataclass(frozen=True)
class Branch:
    """An operator and its inputs.

    Attributes
    ----------
    operator : by which it is registered
    inputs : of its node, real numbers in float32; None for absent ones
    live : places of those that depend on the network's inputs
    gates : places of live ones that a Sigmoid makes gates of
    kind : ONNX operator type
    outputs : how many of its outputs are read
    """

    operator: str
    inputs: tuple[Array | None, ...]
    live: tuple[int, ...] = (0,)
    gates: tuple[int, ...] = ()
    kind: str = ""
    outputs: int = 1
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def defined(self) -> onnx.NodeProto:
        """Its node as the reference takes it, which is told the signal's place."""
        signal = {"signal": min({0, 1} - set(self.gates))} if self.gates else {}
        one = self.node
        one.attribute.extend(helper.make_attribute(name, place) for name, place in signal.items())
        return one

    @property
    def certain(self) -> Array:
        """Which outputs of a linear operator do not nearly cancel: [elements], for each output."""
        return certain(self.node, self.values, 1)

    @property
    def node(self) -> onnx.NodeProto:
        """Its node; the values are named after the operator."""
        names = ["" if v is None else self.value(place) for place, v in enumerate(self.inputs)]
        made = [f"{self.operator}_y{k}" for k in range(2 if self.kind == "TopK" else self.outputs)]
        domain, _, kind = (self.kind or self.operator).rpartition("::")
        return helper.make_node(
            kind, names, made, name=self.operator, domain=domain, **self.attributes
        )

    def value(self, place: int) -> str:
        """Name an input of the node."""
        return f"{self.operator}_{'g' if place in self.gates else 'h'}{place}"

    @property
    def last(self) -> Branch:
        """The branch with the last sample for all of every live input."""
        inputs = (
            np.broadcast_to(v[-1:], v.shape).copy() if v is not None and place in self.live else v
            for place, v in enumerate(self.inputs)
        )
        return replace(self, inputs=tuple(inputs))

    @property
    def values(self) -> list[Array | None]:
        """The inputs of the node in float64, gates as what the Sigmoid makes of them."""
        wide = [v if v is None or v.dtype != np.float32 else v.astype(float) for v in self.inputs]
        return [
            1 / (1 + np.exp(-v)) if place in self.gates and v is not None else v
            for place, v in enumerate(wide)
        ]


def normal(*shape: int, seed: int = 0) -> Array:
    return cases.normal(*shape, seed=seed).astype(np.float32)


X = normal(BATCH, 4, 6)
WITHIN = (0.1 + 0.8 / (1 + np.exp(-X))).astype(np.float32)
IMAGE = normal(BATCH, 4, 3, 5, seed=1)
SCALE, SHIFT = normal(4, seed=2), normal(4, seed=3)
STEPS = normal(BATCH, 3, 4, seed=7), normal(1, 3, 3, seed=8)


def _weights(gates: int) -> tuple[Array, Array, Array]:
    return normal(1, 3 * gates, 4), normal(1, 3 * gates, 3, seed=1), normal(1, 6 * gates, seed=2)


HALF = np.float32(0.5).reshape(())


def _given() -> dict[str, Branch]:
    """Take the first case of each operator in `reference_cases` that keeps the batch."""
    found: dict[str, Branch] = {}
    every = [(op, inputs, ["y"], a) for op, inputs, a in cases.NUMERIC] + cases.STRUCTURAL
    for operator, inputs, outputs, attributes in every:
        one = cases.node(operator, inputs, outputs, **attributes)
        results = reference.forward(one, inputs)
        if operator not in found and all(r.ndim > 1 and len(r) == BATCH for r in results):
            narrow = tuple(
                v if v is None or v.dtype != np.float64 else v.astype(np.float32) for v in inputs
            )
            if narrow[0] is not None and narrow[0].dtype == np.float32:
                found[operator] = Branch(
                    operator, narrow, outputs=len(outputs), attributes=attributes
                )
    return found


def _functions() -> list[Branch]:
    plain = ("Abs", "Asinh", "Atan", "Ceil", "Cos", "Cosh", "Exp", "Floor", "Hardmax", "Round")
    plain += ("Shrink", "Sign", "Sin", "Sinh", "Swish", "Tan", "Neg", "Reciprocal")
    within = ("Acos", "Asin", "Atanh", "Log", "Sqrt")
    return [
        *(Branch(name, (X,)) for name in plain),
        *(Branch(name, (WITHIN,)) for name in within),
        Branch("Acosh", (WITHIN + 1,)),
        Branch("Mod", (X, HALF), attributes={"fmod": 1}),
        Branch("Reciprocal", (HALF, X), live=(1,), kind="Div"),
    ]


OWN = [
    *_functions(),
    Branch("Flatten", (X,)),
    Branch("LogSoftmax", (normal(BATCH, 5, seed=6),)),
    Branch(
        "Resize",
        (IMAGE, None, np.array([1, 1, 2, 1.5], np.float32)),
        attributes={"mode": "linear"},
    ),
    Branch("Cast", (X,), attributes={"to": onnx.TensorProto.DOUBLE}),
    Branch("Gemm", (normal(BATCH, 5), normal(4, 5), normal(4)), attributes={"transB": 1}),
    Branch("Add", (X, normal(BATCH, 4, 6, seed=4)), live=(0, 1)),
    Branch("Sub", (X, normal(4, 1))),
    Branch("Mul", (X, normal(4, 1))),
    Branch("Div", (X, normal(4, 1))),
    Branch("Max", (X, normal(BATCH, 4, 6, seed=4)), live=(0, 1)),
    Branch("Min", (X, normal(BATCH, 4, 6, seed=4)), live=(0, 1)),
    Branch("Gate", (X, normal(BATCH, 4, 1, seed=5)), live=(0, 1), gates=(1,), kind="Mul"),
    Branch("Product", (X, normal(BATCH, 4, 6, seed=5)), live=(0, 1), kind="Mul"),
    Branch("MatrixProduct", (X, normal(BATCH, 6, 3, seed=5)), live=(0, 1), kind="MatMul"),
    Branch("Mixture", (X, normal(BATCH, 6, 3, seed=5)), live=(0, 1), gates=(0,), kind="MatMul"),
    Branch("GlobalMaxPool", (IMAGE,)),
    Branch("ReduceMax", (IMAGE, np.array([1]))),
    Branch("ReduceMin", (IMAGE, np.array([2, 3]))),
    Branch("ReduceProd", (IMAGE, np.array([2]))),
    Branch("LayerNormalization", (X, normal(6), normal(6, seed=1))),
    Branch("RMSNormalization", (X, normal(6))),
    Branch("InstanceNormalization", (IMAGE, SCALE, SHIFT)),
    Branch("GroupNormalization", (IMAGE, SCALE, SHIFT), attributes={"num_groups": 2}),
    Branch(
        "MeanVarianceNormalization", (normal(BATCH, 4, 3, 5, seed=2),), attributes={"axes": [2, 3]}
    ),
    Branch("LpNormalization", (X,)),
    Branch("DepthToSpace", (IMAGE,), attributes={"blocksize": 2, "mode": "CRD"}),
    Branch("SpaceToDepth", (normal(BATCH, 2, 4, 6),), attributes={"blocksize": 2}),
    Branch("Expand", (normal(BATCH, 4, 1), np.array([1, 4, 3]))),
    Branch("Tile", (X, np.array([1, 2, 3]))),
    Branch("Trilu", (X, np.array(1))),
    Branch("ReverseSequence", (X, np.array([2, 4])), attributes={"batch_axis": 0, "time_axis": 1}),
    Branch(
        "GatherElements", (X, np.array([[[0, 2, 2]] * 4, [[1, 0, 1]] * 4])), attributes={"axis": 2}
    ),
    Branch("GatherND", (X, np.array([[[1, 2], [1, 2]]] * BATCH)), attributes={"batch_dims": 1}),
    Branch(
        "ScatterElements",
        (X, np.array([[[0, 3]], [[5, 1]]]), normal(BATCH, 1, 2)),
        live=(0, 2),
        attributes={"axis": 2},
    ),
    Branch("ScatterND", (X, np.array([[0, 1], [1, 3]]), normal(2, 6)), live=(0, 2)),
    Branch(
        "ScatterSum",
        (X, np.array([[[0, 3, 3]], [[5, 1, 5]]]), normal(BATCH, 1, 3, seed=5)),
        live=(0, 2),
        kind="ScatterElements",
        attributes={"axis": 2, "reduction": "add"},
    ),
    Branch("TopK", (X, np.array([2])), kind="TopK"),
    Branch("LSTM", STEPS[:1] + _weights(4), live=(0,), attributes={"hidden_size": 3}),
    Branch(
        "GRU",
        (*STEPS[:1], *_weights(3), None, STEPS[1]),
        live=(0, 5),
        attributes={"hidden_size": 3, "linear_before_reset": 1},
    ),
    Branch(
        "RNN",
        (*STEPS[:1], *_weights(1)),
        attributes={"hidden_size": 3, "direction": "reverse"},
    ),
    Branch("Where", (X > 0, X, normal(BATCH, 4, 6, seed=4)), live=(1, 2)),
]

TREE = {
    "nodes_treeids": [0] * 7 + [1] * 3,
    "nodes_nodeids": [0, 1, 2, 3, 4, 5, 6, 0, 1, 2],
    "nodes_modes": [
        *("BRANCH_LEQ", "BRANCH_GT", "BRANCH_LT", "LEAF", "LEAF", "LEAF", "LEAF"),
        *("BRANCH_GTE", "LEAF", "LEAF"),
    ],
    "nodes_featureids": [0, 1, 0, 0, 0, 0, 0, 2, 0, 0],
    "nodes_values": [0.1, -0.2, 0.7, 0.0, 0.0, 0.0, 0.0, 0.3, 0.0, 0.0],
    "nodes_truenodeids": [1, 3, 5, 0, 0, 0, 0, 1, 0, 0],
    "nodes_falsenodeids": [2, 4, 6, 0, 0, 0, 0, 2, 0, 0],
    "nodes_hitrates": [0.0, 0.0, 0.0, 5.0, 2.0, 1.0, 4.0, 0.0, 3.0, 9.0],
    "target_treeids": [0, 0, 0, 0, 0, 1, 1],
    "target_nodeids": [3, 4, 5, 6, 6, 1, 2],
    "target_ids": [0, 1, 0, 0, 1, 0, 1],
    "target_weights": [0.5, -1.0, 2.0, 0.25, 1.5, -0.75, 1.0],
    "base_values": [0.1, -0.3],
    "n_targets": 2,
}
"""Two small trees, the first of which asks for a feature twice."""

OWN += [
    Branch("ai.onnx.ml::TreeEnsembleRegressor", (normal(BATCH, 4, seed=1),), attributes=TREE),
    Branch(
        "ai.onnx.ml::SVMRegressor",
        (normal(BATCH, 3, seed=1),),
        attributes={
            "kernel_type": "RBF",
            "kernel_params": [0.4, 0.0, 3.0],
            "support_vectors": normal(12, seed=2).tolist(),
            "coefficients": [1.5, -0.5, 0.7, -1.0],
            "n_supports": 4,
            "rho": [0.2],
        },
    ),
    Branch("ai.onnx.ml::Binarizer", (X,), attributes={"threshold": 0.3}),
    Branch(
        "ai.onnx.ml::LabelEncoder",
        (np.array([[1, 3, 7], [3, 5, 1]], np.float32),),
        attributes={
            "keys_floats": [1.0, 3.0, 5.0],
            "values_floats": [0.4, -1.5, 2.0],
            "default_float": 0.5,
        },
    ),
    Branch(
        "ai.onnx.ml::OneHotEncoder",
        (np.array([[1, 3, 7], [3, 5, 1]], np.float32),),
        attributes={"cats_int64s": [1, 3, 5]},
    ),
]

BRANCHES: dict[str, Branch] = _given() | {branch.operator: branch for branch in OWN}
"""By operator."""

REMOVED = ("Identity", "Dropout")
"""Operators that loading takes out of a model."""

ALONE = ("ai.onnx.ml::TreeEnsemble",)
"""Operators of an opset that has none of the older ones; `tests/propagation` has them."""

for name in REMOVED:
    BRANCHES.pop(name)


def network(branches: Sequence[Branch]) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Join branches into one classifier; return it and its inputs.

    Outputs whose contributions nearly cancel are not read: there float32 cannot tell what the
    definition says.
    """
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, Array] = {"rows": np.array([0, -1])}
    feeds: dict[str, Array] = {}
    features: list[str] = []
    kept: list[Array] = []
    for branch in branches:
        for place, value in enumerate(branch.inputs):
            if value is None:
                continue
            if place not in branch.live:
                constants[branch.value(place)] = value
                continue
            source, eye = f"{branch.operator}_x{place}", f"eye{value.shape[-1]}"
            feeds[source] = value
            constants[eye] = np.eye(value.shape[-1], dtype=np.float32)
            read = f"{branch.operator}_h{place}"
            nodes.append(node("MatMul", [source, eye], read))
            if place in branch.gates:
                nodes.append(node("Sigmoid", [read], branch.value(place)))
        nodes.append(branch.node)
        results = reference.forward(branch.node, branch.values)
        for made, result in list(zip(branch.node.output, results, strict=True))[: branch.outputs]:
            if branch.operator == "Cast":
                nodes.append(node("Cast", [made], f"{made}_single", to=onnx.TensorProto.FLOAT))
                made = f"{made}_single"
            nodes.append(node("Reshape", [made, "rows"], f"{made}_flat"))
            features.append(f"{made}_flat")
            known = branch.operator in CHOICES and branch.outputs == 1
            kept.append(branch.certain if known else np.ones(result[0].size))
    read = np.concatenate(kept)[:, None]
    constants["readout"] = (normal(len(read), 3, seed=9) * read).astype(np.float32)
    nodes.append(node("Concat", features, "features", axis=1))
    nodes.append(node("Gemm", ["features", "readout"], "logits"))
    graph = helper.make_graph(
        nodes,
        "zoo",
        [
            helper.make_tensor_value_info(
                name, onnx.TensorProto.FLOAT, ["N", *x.shape[1:]] if len(x) == BATCH else x.shape
            )
            for name, x in feeds.items()
        ],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=11), feeds
