"""What was compared with whom, and how far apart it was: the table in docs/agreement.md."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs/agreement.md"

LAYERS = "One layer and one rule"
NETWORKS = "Whole networks"
CAPTUM = "One layer, captum"
TRANSFORMERS = "Transformers"
DIFFERENCES = "Where a peer computes something else"

EXPLANATIONS = {
    LAYERS: (
        "Relative L2 distance from zennit in float64, of float32 explainers in onnxruntime: the "
        "worst over\nthe rule's parameters, biases, and inputs of both signs and non-negative "
        "ones (how many). The gate is 1e-5."
    ),
    NETWORKS: (
        "The same distance for the heatmap of the best-scoring class / how far zennit in float32 "
        "is from\nzennit in float64, each in the median of eight samples. The gate is twice the "
        "latter plus 1e-6. The worst\nsample is held to ten times zennit's worst: where a "
        "denominator nearly cancels, chance decides."
    ),
    CAPTUM: "As the first table, for captum's rules where their arithmetic is sound.",
    TRANSFORMERS: (
        "Small random transformers of Hugging Face's library, as both of torch's exporters write "
        "them: the largest\ndifference, as a part of max |R|, from the same rules as torch "
        "autograd functions in float64, stabilisers in the\nsame places / how far those are in "
        "float32. The gate is 1e-5, or four times the latter. Rows LXT:\n`lxt.explicit` from these "
        "functions, both in float64; its epsilon has no sign, and other places."
    ),
    DIFFERENCES: (
        "Not distances but the numbers themselves, as both compute them; tests/witness/"
        "test_differences.py and\ntest_captum.py assert each."
    ),
}

ON_REQUEST = "trained ResNet-20"
"""The row that needs files which the repository does not hold."""

Cell = tuple[str, str, str]
"""Table, row, column."""


@dataclass
class Ledger:
    """Collects comparisons.

    Attributes
    ----------
    distances : by cell, every distance, each with the yardstick it is measured by, if it has one
    words : by cell, what stands there instead of a distance

    """

    distances: dict[Cell, list[tuple[float, float | None]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    words: dict[Cell, str] = field(default_factory=dict)

    def compare(
        self, cell: Cell, distance: float, gate: float, yardstick: float | None = None
    ) -> None:
        """Note a distance, and hold it to its gate."""
        self.distances[cell].append((distance, yardstick))
        assert distance <= gate, f"{' / '.join(cell)}: {distance:.2e} exceeds {gate:.2e}"

    def differ(self, what: str, theirs: Iterable[float] | str, ours: Iterable[float]) -> None:
        """Note a case in which a peer computes something else."""
        for column, numbers in {"the peer": theirs, "onnxlrp": ours}.items():
            # Adding zero turns -0.00 into 0.00.
            self.words[DIFFERENCES, what, column] = (
                numbers
                if isinstance(numbers, str)
                else ", ".join(f"{round(float(number), 2) + 0.0:.2f}" for number in numbers)
            )

    def counts(self) -> dict[Cell, int]:
        """How many comparisons each cell stands for."""
        return {cell: len(found) for cell, found in self.distances.items()} | dict.fromkeys(
            self.words, 1
        )

    def text(self, cell: Cell) -> str:
        """What the document says in a cell."""
        if cell in self.words:
            return self.words[cell]
        found = self.distances.get(cell)
        if not found:
            return "–"
        worst, yardstick = max(found, key=lambda entry: entry[0])
        if yardstick is None:
            return f"{worst:.0e} ({len(found)})" if worst else f"0 ({len(found)})"
        return f"{worst:.0e} / {yardstick:.0e}"

    def document(self, versions: Mapping[str, str]) -> str:
        """Return docs/agreement.md."""
        named = ", ".join(f"{name} {version}" for name, version in versions.items())
        parts = [
            "# Agreement with other implementations",
            "Written by `pytest tests/witness -n 0 --write-agreement`; every such run of the suite "
            "checks that each\ncomparison listed here was made and is within its gate.",
            f"Compared: {named}.",
        ]
        cells = list(self.counts())
        for table, explanation in EXPLANATIONS.items():
            rows = dict.fromkeys(row for t, row, _ in cells if t == table)
            columns = dict.fromkeys(column for t, _, column in cells if t == table)
            lines = [["", *columns], ["---"] * (len(columns) + 1)]
            lines += [[row, *(self.text((table, row, c)) for c in columns)] for row in rows]
            parts += [f"## {table}", explanation]
            parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
        return "\n\n".join(parts) + "\n"


def listed(document: str) -> dict[Cell, int]:
    """Read back how many comparisons each cell of the document stands for."""
    result: dict[Cell, int] = {}
    table, columns = "", list[str]()
    for line in document.splitlines():
        if line.startswith("## "):
            table, columns = line.removeprefix("## "), []
        elif line.startswith("| "):
            row, *cells = [cell.strip() for cell in line.strip("|").split("|")]
            if not columns:
                columns = cells
            elif row != "---":
                for column, text in zip(columns, cells, strict=True):
                    count = re.search(r"\((\d+)\)$", text)
                    if text != "–":
                        result[table, row, column] = int(count.group(1)) if count else 1
    return result


def lacking(made: Mapping[Cell, int], wanted: Mapping[Cell, int]) -> list[Cell]:
    """Cells for which fewer comparisons were made than wanted."""
    return [cell for cell, count in wanted.items() if made.get(cell, 0) < count]


LEDGER = Ledger()
