"""What `onnxlrp explain` leaves in its folder."""

from __future__ import annotations

import csv
import errno
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from textwrap import indent
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxlrp.drawing.bars import longest
from onnxlrp.drawing.default_colours import DEFAULT_COLOURS
from onnxlrp.drawing.heatmap import full_scale, heatmap, overlay
from onnxlrp.drawing.panels import seen, sheet
from onnxlrp.drawing.sentence import full_scale as strongest
from onnxlrp.drawing.sentence import page
from onnxlrp.drawing.typeset import sentence
from onnxlrp.errors import InputError
from onnxlrp.files import replacing, write, write_csv, write_lines
from onnxlrp.inputs.preprocessing import Preprocessing
from onnxlrp.inputs.targets import Targets
from onnxlrp.inputs.text import Tokens
from onnxlrp.running.explainer import Explainer
from onnxlrp.running.explanation import Account, is_flat, title
from onnxlrp.running.stream import (
    Explained,
    Failure,
    How,
    Result,
    Sample,
    Source,
    ahead,
    explain,
    pool,
)

DRAWINGS = {
    "sheet": "sheet.png",
    "heatmap": "heatmap.png",
    "overlay": "overlay.png",
    "html": "html",
}
TABLE, ARRAY, ARCHIVE = "tokens.csv", "relevance.npy", "relevance.npz"
FORMATS = (*DRAWINGS, "csv", "npy", "npz", "hdf5")
OF_PICTURES, OF_TEXTS = ("heatmap", "overlay"), ("html", "csv")
FEATURES = "relevance.csv"


@dataclass(frozen=True)
class Record:
    """One class of one item, a row of `results.csv` and `results.json`.

    Attributes
    ----------
    item : name of the item, and of its files in the folder
    source : the file it is from
    rank : 1 for the class explained first of an item, where several are
    target, label : the class explained, and its name, "" where none is known; `3-5` for a
        difference, `weights` where all scores were weighted
    explained : that in words
    quantity : what the score is, of a class, a difference, or weighted
    score : the class's entry in the model's output, or that quantity of it
    relevance : sum over the map
    share : relevance / score; None where the score is no logit, or is 0, or contrasted
    size : sum of the magnitudes over the map
    padding : the part of it that no token of a text got, but what fills the text up
    full : relevance at which the item's own colours are full
    flat : whether the model scores all classes nearly alike

    """

    item: str
    source: str
    rank: int
    target: int | str
    label: str
    explained: str
    quantity: str
    score: float
    relevance: float
    share: float | None
    size: float
    padding: float
    full: float
    flat: bool

    @property
    def account(self) -> Account:
        """The score and what the map holds of it."""
        return Account(self.score, self.relevance, self.share, self.size, self.quantity)


@dataclass(frozen=True)
class Writer:
    """Writes the files of a result.

    Attributes
    ----------
    folder : where they go
    formats : out of `FORMATS`; `OF_TEXTS` of texts only, but csv of tables, too; `OF_PICTURES` of
        pictures only
    preprocessing : how pictures became the model's input; None where none did
    labels : names of the classes
    features : names of a table's; None where the model reads none
    best : how many classes of an item have files; where several, rank and class tell them apart
    logits : whether relevance adds up to the score, but for biases and stabiliser
    colours : a name that `onnxlrp.drawing.colours` knows
    shared : whether one scale of colours is to hold for the whole set

    """

    folder: Path
    formats: tuple[str, ...]
    preprocessing: Preprocessing | None
    labels: Sequence[str] | None
    features: Sequence[str] | None
    best: int
    logits: bool
    colours: str = DEFAULT_COLOURS
    shared: bool = False

    def __call__(self, result: Result | Failure) -> list[Record] | Failure:
        """Write a result's files, drawings only where their scale is known; return its rows."""
        if isinstance(result, Failure):
            return result
        try:
            return [
                self._write(result, explained, rank)
                for rank, explained in enumerate(result.explained, 1)
            ]
        except InputError as error:
            return Failure(result.sample.item, str(error))
        except OSError as error:
            # A full disk ends the run; a name that has no room for an ending costs itself.
            if error.errno != errno.ENAMETOOLONG:
                raise
            return Failure(result.sample.item, "its name is too long for files named after it")

    def path(self, record: Record, ending: str) -> Path:
        """Return the file of that ending for a class of an item."""
        rank = f"{record.rank:0{len(str(self.best))}}"
        between = f".top{rank}-{record.target}" if self.best > 1 else ""
        return self.folder / f"{record.item}{between}.{ending}"

    def written(self, record: Record) -> bool:
        """Tell whether the files of a row are all there; of a shared scale, but for drawings."""
        endings = [DRAWINGS[kind] for kind in self._drawings if not self.shared]
        if "csv" in self.formats and self.features is None:
            endings.append(TABLE)
        if "npy" in self.formats or self.shared:
            endings.append(ARRAY)
        if "npz" in self.formats or "hdf5" in self.formats:
            endings.append(ARCHIVE)
        return all(self.path(record, ending).is_file() for ending in endings)

    def draw(self, sample: Sample, record: Record, full: float) -> None:
        """Draw one map in every way asked for, with colours full at `full`."""
        relevance = np.load(self.path(record, ARRAY))
        self._draw(sample, relevance, record, full)

    def line(self, explained: Explained) -> str:
        """Write the relevance of a table's row as the cells of `FEATURES` that are to hold it."""
        kept = "csv" in self.formats and self.features is not None
        return ",".join(map(str, explained.relevance)) if kept else ""

    @property
    def _drawings(self) -> list[str]:
        return [kind for kind in DRAWINGS if kind in self.formats]

    def _write(self, result: Result, explained: Explained, rank: int) -> Record:
        sample, relevance = result.sample, explained.relevance
        tokens = sample.tokens
        account = Account.of(
            explained.aim, explained.score, [relevance], self.logits, explained.padding
        )
        layout = "NCHW" if self.preprocessing is None else self.preprocessing.layout
        full = full_scale(relevance, layout) if relevance.ndim == 3 else 0.0
        if tokens is not None:
            full = strongest(tokens, relevance)
        elif self.features is not None:
            full = longest(relevance)
        record = Record(
            item=sample.item.name,
            source=sample.item.source,
            rank=rank,
            target=explained.aim.key,
            label=explained.aim.label(self.labels),
            explained=explained.aim.in_words(self.labels),
            quantity=account.quantity,
            score=explained.score,
            relevance=account.relevance,
            share=account.share,
            size=account.size,
            padding=explained.padding,
            full=full,
            flat=is_flat(result.scores, self.logits),
        )
        path = self.path(record, ARRAY)
        if self.formats or self.shared:
            path.parent.mkdir(parents=True, exist_ok=True)
        if "npy" in self.formats or self.shared:
            write(path, lambda file: np.save(file, relevance))
        if "npz" in self.formats or "hdf5" in self.formats:
            arrays: dict[str, Any] = {
                "relevance": relevance,
                "scores": result.scores,
                "target": record.target,
            }
            if tokens is not None:
                arrays |= {
                    "ids": tokens.ids,
                    "tokens": np.array(tokens.pieces),
                    "offsets": tokens.offsets,
                    "words": tokens.word,
                    "special": tokens.special,
                    "text": tokens.text,
                    "padding": explained.padding,
                }
            write(path.with_suffix(".npz"), lambda file: np.savez(file, **arrays))
        if "csv" in self.formats and tokens is not None:
            write_csv(self.path(record, TABLE), tokens.table(relevance))
        if not self.shared:
            self._draw(sample, relevance, record, None)
        return record

    def _draw(
        self, sample: Sample, relevance: np.ndarray, record: Record, full: float | None
    ) -> None:
        layout = "NCHW" if self.preprocessing is None else self.preprocessing.layout
        options: dict[str, Any] = {"colours": self.colours, "full": full}
        if sample.tokens is not None:
            self._draw_text(sample.tokens, relevance, record, options)
            return
        picture = None
        if sample.picture is not None and self.preprocessing is not None:
            picture = seen(self.preprocessing, sample.picture)
        for kind in self._drawings:
            if kind == "sheet":
                heading = title(record.explained, record.account)
                drawn = sheet(
                    relevance,
                    sample.values,
                    picture,
                    layout,
                    title=heading,
                    names=self.features,
                    **options,
                )
            elif kind == "heatmap":
                drawn = heatmap(relevance, layout, **options)
            elif picture is None:
                raise InputError("an overlay needs a picture: leave it out of --format")
            else:
                drawn = overlay(relevance, picture, layout, **options)
            _write_png(self.path(record, DRAWINGS[kind]), drawn)

    def _draw_text(
        self, tokens: Tokens, relevance: np.ndarray, record: Record, options: dict[str, Any]
    ) -> None:
        options |= {"title": title(record.explained, record.account), "padding": record.padding}
        if "sheet" in self.formats:
            drawn = sentence(tokens, relevance, **options)
            _write_png(self.path(record, DRAWINGS["sheet"]), drawn)
        if "html" in self.formats:
            written = page(tokens, relevance, **options).encode()
            write(self.path(record, DRAWINGS["html"]), lambda file: file.write(written))


def written(
    run: Explainer,
    items: Iterable[Source],
    targets: Targets,
    how: How,
    writer: Writer,
    batch: int,
) -> Iterator[tuple[Result | Failure, list[Record] | Failure]]:
    """Explain items as `stream.explain` does, write the files of each, in order, beside it."""

    def work(result: Result | Failure) -> tuple[Result | Failure, list[Record] | Failure]:
        return result, writer(result)

    with pool(2) as writers:
        yield from ahead(
            writers, work, explain(run, items, targets, how, batch=batch), 2 * batch + 2
        )


def write_tables(folder: Path, records: Iterable[Record], failures: Sequence[Failure]) -> None:
    """Write `results.csv`, `results.json` and, if anything failed, `failed.json`.

    Records are taken one by one, there may be millions.
    """
    names = [field.name for field in fields(Record)]
    with (
        replacing(folder / "results.csv") as table,
        replacing(folder / "results.json") as listed,
        # Names of files may hold bytes that are no text.
        table.open("w", encoding="utf-8", errors="backslashreplace", newline="") as cells,
        listed.open("w", encoding="utf-8") as objects,
    ):
        lines = csv.writer(cells)
        lines.writerow(names)
        between = "[\n"
        for record in records:
            lines.writerow([getattr(record, name) for name in names])
            objects.write(between + indent(json.dumps(asdict(record), indent=1), " "))
            between = ",\n"
        objects.write("[]\n" if between == "[\n" else "\n]\n")
    failed = folder / "failed.json"
    if failures:
        whole = [
            {"item": one.item.name, "source": one.item.source, "reason": one.reason}
            for one in failures
        ]
        write(failed, lambda file: file.write(json.dumps(whole, indent=1).encode() + b"\n"))
    else:
        failed.unlink(missing_ok=True)


def write_features(writer: Writer, rows: Iterable[tuple[Record, str]]) -> None:
    """Write the relevance of all rows of tables, a line each: `FEATURES`.

    Parameters
    ----------
    writer : with the names of the features
    rows : each record, and what `Writer.line` made of its relevance

    """
    known = [] if writer.labels is None else ["label"]
    about = ["item", "target", *known, "score", "share"]

    def lines() -> Iterator[list[Any]]:
        yield [*about, *(writer.features or ())]
        for record, line in rows:
            yield [*(getattr(record, name) for name in about), *line.split(",")]

    write_lines(writer.folder / FEATURES, lines())


def write_hdf5(
    path: Path, records: Sequence[Record], arrays: Iterable[tuple[NDArray[Any], NDArray[Any]]]
) -> None:
    """Write the maps of a set into one HDF5 file.

    The layout is that of zennit's example, which CoRelAy and ViRelAy read: `attribution`
    [N, ...], `prediction` [N, classes], the model's scores, and `label` [N], the class explained,
    of a difference the first, -1 where all were weighted; beside them `item`, the names.

    Parameters
    ----------
    path : of the file
    records : at least one
    arrays : of each its relevance and scores, taken one by one

    Raises
    ------
    InputError
        The items are of different shapes.

    """
    import h5py

    with replacing(path) as beside, h5py.File(beside, "w") as file:
        for index, (record, found) in enumerate(zip(records, arrays, strict=True)):
            for name, array in zip(("attribution", "prediction"), found, strict=True):
                if index == 0:
                    file.create_dataset(name, (len(records), *array.shape), array.dtype)
                if file[name].shape[1:] != array.shape:
                    raise InputError(
                        f"{path.name} needs items of one size: {record.item} has {name} "
                        f"{list(array.shape)}, those before {list(file[name].shape[1:])}"
                    )
                file[name][index] = array
        file["label"] = np.array([class_of(record) for record in records], np.int64)
        file["item"] = [record.item for record in records]


def archived(
    records: Iterable[Record], writer: Writer
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Read relevance and scores of each record from the `.npz` that the writer left."""
    for record in records:
        with np.load(writer.path(record, ARCHIVE)) as arrays:
            yield arrays["relevance"], arrays["scores"]


def class_of(record: Record) -> int:
    """Return the class explained, of a difference the first; -1 where all were weighted."""
    first = str(record.target).partition("-")[0]
    return int(first) if first.isdecimal() else -1


def _write_png(path: Path, drawn: Image.Image) -> None:
    # Run lengths alone: a third larger than by zlib's defaults, and ten times as fast.
    write(path, lambda file: drawn.save(file, format="PNG", compress_level=1, compress_type=3))
