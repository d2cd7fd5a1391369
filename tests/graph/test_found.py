"""Models as they are found: written by whatever wrote them, taken as onnxruntime takes them."""

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from support import close, explain, lines, node, normal, run

import onnxlrp
from onnxlrp.cli import main
from onnxlrp.errors import ModelError, UnsupportedError
from onnxlrp.graph.loading import load

EPSILON = lines("*: epsilon")
X = normal(2, 6, seed=1)
SPARSE = normal(6, 5, seed=2) * (normal(6, 5, seed=3) > 0)
LARGE = normal(6, 500, seed=2) * (normal(6, 500, seed=3) > 1)
W = {"w": SPARSE, "v": normal(5, 3, seed=4)}
BODY = [
    node("MatMul", ["x", "w"], "h"),
    node("Relu", ["h"], "a"),
    node("MatMul", ["a", "v"]),
]


def small(nodes=BODY, weights=None, ir=8, dtype=TensorProto.FLOAT):
    weights = W if weights is None else weights
    graph = helper.make_graph(
        nodes,
        "found",
        [helper.make_tensor_value_info("x", dtype, ["N", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    if ir < 4:
        graph.input.extend(
            helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in graph.initializer
        )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=ir)


def sparse(full, name="w", flat=False):
    """Write an array by its elements that are not 0, at flat indices or at those of the axes."""
    (places,) = np.nonzero(full.reshape(-1))
    indices = places if flat else np.stack(np.unravel_index(places, full.shape), axis=1)
    return helper.make_sparse_tensor(
        numpy_helper.from_array(full.reshape(-1)[places], name),
        numpy_helper.from_array(indices.astype(np.int64), f"{name}_indices"),
        full.shape,
    )


def sparse_initializer(full=SPARSE, flat=False):
    proto = small(weights={"v": normal(full.shape[1], 3, seed=4)})
    proto.graph.sparse_initializer.append(sparse(full, flat=flat))
    return proto


def sparse_constant():
    constant = helper.make_node("Constant", [], ["w"], sparse_value=sparse(SPARSE, ""))
    return small([constant, *BODY], {"v": W["v"]})


def without_names():
    proto = small()
    proto.graph.name = ""
    for entry in proto.graph.node:
        entry.name = ""
    return proto


def same_names():
    proto = small()
    for entry in proto.graph.node:
        entry.name = "same"
    return proto


def named_domain(nodes=True):
    proto = small()
    if not nodes:
        proto.opset_import[0].domain = "ai.onnx"
    for entry in proto.graph.node if nodes else ():
        entry.domain = "ai.onnx"
    return proto


def other_output(name, shape):
    proto = small()
    proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    return proto


def unused_input(dtype):
    proto = small()
    proto.graph.input.append(helper.make_tensor_value_info("unused", dtype, ["N", 1]))
    return proto


def unused_domains():
    proto = small()
    proto.opset_import.extend(
        [helper.make_opsetid("ai.onnx.training", 1), helper.make_opsetid("their.own", 2)]
    )
    return proto


def trained():
    """Training information, as ONNX's training opset writes it beside the graph of inference."""
    proto = small()
    proto.opset_import.append(helper.make_opsetid("ai.onnx.preview.training", 1))
    step = helper.make_node(
        "Momentum", ["r", "t", "w", "g", "m"], ["n", "o"], domain="ai.onnx.preview.training"
    )
    proto.training_info.add().algorithm.node.append(step)
    return proto


def nested_functions():
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    inner = [helper.make_node("MatMul", ["i", "k"], ["o"])]
    outer = [
        helper.make_node("Inner", ["i", "k"], ["m"], domain="own"),
        helper.make_node("Relu", ["m"], ["o"]),
    ]
    proto = small([helper.make_node("Outer", ["x", "w"], ["a"], domain="own"), BODY[2]])
    proto.opset_import.append(opsets[1])
    proto.functions.extend(
        helper.make_function("own", name, ["i", "k"], ["o"], nodes, opsets)
        for name, nodes in (("Outer", outer), ("Inner", inner))
    )
    return proto


def stale():
    proto = small()
    proto.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, [9, 9]))
    return proto


def dead(**options):
    return small([*BODY, helper.make_node("Relu", ["h"], ["nothing"], **options)])


def foreign_and_dead():
    proto = dead(domain="their.own")
    proto.opset_import.append(helper.make_opsetid("their.own", 2))
    return proto


FOUND = {
    **{f"IR version {ir}": small(ir=ir) for ir in range(3, 14)},
    "sparse initializer": sparse_initializer(),
    "sparse initializer, flat": sparse_initializer(flat=True),
    "sparse initializer, large": sparse_initializer(LARGE),
    "sparse constant": sparse_constant(),
    "no names": without_names(),
    "one name for all nodes": same_names(),
    "nodes in ai.onnx": named_domain(),
    "opset of ai.onnx": named_domain(nodes=False),
    "output that is an input": other_output("x", ["N", 6]),
    "output that is an initializer": other_output("w", [6, 5]),
    "output twice": other_output("y", ["N", 3]),
    "unused input": unused_input(TensorProto.FLOAT),
    "unused text": unused_input(TensorProto.STRING),
    "unused domains": unused_domains(),
    "training information": trained(),
    "nested functions": nested_functions(),
    "shapes that do not hold": stale(),
    "a node that leads nowhere": dead(),
    "a foreign node that leads nowhere": foreign_and_dead(),
    "uint8 input": small(
        [node("Cast", ["x"], "f", to=1), node("MatMul", ["f", "w"], "h"), *BODY[1:]],
        dtype=TensorProto.UINT8,
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_it_is_explained_as_the_plain_model(name, tmp_path):
    proto = FOUND[name]
    x = np.abs(np.rint(X)).astype(np.uint8) if "uint8" in name else X
    weights = {"w": LARGE, "v": normal(500, 3, seed=4)} if "large" in name else W
    wanted = explain(small(weights=weights), EPSILON, {"x": x.astype(np.float32)})
    feeds = {"x": x, "unused": np.zeros((2, 1), np.float32)}
    explainer = onnxlrp.convert(proto, EPSILON).to_proto()
    taken = {value.name for value in explainer.graph.input}
    given = {key: array for key, array in feeds.items() if key in taken}
    if "unused text" in name:
        given["unused"] = np.full((2, 1), "a", object)
    got = run(explainer, {**given, "target": np.array([-1])})
    for value in ("y", "relevance"):
        close(got[value].astype(np.float32), wanted.values[value], 1e-6)
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    assert CliRunner().invoke(main, ["inspect", str(path)]).exit_code == 0
    made = CliRunner().invoke(main, ["convert", str(path), str(tmp_path / "e.onnx")])
    assert made.exit_code == 0, made.output


def damaged(indices, dims=(6, 5)):
    proto = sparse_initializer()
    broken = proto.graph.sparse_initializer[0]
    broken.indices.CopyFrom(numpy_helper.from_array(np.asarray(indices, np.int64), "i"))
    broken.dims[:] = dims
    return proto


@pytest.mark.parametrize(
    ("proto", "message"),
    [
        (damaged([0, 1]), r"indices of the sparse tensor 'w' do not fit its sizes \[6, 5\]"),
        (damaged(np.full(np.count_nonzero(SPARSE), 30)), "indices of the sparse tensor"),
        (damaged(np.full(np.count_nonzero(SPARSE), -1)), "indices of the sparse tensor"),
        (damaged(np.full((np.count_nonzero(SPARSE), 3), 0)), "indices of the sparse tensor"),
        (damaged([0], (1 << 20, 1 << 20)), "too large"),
        (damaged([0], (0, 5)), "too large, or none"),
        (small(ir=99), "ir_version 99 is higher than the checker's"),
    ],
)
def test_what_is_damaged_is_one_line(proto, message):
    with pytest.raises(ModelError, match=message) as caught:
        load(proto)
    assert "\n" not in str(caught.value)


def test_a_dropout_in_training_mode_is_refused():
    nodes = [BODY[0], node("Dropout", ["h", "", "on"], "d"), node("Relu", ["d"], "a"), BODY[2]]
    with pytest.raises(UnsupportedError, match=r"node_d \(Dropout.*\): it is in training mode"):
        onnxlrp.convert(small(nodes, {**W, "on": np.array(True)}), EPSILON)
    onnxlrp.convert(small(nodes, {**W, "on": np.array(False)}), EPSILON)


def test_a_domain_is_named_by_the_node_that_is_in_the_way():
    proto = small([helper.make_node("Own", ["x"], ["o"], domain="their.own", name="first"),
                   node("MatMul", ["o", "w"], "h"), *BODY[1:]])  # fmt: skip
    proto.opset_import.append(helper.make_opsetid("their.own", 2))
    with pytest.raises(UnsupportedError, match=r"first \(Own, their.own 2\)"):
        onnxlrp.convert(proto, EPSILON)


K, D, B = normal(4, 3, 3, 3, seed=5), normal(4, 5, seed=6), normal(5, seed=7)
C = np.abs(normal(4, seed=8)) + 0.5
BATCH = {"scale": C, "shift": C, "mean": C, "variance": C}
NORMALISED = node("BatchNormalization", ["c", *BATCH], "n")
DENSE = [node("MatMul", ["f", "d"], "z"), node("Add", ["z", "b"], "l")]
WRITTEN = {
    "MATLAB": (
        "l", 9, [
            node("Sub", ["x", "input_Mean"], "s"), node("Conv", ["s", "k"], "c", pads=[1] * 4),
            NORMALISED, node("Relu", ["n"], "r"),
            node("MaxPool", ["r"], "p", kernel_shape=[2, 2], strides=[2, 2]),
            node("Conv", ["p", "whole", "b"], "o"), node("Flatten", ["o"], "l"),
            node("Softmax", ["l"], axis=1)],
        {"input_Mean": normal(1, 3, 1, 1), "k": K, **BATCH, "whole": normal(5, 4, 4, 4), "b": B}),
    "MATLAB, [N, C, 1, 1]": (
        "", 9, [node("Conv", ["x", "whole", "b"], "l"), node("Softmax", ["l"], axis=1)],
        {"whole": normal(5, 3, 8, 8), "b": B}),
    "PaddlePaddle": (
        "l", 11, [
            node("Conv", ["x", "k"], "c", strides=[2, 2], pads=[1] * 4), NORMALISED,
            node("Add", ["n", "three"], "t"), node("Clip", ["t", "none", "six"], "u"),
            node("Mul", ["n", "u"], "v"), node("Div", ["v", "six"], "h"),
            node("GlobalAveragePool", ["h"], "g"), node("Conv", ["g", "down"], "i"),
            node("Relu", ["i"], "j"), node("Conv", ["j", "up"], "m"),
            node("HardSigmoid", ["m"], "q"), node("Mul", ["h", "q"], "r"),
            node("GlobalAveragePool", ["r"], "p"), node("Shape", ["p"], "w"),
            node("Slice", ["w", "zero", "one"], "rows"),
            node("Concat", ["rows", "rest"], "flat", axis=0), node("Reshape", ["p", "flat"], "e"),
            node("Mul", ["e", "keep"], "f"), *DENSE, node("Softmax", ["l"], axis=-1)],
        {"k": K, **BATCH, "three": np.float32([3]), "none": np.float32(0), "six": np.float32(6),
         "down": normal(2, 4, 1, 1), "up": normal(4, 2, 1, 1), "zero": np.array([0]),
         "one": np.array([1]), "rest": np.array([-1]), "keep": np.float32([0.8]),
         "d": D, "b": B}),
    "TensorFlow": (
        "l", 12, [
            node("Transpose", ["x"], "t", perm=[0, 3, 1, 2]), node("Pad", ["t", "around"], "p"),
            node("Conv", ["p", "k"], "c", strides=[2, 2], auto_pad="VALID"),
            node("Transpose", ["c"], "u", perm=[0, 2, 3, 1]), node("Mul", ["u", "scale"], "m"),
            node("Add", ["m", "shift"], "n"), node("Relu", ["n"], "r"),
            node("Min", ["r", "six"], "s"), node("ReduceMean", ["s"], "f", axes=[1, 2], keepdims=0),
            *DENSE, node("Softmax", ["l"])],
        {"around": np.array([0, 0, 0, 0, 0, 0, 1, 1]), "k": K, "scale": C, "shift": C,
         "six": np.float32(6), "d": D, "b": B}),
    "PyTorch": (
        "l", 17, [
            node("Conv", ["x", "k"], "c"), node("Shape", ["c"], "s"),
            node("Gather", ["s", "first"], "n", axis=0), node("Unsqueeze", ["n", "zero"], "rows"),
            node("Concat", ["rows", "rest"], "flat", axis=0), node("Reshape", ["c", "flat"], "f"),
            node("Gemm", ["f", "w", "b"], "l", transB=1), node("ReduceMax", ["l"], "m", axes=[1]),
            node("Sub", ["l", "m"], "o"), node("Exp", ["o"], "e"),
            node("ReduceSum", ["e", "one"], "t"), node("Div", ["e", "t"])],
        {"k": K, "first": np.array(0), "zero": np.array([0]), "one": np.array([1]),
         "rest": np.array([-1]), "w": normal(5, 144), "b": B}),
    "CNTK": (
        "y", 9, [
            node("Conv", ["x", "k"], "c", auto_pad="SAME_UPPER"), node("Add", ["c", "e"], "a"),
            node("Relu", ["a"], "r"),
            node("AveragePool", ["r"], "p", kernel_shape=[8, 8], auto_pad="VALID"),
            node("Reshape", ["p", "rows"], "f"), node("MatMul", ["f", "d"], "z"),
            node("Reshape", ["z", "out"], "o"), node("Add", ["o", "b"])],
        {"k": K, "e": normal(4, 1, 1), "rows": np.array([0, 4]), "d": D,
         "out": np.array([-1, 5]), "b": B}),
    "MXNet": (
        "y", 8, [
            node("Mul", ["x", "factor"], "i"), node("Conv", ["i", "k"], "c"),
            node("BatchNormalization", ["c", *BATCH], "n", spatial=1),
            node("PRelu", ["n", "slope"], "r"), node("Dropout", ["r"], "o", ratio=0.5),
            node("Flatten", ["o"], "f"), node("Gemm", ["f", "w", "b"], "l", transB=1),
            node("BatchNormalization", ["l", "s", "t", "m", "v"])],
        {"factor": np.float32([0.017]), "k": K, **BATCH, "slope": normal(4, 1, 1),
         "w": normal(5, 144), "b": B, "s": np.ones(5, np.float32), "t": B, "m": B,
         "v": np.ones(5, np.float32)}),
}  # fmt: skip


@pytest.mark.parametrize("exporter", WRITTEN)
def test_what_exporters_write_is_explained_from_the_logits(exporter):
    score, opset, nodes, weights = WRITTEN[exporter]
    x = normal(2, 3, 8, 8, seed=9)
    if exporter == "TensorFlow":
        x = x.transpose(0, 2, 3, 1).copy()
    graph = helper.make_graph(
        nodes,
        exporter,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *x.shape[1:]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=4)
    explained = explain(proto, "epsilon", {"x": x})
    assert explained.conversion.warnings == ()
    if score:
        assert explained.conversion.score == score
    close(explained.values["y"], run(proto, {"x": x})["y"], 1e-5)


@pytest.mark.slow
def test_external_data_of_more_than_2_gb(tmp_path):
    """The file has holes: what lies between the weights takes no room on the disk."""
    rows = (1 << 29) // 6 + 1
    wide = TensorProto(name="wide", data_type=TensorProto.FLOAT, dims=[6, rows])
    wide.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "m.data"), ("offset", 0), ("length", 24 * rows)):
        wide.external_data.add(key=key, value=str(value))
    proto = small([*BODY, node("MatMul", ["x", "wide"], "other")], ir=8)
    proto.graph.initializer.append(wide)
    proto.graph.output.append(helper.make_tensor_value_info("other", 1, ["N", rows]))
    with (tmp_path / "m.data").open("wb") as data:
        data.truncate(24 * rows)
    onnx.save_model(proto, tmp_path / "m.onnx")
    conversion = onnxlrp.convert(tmp_path / "m.onnx", EPSILON, output="y")
    conversion.save(tmp_path / "e.onnx", external_data=True, check=False)
    assert (tmp_path / "e.onnx.data").stat().st_size >= 24 * rows
