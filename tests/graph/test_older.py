"""Operators as opsets 1 to 10 had them compute what they did, and are explained as today's."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support import close, explain, lines, node, normal, run

import onnxlrp
from onnxlrp.errors import ModelError

EPSILON = lines("MaxPool: winner-takes-all", "LRN: taylor", "*: epsilon")
X = normal(2, 3, 8, 8, seed=1)
KNOWN = {
    "k": normal(4, 3, 3, 3, seed=2),
    "d": normal(4, 5, seed=3),
    "l": normal(5, seed=4),
    "c": np.abs(normal(4, seed=5)) + 0.5,
    "c_now": (np.abs(normal(4, seed=5)) + 0.5).reshape(4, 1, 1),
    "mean": normal(4, seed=6),
    "e": normal(4, 6, 6, seed=7) ** 2 + 0.5,
    "w": normal(6, seed=8) + 3,
    "three": np.float32([3]),
    "two": np.float32([2]),
    "none": np.float32(0),
    "six": np.float32(6),
    "tenth": np.float32(0.1),
    "half": np.float32(0.5),
    "fill": np.float32(0.5),
    "shift": np.float32([0.1, 0.2, 0.3]).reshape(3, 1, 1),
    "rows": np.array([0, 4, -1]),
    "again": np.array([0, 4, 6, 6]),
    "around": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "first": np.array([1, 1]),
    "last": np.array([7, 5]),
    "cut": np.array([1, 0]),
    "end": np.array([5, 1000]),
    "axes": np.array([2, 3]),
    "zero": np.array([0]),
    "halves": np.array([2, 2]),
    "k3": np.array([3]),
    "sizes": np.float32([1, 1, 2, 3]),
    "sizes_down": np.float32([1, 1, 0.4, 0.7]),
    "mixed": np.float32([1, 1, 0.5, 2]),
    "times": np.array([2]),
    "axis": np.array([1]),
    "repeats": np.array([1, 2, 1, 1]),
    "wide": normal(8, 4, 1, 1, seed=9).transpose(1, 0, 2, 3).copy(),
    "fc": normal(5, 4, seed=10),
}
CONV = node("Conv", ["x", "k"], "h", kernel_shape=[3, 3])
READ = [
    node("GlobalAveragePool", ["r"], "g"),
    node("Flatten", ["g"], "f"),
    node("Gemm", ["f", "d", "l"], broadcast=1),
]
"""Reads [N, 4, H, W]."""


def built(nodes, opset, rest=READ):
    """Put nodes between a convolution h and a classifier that reads r, as a file of that opset."""
    nodes = [CONV, *nodes, *rest] if nodes[0].input[:1] != ["x"] else [*nodes, *rest]
    nodes = [onnx.NodeProto.FromString(one.SerializeToString()) for one in nodes]
    for one in nodes:
        if one.op_type == "Gemm" and opset > 6:
            del one.attribute[:]
    used = {name for one in nodes for name in one.input}
    weights = [numpy_helper.from_array(a, name) for name, a in KNOWN.items() if name in used]
    float32, ir = TensorProto.FLOAT, 3 if opset < 9 else 8
    inputs = [helper.make_tensor_value_info("x", float32, ["N", 3, 8, 8])]
    if ir == 3:
        inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in weights]
    outputs = [helper.make_tensor_value_info("y", float32, ["N", 5])]
    graph = helper.make_graph(nodes, "older", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


def old(operator, inputs=("h",), **attributes):
    return [node(operator, inputs, "r", **attributes)]


def split(*inputs, **attributes):
    made = helper.make_node("Split", [*inputs], ["p", "q"], axis=1, name="split", **attributes)
    return [made, node("Concat", ["q", "p"], "r", axis=1)]


def batch(operator, **attributes):
    return old(operator, ["h", "c", "mean", "mean", "c"], **attributes)


def picked(*inputs, **attributes):
    return [helper.make_node("TopK", [*inputs], ["r", "i"], axis=2, name="top", **attributes)]


USED = {"consumed_inputs": [0]}
TWICE = [node("Relu", ["h"], "a")]
CASES = {
    **{
        f"{operator} along the channels": (
            6, old(operator, ["h", "c"], broadcast=1, axis=1), old(operator, ["h", "c_now"]))
        for operator in ("Add", "Sub", "Mul", "Div")
    },
    "Add in opset 1": (1, old("Add", ["h", "c"], broadcast=1, axis=1, consumed_inputs=[0, 0]),
                       old("Add", ["h", "c_now"])),
    "Mul along the last axis": (6, old("Mul", ["h", "w"], broadcast=1), old("Mul", ["h", "w"])),
    "Div from an axis on": (6, old("Div", ["h", "e"], broadcast=1, axis=1),
                            old("Div", ["h", "e"])),
    "Pow": (1, old("Pow", ["h", "two"], broadcast=1, axis=0), old("Pow", ["h", "two"])),
    "Add of two": (1, [*TWICE, *old("Add", ["h", "a"], consumed_inputs=[0, 0])],
                   [*TWICE, *old("Add", ["h", "a"])]),
    "BatchNormalization": (
        1, batch("BatchNormalization", is_test=1, spatial=1, consumed_inputs=[0, 0, 0, 1, 1]),
        batch("BatchNormalization")),
    "BatchNormalization in opset 6": (6, batch("BatchNormalization", is_test=1, epsilon=1e-3),
                                      batch("BatchNormalization", epsilon=1e-3)),
    "BatchNormalization with statistics that nothing reads": (
        8, [helper.make_node("BatchNormalization", ["h", "c", "mean", "mean", "c"],
                             ["r", "s", "t", "", ""], name="node_r")],
        batch("BatchNormalization")),
    "BatchNormalization of each element": (
        7, old("BatchNormalization", ["h", "e", "e", "e", "e"], spatial=0, epsilon=0.0),
        [node("Sub", ["h", "e"], "s"), node("Sqrt", ["e"], "t"), node("Div", ["e", "t"], "u"),
         node("Mul", ["s", "u"], "v"), node("Add", ["v", "e"], "r")]),
    "Dropout": (1, old("Dropout", is_test=1, ratio=0.3, **USED), old("Identity")),
    "Dropout in opset 6": (6, old("Dropout", is_test=1), old("Identity")),
    "Reshape": (1, [node("Reshape", ["h"], "s", shape=[0, 4, -1], **USED),
                    node("Reshape", ["s"], "r", shape=[0, 4, 6, 6])],
                [node("Reshape", ["h", "rows"], "s"), node("Reshape", ["s", "again"], "r")]),
    "Pad": (1, old("Pad", paddings=[0, 0, 1, 1, 0, 0, 1, 1], value=0.5),
            old("Pad", ["h", "around", "fill"])),
    "Pad in opset 2": (2, old("Pad", mode="reflect", pads=[0, 0, 1, 1, 0, 0, 1, 1]),
                       old("Pad", ["h", "around"], mode="reflect")),
    "Unsqueeze and Squeeze": (1, [node("Unsqueeze", ["h"], "s", axes=[0]),
                                  node("Squeeze", ["s"], "r", axes=[0])], old("Identity")),
    "AveragePool": (1, old("AveragePool", kernel_shape=[3, 3], pads=[1] * 4),
                    old("AveragePool", kernel_shape=[3, 3], pads=[1] * 4)),
    "MaxPool": (1, old("MaxPool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
                old("MaxPool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")),
    "LpPool": (1, old("LpPool", kernel_shape=[2, 2], p=2.0), old("LpPool", kernel_shape=[2, 2])),
    "Cast by name": (1, [node("Cast", ["h"], "s", to="DOUBLE"),
                         node("Cast", ["s"], "r", to="FLOAT")], old("Identity")),
    "Clip": (1, old("Clip", min=0.0, max=6.0, **USED), old("Clip", ["h", "none", "six"])),
    "Slice": (1, old("Slice", axes=[2, 3], starts=[1, 0], ends=[5, 1000]),
              old("Slice", ["h", "cut", "end", "axes"])),
    "Split": (1, split("h", split=[2, 2]), split("h", "halves")),
    "Split in halves": (2, split("h"), split("h", num_outputs=2)),
    "Split by an input": (1, split("h", "halves"), split("h", "halves")),
    "Concat without an axis": (1, [node("Concat", ["h", "h"], "s"),
                                   node("Conv", ["s", "wide"], "r", kernel_shape=[1, 1])],
                               [node("Concat", ["h", "h"], "s", axis=1),
                                node("Conv", ["s", "wide"], "r")]),
    "LRN": (1, old("LRN", size=3, alpha=0.1), old("LRN", size=3, alpha=0.1)),
    "TopK": (1, picked("h", k=3), picked("h", "k3")),
    "PRelu of channels": (6, old("PRelu", ["h", "c"]), old("PRelu", ["h", "c_now"])),
    "PRelu of all": (1, old("PRelu", ["h", "three"], consumed_inputs=[0, 0]),
                     old("PRelu", ["h", "three"])),
    **{operator: (1, old(operator, **USED), old(operator))
       for operator in ("LeakyRelu", "Elu", "Sigmoid", "Tanh", "HardSigmoid", "Neg", "Exp")},
    "Selu": (1, old("Selu", **USED), old("Selu", alpha=1.6732, gamma=1.0507)),
    **{operator: (1, [*TWICE, *old(operator, ["h", "a"], consumed_inputs=[0, 0])],
                  [*TWICE, *old(operator, ["h", "a"])])
       for operator in ("Sum", "Mean", "Max")},
    "InstanceNormalization": (
        1, old("InstanceNormalization", ["h", "c", "mean"], consumed_inputs=[0, 0, 0]),
        old("InstanceNormalization", ["h", "c", "mean"])),
    "Tile along an axis": (1, [node("Tile", ["h", "times", "axis"], "s"),
                               node("Conv", ["s", "wide"], "r", kernel_shape=[1, 1])],
                           [node("Tile", ["h", "repeats"], "s"),
                            node("Conv", ["s", "wide"], "r")]),
    "Upsample by two numbers": (
        1, old("Upsample", height_scale=2.0, width_scale=3.0, mode="nearest"),
        old("Resize", ["h", "", "sizes"], coordinate_transformation_mode="asymmetric",
            nearest_mode="floor")),
    "Upsample bilinear": (
        1, old("Upsample", height_scale=2.0, width_scale=3.0, mode="bilinear"),
        old("Resize", ["h", "", "sizes"], coordinate_transformation_mode="asymmetric",
            mode="linear")),
    "Upsample in opset 7": (
        7, old("Upsample", scales=[1.0, 1.0, 2.0, 3.0], mode="linear"),
        old("Resize", ["h", "", "sizes"], coordinate_transformation_mode="asymmetric",
            mode="linear")),
    "ImageScaler": (1, [node("ImageScaler", ["x"], "s", scale=0.1, bias=[0.1, 0.2, 0.3]),
                        node("Conv", ["s", "k"], "r", kernel_shape=[3, 3])],
                    [node("Mul", ["x", "tenth"], "t"), node("Add", ["t", "shift"], "s"),
                     node("Conv", ["s", "k"], "r")]),
    "ImageScaler in opset 10": (
        10, [node("ImageScaler", ["x"], "s", scale=0.1, bias=[0.1, 0.2, 0.3]),
             node("Conv", ["s", "k"], "r")],
        [node("Mul", ["x", "tenth"], "t"), node("Add", ["t", "shift"], "s"),
         node("Conv", ["s", "k"], "r")]),
    "Affine": (1, old("Affine", alpha=2.0, beta=0.5),
               [node("Mul", ["h", "two"], "t"), node("Add", ["t", "half"], "r")]),
    "ScaledTanh": (1, old("ScaledTanh", alpha=2.0, beta=0.5),
                   [node("Mul", ["h", "half"], "t"), node("Tanh", ["t"], "u"),
                    node("Mul", ["u", "two"], "r")]),
    "ParametricSoftplus": (1, old("ParametricSoftplus", alpha=2.0, beta=0.5),
                           [node("Mul", ["h", "half"], "t"), node("Softplus", ["t"], "u"),
                            node("Mul", ["u", "two"], "r")]),
    "Crop": (1, old("Crop", border=[0, 1, 1, 1]),
             old("Slice", ["h", "cut", "crop_end", "axes"])),
    "ThresholdedRelu": (1, old("ThresholdedRelu", alpha=0.5), old("ThresholdedRelu", alpha=0.5)),
    "MeanVarianceNormalization": (
        1, old("MeanVarianceNormalization", across_channels=1, normalize_variance=1),
        old("MeanVarianceNormalization", axes=[1, 2, 3])),
}  # fmt: skip
KNOWN["crop_end"] = np.array([5, 5])


@pytest.mark.parametrize("name", CASES)
def test_an_old_spelling_is_explained_as_the_new_one(name):
    opset, before, now = CASES[name]
    wanted, got = (
        explain(built(nodes, version), EPSILON, {"x": X}, target=[0, 3])
        for nodes, version in ((now, 18), (before, opset))
    )
    for value in ("y", "relevance"):
        close(got.values[value], wanted.values[value], 1e-5)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scales", ["sizes", "sizes_down"])
@pytest.mark.parametrize(("operator", "opset"), [("Upsample", 9), ("Resize", 10)])
def test_resizing_samples_where_it_did(operator, opset, scales, mode):
    """Not at the centres of pixels, as it does since opset 11, and as onnx's lift would have it."""
    if operator == "Upsample" and scales == "sizes_down":
        pytest.skip("Upsample makes nothing smaller")
    proto = built(old(operator, ["h", scales], mode=mode), opset)
    explained = explain(proto, EPSILON, {"x": X})
    close(explained.values["y"], run(proto, {"x": X})["y"], 1e-5)


@pytest.mark.parametrize("axis", [1, 2, 3, -1])
def test_a_hardmax_goes_over_all_axes_from_one_on(axis):
    """Until opset 12; onnx's converter would keep the node, and with it another meaning."""
    body = [node("Hardmax", ["h"], "most", axis=axis), node("Add", ["h", "most"], "r")]
    proto = built(body, 11)
    explained = explain(proto, EPSILON, {"x": X})
    close(explained.values["y"], run(proto, {"x": X})["y"], 1e-6)


@pytest.mark.parametrize(("operator", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_layers_of_opset_3(operator, gates):
    """An attribute said which outputs there are."""
    x, size = normal(4, 2, 3, seed=1), gates * 5
    weights = {
        "w": normal(1, size, 3, seed=2),
        "r": normal(1, size, 5, seed=3),
        "b": normal(1, 2 * size, seed=4),
        "d": normal(5, 3, seed=5),
    }

    def network(opset, **said):
        nodes = [
            helper.make_node(
                operator, ["x", "w", "r", "b"], ["", "last"], hidden_size=5, name="layer", **said
            ),
            node("Squeeze", ["last"], "f", axes=[0]),
            node("MatMul", ["f", "d"]),
        ]
        known = [numpy_helper.from_array(array, name) for name, array in weights.items()]
        graph = helper.make_graph(
            nodes,
            "recurrent",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, "N", 3])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
            known,
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=4
        )

    runs = []
    for proto in (network(3, output_sequence=0), network(11)):
        explainer = onnxlrp.convert(proto, "default").to_proto()
        runs.append(run(explainer, {"x": x, "target": np.array([-1])}))
    close(runs[0]["y"], run(network(11), {"x": x})["y"], 1e-5)
    close(runs[0]["relevance"], runs[1]["relevance"], 1e-5)


def test_a_fully_connected_layer_of_caffe2():
    before = [node("GlobalAveragePool", ["h"], "g"), node("FC", ["g", "fc", "l"])]
    now = [
        node("GlobalAveragePool", ["h"], "g"),
        node("Flatten", ["g"], "f"),
        node("Gemm", ["f", "fc", "l"], transB=1),
    ]
    wanted, got = (
        explain(built(nodes, opset, []), EPSILON, {"x": X})
        for nodes, opset in ((before, 1), (before[:1] + now[1:], 6))
    )
    close(got.values["relevance"], wanted.values["relevance"], 1e-6)


@pytest.mark.parametrize(
    ("nodes", "opset", "message"),
    [
        (old("Resize", ["h", "mixed"]), 10, r"'node_r' \(Resize, opset 10\) enlarges one axis"),
        (batch("BatchNormalization"), 6, r"'node_r' \(BatchNormalization\) is in training mode"),
        (old("Dropout", is_test=0), 1, r"'node_r' \(Dropout\) is in training mode"),
        (old("GivenTensorFill"), 1, r"no operators of these names: GivenTensorFill \(node_r\);"),
        (old("Erfc"), 17, r"no operators of these names: Erfc \(node_r\); export .* with opset 18"),
        (old("HardSwish"), 13, "No Op registered for HardSwish with domain_version of 13"),
    ],
)
def test_what_cannot_be_lifted_is_one_line(nodes, opset, message):
    with pytest.raises(ModelError, match=message) as caught:
        onnxlrp.convert(built(nodes, opset), EPSILON)
    assert "\n" not in str(caught.value)
