"""Explain item after item: decoding and drawing run beside the session, memory stays bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxlrp.errors import InputError
from onnxlrp.inputs.columns import Columns
from onnxlrp.inputs.items import Item, are_pictures, as_picture
from onnxlrp.inputs.passages import Passage
from onnxlrp.inputs.preprocessing import Preprocessing
from onnxlrp.inputs.presets import OTHERWISE
from onnxlrp.inputs.rows import Row
from onnxlrp.inputs.stores import Stored
from onnxlrp.inputs.targets import Aim, Targets
from onnxlrp.inputs.text import Reader, Tokens
from onnxlrp.running.contract import fits
from onnxlrp.running.explainer import Explainer
from onnxlrp.running.explanation import Explanation

NO_PREPROCESSING = (
    "the explainer does not say how its pictures are made: name it, as in --preprocess imagenet, "
    "or spell it out, as in --resize 32 --crop 32 --scale 1/255"
)

Source = Item | Passage | Row | Stored
How = Preprocessing | Reader | Columns | None
"""How items become what the model reads; None where they are that already."""

Out = TypeVar("Out")
In = TypeVar("In")


@dataclass(frozen=True)
class Sample:
    """An item as the model reads it.

    Attributes
    ----------
    item : where it is from
    values : of the model's dtype, without the batch axis; of a table's row those explained
    picture : the item before preprocessing; None where the values came as they are
    tokens : a text's, whose ids are the values; None of what is no text
    cells : of a table's row all that the model reads; None of what is none

    """

    item: Source
    values: NDArray[Any]
    picture: Image.Image | None = None
    tokens: Tokens | None = None
    cells: NDArray[Any] | None = None


@dataclass(frozen=True)
class Explained:
    """The relevance of a sample for one class, or what else was explained.

    Attributes
    ----------
    aim : what
    score : its entry in the model's output, or the difference of two, or their weighted sum
    relevance : in the shape of the sample's values
    padding : relevance of what a text was filled up with, where its model reads that

    """

    aim: Aim
    score: float
    relevance: NDArray[Any]
    padding: float = 0.0


@dataclass(frozen=True)
class Result:
    """A sample, the model's scores, [classes], and the relevance for each class asked for."""

    sample: Sample
    scores: NDArray[Any]
    explained: tuple[Explained, ...]


@dataclass(frozen=True)
class Failure:
    """An item that could not be explained, why, and whether that may pass: a file be opened."""

    item: Source
    reason: str
    passing: bool = False

    @property
    def told(self) -> str:
        """The reason, and the item's source before it where it does not say that itself."""
        source = self.item.source
        return self.reason if source in self.reason else f"{source}: {self.reason}"


def prepare(item: Source, explainer: Explainer, how: How) -> Sample:
    """Read an item and make it what the model reads.

    Texts go through their reader, rows of tables are parted into columns; pictures, and arrays of
    uint8 for a model of another dtype, go through the preprocessing; other arrays are what the
    model reads already.

    Raises
    ------
    InputError
        It cannot be read, or is of another shape than the model's input.
    OSError
        The file cannot be opened.

    """
    if isinstance(item, Passage):
        if not isinstance(how, Reader):
            raise InputError("the explainer reads no text")
        tokens = how(item.text)
        return Sample(item, tokens.ids, tokens=tokens)
    if isinstance(item, Row):
        if not isinstance(how, Columns):
            raise InputError("the explainer reads no tables")
        cells = how.read(item)
        return Sample(item, cells[[*how.explained]], cells=cells)
    preprocessing = how if isinstance(how, Preprocessing) else None
    read = item.read()
    (expected,) = explainer.inputs.values()
    picture = None
    if not isinstance(read, Image.Image) and are_pictures(read) and expected.dtype != "uint8":
        read = as_picture(read)
    if isinstance(read, Image.Image):
        if preprocessing is None:
            raise InputError(NO_PREPROCESSING)
        picture, values = read, _as_dtype(preprocessing(read), expected.dtype)
    elif read.dtype.kind == "f" and expected.dtype.startswith("float"):
        values = np.asarray(read, expected.dtype)
    else:
        values = np.asarray(read)
    if picture is not None and not fits(values.shape, expected.shape[1:]):
        raise InputError(
            f"a picture is made {list(values.shape)}, the model reads "
            f"{list(expected.shape[1:])}: {OTHERWISE}"
        )
    explainer.check_sample(values)
    return Sample(item, values, picture)


def explain(
    explainer: Explainer,
    items: Iterable[Source],
    targets: Targets,
    how: How,
    *,
    batch: int,
    workers: int = 2,
) -> Iterator[Result | Failure]:
    """Explain items in their order, in batches of samples of equal shape, or of padded texts.

    At most a few batches are in memory at once.

    Parameters
    ----------
    explainer : of a model with one input, or one that reads tokens or columns of a table
    targets : which classes
    how : for pictures, texts or tables
    batch : samples to a run; an explainer with a fixed batch decides itself
    workers : threads that read

    """
    size = explainer.batch or batch
    with pool(workers) as executor:
        read = ahead(executor, lambda item: _attempt(item, explainer, how), items, 2 * size)
        waiting: list[Sample] = []
        for sample in chain(read, [None]):
            full = len(waiting) == size or sample is None or isinstance(sample, Failure)
            if waiting and (full or not _together(waiting[0], sample, how)):  # type: ignore[arg-type]
                yield from _run(explainer, waiting, targets, how)
                waiting = []
            if isinstance(sample, Failure):
                yield sample
            elif sample is not None:
                waiting.append(sample)


@contextmanager
def pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that, when the block is left early, finish what they do but start nothing more."""
    executor = ThreadPoolExecutor(workers)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def ahead(
    executor: ThreadPoolExecutor, work: Callable[[In], Out], inputs: Iterable[In], most: int
) -> Iterator[Out]:
    """Map in order, with at most `most` inputs under way or waiting to be taken."""
    under_way: deque[Future[Out]] = deque()
    rest = iter(inputs)
    for given in islice(rest, most):
        under_way.append(executor.submit(work, given))
    while under_way:
        done = under_way.popleft().result()
        under_way.extend(executor.submit(work, given) for given in islice(rest, 1))
        yield done


def _together(first: Sample, other: Sample, how: How) -> bool:
    """Tell whether two samples fit in one batch."""
    if isinstance(how, Reader) and first.tokens is not None and other.tokens is not None:
        return how.together(first.tokens, other.tokens)
    return first.values.shape == other.values.shape


def _attempt(item: Source, explainer: Explainer, how: How) -> Sample | Failure:
    try:
        return prepare(item, explainer, how)
    except InputError as error:
        return Failure(item, str(error))
    except OSError as error:
        return Failure(item, error.strerror or str(error), passing=True)


def _run(
    explainer: Explainer, samples: list[Sample], targets: Targets, how: How
) -> Iterator[Result | Failure]:
    """Explain a batch; where that fails one by one, so that one sample fails no other."""
    try:
        yield from _results(explainer, samples, targets, how)
    except InputError as error:
        if len(samples) == 1:
            yield Failure(samples[0].item, str(error))
            return
        for sample in samples:
            yield from _run(explainer, [sample], targets, how)


def _results(
    explainer: Explainer, samples: list[Sample], targets: Targets, how: How
) -> list[Result]:
    count = len(samples)
    # A fixed batch is filled up with its last sample.
    filled = samples + samples[-1:] * ((explainer.batch or count) - count)
    images = _stacked(filled, how)
    wanted = [targets.of(sample.item.name) for sample in filled]
    rows = [one for one in wanted if isinstance(one, tuple)]
    if rows:
        first = explainer(images, weights=rows)
    else:
        first = explainer(images, [one for one in wanted if not isinstance(one, tuple)])
    found = [[(first, index)] for index in range(count)]
    if targets.best > 1:
        # Descending; of equal scores the first, as ArgMax has it.
        ranked = np.argsort(-first.scores, axis=1, kind="stable")[:, 1 : targets.best]
        for index, more in enumerate(_further(explainer, images, ranked, count)):
            found[index] += more
    return [
        Result(
            sample,
            first.scores[index],
            tuple(
                _explained(one.aim(row), float(one.score[row]), _map(one, row, how), sample)
                for one, row in found[index]
            ),
        )
        for index, sample in enumerate(samples)
    ]


_WORTH = 2
"""From so many further classes on, a run for each sample is faster than one for each class."""


def _further(
    explainer: Explainer,
    images: NDArray[Any] | Mapping[str, NDArray[Any]],
    classes: NDArray[np.int64],
    count: int,
) -> list[list[tuple[Explanation, int]]]:
    """Explain each of the first `count` samples for its classes, [N, K]: where each is found."""
    each = range(classes.shape[1])
    if not explainer.several or len(each) < _WORTH:
        runs = [explainer(images, classes[:, rank]) for rank in each]
        return [[(run, index) for run in runs] for index in range(count)]
    fed = images if isinstance(images, Mapping) else {next(iter(explainer.inputs)): images}
    found = []
    for index in range(count):
        sample = {name: array[index : index + 1] for name, array in fed.items()}
        run = explainer(sample, classes[index])
        found.append([(run, rank) for rank in each])
    return found


def _stacked(samples: list[Sample], how: How) -> NDArray[Any] | dict[str, NDArray[Any]]:
    texts = [sample.tokens for sample in samples if sample.tokens is not None]
    if isinstance(how, Reader) and texts:
        return how.feeds(texts)
    rows = [sample.cells for sample in samples if sample.cells is not None]
    if isinstance(how, Columns) and rows:
        return how.feeds(np.stack(rows))
    return np.stack([sample.values for sample in samples])


def _map(explanation: Explanation, row: int, how: How) -> NDArray[Any]:
    if isinstance(how, Columns):
        return how.joined(explanation.relevance, row)
    return explanation.of(row)[0]


def _explained(aim: Aim, score: float, relevance: NDArray[Any], sample: Sample) -> Explained:
    if sample.tokens is None:
        return Explained(aim, score, relevance)
    count = len(sample.tokens)
    return Explained(aim, score, relevance[:count], float(relevance[count:].sum()))


def _as_dtype(array: NDArray[np.float32], dtype: str) -> NDArray[np.generic]:
    converted: NDArray[np.generic] = array.astype(dtype)
    if converted.dtype.kind in "iu" and (converted != array).any():
        raise InputError(
            f"the model reads whole numbers ({dtype}), but the preprocessing leaves others: "
            "drop scale, mean and std"
        )
    return converted
