from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnxlrp.errors import InputError
from onnxlrp.inputs.items import collect
from onnxlrp.inputs.passages import collect_texts
from onnxlrp.inputs.rows import Row, collect_tables
from onnxlrp.inputs.truth import read_truth

LABELS = ["cat", "dog"]


def test_folders_are_called_after_classes(tmp_path: Path):
    for name in ("dog/1.png", "cat/2.png"):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True)
        Image.new("RGB", (2, 2)).save(path)
    items = collect([tmp_path / "set"], 3)
    assert read_truth("folders", items, [], LABELS, 2) == {"cat/2": 0, "dog/1": 1}
    with pytest.raises(InputError, match="--truth folders: no class is called 'cat'"):
        read_truth("folders", items, [], ["bird", "dog"], 2)


def test_a_column_of_a_table_of_features(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text("age,animal\n1,dog\n2,0\n3,\n")
    (table,) = collect_tables([str(path)])
    rows = [Row(table, number) for number in range(3)]
    # Of the third nothing is known.
    assert read_truth("animal", rows, [str(path)], LABELS, 2) == {"rows/1": 1, "rows/2": 0}
    with pytest.raises(InputError, match="--truth colour: give folders, the name of a column"):
        read_truth("colour", rows, [str(path)], LABELS, 2)


def test_a_column_beside_texts(tmp_path: Path):
    path = tmp_path / "texts.tsv"
    path.write_text("text\tclass\nit barks\tdog\n\tcat\nit purrs\tcat\n")
    with pytest.warns(UserWarning, match="1 blank texts were left out"):
        texts = collect_texts([str(path)], column="text")
    found = read_truth("class", texts, [str(path)], LABELS, 2)
    assert {one.text: found[one.name] for one in texts} == {"it barks": 1, "it purrs": 0}


def test_a_file_in_the_order_of_the_items(tmp_path: Path):
    np.save(tmp_path / "set.npy", np.zeros((2, 3, 4, 4), np.float32))
    np.save(tmp_path / "y.npy", np.array([1, 0]))
    items = collect([tmp_path / "set.npy"], 3)
    assert read_truth(str(tmp_path / "y.npy"), items, [], None, 2) == {"set/0": 1, "set/1": 0}
    (tmp_path / "y.csv").write_text("set/0,top-1\n")
    with pytest.raises(InputError, match="a class of each item is a number or a name"):
        read_truth(str(tmp_path / "y.csv"), items, [], None, 2)
