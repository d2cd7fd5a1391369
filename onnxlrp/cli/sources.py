"""What is given to explain, pictures, arrays, texts or tables, and how it is read."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxlrp.cli.options import chosen_preprocessing
from onnxlrp.errors import InputError

if TYPE_CHECKING:
    from onnxlrp.inputs.items import Item
    from onnxlrp.inputs.rows import Table
    from onnxlrp.inputs.stores import Stored
    from onnxlrp.inputs.targets import Targets
    from onnxlrp.running.explainer import Explainer
    from onnxlrp.running.stream import How, Source

NOTHING = "Nothing is given to explain: INPUT, or --text TEXT."
_OF_TEXTS = ("text", "column", "tokenizer", "tokens")
_OF_TABLES = ("features", "ignore")


def given(
    run: Explainer,
    inputs: Sequence[str],
    folder: Path,
    options: Mapping[str, Any],
    only: Collection[Path] | None = None,
    before: Sequence[Table] = (),
) -> tuple[list[Source], How]:
    """List what there is to explain, and choose how it is read.

    Parameters
    ----------
    inputs : files, folders, and -
    folder : where results go
    options : of the command line, by name: those for texts, for tables and for pictures
    only : of the files those that are listed, as for `onnxlrp.inputs.items.files_in`
    before : tables that were given before, whose columns others are read by

    Raises
    ------
    InputError
        The model reads something else, or something is missing that its reading needs.
    OSError
        A file or folder does not exist.

    """
    texts = {name: options[name] for name in _OF_TEXTS}
    tables = {name: options[name] for name in _OF_TABLES}
    pictures = {name: options[name] for name in options.keys() - texts.keys() - tables.keys()}
    if _reads_text(run, inputs, texts):
        _refuse(pictures, "is for pictures; the model reads text")
        _refuse(tables, "is for tables; the model reads text")
        return _texts(run, inputs, folder, texts, only)
    # Of pictures it is that of a Parquet file.
    column = texts.pop("column")
    explained = ", ".join(f"{name} {run.inputs[name]}" for name in run.contract.relevance)
    _refuse(
        texts,
        f"is for texts, and for models that read whole numbers [N, T]; this one reads {explained}",
    )
    if _reads_tables(run, inputs, folder):
        _refuse(pictures, f"is for pictures; the model reads {explained}")
        _refuse({"column": column}, f"is for texts and pictures; the model reads {explained}")
        return _tables(run, inputs, folder, tables, only, before)
    _refuse(tables, f"is for tables, .csv or .tsv; the model reads {explained}")
    return _pictures(run, inputs, folder, column, pictures, only)


def targeted(
    run: Explainer,
    explainer: Path,
    items: Sequence[Source],
    target: str | None,
    labels: Path | None,
) -> tuple[list[str] | None, Targets]:
    """Return the names of the classes, if a file has them, and what is to be explained.

    Raises
    ------
    InputError
        There is no such class, or the explainer's own is another, or it takes no such target.
    OSError
        A file does not exist.

    """
    from onnxlrp.inputs.targets import Difference, load_labels, read_targets

    named = load_labels(labels) if labels else None
    if named is not None and run.classes not in (None, len(named)):
        raise InputError(f"{labels} names {len(named)} classes; the model has {run.classes}")
    written = run.contract.target
    if target not in (None, written, "-1" if written == "top" else written) and written:
        raise InputError(f"class {written} is written into {explainer}: leave --target out")
    names = [item.name for item in items]
    targets = read_targets("top" if written else target or "top", names, named, run.classes)
    if not run.contract.weights_input:
        wanted = {type(one) for one in [targets.one, *(targets.each or {}).values()]}
        if wanted & {Difference, tuple}:
            raise InputError(
                f"{explainer} starts from one class: to explain --target {target}, convert with "
                "--target weights"
            )
    return named, targets


def features_of(run: Explainer, how: How) -> list[str] | None:
    """Name the features of what is explained; None where the model reads no table."""
    from onnxlrp.inputs.columns import Columns, feature_names
    from onnxlrp.inputs.text import Reader

    if isinstance(how, Columns):
        return [*how.features]
    name = next(iter(run.contract.relevance))
    shape = run.inputs[name].shape
    if isinstance(how, Reader) or len(shape) != 2 or not isinstance(shape[1], int):
        return None
    return [*run.contract.features.get(name, feature_names({name: shape[1]}))]


def _refuse(options: Mapping[str, Any], why: str) -> None:
    for name, value in options.items():
        if value not in (None, ()):
            raise InputError(f"--{name} {why}")


def _reads_text(run: Explainer, inputs: Sequence[str], texts: Mapping[str, Any]) -> bool:
    """Tell whether what is given is text for a model that reads tokens, and no arrays of them."""
    from onnxlrp.inputs.text import token_input

    ids = token_input(run.inputs, list(run.contract.relevance))
    if ids is None:
        return False
    # So many whole numbers, and no tokenizer: features.
    counted = isinstance(run.inputs[ids].shape[1], int) and run.tokenizer is None
    return any(texts.values()) or (_no_arrays(inputs) and not counted)


def _reads_tables(run: Explainer, inputs: Sequence[str], folder: Path) -> bool:
    """Tell whether what is given are tables, for a model that reads features."""
    from onnxlrp.inputs.passages import TABLES

    if max(len(tensor.shape) for tensor in run.inputs.values()) > 2:
        return False
    return _no_arrays(name for name in inputs if not Path(name).is_dir()) or any(
        path.suffix.lower() in TABLES and folder.resolve() not in path.resolve().parents
        for name in inputs
        for path in Path(name).rglob("*")
    )


def _no_arrays(inputs: Iterable[str]) -> bool:
    """Tell whether anything given is no file of an array."""
    from onnxlrp.inputs.items import ARRAYS

    return any(Path(name).suffix.lower() not in ARRAYS for name in inputs)


def _tables(
    run: Explainer,
    inputs: Sequence[str],
    folder: Path,
    options: Mapping[str, Any],
    only: Collection[Path] | None,
    before: Sequence[Table],
) -> tuple[list[Source], How]:
    """List the rows of tables, and find the columns that the model reads."""
    from onnxlrp.inputs.columns import arranged, named_features
    from onnxlrp.inputs.items import ARRAYS
    from onnxlrp.inputs.rows import Row, collect_tables
    from onnxlrp.inputs.targets import load_labels

    arrays = [name for name in inputs if Path(name).suffix.lower() in ARRAYS]
    if arrays:
        raise InputError(f"tables and arrays are explained apart: leave {arrays[0]} out")
    contract, features = run.contract, run.contract.features
    if options["features"] is not None:
        features = named_features(load_labels(options["features"]), run.inputs)
    tables = collect_tables(_listed(inputs), folder, only)
    if not tables:
        return [], None
    columns = arranged(
        [*before, *tables],
        run.inputs,
        [*contract.relevance],
        features,
        options["ignore"],
        contract.missing,
    )
    return [Row(table, row) for table in tables for row in range(len(table))], columns


def _texts(
    run: Explainer,
    inputs: Sequence[str],
    folder: Path,
    texts: Mapping[str, Any],
    only: Collection[Path] | None,
) -> tuple[list[Source], How]:
    """List the texts, and open what makes tokens of them."""
    from onnxlrp.inputs.passages import collect_texts

    reader = run.reader
    found = collect_texts(inputs, texts["text"], texts["column"], leave_out=folder, only=only)
    return [*found], reader


def _pictures(
    run: Explainer,
    inputs: Sequence[str],
    folder: Path,
    column: str | None,
    options: Mapping[str, Any],
    only: Collection[Path] | None,
) -> tuple[list[Source], How]:
    """List pictures and arrays, and choose how pictures become the model's input."""
    from onnxlrp.inputs.items import collect
    from onnxlrp.inputs.stores import are_stored, collect_stored
    from onnxlrp.running.stream import NO_PREPROCESSING

    if len(run.inputs) > 1:
        raise InputError(
            f"the model has several inputs ({', '.join(run.inputs)}): give them as columns of a "
            "table (.csv), where they are such, or run its explainer from Python, with "
            "onnxlrp.Explainer"
        )
    (expected,) = run.inputs.values()
    listed = _listed(inputs)
    items: Sequence[Item | Stored]
    if are_stored(listed, folder):
        items = collect_stored(listed, column, folder)
    elif column is not None:
        raise InputError("--column is of .parquet or .tar, and of tables of texts")
    else:
        items = collect(listed, len(expected.shape) - 1, leave_out=folder, only=only)
    preprocessing = chosen_preprocessing(options, run.preprocessing)
    if preprocessing is None and not all(item.is_array for item in items):
        raise InputError(NO_PREPROCESSING)
    return [*items], preprocessing


def _listed(inputs: Sequence[str]) -> list[str]:
    """Put what standard input lists, one a line, in the place of -."""
    listed: list[str] = []
    for name in inputs:
        listed += filter(None, sys.stdin.read().splitlines()) if name == "-" else [name]
    if not listed:
        raise InputError("standard input lists nothing to explain")
    return listed
