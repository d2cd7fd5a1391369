"""Which operators can be explained, and how relevance crosses each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import NoReturn, TypeVar

import onnx_ir as ir

from onnxlrp.graph.canonical import Operation, constant_of
from onnxlrp.graph.shapes import alike
from onnxlrp.propagation.expression import Emitter, Operands, Sign, Tensor
from onnxlrp.propagation.formulas import RULES, Account, Layer, Parameter, apply_rule


class ObstacleError(Exception):
    """An operation cannot be propagated through; args are the reason and the advice."""


@dataclass(frozen=True)
class Relevance:
    """Relevance of one value.

    Attributes
    ----------
    tensor : in the value's shape
    grounded : known to be 0 wherever the value itself is 0

    """

    tensor: Tensor
    grounded: bool


@dataclass(frozen=True)
class Crossing:
    """One operation at the moment relevance crosses it.

    Attributes
    ----------
    operation : what is crossed
    relevance : of each of its outputs; None where an output gets none
    rule, parameters : from the composite; the rule is "" where an operator leaves no choice
    emitter : writes the nodes
    live : ids of the values that depend on an explained input
    non_negative : ids of the values that are never below zero
    stand_in : what may be divided by in the output's stead
    accounts : filled with the divisions made
    root : by id of a live value, what it is at the reference; empty where there is none

    """

    operation: Operation
    relevance: Sequence[Relevance | None]
    rule: str
    parameters: Mapping[str, Parameter]
    emitter: Emitter
    live: frozenset[int]
    non_negative: frozenset[int]
    stand_in: Tensor | None
    accounts: list[Account]
    root: Mapping[int, Tensor] = field(default_factory=dict)

    def tensor(self, value: ir.Value | None) -> Tensor:
        """Return a value of the model as a tensor, zero for an absent one."""
        if value is None:
            return self.emitter.zero
        sign = Sign.NON_NEGATIVE if id(value) in self.non_negative else Sign.UNKNOWN
        return self.emitter.tensor(value, sign)

    def change(self, value: ir.Value) -> Tensor:
        """Return what a value contributes: its difference from what it is at the reference.

        Without a reference that is the value itself, as if all were 0 there.
        """
        tensor = self.tensor(value)
        return tensor - self.root[id(value)] if id(value) in self.root else tensor

    def either(self, value: ir.Value, negated: bool = False) -> Tensor:
        """Return the larger of a value and what it is at the reference, or of their negatives.

        What it changes by is never 0 where this is the extremum of several and that one changes.
        """
        tensor = -self.tensor(value) if negated else self.tensor(value)
        if id(value) not in self.root:
            return tensor
        root = replace(self.root[id(value)], sign=Sign.UNKNOWN)
        return self.emitter.elementwise("Max", tensor, -root if negated else root)

    def middle(self, value: ir.Value) -> Tensor:
        """Return the middle between a value and what it is at the reference; itself without one."""
        tensor = self.tensor(value)
        return (tensor + self.root[id(value)]) * 0.5 if id(value) in self.root else tensor

    def input(self, index: int) -> Tensor:
        """Return an input of the operation as a tensor, zero for an absent one."""
        return self.tensor(self.operation.input(index))

    def output(self, index: int = 0) -> Tensor:
        """Return an output of the operation as a tensor, as it is before it is moved."""
        return self.unmoved(self.tensor(self.operation.outputs[index]))

    @property
    def stand_ins(self) -> Mapping[int, Tensor]:
        """By id of a value, a tensor that denominators may be divided by in its stead."""
        if self.stand_in is None:
            return {}
        return {id(self.output().value): self.unmoved(self.stand_in)}

    @property
    def incoming(self) -> Relevance:
        """Relevance of the first output, as it is before it is moved."""
        relevance = self.relevance[0]
        assert relevance is not None
        return replace(relevance, tensor=self.unmoved(relevance.tensor))

    def unmoved(self, tensor: Tensor) -> Tensor:
        """Take a tensor in the shape of the output back to where the operation's moves start."""
        for move in reversed(self.operation.moves):
            crossing = replace(self, operation=move, relevance=[Relevance(tensor, True)])
            ((_, sent),) = OPERATORS[move.operator].propagate(crossing)
            tensor = sent.tensor
        return tensor

    @property
    def live_inputs(self) -> list[ir.Value]:
        """Inputs that depend on an explained input, once for each place they stand in."""
        return live_inputs(self.operation, self.live)

    def attribute(self, name: str, default: float) -> float:
        """Return a number that is an attribute of the operator, or its default."""
        return self.operation.attributes.get(name, default)  # type: ignore[no-any-return]


def live_inputs(operation: Operation, live: frozenset[int]) -> list[ir.Value]:
    """Inputs that depend on an explained input, once for each place they stand in."""
    return [value for value in operation.inputs if value is not None and id(value) in live]


Propagation = Callable[[Crossing], Sequence[tuple[ir.Value, Relevance]]]
Check = Callable[[Operation, frozenset[int]], None]
Receivers = Callable[[Operation, frozenset[int], str], Sequence[ir.Value]]


def all_live(operation: Operation, live: frozenset[int], rule: str) -> Sequence[ir.Value]:
    """Return every live input: all get relevance, but from the rule that gives none."""
    return [] if rule == "zero" else live_inputs(operation, live)


@dataclass(frozen=True)
class Operator:
    """How relevance crosses an operator.

    Attributes
    ----------
    propagate : returns (input, its relevance) pairs
    rules : the rules a composite may give it, each with its parameters' defaults; empty where
        there is nothing to choose
    check : raises `ObstacleError` where this use of the operator cannot be explained
    default : the rule where no line of a composite speaks of it, "" for what it does without one;
        None where one must
    receivers : the inputs that a rule gives relevance to

    """

    propagate: Propagation
    rules: Mapping[str, Mapping[str, Parameter]]
    check: Check
    default: str | None
    receivers: Receivers


OPERATORS: dict[str, Operator] = {}
"""Every operator that can be explained."""

_F = TypeVar("_F", bound=Propagation)


def only_first_live(operation: Operation, live: frozenset[int]) -> None:
    """Check that nothing but the first input depends on the explained input."""
    others = [v.name for v in operation.inputs[1:] if v is not None and id(v) in live]
    if others:
        raise ObstacleError(
            f"its input '{others[0]}' depends on the explained input as well",
            "only its first input may",
        )


def operator(
    *names: str,
    rules: Mapping[str, Mapping[str, Parameter]] = MappingProxyType({}),
    check: Check = only_first_live,
    default: str | None = None,
    receivers: Receivers = all_live,
) -> Callable[[_F], _F]:
    """Register how relevance crosses some operators.

    Parameters
    ----------
    names : ONNX operator types; `domain::Type` outside ai.onnx
    rules : what a composite may choose from, each with its parameters' defaults; without them the
        operator leaves no choice
    check : raises `ObstacleError` for uses that cannot be explained
    default : the rule where no line of a composite speaks of the operator; "" for what it does
        without one
    receivers : the inputs that a rule gives relevance to; what lies behind the others may be any
        operator

    """

    def register(propagate: _F) -> _F:
        for name in names:
            assert name not in OPERATORS, f"{name} is registered twice"
            OPERATORS[name] = Operator(propagate, rules, check, default, receivers)
        return propagate

    return register


_L = TypeVar("_L", bound=Callable[[Crossing], tuple[Layer, list[ir.Value]]])


def layer(
    *names: str,
    check: Check,
    default: str | None = None,
    exact: bool = True,
    beside: Mapping[str, tuple[Propagation, Mapping[str, Parameter]]] = MappingProxyType({}),
) -> Callable[[_L], _L]:
    """Register linear operators by the function that builds their `Layer` and its live inputs.

    Parameters
    ----------
    names, check, default : as for `operator`
    exact : whether the layer is the operator; not if something of its input is held fixed
    beside : rules that these operators have of their own, and their parameters' defaults

    """

    def register(build: _L) -> _L:
        def propagate(crossing: Crossing) -> Sequence[tuple[ir.Value, Relevance]]:
            if crossing.rule in beside:
                return beside[crossing.rule][0](crossing)
            return _cross_layer(crossing, *build(crossing), exact)

        rules = _LinearRules({name: parameters for name, (_, parameters) in beside.items()})
        operator(*names, rules=rules, check=check, default=default)(propagate)
        return build

    return register


@dataclass(frozen=True)
class _LinearRules(Mapping[str, Mapping[str, Parameter]]):
    """The rules for linear layers, also those registered later, and an operator's own."""

    own: Mapping[str, Mapping[str, Parameter]]

    def __getitem__(self, name: str) -> Mapping[str, Parameter]:
        return self.own[name] if name in self.own else RULES[name].defaults

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*RULES, *self.own)))

    def __len__(self) -> int:
        return len(RULES.keys() | self.own.keys())


def _cross_layer(
    crossing: Crossing, built: Layer, inputs: list[ir.Value], exact: bool
) -> Sequence[tuple[ir.Value, Relevance]]:
    incoming = crossing.incoming
    if RULES[crossing.rule].formula is None:
        if len(inputs) != 1 or not alike(crossing.tensor(inputs[0]).shape, incoming.tensor.shape):
            raise ObstacleError(
                "rule 'pass' needs one input of the output's shape", "give it another rule"
            )
        # Where 0 becomes something else, or moves, relevance may sit on zeros from here on.
        grounded = incoming.grounded and built.diagonal and built.bias.is_zero
        return [(inputs[0], Relevance(incoming.tensor, grounded))]
    x = Operands(tuple(crossing.change(value) for value in inputs))
    output = crossing.operation.outputs[0]
    # Where it is computed with in another type, that is not what the layer would compute.
    if crossing.tensor(output).value is output and (exact or not crossing.root):
        computed = built(x) if crossing.root else built.biased(built(x), built.bias)
        held = crossing.unmoved(crossing.change(output))
        assert held.value is not None
        # A constant may have more places than the operand, whose change is that of each.
        if computed.is_zero or alike(computed.shape, held.shape):
            crossing.emitter.same(computed, held.value)
    return cross_by_rule(crossing, built, inputs, crossing.rule)


def cross_by_rule(
    crossing: Crossing, built: Layer, inputs: list[ir.Value], rule: str
) -> Sequence[tuple[ir.Value, Relevance]]:
    """Apply a rule for linear layers, with the crossing's parameters."""
    meant = crossing.tensor if RULES[rule].absolute else crossing.change
    x = Operands(tuple(meant(value) for value in inputs))
    if crossing.root:
        # It is the same at both points, and in no difference.
        built = replace(built, bias=crossing.emitter.zero)  # type: ignore[type-var]
    result, accounts, grounded = apply_rule(
        built, x, crossing.incoming.tensor, rule, crossing.parameters, crossing.stand_ins
    )
    crossing.accounts.extend(accounts)
    return [
        (value, Relevance(part, grounded)) for value, part in zip(inputs, result.parts, strict=True)
    ]


def channel_axis(operation: Operation, value: ir.Value) -> int:
    """Return the axis of a live input, of known rank, along which its channels, or features, lie.

    Those of a matrix product are what it sums over.
    """
    assert value.shape is not None
    rank = len(value.shape)
    if operation.operator == "MatMul" and value is not operation.inputs[0]:
        return rank - 2
    return rank - 1 if rank == 2 or operation.operator in ("MatMul", "Gemm") else 1


def static_shape(value: ir.Value) -> None:
    """Check that a value's rank is known.

    Raises
    ------
    ObstacleError
        If it is not.

    """
    if value.shape is None:
        raise ObstacleError(
            f"the number of dimensions of '{value.name}' cannot be inferred",
            "run onnx's shape inference or simplify the model first",
        )


def known_channels(value: ir.Value) -> None:
    """Check that a value's rank, and its size along axis 1, are known.

    Raises
    ------
    ObstacleError
        If they are not.

    """
    static_shape(value)
    assert value.shape is not None
    if len(value.shape) < 2 or not isinstance(value.shape[1], int):
        raise ObstacleError(
            f"the number of channels of '{value.name}' is not known",
            "export the model with fixed channels",
        )


def require_constant(operation: Operation, index: int, what: str) -> None:
    """Check that an input is absent or an initializer.

    Raises
    ------
    ObstacleError
        If it is computed.

    """
    value = operation.input(index)
    if value is not None and constant_of(value) is None:
        raise ObstacleError(f"its {what} '{value.name}' is not constant", "export it as a constant")


def fail(reason: str, advice: str) -> NoReturn:
    """Raise an `ObstacleError`."""
    raise ObstacleError(reason, advice)
