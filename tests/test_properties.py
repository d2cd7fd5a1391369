"""What holds for every network and every rule: tried on random ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pytest
from drawn import Network, networks
from drawn_rules import composites, lines_for, rule
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from support import Array, Explained, explain

import onnxlrp
from onnxlrp import reference
from onnxlrp.propagation import formulas, normalization
from onnxlrp.propagation.expression import positive
from onnxlrp.propagation.formulas import RULES

settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    database=None,
    report_multiple_bugs=False,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
REPEATABLE = settings.get_profile("repeatable")

Heatmaps = dict[str, Array]

TOLERANCE = 1e-4
"""Largest difference as a part of max|R| that needs no excuse."""

ROUNDING = 3e-7
"""Relative error put into weights and inputs to see what float32 does to a network's relevance."""

TARGETS = (0, 2, [1, 0])


def difference(found: Heatmaps, wanted: Heatmaps) -> float:
    """Largest difference of any input's relevance, as a part of the largest relevance."""
    assert {name: r.shape for name, r in found.items()} == {
        name: r.shape for name, r in wanted.items()
    }
    assert all(np.isfinite(r).all() for r in found.values())
    scale = max(np.abs(r).max() for r in wanted.values())
    worst = max(np.abs(found[name] - r).max() for name, r in wanted.items())
    return float(worst / max(scale, 1e-20))


def agree(found: Heatmaps, wanted: Heatmaps, case: Case) -> None:
    """Compare, with an excuse for networks whose relevance hangs on the last bits of weights.

    Denominators that nearly cancel and near-ties in max pooling are such: there float32 cannot
    tell what the definition says.
    """
    worst = difference(found, wanted)
    if worst > TOLERANCE:
        exact, noisy = case.defined(), (case.of(rounded(case.network, seed)) for seed in (1, 2, 3))
        noise = max(difference(other.defined(), exact) for other in noisy)
        assume(10 * noise < 0.01)
        assert worst <= max(TOLERANCE, 10 * noise), f"differs by {worst:.1e}, noise {noise:.1e}"


def rounded(network: Network, seed: int) -> Network:
    """Return the network with a little noise on its weights and inputs, as rounding makes it."""
    random = np.random.default_rng(seed)

    def noisy(array: Array) -> Array:
        if array.dtype != np.float32:
            return array
        return np.float32(array * (1 + ROUNDING * random.normal(size=array.shape)))

    feeds = {name: noisy(x) for name, x in network.feeds.items()}
    return replace(network.with_weights(lambda _, w: noisy(w)), feeds=feeds)


@dataclass(frozen=True)
class Case:
    """A network, the rules for it, and the class to explain."""

    network: Network
    composite: onnxlrp.Composite
    target: int | list[int]
    fold_weights: bool = False

    def of(self, network: Network) -> Case:
        """Return the case with another network of the same layers."""
        case = replace(self, network=network)
        case.__dict__.update(explained=self.explained)
        return case

    @cached_property
    def explained(self) -> Explained:
        """The network's explainer, run."""
        network, names = self.network, list(self.network.feeds)
        options = {"inputs": names, "fold_weights": self.fold_weights}
        return explain(network.proto(), self.composite, network.feeds, self.target, **options)

    def heatmaps(self) -> Heatmaps:
        """Relevance of every input by the explainer."""
        names = list(self.network.feeds)
        outputs = ["relevance"] if len(names) == 1 else [f"relevance_{name}" for name in names]
        return {n: self.explained.values[o] for n, o in zip(names, outputs, strict=True)}

    def defined(self) -> Heatmaps:
        """Relevance of every input by the definition, with the rules that the explainer has."""
        nodes = self.explained.conversion.nodes
        rules = {entry.name: (entry.rule, dict(entry.parameters)) for entry in nodes}
        names, proto = list(self.network.feeds), self.network.proto(merged=True)
        relevance = reference.explain(
            proto, self.network.feeds, lambda one: rules[one.name], names, "logits", self.target
        )
        return {name: relevance[name] for name in names}


# --- Explainer and definition --------------------------------------------------------------------


def compare(case: Case) -> None:
    agree(case.heatmaps(), case.defined(), case)


def random_case(data: st.DataObject) -> Case:
    network = data.draw(networks())
    composite = data.draw(composites(network))
    return Case(network, composite, data.draw(st.sampled_from(TARGETS)), data.draw(st.booleans()))


@settings(REPEATABLE, max_examples=100)
@given(st.data())
def test_the_explainer_computes_the_definition(data):
    compare(random_case(data))


@pytest.mark.slow
@settings(REPEATABLE, max_examples=3000)
@given(st.data())
def test_the_explainer_computes_the_definition_of_many(data):
    compare(random_case(data))


# Negative controls: what a reader of formulas.py might overlook, the property does not.


def _unsigned(d, epsilon):
    return d + epsilon


def _without_bias(layer, x, relevance, share, power=1):
    return x * layer.adjoint(share(relevance, layer(x), relevance.emitter.zero))


def _positive_inputs_only(layer, x, relevance, share):
    xp = positive(x)
    s = share(relevance, layer.plus(xp), positive(layer.bias))
    return xp * layer.plus.adjoint(s)


def _linear_bias(layer, x, relevance, share):
    squared = layer.power(2)
    ones = layer.filled(x, 1.0)
    return squared.adjoint(share(relevance, squared(ones), layer.bias))


def _taylor_unnormalised(patch):
    treatments = normalization.TREATMENTS
    patch.setitem(treatments, "taylor", normalization.taylor_unnormalised)


def _unstabilised(patch):
    patch.setattr(formulas, "stabilised", _unsigned)


def _formula(name, formula):
    return lambda patch: patch.setitem(RULES, name, replace(RULES[name], formula=formula))


@pytest.mark.parametrize(
    ("line", "break_it"),
    [
        ("Conv,Gemm,MatMul: epsilon epsilon=0.5", _unstabilised),
        ("Conv,Gemm,MatMul: epsilon", _formula("epsilon", _without_bias)),
        ("Conv: z-plus", _formula("z-plus", _positive_inputs_only)),
        ("Conv,Gemm: w-square", _formula("w-square", _linear_bias)),
        ("Conv,Gemm: gamma", _formula("gamma", formulas.gamma_original)),
        ("LRN: taylor", _taylor_unnormalised),
    ],
)
def test_a_broken_rule_is_found(line, break_it, monkeypatch):
    composite = onnxlrp.Composite.load("epsilon").with_lines([line])
    break_it(monkeypatch)

    @settings(REPEATABLE, max_examples=200, phases=[Phase.generate])
    @given(networks())
    def attempt(network):
        compare(Case(network, composite, 0))

    with pytest.raises(AssertionError, match="differs by"):
        attempt()


# --- Conservation --------------------------------------------------------------------------------

LEAKING = ("taylor-unnormalised", "gradient")


@settings(REPEATABLE, max_examples=100)
@given(st.data())
def test_every_layer_of_the_definition_conserves(data):
    network = data.draw(networks())
    composite = data.draw(lines_for(network))
    rules = {line.nodes[0]: (line.rule, dict(line.parameters)) for line in composite.lines}
    proto, names = network.proto(merged=True), list(network.feeds)
    relevance = reference.explain(
        proto, network.feeds, lambda one: rules[one.name], names, "logits", 0
    )
    values, live = reference.evaluate(proto, network.feeds), reference.live_names(proto, names)
    for one in proto.graph.node:
        chosen, parameters = rules.get(one.name, ("pass", {}))
        if chosen in LEAKING or not any(name in relevance for name in one.output):
            continue
        done = reference.propagate(
            one,
            [values[name] if name else None for name in one.input],
            [relevance.get(name) for name in one.output],
            chosen,
            parameters,
            [name in live for name in one.input],
        )
        received = [relevance[name] for name in one.output if name in relevance]
        handed_on = [r for r in done.relevance if r is not None]
        incoming = sum(r.sum() for r in received) * surplus(chosen, parameters)
        accounted = sum(r.sum() for r in handed_on) + done.bias.sum() + done.stabiliser.sum()
        terms = [*received, *handed_on, done.bias, done.stabiliser]
        assert abs(accounted - incoming) <= 1e-11 * sum(np.abs(r).sum() for r in terms), one


def surplus(chosen: str, parameters: Mapping[str, float]) -> float:
    """How often alpha-beta hands on what comes in."""
    return parameters.get("alpha", 2) - parameters.get("beta", 1) if chosen == "alpha-beta" else 1


# --- Symmetries ----------------------------------------------------------------------------------


@settings(REPEATABLE, max_examples=25)
@given(st.data())
def test_channels_may_be_permuted(data):
    network = data.draw(networks(stem=True))
    case = Case(network, data.draw(composites(network)), 0)
    order = {
        name: np.array(data.draw(st.permutations(range(x.shape[1]))))
        for name, x in network.feeds.items()
    }

    def change(name: str, weight: Array) -> Array:
        return weight[:, order[name.removeprefix("stem_")]] if name.startswith("stem_") else weight

    feeds = {name: x[:, order[name]] for name, x in network.feeds.items()}
    permuted = replace(network.with_weights(change), feeds=feeds)
    wanted = {name: r[:, order[name]] for name, r in case.heatmaps().items()}
    agree(replace(case, network=permuted).heatmaps(), wanted, case)


@settings(REPEATABLE, max_examples=25)
@given(st.data())
def test_samples_may_be_permuted(data):
    network = data.draw(networks())
    case = Case(network, data.draw(composites(network)), [1, 2])
    swapped = replace(network, feeds={name: x[::-1] for name, x in network.feeds.items()})
    wanted = {name: r[::-1] for name, r in case.heatmaps().items()}
    agree(replace(case, network=swapped, target=[2, 1]).heatmaps(), wanted, case)


@settings(REPEATABLE, max_examples=25)
@given(st.data())
def test_nodes_may_be_in_any_order(data):
    network = data.draw(networks())
    case = Case(network, data.draw(composites(network)), 1)
    waiting, nodes = list(network.nodes), []
    ready = {"", *network.weights, *network.feeds}
    while waiting:
        possible = [one for one in waiting if ready.issuperset(one.input)]
        nodes.append(data.draw(st.sampled_from(possible)))
        waiting.remove(nodes[-1])
        ready.update(nodes[-1].output)
    shuffled = replace(network, nodes=tuple(nodes))
    agree(replace(case, network=shuffled).heatmaps(), case.heatmaps(), case)


@settings(REPEATABLE, max_examples=25)
@given(st.data())
def test_relevance_scales_with_the_last_layer(data):
    network = data.draw(networks())
    name, operator, readout = network.readout
    last = f"name={name}: {rule(data.draw, operator, stabilisers=(1e-9,))}"
    case = Case(network, data.draw(composites(network)).with_lines([last]), 0)
    factor = np.float32(data.draw(st.sampled_from((0.25, 3, 8))))
    scaled = network.with_weights(lambda name, w: w * factor if name in readout else w)
    wanted = {name: factor * r for name, r in case.heatmaps().items()}
    agree(replace(case, network=scaled).heatmaps(), wanted, case)
