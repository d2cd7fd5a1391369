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
