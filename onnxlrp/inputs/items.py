"""What there is to explain: pictures, arrays, and folders of both."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from onnxlrp.errors import InputError
from onnxlrp.files import check_regular

ARRAYS = (".npy", ".npz")

# Pixels, and nothing that is run (EPS) or played; what this Pillow was built without is left out.
_PICTURES = frozenset(
    ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP")
)


@lru_cache
def _digest(path: Path, changed: int, size: int) -> str:
    check_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Item:
    """One thing to explain.

    Attributes
    ----------
    name : what its results are called, unique among what was collected together; a relative path
    path : the file it is in
    row : which sample of an array it is; None for a picture, or an array of a single sample

    """

    name: str
    path: Path
    row: int | None = None

    @property
    def is_array(self) -> bool:
        """Whether it is an array by its file's name, and else a picture."""
        return self.path.suffix.lower() in ARRAYS

    @property
    def source(self) -> str:
        """The file, and which sample of it."""
        return str(self.path) if self.row is None else f"{self.path}:{self.row}"

    @property
    def digest(self) -> str:
        """SHA-256 of the file it is in, which is read once a run for all samples of it.

        Raises
        ------
        OSError
            The file cannot be opened.

        """
        known = self.path.stat()
        return _digest(self.path, known.st_mtime_ns, known.st_size)

    def read(self) -> Image.Image | NDArray[Any]:
        """Read a picture, or one sample of an array, without a batch axis.

        Raises
        ------
        InputError
            The file is neither a picture nor an array, or is cut short.
        OSError
            The file cannot be opened.

        """
        if not self.is_array:
            return load_picture(self.path)
        array = load_array(self.path)
        return array if self.row is None else array[self.row]


def collect(
    sources: Iterable[str | PathLike[str]],
    axes: int,
    *,
    leave_out: Path | None = None,
    only: Collection[Path] | None = None,
) -> list[Item]:
    """List what is in files and folders, in order.

    Parameters
    ----------
    sources : pictures, `.npy`, `.npz`, folders
    axes : of one sample that the model reads; an array of floats with one axis more is a set
    leave_out, only : as for `files_in`

    Returns
    -------
    items with names that tell them apart

    Raises
    ------
    InputError
        A folder holds nothing that can be explained, an array given by its name is of an unknown
        kind, or two items would share a name.
    OSError
        A file or folder does not exist.

    """
    sources = list(sources)
    found = files_in(sources, {*pictured(), *ARRAYS}, "no pictures and no arrays", leave_out, only)
    named = {*map(Path, sources)}
    items: list[Item] = []
    for path, name in found.items():
        try:
            items += _items(path, name, axes)
        except InputError:
            if path in named:
                raise
            # One in a folder costs itself, as a picture does: reading it will fail.
            items.append(Item(name, path))
    check_names((item.name, item.source) for item in items)
    return items


def check_names(items: Iterable[tuple[str, str]]) -> None:
    """Check that no two sources share a name, as a row of `a.npy` and a file in `a` may.

    Raises
    ------
    InputError
        Some do: the results of one would be written over those of the other.

    """
    sources: dict[str, str] = {}
    for name, source in items:
        other = sources.setdefault(name, source)
        if other != source:
            raise InputError(
                f"results of {other} and of {source} would both be called {name}: rename one, or "
                "give them apart"
            )


def files_in(
    sources: Iterable[str | PathLike[str]],
    endings: Collection[str],
    nothing: str,
    leave_out: Path | None = None,
    only: Collection[Path] | None = None,
) -> dict[Path, str]:
    """Name files, and those in folders, which are searched recursively, by name.

    Parameters
    ----------
    sources : files, whatever they end in, and folders
    endings : of files in folders, such as `.csv`
    nothing : what a folder without such files is said to hold
    leave_out : a folder that is not searched, where results go
    only : of the files those that are returned, as `inside` finds them; all count for the names

    Returns
    -------
    paths, and names that tell them apart: `photo`, or `photo.jpg` where there is a `photo.png`
    too, or `holiday/photo`; what is given twice is in it once

    Raises
    ------
    InputError
        A folder holds no such file, and none is asked for, or is that where results go; or a name
        is empty.
    OSError
        A file or folder does not exist.

    """
    found: dict[Path, tuple[Path, Path]] = {}
    for given in sources:
        if given == "":
            raise InputError("the name of an input is empty: is a variable not set?")
        source = Path(given)
        files = [source]
        # A missing file ends the run before it starts; a link to nothing in a folder costs itself.
        source.stat()
        if source.is_dir():
            check_apart(source, leave_out)
            files = [p for p in inside(source, leave_out) if p.suffix.lower() in endings]
            if not files and only is None:
                raise InputError(f"{source} holds {nothing}")
        for path in files:
            relative = path.relative_to(source) if source.is_dir() else Path(path.name)
            # Path.resolve raises at links that lead to themselves.
            found.setdefault(Path(os.path.realpath(path)), (path, relative))
    names = names_of(found)
    return {
        path: names[resolved]
        for resolved, (path, _) in found.items()
        if only is None or path in only
    }


def check_apart(folder: Path, results: Path | None) -> None:
    """Check that results do not go into the folder that is read, whose items they would be next.

    Raises
    ------
    InputError
        They do.

    """
    if results is not None and results.exists() and folder.samefile(results):
        raise InputError(f"{folder} is where results go: give them another folder")


def inside(
    folder: Path, leave_out: Path | None = None, above: Collection[str] = ()
) -> Iterator[Path]:
    """List the files in a folder and the folders in it, by name, but for hidden ones.

    A link to a folder that it lies in, one of `above`, would never end: it is left out.
    """
    above = {*above, os.path.realpath(folder)}
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.name.startswith("."):
            continue
        path = Path(entry)
        # A link to itself is an error to ask whether it is a folder; reading it fails by itself.
        if not os.path.isdir(path):
            yield path
        elif os.path.realpath(path) not in above and (
            leave_out is None or path.resolve() != leave_out.resolve()
        ):
            yield from inside(path, leave_out, above)


def load_picture(path: str | PathLike[str]) -> Image.Image:
    """Read a picture file completely.

    Raises
    ------
    InputError
        The file is not a picture, or is cut short.
    OSError
        The file cannot be opened.

    """
    check_regular(Path(path))
    with open(path, "rb") as file:
        return decoded_picture(file, str(path))


def decoded_picture(file: IO[bytes], name: str) -> Image.Image:
    """Read a picture completely; `name` is what it is from.

    Raises
    ------
    InputError
        It is not a picture, or is cut short.

    """
    try:
        image = Image.open(file, formats=_formats())
        image.load()
    except UnidentifiedImageError as error:
        raise InputError(f"{name} is not a picture of a known format") from error
    # Pillow reports broken files as OSError, SyntaxError, ValueError, ... by format.
    except Exception as error:
        raise InputError(f"{name} is not a readable picture: {error}") from error
    return image


def load_array(path: Path) -> NDArray[Any]:
    """Open an array file; `.npy` stays on disk until read.

    Of an `.npz` with several arrays it is `x`, `images`, `data`, `relevance` or `attribution`.

    Raises
    ------
    InputError
        The file is no array of numbers, or an `.npz` in which none can be told to be the images.
    OSError
        The file cannot be opened.

    """
    check_regular(path)
    stat = path.stat()
    return _opened(path.resolve(), stat.st_mtime_ns, stat.st_size)


# A folder may hold more arrays than a process may open files.
@lru_cache(maxsize=8)
def _opened(path: Path, changed: int, size: int) -> NDArray[Any]:
    """Open the file as it is since `changed`, in nanoseconds, with `size` bytes."""
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        array = loaded if isinstance(loaded, np.ndarray) else _of_archive(path, loaded)
    except OSError:
        raise
    # numpy reports broken files as ValueError, EOFError, BadZipFile, ...
    except InputError:
        raise
    except Exception as error:
        # What np.load says of a text file is to allow pickles.
        raise InputError(f"{path} is not a readable array, .npy or .npz") from error
    if array.dtype.kind not in "fiub":
        raise InputError(f"{path} holds {array.dtype}, not numbers")
    return array


def _of_archive(path: Path, archive: Any) -> NDArray[Any]:
    with archive:
        names = archive.files
        known = [
            name for name in ("x", "images", "data", "relevance", "attribution") if name in names
        ]
        if len(names) != 1 and not known:
            raise InputError(
                f"{path} holds {', '.join(names) or 'nothing'}: call the array that is meant "
                "'x', or 'relevance'"
            )
        array: NDArray[Any] = archive[(known or names)[0]]
    return array


def are_pictures(array: NDArray[Any]) -> bool:
    """Tell pixels, uint8 [..., H, W, C] or [H, W], from what a model reads."""
    return array.dtype == np.uint8


def as_picture(read: Image.Image | NDArray[Any]) -> Image.Image:
    """Turn pixels, uint8 [H, W, C] or [H, W], into a picture, which a picture is already.

    Raises
    ------
    InputError
        They are of another type or shape.

    """
    if isinstance(read, Image.Image):
        return read
    try:
        if not are_pictures(read):
            raise TypeError
        return Image.fromarray(read[..., 0] if read.shape[-1] == 1 else read)
    except (TypeError, ValueError):
        raise InputError(
            f"{read.dtype} {list(read.shape)} is no picture: those are uint8 [H, W, C]"
        ) from None


def pictured() -> set[str]:
    """Return the endings of pictures' files, in small letters."""
    formats = _formats()
    return {end for end, name in Image.registered_extensions().items() if name in formats}


def _formats() -> list[str]:
    Image.init()
    return sorted(_PICTURES & set(Image.OPEN))


def _items(path: Path, name: str, axes: int) -> Iterator[Item]:
    if path.suffix.lower() not in ARRAYS or not path.exists():
        yield Item(name, path)
        return
    array = load_array(path)
    if array.size == 0:
        raise InputError(f"{path} is empty: {list(array.shape)}")
    if are_pictures(array):
        single = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (1, 3, 4))
    else:
        single = array.ndim == axes
        if array.ndim not in (axes, axes + 1):
            raise InputError(
                f"{path} is {array.dtype} {list(array.shape)}: the model reads samples of "
                f"{axes} axes, or a set of them, or pictures as uint8 [N, H, W, C]"
            )
    if single:
        yield Item(name, path)
        return
    digits = len(str(len(array) - 1))
    for row in range(len(array)):
        yield Item(f"{name}/{row:0{digits}}", path, row)


def names_of(found: Mapping[Path, tuple[Path, Path]]) -> dict[Path, str]:
    """Call each file by its relative path without suffix, or as much more as tells it apart."""

    def longer(resolved: Path, relative: Path, more: int) -> str:
        if more == 0:
            return relative.with_suffix("").as_posix()
        parts = resolved.parts[1:]
        return "/".join(parts[-(len(relative.parts) + more - 1) :])

    names: dict[Path, str] = {}
    more = 0
    rest = {resolved: relative for resolved, (_, relative) in found.items()}
    while rest:
        tried = {resolved: longer(resolved, relative, more) for resolved, relative in rest.items()}
        counts = Counter([*tried.values(), *names.values()])
        names |= {resolved: name for resolved, name in tried.items() if counts[name] == 1}
        rest = {resolved: relative for resolved, relative in rest.items() if resolved not in names}
        more += 1
    return names
