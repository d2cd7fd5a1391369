"""Does relevance add up? Read from an explainer's own values, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from onnxlrp.audit.written import Written
from onnxlrp.graph.canonical import Operation
from onnxlrp.graph.operators import Fact, has

Array = NDArray[Any]

"""Operators whose bias, one number a channel, belongs to axis 1 of the output."""


@dataclass(frozen=True)
class Division:
    """What the divisions made for one operation took, summed over all elements and samples.

    Attributes
    ----------
    relevance : what was divided up
    bias : what went to biases and other constants
    stabiliser : what the stabiliser kept back
    empty : the part of that which sits where the denominator is 0: nothing to share among

    """

    relevance: float
    bias: float
    stabiliser: float
    empty: float


@dataclass(frozen=True)
class Entry:
    """One step: operations that share an input or hold values without relevance between them.

    Attributes
    ----------
    operations : in the model's order
    reads, makes : values with relevance on its input side and on its output side
    incoming, outgoing : sum of the relevance at its outputs and at its inputs
    size : sum of |R| on both sides
    divisions : by operation; none for an operation that divides nothing

    """

    operations: tuple[Operation, ...]
    reads: tuple[str, ...]
    makes: tuple[str, ...]
    incoming: float
    outgoing: float
    size: float
    divisions: Mapping[Operation, Division]

    @property
    def taken_by_bias(self) -> float:
        """What went to biases."""
        return sum(division.bias for division in self.divisions.values())

    @property
    def taken_by_stabiliser(self) -> float:
        """What stabilisers kept back."""
        return sum(division.stabiliser for division in self.divisions.values())

    @property
    def leak(self) -> float:
        """What the divisions leave unexplained of incoming - outgoing, as a part of sum |R|."""
        rest = self.incoming - self.outgoing - self.taken_by_bias - self.taken_by_stabiliser
        return abs(rest) / max(self.size, 1e-30)


def terms(written: Written) -> set[str]:
    """Names of all tensors that `balance` reads: relevance and the terms of divisions."""
    divided = {
        term
        for accounts in written.accounts.values()
        for account in accounts
        for term in account.values()
        if term and isinstance(term, str)
    }
    return divided | set(written.relevance.values())


def balance(written: Written, values: Mapping[str, Array]) -> list[Entry]:
    """Account for all relevance of an explainer.

    Parameters
    ----------
    written : the explainer
    values : of the tensors that `terms` names, from one run

    Returns
    -------
    entries in the model's order; every value with relevance is on the input side of one, and,
    unless it is an input of the model, on the output side of one

    """
    return [_entry(written, group, values) for group in _groups(written)]


def _groups(written: Written) -> list[list[Operation]]:
    """Unite operations that share a relevant input, or hand on a value without relevance."""
    crossed = written.facts.operations
    relevant = written.relevance
    made: dict[str, int] = {}
    united: Any = nx.utils.UnionFind(range(len(crossed)))
    reader: dict[str, int] = {}
    for index, operation in enumerate(crossed):
        for value in operation.inputs:
            name = value.name or "" if value is not None else ""
            if name in relevant:
                united.union(index, reader.setdefault(name, index))
            elif name in made:
                united.union(index, made[name])
        made.update({value.name or "": index for value in operation.outputs})
    groups: dict[int, list[Operation]] = {}
    for index, operation in enumerate(crossed):
        groups.setdefault(united[index], []).append(operation)
    return list(groups.values())


def _entry(written: Written, group: list[Operation], values: Mapping[str, Array]) -> Entry:
    relevant = written.relevance
    reads = {v.name or "" for o in group for v in o.inputs if v is not None} & relevant.keys()
    makes = {v.name or "" for o in group for v in o.outputs} & relevant.keys()

    def total(names: set[str]) -> float:
        return float(sum(values[relevant[name]].sum(dtype=np.float64) for name in names))

    size = sum(np.abs(values[relevant[n]]).sum(dtype=np.float64) for n in reads | makes)
    divisions = {o: d for o in group if (d := _division(written, o, values)) is not None}
    return Entry(
        tuple(group),
        tuple(sorted(reads - makes)),
        tuple(sorted(makes - reads)),
        total(makes - reads),
        total(reads - makes),
        float(size),
        divisions,
    )


def _division(
    written: Written, operation: Operation, values: Mapping[str, Array]
) -> Division | None:
    accounts = written.accounts.get(operation.name)
    if not accounts:
        return None
    # The share of a bias that is distributed is noted as the bias', and then handed on.
    kept_by_bias = not written.distributes(operation)
    taken = np.zeros(4)
    for account in accounts:
        found = {
            key: np.asarray(values[term] if isinstance(term, str) else term, np.float64)
            for key, term in account.items()
            if term
        }
        share, denominator, relevance = found["share"], found["denominator"], found["relevance"]
        bias = found.get("bias", np.zeros(1))
        if bias.ndim == 1 and has(operation.operator, Fact.CHANNELS_SECOND):
            bias = bias.reshape(-1, *(1,) * (share.ndim - 2))
        # Where a mask is -inf there is no share, and nothing of infinity is nothing.
        with np.errstate(invalid="ignore"):
            divided, absorbed = (np.where(share == 0, 0.0, t * share) for t in (denominator, bias))
        kept = relevance - divided
        empty = np.where(denominator == 0, kept, 0.0)
        parts = (relevance, absorbed * kept_by_bias, kept, empty)
        taken += np.multiply(found.get("times", 1), [part.sum() for part in parts])
    return Division(*map(float, taken))
