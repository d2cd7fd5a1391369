"""Text as numbers of tokens, which are flipped one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from onnxlrp.errors import InputError
from onnxlrp.evaluation.flipping import Flipping, Size
from onnxlrp.evaluation.medium import Feeds, Maps, Replacing, Sample
from onnxlrp.inputs.text import Inputs
from onnxlrp.inputs.tokens import Vocabulary, is_mask, role_of

TAKEN_OUT = ("remove", "cut")


@dataclass(frozen=True)
class Sentences:
    """Sentences: content is what the model reads, by input, each [T].

    What can be flipped are the tokens that the attention mask, or else the padding's number, says
    are there, but for special ones.

    Attributes
    ----------
    input : name of the input that holds the tokens' numbers
    vocabulary : which tokens fill up, or are special
    replacement : what a flipped token becomes: `mask`, `unknown`, or a number; or what is done to
        it: `cut`, it is taken out, what follows moves up, and the end is filled up where there is
        an attention mask or a padding; `remove`, the attention mask leaves it out, and it is cut
        where there is none
    inputs : the model's, by name

    Raises
    ------
    InputError
        The replacement is none of these, or the vocabulary has none.

    """

    input: str
    vocabulary: Vocabulary
    replacement: str
    inputs: Inputs
    samples: ClassVar[str] = "sentences"
    places: ClassVar[str] = "tokens"
    even: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.replacement not in TAKEN_OUT and self._token is None:
            raise InputError(
                f"which token is '{self.replacement}'? Give its number, or --tokenizer with one "
                "that has it; or --replace remove"
            )

    @property
    def settings(self) -> Mapping[str, Any]:
        """What results depend on besides the sentence."""
        return {
            "replacement": self.replacement,
            "token": self._token,
            "special": sorted(self.vocabulary.special),
            "pad": self.vocabulary.pad,
        }

    @property
    def _token(self) -> int | None:
        if self.replacement in ("mask", "unknown"):
            found: int | None = getattr(self.vocabulary, self.replacement)
            return found
        if not self.replacement.isdecimal():
            return None
        return int(self.replacement)

    def places_of(self, content: Maps) -> NDArray[np.int64]:
        """Return which tokens can be flipped, ascending.

        Raises
        ------
        InputError
            None can.

        """
        fixed = [*self.vocabulary.special, *([] if (p := self.vocabulary.pad) is None else [p])]
        places = np.flatnonzero(self._there(content) & ~np.isin(content[self.input], fixed))
        if not len(places):
            raise InputError("there is no token to replace, only special ones and padding")
        return places

    def sample(
        self, name: str, number: int, content: Maps, maps: Maps, mask: NDArray[Any] | None
    ) -> Sample:
        """Make a sample, without the padding at its end where the model can do without.

        Parameters
        ----------
        name, number, content : as of `Sample`
        maps, mask : [T], as long as the content with its padding, or filled up with 0 or NaN

        Raises
        ------
        InputError
            A map or the mask has another length, or there is nothing to flip.

        """
        end = length = len(content[self.input])
        for what, array in {**maps, **({} if mask is None else {"its mask": mask})}.items():
            if array.ndim != 1 or len(array) < length or np.nan_to_num(array[length:]).any():
                raise InputError(f"{name}: {what} is {list(array.shape)} for {length} tokens")
        if _masks(content) and not any(isinstance(self.inputs[one][1][1], int) for one in content):
            there = np.flatnonzero(self._there(content))
            end = int(there[-1]) + 1 if len(there) else length
        short = {one: row[:end] for one, row in content.items()}
        try:
            inside = None if mask is None else mask[self.places_of(short)]
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        return Sample(name, number, short, {one: row[:end] for one, row in maps.items()}, inside)

    def feeds(self, sample: Sample) -> Feeds:
        """Return what the model reads of a sentence, [1, T]."""
        return {name: row[None] for name, row in sample.content.items()}

    def size(self, sample: Sample) -> Size:
        """Return how many tokens can be flipped."""
        return (len(self.places_of(sample.content)),)

    def spared(self, sample: Sample) -> int:
        """Return 1 where without it no token would be left, else 0."""
        there = self._there(sample.content).sum()
        return int(self.replacement in TAKEN_OUT and there == self.size(sample)[0])

    def of_places(self, array: NDArray[Any], sample: Sample) -> NDArray[np.float64]:
        """Return the relevance of each token that can be flipped."""
        tokens = sample.content[self.input]
        if array.shape != tokens.shape:
            raise InputError(f"a map {list(array.shape)} for {len(tokens)} tokens")
        return array[self.places_of(sample.content)].astype(np.float64)

    def replacing(self, sample: Sample, flipping: Flipping) -> Replacing:
        """Return a function from which tokens are gone, [B, n], to what the model then reads."""
        content = sample.content
        places = self.places_of(content)
        masks = _masks(content)

        def away(gone: NDArray[np.bool_]) -> NDArray[np.bool_]:
            out = np.zeros((len(gone), len(content[self.input])), dtype=bool)
            out[:, places] = gone
            return out

        def exchange(gone: NDArray[np.bool_]) -> Iterator[Feeds]:
            out = away(gone)
            changed = masks if self.replacement == "remove" else [self.input]
            new = 0 if self.replacement == "remove" else self._token
            yield {
                name: np.where(out, row.dtype.type(new), row)
                if name in changed
                else np.repeat(row[None], len(out), axis=0)
                for name, row in content.items()
            }

        def cut(gone: NDArray[np.bool_]) -> Iterator[Feeds]:
            for _, same in groupby(away(gone), key=np.count_nonzero):
                rows = [self._cut(content, one) for one in same]
                yield {name: np.stack([row[name] for row in rows]) for name in content}

        if self.replacement == "cut" or (self.replacement == "remove" and not masks):
            return cut
        return exchange

    def _there(self, content: Maps) -> NDArray[np.bool_]:
        """Return which tokens are no padding, [T]."""
        masks = [content[name] for name in _masks(content)]
        if masks or self.vocabulary.pad is None:
            every = np.ones(len(content[self.input]), dtype=bool)
            return np.asarray(np.logical_and.reduce([every, *masks], dtype=bool))
        return np.not_equal(content[self.input], self.vocabulary.pad)

    def _cut(self, content: Maps, out: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
        """Return a sentence without the tokens that are out, as it would have come.

        Filled up at the side where it is, or at the end, if the model can tell.
        """
        pad = self.vocabulary.pad
        fill = pad is not None or bool(_masks(content))
        there = self._there(content)
        before = there[-1] and not there[0]
        count = int(out.sum())
        found = {}
        for name, row in content.items():
            # A shorter sentence has fewer positions, not others.
            stays = row[: len(row) - count] if role_of(name) == "positions" else row[~out]
            if fill and role_of(name) == "positions":
                stays = row
            elif fill:
                new = (pad or 0) if name == self.input else 0
                stays = np.pad(stays, (count, 0) if before else (0, count), constant_values=new)
            found[name] = stays
        return found


def _masks(content: Maps) -> list[str]:
    """Return the inputs that say which tokens are there."""
    return [name for name in content if is_mask(name)]
