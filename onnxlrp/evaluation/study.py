"""Judge several composites, or maps of any library, on the same pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnxlrp.compiler.composite import Composite
from onnxlrp.compiler.conversion import convert
from onnxlrp.compiler.default_composite import DEFAULT_COMPOSITE
from onnxlrp.errors import InputError
from onnxlrp.evaluation.flipping import ORDERS, Flipping, Order, aopc, area, curves, kept
from onnxlrp.evaluation.measures import (
    complexity,
    mass_accuracy,
    rank_accuracy,
    sparseness,
    summed,
)
from onnxlrp.inputs.preprocessing import Preprocessing
from onnxlrp.running.explainer import Contract, Explainer, fits
from onnxlrp.running.explanation import is_flat
from onnxlrp.runtime import open_session

RANDOM = "random order"
RESAMPLES = 10_000

Maps = Mapping[str, NDArray[Any]]


class Interval(NamedTuple):
    """A mean over pictures with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4g} [{self.low:.4g}, {self.high:.4g}]"


@dataclass(frozen=True)
class Study:
    """What was measured, picture by picture.

    Attributes
    ----------
    rows : a row for each picture, as `Judge` returns it
    methods : names, in the order given

    """

    rows: Sequence[Mapping[str, Any]]
    methods: Sequence[str]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def measures(self) -> list[str]:
        """Names of what was measured of any method."""
        first = self.rows[0]["methods"] if self.rows else {}
        return list(dict.fromkeys(name for one in first.values() for name in one["values"]))

    def values(self, method: str, measure: str) -> NDArray[np.float64]:
        """Return a measure of each picture, [N]; NaN where it was not taken."""
        taken = [row["methods"][method]["values"].get(measure) for row in self.rows]
        return np.array([np.nan if value is None else value for value in taken])

    def mean(self, method: str, measure: str) -> Interval:
        """Return the mean over pictures."""
        return interval(self.values(method, measure))

    def difference(self, method: str, other: str, measure: str) -> Interval:
        """Return the mean of the differences between two methods on the same pictures."""
        return interval(self.values(method, measure) - self.values(other, measure))

    def curve(self, method: str, order: str) -> NDArray[np.float64]:
        """Return the mean curve, evenly spread over 0..L."""
        found = [row["methods"][method]["curves"][order] for row in self.rows]
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
"""What a `Judge` says of each picture, under these names."""


@dataclass(frozen=True)
class Picture:
    """One picture to judge on.

    Attributes
    ----------
    name : unique
    number : its place in the whole set, which its random values depend on
    pixels : what the model sees of it (`Preprocessing.pixels`), uint8 [H, W, C]
    maps : relevance computed elsewhere, [H, W] or with channels, by method
    mask : what the relevance should lie in, [H, W]

    """

    name: str
    number: int
    pixels: NDArray[np.uint8]
    maps: Maps
    mask: NDArray[Any] | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of all that its results depend on."""
        found = hashlib.sha256(repr((self.name, self.number)).encode())
        arrays = {"pixels": self.pixels, "mask": self.mask, **self.maps}
        for name, array in arrays.items():
            if array is not None:
                found.update(repr((name, array.dtype.str, array.shape)).encode())
                found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()


class Judge:
    """A model with its explainers, and how they are to be judged.

    Parameters
    ----------
    model : an ONNX classifier of pictures with a symbolic batch
    methods : composites by name
    flipping : what a flip is
    preprocessing : how pixels become what the model reads
    prefixes : numbers of flips at which the area is taken besides L
    orders : which orders are run; the random one is a method of its own, `RANDOM`, whose one curve
        stands beside the others' in either direction
    probability : follow what the model puts out instead of the logits it comes from; of a model
        that puts out logits, their softmax, or of a single one its sigmoid
    batch : pictures to a run
    threads : for one operator on the CPU

    Raises
    ------
    ModelError, UnsupportedError, CompositeError
        As for `convert`.

    """

    def __init__(
        self,
        model: Path,
        methods: Mapping[str, Composite],
        flipping: Flipping,
        preprocessing: Preprocessing,
        *,
        prefixes: Sequence[int] = (),
        orders: Sequence[str] = ORDERS,
        probability: bool = False,
        batch: int = 64,
        threads: int | None = None,
    ) -> None:
        self.flipping = flipping
        self.preprocessing = preprocessing
        self._prefixes = prefixes
        self._orders = [order for order in ORDERS if order in orders]
        self._directions = [order for order in self._orders if order != "random"] or ["descending"]
        self._probability = probability
        self._batch = batch
        self._explainers = {
            name: _explainer(model, composite, preprocessing, threads)
            for name, composite in methods.items()
        }
        first = next(iter(methods.values()), DEFAULT_COMPOSITE)
        self._session, self._made = _forward(model, first, preprocessing, probability, threads)

    def scores(self, images: NDArray[np.float32]) -> NDArray[Any]:
        """Return the scores of what the model reads, [B, classes]."""
        values = self._session.run(None, {self._session.get_inputs()[0].name: images})[0]
        return self._made(values.reshape(len(images), -1))

    def check(self, picture: Picture) -> None:
        """Check that a picture, its maps and its mask fit the model and what is to be done.

        Raises
        ------
        InputError
            They do not; the text names the picture.

        """
        try:
            values = self.preprocessing.values(picture.pixels)
            expected = self._session.get_inputs()[0].shape[1:]
            if not fits(values.shape, expected):
                raise InputError(
                    f"the model reads {expected}, the preprocessing makes {list(values.shape)}: "
                    "change --preprocess, --resize, --crop or --layout"
                )
            size = picture.pixels.shape[:2]
            last = self.flipping.count(size)
            beyond = [end for end in self._prefixes if end > last]
            if beyond:
                raise InputError(f"no area after {beyond[0]} flips where there are {last}")
            for name, relevance in picture.maps.items():
                if not np.isfinite(summed(relevance, size)).all():
                    raise InputError(f"{name} holds NaN or infinity")
            if picture.mask is not None:
                rank_accuracy(np.zeros(size), picture.mask)
        except InputError as error:
            raise InputError(f"{picture.name}: {error}") from error

    def __call__(self, picture: Picture) -> dict[str, Any]:
        """Judge every method on one picture.

        Returns
        -------
        `item`, its name; `digest`, of the picture; `class`, the one predicted; `score`, its score;
        `flat`, whether all classes score nearly alike; `flips`, L; `methods`: by name, `values`, by
        name of the measure, and `curves`, by order, at up to `KEPT` numbers of flips

        Raises
        ------
        InputError
            As for `check`.

        """
        self.check(picture)
        values = self.preprocessing.values(picture.pixels)[None]
        scores = self.scores(values)[0]
        target = int(scores.argmax())
        maps: dict[str, NDArray[Any]] = {}
        for name, run in self._explainers.items():
            maps[name] = np.asarray(run(values, target).relevance)[0]
        maps |= picture.maps
        flipping, number = self.flipping, picture.number
        size = picture.pixels.shape[:2]
        of_pixels = {name: summed(map_, size) for name, map_ in maps.items()}
        steps = flipping.steps(size)
        ranks: dict[tuple[str, Order], NDArray[np.int64]] = {
            (name, order): flipping.ranks(relevance, order, number)
            for name, relevance in of_pixels.items()
            for order in self._orders
            if order != "random"
        }
        if "random" in self._orders:
            ranks[RANDOM, "random"] = flipping.ranks(np.zeros(size), "random", number)
        found = curves(
            lambda images: self.scores(images)[:, target],
            flipping.replacing(picture.pixels, number, self.preprocessing),
            {f"{order}/{name}": rank for (name, order), rank in ranks.items()},
            steps,
            self._batch,
        )
        rows: dict[str, Any] = {}
        for name in (*maps, *([RANDOM] if "random" in self._orders else [])):
            own = {order: found[f"{order}/{name}"] for n, order in ranks if n == name}
            measured: dict[str, float] = {}
            for order, curve in own.items():
                # What either of the others is to beat.
                for beside in self._directions if order == "random" else [order]:
                    measured |= self._of_curve(beside, curve, steps)
            if name in maps:
                measured |= self._of_map(of_pixels[name], scores[target], picture.mask)
            thin = kept(steps, own.values())
            rows[name] = {"values": measured, "curves": dict(zip(own, thin, strict=True))}
        return {
            "item": picture.name,
            "digest": picture.digest,
            "class": target,
            "score": float(scores[target]),
            "flat": is_flat(scores, not self._probability),
            "flips": int(steps[-1]),
            "methods": rows,
        }

    def _of_curve(
        self, order: str, curve: NDArray[np.float64], steps: NDArray[np.int64]
    ) -> dict[str, float]:
        last = int(steps[-1])
        measured = {f"AUC {order}": area(curve, steps, last)}
        measured |= {f"AUC {order} at {end}": area(curve, steps, end) for end in self._prefixes}
        if order == "descending":
            measured["AOPC"] = aopc(curve, steps, last)
        return measured

    def _of_map(
        self, relevance: NDArray[np.float64], score: float, mask: NDArray[Any] | None
    ) -> dict[str, float]:
        measured = {"sparseness": sparseness(relevance), "complexity": complexity(relevance)}
        if not self._probability and score:
            measured["share of score"] = float(relevance.sum() / score)
        if mask is not None:
            measured["mass accuracy"] = mass_accuracy(relevance, mask)
            measured["rank accuracy"] = rank_accuracy(relevance, mask)
        return measured


def _explainer(
    model: Path, composite: Composite, preprocessing: Preprocessing, threads: int | None
) -> Explainer:
    conversion = convert(model, composite, preprocessing=preprocessing)
    conversion.warn()
    return Explainer(conversion.to_proto().SerializeToString(), threads=threads)


def _forward(
    model: Path,
    composite: Composite | str,
    preprocessing: Preprocessing,
    probability: bool,
    threads: int | None,
) -> tuple[Any, Callable[[NDArray[Any]], NDArray[Any]]]:
    """Open the part of an explainer that leads to what is followed, and say what becomes of that.

    That is the score, the model without its end, or for a probability the model's own output.
    """
    from scipy.special import expit, softmax

    conversion = convert(model, composite, preprocessing=preprocessing, target="top")
    proto = conversion.to_proto()
    contract = Contract.read({entry.key: entry.value for entry in proto.metadata_props})
    assert contract is not None
    own = probability and (contract.output != contract.score or bool(contract.signs))
    wanted = contract.output if own else contract.score
    typed = [*proto.graph.value_info, *proto.graph.output]
    score = next((value for value in typed if value.name == wanted), None)
    if score is None:
        original = onnx.load(model, load_external_data=False)
        score = next(v for v in original.graph.output if v.name == wanted)
    del proto.graph.output[:]
    proto.graph.output.append(score)

    def made(values: NDArray[Any]) -> NDArray[Any]:
        if not probability:
            return np.asarray(values * np.array(contract.signs) if contract.signs else values)
        if own:
            # The logarithm of a probability stands for it.
            return np.asarray(np.exp(values) if (values <= 0).all() else values)
        return np.asarray(softmax(values, axis=1) if values.shape[1] > 1 else expit(values))

    # onnxruntime runs nodes that lead to no output, too.
    pruned = ir.from_proto(proto)
    RemoveUnusedNodesPass()(pruned)
    session = open_session(ir.to_proto(pruned).SerializeToString(), str(model), "cpu", threads)
    if len(session.get_inputs()) != 1:
        raise InputError(f"{model} has several inputs: only models of one picture can be evaluated")
    if isinstance(session.get_inputs()[0].shape[0], int):
        raise InputError(f"{model} fixes its batch: export it with a symbolic one")
    return session, made
