"""What `evaluate` judges, opened from what the command says: here, or by workers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from onnxlrp.cli.options import chosen_preprocessing
from onnxlrp.cli.samples import samples
from onnxlrp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from onnxlrp.compiler.composite import Composite
    from onnxlrp.evaluation import Judge, Sample, ScoredModel
    from onnxlrp.evaluation.flipping import Amount


class Opened(NamedTuple):
    """What judges samples: the model, composites by name, all methods, and the samples."""

    scored: ScoredModel
    methods: Mapping[str, Composite]
    names: Sequence[str]
    judge: Judge
    samples: Sequence[str]
    sample: Callable[[int], Sample]


@dataclass(frozen=True)
class Asked:
    """What is to be judged, as the command says it; may be sent to another process.

    `options` are those that `samples` and preprocessing take, the others as for `evaluate`.
    """

    model: Path
    sources: tuple[str, ...]
    composites: tuple[str, ...]
    maps: tuple[str, ...]
    kind: str | None
    explained: str | None
    replacement: str | None
    orders: tuple[str, ...]
    prefixes: tuple[Amount, ...]
    probability: bool
    masks: Path | None
    seed: int
    batch: int
    threads: int | None
    options: Mapping[str, Any]

    def open(self) -> Opened:
        """Open the model, convert it by each composite, and open the data.

        Raises
        ------
        OnnxlrpError
            Something of it cannot be.
        OSError
            A file cannot be opened.

        """
        from onnxlrp.compiler.composite import Composite
        from onnxlrp.evaluation import Judge, ScoredModel
        from onnxlrp.evaluation.study import RANDOM

        options = self.options
        preprocessing = chosen_preprocessing(options)
        named = [text.partition("=") for text in self.maps]
        if not all(name and path for name, _, path in named):
            raise InputError("--maps takes NAME=FILE, such as zennit=zennit.npy")
        names = [*self.composites, *(name for name, _, _ in named)]
        twice = [name for name in names if [*names, RANDOM].count(name) > 1]
        if twice:
            raise InputError(f"two methods are called {twice[0]}")
        if not names:
            raise InputError("name what is to be judged: --composite NAME, or --maps NAME=FILE")
        methods = {name: Composite.load(name) for name in self.composites}
        scored = ScoredModel(
            self.model,
            next(iter(methods.values()), None),
            preprocessing,
            explained=self.explained,
            probability=self.probability,
            threads=self.threads,
        )
        asked = {key: options[key] for key in ("flips", "region", "stride", "every")}
        asked = {key: value for key, value in asked.items() if value is not None}
        medium, found, make, flipping = samples(
            self.kind, scored, self.sources, self.replacement, asked | {"seed": self.seed}, options
        )
        count = len(found)
        given = {
            name: _for_each(Path(path), count, "maps", medium.samples) for name, _, path in named
        }
        inside = (
            None if self.masks is None else _for_each(self.masks, count, "masks", medium.samples)
        )
        judge = Judge(
            scored,
            methods,
            flipping,
            medium,
            prefixes=self.prefixes,
            orders=self.orders,
            batch=self.batch,
        )

        def sample(number: int) -> Sample:
            its_maps = {name: array[number] for name, array in given.items()}
            return make(number, its_maps, None if inside is None else inside[number])

        return Opened(scored, methods, names, judge, found, sample)

    def __call__(self, opened: Opened, piece: tuple[int, Sequence[str]]) -> dict[str, Any]:
        """Judge methods on one sample: its number, and their names."""
        number, methods = piece
        return opened.judge(opened.sample(number), methods)


def _for_each(path: Path, count: int, noun: str, of: str) -> NDArray[Any]:
    """Open an array with an entry for each sample."""
    from onnxlrp.inputs.items import load_array

    array = load_array(path)
    if not array.ndim:
        raise InputError(f"{path} holds one number, not {noun} for {count} {of}")
    if len(array) != count:
        raise InputError(f"{path} has {len(array)} {noun} for {count} {of}")
    return array
