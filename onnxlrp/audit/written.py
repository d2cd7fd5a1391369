"""What an explainer's file says: the model in it, and what was written for each of its nodes."""

from __future__ import annotations

import ast
import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from onnxlrp.errors import ModelError
from onnxlrp.files import check_there
from onnxlrp.graph.analysis import Facts, analyse
from onnxlrp.graph.canonical import Operation, operations
from onnxlrp.graph.derived import hold_derived
from onnxlrp.graph.head import network_of
from onnxlrp.graph.lifting import sort
from onnxlrp.graph.quantised import TWIN, WITHIN
from onnxlrp.graph.score import Score
from onnxlrp.graph.shapes import signature
from onnxlrp.running.contract import Contract, Tensor

Source = str | PathLike[str] | onnx.ModelProto

_WRITTEN = "onnxlrp/"
_RELEVANCE = "onnxlrp/relevance/"
_REFERENCE = "onnxlrp/reference/"

_STEPS = {
    ir.DataType.DOUBLE: 2.0**-52,
    ir.DataType.FLOAT: 2.0**-23,
    ir.DataType.FLOAT16: 2.0**-10,
    ir.DataType.BFLOAT16: 2.0**-7,
}


@dataclass(frozen=True)
class Rule:
    """A rule as a node of the model got it.

    Attributes
    ----------
    name : of the rule; the operator's where it leaves no choice
    parameters : all of them, by name

    """

    name: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Written:
    """An explainer, taken apart.

    Attributes
    ----------
    proto : the file; tensors in external data are not loaded
    folder : where external data lie; None where there is no file
    contract : what the explainer says about itself
    facts : of the model in it; `facts.operations` are what relevance crosses, in order
    score : the value that relevance starts from
    inputs : the model's own inputs
    added : the inputs that only relevance depends on: the target, masks
    relevance : name of the tensor that holds the relevance of a value, by the value's name; not
        for values that only hand relevance on unchanged
    rules : by the name of the model's node, of every operation that relevance crosses
    accounts : the divisions made for a node of the model, by its name: names of the tensors that
        hold the terms `relevance`, `denominator`, `bias` and `share`, or their numbers

    """

    proto: onnx.ModelProto
    folder: Path | None
    contract: Contract
    facts: Facts
    score: ir.Value
    inputs: Mapping[str, Tensor]
    added: Mapping[str, Tensor]
    relevance: Mapping[str, str]
    rules: Mapping[str, Rule]
    accounts: Mapping[str, list[dict[str, str | int | list[float]]]]

    @property
    def emitted(self) -> list[onnx.NodeProto]:
        """The nodes that are not the model's own."""
        return [node for node in self.proto.graph.node if node.name.startswith(_WRITTEN)]

    def at_reference(self, name: str) -> str:
        """Return what holds a value's counterpart at the reference; "" where nothing does."""
        if name in self.contract.references:
            return self.contract.references[name]
        copy = f"{_REFERENCE}{name}"
        return copy if copy in self._computed else ""

    @cached_property
    def _computed(self) -> frozenset[str]:
        """Names of what nodes compute, or where weights are folded, would have."""
        graph = self.proto.graph
        stored = (tensor.name for tensor in graph.initializer)
        return frozenset([*stored, *(name for node in graph.node for name in node.output)])

    @property
    def precision(self) -> float:
        """Distance of 1 to the next number of the coarsest type that the model computes in."""
        values = (v for operation in self.facts.operations for v in operation.inputs)
        return max(rounding_of(value) for value in values)

    def distributes(self, operation: Operation) -> bool:
        """Tell whether an operation's rule spreads the share of its bias over the inputs."""
        rule = self.rules.get(operation.name)
        return rule is not None and rule.parameters.get("bias") == "distribute"


def rounding_of(value: ir.Value | None) -> float:
    """Return the distance of 1 to the next number of a value's type, 0 for whole numbers."""
    return _STEPS.get(value.dtype, 0.0) if value is not None and value.dtype is not None else 0.0


def parse(source: Source, kind: str) -> tuple[onnx.ModelProto, str, Path | None]:
    """Read a protobuf without its external data; also return its name and its folder.

    Raises
    ------
    ModelError
        If the file is missing, a folder, or no protobuf; `kind` says what it was to be.

    """
    if isinstance(source, onnx.ModelProto):
        return source, f"the {kind}", None
    path = Path(source)
    check_there(path, str(path))
    try:
        return onnx.load(path, load_external_data=False), str(path), path.resolve().parent
    except DecodeError:
        raise ModelError(f"{path} is not an ONNX model, or it is truncated") from None


def read(source: Source) -> Written:
    """Take an explainer apart.

    Raises
    ------
    ModelError
        If it is not an explainer, or a damaged one.

    """
    proto, name, folder = parse(source, "explainer")
    contract = Contract.read({entry.key: entry.value for entry in proto.metadata_props})
    if contract is None:
        raise ModelError(f"{name} is a plain model, not an explainer")
    proto, twin = _with_twin(proto)
    model, added = _model_part(proto, contract, twin)
    if folder is not None:
        ir.external_data.set_base_dir(model.graph, folder)
    graph = model.graph
    values = {value.name or "": value for value in graph.inputs}
    values |= {value.name or "": value for node in graph for value in node.outputs}
    arrives = [contract.feature_maps] if contract.feature_maps else list(contract.relevance)
    missing = [v for v in (contract.score, contract.output, *arrives) if v not in values]
    if missing:
        raise ModelError(f"{name} is damaged: it has no value '{missing[0]}'; convert again")
    sources = [values[source] for source in arrives]
    score = values[contract.score]
    rules = {operation: Rule(rule, {}) for operation, rule in contract.silent.items()}
    accounts: dict[str, list[dict[str, str | int | list[float]]]] = {}
    relevance = dict(contract.relevance)
    for node in proto.graph.node:
        notes = {entry.key: entry.value for entry in node.metadata_props}
        explained = notes.get("onnxlrp.node")
        if explained is not None:
            rules[explained] = Rule(
                notes["onnxlrp.rule"], _parameters(notes.get("onnxlrp.parameters", ""))
            )
            if "onnxlrp.account" in notes:
                accounts.setdefault(explained, []).extend(json.loads(notes["onnxlrp.account"]))
        for output in node.output:
            if output.startswith(_RELEVANCE):
                relevance[output.removeprefix(_RELEVANCE)] = output
    start = Score(score, values[contract.output], contract.signs)
    found = analyse(network_of(graph, operations(graph), start, sources))
    crossed = [operation for operation in found.operations if operation.name in rules]
    return Written(
        proto,
        folder,
        contract,
        replace(found, operations=crossed),
        score,
        {value.name or "": _tensor(value) for value in graph.inputs},
        added,
        relevance,
        rules,
        accounts,
    )


def _with_twin(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.GraphProto]:
    """Return an explainer with all that is noted of a quantised model's twin, and what is noted."""
    twin = onnx.GraphProto()
    noted = next((entry.value for entry in proto.metadata_props if entry.key == TWIN), None)
    if noted is None:
        return proto, twin
    twin.ParseFromString(base64.b64decode(noted))
    whole = onnx.ModelProto()
    whole.CopyFrom(proto)
    # Weights that are folded are stored.
    made = {tensor.name for tensor in proto.graph.initializer}
    made.update(name for node in proto.graph.node for name in node.output)
    whole.graph.node.extend(node for node in twin.node if node.output[0] not in made)
    whole.graph.initializer.extend(twin.initializer)
    whole.graph.value_info.extend(twin.value_info)
    return whole, twin


def _model_part(
    proto: onnx.ModelProto, contract: Contract, twin: onnx.GraphProto
) -> tuple[ir.Model, dict[str, Tensor]]:
    """Return the model alone, and the inputs that the explainer has beyond the model's.

    Of a quantised one that is its twin, with Clip where the explainer reads what is quantised.
    """
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    graph = model.graph
    noted = {node.output[0]: node for node in twin.node}
    own = [
        noted.get(node.output[0], node)
        for node in graph.node
        if not node.name.startswith((_WRITTEN, WITHIN))
    ]
    read = {name for node in own for name in node.input}
    emitted = {n for node in graph.node if node.name.startswith(_WRITTEN) for n in node.input}
    added = [v for v in graph.input if v.name in emitted - read - {*contract.relevance}]
    ours = {*contract.relevance.values(), *contract.intermediates.values()}
    ours |= {contract.scores, contract.reference_scores}
    _keep(graph.node, own)
    _keep(graph.input, [v for v in graph.input if v not in added])
    _keep(graph.output, [v for v in graph.output if v.name not in ours])
    if noted:
        sort(graph)
        # Whole numbers, which the twin does not put out.
        made = {name for node in graph.node for name in node.output}
        _keep(graph.output, [v for v in graph.output if v.name in made])
    try:
        extra = {v.name: _tensor(ir.from_proto(v)) for v in added}
        parsed = ir.from_proto(model)
        hold_derived(parsed.graph)
        return parsed, extra
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"the explainer's graph is malformed: {error}") from error


def _keep(field: Any, kept: list[Any]) -> None:
    copies = list(kept)
    del field[:]
    field.extend(copies)


def _tensor(value: ir.Value) -> Tensor:
    return Tensor(*signature(value)[1:])


def _parameters(text: str) -> dict[str, Any]:
    """Read `key=value key=value`; a value may be a list of numbers, with spaces in it."""
    pairs = re.findall(r"([\w-]+)=(.*?)(?= [\w-]+=|$)", text)
    return {key: _literal(value) for key, value in pairs}


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
