"""Explain item after item: decoding and drawing run beside the session, memory stays bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxlrp.errors import InputError
from onnxlrp.inputs.items import Item, are_pictures, as_picture
from onnxlrp.inputs.preprocessing import Preprocessing
from onnxlrp.inputs.targets import Aim, Targets
from onnxlrp.running.explainer import Explainer

NO_PREPROCESSING = (
    "the explainer does not say how its pictures are made: name it, as in --preprocess imagenet, "
    "or spell it out, as in --resize 32 --crop 32 --scale 1/255"
)

Out = TypeVar("Out")
In = TypeVar("In")


@dataclass(frozen=True)
class Sample:
    """An item as the model reads it.

    Attributes
    ----------
    item : where it is from
    values : of the model's dtype, without the batch axis
    picture : the item before preprocessing; None where the values came as they are

    """

    item: Item
    values: NDArray[Any]
    picture: Image.Image | None


@dataclass(frozen=True)
class Explained:
    """The relevance of a sample for one class, or what else was explained.

    Attributes
    ----------
    aim : what
    score : its entry in the model's output, or the difference of two, or their weighted sum
    relevance : in the shape of the sample's values

    """

    aim: Aim
    score: float
    relevance: NDArray[Any]


@dataclass(frozen=True)
class Result:
    """A sample, the model's scores, [classes], and the relevance for each class asked for."""

    sample: Sample
    scores: NDArray[Any]
    explained: tuple[Explained, ...]


@dataclass(frozen=True)
class Failure:
    """An item that could not be explained, and why."""

    item: Item
    reason: str


def prepare(item: Item, explainer: Explainer, preprocessing: Preprocessing | None) -> Sample:
    """Read an item and make it what the model reads.

    Pictures, and arrays of uint8 for a model of another dtype, go through the preprocessing;
    other arrays are what the model reads already.

    Raises
    ------
    InputError
        It cannot be read, or is of another shape than the model's input.
    OSError
        The file cannot be opened.

    """
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
    explainer.check_sample(values)
    return Sample(item, values, picture)


def explain(
    explainer: Explainer,
    items: Iterable[Item],
    targets: Targets,
    preprocessing: Preprocessing | None,
    *,
    batch: int,
    workers: int = 2,
) -> Iterator[Result | Failure]:
    """Explain items in their order, in batches of samples of equal shape.

    At most a few batches are in memory at once.

    Parameters
    ----------
    explainer : of a model with one input
    targets : which classes
    preprocessing : for pictures
    batch : samples to a run; an explainer with a fixed batch decides itself
    workers : threads that read

    """
    size = explainer.batch or batch
    with pool(workers) as executor:
        read = ahead(
            executor, lambda item: _attempt(item, explainer, preprocessing), items, 2 * size
        )
        waiting: list[Sample] = []
        for sample in chain(read, [None]):
            full = len(waiting) == size or sample is None or isinstance(sample, Failure)
            if waiting and (full or sample.values.shape != waiting[0].values.shape):  # type: ignore[union-attr]
                yield from _run(explainer, waiting, targets)
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


def _attempt(
    item: Item, explainer: Explainer, preprocessing: Preprocessing | None
) -> Sample | Failure:
    try:
        return prepare(item, explainer, preprocessing)
    except InputError as error:
        return Failure(item, str(error))
    except OSError as error:
        return Failure(item, error.strerror or str(error))


def _run(
    explainer: Explainer, samples: list[Sample], targets: Targets
) -> Iterator[Result | Failure]:
    """Explain a batch; where that fails one by one, so that one sample fails no other."""
    try:
        yield from _results(explainer, samples, targets)
    except InputError as error:
        if len(samples) == 1:
            yield Failure(samples[0].item, str(error))
            return
        for sample in samples:
            yield from _run(explainer, [sample], targets)


def _results(explainer: Explainer, samples: list[Sample], targets: Targets) -> list[Result]:
    count = len(samples)
    # A fixed batch is filled up with its last sample.
    filled = samples + samples[-1:] * ((explainer.batch or count) - count)
    images = np.stack([sample.values for sample in filled])
    wanted = [targets.of(sample.item.name) for sample in filled]
    rows = [one for one in wanted if isinstance(one, tuple)]
    if rows:
        first = explainer(images, weights=rows)
    else:
        first = explainer(images, [one for one in wanted if not isinstance(one, tuple)])
    found = [first]
    if targets.best > 1:
        # Descending; of equal scores the first, as ArgMax has it.
        ranked = np.argsort(-first.scores, axis=1, kind="stable")
        found += [explainer(images, ranked[:, rank]) for rank in range(1, targets.best)]
    return [
        Result(
            sample,
            first.scores[index],
            tuple(
                Explained(one.aim(index), float(one.score[index]), one.of(index)[0])
                for one in found
            ),
        )
        for index, sample in enumerate(samples)
    ]


def _as_dtype(array: NDArray[np.float32], dtype: str) -> NDArray[np.generic]:
    converted: NDArray[np.generic] = array.astype(dtype)
    if converted.dtype.kind in "iu" and (converted != array).any():
        raise InputError(
            f"the model reads whole numbers ({dtype}), but the preprocessing leaves others: "
            "drop scale, mean and std"
        )
    return converted
