"""Tokens as numbers: which of them mean what, and the inputs that go with them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxlrp.errors import InputError
from onnxlrp.files import check_regular
from onnxlrp.inputs.items import ARRAYS, load_array

_CLASSES = ("y", "label", "labels", "target")
_MASKS = ("[MASK]", "<mask>")
_PADS = ("[PAD]", "<pad>", "<PAD>", "<|pad|>")
_UNKNOWN = ("[UNK]", "<unk>")


_ROLES = {
    "mask": re.compile("((attention|attn|input|token)_?)?mask"),
    "types": re.compile("(token_?type|segment|input_?type|type)(_?ids)?"),
    "positions": re.compile("(input_?)?positions?(_?ids)?"),
}
# What TensorFlow's signatures add to names.
_ADDED = re.compile(r"^serving_default_|:\d+$")


@dataclass(frozen=True)
class Vocabulary:
    """The numbers of tokens that are no piece of a text.

    Attributes
    ----------
    pad, mask, unknown : what fills up, what hides a word, what stands for one that is not known
    special : what a tokenizer puts around a text; also `pad`, not `unknown`

    """

    pad: int | None = None
    mask: int | None = None
    unknown: int | None = None
    special: frozenset[int] = frozenset()

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read a `tokenizer.json`, as the `tokenizers` library writes it.

        Raises
        ------
        InputError
            It is none.
        OSError
            It cannot be opened.

        """
        check_regular(path)
        try:
            found = json.loads(path.read_bytes())
            added = {str(one["content"]): one for one in found["added_tokens"]}
            numbers = {text: int(one["id"]) for text, one in added.items()}
            words = found["model"].get("vocab", {})
            if isinstance(words, list):
                words = {word: number for number, (word, *_) in enumerate(words)}
            named = found["model"].get("unk_token")
            unknown = found["model"].get("unk_id", words.get(named, numbers.get(named)))
            pad = (found.get("padding") or {}).get("pad_id")
            special = {int(one["id"]) for one in added.values() if one["special"]}
            special.update(_put_around(found.get("post_processor") or {}))
        # What is no tokenizer lacks what it must have, or has it of another kind.
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{path} is not a tokenizer.json of the tokenizers library") from error

        def first(*names: str) -> int | None:
            known = (numbers.get(name, words.get(name)) for name in names)
            return next((number for number in known if number is not None), None)

        unknown = first(*_UNKNOWN) if unknown is None else unknown
        pad = first(*_PADS) if pad is None else pad
        return cls(pad, first(*_MASKS), unknown, frozenset(special - {unknown}))

    def with_numbers(self, pad: int | None, special: Iterable[int]) -> Vocabulary:
        """Return it with another padding, if that is not None, and more special tokens."""
        return replace(
            self,
            pad=self.pad if pad is None else pad,
            special=self.special | frozenset(special),
        )


def _put_around(processor: Mapping[str, Any]) -> Iterator[int]:
    """Return the tokens that a tokenizer's last stage puts around a text."""
    for one in processor.get("processors", ()):
        yield from _put_around(one)
    for token in processor.get("special_tokens", {}).values():
        yield from map(int, token["ids"])
    for name in ("cls", "sep"):
        if name in processor:
            yield int(processor[name][1])


def token_arrays(
    path: Path, ids: str, inputs: Mapping[str, Any], vocabulary: Vocabulary
) -> dict[str, NDArray[Any]]:
    """Read sentences as numbers: `.npy` of ids, or `.npz` of arrays by the model's input's name.

    In an `.npz` the ids may also be called `input_ids`, `ids` or `x`; classes (`y`, `label`,
    `labels`, `target`) are not read.

    Returns
    -------
    what `completed` returns

    Raises
    ------
    InputError
        As of `completed`, and if the file is neither, or holds no ids.
    OSError
        The file cannot be opened.

    """
    if path.suffix.lower() not in ARRAYS:
        raise InputError(f"{path}: sentences are read as numbers, from .npz or .npy")
    if path.suffix.lower() == ".npy":
        given = {ids: load_array(path)}
    else:
        check_regular(path)
        try:
            with np.load(path, allow_pickle=False) as archive:
                given = {name: archive[name] for name in archive.files if name not in _CLASSES}
        except OSError:
            raise
        # numpy reports broken files as ValueError, EOFError, BadZipFile, ...
        except Exception as error:
            raise InputError(f"{path} is not a readable .npz of numbers") from error
        alias = next((name for name in (ids, "input_ids", "ids", "x") if name in given), None)
        if alias is None:
            raise InputError(f"{path} holds {', '.join(given) or 'nothing'}: no '{ids}'")
        given[ids] = given.pop(alias)
    try:
        return completed(given, inputs, ids, vocabulary.pad)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def completed(
    given: Mapping[str, NDArray[Any]],
    inputs: Mapping[str, Any],
    ids: str,
    pad: int | None,
) -> dict[str, NDArray[Any]]:
    """Return a value for each of a model's inputs, from its ids and what else is given.

    What is not given goes by its name: a mask is 1 where the id is not `pad`, types and segments
    are 0, positions count from 0.

    Parameters
    ----------
    given : by name of the input, [N, T]
    inputs : dtype and shape of the model's, by name
    ids : which of them holds the ids
    pad : what the ids are filled up with

    Raises
    ------
    InputError
        An input is neither given nor told by its name, of another shape than the ids, or unknown.

    """
    unknown = [name for name in given if name not in inputs]
    if unknown:
        raise InputError(f"the model has no input '{unknown[0]}', only {', '.join(inputs)}")
    rows = given[ids]
    if rows.dtype.kind not in "iu" or rows.ndim != 2:
        raise InputError(f"ids are whole numbers [N, T], not {rows.dtype} {list(rows.shape)}")
    found = {}
    for name, (dtype, _) in inputs.items():
        if name in given:
            values = given[name]
        elif is_mask(name):
            if pad is None:
                raise InputError(
                    f"the model reads '{name}': give it in an .npz, or say with --pad or "
                    "--tokenizer which id fills up"
                )
            values = rows != pad
        elif role_of(name) == "types":
            values = np.zeros_like(rows)
        elif role_of(name) == "positions":
            values = np.broadcast_to(np.arange(rows.shape[1]), rows.shape)
        else:
            raise InputError(f"the model also reads '{name}': give it under that name in an .npz")
        if values.shape != rows.shape:
            raise InputError(f"'{name}' is {list(values.shape)}, the ids are {list(rows.shape)}")
        found[name] = np.ascontiguousarray(values, dtype=dtype)
    return found


def role_of(name: str) -> str | None:
    """Return what an input beside the tokens is by its name: `mask`, `types` or `positions`."""
    bare = _ADDED.sub("", name.lower())
    return next((role for role, known in _ROLES.items() if known.fullmatch(bare)), None)


def is_mask(name: str) -> bool:
    """Tell an input that says which tokens are none, by its name."""
    return role_of(name) == "mask"


def beside(model: Path) -> Path | None:
    """Find the tokenizer of a model's file: `<stem>.tokenizer.json`, or `tokenizer.json`."""
    for name in (f"{model.stem}.tokenizer.json", "tokenizer.json"):
        if (path := model.with_name(name)).is_file():
            return path
    return None
