"""Every command and every block of the documentation, run as a reader would; how, says `pages`.

Tutorials start in an empty folder, for they say every step; on other pages the reader has a model
and data of their own, which `belongings` stands for. README's sections are read one by one.
"""

from __future__ import annotations

import runpy
from itertools import groupby
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import pytest
from onnx import helper
from pages import KINDS, PAGES, ROOT, Block, Reader, blocks
from PIL import Image
from support import model, node, normal

import onnxlrp
from onnxlrp.inputs.presets import PRESETS

TUTORIALS = [page for page in PAGES if "/tutorials/" in page]
NEEDED = {"docs/scale.md": ("pyarrow",)}
"""Libraries of extras that pages speak of."""
OTHERS = [page for page in PAGES if page not in TUTORIALS and blocks(page)]
CLASSES = ["airplane", "bird", "car", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def network(*end: onnx.NodeProto) -> onnx.ModelProto:
    """Build a classifier of pictures of any size."""
    body = [
        node("Conv", ["image", "w"], "c", strides=[4, 4]),
        node("Relu", ["c"], "r"),
        node("Conv", ["r", "v"], "places"),
        *end,
    ]
    weights = {"w": normal(6, 3, 4, 4, scale=0.1), "v": normal(10, 6, 1, 1, seed=1)}
    return model(body, {"image": ["N", 3, "H", "W"]}, [body[-1].output[0]], weights)


def forest() -> onnx.ModelProto:
    """Build a tree: above 0.5 the second class, else the first."""
    tree = helper.make_node(
        "TreeEnsembleClassifier",
        ["x"],
        ["label", "scores"],
        domain="ai.onnx.ml",
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[0, 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_values=[0.5, 0.0, 0.0],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        class_treeids=[0, 0, 0, 0],
        class_nodeids=[1, 1, 2, 2],
        class_ids=[0, 1, 0, 1],
        class_weights=[0.9, 0.1, 0.2, 0.8],
        classlabels_int64s=[0, 1],
    )
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [tree],
        "forest",
        [value("x", onnx.TensorProto.FLOAT, ["N", 2])],
        [
            value("label", onnx.TensorProto.INT64, ["N"]),
            value("scores", onnx.TensorProto.FLOAT, ["N", 2]),
        ],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def belongings() -> dict[str, Any]:
    """Lay out what a reader has: models, pictures, texts, tables, maps of another library."""
    ends = [node("GlobalAveragePool", ["places"], "g"), node("Flatten", ["g"], "logits")]
    onnx.save(network(*ends), "model.onnx")
    onnx.save(network(), "segmenter.onnx")
    onnx.save(forest(), "forest.onnx")
    loans = model([node("MatMul", ["x", "w"], "y")], {"x": ["N", 3]}, ["y"], {"w": normal(3, 2)})
    onnx.save(loans, "loans.onnx")
    for name in ("a.onnx", "b.onnx", "other.onnx", "explainer.onnx"):
        onnxlrp.convert("model.onnx").save(name)
    Path("models").symlink_to(ROOT / "models")

    pictures = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    np.savez("set.npz", pictures)
    large = [Image.fromarray(picture).resize((260, 240)) for picture in pictures[:2]]
    large[0].save("photo.jpg")
    for folder in ("folder", "photos"):
        Path(folder).mkdir()
        for number, picture in enumerate(large):
            picture.save(f"{folder}/{number}.png")
    theirs = onnxlrp.Explainer("a.onnx")(PRESETS["cifar10"].values(pictures)).relevance
    np.save("zennit.npy", theirs)
    with h5py.File("zennit.h5", "w") as file:
        file["attribution"] = theirs

    np.save("mean.npy", np.float32([0.4, 0.6]))
    Path("names.txt").write_text("\n".join(CLASSES) + "\n")
    Path("opinions.txt").write_text("negative\npositive\n")
    Path("features.txt").write_text("income\ndebt\nyears\n")
    for name in ("training.csv", "data.csv"):
        Path(name).write_text("years,debt,income\n1,2,3\n4,5,7\n")
    Path("reviews.txt").write_text("A dull film.\nFunny and smart.\n")
    for name, column in (("table.csv", "review"), ("reviews.tsv", "text")):
        Path(name).write_text(f"{column}\nA dull film.\nFunny and smart.\n")
    return {"images": normal(2, 3, 32, 32)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_of_a_kind_that_is_run_or_checked(page: str):
    """Commands that are not fenced, which nothing would run, are an error of `blocks`."""
    for block in blocks(page):
        assert block.kind in KINDS, f"{block.place}: a block of {block.kind or 'nothing'}"


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS)
def test_tutorials_need_nothing_but_what_they_say(page: str, folder: Path):
    pytest.importorskip("tokenizers")
    reader = Reader()
    for block in blocks(page):
        reader.follow(block)


def sections() -> list[Any]:
    """Return the pages, README in its sections."""
    found = []
    for page in OTHERS:
        parts = groupby(
            blocks(page), lambda block: block.section if block.page == "README.md" else ""
        )
        found += [pytest.param(list(part), id=f"{page} {name}".strip()) for name, part in parts]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("part", sections())
def test_pages_say_what_happens(part: list[Block], folder: Path):
    for module in ("tokenizers", *NEEDED.get(part[0].page, ())):
        pytest.importorskip(module)
    reader = Reader(**belongings())
    for block in part:
        reader.follow(block)


@pytest.mark.parametrize(
    ("shown", "printed", "alike"),
    [
        ("score 5.945 (95.4%)", "score 5.951 (95.5%)", True),
        ("score 5.945", "score 6.2", False),
        ("score 5.945", "score -5.945", False),
        ("cat +1.0, ...", "cat +1.01, dog -2", True),
        ("cat +1.0, ...", "dog +1.0, cat", False),
        ("a\nb", "a\nx\nb", True),
        ("b\na", "a\nb", False),
    ],
)
def test_what_a_page_shows_is_held_against_what_is_printed(shown, printed, alike, monkeypatch):
    reader = Reader()
    reader.printed = printed
    block = Block("page", 1, "text", "", shown)
    if alike:
        reader.follow(block)
    else:
        with pytest.raises(AssertionError, match="is not printed"):
            reader.follow(block)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("bash", "onnxlrp explode model.onnx"),
        ("bash", "onnxlrp explain explainer.onnx --colour red"),
        ("bash", "onnxlrp convert model.onnx explainer.onnx --layout CHW"),
        ("bash", "onnxlrp demo | ("),
        ("python", "x = "),
        ("toml", "a = "),
    ],
)
def test_what_is_not_run_is_spelt_right(kind, text, folder):
    block = Block("page", 1, kind, "", text, excuse="it takes hours")
    with pytest.raises((AssertionError, SyntaxError, ValueError, pytest.fail.Exception)):
        Reader().follow(block)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["judging", "picture", "text"])
def test_notebooks_show_what_they_are_kept_with(name: str):
    """If this fails, run `python docs/make_notebooks.py` and look at what changed."""
    for module in ("nbclient", "nbformat", "ipykernel", "tokenizers"):
        pytest.importorskip(module)
    import nbformat

    script = runpy.run_path(str(ROOT / "docs" / "make_notebooks.py"))
    path = ROOT / "docs" / "notebooks" / f"{name}.ipynb"
    kept, found = nbformat.read(path, as_version=4), script["clean"](script["execute"](path))
    assert [cell.source for cell in kept.cells] == [cell.source for cell in found.cells]
    for place, (old, new) in enumerate(zip(kept.cells, found.cells, strict=True)):
        shown, printed = (
            "".join(output.get("text", "") for output in cell.get("outputs", []))
            for cell in (old, new)
        )
        reader = Reader()
        reader.printed = printed
        reader.follow(Block(path.name, place, "text", "", shown))
        pictures = [
            [output.output_type for output in cell.get("outputs", []) if "data" in output]
            for cell in (old, new)
        ]
        assert pictures[0] == pictures[1]
