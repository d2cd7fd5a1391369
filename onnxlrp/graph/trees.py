"""Decision trees of ai.onnx.ml as the tables of their leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Interval = tuple[Any, Any]
"""Numbers of the type that is compared; both ends belong to it."""

TREES = ("ai.onnx.ml::TreeEnsembleRegressor", "ai.onnx.ml::TreeEnsemble")
"""Operators that are trees; `tabular` writes the classifier as the first."""

_MODES = (
    *("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"),
    "BRANCH_MEMBER",
)


_CIRCLE = "its nodes lead back to each other: they are no trees"


@dataclass(frozen=True)
class Leaves:
    """What each of L leaves asks of D features at most, and gives to K outputs.

    Attributes
    ----------
    feature : [L, D], columns of the input; where a leaf asks less, 0, of which anything holds
    low, high : [P, L, D], the numbers that a feature must have: P intervals with both their ends
    missing : [L, D], whether NaN is among them
    part : [L, D], which part of the samples goes this way at the nodes that ask for the feature
    step : [L, D, K], by how much the mean of what can still be reached changes there
    value : [L, K], what the leaf gives
    mean : [K], of all leaves, and the base value

    """

    feature: Array
    low: Array
    high: Array
    missing: Array
    part: Array
    step: Array
    value: Array
    mean: Array


@dataclass(frozen=True)
class _Branch:
    feature: int
    mode: str
    numbers: Sequence[float]
    missing: bool
    children: tuple[Any, Any]


@dataclass(frozen=True)
class _Leaf:
    value: Array
    cover: float


_Node = _Branch | _Leaf


@dataclass
class _Visit:
    """A node at the end of the way to it."""

    node: _Node
    parent: int
    mean: Array
    cover: float = 0.0


def leaves_of(operator: str, attributes: Mapping[str, Any], kind: type[np.floating[Any]]) -> Leaves:
    """Read the trees of an operator.

    A node's mean is that of its leaves, weighted by how many samples reached them in training:
    `nodes_hitrates` of the leaves, which exporters fill with ones, so that all leaves count alike.

    Parameters
    ----------
    operator, attributes : one of `TREES`
    kind : of the numbers that are compared, float32 or float64

    Raises
    ------
    ValueError
        If they are no trees, or their outputs are not added up.

    """
    plain = {key: _plain(value) for key, value in attributes.items()}
    aggregate = plain.get("aggregate_function", "SUM" if operator == TREES[0] else 1)
    if aggregate not in ("SUM", "AVERAGE", 0, 1):
        raise ValueError("the extremum of several trees is no sum of them")
    try:
        nodes, roots, columns = (_regressor if operator == TREES[0] else _ensemble)(plain)
        visits = [_visits(nodes, root, columns) for root in roots]
        if not visits or (operator == TREES[0] and sum(map(len, visits)) != len(nodes)):
            raise ValueError(_CIRCLE)
        factor = 1 / len(visits) if aggregate in ("AVERAGE", 0) else 1.0
        found = [way for visited in visits for way in _ways(visited, kind, factor)]
    except (LookupError, TypeError) as error:
        raise ValueError(f"its trees are incomplete: {error}") from error
    mean = np.sum([visited[0].mean for visited in visits], axis=0) * factor
    base = np.asarray(plain.get("base_values_as_tensor", plain.get("base_values", [])), np.float64)
    return _table(found, kind, mean + (base if base.size else 0.0))


def even(lists: Mapping[str, Sequence[Any]]) -> None:
    """Raise ValueError where lists that belong together differ in length."""
    if len({len(entries) for entries in lists.values()}) > 1:
        listing = ", ".join(f"{name} has {len(entries)}" for name, entries in lists.items())
        raise ValueError(f"its lists differ in length: {listing}")


def _plain(value: Any) -> Any:
    return value.numpy() if hasattr(value, "numpy") else value


def _regressor(a: Mapping[str, Any]) -> tuple[dict[Any, _Node], list[Any], int]:
    """Read the lists of a TreeEnsembleRegressor."""
    columns = int(a.get("n_targets", 1))

    def given(name: str) -> Any:
        return a.get(f"{name}_as_tensor", a.get(name, []))

    even({name: a[name] for name in ("nodes_treeids", "nodes_nodeids", "nodes_modes")})
    said = {f"target_{name}": a[f"target_{name}"] for name in ("treeids", "nodeids", "ids")}
    even(said | {"target_weights": given("target_weights")})
    keys = list(zip(a["nodes_treeids"], a["nodes_nodeids"], strict=True))
    values: dict[Any, Array] = {}
    for tree, node, target, weight in zip(*said.values(), given("target_weights"), strict=True):
        values.setdefault((tree, node), np.zeros(columns))[target] += weight
    rates, tracks = list(given("nodes_hitrates")), a.get("nodes_missing_value_tracks_true", [])
    nodes: dict[Any, _Node] = {}
    children: set[Any] = set()
    for place, (key, mode) in enumerate(zip(keys, a["nodes_modes"], strict=True)):
        if mode == "LEAF":
            cover = float(rates[place]) if any(rates) else 1.0
            nodes[key] = _Leaf(values.get(key, np.zeros(columns)), cover)
            continue
        both = tuple((key[0], a[f"nodes_{side}nodeids"][place]) for side in ("true", "false"))
        children.update(both)
        nodes[key] = _Branch(
            a["nodes_featureids"][place],
            mode,
            [float(given("nodes_values")[place])],
            bool(tracks[place]) if len(tracks) else False,
            (both[0], both[1]),
        )
    return nodes, [key for key in keys if key not in children], columns


def _ensemble(a: Mapping[str, Any]) -> tuple[dict[Any, _Node], list[Any], int]:
    """Read the lists of a TreeEnsemble."""
    columns = int(a.get("n_targets", 1))
    nodes: dict[Any, _Node] = {}
    targets = zip(a["leaf_targetids"], a["leaf_weights"], strict=True)
    for place, (target, weight) in enumerate(targets):
        nodes["leaf", place] = _Leaf(np.eye(columns)[target] * weight, 1.0)
    sets = iter(_sets(a.get("membership_values", [])))
    tracks = a.get("nodes_missing_value_tracks_true", [])
    for place, code in enumerate(a["nodes_modes"]):
        mode = _MODES[int(code)]
        both = tuple(
            ("leaf" if a[f"nodes_{side}leafs"][place] else "node", a[f"nodes_{side}nodeids"][place])
            for side in ("true", "false")
        )
        split = [float(a["nodes_splits"][place])]
        nodes["node", place] = _Branch(
            a["nodes_featureids"][place],
            mode,
            next(sets) if mode == "BRANCH_MEMBER" else split,
            bool(tracks[place]) if len(tracks) else False,
            (both[0], both[1]),
        )
    return nodes, [("node", root) for root in a["tree_roots"]], columns


def _sets(values: Sequence[float]) -> Iterator[list[float]]:
    """Yield the members, between which NaN stands."""
    members: list[float] = []
    for value in values:
        if np.isnan(value):
            yield members
            members = []
        else:
            members.append(float(value))
    yield members


def _visits(nodes: Mapping[Any, _Node], root: Any, columns: int) -> list[_Visit]:
    """Go through a tree, parents first, and find what can be reached from each node."""
    found: list[_Visit] = []
    todo = [(root, -1)]
    while todo:
        key, parent = todo.pop()
        if len(found) > 2 * len(nodes):
            raise ValueError(_CIRCLE)
        node = nodes[key]
        if isinstance(node, _Branch):
            found.append(_Visit(node, parent, np.zeros(columns)))
            todo += [(child, len(found) - 1) for child in reversed(node.children)]
        else:
            found.append(_Visit(node, parent, node.value, node.cover))
    for visit in reversed(found):
        if isinstance(visit.node, _Branch) and visit.cover:
            visit.mean = visit.mean / visit.cover
        if visit.parent >= 0:
            above = found[visit.parent]
            above.mean = above.mean + visit.mean * visit.cover
            above.cover += visit.cover
    return found


@dataclass(frozen=True)
class _Demand:
    """What a way asks of one feature; the attributes are those of `Leaves`."""

    intervals: list[Interval]
    missing: bool
    part: float
    step: Array


_Way = tuple[dict[int, _Demand], Array]


def _ways(visits: Sequence[_Visit], kind: type[np.floating[Any]], factor: float) -> Iterator[_Way]:
    """Yield what each leaf asks of features, and what it gives."""
    asked: list[dict[int, _Demand]] = []
    seen: set[int] = set()
    everything = _Demand([(-np.inf, np.inf)], True, 1.0, np.zeros_like(visits[0].mean))
    for visit in visits:
        demands: dict[int, _Demand] = {}
        if visit.parent >= 0:
            above = visits[visit.parent]
            branch, demands = above.node, dict(asked[visit.parent])
            assert isinstance(branch, _Branch)
            first = visit.parent not in seen
            seen.add(visit.parent)
            before = demands.get(branch.feature, everything)
            taken = _taken(branch, kind)
            demands[branch.feature] = _Demand(
                _common(before.intervals, taken if first else _rest(taken, kind)),
                before.missing and (branch.missing or branch.mode == "BRANCH_NEQ") == first,
                before.part * (visit.cover / above.cover if above.cover else 0.0),
                before.step + (visit.mean - above.mean) * factor,
            )
        asked.append(demands)
        if isinstance(visit.node, _Leaf):
            yield demands, visit.node.value * factor


def _taken(branch: _Branch, kind: type[np.floating[Any]]) -> list[Interval]:
    """Return the numbers for which a node's condition is true."""
    least, most = kind(-np.inf), kind(np.inf)
    points = [kind(number) for number in sorted(branch.numbers)]
    if branch.mode in ("BRANCH_EQ", "BRANCH_MEMBER"):
        return [(point, point) for point in points]
    (point,) = points
    return {
        "BRANCH_LEQ": [(least, point)],
        "BRANCH_LT": [(least, _next(point, least))],
        "BRANCH_GTE": [(point, most)],
        "BRANCH_GT": [(_next(point, most), most)],
        "BRANCH_NEQ": _rest([(point, point)], kind),
    }[branch.mode]


def _next(point: np.floating[Any], end: np.floating[Any]) -> np.floating[Any]:
    """Return the number next to one on the way to an end, denormals left out.

    Where processors are told to take those for 0, a way that begins next to 0 would begin at 0.
    """
    least = np.finfo(point.dtype).smallest_normal
    found: np.floating[Any] = np.nextafter(point, end)
    if point == 0:
        found = np.copysign(least, end)
    elif abs(point) == least and (point > 0) == (end < 0):
        found = point.dtype.type(0)
    return found


def _rest(intervals: Sequence[Interval], kind: type[np.floating[Any]]) -> list[Interval]:
    """Return all other numbers."""
    result: list[Interval] = []
    low = kind(-np.inf)
    for first, last in intervals:
        if first > low:
            result.append((low, _next(first, kind(-np.inf))))
        if last == np.inf:
            return result
        low = _next(last, kind(np.inf))
    return [*result, (low, kind(np.inf))]


def _common(left: Sequence[Interval], right: Sequence[Interval]) -> list[Interval]:
    both = [(max(a, c), min(b, d)) for a, b in left for c, d in right]
    return [(low, high) for low, high in both if low <= high]


def _table(ways: Sequence[_Way], kind: type[np.floating[Any]], mean: Array) -> Leaves:
    depth = max((len(demands) for demands, _ in ways), default=0) or 1
    every = [demand for demands, _ in ways for demand in demands.values()]
    pieces = max((len(demand.intervals) for demand in every), default=0) or 1
    size = (len(ways), depth)
    result = Leaves(
        feature=np.zeros(size, np.int64),
        low=np.full((pieces, *size), np.inf, kind),
        high=np.full((pieces, *size), -np.inf, kind),
        missing=np.ones(size, bool),
        part=np.ones(size),
        step=np.zeros((*size, len(mean))),
        value=np.array([value for _, value in ways]),
        mean=mean,
    )
    result.low[0], result.high[0] = -np.inf, np.inf
    for row, (demands, _) in enumerate(ways):
        for place, (feature, demand) in enumerate(sorted(demands.items())):
            at = row, place
            result.feature[at], result.missing[at] = feature, demand.missing
            result.part[at], result.step[at] = demand.part, demand.step
            result.low[0][at], result.high[0][at] = np.inf, -np.inf
            for piece, (low, high) in enumerate(demand.intervals):
                result.low[piece][at], result.high[piece][at] = low, high
    return result
