"""Models and files with something wrong in them, drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from fuzz.seeds import seeds
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from onnxlrp.compiler.composite import available

Random = np.random.Generator
Mutation = Callable[[onnx.ModelProto, Random], None]


def any_of(random: Random, things):  # type: ignore[no-untyped-def]
    things = list(things)
    return things[int(random.integers(len(things)))]


NAMES = ("", "x", "onnxlrp/relevance/x", "target", "\x1b[2J", "a" * 5000, "Größe", "../../x", "%s")
SIZES = (-1, 0, 1, 2, 7, 2**31, 2**62)
OPERATORS = (
    "Add", "Conv", "Gemm", "If", "Loop", "LSTM", "MatMul", "Nothing", "Pad", "Reshape", "Resize",
    "SplitToSequence", "Softmax", "Sub", "TopK", "Where",
)  # fmt: skip


PLACES = (
    *("/etc/passwd", "/dev/zero", "../x", "", ".", "missing", "model.onnx", "\0", "a" * 5000),
    *("weights", "weights", "weights", "empty", "folder", "outside", "circle", "pipe"),
)
"""Files that external data point at; `properties.surroundings` makes those that are there."""

COMPOSITES = tuple(composite.name for composite in available())

BETWEEN = (
    "Abs", "ArgMax", "BitShift", "Cast", "Ceil", "Cos", "CumSum", "Dropout", "Elu", "Erf", "Exp",
    "Flatten", "Floor", "Gelu", "GlobalMaxPool", "GlobalLpPool", "Hardmax", "HardSwish", "Identity",
    "InstanceNormalization", "IsNaN", "LRN", "Log", "LogSoftmax", "Mean", "Mish", "Neg", "NonZero",
    "Not", "PRelu", "Reciprocal", "ReduceMax", "ReduceSum", "Relu", "Round", "Shape", "Sigmoid",
    "Sign", "Size", "Softmax", "Softplus", "Softsign", "Sqrt", "Squeeze", "Sum", "Tanh",
    "ThresholdedRelu", "Transpose", "Unique",
)  # fmt: skip


def drop_node(proto: onnx.ModelProto, random: Random) -> None:
    del proto.graph.node[int(random.integers(len(proto.graph.node)))]


def repeat_node(proto: onnx.ModelProto, random: Random) -> None:
    proto.graph.node.append(any_of(random, proto.graph.node))


def rename(proto: onnx.ModelProto, random: Random) -> None:
    one = any_of(random, proto.graph.node)
    names = any_of(random, [one.input, one.output])
    if names:
        names[int(random.integers(len(names)))] = any_of(random, NAMES)


def rewire(proto: onnx.ModelProto, random: Random) -> None:
    """Let a node read any value: also its own, which makes a cycle."""
    one = any_of(random, [n for n in proto.graph.node if n.input])
    values = [name for n in proto.graph.node for name in (*n.input, *n.output)]
    one.input[int(random.integers(len(one.input)))] = any_of(random, values)


def another_operator(proto: onnx.ModelProto, random: Random) -> None:
    any_of(random, proto.graph.node).op_type = any_of(random, OPERATORS)


def another_domain(proto: onnx.ModelProto, random: Random) -> None:
    domain = any_of(random, ["com.acme", "ai.onnx.ml", "com.microsoft", "ai.onnx", "\x1b]0;x\x07"])
    any_of(random, proto.graph.node).domain = domain
    if random.integers(2):
        proto.opset_import.append(helper.make_opsetid(domain, any_of(random, SIZES)))


def another_attribute(proto: onnx.ModelProto, random: Random) -> None:
    another_attribute_of(any_of(random, proto.graph.node), random)


def another_attribute_of(one: onnx.NodeProto, random: Random) -> None:
    values = (7, -3, 0.5, float("nan"), "text", [2, 2], [0] * 9, [-1, 5], [0.5])
    known = ("kernel_shape", "pads", "strides", "axis", "perm", "alpha", "size", "transB", "group")
    name = any_of(random, [*known, *(a.name for a in one.attribute)])
    for index, attribute in enumerate(one.attribute):
        if attribute.name == name:
            del one.attribute[index]
            break
    if random.integers(4):
        one.attribute.append(helper.make_attribute(name, any_of(random, values)))


def attribute_without_type(proto: onnx.ModelProto, random: Random) -> None:
    kind = any_of(random, [AttributeProto.UNDEFINED, AttributeProto.GRAPH, AttributeProto.TENSOR])
    any_of(random, proto.graph.node).attribute.append(AttributeProto(name="body", type=kind))


def another_shape(proto: onnx.ModelProto, random: Random) -> None:
    tensor = any_of(random, proto.graph.initializer)
    dims = list(tensor.dims)
    if random.integers(2) and dims:
        dims[int(random.integers(len(dims)))] = any_of(random, SIZES)
    else:
        dims = dims[::-1] if random.integers(2) else [*dims, 1]
    tensor.dims[:] = dims


def another_type(proto: onnx.ModelProto, random: Random) -> None:
    tensor = any_of(random, proto.graph.initializer)
    tensor.data_type = int(any_of(random, [0, 2, 7, 8, 10, 11, 14, 16, 17, 23, 99]))


def other_numbers(proto: onnx.ModelProto, random: Random) -> None:
    tensor = any_of(random, proto.graph.initializer)
    data = bytearray(tensor.raw_data)
    if len(data) >= 4:
        at = 4 * int(random.integers(len(data) // 4))
        value = any_of(random, [0, np.nan, np.inf, -1e30, 1e-40, -1])
        data[at : at + 4] = np.float32(value).tobytes()
        tensor.raw_data = bytes(data)


def shorter_data(proto: onnx.ModelProto, random: Random) -> None:
    tensor = any_of(random, proto.graph.initializer)
    tensor.raw_data = tensor.raw_data[: int(random.integers(len(tensor.raw_data) + 1))]


def external_data(proto: onnx.ModelProto, random: Random) -> None:
    tensor = any_of(random, proto.graph.initializer)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entries = {
        "location": any_of(random, PLACES),
        "offset": any_of(random, ["-1", "0", "x", "9" * 40]),
        "length": any_of(random, ["-1", "0", "16", str(tensor.ByteSize()), "9" * 5000]),
    }
    for key, value in entries.items():
        if random.integers(3):
            tensor.external_data.add(key=key, value=value)


def other_opset(proto: onnx.ModelProto, random: Random) -> None:
    for entry in proto.opset_import:
        entry.version = int(any_of(random, [0, 1, 6, 7, 11, 13, 17, 21, 25, 99, -5]))


def other_input(proto: onnx.ModelProto, random: Random) -> None:
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    if dims:
        dim = dims[int(random.integers(len(dims)))]
        if random.integers(2):
            dim.dim_param = any_of(random, NAMES)
        else:
            dim.dim_value = int(any_of(random, SIZES))


def other_output(proto: onnx.ModelProto, random: Random) -> None:
    kind = proto.graph.output[0].type.tensor_type
    kind.elem_type = int(any_of(random, [1, 1, 7, 10, 99]))
    kind.shape.dim.add(dim_value=int(any_of(random, SIZES)))


def stale_shapes(proto: onnx.ModelProto, random: Random) -> None:
    value = any_of(random, [name for n in proto.graph.node for name in n.output])
    shape = [int(any_of(random, SIZES[2:5])) for _ in range(int(random.integers(6)))]
    proto.graph.value_info.append(helper.make_tensor_value_info(value, 1, shape))


def no_name(proto: onnx.ModelProto, random: Random) -> None:
    any_of(random, proto.graph.node).name = any_of(random, NAMES)


def no_output(proto: onnx.ModelProto, random: Random) -> None:
    del proto.graph.output[:]


def shuffled(proto: onnx.ModelProto, random: Random) -> None:
    nodes = list(proto.graph.node)
    random.shuffle(nodes)  # type: ignore[arg-type]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def swap_fields(proto: onnx.ModelProto, random: Random) -> None:
    """Exchange two inputs of a node, two initializers, or what two nodes compute."""
    kind, nodes = int(random.integers(3)), proto.graph.node
    if kind == 0:
        names = any_of(random, [one for one in nodes if one.input]).input
        i, j = random.integers(len(names), size=2)
        names[i], names[j] = names[j], names[i]
    elif kind == 1:
        first, second = (any_of(random, proto.graph.initializer) for _ in range(2))
        first.name, second.name = second.name, first.name
    else:
        first, second = (any_of(random, nodes) for _ in range(2))
        first.op_type, second.op_type = second.op_type, first.op_type


def repeat_field(proto: onnx.ModelProto, random: Random) -> None:
    """Give two of what has to be one: initializers, inputs, outputs, attributes, opsets."""
    one = any_of(random, proto.graph.node)
    graph, opsets = proto.graph, proto.opset_import
    fields = graph.initializer, graph.input, graph.output, one.attribute, one.output, opsets
    field = any_of(random, [f for f in fields if len(f)])
    field.append(any_of(random, field))


def drop_field(proto: onnx.ModelProto, random: Random) -> None:
    """Leave out what has to be there."""
    one = any_of(random, proto.graph.node)
    name = any_of(random, ["input", "initializer", "output", "name"])
    if name == "name":
        proto.graph.ClearField("name")
    elif random.integers(3) == 0 and one.attribute:
        del one.attribute[int(random.integers(len(one.attribute)))]
    else:
        field = getattr(proto.graph, name)
        del field[int(random.integers(len(field)))]


def overridable(proto: onnx.ModelProto, random: Random) -> None:
    """Make an initializer an input as well."""
    tensor = any_of(random, proto.graph.initializer)
    shape = list(tensor.dims) if random.integers(2) else ["any"] * len(tensor.dims)
    proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, shape))


def another_kind_of_input(proto: onnx.ModelProto, random: Random) -> None:
    """Make an input a list, an optional, a tensor of another type, or of no known rank."""
    value, kind = proto.graph.input[0], int(random.integers(5))
    inner = onnx.TypeProto.FromString(value.type.SerializeToString())
    if kind == 0:
        value.type.sequence_type.elem_type.CopyFrom(inner)
    elif kind == 1:
        value.type.optional_type.elem_type.CopyFrom(inner)
    elif kind == 2:
        value.ClearField("type")
    elif kind == 3:
        value.type.tensor_type.ClearField("shape")
    else:
        value.type.tensor_type.elem_type = int(any_of(random, [0, 6, 7, 8, 9, 10, 11, 16]))


def put_between(proto: onnx.ModelProto, random: Random) -> None:
    """Send a value through one more operator on its way to whoever reads it."""
    at = int(random.integers(len(proto.graph.node)))
    outputs = proto.graph.node[at].output
    if not outputs or not outputs[0]:
        return
    value = outputs[0]
    extra = helper.make_node(any_of(random, BETWEEN), [value], [f"{value}_{len(proto.graph.node)}"])
    for later in proto.graph.node[at + 1 :]:
        for index, name in enumerate(later.input):
            if name == value:
                later.input[index] = extra.output[0]
    proto.graph.node.insert(at + 1, extra)


def put_in_branch(proto: onnx.ModelProto, random: Random) -> None:
    """Compute a node in both branches of an If."""
    at = int(random.integers(len(proto.graph.node)))
    one = onnx.NodeProto.FromString(proto.graph.node[at].SerializeToString())
    if len(one.output) != 1:
        return
    output = onnx.ValueInfoProto(name=f"{one.output[0]}_inside")
    if random.integers(2):
        output.type.tensor_type.elem_type = 1
    inside = onnx.NodeProto.FromString(one.SerializeToString())
    inside.output[0] = output.name
    branch = helper.make_graph([inside], "branch", [], [output])
    condition = numpy_helper.from_array(np.array(bool(random.integers(2))), "condition")
    proto.graph.initializer.append(condition)
    proto.graph.node[at].CopyFrom(
        helper.make_node("If", ["condition"], one.output, then_branch=branch, else_branch=branch)
    )


def spoil_function(proto: onnx.ModelProto, random: Random) -> None:
    """Change a function: let it call itself, miss, appear twice, or do something else."""
    if not proto.functions:
        return
    function, kind = any_of(random, proto.functions), int(random.integers(7))
    body = any_of(random, function.node)
    if kind == 0:
        body.op_type, body.domain = function.name, function.domain
    elif kind == 1:
        proto.functions.remove(function)
    elif kind == 2:
        proto.functions.append(function)
    elif kind == 3:
        function.domain = any_of(random, ["", "other", "\x1b[2J"])
    elif kind == 4:
        function.output[0] = any_of(random, NAMES)
    elif kind == 5:
        function.opset_import[0].version = any_of(random, [0, 6, 11, 25, 99])
    else:
        another_attribute_of(body, random)


def other_sparse(proto: onnx.ModelProto, random: Random) -> None:
    """Make an initializer sparse, with indices that may not fit."""
    tensor = any_of(random, proto.graph.initializer)
    size = any_of(random, [0, 1, 3, 2**40])
    sparse = onnx.SparseTensorProto(dims=tensor.dims)
    sparse.values.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), tensor.name))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array([size])))
    proto.graph.sparse_initializer.append(sparse)
    if random.integers(2):
        proto.graph.initializer.remove(tensor)


def other_header(proto: onnx.ModelProto, random: Random) -> None:
    """Change what the model says of itself."""
    kind = int(random.integers(4))
    if kind == 0:
        proto.ir_version = int(any_of(random, [0, 1, 3, 7, 99, -1]))
    elif kind == 1:
        del proto.opset_import[:]
    elif kind == 2:
        proto.metadata_props.add(key=any_of(random, NAMES), value=any_of(random, NAMES))
    else:
        proto.graph.node.insert(0, helper.make_node(any_of(random, OPERATORS), [], ["more"]))


MUTATIONS: tuple[Mutation, ...] = (
    drop_node, repeat_node, rename, rewire, another_operator, another_domain, another_attribute,
    attribute_without_type, another_shape, another_type, other_numbers, shorter_data, external_data,
    other_opset, other_input, other_output, stale_shapes, no_name, no_output, shuffled, swap_fields,
    repeat_field, drop_field, overridable, another_kind_of_input, put_between, put_between,
    put_between, put_in_branch, spoil_function, other_sparse, other_header,
)  # fmt: skip


def mutated_model(seed: int) -> bytes:
    """Draw the bytes of a model with one to three faults in its fields, or in its bytes."""
    random = np.random.default_rng(seed)
    proto = any_of(random, seeds())
    if random.integers(4) == 0:
        return mutated_bytes(proto.SerializeToString(), random)
    for _ in range(int(random.integers(1, 4))):
        if all(len(getattr(proto.graph, f)) for f in ("node", "initializer", "input", "output")):
            any_of(random, MUTATIONS)(proto, random)
    return proto.SerializeToString()


def options(seed: int) -> dict[str, object]:
    """Draw how a model is converted; mostly as it is by default."""
    random = np.random.default_rng(seed)
    chosen: dict[str, object] = {}
    if random.integers(2):
        chosen["composite"] = any_of(random, COMPOSITES)
    for name in ("fold_weights", "dynamic_batch", "external_data"):
        if random.integers(6) == 0:
            chosen[name] = True
    if random.integers(6) == 0:
        chosen["intermediates"] = [any_of(random, ["c", "f", "a", "logits", "h", *NAMES])]
    if random.integers(6) == 0:
        chosen["masks"] = [any_of(random, ["c", "a*", "*", "", "[", *NAMES])]
    if random.integers(6) == 0:
        chosen["target"] = any_of(random, [0, 2, 3, -1, 2**70, np.int64(1), 0.5, "top", "last"])
    elif random.integers(6) == 0:
        chosen["target"] = any_of(random, ["1-0", "top-1", "2-2", "0-99", "weights", "-", "3-"])
    if random.integers(8) == 0:
        chosen["contrast"] = any_of(random, ["others", "softmax", "all"])
    if random.integers(8) == 0:
        chosen["at"] = any_of(random, ["all", "0", "0,0", "-1,1:", "1:1", "9,9", "", ":", "9" * 30])
        chosen["class_axis"] = any_of(random, [None, None, 1, -1, 0, 7, 2**70])
    return chosen


def mutated_bytes(content: bytes, random: Random) -> bytes:
    """Flip, drop, repeat or cut off some bytes."""
    data = bytearray(content)
    for _ in range(int(random.integers(1, 6))):
        if not data:
            break
        at = int(random.integers(len(data)))
        kind = int(random.integers(4))
        if kind == 0:
            data[at] ^= 1 << int(random.integers(8))
        elif kind == 1:
            del data[at : at + int(random.integers(1, 9))]
        elif kind == 2:
            data[at:at] = data[at : at + int(random.integers(1, 9))]
        else:
            data = data[: max(at, len(data) // 2)]
    return bytes(data)
