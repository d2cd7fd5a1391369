"""What an explainer found out, and ways to look at it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnxlrp.errors import InputError
from onnxlrp.files import write
from onnxlrp.inputs.targets import Aim
from onnxlrp.inputs.text import Tokens
from onnxlrp.running.frames import joined, to_pandas, to_xarray

if TYPE_CHECKING:
    import pandas
    import xarray
    from PIL import Image

    from onnxlrp.inputs.preprocessing import Layout, Preprocessing
    from onnxlrp.inputs.text import Word


class Region(NamedTuple):
    """A rectangle of a picture and the relevance in it; rows and columns count from 0."""

    row: int
    column: int
    height: int
    width: int
    relevance: float


LEAST, MOST, CANCELLING = 0.5, 2.0, 20.0
"""Share of the score that a map accounts for at least and at most, and its magnitudes at most."""


class Account(NamedTuple):
    """How much of a score its relevance accounts for.

    Attributes
    ----------
    score : the target's entry in the model's output, the difference of two, or their weighted sum
    relevance : sum over the map
    share : relevance / score; None where the score is no logit, or is 0, or contrasted, and of
        gradients
    size : sum of the magnitudes over the map
    quantity : what the score is: `score`, `difference of scores`, `weighted score`

    """

    score: float
    relevance: float
    share: float | None
    size: float
    quantity: str = "score"

    @classmethod
    def of(
        cls,
        aim: Aim,
        score: float,
        maps: Sequence[NDArray[Any]],
        logit: bool,
        padding: float = 0.0,
    ) -> Account:
        """Hold the sum of one sample's maps, and what padding has, against what was explained."""
        total = sum(float(each.sum(dtype=np.float64)) for each in maps) + padding
        size = sum(float(np.abs(each).sum(dtype=np.float64)) for each in maps)
        known = logit and not aim.contrast and not aim.sensitivity and score != 0
        return cls(score, total, total / score if known else None, size, aim.quantity)

    @property
    def doubt(self) -> str:
        """Why the map says little about the score; "" where nothing speaks against it."""
        if self.share is None:
            return ""
        if strays(self.share):
            return f"the map accounts for {self.share:.1%} of the {self.quantity}"
        if self.size > CANCELLING * abs(self.score):
            times = self.size / abs(self.score)
            return f"the map's magnitudes sum to {times:.0f} times the {self.quantity}"
        return ""

    def in_words(self, name: str = "score") -> str:
        """Say it, calling the score by what the model's output is."""
        share = ""
        if name == "score":
            name = self.quantity
        elif self.quantity != "score":
            name = self.quantity.replace("scores", name).replace("score", name)
        if self.share is not None:
            share = f" ({self.share:.1%} of the {self.quantity}"
            beyond = self.share < 0 or self.share > 1.01
            share += ": biases and stabilisers hold the difference)" if beyond else ")"
        return f"{name} {self.score:.4g}, relevance sums to {self.relevance:.4g}{share}"


def strays(share: float) -> bool:
    """Tell whether a map accounts for less than half or more than twice of a score, or for none."""
    return not LEAST <= share <= MOST


def is_flat(scores: NDArray[Any], logits: bool) -> bool:
    """Tell whether scores, logits or what a model makes of them, speak for no class.

    Logits do not whose softmax has nearly the greatest possible entropy, and likewise
    probabilities; of labels that do not exclude each other, where each is near 1/2.
    """
    from scipy.special import entr, softmax

    values = scores.astype(np.float64)
    if len(values) < 2:
        return False
    likely = not logits and bool(((values >= 0) & (values <= 1)).all())
    if likely and abs(values.sum() - 1) > 1e-3:
        return bool((np.abs(values - 0.5) < 0.1).all())
    chances = values if likely else softmax(values)
    return bool(entr(chances).sum() > 0.95 * np.log(len(chances)))


@dataclass(frozen=True)
class Explanation:
    """Why a batch of N inputs scored as it did.

    In Jupyter it shows itself as a picture. Methods that take an `index` are about one of the N.

    >>> from onnxlrp.demo import demo
    >>> explanation = demo().explanation
    >>> explanation.relevance.shape, explanation.target
    ((1, 3, 32, 32), array([3]))
    >>> print(f"{explanation.account().share:.2f}")
    0.95
    >>> [(region.row, region.column) for region in explanation.top_regions(count=1, size=8)]
    [(11, 20)]
    >>> explanation.heatmap().size
    (224, 224)

    Attributes
    ----------
    relevance : floating, in the input's shape; by input name where several are explained
    outputs : the model's own outputs, by name
    target : int64 [N], the class explained, of a difference the first; -1 of weighted scores
    score : floating [N], the target's entry in the model's output: the logit where
        `Explainer.score_is_output`, else what the model makes of it, say a probability; likewise
        the difference of two, or the weighted sum of all
    scores : floating [N, classes], what `score` was taken from
    score_is_logit : whether relevance adds up to `score`, but for biases and stabiliser
    intermediates : relevance of the values inside that the explainer also outputs, by name
    inputs : what was explained, by input name
    preprocessing : how pictures become that input, if the explainer stores it
    features : names of the features of a table, by input name, if the explainer stores them
    aims : what was explained of each of the N; the class alone if there are none
    texts : the N texts as their tokens, where texts were explained
    reference_scores : floating [1, classes] or [N, classes], the logits at the reference that
        relevance is counted from; None without one

    """

    relevance: NDArray[Any] | dict[str, NDArray[Any]]
    outputs: dict[str, NDArray[Any]]
    target: NDArray[np.int64]
    score: NDArray[Any]
    scores: NDArray[Any] = field(repr=False)
    score_is_logit: bool
    intermediates: dict[str, NDArray[Any]]
    inputs: dict[str, NDArray[Any]] = field(repr=False)
    preprocessing: Preprocessing | None = None
    features: Mapping[str, Sequence[str]] = field(default_factory=dict, repr=False)
    aims: tuple[Aim, ...] = ()
    texts: tuple[Tokens, ...] = ()
    reference_scores: NDArray[Any] | None = field(default=None, repr=False)

    @classmethod
    def mean(cls, explanations: Sequence[Explanation]) -> Explanation:
        """Average explanations of the same for the same, each against a reference of its own."""
        first = explanations[0]

        def averaged(found: Sequence[Any]) -> Any:
            if found[0] is None:
                return None
            if isinstance(found[0], dict):
                return {name: averaged([one[name] for one in found]) for name in found[0]}
            return np.mean(found, axis=0, dtype=np.float64).astype(found[0].dtype)

        return replace(
            first,
            **{
                name: averaged([getattr(one, name) for one in explanations])
                for name in ("relevance", "intermediates", "score", "reference_scores")
            },
        )

    def __len__(self) -> int:
        return len(self.target)

    def of(self, index: int, name: str | None = None) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return relevance and value of one input, each without the batch axis and padding.

        Parameters
        ----------
        index : which of the N
        name : which input, where several are explained

        Raises
        ------
        InputError
            There is no such input, or several and none is named.
        IndexError
            There is no such index.

        """
        maps = self.relevance
        if not isinstance(maps, dict):
            maps = {name or next(iter(self.inputs)): maps}
        if name is None and len(maps) == 1:
            name = next(iter(maps))
        if name not in maps or name not in self.inputs:
            raise InputError(f"name one of the inputs: {', '.join(maps)}")
        length = len(self.texts[index]) if self.texts else None
        return maps[name][index][:length], self.inputs[name][index][:length]

    def words(self, index: int = 0) -> list[Word]:
        """Add the relevance of a text's tokens up to that of its words.

        Raises
        ------
        InputError
            What was explained is no text.

        """
        if not self.texts:
            raise InputError("words are those of texts: call the explainer with a list of str")
        return self.texts[index].words(self.of(index)[0])

    def aim(self, index: int = 0) -> Aim:
        """Say what was explained of one of the N."""
        return self.aims[index] if self.aims else Aim(int(self.target[index]))

    def account(self, index: int = 0) -> Account:
        """Say how much of the score the map holds; the rest sits in biases and stabiliser.

        The score is what `aim` tells: of a class, a difference, or weighted. A contrast adds up to
        0 whatever the score is, and a gradient to anything, so no share of it is told.
        """
        maps = self.relevance.values() if isinstance(self.relevance, dict) else [self.relevance]
        one = [relevance[index] for relevance in maps]
        return Account.of(self.aim(index), float(self.score[index]), one, self.score_is_logit)

    def heatmap(self, index: int = 0, *, name: str | None = None, **options: Any) -> Image.Image:
        """Draw one map: orange speaks for the class, blue against it.

        Options are those of `onnxlrp.drawing.heatmap.heatmap`.

        Raises
        ------
        InputError
            The input is no picture (`plot` draws signals and tables, too).

        """
        from onnxlrp.drawing.heatmap import heatmap

        return heatmap(self.of(index, name)[0], self.layout, **options)

    def plot(
        self,
        index: int = 0,
        *,
        name: str | None = None,
        labels: Sequence[str] | None = None,
        **options: Any,
    ) -> Image.Image:
        """Draw one map with what it is of: a picture, a signal [C, L], a table's row [F], a text.

        The photograph is shown where the explainer stores its preprocessing. Of several inputs that
        are columns of a table all are drawn together where none is named.

        Parameters
        ----------
        index, name : as for `of`
        labels : names of the classes, for the title
        options : those of `onnxlrp.drawing.panels.sheet`, or `onnxlrp.drawing.typeset.sentence`

        Raises
        ------
        InputError
            Nothing can be drawn of an input of this rank.

        """
        from onnxlrp.drawing.panels import sheet
        from onnxlrp.drawing.typeset import sentence

        names = None
        if name is None and self._is_table:
            names, *rows = joined(self)
            relevance, values = (array[index] for array in rows)
        else:
            relevance, values = self.of(index, name)
        label = self.aim(index).in_words(labels, numbers=False)
        heading = title(label, self.account(index))
        if self.texts:
            return sentence(self.texts[index], relevance, title=heading, **options)
        picture = None
        if self.preprocessing is not None and relevance.ndim == 3:
            picture = self.preprocessing.picture_of(values)
        return sheet(
            relevance,
            values,
            picture,
            self.layout,
            title=heading,
            names=names or self.features.get(name or next(iter(self.inputs))),
            **options,
        )

    @property
    def _is_table(self) -> bool:
        """Whether several inputs are explained, all of them columns of a table."""
        maps = self.relevance
        return isinstance(maps, dict) and all(array.ndim == 2 for array in maps.values())

    def save(self, path: str | PathLike[str]) -> None:
        """Write everything to an `.npz` file, completely or not at all.

        Its arrays are `target`, `score`, `scores`, `relevance` (`relevance_<input>` where several
        inputs are explained), and `output_<name>` and `intermediate_<name>`, as by the attributes.

        Raises
        ------
        OSError
            The file cannot be written; what was there stays.

        """
        maps = self.relevance
        arrays = {"target": self.target, "score": self.score, "scores": self.scores}
        arrays |= (
            {f"relevance_{name}": array for name, array in maps.items()}
            if isinstance(maps, dict)
            else {"relevance": maps}
        )
        arrays |= {f"output_{name}": array for name, array in self.outputs.items()}
        arrays |= {f"intermediate_{name}": array for name, array in self.intermediates.items()}
        write(Path(path), lambda buffer: np.savez(buffer, **arrays))  # type: ignore[arg-type]

    def to_xarray(self, labels: Sequence[str] | None = None) -> xarray.Dataset:
        """Return everything as arrays with named axes, of xarray, which must be installed.

        Variables are `relevance` and `value`, what was explained (`relevance_<input>`, ... where
        there are several inputs, but for columns of tables), `target`, `score`, `share` [sample],
        NaN where none is told, `scores` [sample, class], and `output_<name>`,
        `intermediate_<name>`. Relevance of pictures is [sample, channel, y, x], or
        [sample, y, x, channel], of signals [sample, channel, position], of tables
        [sample, feature], of texts [sample, token], filled up, whose coordinate `piece` holds the
        tokens.

        Parameters
        ----------
        labels : names of the classes, along `class`; numbers without

        Raises
        ------
        InputError
            xarray is not installed, or there are more or fewer names than classes.

        """
        return to_xarray(self, labels)

    def to_pandas(self, labels: Sequence[str] | None = None) -> pandas.DataFrame:
        """Return a table of pandas, which must be installed: `target`, `score`, `share`, and more.

        Of tables it has a row for each and a column for each feature, its relevance; of texts a
        row for each token; of anything else a row for each sample, with the sum of its relevance
        and of the magnitudes (`size`).

        Parameters
        ----------
        labels : names of the classes, for a column `label`

        Raises
        ------
        InputError
            pandas is not installed.

        """
        return to_pandas(self, labels)

    def top_regions(
        self, count: int = 5, size: int = 16, index: int = 0, *, name: str | None = None
    ) -> list[Region]:
        """Return the squares with the most relevance, none overlapping another.

        The best is taken first, then the best of those that do not touch it, and so on; of equal
        ones the first in row-major order. Only squares with positive relevance count.

        Parameters
        ----------
        count : at most so many
        size : side of a square in pixels
        index, name : as for `of`

        Raises
        ------
        InputError
            The input is no picture, or smaller than a square.

        """
        relevance = self.of(index, name)[0]
        if relevance.ndim != 3:
            raise InputError(f"regions need pictures; the input has {relevance.ndim} axes")
        pixels = relevance.sum(axis=0 if self.layout == "NCHW" else 2, dtype=np.float64)
        if size < 1 or size > min(pixels.shape):
            height, width = pixels.shape
            raise InputError(f"a square of {size} does not fit in {height}x{width} pixels")
        return top_regions(pixels, count, size, size)

    @property
    def layout(self) -> Layout:
        """Where the channel axis of pictures is; NCHW where no preprocessing says so."""
        return "NCHW" if self.preprocessing is None else self.preprocessing.layout

    def _repr_png_(self) -> bytes | None:
        """Show the first input to Jupyter, which shows the text where nothing can be drawn."""
        try:
            drawn = self.plot(name=None if self._is_table else next(iter(self.inputs)))
        except InputError:
            return None
        buffer = io.BytesIO()
        drawn.save(buffer, format="PNG")
        return buffer.getvalue()


def title(label: str, account: Account) -> str:
    """Head a sheet: what is explained, its score, and the share of it that the map holds."""
    share = "" if account.share is None else f" · relevance sums to {account.share:.1%} of it"
    return f"{label} · {account.quantity} {account.score:.4g}{share}"


def top_regions(pixels: NDArray[np.float64], count: int, height: int, width: int) -> list[Region]:
    """Return the rectangles with the most relevance, as `Explanation.top_regions` chooses squares.

    Parameters
    ----------
    pixels : relevance, [H, W], neither smaller than a rectangle
    count : at most so many
    height, width : of each

    """
    # First along columns, then along rows: height + width additions for each, not their product.
    view = np.lib.stride_tricks.sliding_window_view
    sums = view(view(pixels, height, axis=0).sum(axis=-1), width, axis=1).sum(axis=-1)
    found: list[Region] = []
    while len(found) < count and sums.max() > 0:
        row, column = map(int, np.unravel_index(sums.argmax(), sums.shape))
        found.append(Region(row, column, height, width, float(sums[row, column])))
        sums[
            max(0, row - height + 1) : row + height, max(0, column - width + 1) : column + width
        ] = -np.inf
    return found
