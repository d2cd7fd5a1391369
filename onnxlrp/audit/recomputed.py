"""Each layer's relevance on its own, in float64, from the values on both sides of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property, partial, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxlrp import reference
from onnxlrp.audit.standalone import NotRecomputableError, Standalone, standalone, unmoved
from onnxlrp.audit.written import Rule, Written, rounding_of
from onnxlrp.graph.canonical import EXPLICIT_WEIGHTS, Operation
from onnxlrp.graph.operators import Fact, has
from onnxlrp.reference.contributions import LINEAR
from onnxlrp.reference.kernels import MACHINE
from onnxlrp.reference.network import CHOICES
from onnxlrp.reference.operators import NORMALISATIONS, attributes_of, normalised_groups
from onnxlrp.reference.trees import TREES
from onnxlrp.telling import counted

Array = NDArray[Any]

LARGEST = 2 * 10**9
"""Contributions of an input to an output in the largest layer that is recomputed unasked."""

SUSPICIOUS = 1e-4
"""Difference, as a part of max |R|, from which on a layer's float32 noise is looked at."""

_DRAWS = 8

Send = Callable[[np.random.Generator], Array]
"""What an operation sends to a value, with float32's noise."""


@dataclass(frozen=True)
class Taken:
    """What one operation did with the relevance that reached it, by definition; sums.

    Attributes
    ----------
    relevance : what reached it
    bias, stabiliser : what constants and the stabiliser took
    beyond : what the rule takes out of the account beyond that (adds, if negative)

    """

    relevance: float
    bias: float
    stabiliser: float
    beyond: float


@dataclass
class Recomputed:
    """What the definition says of each layer.

    Attributes
    ----------
    difference : by value, the largest difference from what its consumers send by definition, as a
        part of max |R|
    noise, shift : by value, how far that, and the sum of all relevance there, moves when inputs
        and weights change within float32's rounding; only where the difference is suspicious
    multiplied : by value whose relevance is multiplied by it, what that takes out of the account
    taken : by operation
    skipped : by operation, why it was not recomputed

    """

    difference: dict[str, float] = field(default_factory=dict)
    noise: dict[str, float] = field(default_factory=dict)
    shift: dict[str, float] = field(default_factory=dict)
    multiplied: dict[str, float] = field(default_factory=dict)
    taken: dict[Operation, Taken] = field(default_factory=dict)
    skipped: dict[Operation, str] = field(default_factory=dict)


def needed(written: Written) -> set[str]:
    """Names of all tensors that `recompute` reads: inputs of operations, the score, relevance."""
    inputs = {
        value.name or ""
        for operation in written.facts.operations
        for step in (operation, *operation.moves)
        for value in step.inputs
        if value is not None and value.const_value is None
    }
    values = inputs | {written.contract.score}
    roots = {root for name in values if (root := written.at_reference(name))}
    return values | roots | set(written.relevance.values())


def recompute(
    written: Written,
    values: Mapping[str, Array],
    start: Array,
    layers: str = "",
) -> Recomputed:
    """Take relevance across each operation by the reference, and compare.

    Relevance of a value is the sum of what its consumers send, so values are what is compared;
    a value whose relevance the explainer hands on unchanged, and does not hold, is filled in.

    Parameters
    ----------
    written : the explainer
    values : of the tensors that `needed` names, from one run
    start : relevance of the score, as it should be
    layers : shell wildcard: of the operations that have a rule, those to recompute, however large;
        all, within `LARGEST`, if it is empty

    """
    return _Walk(written, values, start, layers).done()


@dataclass(frozen=True)
class _Sender:
    """One operation, to be crossed again with the noise of its type; `_Walk._cross` has the rest.

    Attributes
    ----------
    unheld : of each output without relevance in the explainer, what sends to it
    step : of rounding; 0 where nothing is rounded
    losses : tells, of each output, how many such steps of relevance there are in one of the output
    y : the first output as the model computed it, where its moves start; None where it is not held
    back : takes what is sent to an output to where the operation's moves start

    """

    alone: Standalone
    relevance: list[Array | None]
    unheld: list[list[Send] | None]
    rule: Rule
    live: list[bool]
    root: list[Array | None] | None
    step: float
    losses: Callable[[], list[Array | float]]
    y: Array | None
    back: Callable[[Array], Array]

    @cached_property
    def _lost(self) -> list[Array | float]:
        return self.losses()

    @cached_property
    def _off(self) -> Array | float:
        """How far the model's own y is from what it should be, as a part of it.

        onnxruntime's Resize rounds coordinates, which moves y by more than rounding x would.
        """
        if self.y is None or self.alone.node.op_type not in LINEAR:
            return 0.0
        y = reference.forward(self.alone.node, self.alone.inputs)[0]
        if y.shape != self.y.shape:
            return 0.0
        # A mask of -inf is no error.
        y = np.where(np.isfinite(y), y, self.y)
        with np.errstate(invalid="ignore"):
            off = np.abs(self.y - y) / np.maximum(np.abs(self.y), 1e-30)
        return np.asarray(np.nan_to_num(off))

    def send(self, index: int, random: np.random.Generator) -> Array:
        came = [
            _shaken(
                self.back(_drawn(sends, random)) if sends else r,
                self.step * lost + self._off,
                random,
            )
            for r, sends, lost in zip(self.relevance, self.unheld, self._lost, strict=True)
        ]
        # Scales of a Resize are no values: other ones make other sizes.
        fixed = self.alone.node.op_type == "Resize"
        inputs = [
            x if fixed and place else _shaken(x, self.step, random)
            for place, x in enumerate(self.alone.inputs)
        ]
        # What is constant is the same at both points.
        root = self.root and [
            _shaken(v, self.step, random) if alive else x
            for v, x, alive in zip(self.root, inputs, self.live, strict=True)
        ]
        alone = replace(self.alone, inputs=inputs)
        found = _propagate(alone, came, self.rule, self.live, root).relevance[index]
        assert found is not None
        (x, *_), (r, *_) = inputs, came
        if self.alone.node.op_type == "Softmax" and x is not None and r is not None:
            # Where s_i is nearly 1, its rounding is what is left of x_i (R_i - s_i sum R).
            (s,) = reference.forward(self.alone.node, [x])
            whole = np.abs(r).sum(attributes_of(self.alone.node).get("axis", -1), keepdims=True)
            product = np.where(s > 0, x, 0.0) * s * whole
            found = found + product * self.step * random.uniform(-1, 1, product.shape)
        return found


@dataclass
class _Walk:
    written: Written
    values: Mapping[str, Array]
    start: Array
    layers: str
    result: Recomputed = field(default_factory=Recomputed)
    sent: dict[str, Array | None] = field(default_factory=dict)
    senders: dict[str, list[Send]] = field(default_factory=dict)

    def done(self) -> Recomputed:
        self.sent[self.written.contract.score] = self.start
        for operation in counted(self.written.facts.operations[::-1], "layers recomputed"):
            names = [value.name or "" for value in operation.outputs]
            if not any(name in self.sent or name in self.written.relevance for name in names):
                continue
            # Noise of relevance that the explainer does not hold is that of its senders.
            unheld = [
                None if name in self.written.relevance else self.senders.get(name) for name in names
            ]
            reason = self._cross(operation, [self._relevance(name) for name in names], unheld)
            if reason:
                self.result.skipped[operation] = reason
                for value in operation.inputs:
                    if value is not None and id(value) in self.written.facts.relevant:
                        self.sent[value.name or ""] = None
        for source in self.written.contract.relevance:
            self._relevance(source)
        return self.result

    def _relevance(self, name: str) -> Array | None:
        """Return a value's relevance, and compare it now that all its consumers have sent."""
        held = self.written.relevance.get(name)
        expected = self.sent.pop(name, None)
        if held is None:
            return expected
        actual = self.values[held].astype(np.float64)
        if expected is not None:
            factor: Any = self.values[name] if name in self.written.contract.scaled else 1.0
            self.result.multiplied[name] = float(expected.sum() - (expected * factor).sum())
            difference = _difference(actual, expected * factor)
            self.result.difference[name] = difference
            if difference > SUSPICIOUS and name in self.senders:
                self._move(name, expected * factor, factor)
        self.senders.pop(name, None)
        return actual

    def _move(self, name: str, expected: Array, factor: Any) -> None:
        random = np.random.default_rng(0)
        draws = [_drawn(self.senders[name], random) * factor for _ in range(_DRAWS)]
        self.result.noise[name] = max(_difference(draw, expected) for draw in draws)
        self.result.shift[name] = max(abs(float((draw - expected).sum())) for draw in draws)

    def _cross(
        self,
        operation: Operation,
        relevance: list[Array | None],
        unheld: list[list[Send] | None],
    ) -> str:
        """Send relevance on; return why not where that is impossible."""
        wanted = fnmatchcase(operation.name, self.layers)
        # What leaves no choice costs next to nothing, and layers get their relevance through it.
        if self.layers and not wanted and operation.operator in CHOICES:
            return "not asked for"
        if all(r is None for r in relevance):
            return "the explainer holds no relevance at its output"
        rule = self.written.rules[operation.name]
        back = partial(unmoved, operation, self.values)
        relevance = [None if r is None else back(r) for r in relevance]
        try:
            alone = standalone(operation, self.values)
            cost = _cost(alone, relevance)
            if cost > LARGEST and not wanted:
                return f"{cost:.1e} contributions are too many; ask for it with --layers"
            live = [v is not None and id(v) in self.written.facts.live for v in operation.inputs]
            live += [False] * (len(alone.inputs) - len(live))
            root = self._root(operation, alone, live)
            done = _propagate(alone, relevance, rule, live, root)
        except NotRecomputableError as error:
            return str(error)
        # What the reference raises for rules and operators that it does not know.
        except (NotImplementedError, KeyError, ValueError, TypeError) as error:
            return f"the reference does not cover {rule.name} on {operation.operator}: {error}"
        self._account(operation, relevance, done)
        step = max(rounding_of(value) for value in operation.inputs)
        # In half precision even a sum of two loses digits that float32 would keep; differences from
        # a reference lose them in any.
        rounded = has(operation.operator, Fact.ROUNDS) or root is not None
        rounded = rounded or step > float(np.finfo(np.float32).eps)
        if not rounded:
            step = 0.0
        y = self.values.get(operation.outputs[0].name or "")
        y = None if y is None else back(y)
        losses = partial(self._lost, operation, back)
        sender = _Sender(alone, relevance, unheld, rule, live, root, step, losses, y, back)
        for index, value in enumerate(operation.inputs):
            part = done.relevance[index]
            if value is None or part is None or id(value) not in self.written.facts.relevant:
                continue
            name = value.name or ""
            before = self.sent.get(name, np.zeros(1))
            self.sent[name] = None if before is None else before + part
            self.senders.setdefault(name, []).append(partial(sender.send, index))
        return ""

    def _lost(self, operation: Operation, back: Callable[[Array], Array]) -> list[Array | float]:
        """By output, by what its rounding grows in its change from the root, that is divided by."""
        lost: list[Array | float] = [1.0] * len(operation.outputs)
        for index, value in enumerate(operation.outputs):
            y, name = self.values.get(value.name or ""), self.written.at_reference(value.name or "")
            if y is not None and name and operation.operator in LINEAR | {"Softmax"}:
                root = self.values[name].astype(np.float64)
                change = np.maximum(np.abs(y - root), np.abs(y) * 1e-9 + 1e-30)
                grown = np.abs(y) / change
                if operation.operator == "Softmax":
                    # It is the logarithm that changes.
                    grown = grown * (1 + np.abs(np.log(np.maximum(y, 1e-30))))
                lost[index] = back(grown + 1)
        return lost

    def _root(
        self, operation: Operation, alone: Standalone, live: list[bool]
    ) -> list[Array | None] | None:
        """Return what an operation's inputs are at the reference; None without one."""
        if not self.written.contract.reference_scores:
            return None
        values = dict(self.values)
        for value in operation.inputs:
            name = "" if value is None else value.name or ""
            if value is None or id(value) not in self.written.facts.live:
                continue
            root = self.written.at_reference(name)
            if not root and operation.operator in ("Max", "Min"):
                # Not held where it decides nothing: it is at most what the extremum is there, and
                # of two that are equal the other one, in front of it, wins.
                root = self.written.at_reference(operation.outputs[0].name or "")
            if root:
                values[name] = np.broadcast_to(self.values[root], self.values[name].shape)
            elif name in self.written.contract.relevance:
                # x - 0 is written as x, and what is 0 need not be held.
                values[name] = np.zeros_like(self.values[name])
            elif alone.node.op_type in CHOICES:
                raise NotRecomputableError(f"the explainer does not hold {name} at the reference")
        return standalone(operation, values).inputs

    def _account(
        self, operation: Operation, relevance: list[Array | None], done: reference.Propagated
    ) -> None:
        came = float(sum(r.sum() for r in relevance if r is not None))
        went = float(sum(part.sum() for part in done.relevance if part is not None))
        bias, stabiliser = float(done.bias.sum()), float(done.stabiliser.sum())
        beyond = came - went - bias - stabiliser
        self.result.taken[operation] = Taken(came, bias, stabiliser, beyond)


def _propagate(
    alone: Standalone,
    relevance: list[Array | None],
    rule: Rule,
    live: list[bool],
    root: list[Array | None] | None,
) -> reference.Propagated:
    inputs = alone.inputs
    if not alone.rows:
        return reference.propagate(
            alone.node, inputs, relevance, rule.name, rule.parameters, live, root=root
        )
    x, (r, *_) = inputs[0], relevance
    assert x is not None
    assert r is not None
    flat = (-1, x.shape[-1])
    base = None if root is None else [None if v is None else v.reshape(flat) for v in root[:1]]
    done = reference.propagate(
        alone.node,
        [x.reshape(flat), *inputs[1:]],
        [r.reshape(-1, r.shape[-1])],
        rule.name,
        rule.parameters,
        live,
        root=None if base is None or root is None else [*base, *root[1:]],
    )
    back = [None if part is None else part.reshape(x.shape) for part in done.relevance]
    return reference.Propagated(back, done.bias, done.stabiliser)


def _cost(alone: Standalone, relevance: list[Array | None]) -> int:
    """Count the contributions of an input to an output."""
    r = next(r for r in relevance if r is not None)
    weights = alone.inputs[1] if len(alone.inputs) > 1 else None
    operator = alone.node.op_type
    if operator in EXPLICIT_WEIGHTS and weights is not None:
        channels = r.shape[1] if operator.startswith("Conv") else r.shape[-1]
        return int(r.size // channels * weights.size)
    if operator in TREES:
        # A leaf is walked to in Python, and costs as much as so many.
        modes = next(a for a in alone.node.attribute if a.name == "nodes_modes")
        return 10**4 * max(len(modes.strings), len(modes.t.raw_data))
    if operator == MACHINE:
        vectors = next(a.floats for a in alone.node.attribute if a.name == "support_vectors")
        counted = next(a.i for a in alone.node.attribute if a.name == "n_supports")
        return int(len(vectors) * counted * len(r))
    if operator in NORMALISATIONS:
        # Those of a group are held all at once, in several arrays.
        return int(8 * r.size * normalised_groups(alone.node, alone.inputs).index.shape[1])
    kernel = next((a.ints for a in alone.node.attribute if a.name == "kernel_shape"), [1])
    return int(r.size * np.prod(kernel))


def _drawn(sends: Sequence[Send], random: np.random.Generator) -> Array:
    return np.asarray(reduce(np.add, [send(random) for send in sends]))


def _shaken(array: Array | None, step: Array | float, random: np.random.Generator) -> Array | None:
    """Change all real numbers by up to one step of rounding."""
    if array is None or not np.issubdtype(array.dtype, np.floating):
        return array
    return np.asarray(array * (1 + step * random.uniform(-1, 1, array.shape)))


def _difference(actual: Any, expected: Array) -> float:
    """Largest difference as a part of the largest magnitude; infinite if one is not finite."""
    if not (np.isfinite(actual).all() and np.isfinite(expected).all()):
        return float("inf")
    largest = max(np.abs(expected).max(initial=0), np.abs(actual).max(initial=0))
    return float(np.abs(actual - expected).max(initial=0) / largest) if largest else 0.0
