"""Relevance maps of the same inputs from several origins, brought together."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxlrp.compiler.composite import Composite
from onnxlrp.compiler.conversion import convert
from onnxlrp.errors import InputError
from onnxlrp.evaluation.agreement import agreement
from onnxlrp.evaluation.measures import summed
from onnxlrp.inputs.items import Item, collect, load_array
from onnxlrp.inputs.preprocessing import Preprocessing
from onnxlrp.inputs.targets import TOP, Difference, Targets
from onnxlrp.running.contract import Contract
from onnxlrp.running.explainer import Explainer
from onnxlrp.running.stream import Failure, Sample, explain, prepare
from onnxlrp.telling import counted

SUFFIXES = (".npy", ".npz", ".h5", ".hdf5")
ENDINGS = (".relevance.npy", ".relevance.npz")


@dataclass(frozen=True)
class Maps:
    """The maps of one origin.

    Attributes
    ----------
    origin : what the user called it
    relevance : by item, without a batch axis
    classes : the class explained of each item, or a difference `3-5`, where it is known

    """

    origin: str
    relevance: Mapping[str, NDArray[Any]]
    classes: Mapping[str, int | str]

    @property
    def numbered(self) -> bool:
        """Whether the items have no names of their own."""
        return [*self.relevance] == _numbers(len(self.relevance))

    def renamed(self, names: Iterable[str]) -> Maps:
        """Return the same maps under other names, in the same order."""
        new = dict(zip(self.relevance, names, strict=True))
        return Maps(
            self.origin,
            {new[name]: map_ for name, map_ in self.relevance.items()},
            {new[name]: number for name, number in self.classes.items()},
        )


@dataclass(frozen=True)
class Pair:
    """One origin measured against the first.

    Attributes
    ----------
    one, other : the maps, in one layout
    measures : by item, as `agreement` gives them
    notes : what was done so that they could be compared, and what else differs

    """

    one: Maps
    other: Maps
    measures: Mapping[str, Mapping[str, float]]
    notes: Sequence[str]

    def worst(self, measure: str = "relative max") -> list[str]:
        """Return the items, the largest of a distance first."""
        return sorted(self.measures, key=lambda item: -self.measures[item][measure])


def is_run(path: Path) -> bool:
    """Tell an explainer or model, which has to be run, from files of relevance."""
    return path.is_file() and path.suffix.lower() not in SUFFIXES


def read_maps(path: Path, names: Sequence[str] | None = None) -> Maps:
    """Read relevance that was computed before.

    Parameters
    ----------
    path : `.npy`, `.npz` (array `relevance` or `attribution`), HDF5 (dataset `attribution`, as
        zennit's example and `onnxlrp explain` write it; also `label`, the classes explained, and
        `item`, names), a folder of `onnxlrp explain`, or `*.relevance.npy` of one item in it
    names : of the items in an array, in order; their numbers if None

    Raises
    ------
    InputError
        There is no relevance in it, or another number of maps than names.
    OSError
        It cannot be opened.

    """
    if path.is_dir():
        found: dict[str, NDArray[Any]] = {}
        for ending in ENDINGS:
            found = found or {
                file.relative_to(path).as_posix().removesuffix(ending): load_array(file)
                for file in sorted(path.rglob(f"*{ending}"))
            }
        if not found:
            raise InputError(
                f"{path} holds no *{ENDINGS[0]}: is it a folder of `onnxlrp explain --format npy`?"
            )
        table = path / "results.json"
        rows = json.loads(table.read_text("utf-8")) if table.exists() else []
        return Maps(str(path), found, {row["item"]: row["target"] for row in rows})
    hdf5 = path.suffix.lower() in (".h5", ".hdf5")
    array, own, classes = _attribution(path) if hdf5 else (load_array(path), None, [])
    if path.name.endswith(ENDINGS):
        array = array[None]
    if array.ndim < 2 or len(array) == 0:
        raise InputError(f"{path} holds no maps, only {list(array.shape)}")
    names = own or names or _numbers(len(array))
    if len(names) != len(array):
        raise InputError(f"{path} holds {len(array)} maps for {len(names)} items")
    return Maps(
        str(path), dict(zip(names, array, strict=True)), dict(zip(names, classes, strict=False))
    )


def _numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def _attribution(path: Path) -> tuple[NDArray[Any], list[str] | None, list[int]]:
    """Return the maps, and the items' names and classes where there are any."""
    import h5py

    try:
        with h5py.File(path) as file:
            array = np.asarray(file["attribution"][:])
            names = [*file["item"].asstr()] if "item" in file else None
            labels = np.asarray(file["label"][:]) if "label" in file else np.empty(0)
    except FileNotFoundError:
        raise
    # h5py reports what is missing, a group, or of another kind as any of these.
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"{path} is no HDF5 file with an array 'attribution' (and arrays 'label' and 'item')"
        ) from error
    # Anything else under that name does not say a class for each.
    known = labels.shape == array.shape[:1] and labels.dtype.kind in "iu"
    return array, names, [int(label) for label in labels] if known else []


def open_explainer(path: Path, composite: Composite, start: str | None = None) -> Explainer:
    """Open an explainer, or a model through its explainer under the composite.

    Parameters
    ----------
    path : of either
    composite : for a model
    start : what that is converted to explain; None lets an input choose the class

    Raises
    ------
    ModelError, UnsupportedError, CompositeError
        As for `convert`.
    InputError
        The model has several inputs.

    """
    try:
        proto = onnx.load(path, load_external_data=False)
        stored = Contract.read({entry.key: entry.value for entry in proto.metadata_props})
    # The compiler says better what is the matter.
    except Exception:
        stored = None
    if stored is None:
        composite.check_alone()
    run = Explainer(
        path if stored else convert(path, composite, target=start).to_proto().SerializeToString()
    )
    if len(run.inputs) != 1:
        raise InputError(f"{path} has several inputs: only explainers of one can be compared")
    return run


def run_maps(
    origin: str,
    run: Explainer,
    sources: Sequence[str],
    preprocessing: Preprocessing | None,
    target: int | Difference = TOP,
) -> Maps:
    """Explain a class, or the top ones, of files and folders.

    A model that reads the other layout than the preprocessing makes gets its own.

    Raises
    ------
    InputError
        An item cannot be explained.

    """
    (expected,) = run.inputs.values()
    items = collect(sources, len(expected.shape) - 1)
    how = _in_layout(run, items[0], run.preprocessing or preprocessing)
    targets = Targets() if target == TOP else Targets(0, one=target)
    relevance, classes = {}, {}
    results = explain(run, items, targets, how, batch=4)
    for result in counted(results, f"items of {Path(origin).name}", len(items)):
        if isinstance(result, Failure):
            raise InputError(f"{origin}: {result.told}")
        name = result.sample.item.name
        relevance[name] = result.explained[0].relevance
        classes[name] = result.explained[0].aim.key
    return Maps(origin, relevance, classes)


def random_maps(
    origin: str, run: Explainer, images: NDArray[Any], target: int | Difference = TOP
) -> Maps:
    """Explain a class, or the top ones, of arrays, laid out as the model wants them.

    Parameters
    ----------
    origin : what the user called it
    run : its explainer
    images : float32 [N, ...]; [N, C, H, W] becomes [N, H, W, C] where the model reads that
    target : the class

    Raises
    ------
    InputError
        The model reads another shape.

    """
    (expected,) = run.inputs.values()
    if images.ndim == 4 and expected.shape[-1] == images.shape[1] != expected.shape[1]:
        images = images.transpose(0, 2, 3, 1)
    with warnings.catch_warnings():
        # Random values are no pictures, and need not be.
        warnings.simplefilter("ignore")
        found = [
            run(_repeated(image, run.batch or 1).astype(expected.dtype), target)
            for image in counted(images, f"items of {Path(origin).name}")
        ]
    return Maps(
        origin,
        {str(number): one.of(0)[0] for number, one in enumerate(found)},
        {str(number): one.aim(0).key for number, one in enumerate(found)},
    )


def _repeated(image: NDArray[Any], count: int) -> NDArray[Any]:
    """Fill a batch with one image."""
    return np.repeat(image[None], count, axis=0)


def compare(one: Maps, other: Maps, top: Sequence[float]) -> Pair:
    """Measure maps against those of the same items from another origin.

    Maps [H, W, C] are compared with [C, H, W] after a transpose, maps [H, W] with either after a
    sum over channels, maps without names of their items in their order; the notes say so.

    Raises
    ------
    InputError
        The items are not the same, their maps are of different sizes, or hold NaN or infinity.

    """
    notes: dict[str, None] = {}
    if len(one.relevance) != len(other.relevance):
        raise InputError(
            f"{one.origin} holds {len(one.relevance)} maps, {other.origin} {len(other.relevance)}"
        )
    if one.relevance.keys() != other.relevance.keys():
        if not (one.numbered or other.numbered):
            odd = sorted(one.relevance.keys() ^ other.relevance.keys())
            raise InputError(
                f"{one.origin} and {other.origin} are not about the same items: "
                f"{', '.join(odd[:3])}{' and more' if len(odd) > 3 else ''} in one of them only"
            )
        notes["one of them does not name its items: compared in their order"] = None
        if one.numbered:
            one = one.renamed(other.relevance)
        else:
            other = other.renamed(one.relevance)
    fitted_one, fitted_other, measures = {}, {}, {}
    for item, left in one.relevance.items():
        a, b, note = _alike(left, other.relevance[item])
        if note:
            notes[note] = None
        fitted_one[item], fitted_other[item] = a, b
        try:
            measures[item] = agreement(a, b, top)
        except InputError as error:
            raise InputError(f"{one.origin}, {other.origin}: item {item}: {error}") from error
    both = one.classes.keys() & other.classes.keys()
    apart = sum(one.classes[item] != other.classes[item] for item in both)
    if apart:
        notes[f"different classes are explained for {apart} of {len(both)} items"] = None
    return Pair(
        replace(one, relevance=fitted_one),
        replace(other, relevance=fitted_other),
        measures,
        [*notes],
    )


def _alike(left: NDArray[Any], right: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], str]:
    if left.shape == right.shape:
        return left, right, ""
    if left.ndim == right.ndim == 3:
        if np.moveaxis(right, -1, 0).shape == left.shape:
            return left, np.moveaxis(right, -1, 0), "compared after a transpose to [C, H, W]"
        if np.moveaxis(left, -1, 0).shape == right.shape:
            return np.moveaxis(left, -1, 0), right, "compared after a transpose to [C, H, W]"
    for large, small in ((left, right), (right, left)):
        if (large.ndim, small.ndim) == (3, 2):
            with suppress(InputError):
                total = summed(large, small.shape)
                pair = (total, right) if large is left else (left, total)
                return *pair, "compared after a sum over channels"
    raise InputError(f"maps of {list(left.shape)} and {list(right.shape)} cannot be compared")


def _in_layout(
    run: Explainer, item: Item, preprocessing: Preprocessing | None
) -> Preprocessing | None:
    """Return the preprocessing, in the layout that the model takes the first item in."""
    if preprocessing is None:
        return None
    other = replace(preprocessing, layout="NHWC" if preprocessing.layout == "NCHW" else "NCHW")
    for candidate in (preprocessing, other):
        try:
            sample: Sample = prepare(item, run, candidate)
        except InputError:
            continue
        return candidate if sample.values.size else None
    return preprocessing
