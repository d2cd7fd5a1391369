"""Ensembles of decision trees, walked: their scores, and what features add to them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import factorial
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Array = np.ndarray[Any, Any]

TREES = ("TreeEnsembleRegressor", "TreeEnsemble")

_MODES = ("LEQ", "LT", "GTE", "GT", "EQ", "NEQ", "MEMBER")


@dataclass(frozen=True)
class Tree:
    """A leaf, or a node that asks for a feature.

    Attributes
    ----------
    mean, cover
        Of the leaves that can be reached from here: [K], and how many samples reach them.
    feature, mode, numbers, missing
        What is asked, and whether NaN counts as yes.
    yes, no
        Where it goes on; None of a leaf.
    """

    mean: Array
    cover: float
    feature: int = 0
    mode: str = ""
    numbers: Array | None = None
    missing: bool = False
    yes: "Tree | None" = None
    no: "Tree | None" = None

    def says_yes(self, x: Array) -> Array:
        """Answer for each row."""
        column, numbers = x[:, self.feature, None], self.numbers
        answers = {
            "LEQ": column <= numbers,
            "LT": column < numbers,
            "GTE": column >= numbers,
            "GT": column > numbers,
            "EQ": column == numbers,
            "NEQ": column != numbers,
            "MEMBER": column == numbers,
        }
        answer = answers[self.mode].any(axis=1)
        return np.asarray(answer | (self.missing & np.isnan(column[:, 0])))


def _joined(yes: Tree, no: Tree, **asked: Any) -> Tree:
    cover = yes.cover + no.cover
    mean = (yes.mean * yes.cover + no.mean * no.cover) / cover
    return Tree(mean, cover, yes=yes, no=no, **asked)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    found = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        is_tensor = isinstance(value, onnx.TensorProto)
        found[attribute.name.removesuffix("_as_tensor")] = (
            numpy_helper.to_array(value) if is_tensor else value
        )
    return found


def _numbered(a: Mapping[str, Any]) -> list[Tree]:
    """Build the trees of a TreeEnsembleRegressor."""
    place = {
        key: i for i, key in enumerate(zip(a["nodes_treeids"], a["nodes_nodeids"], strict=True))
    }
    rates = a.get("nodes_hitrates", [1.0] * len(place))
    rates = rates if any(rates) else [1.0] * len(place)
    tracks = a.get("nodes_missing_value_tracks_true", [0] * len(place))
    values = {key: np.zeros(a.get("n_targets", 1)) for key in place}
    given = (a[f"target_{name}"] for name in ("treeids", "nodeids", "ids", "weights"))
    for tree, node, target, weight in zip(*given, strict=True):
        values[tree, node][target] += weight

    def build(tree: int, node: int) -> Tree:
        i, mode = place[tree, node], a["nodes_modes"][place[tree, node]].decode()
        if mode == "LEAF":
            return Tree(values[tree, node], float(rates[i]))
        yes, no = (build(tree, a[f"nodes_{side}nodeids"][i]) for side in ("true", "false"))
        asked = {"feature": a["nodes_featureids"][i], "mode": mode.removeprefix("BRANCH_")}
        numbers = np.array([a["nodes_values"][i]], np.float64)
        return _joined(yes, no, numbers=numbers, missing=bool(tracks[i]), **asked)

    inner = {
        (tree, a[f"nodes_{side}nodeids"][i])
        for (tree, _), i in place.items()
        if a["nodes_modes"][i] != b"LEAF"
        for side in ("true", "false")
    }
    return [build(*key) for key in place if key not in inner]


def _indexed(a: Mapping[str, Any]) -> list[Tree]:
    """Build the trees of a TreeEnsemble."""
    count = len(a["nodes_modes"])
    tracks = a.get("nodes_missing_value_tracks_true", [0] * count)
    members = np.asarray(a.get("membership_values", []))
    sets = np.split(members, np.flatnonzero(np.isnan(members)))
    sets = [part[~np.isnan(part)] for part in sets]
    order = [i for i in range(count) if a["nodes_modes"][i] == _MODES.index("MEMBER")]
    numbers = {i: np.array([a["nodes_splits"][i]]) for i in range(count)}
    numbers.update(zip(order, sets, strict=False))
    columns = a.get("n_targets", 1)

    def build(node: int, leaf: int) -> Tree:
        if leaf:
            return Tree(np.eye(columns)[a["leaf_targetids"][node]] * a["leaf_weights"][node], 1.0)
        yes, no = (
            build(a[f"nodes_{side}nodeids"][node], a[f"nodes_{side}leafs"][node])
            for side in ("true", "false")
        )
        mode = _MODES[a["nodes_modes"][node]]
        asked = {"feature": a["nodes_featureids"][node], "mode": mode}
        return _joined(yes, no, numbers=numbers[node], missing=bool(tracks[node]), **asked)

    return [build(root, 0) for root in a["tree_roots"]]


def ensemble(node: onnx.NodeProto) -> tuple[list[Tree], Array, float]:
    """Return the trees, what is added to their sum, and what their sum is multiplied by."""
    a = _attributes(node)
    trees = _numbered(a) if node.op_type == "TreeEnsembleRegressor" else _indexed(a)
    average = a.get("aggregate_function", b"SUM") in (b"AVERAGE", 0)
    base = np.zeros(a.get("n_targets", 1))
    if len(a.get("base_values", [])):
        base = base + np.asarray(a["base_values"], np.float64)
    return trees, base, 1 / len(trees) if average else 1.0


@dataclass(frozen=True)
class _Step:
    """One split on the way to a leaf: which rows go this way, and what it changes."""

    feature: int
    holds: Array
    at_root: Array
    part: float
    change: Array


def _ways(
    tree: Tree, x: Array, root: Array | None, before: tuple[_Step, ...] = ()
) -> Iterator[tuple[tuple[_Step, ...], Array]]:
    """Yield the splits on the way to each leaf, and its value."""
    if tree.yes is None or tree.no is None:
        yield before, tree.mean
        return
    answers = [tree.says_yes(rows) for rows in (x, x if root is None else root)]
    for child, wanted in ((tree.yes, True), (tree.no, False)):
        here, there = (answer == wanted for answer in answers)
        part = child.cover / tree.cover
        step = _Step(tree.feature, here, there, part, child.mean - tree.mean)
        yield from _ways(child, x, root, (*before, step))


def scores(node: onnx.NodeProto, x: Array) -> Array:
    """Add up the values of the leaves that each row ends in: [N, K]."""
    trees, base, factor = ensemble(node)
    total = np.zeros((len(x), len(base)))
    for tree in trees:
        for steps, value in _ways(tree, x, None):
            total += _all(len(x), [step.holds for step in steps])[:, None] * value
    return np.asarray(total * factor + base)


def _all(count: int, holds: list[Array]) -> Array:
    return np.asarray(np.all([np.ones(count, bool), *holds], axis=0), np.float64)


def terms(node: onnx.NodeProto, x: Array, root: Array | None, rule: str) -> tuple[Array, Array]:
    """Return what each feature adds to each score, [N, F, K], and the mean they are added to, [K].

    With a reference they add up to the change of the scores from there.
    """
    trees, base, factor = ensemble(node)
    found = np.zeros((*x.shape, len(base)))
    for tree in trees:
        for steps, value in _ways(tree, x, root):
            (_along if rule == "saabas" else _shapley)(found, steps, value, root is not None)
    return found * factor, sum(tree.mean for tree in trees) * factor + base


def _along(found: Array, steps: tuple[_Step, ...], value: Array, referred: bool) -> None:
    """Add what the mean changes by at each split of the way that is taken."""
    taken = _all(len(found), [step.holds for step in steps])
    if referred:
        taken = taken - _all(len(found), [step.at_root for step in steps])
    for step in steps:
        found[:, step.feature] += taken[:, None] * step.change


def _shapley(found: Array, steps: tuple[_Step, ...], value: Array, referred: bool) -> None:
    """Add the Shapley values of one leaf: sum_S |S|! (d - 1 - |S|)! / d! (v(S + i) - v(S)).

    v(S) is the leaf's value times a factor for each feature: whether x goes this way for those in
    S, and which part of the samples does, or whether the reference does, for all others. Coalitions
    of a size are the coefficients of prod_j (q_j + o_j y).
    """
    features = sorted({step.feature for step in steps})
    inside, outside = {}, {}
    for feature in features:
        own = [step for step in steps if step.feature == feature]
        inside[feature] = _all(len(found), [step.holds for step in own])
        part = np.full(len(found), np.prod([step.part for step in own]))
        outside[feature] = _all(len(found), [s.at_root for s in own]) if referred else part
    d = len(features)
    for feature in features:
        sizes = np.ones((1, len(found)))
        for other in features:
            if other != feature:
                longer = np.zeros((len(sizes) + 1, len(found)))
                longer[:-1] += sizes * outside[other]
                longer[1:] += sizes * inside[other]
                sizes = longer
        weights = [factorial(s) * factorial(d - 1 - s) / factorial(d) for s in range(d)]
        total = (np.array(weights)[:, None] * sizes).sum(axis=0)
        gain = total * (inside[feature] - outside[feature])
        found[:, feature] += gain[:, None] * value
