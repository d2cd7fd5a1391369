"""What an explainer is, in words: of what model, what it computes, what goes in and comes out."""

from __future__ import annotations

from typing import NamedTuple

import onnx_ir as ir

from onnxlrp.audit.written import Written
from onnxlrp.compiler.conversion import ExplainedNode
from onnxlrp.graph.shapes import signature
from onnxlrp.running.contract import Contract, Tensor


class Port(NamedTuple):
    """An input or output of an explainer, and what it means."""

    kind: str
    name: str
    tensor: Tensor
    meaning: str


def facts(written: Written) -> dict[str, str]:
    """Return what an explainer says about itself, each under the name of what is said."""
    contract = written.contract
    preprocessing = contract.preprocessing
    said = {
        "model": contract.model_file or "not named",
        "SHA-256": contract.model_sha256,
        "written by": f"onnxlrp {contract.version}",
        "composite": contract.composite_name or "not named",
        "starts from": f"'{contract.score}'",
        "target": contract.explains,
        "reference": _reference(contract),
    }
    if contract.features:
        names = [name for one in contract.features.values() for name in one]
        said["features"] = ", ".join(names)
    elif preprocessing is not None:
        said["pictures"] = preprocessing.in_words()
    elif reads(written) == "pictures":
        said["pictures"] = "not said how made: name it (--preprocess) to `onnxlrp explain`"
    emitted = len(written.emitted)
    own = len(written.proto.graph.node) - emitted
    return said | {"graph": f"{own} nodes of the model, and {emitted} for relevance"}


def reads(written: Written) -> str:
    """Return what the explained input holds: `texts`, `tables`, `pictures` or `arrays`."""
    if written.contract.features:
        return "tables"
    dtype, shape = written.inputs[next(iter(written.contract.relevance))]
    if "int" in dtype and len(shape) == 2:
        return "texts"
    return {2: "tables", 4: "pictures"}.get(len(shape), "arrays")


def nodes(written: Written) -> list[ExplainedNode]:
    """Return what relevance crosses and by which rules; lines of the composite are not stored."""
    found = []
    for operation in written.facts.operations:
        rule = written.rules[operation.name]
        # A rule is called like the operator where that leaves no choice.
        name = "" if rule.name == operation.operator else rule.name
        value = operation.outputs[0].name or ""
        merged = tuple(node.name or "" for node in operation.nodes if node is not operation.node)
        node = ExplainedNode(
            operation.name, operation.operator, name, rule.parameters, "", merged, value
        )
        found.append(node)
    return found


def ports(written: Written) -> list[Port]:
    """Return inputs and outputs, in the order of the file, and what each means."""
    contract, graph = written.contract, written.proto.graph
    meanings = _of_inputs(contract) | _of_outputs(contract)
    found = []
    for kind, values in (("input", graph.input), ("output", graph.output)):
        for info in values:
            name, dtype, shape = signature(ir.from_proto(info))
            meaning = meanings.get(name, "the model's own")
            found.append(Port(kind, name, Tensor(dtype, shape), meaning))
    return found


def _of_inputs(contract: Contract) -> dict[str, str]:
    several = "; several for one sample" if contract.several else ""
    return (
        dict.fromkeys(contract.relevance, "the model's own, explained")
        | {contract.target_input: f"the class to explain, -1 for the best{several}"}
        | {contract.weights_input: "what the score of each class counts"}
        | {name: f"multiplies relevance at '{value}'" for value, name in contract.masks.items()}
        | {name: f"the reference of '{of}'" for of, name in contract.references.items()}
    )


def _of_outputs(contract: Contract) -> dict[str, str]:
    inside = contract.intermediates.items()
    return (
        {name: f"{contract.yields} of '{of}'" for of, name in contract.relevance.items()}
        | {name: f"relevance of '{value}', inside" for value, name in inside}
        | {contract.scores: f"of each class, what {contract.yields} starts from"}
        | {contract.reference_scores: "the scores at the reference"}
    )


def _reference(contract: Contract) -> str:
    if not contract.reference_scores:
        return "none"
    return "an input, at each run" if contract.references else contract.reference or "not named"
