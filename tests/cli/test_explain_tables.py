"""`onnxlrp explain` of rows of tables."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import tabular
from PIL import Image
from support import node, normal

import onnxlrp

ROWS = np.array([[1.0, 2, 3, 4], [2, 1, 0, -1], [0.5, -1, 40, 2]])


@pytest.fixture
def explainer(tmp_path: Path) -> Path:
    path = tmp_path / "explainer.onnx"
    onnxlrp.convert(tabular.matrix(), "epsilon").save(path)
    return path


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """Of a model that reads age, pay and two more, in this order."""
    path = tmp_path / "several.onnx"
    onnxlrp.convert(tabular.several(), "epsilon").save(path)
    return path


def write(path: str, header: str, rows: np.ndarray = ROWS, delimiter: str = ",") -> None:
    lines = [header, *(delimiter.join(f"{cell:g}" for cell in row) for row in rows)]
    Path(path).write_text("\n".join(lines) + "\n")


def read(path: str = "out/relevance.csv") -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def numbers(rows: list[dict[str, str]], names: str) -> np.ndarray:
    return np.array([[float(row[name]) for name in names.split()] for row in rows])


def refused(result) -> str:
    """The one line that a refused call prints."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert re.fullmatch(r"Error: [^\n]+\n", result.stderr), result.stderr
    assert not Path("out").exists()
    return result.stderr


def test_every_row_gets_its_bars_and_a_line(run, explainer: Path):
    write("data.csv", "a,b,c,d")
    result = run("explain", explainer, "data.csv", "-o", "out")
    assert result.exit_code == 0, result.output
    assert sorted(str(p.relative_to("out")) for p in Path("out").rglob("*") if p.is_file()) == [
        *(f"data/{row}.sheet.png" for row in (1, 2, 3)),
        *("journal.jsonl", "relevance.csv", "results.csv", "results.json"),
    ]
    scores = tabular.scores(ROWS)
    target = scores.argmax(axis=1)
    wanted = tabular.relevance(ROWS, target)
    rows = read()
    assert list(rows[0]) == ["item", "target", "score", "share", "a", "b", "c", "d"]
    assert [row["item"] for row in rows] == ["data/1", "data/2", "data/3"]
    assert [int(row["target"]) for row in rows] == target.tolist()
    np.testing.assert_allclose(numbers(rows, "a b c d"), wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(numbers(rows, "score")[:, 0], scores.max(axis=1), rtol=1e-5)
    np.testing.assert_allclose(numbers(rows, "share")[:, 0], 1, rtol=1e-4)
    first, words = result.stdout.splitlines()[:2]
    assert first.startswith(f"data.csv:1: class {target[0]}, score ")
    order = np.argsort(-np.abs(wanted[0]))
    best = next(place for place in order if wanted[0, place] > 0)
    assert f"for: {'abcd'[best]} = {ROWS[0, best]:g} {wanted[0, best]:+.3g}" in words
    assert "Rows were read by 4 columns\n" in result.stderr
    with Image.open("out/data/1.sheet.png") as drawn:
        assert drawn.mode == "RGB"


def test_several_inputs_are_columns_in_any_order(run, several: Path):
    """Those of one column are found by their names, the others are what is left."""
    shuffled = ROWS[:, [0, 3, 1, 2]]
    write("data.csv", "u;pay;v;age;label", np.column_stack([shuffled, [7, 8, 9]]), ";")
    result = run("explain", several, "data.csv", "-o", "out", "--ignore", "label", "--target", 1)
    assert result.exit_code == 0, result.output
    assert "not read: label" in result.stderr
    wanted = tabular.relevance(ROWS, np.ones(3, int))
    found = read()
    assert list(found[0])[-4:] == ["u", "pay", "v", "age"]
    np.testing.assert_allclose(numbers(found, "u v age pay"), wanted, rtol=1e-4, atol=1e-4)


def test_names_of_features_are_stored_and_find_their_columns(run, tmp_path: Path):
    onnx.save(tabular.matrix(), "model.onnx")
    Path("names.txt").write_text("a\nb\nc\nd\n")
    result = run("convert", "model.onnx", "named.onnx", "--features", "names.txt")
    assert result.exit_code == 0, result.output
    assert onnxlrp.Explainer("named.onnx").contract.features == {"x": ["a", "b", "c", "d"]}
    assert "features     a, b, c, d\n" in run("inspect", "named.onnx").stdout
    write("data.csv", "id,d,c,b,a", np.column_stack([[1, 2, 3], ROWS[:, ::-1]]))
    options = ["-o", "out", "--target", 2, "--format", "csv"]
    result = run("explain", "named.onnx", "data.csv", *options)
    assert result.exit_code == 0, result.output
    wanted = tabular.relevance(ROWS, np.full(3, 2))
    np.testing.assert_allclose(numbers(read(), "a b c d"), wanted, rtol=1e-4, atol=1e-4)
    # Given at the run they are put in the place of those.
    Path("names.json").write_text('["p", "q", "r", "s"]')
    np.save("rows.npy", ROWS.astype(np.float32))
    write("other.csv", "s,r,q,p", ROWS[:, ::-1])
    run("explain", "named.onnx", "other.csv", *options, "--overwrite", "--features", "names.json")
    np.testing.assert_allclose(numbers(read(), "p q r s"), wanted, rtol=1e-4, atol=1e-4)
    run("explain", "named.onnx", "rows.npy", *options, "--overwrite")
    np.testing.assert_allclose(numbers(read(), "a b c d"), wanted, rtol=1e-4, atol=1e-4)


def test_labels_the_best_two_and_a_shared_scale(run, explainer: Path):
    write("data.csv", "a,b,c,d")
    Path("labels.txt").write_text("red\ngreen\nblue\n")
    options = ["--labels", "labels.txt", "--target", "top:2", "--format", "sheet,csv,npz,hdf5"]
    result = run(
        "explain", explainer, "data.csv", "-o", "out", *options, "--colour-scale", "shared"
    )
    assert result.exit_code == 0, result.output
    rows = read()
    assert [row["item"] for row in rows] == [f"data/{n}" for n in (1, 1, 2, 2, 3, 3)]
    best = np.argsort(-tabular.scores(ROWS), axis=1)[:, :2].reshape(-1)
    assert [int(row["target"]) for row in rows] == best.tolist()
    assert [row["label"] for row in rows] == [["red", "green", "blue"][one] for one in best]
    wanted = tabular.relevance(np.repeat(ROWS, 2, axis=0), best)
    np.testing.assert_allclose(numbers(rows, "a b c d"), wanted, rtol=1e-4, atol=1e-3)
    with np.load(f"out/data/2.top1-{best[2]}.relevance.npz") as arrays:
        np.testing.assert_allclose(arrays["relevance"], wanted[2], rtol=1e-4, atol=1e-4)
    assert Path("out/attribution.h5").is_file()
    full = {row["full"] for row in json.loads(Path("out/results.json").read_text())}
    assert max(full) == pytest.approx(np.abs(wanted).max(), rel=1e-4)


def test_it_goes_on_where_it_stopped_and_explains_what_has_changed(run, explainer: Path):
    write("data.csv", "a,b,c,d")
    run("explain", explainer, "data.csv", "-o", "out")
    before = {path: path.stat().st_mtime_ns for path in Path("out/data").iterdir()}
    changed = ROWS.copy()
    changed[1, 2] = 5
    write("data.csv", "a,b,c,d", changed)
    result = run("explain", explainer, "data.csv", "-o", "out")
    assert "2 of 3 items were done before" in result.stderr
    touched = [path.name for path, then in before.items() if path.stat().st_mtime_ns != then]
    assert touched == ["2.sheet.png"]
    wanted = tabular.relevance(changed, tabular.scores(changed).argmax(axis=1))
    found = sorted(read(), key=lambda row: row["item"])
    np.testing.assert_allclose(numbers(found, "a b c d"), wanted, rtol=1e-4, atol=1e-4)
    write("data.csv", "a,b,c,e", changed)
    line = run("explain", explainer, "data.csv", "-o", "out").stderr
    assert "holds results made with other settings (features)" in line


def test_many_rows_are_not_drawn_unless_asked_for(run, explainer: Path):
    write("data.csv", "a,b,c,d", np.tile(ROWS, (40, 1)))
    result = run("explain", explainer, "data.csv", "-o", "out", "--batch", 50)
    assert result.exit_code == 0, result.output
    assert "no bars of so many rows, or of rows to come: --format sheet,csv draws" in result.stderr
    assert not list(Path("out").rglob("*.png"))
    rows = read()
    assert rows[0]["item"] == "data/001"
    assert len(rows) == 120


def test_one_row_that_fails_fails_no_other(run, explainer: Path):
    Path("data.csv").write_text("a,b,c,d\n1,2,3,4\n1,two,3,4\n1,,3,4\n1,2\n2,1,0,-1\n")
    result = run("explain", explainer, "data.csv", "-o", "out")
    assert result.exit_code == 1
    assert "Error: data.csv:2, column 'b': 'two' is no finite number: write it as" in result.stderr
    assert "Error: data.csv:3, column 'b': the value is missing, and the model" in result.stderr
    assert "Error: data.csv:4 has 2 cells, and the first line 4\n" in result.stderr
    assert [row["item"] for row in read()] == ["data/1", "data/5"]
    failed = json.loads(Path("out/failed.json").read_text())
    assert [one["source"] for one in failed] == ["data.csv:2", "data.csv:3", "data.csv:4"]


def test_missing_values_pass_where_the_model_fills_them_in(run):
    filled = [
        onnx.helper.make_node("IsNaN", ["x"], ["gone"]),
        onnx.helper.make_node("Where", ["gone", "put", "x"], ["f"]),
    ]
    body = tabular.matrix()
    body.graph.node[0].input[0] = "f"
    for place, one in enumerate(filled):
        body.graph.node.insert(place, one)
    put = np.array([5, 6, 7, 8], np.float32)
    body.graph.initializer.append(onnx.numpy_helper.from_array(put, "put"))
    onnxlrp.convert(body, "epsilon").save(Path("explainer.onnx"))
    Path("data.csv").write_text("a,b,c,d\n1,NA,3,\n")
    result = run("explain", "explainer.onnx", "data.csv", "-o", "out", "--target", 0)
    assert result.exit_code == 0, result.output
    wanted = tabular.relevance(np.array([[1.0, 6, 3, 8]]), np.zeros(1, int))
    np.testing.assert_allclose(numbers(read(), "a b c d"), wanted * [1, 0, 1, 0], rtol=1e-4)


def test_texts_go_to_the_model_and_get_no_relevance(run):
    """What is made of them counts as given: of a linear model, w x of the numbers is left."""
    weights = normal(3, 2)
    body = [
        onnx.helper.make_node(
            "LabelEncoder",
            ["sex"],
            ["code"],
            domain="ai.onnx.ml",
            keys_strings=["male", "female"],
            values_floats=[1.0, 2.0],
        ),
        node("Concat", ["rest", "code"], "x", axis=1),
        node("Gemm", ["x", "w"], "logits"),
    ]
    tensors = (("sex", 8, 1), ("rest", 1, 2), ("logits", 1, 2))
    sex, rest, logits = (
        onnx.helper.make_tensor_value_info(name, kind, ["N", size]) for name, kind, size in tensors
    )
    weight = onnx.numpy_helper.from_array(weights, "w")
    graph = onnx.helper.make_graph(body, "g", [sex, rest], [logits], [weight])
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("ai.onnx.ml", 2)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10), "model.onnx")
    onnxlrp.convert("model.onnx", "epsilon").save(Path("explainer.onnx"))
    Path("data.csv").write_text("a,sex,b\n3,female,0.5\n-1,male,2\n")
    result = run("explain", "explainer.onnx", "data.csv", "-o", "out", "--target", 1)
    assert result.exit_code == 0, result.output
    assert "without relevance: sex" in result.stderr
    found = read()
    np.testing.assert_allclose(
        numbers(found, "a b"), np.array([[3, 0.5], [-1, 2]]) * weights[:2, 1], rtol=1e-4
    )
    scores = np.array([[3, 0.5, 2], [-1, 2, 1]]) @ weights[:, 1]
    np.testing.assert_allclose(numbers(found, "score")[:, 0], scores, rtol=1e-5)


@pytest.mark.parametrize(
    ("content", "flags", "said"),
    [
        (b"", [], "data.csv is empty"),
        (b"a,b,c,d\n", [], "data.csv holds a line of names, and no rows below it"),
        (b"a,b,c\n1,2,3\n", [], "data.csv has 3 columns (a, b, c) where the model reads 4: say"),
        (b"a,a,c,d\n1,2,3,4\n", [], "has several columns 'a'"),
        (b"a,b,c,\xe9\n1,2,3,4\n", [], "data.csv is no text: save it as UTF-8"),
        (b"a,b,c,d\n1,2,3,4\n", ["--crop", 8], "--crop is for pictures; the model reads x float32"),
        (b"a,b,c,d\n1,2,3,4\n", ["--text", "a"], "--text is for texts"),
        (b"a,b,c,d\n1,2,3,4\n", ["--format", "overlay"], "there is only --format sheet"),
        (b"a,b,c,d\n1,2,3,4\n", ["--format", "html"], "--format html is one of texts"),
        (b"a,b,c,d\n1,2,3,4\n", ["--features", "data.csv"], "2 names of features are given"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(run, explainer: Path, content: bytes, flags, said):
    Path("data.csv").write_bytes(content)
    assert said in refused(run("explain", explainer, "data.csv", "-o", "out", *flags))


def test_a_table_that_is_not_there_and_one_for_pictures(run, explainer: Path, several: Path, model):
    assert "none.csv: No such file" in refused(run("explain", explainer, "none.csv", "-o", "out"))
    write("data.csv", "a,b,c,d")
    np.save("rows.npy", ROWS.astype(np.float32))
    line = refused(run("explain", several, "rows.npy", "-o", "out"))
    assert "give them as columns of a table (.csv)" in line
    line = refused(run("explain", explainer, "data.csv", "rows.npy", "-o", "out"))
    assert "tables and arrays are explained apart: leave rows.npy out" in line
    onnxlrp.convert(model).save(Path("pictures.onnx"))
    line = refused(run("explain", "pictures.onnx", "data.csv", "--ignore", "a", "-o", "out"))
    assert "--ignore is for tables, .csv or .tsv; the model reads image" in line


def test_whole_numbers_are_features_where_no_tokenizer_is(run):
    body = tabular.matrix()
    body.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    body.graph.node.insert(0, onnx.helper.make_node("Cast", ["x"], ["f"], to=1))
    body.graph.node[1].input[0] = "f"
    onnx.save(body, "model.onnx")
    onnxlrp.convert("model.onnx", "epsilon", inputs=["x"]).save(Path("explainer.onnx"))
    whole = ROWS[:2]
    write("data.csv", "a,b,c,d", whole)
    result = run("explain", "explainer.onnx", "data.csv", "-o", "out", "--target", 0)
    assert result.exit_code == 0, result.output
    wanted = tabular.relevance(whole, np.zeros(2, int))
    np.testing.assert_allclose(numbers(read(), "a b c d"), wanted, rtol=1e-4, atol=1e-4)


def test_the_mean_row_of_a_table_is_a_reference(run):
    """Of several inputs, too; whole numbers are rounded."""
    onnx.save(tabular.several(), "model.onnx")
    write("data.csv", "u,v,age,pay")
    result = run("convert", "model.onnx", "explainer.onnx", "--reference", "data.csv")
    assert result.exit_code == 0, result.output
    result = run("explain", "explainer.onnx", "data.csv", "-o", "out", "--target", 0)
    assert result.exit_code == 0, result.output
    mean = ROWS.mean(axis=0)
    mean[2] = np.rint(mean[2])
    wanted = tabular.scores(ROWS)[:, 0] - tabular.scores(mean[None])[:, 0]
    found = numbers(read(), "u v age pay")
    np.testing.assert_allclose(found.sum(axis=1), wanted, rtol=1e-4, atol=1e-4)
    result = run("convert", "model.onnx", "zero.onnx", "--reference", "zero")
    assert result.exit_code == 0, result.output
    write("few.csv", "u,v,age", ROWS[:, :3])
    line = run("convert", "model.onnx", "none.onnx", "--reference", "few.csv").stderr
    assert "few.csv has no column 'pay', which the model reads: they are u, v, age" in line


def test_a_folder_is_one_of_tables_or_of_arrays(run, explainer: Path):
    for name in ("tables", "arrays"):
        Path(name).mkdir()
    write("tables/one.csv", "a,b,c,d", ROWS[:1])
    write("tables/two.csv", "d,c,b,a", ROWS[1:, ::-1])
    np.save("arrays/rows.npy", ROWS.astype(np.float32))
    options = ["--target", 0, "--format", "csv"]
    assert run("explain", explainer, "tables", "-o", "tables/out", *options).exit_code == 0
    # What it left there is no table to explain.
    assert run("explain", explainer, "tables", "-o", "tables/out", *options).exit_code == 0
    assert run("explain", explainer, "arrays", "-o", "out", *options).exit_code == 0
    wanted = tabular.relevance(ROWS, np.zeros(3, int))
    of_tables, of_arrays = read("tables/out/relevance.csv"), read()
    assert [row["item"] for row in of_tables] == ["one", "two/1", "two/2"]
    np.testing.assert_allclose(numbers(of_tables, "a b c d"), wanted, rtol=1e-4, atol=1e-4)
    names = [f"feature {number}" for number in range(4)]
    found = np.array([[float(row[name]) for name in names] for row in of_arrays])
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
