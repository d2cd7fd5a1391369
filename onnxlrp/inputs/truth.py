"""Of which class items truly are, as their folders, a column of their table, or a file say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onnxlrp.errors import InputError
from onnxlrp.inputs.items import Item
from onnxlrp.inputs.passages import Passage, collect_texts
from onnxlrp.inputs.rows import Row
from onnxlrp.inputs.stores import Stored
from onnxlrp.inputs.targets import class_number, read_targets

FOLDERS = "folders"


def read_truth(
    text: str,
    items: Sequence[Item | Passage | Row | Stored],
    sources: Sequence[str],
    labels: Sequence[str] | None,
    classes: int | None,
) -> dict[str, int]:
    """Return the class of each item by its name; items of which nothing is said are left out.

    Parameters
    ----------
    text : `folders`, where the folder that an item's file is in is called after its class; the
        name of a column, of tables; or a file of classes, as `read_targets` takes it
    items, sources : what is explained, and the files and folders it was collected from
    labels : names of the classes
    classes : how many there are, if that is known

    Raises
    ------
    InputError
        It is none of these, or says a class that does not exist.
    OSError
        A file does not exist.

    """
    if Path(text).is_file():
        each = read_targets(text, [item.name for item in items], labels, classes).each or {}
        found = {name: one for name, one in each.items() if isinstance(one, int) and one >= 0}
        if len(found) < len(each) or not found:
            raise InputError(f"--truth {text}: a class of each item is a number or a name")
        return found
    said = {
        item.name: Path(item.path).resolve().parent.name
        for item in items
        if text == FOLDERS and isinstance(item, Item) and item.row is None
    }
    for item in items:
        if isinstance(item, Row) and item.table.header and text in item.table.header:
            place = item.table.header.index(text)
            cells = item.table.cells(item.row)
            said |= {item.name: cells[place]} if place < len(cells) else {}
    if any(isinstance(item, Passage) for item in items) and sources:
        said = {one.name: one.text for one in collect_texts(sources, column=text)}
    if not said:
        raise InputError(
            f"--truth {text}: give {FOLDERS}, the name of a column of tables, or a file with "
            "ITEM,CLASS on each line"
        )
    try:
        return {
            name: class_number(one, labels, classes) for name, one in said.items() if one.strip()
        }
    except InputError as error:
        raise InputError(f"--truth {text}: {error}") from None
