"""Many pictures or arrays in one file, or far away: Parquet, tars (WebDataset), URLs of fsspec."""

from __future__ import annotations

import hashlib
import io
import tarfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain, count
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxlrp.errors import InputError
from onnxlrp.extras import needed
from onnxlrp.inputs.items import Item, as_picture, check_names, decoded_picture, names_of, pictured

STORES = (".parquet", ".tar")
_NUMBERS = ("float", "double", "halffloat", "int", "uint")
_GROUPS = 2
"""So many groups of a Parquet file's rows are held in memory: threads that read are in two."""


class Store:
    """A file of any file system that fsspec knows; one picture or array, unless a subclass says.

    Parameters
    ----------
    url : a path, or with a protocol, such as `s3://bucket/photo.jpg`
    name : what its items are called, before what tells them apart

    Attributes
    ----------
    key : changes when the file does
    arrays : whether it holds arrays, whatever its items are called

    Raises
    ------
    InputError
        fsspec, or the library of its that the protocol needs, is not installed.
    OSError
        The file cannot be reached.

    """

    arrays = False

    def __init__(self, url: str, name: str) -> None:
        self.url, self.name = url, name
        self.key = str(self.files[0].ukey(self.files[1]))

    @property
    def files(self) -> tuple[Any, str]:
        """The file system, and the path in it."""
        return opened(self.url)

    def entries(self) -> Iterator[Stored]:
        """Yield what is in it."""
        yield Stored(self, self.name, self.url)

    def read(self, entry: Stored) -> bytes | NDArray[Any]:
        """Read what a file would hold, or an array."""
        system, path = self.files
        content: bytes = system.cat_file(path)
        return content


class Tar(Store):
    """A tar of pictures and `.npy` files, not compressed; of a WebDataset all but those is left.

    Parameters
    ----------
    column : the ending of the files that are meant, such as `jpg`; None for all

    """

    def __init__(self, url: str, name: str, column: str | None) -> None:
        super().__init__(url, name)
        self._endings = (*pictured(), ".npy") if column is None else (f".{column.lstrip('.')}",)

    def entries(self) -> Iterator[Stored]:
        system, path = self.files
        names: set[str] = set()
        try:
            with system.open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
                for one in tar:
                    inside = PurePosixPath(one.name)
                    if one.isfile() and inside.name.lower().endswith(self._endings):
                        name = f"{self.name}/{_named(one.name, names)}"
                        source = f"{self.url}:{inside}"
                        yield Stored(self, name, source, one.offset_data, one.size)
        except tarfile.TarError as error:
            raise InputError(f"{self.url} is no tar, or a compressed one: {error}") from error
        if not names:
            raise InputError(f"{self.url} holds no {', '.join(self._endings)}")

    def read(self, entry: Stored) -> bytes:
        system, path = self.files
        content: bytes = system.cat_file(path, entry.start, entry.start + entry.size)
        return content


class Parquet(Store):
    """A column of a Parquet file: bytes of pictures, as they are or as Hugging Face's, or arrays.

    Rows are read by groups, of which the file says how large they are.

    Parameters
    ----------
    column : its name; None for the only one of such a kind

    """

    def __init__(self, url: str, name: str, column: str | None) -> None:
        super().__init__(url, name)
        about = self._file.metadata
        sizes = (about.row_group(number).num_rows for number in range(about.num_row_groups))
        self._starts = list(accumulate(sizes, initial=0))
        schema = self._file.schema_arrow
        known = [field.name for field in schema if _holds(field.type)]
        if column is not None and column not in schema.names:
            raise InputError(f"{url} has no column {column}, but {', '.join(schema.names)}")
        if column is None and len(known) != 1:
            raise InputError(
                f"{url} has {len(known)} columns of pictures or arrays"
                f"{''.join(f', {one}' for one in known)}: name the one that is meant by --column"
            )
        self._column = column or known[0]
        if self._column not in known:
            raise InputError(f"column {self._column} of {url} holds neither pictures nor arrays")
        self.arrays = "binary" not in str(schema.field(self._column).type)

    def __getstate__(self) -> dict[str, Any]:
        return {
            key: self.__dict__[key]
            for key in ("url", "name", "key", "arrays", "_starts", "_column")
        }

    @cached_property
    def _file(self) -> Any:
        system, path = self.files
        parquet = needed("pyarrow.parquet", "data")
        try:
            return parquet.ParquetFile(system.open(path, "rb"))
        except OSError:
            raise
        except Exception as error:
            raise InputError(f"{self.url} is no Parquet file: {error}") from error

    @cached_property
    def _held(self) -> tuple[Lock, dict[int, Any]]:
        return Lock(), {}

    def entries(self) -> Iterator[Stored]:
        rows = self._starts[-1]
        digits = len(str(rows - 1))
        for row in range(rows):
            yield Stored(self, f"{self.name}/{row:0{digits}}", f"{self.url}:{row}", row)

    def read(self, entry: Stored) -> bytes | NDArray[Any]:
        group = bisect_right(self._starts, entry.start) - 1
        lock, held = self._held
        with lock:
            if group not in held:
                while len(held) >= _GROUPS:
                    del held[next(iter(held))]
                table = self._file.read_row_group(group, columns=[self._column])
                held[group] = table.column(0)
            column = held[group]
        kind, value = column.type, column[entry.start - self._starts[group]].as_py()
        if isinstance(value, dict):
            value = value.get("bytes")
        if value is None:
            raise InputError(f"{entry.source} is empty")
        if isinstance(value, bytes):
            return value
        shape = getattr(kind, "shape", None)
        array = np.asarray(value, _leaf(kind).to_pandas_dtype())
        return array if shape is None else array.reshape(shape)


@dataclass(frozen=True, slots=True)
class Stored:
    """One picture or array of a store.

    Attributes
    ----------
    store : where it is
    name : what its results are called, unique among what was collected together
    source : the file, and which part of it
    start, size : of a tar where its bytes are; of Parquet the row

    """

    store: Store
    name: str
    source: str
    start: int = 0
    size: int = 0

    @property
    def is_array(self) -> bool:
        """Whether it is an array, and else a picture."""
        return self.store.arrays or self.source.lower().endswith(".npy")

    @property
    def digest(self) -> str:
        """SHA-256 of what changes when the file does; nothing is read."""
        return hashlib.sha256(repr((self.store.key, self.start, self.size)).encode()).hexdigest()

    def read(self) -> Image.Image | NDArray[Any]:
        """Read a picture, or an array without a batch axis.

        Raises
        ------
        InputError
            It is neither, or cut short.
        OSError
            The file cannot be read.

        """
        found = self.store.read(self)
        if not isinstance(found, bytes):
            return found
        if not found.startswith(b"\x93NUMPY"):
            return decoded_picture(io.BytesIO(found), self.source)
        try:
            array: NDArray[Any] = np.load(io.BytesIO(found), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise InputError(f"{self.source} is not a readable array: {error}") from error
        return array


def are_stored(sources: Iterable[str], leave_out: Path | None = None) -> bool:
    """Tell whether any source is a URL, a store, or a folder that holds one."""
    return any(
        "://" in source
        or (Path(source).suffix.lower() in STORES and Path(source).is_file())
        or (Path(source).is_dir() and any(_stores_in(Path(source), leave_out)))
        for source in sources
    )


def collect_stored(
    sources: Iterable[str], column: str | None, leave_out: Path | None = None
) -> list[Stored]:
    """List what is in files and folders of any file system, in order of their names.

    Parameters
    ----------
    sources : pictures, `.npy` of one sample, `.parquet`, `.tar`, and folders and wildcards of these
    column : which of a Parquet file, or the ending of the files of a tar that are meant
    leave_out : a folder that is not searched, where results go

    Raises
    ------
    InputError
        A folder or store holds nothing that can be explained, or as for stores.
    OSError
        A file or folder does not exist, or cannot be reached.

    """
    found: dict[Path, tuple[Path, Path]] = {}
    urls: dict[Path, str] = {}
    for source in sources:
        system, root = opened(source)
        for path in _inside(system, root, source, leave_out):
            below = path.removeprefix(f"{root}/") if path != root else PurePosixPath(path).name
            place = Path("/", *system.protocol, path.lstrip("/"))
            found.setdefault(place, (place, Path(below if "*" not in root else Path(path).name)))
            urls[place] = system.unstrip_protocol(path) if "://" in source else path
    names = names_of(found)
    entries: list[Stored] = []
    for place, url in urls.items():
        ending = place.suffix.lower()
        store: Store
        if ending == ".parquet":
            store = Parquet(url, names[place], column)
        elif ending == ".tar":
            store = Tar(url, names[place], column)
        else:
            store = Store(url, names[place])
        entries += store.entries()
    if not entries:
        raise InputError(f"{', '.join(urls.values())}: there are no rows")
    check_names((entry.name, entry.source) for entry in entries)
    return entries


def opened(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, or of a path, and the path in it.

    Raises
    ------
    InputError
        fsspec, or the library of its that the protocol needs, is not installed.

    """
    core = needed("fsspec.core", "data")
    try:
        system, path = core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise InputError(f"{url}: {error}") from None
    return system, path


def _inside(system: Any, root: str, source: str, leave_out: Path | None) -> list[str]:
    """List the files that a source stands for."""
    try:
        if "*" not in root and not system.isdir(root):
            system.info(root)
            return [root]
        listed = system.glob(root) if "*" in root else system.find(root)
    # What file systems far away raise has nothing in common.
    except Exception as error:
        raise InputError(f"{source} cannot be read: {error or type(error).__name__}") from error
    known = (*pictured(), ".npy", *STORES)
    files = sorted(path for path in listed if path.lower().endswith(known))
    if leave_out is not None:
        files = [path for path in files if not path.startswith(f"{leave_out.resolve()}/")]
    if not files:
        raise InputError(f"{source} holds no pictures, no arrays, no .parquet and no .tar")
    return files


def _stores_in(folder: Path, leave_out: Path | None) -> Iterator[Path]:
    out = None if leave_out is None else leave_out.resolve()
    for path in folder.rglob("*"):
        if path.suffix.lower() in STORES and out not in path.resolve().parents:
            yield path


def _named(member: str, names: set[str]) -> str:
    """Name what a tar holds, unlike `names`, to which it is added, and inside any folder.

    A tar may call its files `/a` and `../a`, hold two of one name, and pictures beside each other
    that differ in their endings.
    """
    parts = PurePosixPath(member.replace("\\", "/")).parts
    whole = PurePosixPath(*(part for part in parts if part not in ("/", "//", "..")))
    tried = chain([str(whole.with_suffix("")), str(whole)], (f"{whole}.{n}" for n in count(2)))
    name = next(one for one in tried if one not in names)
    names.add(name)
    return name


def _leaf(kind: Any) -> Any:
    """Return the type of what lists of lists hold."""
    kind = getattr(kind, "storage_type", kind)
    while hasattr(kind, "value_type"):
        kind = kind.value_type
    return kind


def _holds(kind: Any) -> bool:
    """Tell whether a column of that type may hold pictures or arrays."""
    text = str(kind)
    if text.startswith("struct"):
        return any(field.name == "bytes" and "binary" in str(field.type) for field in kind)
    leaf = _leaf(kind)
    return "binary" in text or (leaf is not kind and str(leaf).rstrip("0123456789") in _NUMBERS)


def picture_of(item: Item | Stored) -> Image.Image:
    """Read a picture, also one that an array holds the pixels of.

    Raises
    ------
    InputError
        It is none; the text names the source.
    OSError
        The file cannot be opened.

    """
    read = item.read()
    try:
        return as_picture(read)
    except InputError as error:
        raise InputError(f"{item.source}: {error}") from None
