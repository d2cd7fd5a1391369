"""Models, files and command lines with something wrong in them, drawn from a seed."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper
from support import model, node, normal

Random = np.random.Generator
Mutation = Callable[[onnx.ModelProto, Random], None]


def seeds() -> list[onnx.ModelProto]:
    """Return small sound models: a picture classifier, attention over tokens, local functions."""
    pictures = model(
        [
            node("Conv", ["x", "k", "b"], "c", pads=[1] * 4, kernel_shape=[3, 3]),
            node("BatchNormalization", ["c", "g", "b", "b", "v"], "n"),
            node("Relu", ["n"], "a"),
            node("MaxPool", ["a"], "p", kernel_shape=[2, 2], strides=[2, 2]),
            node("LRN", ["p"], "l", size=3),
            node("GlobalAveragePool", ["l"], "m"),
            node("Flatten", ["m"], "f"),
            node("Gemm", ["f", "w"], "logits"),
            node("Softmax", ["logits"], "probability"),
        ],
        {"x": ["N", 3, 8, 8]},
        ["probability"],
        {
            "k": normal(4, 3, 3, 3, seed=1),
            "b": normal(4, seed=2),
            "g": normal(4, seed=3),
            "v": np.abs(normal(4, seed=4)) + 0.1,
            "w": normal(4, 3, seed=5),
        },
    )
    attention = model(
        [
            node("MatMul", ["x", "q"], "queries"),
            node("Transpose", ["queries"], "keys", perm=[0, 2, 1]),
            node("MatMul", ["queries", "keys"], "scores"),
            node("Softmax", ["scores"], "shares"),
            node("MatMul", ["shares", "x"], "mixed"),
            node("LayerNormalization", ["mixed", "s"], "n"),
            node("ReduceMean", ["n", "axis"], "f", keepdims=0),
            node("Gemm", ["f", "w"], "logits"),
        ],
        {"x": ["N", 5, 6]},
        ["logits"],
        {
            "q": normal(6, 4, seed=1),
            "s": normal(6, seed=2),
            "axis": np.array([1]),
            "w": normal(6, 3, seed=3),
        },
    )
    return [pictures, attention]


def _any(random: Random, things):  # type: ignore[no-untyped-def]
    things = list(things)
    return things[int(random.integers(len(things)))]


NAMES = ("", "x", "onnxlrp/relevance/x", "target", "\x1b[2J", "a" * 5000, "Größe", "../../x", "%s")
SIZES = (-1, 0, 1, 2, 7, 2**31, 2**62)
OPERATORS = (
    "Add", "Conv", "Gemm", "If", "Loop", "LSTM", "MatMul", "Nothing", "Pad", "Reshape", "Resize",
    "SplitToSequence", "Softmax", "Sub", "TopK", "Where",
)  # fmt: skip


def drop_node(proto: onnx.ModelProto, random: Random) -> None:
    del proto.graph.node[int(random.integers(len(proto.graph.node)))]


def repeat_node(proto: onnx.ModelProto, random: Random) -> None:
    proto.graph.node.append(_any(random, proto.graph.node))


def rename(proto: onnx.ModelProto, random: Random) -> None:
    one = _any(random, proto.graph.node)
    names = _any(random, [one.input, one.output])
    if names:
        names[int(random.integers(len(names)))] = _any(random, NAMES)


def rewire(proto: onnx.ModelProto, random: Random) -> None:
    """Let a node read any value: also its own, which makes a cycle."""
    one = _any(random, [n for n in proto.graph.node if n.input])
    values = [name for n in proto.graph.node for name in (*n.input, *n.output)]
    one.input[int(random.integers(len(one.input)))] = _any(random, values)


def another_operator(proto: onnx.ModelProto, random: Random) -> None:
    _any(random, proto.graph.node).op_type = _any(random, OPERATORS)


def another_domain(proto: onnx.ModelProto, random: Random) -> None:
    domain = _any(random, ["com.acme", "ai.onnx.ml", "com.microsoft", "ai.onnx", "\x1b]0;x\x07"])
    _any(random, proto.graph.node).domain = domain
    if random.integers(2):
        proto.opset_import.append(helper.make_opsetid(domain, _any(random, SIZES)))


def another_attribute(proto: onnx.ModelProto, random: Random) -> None:
    one = _any(random, proto.graph.node)
    values = (7, -3, 0.5, float("nan"), "text", [2, 2], [0] * 9, [-1, 5], [0.5])
    known = ("kernel_shape", "pads", "strides", "axis", "perm", "alpha", "size", "transB", "group")
    name = _any(random, [*known, *(a.name for a in one.attribute)])
    for index, attribute in enumerate(one.attribute):
        if attribute.name == name:
            del one.attribute[index]
            break
    if random.integers(4):
        one.attribute.append(helper.make_attribute(name, _any(random, values)))


def attribute_without_type(proto: onnx.ModelProto, random: Random) -> None:
    kind = _any(random, [AttributeProto.UNDEFINED, AttributeProto.GRAPH, AttributeProto.TENSOR])
    _any(random, proto.graph.node).attribute.append(AttributeProto(name="body", type=kind))


def another_shape(proto: onnx.ModelProto, random: Random) -> None:
    tensor = _any(random, proto.graph.initializer)
    dims = list(tensor.dims)
    if random.integers(2) and dims:
        dims[int(random.integers(len(dims)))] = _any(random, SIZES)
    else:
        dims = dims[::-1] if random.integers(2) else [*dims, 1]
    tensor.dims[:] = dims


def another_type(proto: onnx.ModelProto, random: Random) -> None:
    tensor = _any(random, proto.graph.initializer)
    tensor.data_type = int(_any(random, [0, 2, 7, 8, 10, 11, 14, 16, 17, 23, 99]))


def other_numbers(proto: onnx.ModelProto, random: Random) -> None:
    tensor = _any(random, proto.graph.initializer)
    data = bytearray(tensor.raw_data)
    if len(data) >= 4:
        at = 4 * int(random.integers(len(data) // 4))
        value = _any(random, [0, np.nan, np.inf, -1e30, 1e-40, -1])
        data[at : at + 4] = np.float32(value).tobytes()
        tensor.raw_data = bytes(data)


def shorter_data(proto: onnx.ModelProto, random: Random) -> None:
    tensor = _any(random, proto.graph.initializer)
    tensor.raw_data = tensor.raw_data[: int(random.integers(len(tensor.raw_data) + 1))]


def external_data(proto: onnx.ModelProto, random: Random) -> None:
    tensor = _any(random, proto.graph.initializer)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entries = {
        "location": _any(random, ["/etc/passwd", "../x", "", "missing", "model.onnx", "\0"]),
        "offset": _any(random, ["-1", "0", "x", "9" * 40]),
        "length": _any(random, ["-1", "0", "16", "9" * 5000]),
    }
    for key, value in entries.items():
        if random.integers(3):
            tensor.external_data.add(key=key, value=value)


def other_opset(proto: onnx.ModelProto, random: Random) -> None:
    proto.opset_import[0].version = int(_any(random, [0, 1, 6, 7, 11, 13, 17, 21, 25, 99, -5]))


def other_input(proto: onnx.ModelProto, random: Random) -> None:
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    if dims:
        dim = dims[int(random.integers(len(dims)))]
        if random.integers(2):
            dim.dim_param = _any(random, NAMES)
        else:
            dim.dim_value = int(_any(random, SIZES))


def other_output(proto: onnx.ModelProto, random: Random) -> None:
    kind = proto.graph.output[0].type.tensor_type
    kind.elem_type = int(_any(random, [1, 1, 7, 10, 99]))
    kind.shape.dim.add(dim_value=int(_any(random, SIZES)))


def stale_shapes(proto: onnx.ModelProto, random: Random) -> None:
    value = _any(random, [name for n in proto.graph.node for name in n.output])
    shape = [int(_any(random, SIZES[2:5])) for _ in range(int(random.integers(6)))]
    proto.graph.value_info.append(helper.make_tensor_value_info(value, 1, shape))


def no_name(proto: onnx.ModelProto, random: Random) -> None:
    _any(random, proto.graph.node).name = _any(random, NAMES)


def no_output(proto: onnx.ModelProto, random: Random) -> None:
    del proto.graph.output[:]


def shuffled(proto: onnx.ModelProto, random: Random) -> None:
    nodes = list(proto.graph.node)
    random.shuffle(nodes)  # type: ignore[arg-type]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


MUTATIONS: tuple[Mutation, ...] = (
    drop_node, repeat_node, rename, rewire, another_operator, another_domain, another_attribute,
    attribute_without_type, another_shape, another_type, other_numbers, shorter_data, external_data,
    other_opset, other_input, other_output, stale_shapes, no_name, no_output, shuffled,
)  # fmt: skip


def mutated_model(seed: int) -> bytes:
    """Draw the bytes of a model with one to three faults in its fields, or in its bytes."""
    random = np.random.default_rng(seed)
    proto = onnx.ModelProto()
    proto.CopyFrom(_any(random, seeds()))
    if random.integers(4) == 0:
        return mutated_bytes(proto.SerializeToString(), random)
    for _ in range(int(random.integers(1, 4))):
        if proto.graph.node and proto.graph.initializer and proto.graph.output:
            _any(random, MUTATIONS)(proto, random)
    return proto.SerializeToString()


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


def mutated_text(text: str, seed: int) -> str:
    """Swap, drop and repeat lines and words of a text, or put something odd in a place."""
    random = np.random.default_rng(seed)
    odd = ["nan", "-1", "1e999", "[]", '""', "{}", "9" * 5000, "\u2028", "[[[[", "true", "²"]
    lines = text.splitlines()
    for _ in range(int(random.integers(1, 5))):
        at = int(random.integers(len(lines)))
        kind = int(random.integers(4))
        if kind == 0:
            lines[at] = lines[at].partition("=")[0] + "= " + _any(random, odd)
        elif kind == 1:
            lines.insert(at, _any(random, lines))
        elif kind == 2 and len(lines) > 1:
            del lines[at]
        else:
            lines[at] = lines[at][: int(random.integers(len(lines[at]) + 1))] + _any(random, odd)
    return "\n".join(lines)


def command_line(seed: int) -> list[str]:
    """Draw a command with options and values, most of which make no sense."""
    random = np.random.default_rng(seed)
    files = [
        "model.onnx",
        "explainer.onnx",
        "photo.png",
        "set.npy",
        "none",
        "folder",
        "my.toml",
        ".",
    ]
    numbers = ["0", "1", "-1", "--5", "²", "9" * 30, "nan", "3x3", "top", "top:3", "0,0", ""]
    texts = [
        "default",
        "epsilon",
        "epsilon; LRN: identity",
        ";",
        "Conv: flat",
        ":",
        "*: zero",
        "a=b",
    ]
    options = {
        "inspect": ["--nodes", "--json", "--composite", "--rule", "--set", "--output", "--target"],
        "convert": ["--composite", "--set", "--mask", "--intermediate", "--dynamic-batch",
                    "--fold-weights", "--preprocess", "--resize", "--mean", "--input", "--target"],
        "check": ["--random", "--target", "--inputs", "--layers", "--json"],
        "explain": ["--target", "--format", "--labels", "--batch", "--threads", "--colours", "-o"],
        "compare": ["--data", "--plot", "--tolerance", "--target", "--preprocess"],
        "sheet": ["-o", "--preprocess", "--composite", "--target", "--labels"],
        "composites": ["--json"],
    }  # fmt: skip
    command = _any(random, options)
    words = [command]
    for _ in range(int(random.integers(0, 3))):
        words.append(_any(random, files))
    for _ in range(int(random.integers(0, 4))):
        words.append(_any(random, options[command]))
        if random.integers(4):
            words.append(_any(random, [*files, *numbers, *texts]))
    return words


def mutated_json(settings: object, seed: int) -> str:
    """Change the text of some JSON."""
    return mutated_text(json.dumps(settings, indent=1).replace(":", " ="), seed).replace(" =", ":")
