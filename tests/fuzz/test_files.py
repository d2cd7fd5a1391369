"""Composites, settings, labels, pictures, arrays and journals with something wrong in them."""

import io
import json
from importlib import resources

import numpy as np
import pytest
from fuzz.mutations import mutated_bytes
from fuzz.properties import bounded
from fuzz.words import mutated_json, mutated_text
from PIL import Image

from onnxlrp.compiler.composite import Composite, available
from onnxlrp.errors import OnnxlrpError
from onnxlrp.inputs.items import load_array, load_picture
from onnxlrp.inputs.preprocessing import Preprocessing
from onnxlrp.inputs.presets import PRESETS, load_preprocessing
from onnxlrp.inputs.targets import load_labels, read_targets
from onnxlrp.running.journal import Journal

COMPOSITES = [
    (resources.files("onnxlrp.composites") / f"{composite.name}.toml").read_text("utf-8")
    for composite in available()
]


def reads_or_says_why(read, *arguments):
    """Return what was read, or None where one line said why not."""
    with bounded():
        try:
            return read(*arguments)
        except (OnnxlrpError, OSError):
            return None


def picture(kind):
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def array(save, **arrays):
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


FILES = {
    "a.png": (picture("PNG"), load_picture),
    "a.jpg": (picture("JPEG"), load_picture),
    "a.tiff": (picture("TIFF"), load_picture),
    "a.npy": (array(np.save, arr=np.ones((2, 3), np.float32)), load_array),
    "a.npz": (array(np.savez, x=np.ones((2, 3), np.float32)), load_array),
    "labels.json": (b'["tench", ["n01", "goldfish"]]', load_labels),
    "labels.txt": ("tench\ngoldfish\nGröße\n".encode(), load_labels),
    "classes.csv": (b"item,class\na,1\nb,2\n", lambda p: read_targets(str(p), "ab", None, 9)),
}


@pytest.mark.parametrize("name", FILES)
def test_files(name, tmp_path):
    content, read = FILES[name]
    path = tmp_path / name
    for seed in range(60):
        path.write_bytes(mutated_bytes(content, np.random.default_rng(seed)))
        reads_or_says_why(read, path)
    path.write_bytes(content)
    assert reads_or_says_why(read, path) is not None


@pytest.mark.parametrize("start", range(0, 200, 50))
def test_composites(start, tmp_path):
    path = tmp_path / "my.toml"
    read = []
    for seed in range(start, start + 50):
        path.write_text(mutated_text(COMPOSITES[seed % len(COMPOSITES)], seed), "utf-8")
        read.append(reads_or_says_why(Composite.load, path))
    for composite in filter(None, read):
        copy = tmp_path / "copy.toml"
        copy.write_text(composite.to_toml(), "utf-8")
        assert Composite.load(copy).parameters == composite.parameters
    assert None in read


def test_settings(tmp_path):
    path = tmp_path / "my.json"
    for seed in range(100):
        path.write_text(mutated_json(json.loads(PRESETS["imagenet"].to_json()), seed), "utf-8")
        found = reads_or_says_why(load_preprocessing, str(path))
        assert found is None or isinstance(found, Preprocessing)


def test_journals(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, {"a": 1}, ("item",)) as journal:
        for number in range(5):
            journal.append({"item": str(number), "rows": [1.5, None]})
    content = path.read_bytes()

    def read():
        with Journal(path, {"a": 1}, ("item",)) as found:
            return len(found.records)

    for seed in range(100):
        path.write_bytes(mutated_bytes(content, np.random.default_rng(seed)))
        assert reads_or_says_why(read) in (None, *range(8))
