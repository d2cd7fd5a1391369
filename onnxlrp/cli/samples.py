"""What `onnxlrp evaluate` judges on: pictures, texts, tables or signals, and how it flips them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from onnxlrp.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from onnxlrp.evaluation import Flipping, Sample, ScoredModel
    from onnxlrp.evaluation.medium import Medium
    from onnxlrp.inputs.items import Item
    from onnxlrp.inputs.preprocessing import Preprocessing
    from onnxlrp.inputs.stores import Stored

KINDS = ("pictures", "text", "signals", "tables")
LARGE = 64
"""Sides in pixels, and lengths in samples of a signal, beyond which regions are flipped."""

Make = Callable[[int, "Mapping[str, NDArray[Any]]", "NDArray[Any] | None"], "Sample"]


class Samples(NamedTuple):
    """What there is to judge on.

    Attributes
    ----------
    medium : what they are made of
    names : of each
    make : from the number of one, maps of it by method, and its mask, to the sample
    flipping : as asked, with what is usual for such samples where nothing was

    """

    medium: Medium
    names: list[str]
    make: Make
    flipping: Flipping


def samples(
    kind: str | None,
    model: ScoredModel,
    sources: tuple[str, ...],
    replacement: str | None,
    flipping: dict[str, Any],
    options: Mapping[str, Any],
) -> Samples:
    """Open the data.

    Parameters
    ----------
    kind : one of `KINDS`; by what the model reads if None
    model : with the preprocessing, where it reads pictures
    sources : files and folders
    replacement : of what is flipped; what is usual if None
    flipping : of `Flipping`'s values those that are asked for
    options : of the command, `axis`, `tokenizer`, `pad`, `special`,
        `features` and `ignored`

    Raises
    ------
    InputError
        The data cannot be read, or is not of such a kind.

    """
    from onnxlrp.inputs.items import ARRAYS

    kind = kind or kind_of(model)
    if kind == "text":
        return _text(model, sources, replacement, flipping, options)
    if kind == "tables" and not all(Path(one).suffix.lower() in ARRAYS for one in sources):
        return _tables(model, sources, replacement, flipping, options)
    if len(model.inputs) != 1:
        raise InputError(
            f"{model.path} has several inputs: of such models only those of text, and of "
            "columns of a table (.csv), can be evaluated"
        )
    if kind == "pictures":
        return _pictures(model, sources, replacement, flipping, options)
    return _arrays(kind, model, sources, replacement, flipping, options["axis"])


def kind_of(model: ScoredModel) -> str:
    """Tell what a model reads by its explained input, and whether pictures are made for it."""
    tensor = model.inputs[model.explained[0]]
    if model.preprocessing is not None:
        return "pictures"
    shapes = [model.inputs[name].shape for name in model.explained]
    if len(shapes) > 1 and all(len(s) == 2 for s in shapes) and any(s[1] == 1 for s in shapes):
        return "tables"
    if "int" in tensor.dtype and len(tensor.shape) == 2:
        return "text"
    return {2: "tables", 3: "signals"}.get(len(tensor.shape), "pictures")


def _pictures(
    model: ScoredModel,
    sources: tuple[str, ...],
    replacement: str | None,
    asked: dict[str, Any],
    options: Mapping[str, Any],
) -> Samples:
    from onnxlrp.evaluation import Flipping, Pictures, Sample
    from onnxlrp.evaluation.measures import box_mask
    from onnxlrp.inputs.items import collect
    from onnxlrp.inputs.stores import are_stored, collect_stored, picture_of

    preprocessing: Preprocessing | None = model.preprocessing
    if preprocessing is None:
        raise InputError("say how pictures are made, as in --preprocess imagenet")
    items: Sequence[Item | Stored]
    if are_stored(sources):
        items = collect_stored(sources, options["column"])
    else:
        items = collect(sources, 3)
    size = preprocessing.pixels(picture_of(items[0])).shape[:2]
    usual: dict[str, Any] = {}
    if max(size) > LARGE:
        usual["region"] = asked.get("region", 9)
        most = Flipping(None, usual["region"], asked.get("stride")).count(size)
        usual["flips"] = min(100, most)

    def make(number: int, maps: Mapping[str, NDArray[Any]], mask: NDArray[Any] | None) -> Sample:
        pixels = preprocessing.pixels(picture_of(items[number]))
        if mask is not None and mask.shape == (4,):
            mask = box_mask(mask, pixels.shape[:2])
        return Sample(items[number].name, number, {"pixels": pixels}, maps, mask)

    medium = Pictures(model.explained[0], preprocessing, replacement or "uniform")
    return Samples(medium, [item.name for item in items], make, Flipping(**usual | asked))


def _no_neighbours(asked: Mapping[str, Any]) -> None:
    if asked.keys() & {"region", "stride"}:
        raise InputError("features have no neighbours: leave out --region and --stride")


def _tables(
    model: ScoredModel,
    sources: tuple[str, ...],
    replacement: str | None,
    asked: dict[str, Any],
    options: Mapping[str, Any],
) -> Samples:
    import numpy as np

    from onnxlrp.evaluation import Flipping, Sample, Tables
    from onnxlrp.inputs.columns import arranged, named_features
    from onnxlrp.inputs.rows import Row, collect_tables
    from onnxlrp.inputs.targets import load_labels

    _no_neighbours(asked)
    features = options["features"]
    named = {} if features is None else named_features(load_labels(features), model.inputs)
    tables = collect_tables(sources)
    model.columns = columns = arranged(
        tables, model.inputs, model.explained, named, options["ignored"]
    )
    bare = [name for name in columns.names if name not in columns.features]
    if bare:
        raise InputError(
            f"columns are judged together, and {', '.join(bare)} would get no relevance: "
            "leave out --input, or cut the model behind what reads texts"
        )
    found = [Row(table, row) for table in tables for row in range(len(table))]
    values = np.stack([columns.read(row) for row in found])

    def make(number: int, maps: Mapping[str, NDArray[Any]], mask: NDArray[Any] | None) -> Sample:
        return Sample(found[number].name, number, {"values": values[number]}, maps, mask)

    medium = Tables(columns, values, replacement or "mean")
    names = [row.name for row in found]
    return Samples(medium, names, make, Flipping(**{"every": None} | asked))


def _arrays(
    kind: str,
    model: ScoredModel,
    sources: tuple[str, ...],
    replacement: str | None,
    asked: dict[str, Any],
    axis: int,
) -> Samples:
    import numpy as np

    from onnxlrp.evaluation import Flipping, Sample, Signals, Tables
    from onnxlrp.inputs.columns import Columns
    from onnxlrp.inputs.items import collect

    name = model.explained[0]
    expected = model.inputs[name]
    axes = len(expected.shape) - 1
    items = collect(sources, axes)

    def values(number: int) -> NDArray[Any]:
        read = items[number].read()
        if not isinstance(read, np.ndarray) or read.ndim != axes:
            raise InputError(f"{items[number].source} is no array of {axes} axes")
        made = np.asarray(read, expected.dtype)
        if not np.isfinite(made).all():
            raise InputError(f"{items[number].source} holds NaN or infinity")
        return made

    def make(number: int, maps: Mapping[str, NDArray[Any]], mask: NDArray[Any] | None) -> Sample:
        return Sample(items[number].name, number, {"values": values(number)}, maps, mask)

    names = [item.name for item in items]
    usual: dict[str, Any] = {}
    medium: Medium
    if kind == "tables":
        if axes != 1:
            raise InputError(f"the model reads {expected}: a table is [N, F]")
        _no_neighbours(asked)
        rows = [values(number) for number in range(len(items))]
        if len({len(row) for row in rows}) > 1:
            raise InputError("the rows of a table have as many features each")
        usual["every"] = None
        columns = Columns.of_matrix(name, expected.dtype, len(rows[0]))
        medium = Tables(columns, np.stack(rows), replacement or "mean")
    else:
        medium = Signals(name, axis, replacement or "mean")
        if not -axes <= axis < axes:
            raise InputError(f"--axis {axis}: a signal of this model has {axes} axes")
        length = values(0).shape[axis]
        if length > LARGE and "stride" not in asked:
            usual["region"] = -(-length // 100)
    return Samples(medium, names, make, Flipping(**usual | asked))


def _text(
    model: ScoredModel,
    sources: tuple[str, ...],
    replacement: str | None,
    asked: dict[str, Any],
    options: Mapping[str, Any],
) -> Samples:
    from onnxlrp.evaluation import Flipping, Sentences
    from onnxlrp.inputs.items import ARRAYS
    from onnxlrp.inputs.passages import collect_texts
    from onnxlrp.inputs.text import Reader
    from onnxlrp.inputs.tokens import Vocabulary, beside, token_arrays

    if len(model.explained) != 1:
        raise InputError(
            f"several inputs choose rows of tables, {', '.join(model.explained)}: say with "
            "--input which holds the tokens"
        )
    if asked.keys() & {"region", "stride"}:
        raise InputError("tokens are flipped one by one: leave out --region and --stride")
    path = options["tokenizer"] or beside(model.path)
    vocabulary = Vocabulary() if path is None else Vocabulary.load(path)
    vocabulary = vocabulary.with_numbers(options["pad"], options["special"])
    usual = "unknown" if vocabulary.mask is None and vocabulary.unknown is not None else "mask"
    medium = Sentences(model.explained[0], vocabulary, replacement or usual, model.inputs)
    found: list[tuple[str, dict[str, NDArray[Any]]]] = []
    arrays = [Path(source) for source in sources if Path(source).suffix.lower() in ARRAYS]
    if 0 < len(arrays) < len(sources):
        raise InputError("--data takes texts, or arrays of tokens, not both")
    for array in arrays:
        read = token_arrays(array, medium.input, model.inputs, vocabulary)
        count = len(read[medium.input])
        found += [
            (
                f"{array.stem}/{row:0{len(str(count - 1))}}",
                {name: a[row] for name, a in read.items()},
            )
            for row in range(count)
        ]
    if not arrays:
        if path is None:
            raise InputError("text needs the model's tokenizer: name it, as in --tokenizer FILE")
        reader = Reader(path, model.inputs, model.explained)
        for text in collect_texts(sources, column=options["column"]):
            try:
                feeds = reader.feeds([reader(text.text)])
            except InputError as error:
                raise InputError(f"{text.source}: {error}") from error
            found.append((text.name, {name: a[0] for name, a in feeds.items()}))
    names = [name for name, _ in found]
    if len(set(names)) < len(names):
        raise InputError("two files of --data have the same name")

    def make(
        number: int, maps: Mapping[str, NDArray[Any]], mask: NDArray[np.bool_] | None
    ) -> Sample:
        name, content = found[number]
        return medium.sample(name, number, content, maps, mask)

    return Samples(medium, names, make, Flipping(**{"every": None} | asked))
