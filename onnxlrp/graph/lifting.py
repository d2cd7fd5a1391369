"""Makes a protobuf valid: checked, functions written out, opset 18 or later, shapes inferred."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from graphlib import CycleError, TopologicalSorter

import onnx
import onnx.inliner
from onnx import version_converter

from onnxlrp.errors import ModelError, OnnxlrpError
from onnxlrp.graph.bodies import MICROSOFT
from onnxlrp.graph.expanding import expand, rename
from onnxlrp.graph.flattening import flatten, is_flat
from onnxlrp.graph.meanings import split
from onnxlrp.graph.older import modernise, resample_as_before
from onnxlrp.graph.shapes import inferred
from onnxlrp.graph.support_vectors import turned
from onnxlrp.graph.tensors import SMALL, elements
from onnxlrp.graph.texts import dictionary

MINIMUM_OPSET = 18
"""Opset that older models are lifted to; explainers are never written below it."""

_LARGEST = 1 << 32
"""Size of an axis; onnx's own inference counts up to it in places."""

# From here on, what changed up to opset 18 is written out in `_lift_reductions`.
_NEARLY = 13
# Scan lost its batch.
_BATCHLESS = 9
_WINDOWS = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool")
_REDUCTIONS = {
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean"),
    *("ReduceMin", "ReduceProd", "ReduceSumSquare"),
}


@contextmanager
def malformed() -> Iterator[None]:
    """Turn whatever is raised over a model into one line of a `ModelError`.

    What reads models raises many types, of Python and of C++, and chains them.
    """
    try:
        yield
    except (OnnxlrpError, OSError):
        raise
    except Exception as error:
        raise ModelError(f"the model is malformed: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """Return what the first of a chain of exceptions says, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:400] or type(error).__name__


def prepare(
    proto: onnx.ModelProto,
) -> tuple[onnx.ModelProto, onnx.GraphProto | None, list[str]]:
    """Check a model as onnx does, inline functions, lift, write out control flow, infer shapes.

    Large weights are set aside meanwhile: onnx's C++ copies its input, and limits it to 2 GB.

    Returns
    -------
    the model; of a quantised one its twin, and what it was without weights (`meanings.split`);
    and what the user should know of outputs that were left out

    Raises
    ------
    ModelError
        The model is not valid, its shapes contradict each other, or it cannot be lifted.

    """
    opset = opset_of(proto)
    newest = onnx.defs.onnx_opset_version()
    if opset > newest:
        raise ModelError(
            f"the model uses opset {opset}, but the installed onnx knows opsets up to {newest}; "
            "run `pip install --upgrade onnx`"
        )
    for entry in proto.opset_import:
        if entry.version < 1:
            raise ModelError(
                f"the model is malformed: it imports version {entry.version} of the operators of "
                f"'{entry.domain or 'ai.onnx'}'"
            )
    _usual(proto)
    weights = set_aside(proto.graph)
    sort(proto.graph)
    notes = [*leave_out(proto.graph), *turned(proto.graph)]
    constant = {tensor.name for tensor in proto.graph.initializer}
    for value in (*proto.graph.input, *proto.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value > _LARGEST:
                raise ModelError(
                    f"the model is malformed: '{value.name}' has an axis of size {dim.dim_value}"
                )
    for value in proto.graph.input:
        if value.type.HasField("map_type"):
            raise ModelError(dictionary(proto.graph, value.name))
        for dim in value.type.tensor_type.shape.dim:
            empty = dim.HasField("dim_value") and dim.dim_value == 0
            if empty and value.name not in constant:
                raise ModelError(f"input '{value.name}' has an axis of size 0: it holds nothing")
            # Some exporters' way of writing a size that is not known.
            if dim.dim_value < 0:
                dim.ClearField("value")
    modernise(proto, opset)
    proto = _inline(proto)
    if rename(proto.graph, opset) and MICROSOFT not in {e.domain for e in proto.opset_import}:
        proto.opset_import.append(onnx.helper.make_opsetid(MICROSOFT, 1))
    _check_operators(proto.graph)
    _check(proto)
    _check_slices(proto)
    proto = _lift(proto, opset)
    resample_as_before(proto.graph, opset)
    if not is_flat(proto):
        proto = flatten(proto, {tensor.name for tensor in weights}, _infer)
        weights += set_aside(proto.graph)
    own = split(proto, weights)
    proto = _infer(expand(proto))
    put_back(proto.graph, weights)
    return proto, own, notes


def _usual(proto: onnx.ModelProto) -> None:
    """Write as onnx asks for it what onnxruntime takes otherwise: names of graphs and domains."""
    graph = proto.graph
    graph.name = graph.name or "graph"
    for entry in (*proto.opset_import, *graph.node):
        entry.domain = "" if entry.domain == "ai.onnx" else entry.domain
    # Some exporters write a domain twice; the last counts.
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    del proto.opset_import[:]
    proto.opset_import.extend(onnx.helper.make_opsetid(*entry) for entry in versions.items())
    once = {value.name: value for value in reversed(graph.output)}
    if len(once) < len(graph.output):
        outputs = [onnx.ValueInfoProto.FromString(v.SerializeToString()) for v in once.values()]
        del graph.output[:]
        graph.output.extend(outputs[::-1])


def leave_out(graph: onnx.GraphProto) -> list[str]:
    """Drop outputs that are no tensors: lists and dictionaries, as of ZipMap or SplitToSequence.

    The probabilities that scikit-learn's exporter puts into dictionaries take their place.
    """
    makers = {name: node for node in graph.node for name in node.output}
    notes, kept = [], []
    for value in graph.output:
        maker = makers.get(value.name)
        if value.type.WhichOneof("value") in (None, "tensor_type"):
            kept.append(value)
        elif maker is not None and maker.op_type == "ZipMap" and maker.input:
            labels = [len(a.ints) or len(a.strings) for a in maker.attribute]
            shape = (None, *labels)
            kept.append(onnx.helper.make_tensor_value_info(maker.input[0], 1, shape))
            graph.node.remove(maker)
            notes.append(f"'{maker.input[0]}' is in place of '{value.name}', which is no tensor")
        else:
            notes.append(f"output '{value.name}' is left out, for it is no tensor")
    if not kept:
        raise ModelError(f"the model has no outputs that hold scores: {'; '.join(notes)}")
    if notes:
        outputs = [onnx.ValueInfoProto.FromString(v.SerializeToString()) for v in kept]
        del graph.output[:]
        graph.output.extend(outputs)
    return notes


def sort(graph: onnx.GraphProto) -> None:
    """Put the nodes behind those that they read, as onnx demands and onnxruntime does not."""
    makers = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    reads = [{makers[n] for n in read_by(node) if n in makers} for node in graph.node]
    if all(other < i for i, others in enumerate(reads) for other in others):
        return
    try:
        order = list(TopologicalSorter(dict(enumerate(reads))).static_order())
    except CycleError as error:
        circle = ", ".join(graph.node[i].name or graph.node[i].op_type for i in error.args[1][1:])
        raise ModelError(f"the model is malformed: nodes read each other: {circle}") from None
    nodes = [graph.node[i] for i in order]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def read_by(node: onnx.NodeProto) -> Iterator[str]:
    """Yield what a node and its subgraphs read, but for what the subgraphs hold themselves."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            own = {held.name for held in (*graph.input, *graph.initializer)}
            own.update(name for inner in graph.node for name in inner.output)
            for inner in graph.node:
                yield from (name for name in read_by(inner) if name not in own)


def _check_operators(graph: onnx.GraphProto) -> None:
    """Check that ONNX knows the operators that are said to be its own, in some opset."""
    unknown: dict[str, list[str]] = {}
    for node in graph.node:
        if not node.domain and not onnx.defs.has(node.op_type):
            unknown.setdefault(node.op_type, []).append(node.name or ", ".join(node.output))
    if unknown:
        listing = "; ".join(f"{kind} ({', '.join(names)})" for kind, names in unknown.items())
        raise ModelError(
            f"ONNX has no operators of these names: {listing}; export the model again, with opset "
            f"{MINIMUM_OPSET} or later, so that none of the framework's own is left"
        )


def _check(proto: onnx.ModelProto) -> None:
    """Check as onnx does, but for shapes of inputs and outputs, which may be unknown."""
    unknown = [
        tensor
        for value in (*proto.graph.input, *proto.graph.output)
        if value.type.HasField("tensor_type")
        and not (tensor := value.type.tensor_type).HasField("shape")
    ]
    for tensor in unknown:
        tensor.shape.SetInParent()
    made = {name: node for node in proto.graph.node for name in node.output}
    for value in proto.graph.output:
        if value.type.WhichOneof("value") is None and value.name in made:
            node = made[value.name]
            raise ModelError(
                f"the model is malformed: output '{value.name}', which node '{node.name}' "
                f"({node.op_type}) computes, has no type: declare it with its shape"
            )
    onnx.checker.check_model(proto)
    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR and not attribute.t.data_type:
                raise ModelError(f"attribute '{attribute.name}' of {node.name} is an empty tensor")
    for tensor in unknown:
        tensor.ClearField("shape")


def opset_of(proto: onnx.ModelProto | onnx.FunctionProto) -> int:
    """Return the version of ONNX's own operators that is imported; 0 if none is."""
    own = [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    return own[-1] if own else 0


def set_aside(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    """Take large initializers out; they become inputs."""
    large = [t for t in graph.initializer if elements(t) > SMALL]
    small = [t for t in graph.initializer if elements(t) <= SMALL]
    listed = {value.name for value in graph.input}
    for tensor in large:
        if tensor.name not in listed:
            graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    del graph.initializer[:]
    graph.initializer.extend(small)
    return large


def put_back(graph: onnx.GraphProto, weights: list[onnx.TensorProto]) -> None:
    """Undo `set_aside`; initializers that were listed as inputs are so no longer."""
    graph.initializer.extend(weights)
    names = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in names]
    del graph.input[:]
    graph.input.extend(inputs)


def _inline(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Write functions out where they are called; those of another opset are lifted to the highest.

    Before the lift of the model, for onnx's converter drops functions.
    """
    if not proto.functions:
        return proto
    functions = list(proto.functions)
    highest = max(opset_of(entry) for entry in (proto, *functions))
    if opset_of(proto) < highest and opset_of(proto):
        proto = version_converter.convert_version(proto, highest)
        del proto.functions[:]
        proto.functions.extend(functions)
    elif not opset_of(proto):
        proto.opset_import.append(onnx.helper.make_opsetid("", highest))
    # A domain that only functions import.
    known = {entry.domain for entry in proto.opset_import}
    for function in functions:
        for entry in function.opset_import:
            if entry.domain not in known and entry.domain != "ai.onnx":
                known.add(entry.domain)
                proto.opset_import.append(entry)
    # The converter of functions asks for the types of all that they read.
    proto = onnx.shape_inference.infer_shapes(proto)
    graph = proto.graph
    typed = {value.name for value in (*graph.input, *graph.value_info)}
    graph.value_info.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in graph.initializer
        if tensor.name not in typed
    )
    return onnx.inliner.inline_local_functions(proto, convert_version=True)


def _lift(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Lift a model; `opset` is what its file says."""
    # Without an opset none of ONNX's own operators is used.
    if opset >= MINIMUM_OPSET or not opset:
        return proto
    if opset < _BATCHLESS and any(operator == "Scan" for operator in _operators(proto.graph)):
        raise ModelError(
            f"onnx cannot lift Scan from opset {opset}, which goes along axis 1 of a batch; export "
            f"the model again with opset {_BATCHLESS} or later"
        )
    try:
        return version_converter.convert_version(proto, MINIMUM_OPSET)
    # The C++ converter raises many types.
    except Exception as error:
        if opset >= _NEARLY and _lift_reductions(proto.graph):
            for entry in proto.opset_import:
                if entry.domain in ("", "ai.onnx"):
                    entry.version = MINIMUM_OPSET
            _check(proto)
            return proto
        raise ModelError(
            f"onnx cannot lift the model from opset {opset} to {MINIMUM_OPSET}: "
            f"{reason(error)}; export it again with opset 18 or later"
        ) from error


def _operators(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the operators of a graph's nodes, and of those inside."""
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _operators(inner)


def _lift_reductions(graph: onnx.GraphProto) -> bool:
    """Write the nodes of opset 13 to 17 as opset 18 has them; tell whether all could be.

    Between them, Reduce* and Split got inputs or attributes for what were attributes or nothing;
    RoiAlign changed what it computes; all else only took more.
    """
    for node in graph.node:
        if node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type == "RoiAlign":
            return False
        for attribute in list(node.attribute):
            subgraphs = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
            if not all(map(_lift_reductions, subgraphs)):
                return False
            if node.op_type in _REDUCTIONS and attribute.name == "axes":
                name = f"{node.output[0]}_axes"
                axes = onnx.helper.make_tensor(
                    name, onnx.TensorProto.INT64, [len(attribute.ints)], attribute.ints
                )
                graph.initializer.append(axes)
                node.input.append(name)
                node.attribute.remove(attribute)
        if node.op_type == "Split" and (len(node.input) < 2 or not node.input[1]):
            node.attribute.append(onnx.helper.make_attribute("num_outputs", len(node.output)))
    return True


def _infer(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Infer the types of all values; what the file says of them counts where onnx knows less.

    A file's own shapes may be stale, or hold for one batch only.
    """
    graph = proto.graph
    declared = {value.name: value for value in (*graph.value_info, *graph.output)}
    names = [value.name for value in graph.output]
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    del bare.graph.value_info[:], bare.graph.output[:]
    bare.graph.output.extend(map(onnx.helper.make_empty_tensor_value_info, names))
    for value in bare.graph.output:
        value.ClearField("type")
    bare = inferred(bare, strict=True)
    made = {name for node in graph.node for name in node.output}
    found = {value.name: value for value in (*bare.graph.value_info, *bare.graph.output)}
    for name, value in declared.items():
        known = found.get(name)
        if known is None or not known.HasField("type"):
            # Of values that do not exist, too, something may be said.
            if known is not None or name in made:
                found[name] = value
        else:
            _fill(known.type.tensor_type, value.type.tensor_type)
    _check_lengths(graph, found.values())
    del graph.value_info[:], graph.output[:]
    graph.output.extend(found.pop(name) for name in names)
    # onnx_ir knows no dictionaries.
    graph.value_info.extend(v for v in found.values() if v.type.HasField("tensor_type"))
    return proto


def _check_lengths(graph: onnx.GraphProto, values: Iterable[onnx.ValueInfoProto]) -> None:
    """Check that no axis has a length below 0, and of what windows make none has length 0."""
    windows = {name for node in graph.node if node.op_type in _WINDOWS for name in node.output}
    for value in values:
        least = 1 if value.name in windows else 0
        dims = value.type.tensor_type.shape.dim
        if any(dim.HasField("dim_value") and dim.dim_value < least for dim in dims):
            raise ModelError(
                f"the model is malformed: '{value.name}' has axes of a length below {least}; what "
                "a window or a slice reads is larger than what there is"
            )


def _check_slices(proto: onnx.ModelProto) -> None:
    """Check the lengths that each Slice reads, for onnx ends the process where one is below 0.

    The nodes up to each are inferred on their own, and once.
    """
    if not any(node.op_type == "Slice" for node in proto.graph.node):
        return
    part = onnx.ModelProto()
    part.CopyFrom(proto)
    del part.graph.node[:], part.graph.value_info[:], part.graph.output[:]
    for node in proto.graph.node:
        if node.op_type == "Slice":
            made = part.graph
            part = inferred(part)
            _check_lengths(made, part.graph.value_info)
            del part.graph.node[:]
        part.graph.node.append(node)


def _fill(known: onnx.TypeProto.Tensor, declared: onnx.TypeProto.Tensor) -> None:
    """Take over the declared type, and the sizes of the axes, of which nothing is known."""
    known.elem_type = known.elem_type or declared.elem_type
    if not declared.HasField("shape"):
        return
    if not known.HasField("shape"):
        known.shape.CopyFrom(declared.shape)
    elif len(known.shape.dim) == len(declared.shape.dim):
        for mine, theirs in zip(known.shape.dim, declared.shape.dim, strict=True):
            if not mine.HasField("dim_value") and not mine.dim_param:
                mine.CopyFrom(theirs)
