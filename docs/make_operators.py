"""Writes docs/operators.md from what the package registers.

    python docs/make_operators.py

A test holds the text against the code, and the code against onnx's own list of operators.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx

from onnxlrp.compiler.outside import REFUSED, carries_none
from onnxlrp.graph.bodies import BODIES
from onnxlrp.graph.expanding import INLINED
from onnxlrp.graph.flattening import FLATTENED
from onnxlrp.graph.meanings import WRITERS
from onnxlrp.graph.older import OLDER
from onnxlrp.graph.operators import FACTS
from onnxlrp.propagation.formulas import RULES
from onnxlrp.propagation.registry import OPERATORS

HERE = Path(__file__).parent

INTRODUCTION = """\
# Operators

What becomes of every operator. Written by `docs/make_operators.py` from what the package
registers; the rules are in [rules.md](rules.md). An operator that carries none, or is refused, is
no obstacle where relevance does not come by: behind a gate, in the computation of a shape.

- **rule**: a composite chooses among rules; that by default stands first
- **passed on**: every element hands on what it got, unless a line names a rule
- **routed**: relevance goes back to where each element came from; nothing is computed
- **written out**: replaced by other operators of this page, each with its rules
- **dequantised**: explained as what it does to the numbers that its integers mean, while the model
  stays as it is: [quantised.md](quantised.md)
- **lifted**: gone from ONNX; onnx's converter replaces it in old models
- **constant**: computed before anything is explained
- **carries none**: relevance stops, for nothing that it says is a share of a value
- **refused**: an error that names the node; the reason and what to do
"""

PSEUDO = {
    "Gate": "Mul or Div of two live values, one of which is bounded by how it is computed",
    "Product": "any other Mul or Div of two live values",
    "Mixture": "MatMul of two live values, one of which is bounded by how it is computed",
    "MatrixProduct": "any other MatMul of two live values",
    "ScatterSum": "ScatterElements or ScatterND with reduction 'add'",
}
"""Names that only composites use."""

TITLES = {
    "": "ai.onnx",
    "ai.onnx.ml": "ai.onnx.ml",
    "ai.onnx.preview": "ai.onnx.preview",
    "ai.onnx.preview.training": "ai.onnx.preview.training",
    "com.microsoft": "com.microsoft: onnxruntime's, which its optimisers and quantisers write",
    "com.microsoft.nchwc": "com.microsoft.nchwc",
}


def standing(operator: str) -> tuple[str, str]:
    """Say what becomes of an operator, and details; "" where nobody knows."""
    domain, _, name = operator.rpartition("::")
    refused = REFUSED.get(operator)
    otherwise = f"where not: {refused[0]}; {refused[1]}" if refused else ""
    known = OPERATORS.get(operator)
    if known is not None and not known.rules:
        return "routed", ""
    if known is not None:
        linear = "epsilon" in known.rules
        rules = [f"`{rule}`" for rule in known.rules if not linear or rule not in RULES]
        if linear:
            rules.append("any for linear layers")
        if known.default:
            rules = [f"`{known.default}`", *(r for r in rules if r != f"`{known.default}`")]
        return "passed on" if known.default == "" else "rule", ", ".join(rules)
    if operator in BODIES or operator in FLATTENED:
        return "written out", otherwise
    if operator in WRITERS:
        return "dequantised", ""
    if operator in INLINED:
        return "written out", "by the body that ONNX defines it with"
    if operator == "Constant":
        return "constant", ""
    if refused is not None:
        return "refused", "; ".join(refused)
    if carries_none(operator):
        return "carries none", carries_none(operator)
    if domain == "" and onnx.defs.get_schema(name).deprecated:
        return "lifted", f"gone since opset {onnx.defs.get_schema(name).since_version}"
    return "", ""


def operators() -> dict[str, list[str]]:
    """Every operator that may stand in a model, by domain."""
    found: dict[str, set[str]] = {domain: set() for domain in TITLES}
    for schema in onnx.defs.get_all_schemas():
        full = f"{schema.domain}::{schema.name}" if schema.domain else schema.name
        found.setdefault(schema.domain, set()).add(full)
    bodies = {name for name in BODIES if not name.startswith(OLDER)}
    for name in {*OPERATORS, *bodies, *REFUSED, *FACTS, *WRITERS} - PSEUDO.keys():
        found.setdefault(name.rpartition("::")[0], set()).add(name)
    return {domain: sorted(names) for domain, names in found.items()}


def text() -> str:
    """Return docs/operators.md."""
    parts, count = [], Counter[str]()
    for domain, names in operators().items():
        rows = ["| operator | what happens | |", "|---|---|---|"]
        for name in names:
            kind, detail = standing(name)
            count[kind] += 1
            rows.append(f"| {name.rpartition('::')[2]} | {kind} | {detail} |")
        parts.append(f"## {TITLES.get(domain, domain)}\n\n" + "\n".join(rows) + "\n")
    rows = ["| name | what it is | |", "|---|---|---|"]
    rows += [f"| {name} | {what} | {standing(name)[1]} |" for name, what in PSEUDO.items()]
    named = "## Names of uses\n\nA line of a composite may say `Mul`, or which kind of it.\n\n"
    parts.append(named + "\n".join(rows) + "\n")
    told = ", ".join(f"{number} {kind}" for kind, number in count.most_common())
    return "\n".join([f"{INTRODUCTION}\n{sum(count.values())} operators: {told}.\n", *parts])


if __name__ == "__main__":
    (HERE / "operators.md").write_text(text(), "utf-8")
