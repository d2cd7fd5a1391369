"""Judge several composites, or maps of any library, on the same samples."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnxlrp.compiler.composite import Composite
from onnxlrp.errors import InputError
from onnxlrp.evaluation.flipping import (
    KEPT,
    ORDERS,
    Amount,
    Flipping,
    Order,
    aopc,
    area,
    curves,
    kept,
    number_of,
)
from onnxlrp.evaluation.measures import complexity, mass_accuracy, rank_accuracy, sparseness
from onnxlrp.evaluation.medium import Medium, Sample
from onnxlrp.evaluation.scored import ScoredModel
from onnxlrp.inputs.presets import OTHERWISE
from onnxlrp.running.contract import fits
from onnxlrp.running.explanation import is_flat

RANDOM = "random order"
RESAMPLES = 10_000


class Interval(NamedTuple):
    """A mean over samples with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4g} [{self.low:.4g}, {self.high:.4g}]"


@dataclass(frozen=True)
class Study:
    """What was measured, sample by sample.

    Attributes
    ----------
    rows : a row for each sample, as `Judge` returns it
    methods : names, in the order given

    """

    rows: Sequence[Mapping[str, Any]]
    methods: Sequence[str]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def measures(self) -> list[str]:
        """Names of what was measured of any method."""
        every = (one for row in self.rows for one in row["methods"].values())
        return list(dict.fromkeys(name for one in every for name in one["values"]))

    @property
    def flips(self) -> int | None:
        """L, where it is the same for all; None where curves are over shares of it."""
        found = {row["flips"] for row in self.rows}
        return found.pop() if len(found) == 1 else None

    def values(self, method: str, measure: str) -> NDArray[np.float64]:
        """Return a measure of each sample, [N]; NaN where it was not taken."""
        taken = [row["methods"][method]["values"].get(measure) for row in self.rows]
        return np.array([np.nan if value is None else value for value in taken])

    def mean(self, method: str, measure: str) -> Interval:
        """Return the mean over samples."""
        return interval(self.values(method, measure))

    def difference(self, method: str, other: str, measure: str) -> Interval:
        """Return the mean of the differences between two methods on the same samples."""
        return interval(self.values(method, measure) - self.values(other, measure))

    def curve(self, method: str, order: str) -> NDArray[np.float64]:
        """Return the mean curve, evenly spread over 0..L."""
        found = [row["methods"][method]["curves"][order] for row in self.rows]
        if self.flips is None:
            places = np.linspace(0, 1, KEPT)
            found = [np.interp(places, np.linspace(0, 1, len(one)), one) for one in found]
        mean: NDArray[np.float64] = np.asarray(found).mean(axis=0)
        return mean


def interval(values: NDArray[np.float64], seed: int = 0) -> Interval:
    """Return a mean and the percentile bootstrap interval of 95 % around it (Efron 1979).

    Values that are NaN are left out. The same seed for all makes intervals of several measures
    rest on the same resamples.
    """
    from scipy.stats import bootstrap

    known = values[~np.isnan(values)]
    if len(known) == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    mean = float(known.mean())
    if len(known) < 2 or np.ptp(known) == 0:
        return Interval(mean, mean, mean)
    found = bootstrap(
        (known,),
        np.mean,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(seed),
        batch=1000,
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))


ROW = ("item", "digest", "class", "score", "flat", "flips", "methods")
"""What a `Judge` says of each sample, under these names."""


def joined(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return rows by their item, of each one row with the methods that were judged at any time.

    Raises
    ------
    InputError
        Of an item another class was predicted once than at another time.

    """
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        known = found.setdefault(row["item"], {**row, "methods": {}})
        if known["class"] != row["class"]:
            raise InputError(
                f"class {row['class']} is predicted of {row['item']} now, and class "
                f"{known['class']} was before: its numbers cannot be compared"
            )
        known["methods"] |= row["methods"]
    return found


class Judge:
    """A model with its explainers, and how they are to be judged.

    Parameters
    ----------
    model : the classifier
    methods : composites by name
    flipping : what a flip is
    medium : what samples are made of, and what flipped places become
    prefixes : numbers of flips at which the area is taken besides L; not of samples that have
        fewer, where not all have the same number
    orders : which orders are run; the random one is a method of its own, `RANDOM`, whose one curve
        stands beside the others' in either direction
    batch : samples to a run

    Raises
    ------
    ModelError, UnsupportedError, CompositeError
        As for `convert`.

    """

    def __init__(
        self,
        model: ScoredModel,
        methods: Mapping[str, Composite],
        flipping: Flipping,
        medium: Medium,
        *,
        prefixes: Sequence[Amount] = (),
        orders: Sequence[str] = ORDERS,
        batch: int = 64,
    ) -> None:
        self.model = model
        self.flipping = flipping
        self.medium = medium
        self._prefixes = prefixes
        self._orders = [order for order in ORDERS if order in orders]
        self._directions = [order for order in self._orders if order != "random"] or ["descending"]
        self._batch = batch
        self._explainers = {name: model.explainer(one) for name, one in methods.items()}

    def check(self, sample: Sample) -> None:
        """Check that a sample, its maps and its mask fit the model and what is to be done.

        Raises
        ------
        InputError
            They do not; the text names the sample.

        """
        try:
            for name, values in self.medium.feeds(sample).items():
                expected = self.model.inputs[name].shape[1:]
                if not fits(values.shape[1:], expected):
                    hint = ""
                    if self.model.preprocessing is not None:
                        hint = f": {OTHERWISE}"
                    raise InputError(
                        f"the model reads {list(expected)} as '{name}', "
                        f"not {list(values.shape[1:])}{hint}"
                    )
            size = self.medium.size(sample)
            last = self.flipping.count(size, self.medium.spared(sample))
            for end in self._prefixes:
                if number_of(end, last) > last and self.medium.even:
                    raise InputError(f"no area after {end} flips where there are {last}")
            for name, relevance in sample.maps.items():
                if not np.isfinite(self.medium.of_places(relevance, sample)).all():
                    raise InputError(f"{name} holds NaN or infinity")
            if sample.mask is not None:
                rank_accuracy(np.zeros(size), sample.mask)
        except InputError as error:
            raise InputError(f"{sample.name}: {error}") from error

    def __call__(self, sample: Sample, only: Collection[str] | None = None) -> dict[str, Any]:
        """Judge every method, or `only` those of these names, on one sample.

        What a method gets does not depend on what is judged beside it.

        Returns
        -------
        `item`, its name; `digest`, of the sample; `class`, the one predicted; `score`, its score;
        `flat`, whether all classes score nearly alike; `flips`, L; `methods`: by name, `values`, by
        name of the measure, and `curves`, by order, at up to `KEPT` numbers of flips

        Raises
        ------
        InputError
            As for `check`, and `ScoredModel.scores`.

        """
        self.check(sample)
        try:
            return self._judged(sample, only)
        except InputError as error:
            raise InputError(f"{sample.name}: {error}") from error

    def _judged(self, sample: Sample, only: Collection[str] | None) -> dict[str, Any]:
        def asked(found: Mapping[str, Any]) -> dict[str, Any]:
            return {name: one for name, one in found.items() if only is None or name in only}

        medium, flipping, number = self.medium, self.flipping, sample.number
        feeds = medium.feeds(sample)
        scores = self.model.scores(feeds)[0]
        target = int(scores.argmax())
        explained = {name: run(feeds, target) for name, run in asked(self._explainers).items()}
        maps = {name: self.model.relevance(one) for name, one in explained.items()}
        maps |= asked(sample.maps)
        size = medium.size(sample)
        of_places = {name: medium.of_places(map_, sample) for name, map_ in maps.items()}
        steps = flipping.steps(size, medium.spared(sample))
        ranks: dict[tuple[str, Order], NDArray[np.int64]] = {
            (name, order): flipping.ranks(relevance, order, number)
            for name, relevance in of_places.items()
            for order in self._orders
            if order != "random"
        }
        chance = "random" in self._orders and (only is None or RANDOM in only)
        if chance:
            ranks[RANDOM, "random"] = flipping.ranks(np.zeros(size), "random", number)
        replacing = medium.replacing(sample, flipping)

        def without(gone: NDArray[np.bool_]) -> NDArray[Any]:
            return np.concatenate([self.model.scores(one)[:, target] for one in replacing(gone)])

        named = {f"{order}/{name}": rank for (name, order), rank in ranks.items()}
        found = curves(without, named, steps, self._batch)
        rows: dict[str, Any] = {}
        for name in (*maps, *([RANDOM] if chance else [])):
            own = {order: found[f"{order}/{name}"] for n, order in ranks if n == name}
            measured: dict[str, float] = {}
            for order, curve in own.items():
                # What either of the others is to beat.
                for beside in self._directions if order == "random" else [order]:
                    measured |= self._of_curve(beside, curve, steps)
            if name in maps:
                measured |= _of_map(of_places[name], sample.mask)
                one = explained.get(name)
                root = None if one is None else one.reference_scores
                whole = scores[target] - (0 if root is None else root.reshape(-1)[target])
                sensitivity = one is not None and one.aim().sensitivity
                if not self.model.probability and whole and not sensitivity:
                    share = maps[name].sum(dtype=np.float64) / whole
                    measured["share of score"] = float(share)
            thin = kept(steps, own.values())
            rows[name] = {"values": measured, "curves": dict(zip(own, thin, strict=True))}
        return {
            "item": sample.name,
            "digest": sample.digest,
            "class": target,
            "score": float(scores[target]),
            "flat": is_flat(scores, not self.model.probability),
            "flips": int(steps[-1]),
            "methods": rows,
        }

    def _of_curve(
        self, order: str, curve: NDArray[np.float64], steps: NDArray[np.int64]
    ) -> dict[str, float]:
        last = int(steps[-1])
        measured = {f"AUC {order}": area(curve, steps, last)}
        for prefix in self._prefixes:
            end = number_of(prefix, last)
            if end <= last:
                measured[f"AUC {order} at {prefix}"] = area(curve, steps, end)
        if order == "descending":
            measured["AOPC"] = aopc(curve, steps, last)
        return measured


def _of_map(relevance: NDArray[np.float64], mask: NDArray[Any] | None) -> dict[str, float]:
    measured = {"sparseness": sparseness(relevance), "complexity": complexity(relevance)}
    if mask is not None:
        measured["mass accuracy"] = mass_accuracy(relevance, mask)
        measured["rank accuracy"] = rank_accuracy(relevance, mask)
    return measured
