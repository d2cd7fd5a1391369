"""Every operator and every rule that is registered, against the definition.

What is tested follows from the registry: an operator that is not in the zoo, or a rule that the
reference does not know, fails here.
"""

import numpy as np
import pytest
import reference_cases as cases
from support import EXACT, explain, lines, node
from zoo import ALONE, BRANCHES, REMOVED, network

import onnxlrp
from onnxlrp import reference
from onnxlrp.audit import check
from onnxlrp.compiler.composite import CLASS_ACTIVATION_MAPS, available
from onnxlrp.propagation.registry import OPERATORS

RULES = sorted({rule for operator in OPERATORS.values() for rule in operator.rules})
FALLBACK = (
    "LRN: taylor",
    "MaxPool,GlobalMaxPool,ReduceMax,ReduceMin: winner-takes-all",
    "*: epsilon",
)
OFTEN = ("attn_lrp", "binder2016_beta", "default", "deep_taylor_bounded")
COMPOSITES = [
    pytest.param(c, id=c.name, marks=[] if c.name in OFTEN else [pytest.mark.slow])
    for c in available()
    # Those cross nothing but by a gradient's rules, and want one layer that all lies behind.
    if c.yields not in CLASS_ACTIVATION_MAPS
]
BOUNDS = {"low": -6.0, "high": 6.0}
REFERRED = 1e-4
"""Float32 knows a difference to fewer digits than what it is of."""


def crosses(branches, composite, tolerance=EXACT, referred=False):
    """Explain a network, and compare what crosses each operator with the definition.

    With `referred`, against a reference, which is the last sample.
    """
    proto, feeds = network(branches)
    root = {name: x[-1] for name, x in feeds.items()} if referred else None
    made = [name for b in branches for name in list(b.node.output)[: b.outputs]]
    composite = composite.with_lines(["name=node_*_h?: pass"])
    explained = explain(
        proto, composite, feeds, target=1, inside=made, inputs=list(feeds), reference=root
    )
    entries = {entry.name: entry for entry in explained.conversion.nodes}
    assert {b.operator: entries[b.operator].operator for b in branches} == {
        b.operator: b.operator for b in branches
    }
    errors = {}
    for branch in branches:
        entry = entries[branch.operator]
        done = reference.propagate(
            branch.defined,
            branch.values,
            [explained.values.get(f"onnxlrp/relevance/{name}") for name in branch.node.output],
            entry.rule,
            dict(entry.parameters),
            [place in branch.live for place in range(len(branch.inputs))],
            root=branch.last.values if referred else None,
        )
        for place in branch.live:
            wanted = done.relevance[place]
            wanted = 0.0 if wanted is None else wanted
            gate = entries.get(f"node_{branch.value(place)}")
            if gate is not None and place in branch.gates:
                given = [branch.inputs[place].astype(float)], [wanted], gate.rule, {}, [True]
                (wanted,) = reference.propagate(node("Sigmoid", ["x"]), *given).relevance
            if composite.yields == "gradient times input":
                wanted = wanted * branch.inputs[place]
            source = f"_{branch.operator}_x{place}" if len(feeds) > 1 else ""
            found = explained.values[f"relevance{source}"]
            scale = max(np.abs(wanted).max(), 1e-30)
            error = np.abs(found - wanted).max() / scale
            if not error <= tolerance:
                errors[branch.operator] = f"{entry.rule}: {error:.1e}"
    assert not errors, errors


@pytest.mark.parametrize("name", BRANCHES)
def test_gradients_are_the_jacobian(name):
    """Brute force: how every output changes with every live input."""
    branch, step = BRANCHES[name], 1e-6
    live = [place in branch.live for place in range(len(branch.inputs))]
    sent = [cases.normal(*y.shape, seed=5) for y in reference.forward(branch.node, branch.values)]
    sent = sent[: branch.outputs] + [None] * (len(branch.node.output) - branch.outputs)
    rule = "winner-takes-all" if name == "MaxPool" else "gradient"
    done = reference.propagate(branch.defined, branch.values, sent, rule, {}, live)
    for place in branch.live:
        x = branch.values[place]
        slopes = np.zeros(x.size)
        for k in range(x.size):
            for sign in (1, -1):
                moved = x.copy()
                moved.reshape(-1)[k] += sign * step
                inputs = [moved if i == place else v for i, v in enumerate(branch.values)]
                made = reference.forward(branch.node, inputs)
                pairs = zip(made, sent, strict=True)
                total = sum((y * r).sum() for y, r in pairs if r is not None)
                slopes[k] += sign * total / (2 * step)
        found = done.relevance[place]
        np.testing.assert_allclose(found.reshape(-1), slopes, atol=1e-6 * np.abs(slopes).max())


def test_every_operator_is_in_the_zoo():
    assert {*BRANCHES, *REMOVED, *ALONE} == set(OPERATORS)


@pytest.mark.parametrize("composite", COMPOSITES)
def test_every_composite_on_every_operator(composite):
    bounds = BOUNDS if "low" in composite.parameters else {}
    """One that takes a reference gets the zoo's own: at zero, what holds a Log is not finite."""
    known, referred = composite.with_parameters(bounds), "" in composite.reference
    tolerance = REFERRED if referred else EXACT
    crosses(list(BRANCHES.values()), known, tolerance, referred)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_on_every_operator_that_takes_it(rule):
    bounds = " low=-6 high=6" if rule == "z-box" else ""
    branches = [
        BRANCHES[name]
        for name, operator in OPERATORS.items()
        if name in BRANCHES
        and rule in operator.rules
        and not (rule == "pass" and _changes_shape(BRANCHES[name]))
    ]
    crosses(branches, lines("name=node_logits: epsilon", f"*: {rule}{bounds}", *FALLBACK))


@pytest.mark.parametrize("composite", ["attn_lrp", "epsilon_plus"])
def test_every_operator_against_a_reference(composite):
    crosses(list(BRANCHES.values()), onnxlrp.Composite.load(composite), REFERRED, referred=True)


@pytest.mark.slow
def test_the_audit_recomputes_every_operator():
    proto, feeds = network(list(BRANCHES.values()))
    composite = onnxlrp.Composite.load("default")
    explainer = onnxlrp.convert(proto, composite, inputs=list(feeds)).to_proto()
    audit = check(proto, explainer, feeds, target=1)
    crossed = [operation for layer in audit.layers for operation in layer.operations]
    assert not [operation for operation in crossed if operation.skipped]
    assert {operation.operator for operation in crossed} >= set(BRANCHES)
    assert audit.passed


def _changes_shape(branch):
    y, *_ = reference.forward(branch.node, branch.values)
    return [v.shape for place, v in enumerate(branch.inputs) if place in branch.live] != [y.shape]
