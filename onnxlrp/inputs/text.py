"""How a text becomes the tokens that a model reads, and relevance of tokens that of words."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnxlrp.errors import InputError
from onnxlrp.files import read_text
from onnxlrp.inputs.tokens import Vocabulary, role_of

Inputs = Mapping[str, tuple[str, tuple[int | str | None, ...]]]
"""dtype and shape of a model's inputs, by name."""

INTEGERS = ("int64", "int32")


def attached(text: str) -> bool:
    """Tell whether a text starts with what belongs to the sign before it: an accent, a joiner."""
    return bool(text) and unicodedata.category(text[0]) in ("Mn", "Me", "Mc", "Cf")


class Word(NamedTuple):
    """A word of a text, characters `start` to `end` of it, and what its tokens add up to."""

    text: str
    start: int
    end: int
    relevance: float


@dataclass(frozen=True)
class Tokens:
    """A text as its tokens, T of them.

    Attributes
    ----------
    text : as it was given
    ids : int64 [T], rows of the model's table
    types : int64 [T], the segments that the tokenizer tells apart
    pieces : what the vocabulary calls the tokens
    offsets : int64 [T, 2], the characters of the text that each stands for, from and to
    special : bool [T], whether the tokenizer put it there, as [CLS], and no word did
    word : int64 [T], number of the token's word; -1 for special ones
    cut : whether the text has more tokens than these

    """

    text: str
    ids: NDArray[np.int64]
    types: NDArray[np.int64] = field(repr=False)
    pieces: tuple[str, ...]
    offsets: NDArray[np.int64] = field(repr=False)
    special: NDArray[np.bool_] = field(repr=False)
    word: NDArray[np.int64] = field(repr=False)
    cut: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    def spans(self) -> list[tuple[int, int]]:
        """Return where each word starts and ends in the text, without the blanks around it."""
        inside = self.word >= 0
        count = int(self.word.max(initial=-1)) + 1
        starts, ends = np.full(count, len(self.text)), np.zeros(count, np.int64)
        np.minimum.at(starts, self.word[inside], self.offsets[inside, 0])
        np.maximum.at(ends, self.word[inside], self.offsets[inside, 1])
        return [
            _without_blanks(self.text, *span)
            for span in zip(starts.tolist(), ends.tolist(), strict=True)
        ]

    def words(self, relevance: NDArray[Any]) -> list[Word]:
        """Add the relevance of tokens, [T], up to that of words, in the order of the text.

        Words are what the tokenizer splits a text into before it looks for tokens, and what blanks
        divide. Special tokens belong to none.

        Raises
        ------
        InputError
            There is not one relevance for each token.

        """
        if relevance.shape != self.ids.shape:
            raise InputError(f"{len(self)} tokens have no relevance of {list(relevance.shape)}")
        inside = self.word >= 0
        sums = np.bincount(self.word[inside], relevance[inside])
        return [
            Word(self.text[start:end], start, end, total)
            for (start, end), total in zip(self.spans(), sums.tolist(), strict=True)
        ]

    def table(self, relevance: NDArray[Any]) -> list[dict[str, Any]]:
        """List the tokens: what they are, where they stand, what they and their word got."""
        words = self.words(relevance)
        rows = []
        for index, piece in enumerate(self.pieces):
            number = int(self.word[index])
            word = words[number] if number >= 0 else None
            rows.append(
                {
                    "token": piece,
                    "id": int(self.ids[index]),
                    "start": int(self.offsets[index, 0]),
                    "end": int(self.offsets[index, 1]),
                    "special": bool(self.special[index]),
                    "relevance": float(relevance[index]),
                    "word": word.text if word else "",
                    "word_number": number,
                    "word_relevance": word.relevance if word else None,
                }
            )
        return rows


def token_input(inputs: Inputs, explained: Sequence[str]) -> str | None:
    """Return the input that holds tokens, [N, T], if it alone is explained."""
    if len(explained) != 1:
        return None
    dtype, shape = inputs[explained[0]]
    return explained[0] if dtype in INTEGERS and len(shape) == 2 else None


class Reader:
    """Makes of texts what a model reads: tokens, and the inputs that go with them.

    Inputs are filled by what their names say: `attention_mask` with 1 for tokens and 0 for
    padding, `token_type_ids` with the tokenizer's segments, `position_ids` with 0, 1, 2, ...

    Parameters
    ----------
    path : a `tokenizer.json` of the library `tokenizers`
    inputs : of the model; the sizes of shapes that are names or None may be any
    explained : names of the inputs that get relevance
    most : texts are cut after so many tokens, special ones among them

    Attributes
    ----------
    path : the tokenizer's file
    content : what is in it
    ids : name of the input that holds tokens
    length : how many tokens the model reads; None where any number
    most : how many tokens a text may have; None where any number

    Raises
    ------
    InputError
        The library is not installed, the file is no tokenizer, the model reads no tokens, an input
        besides them is none of the known ones, or the model needs padding and the tokenizer has
        none.
    OSError
        The file cannot be opened.

    """

    def __init__(
        self, path: Path, inputs: Inputs, explained: Sequence[str], most: int | None = None
    ) -> None:
        name = token_input(inputs, explained)
        if name is None:
            raise InputError("the model reads no text: that is one integer input, [N, T]")
        self.ids = name
        self._roles = {other: _role(other, *inputs[other]) for other in inputs if other != name}
        self._inputs = inputs
        self.path = path
        self.content = read_text(path)
        tokenizer = _load(path, self.content)
        width = inputs[name][1][1]
        self.length = width if isinstance(width, int) else None
        truncation = tokenizer.truncation or {}
        limits = [self.length, most, truncation.get("max_length")]
        self.most = min((limit for limit in limits if limit is not None), default=None)
        pad = Vocabulary.load(path).pad
        self._masked = "mask" in self._roles.values()
        if self.length is not None and not self._masked:
            # What is no token there shows in the model's scores.
            if pad is None:
                raise InputError(
                    f"the model reads {self.length} tokens, and {path} names none for padding"
                )
            if (tokenizer.padding or {}).get("direction", "right") != "right":
                raise InputError(f"{path} pads on the left, which is done for no model yet")
        self._pad = pad or 0
        tokenizer.no_padding()
        if self.most is None:
            tokenizer.no_truncation()
        else:
            tokenizer.enable_truncation(self.most, direction=truncation.get("direction", "right"))
        self._tokenizer = tokenizer

    def in_words(self) -> str:
        """Say how texts are read, for people."""
        cut = "" if self.most is None else f", at most {self.most} tokens of each"
        return f"split by {self.path.name}{cut}"

    def __call__(self, text: str) -> Tokens:
        """Split a text into tokens; what is beyond `most` is cut off, with a warning.

        Raises
        ------
        InputError
            There is nothing to split, or the tokenizer fails.

        """
        encoding = _tried(lambda: self._tokenizer.encode(text), f"{self.path.name} fails")
        if len(encoding.tokens) != len(encoding.ids):
            raise InputError(f"{self.path.name} is damaged: it adds tokens without a name")
        if not encoding.ids:
            raise InputError(f"{self.path.name} finds no tokens in it")
        if self.most is not None and len(encoding.ids) > self.most:
            raise InputError(f"{self.most} tokens are fewer than {self.path.name} adds to a text")
        if encoding.overflowing:
            warnings.warn(
                f"of texts longer than {self.most} tokens only so many were read", stacklevel=2
            )
        special = np.array(encoding.special_tokens_mask, bool)
        offsets = _offsets(text, encoding.offsets, special)
        return Tokens(
            text=text,
            ids=np.array(encoding.ids, np.int64),
            types=np.array(encoding.type_ids, np.int64),
            pieces=tuple(encoding.tokens),
            offsets=offsets,
            special=special,
            word=_words(text, encoding.word_ids, offsets, special),
            cut=bool(encoding.overflowing),
        )

    def together(self, a: Tokens, b: Tokens) -> bool:
        """Tell whether two texts fit in one batch; without a mask only those of one length do."""
        return self._masked or self.length is not None or len(a) == len(b)

    def feeds(self, texts: Sequence[Tokens]) -> dict[str, NDArray[Any]]:
        """Return the model's inputs for a batch; shorter texts are padded on the right.

        Parameters
        ----------
        texts : N of them, all `together`

        Returns
        -------
        by input name, of the model's dtypes, [N, T] with the model's T, else the longest text's

        """
        width = self.length or max(map(len, texts))
        ids = np.full((len(texts), width), self._pad)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        for row, tokens in enumerate(texts):
            ids[row, : len(tokens)] = tokens.ids
            types[row, : len(tokens)] = tokens.types
            mask[row, : len(tokens)] = 1
        positions = np.broadcast_to(np.arange(width), ids.shape)
        filled = {"mask": mask, "types": types, "positions": positions}
        return {
            name: (ids if name == self.ids else filled[self._roles[name]]).astype(dtype)
            for name, (dtype, _) in self._inputs.items()
        }


def _role(name: str, dtype: str, shape: Sequence[int | str | None]) -> str:
    """Return what fills an input besides the tokens."""
    role = role_of(name) if len(shape) == 2 else None
    kinds = (*INTEGERS, *(("bool", "float32", "float16") if role == "mask" else ()))
    if role is None or dtype not in kinds:
        raise InputError(
            f"nothing is known to fill the input '{name}', {dtype} "
            f"[{', '.join('?' if size is None else str(size) for size in shape)}], with: texts "
            "give tokens, attention_mask, token_type_ids and position_ids, [N, T] each; run the "
            "explainer from Python, with arrays"
        )
    return role


def _load(path: Path, content: str) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise InputError(
            "text needs the library tokenizers: pip install tokenizers, or onnxlrp with [text]"
        ) from None
    return _tried(
        lambda: Tokenizer.from_str(content),
        f"{path} is no tokenizer.json of the library tokenizers",
    )


def _tried(call: Callable[[], Any], said: str) -> Any:
    try:
        return call()
    except (KeyboardInterrupt, SystemExit):
        raise
    # The library has no class of errors of its own, and its panics are no exceptions.
    except BaseException as error:
        raise InputError(f"{said}: {error}") from error


def _offsets(
    text: str, given: Sequence[tuple[int, int]], special: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Have each token reach over accents and joiners behind it, which normalisation may drop."""
    offsets = np.array(given, np.int64).reshape(-1, 2)
    follows = limit = len(text)
    for index in np.flatnonzero(~special)[::-1]:
        start, end = offsets[index].tolist()
        # The pieces of one character share its place in the text.
        if start < follows:
            follows, limit = start, follows
        while start < end < limit and attached(text[end]):
            end += 1
        offsets[index, 1] = end
    return offsets


def _without_blanks(text: str, start: int, end: int) -> tuple[int, int]:
    word = text[start:end]
    if not word.strip():
        return start, end
    return end - len(word.lstrip()), start + len(word.rstrip())


def _words(
    text: str,
    given: Sequence[int | None],
    offsets: NDArray[np.int64],
    special: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """Number the words; not all tokenizers split before they look for tokens, so blanks do too."""
    numbers = np.full(len(given), -1, np.int64)
    number, before, end = -1, None, 0
    for index in np.flatnonzero(~special).tolist():
        start, stop = offsets[index].tolist()
        blank = text[end : start + 1] if stop > start else ""
        apart = any(map(str.isspace, blank))
        if number < 0 or apart or (given[index] != before and not attached(text[start:stop])):
            number += 1
        numbers[index] = number
        before, end = given[index], max(end, stop)
    return numbers
