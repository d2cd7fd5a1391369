"""What once ended in a traceback, or in an explainer that did not run: a model, and its fault."""

from collections.abc import Callable

import onnx
from fuzz.seeds import seeds
from onnx import AttributeProto, helper

PICTURES, ATTENTION, OLD = 0, 1, 4


def _symbolic_channels(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "C"


def _kernel_of_another_rank(proto: onnx.ModelProto) -> None:
    kernel = next(tensor for tensor in proto.graph.initializer if tensor.name == "k")
    kernel.dims.append(1)


def _kernel_that_is_a_row(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].input[1] = "g"


def _keepdims_eight(proto: onnx.ModelProto) -> None:
    mean = next(node for node in proto.graph.node if node.op_type == "ReduceMean")
    mean.attribute[0].i = 8


def _empty_attribute(proto: onnx.ModelProto) -> None:
    norm = next(node for node in proto.graph.node if node.op_type == "LayerNormalization")
    norm.attribute.append(AttributeProto(name="body", type=AttributeProto.TENSOR))


def _nothing_along_an_axis(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 0


def _escape_sequence(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].domain = "\x1b]0;title\x07"
    proto.opset_import.append(helper.make_opsetid(proto.graph.node[0].domain, 1))


def _smaller_than_a_window(proto: onnx.ModelProto) -> None:
    """onnx infers a length of -1, and ends the process when it slices that."""
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 1


def _as_large_as_nothing(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 2


def _slope_with_a_batch(proto: onnx.ModelProto) -> None:
    """onnxruntime computes three samples of one."""
    slope = next(tensor for tensor in proto.graph.initializer if tensor.name == "slope")
    slope.dims.append(1)


def _version_below_one(proto: onnx.ModelProto) -> None:
    """onnxruntime fuses products of a transposed operand, and then has no such operator."""
    proto.opset_import.append(helper.make_opsetid("com.microsoft", -1))


CORPUS: dict[str, tuple[int, Callable[[onnx.ModelProto], None]]] = {
    "a channel count that is a symbol": (PICTURES, _symbolic_channels),
    "a kernel with one axis too many": (PICTURES, _kernel_of_another_rank),
    "a kernel that is a row of numbers": (PICTURES, _kernel_that_is_a_row),
    "keepdims that is neither 0 nor 1": (ATTENTION, _keepdims_eight),
    "an attribute that is an empty tensor": (ATTENTION, _empty_attribute),
    "an axis of size 0": (ATTENTION, _nothing_along_an_axis),
    "an input below a window, in front of a slice": (OLD, _smaller_than_a_window),
    "an input of which a window leaves nothing": (OLD, _as_large_as_nothing),
    "a slope with more axes than its input": (OLD, _slope_with_a_batch),
    "a version of operators below 1": (ATTENTION, _version_below_one),
    "a domain that commands the terminal": (PICTURES, _escape_sequence),
}


def case(name: str) -> bytes:
    """Return the bytes of a faulty model."""
    seed, spoil = CORPUS[name]
    proto = seeds()[seed]
    spoil(proto)
    return proto.SerializeToString()
