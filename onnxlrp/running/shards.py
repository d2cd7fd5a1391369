"""Maps of a block of items as one file: Parquet, Zarr or HDF5."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnxlrp.errors import InputError
from onnxlrp.extras import needed
from onnxlrp.files import replacing
from onnxlrp.running.results import Record, class_of, write_hdf5


class Map(NamedTuple):
    """A row of a shard: what is said of a map, the map, and the model's scores, [classes]."""

    record: Record
    relevance: NDArray[Any]
    scores: NDArray[Any]


def write_parquet(path: Path, maps: Sequence[Map]) -> None:
    """Write a line for each map: the columns of `results.csv`, and arrays as lists.

    `class` is the class explained as a number, `relevance` the map in the order of C, `shape` its
    axes, `scores` what the model says of all classes.
    """
    arrow, parquet = needed("pyarrow", "data"), needed("pyarrow.parquet", "data")

    def flat(arrays: list[NDArray[Any]]) -> Any:
        ends = np.cumsum([0, *(array.size for array in arrays)])
        joined = np.concatenate([array.reshape(-1) for array in arrays])
        return arrow.LargeListArray.from_arrays(ends, arrow.array(joined))

    rows = [asdict(one.record) for one in maps]
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    for name in ("item", "source"):
        # Names of files need not be UTF-8; what is not is written out.
        columns[name] = [
            text.encode("utf-8", "backslashreplace").decode() for text in columns[name]
        ]
    columns["target"] = [str(target) for target in columns["target"]]
    columns["share"] = arrow.array(columns["share"], arrow.float64())
    columns["class"] = np.array([class_of(one.record) for one in maps], np.int64)
    columns["shape"] = flat([np.array(one.relevance.shape, np.int64) for one in maps])
    columns["relevance"] = flat([one.relevance for one in maps])
    columns["scores"] = flat([one.scores for one in maps])
    with replacing(path) as beside:
        # Floats hardly repeat: a dictionary of them only costs time.
        plain = [name for name in columns if name not in ("relevance", "scores")]
        parquet.write_table(
            arrow.table(columns),
            beside,
            row_group_size=64,
            compression="zstd",
            use_dictionary=plain,
        )


def write_zarr(path: Path, maps: Sequence[Map]) -> None:
    """Write a Zarr group, of version 2, in one zip file, with arrays named as in HDF5."""
    zarr = needed("zarr", "data")
    arrays = {
        "attribution": np.stack([one.relevance for one in maps]),
        "prediction": np.stack([one.scores for one in maps]),
        "label": np.array([class_of(one.record) for one in maps], np.int64),
        "item": np.array([one.record.item for one in maps]),
    }
    with replacing(path) as beside, zarr.storage.ZipStore(beside, mode="w") as store:
        group = zarr.create_group(store, zarr_format=2)
        for name, array in arrays.items():
            group.create_array(name, data=array, chunks=array.shape)


def _write_hdf5(path: Path, maps: Sequence[Map]) -> None:
    write_hdf5(path, [one.record for one in maps], ((one.relevance, one.scores) for one in maps))


class Form(NamedTuple):
    """The ending of a shard's file, what writes it, and the library that takes."""

    ending: str
    write: Callable[[Path, Sequence[Map]], None]
    library: str


FORMS = {
    "parquet": Form(".parquet", write_parquet, "pyarrow"),
    "zarr": Form(".zarr.zip", write_zarr, "zarr"),
    "hdf5": Form(".h5", _write_hdf5, "h5py"),
}
"""All but parquet hold maps of one size."""


def check_forms(formats: Sequence[str]) -> tuple[str, ...]:
    """Return those of formats that are forms of shards.

    Raises
    ------
    InputError
        The library that one of them takes is not installed.

    """
    forms = tuple(one for one in formats if one in FORMS)
    for form in forms:
        needed(FORMS[form].library, "data")
    return forms


def check_size(first: Map, other: Map, forms: Sequence[str]) -> None:
    """Check that two maps may lie in one shard.

    Raises
    ------
    InputError
        They are of different shapes, and one of the forms holds maps of one.

    """
    form = next((form for form in forms if form != "parquet"), None)
    if form and first.relevance.shape != other.relevance.shape:
        raise InputError(
            f"its map is {list(other.relevance.shape)}, others of its {form} file are "
            f"{list(first.relevance.shape)}: --format parquet takes maps of any size"
        )
