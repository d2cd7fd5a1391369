"""An explanation as labelled arrays of xarray and tables of pandas, where they are installed."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxlrp.errors import InputError
from onnxlrp.inputs.columns import feature_names

if TYPE_CHECKING:
    import pandas
    import xarray

    from onnxlrp.running.explanation import Explanation

Arrays = Mapping[str, NDArray[Any]]

_CHANNELS = {"RGB": ["R", "G", "B"], "BGR": ["B", "G", "R"], "grey": ["grey"]}


def to_xarray(explanation: Explanation, labels: Sequence[str] | None = None) -> xarray.Dataset:
    """Name the axes of an explanation: what `Explanation.to_xarray` returns."""
    xr = _installed("xarray")
    count = len(explanation)
    scores = explanation.scores
    data: dict[str, Any] = {
        "target": ("sample", explanation.target),
        "score": ("sample", explanation.score),
        "share": ("sample", _shares(explanation)),
        "scores": (("sample", "class"), scores),
    }
    coords: dict[str, Any] = {
        "sample": np.arange(count),
        "class": _named(labels, scores.shape[1]),
        "explained": ("sample", [explanation.aim(row).in_words(labels) for row in range(count)]),
    }
    maps, values = _by_input(explanation.relevance, explanation), explanation.inputs
    if _of_tables(explanation):
        names, relevance, cells = joined(explanation)
        data |= {"relevance": (("sample", "feature"), relevance)}
        data |= {"value": (("sample", "feature"), cells)}
        coords["feature"] = names
    else:
        several = len(maps) > 1
        for name, array in maps.items():
            dims, own = _axes(explanation, array)
            if several:
                dims = [dim if dim == "sample" else f"{name}_{dim}" for dim in dims]
                own = {f"{name}_{dim}": labelled for dim, labelled in own.items()}
            end = f"_{name}" if several else ""
            data |= {f"relevance{end}": (dims, array), f"value{end}": (dims, values[name])}
            coords |= own
    if explanation.texts:
        tokens = [text.pieces for text in explanation.texts]
        width = maps[next(iter(maps))].shape[1]
        filled = [[*pieces, *[""] * (width - len(pieces))] for pieces in tokens]
        coords["piece"] = (("sample", "token"), np.array(filled, dtype=object))
    for kind, arrays in (
        ("output", explanation.outputs),
        ("intermediate", explanation.intermediates),
    ):
        for name, array in arrays.items():
            if kind == "output" and array.shape == scores.shape:
                dims = ["sample", "class"]
            else:
                dims = [f"{name}_{axis}" for axis in range(array.ndim)]
                dims[:1] = ["sample"] if array.shape[:1] == (count,) else dims[:1]
            data[f"{kind}_{name}"] = (dims, array)
    found: xarray.Dataset = xr.Dataset(data, coords, {"quantity": explanation.account().quantity})
    return found


def to_pandas(explanation: Explanation, labels: Sequence[str] | None = None) -> pandas.DataFrame:
    """Lay an explanation out as a table: what `Explanation.to_pandas` returns."""
    pd = _installed("pandas")
    shares = _shares(explanation)
    about = []
    for row in range(len(explanation)):
        aim, account = explanation.aim(row), explanation.account(row)
        named = {"label": aim.label(labels)} if labels else {}
        about.append({"target": aim.key, **named, "score": account.score, "share": shares[row]})
    if explanation.texts:
        return pd.DataFrame(
            [
                {"sample": row, **about[row], **token}
                for row, text in enumerate(explanation.texts)
                for token in text.table(explanation.of(row)[0])
            ]
        )
    index = pd.RangeIndex(len(explanation), name="sample")
    frame = pd.DataFrame(about, index)
    if _of_tables(explanation):
        names, relevance, _ = joined(explanation)
        taken = {name for name in names if name in frame.columns}
        columns = [f"relevance {name}" if name in taken else name for name in names]
        return pd.concat([frame, pd.DataFrame(relevance, index, columns)], axis=1)
    accounts = [explanation.account(row) for row in range(len(explanation))]
    frame["relevance"] = [account.relevance for account in accounts]
    frame["size"] = [account.size for account in accounts]
    return frame


def _installed(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"{name} is not installed: pip install {name}") from error


def _shares(explanation: Explanation) -> NDArray[np.float64]:
    """Return what share of its score each map holds, [N]; NaN where none is told."""
    found = [explanation.account(row).share for row in range(len(explanation))]
    return np.array([np.nan if share is None else share for share in found])


def _named(labels: Sequence[str] | None, count: int) -> Any:
    if labels is None:
        return np.arange(count)
    if len(labels) != count:
        raise InputError(f"{len(labels)} labels are given for {count} classes")
    return list(labels)


def _by_input(found: NDArray[Any] | Arrays, explanation: Explanation) -> Arrays:
    return found if isinstance(found, Mapping) else {next(iter(explanation.inputs)): found}


def _of_tables(explanation: Explanation) -> bool:
    maps = _by_input(explanation.relevance, explanation).values()
    return not explanation.texts and all(array.ndim == 2 for array in maps)


def joined(explanation: Explanation) -> tuple[list[str], NDArray[Any], NDArray[Any]]:
    """Join the columns of all inputs: names, relevance [N, F], and values [N, F]."""
    maps = _by_input(explanation.relevance, explanation)
    names: list[str] = []
    numbered = feature_names({name: array.shape[1] for name, array in maps.items()})
    for name, array in maps.items():
        names += explanation.features.get(name, numbered[len(names) : len(names) + array.shape[1]])
    # Beside texts numbers would become such.
    kinds = {explanation.inputs[name].dtype for name in maps}
    cells = [
        explanation.inputs[name] if len(kinds) == 1 else explanation.inputs[name].astype(object)
        for name in maps
    ]
    return names, np.concatenate([*maps.values()], axis=1), np.concatenate(cells, axis=1)


def _axes(explanation: Explanation, array: NDArray[Any]) -> tuple[list[str], dict[str, Any]]:
    """Name the axes of relevance that is of no table, and what stands along them if it is known."""
    if explanation.texts:
        return ["sample", "token"], {}
    if array.ndim == 3:
        return ["sample", "channel", "position"], {}
    if array.ndim != 4:
        return ["sample", *(f"axis_{axis}" for axis in range(1, array.ndim))], {}
    inner = ["channel", "y", "x"] if explanation.layout == "NCHW" else ["y", "x", "channel"]
    stored = explanation.preprocessing
    letters = [] if stored is None else _CHANNELS[stored.channels]
    known = len(letters) == array.shape[1 + inner.index("channel")]
    return ["sample", *inner], {"channel": letters} if known else {}
