"""Puts a quantised model beside the twin that was explained, which from then on reads it."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from onnxlrp.compiler.naming import free, value_names
from onnxlrp.compiler.roots import AT_REFERENCE
from onnxlrp.graph.analysis import reads, within
from onnxlrp.graph.derived import NARROW_INTEGERS
from onnxlrp.graph.quantised import COPY, DEQUANTISED, DYNAMIC, READS, SAME, TWIN, WEIGHTS, WITHIN

Held = Mapping[str, ir.Value]
"""By the name that it has in the model, what holds a value."""


def reunite(
    model: ir.Model, own: ir.Graph, weights: Mapping[str, ir.Value], kept: set[str]
) -> None:
    """Put a quantised model's nodes in front of what explains it.

    Where the twin says that it reads the model, it does. What of it nothing reads any more is taken
    out of the graph, for it would run all the same, and noted in the metadata.

    Parameters
    ----------
    model : the twin, and what was written of it
    own : the quantised model's graph, which is used up
    weights : its initializers, by name
    kept : names of the values that stay, whoever reads them

    """
    graph = model.graph
    needed = _needed(graph, kept)
    nodes = list(graph)
    cuts = {n.outputs[0].name: json.loads(n.metadata_props[READS]) for n in nodes if _reads(n)}
    twin = onnx.GraphProto(name="twin")
    names, outputs = [value.name or "" for value in own.outputs], list(own.outputs)
    own.outputs.clear()
    moved = list(own)
    held = _moved(graph, own, weights)
    read = [
        name
        for node in nodes
        if _reads(node) and node.outputs[0] in needed
        for told in [cuts[node.outputs[0].name]]
        if told["how"] in (DEQUANTISED, DYNAMIC)
        for name in told["of"]
        if name
    ]
    repeated = _repeated(graph, held, read)
    for node in reversed(nodes):
        (first, *_) = node.outputs
        name = first.name or ""
        if not any(value in needed for value in node.outputs):
            _note(twin, node)
            for inner in within(node):
                for index in range(len(inner.inputs)):
                    inner.replace_input_with(index, None)
            graph.remove(node, safe=True)
        elif _reads(node):
            _note(twin, node)
            _replace(node, _reading(cuts[name], held, repeated))
        elif name.startswith(AT_REFERENCE) and name.removeprefix(AT_REFERENCE) in cuts:
            (x, *_) = node.inputs
            assert x is not None
            _replace(node, _rounding(x, cuts[name.removeprefix(AT_REFERENCE)], repeated))
        elif node.op_type == "DequantizeLinear" and (chain := _foldable(graph, node)):
            _note(twin, node)
            _replace(node, chain, WEIGHTS)
        elif node.op_type == "DequantizeLinear":
            node.attributes["axis"] = _respelled(node)
    _put_out(graph, outputs, names)
    _separated(graph, moved)
    noted = {name for node in twin.node for name in node.input}
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            tensor = graph.initializers.pop(name).const_value
            assert tensor is not None
            if name in noted:
                twin.initializer.append(ir.to_proto(tensor))
    model.metadata_props[TWIN] = base64.b64encode(twin.SerializeToString()).decode()


def _reads(node: ir.Node) -> bool:
    return READS in node.metadata_props


def _needed(graph: ir.Graph, kept: set[str]) -> set[ir.Value]:
    """Return what the outputs depend on, as far as it is not read of the model."""
    nodes = list(graph)
    needed = {v for node in nodes for v in node.outputs if v.is_graph_output() or v.name in kept}
    for node in reversed(nodes):
        if not _reads(node) and any(value in needed for value in node.outputs):
            needed.update(reads(node))
    return needed


def _moved(graph: ir.Graph, own: ir.Graph, weights: Mapping[str, ir.Value]) -> Held:
    """Move the model's nodes to the front, under names of their own; tell what held a name."""
    taken = value_names(graph)
    held: dict[str, ir.Value] = {value.name or "": value for value in graph.inputs}
    for value in own.inputs:
        name = value.name or ""
        if name not in held:
            if name not in graph.initializers:
                graph.register_initializer(weights[name])
            held[name] = graph.initializers[name]
        ir.convenience.replace_all_uses_with(value, held[name])
    moved = list(own)
    own.remove(moved)
    for node in moved:
        node.name = f"{WITHIN}{node.name}"
        for value in node.outputs:
            if value.name:
                held[value.name] = value
                value.name = free(f"{WITHIN}{value.name}", taken)
    graph.insert_before(graph[0], moved)
    return held


def _separated(graph: ir.Graph, own: Sequence[ir.Node]) -> None:
    """Let the model alone read the weights that onnxruntime packs if nothing else reads them."""
    readers = {reader for node in own for reader in (node, *within(node))}
    for node in own:
        if node.op_type == "DequantizeLinear" and _is_packed(node):
            for value in node.inputs:
                if value is not None and value.is_initializer():
                    _read_copy(graph, value, readers)


def _read_copy(graph: ir.Graph, value: ir.Value, own: Collection[ir.Node]) -> None:
    """Let all but the model's own nodes read a copy of a constant.

    Of one axis at least: onnxruntime takes scalars of one value for the same.
    """
    others = [(user, index) for user, index in value.uses() if user not in own]
    tensor = value.const_value
    if not others or tensor is None:
        return
    if not tensor.shape.rank():
        tensor = ir.tensor(tensor.numpy().reshape(1), dtype=tensor.dtype)
    copy = ir.Value(
        name=f"{WITHIN}{value.name}/copy",
        const_value=tensor,
        shape=ir.Shape(tensor.shape.numpy()),
        type=value.type,
    )
    graph.register_initializer(copy)
    for user, index in others:
        user.replace_input_with(index, copy)


def _is_packed(node: ir.Node) -> bool:
    """Whether onnxruntime makes a MatMulNBits of what weights multiply: what is not quantised."""
    q = node.inputs[0]
    return (q is not None and q.dtype in NARROW_INTEGERS) and any(
        user.op_type in ("MatMul", "Gemm")
        and (x := user.inputs[1 - index]) is not None
        and ((maker := x.producer()) is None or maker.op_type != "DequantizeLinear")
        for user, index in node.outputs[0].uses()
        if index < 2
    )


def _repeated(graph: ir.Graph, held: Held, wanted: Iterable[str]) -> Held:
    """Compute values of the model once more, for the twin to read; what is constant stays.

    onnxruntime converts and merges what is quantised by how many read it: another reader would
    change what the model puts out. It merges equal nodes, too, so these start from a copy.
    """
    needed = {held[name] for name in wanted}
    own = [node for node in graph if (node.name or "").startswith(WITHIN)]
    for node in reversed(own):
        if any(value in needed for value in node.outputs):
            needed.update(value for value in node.inputs if value is not None)
    found: dict[ir.Value, ir.Value] = {}
    nodes: list[ir.Node] = []
    for source in graph.inputs:
        if source in needed:
            nodes += _copying(source)
            found[source] = nodes[-1].outputs[0]
    for node in own:
        live = any(value in found for value in node.inputs)
        again = live or (node.op_type == "DequantizeLinear" and node.inputs[0] is not None)
        subgraph = any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values())
        if subgraph or not again or not any(value in needed for value in node.outputs):
            continue
        attributes = dict(node.attributes)
        if not live:
            attributes["axis"] = _respelled(node)
        outputs = [ir.Value(shape=value.shape, type=value.type) for value in node.outputs]
        nodes.append(
            ir.Node(
                node.domain,
                node.op_type,
                [None if v is None else found.get(v, v) for v in node.inputs],
                list(attributes.values()),
                outputs=outputs,
            )
        )
        found.update(zip(node.outputs, outputs, strict=True))
    for place, node in enumerate(nodes):
        node.name = f"{WITHIN}read/{place}"
        for index, value in enumerate(node.outputs):
            value.name = f"{node.name}:{index}"
    last = own[-1]
    graph.insert_after(last, nodes)
    return {name: found.get(value, value) for name, value in held.items()}


def _respelled(node: ir.Node) -> ir.Attr:
    """Write the axis of a DequantizeLinear from the other end, so that no two are merged."""
    axis = node.attributes["axis"].value if "axis" in node.attributes else 1
    (q, scale) = node.inputs[:2]
    rank = 0 if q is None or q.shape is None else len(q.shape)
    single = scale is not None and scale.const_value is not None and scale.const_value.size == 1
    if single and "block_size" not in node.attributes:
        return ir.AttrInt64("axis", 1 - axis if axis in (0, 1) else 0)
    return ir.AttrInt64("axis", axis - rank if axis >= 0 else axis + rank)


def _copying(x: ir.Value) -> list[ir.Node]:
    """Write what is a value again, and what onnxruntime neither leaves out nor merges with it."""
    kinds = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.INT64, ir.DataType.INT32)
    wide = x.dtype in (*kinds, ir.DataType.FLOAT16)
    chain = [] if wide else [ir.node("Cast", [x], {"to": ir.DataType.INT32.value})]
    chain.append(ir.node("Max", [chain[0].outputs[0] if chain else x]))
    if not wide and x.dtype is not None:
        chain.append(ir.node("Cast", [chain[1].outputs[0]], {"to": x.dtype.value}))
    chain[-1].outputs[0].shape, chain[-1].outputs[0].type = x.shape, x.type
    return chain


def _note(twin: onnx.GraphProto, node: ir.Node) -> None:
    twin.node.append(ir.to_proto(node))
    twin.value_info.extend(ir.to_proto(v) for v in node.outputs if v.type is not None and v.name)


def _replace(node: ir.Node, chain: list[ir.Node], within: str = WITHIN) -> None:
    """Put a chain of nodes, one output each that counts, in the place of one."""
    graph, old, new = node.graph, node.outputs[0], chain[-1].outputs[0]
    assert graph is not None
    new.shape, new.type = old.shape, old.type
    name = old.name
    old.name = None
    for place, step in enumerate(chain):
        step.name = node.name if step is chain[-1] else f"{within}{node.name}/{place}"
        for index, value in enumerate(step.outputs):
            value.name = name if value is new else f"{step.name}:{index}"
    graph.insert_before(node, chain)
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _foldable(graph: ir.Graph, node: ir.Node) -> list[ir.Node]:
    """Write a DequantizeLinear of weights as what onnxruntime folds, which it does not fold.

    Else it would derive all that rules make of weights again at each run. Of blocks it stays.
    """
    q, scale, *zeros = node.inputs
    held = None if scale is None else scale.const_value
    if q is None or q.shape is None or held is None or held.dtype is not ir.DataType.FLOAT:
        return []
    if "block_size" in node.attributes or (zeros and zeros[0] is None):
        return []
    axis = node.attributes["axis"].value if "axis" in node.attributes else 1
    extent = [1] * len(q.shape) if held.size > 1 else []
    if extent:
        extent[axis] = -1
    chain = [ir.node("Cast", [q], {"to": held.dtype.value})]
    for op, value in (("Sub", zeros[0] if zeros else None), ("Mul", scale)):
        if value is None:
            continue
        if value.const_value is None:
            return []
        array = value.const_value.numpy().astype(np.float32).reshape(extent)
        name = f"{WEIGHTS}{node.name}/{op}"
        constant = ir.Value(
            name=name,
            const_value=ir.tensor(array, name=name),
            shape=ir.Shape(array.shape),
            type=ir.TensorType(ir.DataType.FLOAT),
        )
        graph.register_initializer(constant)
        chain.append(ir.node(op, [chain[-1].outputs[0], constant]))
    return chain


def _reading(told: Mapping[str, Any], held: Held, repeated: Held) -> list[ir.Node]:
    """Write how the twin reads the model."""
    how, (name, *_) = told["how"], told["of"]
    if how == SAME:
        return [ir.node("Identity", [held[name]])]
    if how == COPY:
        return _copying(held[name])
    given = [repeated[name] if name else None for name in told["of"]]
    if how == DYNAMIC:
        assert given[0] is not None
        return _rounding(given[0], told, repeated)
    return _dequantise(given, told)


def _rounding(x: ir.Value, told: Mapping[str, Any], repeated: Held) -> list[ir.Node]:
    """Write that x is quantised and dequantised."""
    if told["how"] == DYNAMIC:
        quantise = ir.node("DynamicQuantizeLinear", [x], num_outputs=3)
        return [quantise, *_dequantise(list(quantise.outputs), {"axis": None, "domain": ""})]
    if told["how"] != DEQUANTISED:
        return [ir.node("Identity", [x])]
    given = [repeated[name] if name else None for name in told["of"]]
    quantise = ir.node("QuantizeLinear", [x, *given[1:]], domain=told["domain"])
    return [quantise, *_dequantise([quantise.outputs[0], *given[1:]], told)]


def _dequantise(given: list[ir.Value | None], told: Mapping[str, Any]) -> list[ir.Node]:
    given = given if given[-1] is not None else given[:-1]
    axis = {} if told["axis"] is None else {"axis": told["axis"]}
    meant = ir.node("DequantizeLinear", given, axis, domain=told["domain"])
    # Else onnxruntime would compute the twin's products in whole numbers, which overflow on
    # processors without instructions for them.
    return [meant, ir.node("Max", [meant.outputs[0]])]


def _put_out(graph: ir.Graph, wanted: list[ir.Value], names: list[str]) -> None:
    """Put out what the model does, in its order, then all else."""
    ours = {value.name or "": value for value in graph.outputs}
    outputs = []
    for value, name in zip(wanted, names, strict=True):
        if name not in ours:
            # Whole numbers, for which the twin has their meaning under another name.
            handed = ir.Value(name=name, shape=value.shape, type=value.type)
            graph.append(
                ir.node("Identity", [value], outputs=[handed], name=f"{WITHIN}{name}/output")
            )
            ours[name] = handed
        outputs.append(ours.pop(name))
    graph.outputs[:] = [*outputs, *ours.values()]
