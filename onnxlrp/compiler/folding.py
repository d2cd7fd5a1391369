"""Computes what depends on weights alone, for runtimes that do not fold constants."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from onnxlrp.compiler.assembly import ACCOUNT
from onnxlrp.compiler.roots import AT_REFERENCE
from onnxlrp.graph.quantised import WEIGHTS, WITHIN
from onnxlrp.runtime import open_session


def fold_weights(model: ir.Model) -> None:
    """Write out the emitted tensors that only depend on weights, instead of computing them.

    onnxruntime computes them, with the kernels that would compute them at every load: onnx's own
    evaluator drops the bias of a grouped ConvTranspose (onnx 1.23).

    Raises
    ------
    DeviceError
        onnxruntime is missing.

    """
    graph = model.graph
    known = {value for value in graph.initializers.values() if not value.is_graph_input()}
    nodes: list[ir.Node] = []
    for node in graph:
        given = [value for value in node.inputs if value is not None]
        # A quantised model is left as it is.
        name = node.name or ""
        own = name.startswith(WITHIN) and not name.startswith(WEIGHTS)
        if given and known.issuperset(given) and not own:
            nodes.append(node)
            known.update(node.outputs)
    # A result of the model may be constant; it stays computed.
    nodes = [node for node in nodes if not any(value.is_graph_output() for value in node.outputs)]
    folded, told = set(nodes), _told(graph)
    values = [value for node in nodes for value in node.outputs]
    # The audit takes the pass over the reference from where rules read it.
    audited = {v for v in values if _at_reference(v) and not all(map(_of_pass, v.consumers()))}
    read = [v for v in values if v in audited or any(user not in folded for user, _ in v.uses())]
    wanted = [v for v in values if v in read or v.name in told]
    if not wanted:
        return
    arrays = dict(zip(wanted, _computed(model, nodes, wanted), strict=True))
    _tell(graph, {v.name or "": array for v, array in arrays.items() if v not in read})
    names = {value.name for value in audited}
    for value in read:
        kept = ir.Value(
            name=value.name,
            const_value=ir.tensor(arrays[value], name=value.name),
            shape=ir.Shape(arrays[value].shape),
            type=value.type,
        )
        value.replace_all_uses_with(kept)
        value.name = None
        graph.register_initializer(kept)
    for node in reversed(nodes):
        graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if name not in names and not value.uses() and not value.is_graph_output():
            graph.initializers.pop(name)


def _at_reference(value: ir.Value) -> bool:
    return (value.name or "").startswith(AT_REFERENCE)


def _of_pass(node: ir.Node) -> bool:
    return any(map(_at_reference, node.outputs))


def _told(graph: ir.Graph) -> set[str]:
    """Names of the tensors that the accounts of divisions refer to."""
    noted = (json.loads(n.metadata_props[ACCOUNT]) for n in graph if ACCOUNT in n.metadata_props)
    accounts = (account for accounts in noted for account in accounts)
    return {term for account in accounts for term in account.values() if isinstance(term, str)}


def _tell(graph: ir.Graph, numbers: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write numbers into the accounts that name tensors which nothing reads any more."""
    for node in graph:
        if ACCOUNT in node.metadata_props:
            told = [
                {
                    name: numbers[term].tolist()
                    if isinstance(term, str) and term in numbers
                    else term
                    for name, term in account.items()
                }
                for account in json.loads(node.metadata_props[ACCOUNT])
            ]
            node.metadata_props[ACCOUNT] = json.dumps(told)


def _computed(
    model: ir.Model, nodes: list[ir.Node], wanted: list[ir.Value]
) -> list[np.ndarray[Any, Any]]:
    """Run nodes that need nothing but weights."""
    used = {value for node in nodes for value in node.inputs if value is not None}
    graph = onnx.GraphProto(name="weights")
    graph.node.extend(ir.to_proto(node) for node in nodes)
    graph.output.extend(ir.to_proto(value) for value in wanted)
    for value in used:
        if value.const_value is not None:
            tensor = ir.tensor(value.const_value.numpy(), name=value.name)
            graph.initializer.append(ir.to_proto(tensor))
    proto = onnx.ModelProto(ir_version=model.ir_version, graph=graph)
    for domain, version in model.graph.opset_imports.items():
        proto.opset_import.append(onnx.helper.make_opsetid(domain, version))
    session = open_session(proto.SerializeToString(), "the weights", "cpu")
    return [np.asarray(array) for array in session.run(None, {})]
