"""`onnxlrp evaluate` of tokens, tables and signals."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import tabular
from support import model, node, normal
from texts import ALL, VOCABULARY, classifier, write_tokenizer

import onnxlrp

WORDS, COUNT = len(VOCABULARY), 6
ids = np.zeros((COUNT, 9), np.int64)
for number, row in enumerate(ids):
    length = 3 + number % 3
    row[: length + 2] = [2, *np.random.default_rng(number).integers(5, WORDS, length), 3]

TOKENIZER = {
    "added_tokens": [
        {"id": place, "content": text, "special": True}
        for place, text in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    ],
    "padding": None,
    "model": {
        "type": "WordLevel",
        "unk_token": "[UNK]",
        "vocab": {f"w{number}": number for number in range(5, WORDS)},
    },
}


def network_of(path: str, *beside: str) -> Path:
    """Write a classifier of tokens that also reads the inputs beside them."""
    onnx.save(classifier(("input_ids", *beside)), path)
    return Path(path)


def results(folder: str) -> dict[tuple[str, str], float]:
    found = json.loads(Path(folder, "results.json").read_text())["results"]
    return {(row["measure"], row["method"]): row["mean"] for row in found if not row["minus"]}


def test_tokens_of_an_array_with_the_tokenizer_beside_the_model(run):
    network = network_of("model.onnx", "attention_mask")
    np.save("ids.npy", ids)
    Path("model.tokenizer.json").write_text(json.dumps(TOKENIZER))
    arguments = ["evaluate", network, "--data", "ids.npy", "--composite", "epsilon", "-o"]
    result = run(*arguments, "out", "--at", "50%", "--randomise", 2)
    assert result.exit_code == 0, result.output
    assert "Sentences: 6; tokens become: mask." in result.stdout
    assert "fewer than 20 sentences are rough" in result.stderr
    found = results("out")
    low, high = found["AUC descending", "epsilon"], found["AUC ascending", "epsilon"]
    assert low < found["AUC descending", "random order"] < high
    assert ("AUC descending at 50%", "epsilon") in found
    assert found["share of score", "epsilon"] == pytest.approx(1, abs=1e-4)
    rows = [json.loads(line) for line in Path("out/journal.jsonl").read_text().splitlines()]
    assert rows[0]["settings"]["token"] == 4
    assert [row["item"] for row in rows[1:]] == [f"ids/{number}" for number in range(COUNT)]
    assert [row["flips"] for row in rows[1:]] == [3, 4, 5, 3, 4, 5]
    # By the numbers alone it is the same.
    Path("model.tokenizer.json").unlink()
    by_number = ["--pad", 0, "--special", 2, "--special", 3, "--replace", 4]
    assert run(*arguments, "again", *by_number).exit_code == 0
    again = results("again")
    assert again == {key: value for key, value in found.items() if "50%" not in key[0]}


def test_inputs_that_go_with_tokens_are_given_or_told_by_name(run):
    beside = ("attention_mask", "extra")
    network = network_of("model.onnx", *beside)
    there = (ids != 0).astype(np.int64)
    np.savez("set.npz", input_ids=ids, attention_mask=there, extra=there, label=np.ones(COUNT))
    flags = ["--composite", "epsilon", "--replace", "remove", "--special", 2, "--special", 3]
    result = run("evaluate", network, "--data", "set.npz", *flags, "-o", "out")
    assert result.exit_code == 0, result.output
    plain = network_of("plain.onnx", "attention_mask")
    np.savez("less.npz", input_ids=ids)
    result = run("evaluate", plain, "--data", "less.npz", *flags, "--pad", 0, "-o", "less")
    assert result.exit_code == 0, result.output
    assert results("less") == pytest.approx(results("out"), abs=1e-5)


def test_maps_of_tokens_are_resumed_or_refused(run):
    network = network_of("model.onnx", "attention_mask")
    np.save("ids.npy", ids)
    np.save("theirs.npy", normal(*ids.shape))
    flags = ["--maps", "theirs=theirs.npy", "--pad", 0, "--replace", "remove"]
    arguments = ["evaluate", network, "--data", "ids.npy", *flags, "-o", "out"]
    assert run(*arguments, "--images", 2).exit_code == 0
    few = Path("out/journal.jsonl").read_text()
    assert run(*arguments).exit_code == 0
    assert Path("out/journal.jsonl").read_text().startswith(few)
    np.save("theirs.npy", normal(*ids.shape, seed=1))
    assert "results of another ids/" in run(*arguments).stderr
    changed = run(*arguments, "--pad", 1)
    assert "made with other settings (pad)" in changed.stderr
    np.save("theirs.npy", normal(COUNT, 4))
    assert "ids/0: theirs is [4] for 9 tokens" in run(*arguments, "--overwrite").stderr


def test_what_is_wrong_with_tokens_is_said_in_one_line(run):
    network = network_of("model.onnx", "attention_mask")
    np.save("ids.npy", ids)
    np.save("floats.npy", ids.astype(np.float32))
    np.savez("typed.npz", input_ids=ids, attention_masks=ids)
    np.savez("none.npz", tokens=ids)
    np.savez("short.npz", input_ids=ids, attention_mask=ids[:, :4])
    Path("broken.npz").write_bytes(b"PK nothing")
    Path("words.json").write_text("[1, 2]")
    extra = network_of("extra.onnx", "attention_mask", "extra")
    here = {"network": network, "data": "ids.npy", "flags": ["--pad", 0, "--replace", "remove"]}
    for change, text in (
        ({"flags": []}, "which token is 'mask'? Give its number, or --tokenizer"),
        ({"flags": ["--replace", "remove"]}, "reads 'attention_mask': give it in an .npz, or say"),
        ({"flags": ["--replace", "blur", "--pad", 0]}, "which token is 'blur'?"),
        ({"flags": [*here["flags"], "--region", 2]}, "tokens are flipped one by one"),
        ({"flags": [*here["flags"], "--flips", 7]}, "ids/0: 7 flips where 5 make 4: give fewer"),
        ({"flags": [*here["flags"], "--tokenizer", "words.json"]}, "is not a tokenizer.json"),
        ({"flags": [*here["flags"], "--tokenizer", "no.json"]}, "no.json: No such file"),
        ({"data": "floats.npy"}, "floats.npy: ids are whole numbers [N, T], not float32 [6, 9]"),
        ({"data": "typed.npz"}, "typed.npz: the model has no input 'attention_masks'"),
        ({"data": "none.npz"}, "none.npz holds tokens: no 'input_ids'"),
        ({"data": "short.npz"}, "'attention_mask' is [6, 4], the ids are [6, 9]"),
        ({"data": "broken.npz"}, "broken.npz is not a readable .npz of numbers"),
        ({"network": extra}, "the model also reads 'extra': give it under that name in an .npz"),
    ):
        given = here | change
        line = ["evaluate", given["network"], "--data", given["data"], *given["flags"]]
        result = run(*line, "--composite", "epsilon", "-o", "out")
        assert result.exit_code == 1, (text, result.output)
        assert text in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert not Path("out").exists()


def test_what_is_wrong_with_texts_is_said_in_one_line(run):
    network = network_of("model.onnx", *ALL[1:])
    write_tokenizer(Path("tokenizer.json"))
    np.save("ids.npy", ids)
    Path("texts.csv").write_text("label,said\n0,a dull film\n")
    Path("odd.csv").write_text("said\na dull film\n\x01\n")
    line = ["evaluate", network, "--composite", "epsilon", "-o", "out", "--replace", "remove"]
    for flags, text in (
        (["texts.csv"], "texts.csv: say which column holds the text"),
        (["texts.csv", "--column", "text"], "texts.csv has not one column 'text'"),
        (["texts.csv", "--column", "said", "--data", "ids.npy"], "or arrays of tokens, not both"),
        (["none.txt"], "none.txt"),
        (["odd.csv"], "odd/2: there is no token to replace, only special ones"),
    ):
        result = run(*line, "--data", *flags)
        assert result.exit_code == 1, (text, result.output)
        assert text in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert not Path("out").exists()


def linear(path: str, *shape: int) -> Path:
    body = [node("Flatten", ["x"], "f"), node("Gemm", ["f", "w"], "logits")]
    weights = {"w": normal(int(np.prod(shape)), 2)}
    onnx.save(model(body, {"x": ["N", *shape]}, ["logits"], weights), path)
    return Path(path)


def test_a_table(run):
    network = linear("model.onnx", 5)
    rows = normal(COUNT, 5) + 1
    np.save("rows.npy", rows)
    arguments = ["evaluate", network, "--data", "rows.npy", "--composite", "epsilon"]
    assert "Rows: 6; features become: mean." in run(*arguments, "-o", "out").stdout
    weights = normal(5, 2)
    expected = []
    explainer = onnxlrp.Explainer(
        onnxlrp.convert(network, "epsilon").to_proto().SerializeToString()
    )
    for row in rows:
        target = (row @ weights).argmax()
        relevance = explainer(row[None], int(target)).relevance[0]
        falls = ((row - rows.mean(axis=0)) * weights[:, target])[np.argsort(-relevance)]
        expected.append(np.mean((row @ weights)[target] - np.array([0, *np.cumsum(falls)])))
    found = results("out")["AUC descending", "epsilon"]
    assert found == pytest.approx(np.mean(expected), abs=1e-4)
    assert run(*arguments, "-o", "column", "--replace", "column").exit_code == 0
    # What replaces a feature is from the table, which is another one then.
    np.save("rows.npy", rows[::-1] * 2)
    assert "made with other settings (table)" in run(*arguments, "-o", "out").stderr
    assert "no neighbours: leave out --region" in run(*arguments, "-o", "o", "--region", 2).stderr
    assert "or a number, not blur" in run(*arguments, "-o", "o", "--replace", "blur").stderr
    np.save("rows.npy", np.where(np.eye(COUNT, 5) > 0, np.nan, rows))
    assert "rows.npy:0 holds NaN or infinity" in run(*arguments, "-o", "o").stderr
    np.save("rows.npy", normal(COUNT, 4))
    assert "the model reads [5] as 'x', not [4]" in run(*arguments, "-o", "o").stderr


def test_a_table_of_a_file_is_judged_as_its_array(run):
    network = linear("model.onnx", 5)
    rows = (normal(COUNT, 5) + 1).round(3)
    np.save("rows.npy", rows)
    lines = [f"{','.join(map(str, row))},yes" for row in rows]
    Path("rows.csv").write_text("\n".join(["a,b,c,d,e,label", *lines]))
    flags = ["--composite", "epsilon", "--replace", "column"]
    assert run("evaluate", network, "--data", "rows.npy", *flags, "-o", "array").exit_code == 0
    line = ["evaluate", network, "--data", "rows.csv", *flags, "-o"]
    result = run(*line, "table", "--ignore", "label")
    assert result.exit_code == 0, result.output
    assert results("table") == pytest.approx(results("array"), abs=1e-4)
    assert "has 6 columns (a, b, c, d, e, label) where the model reads 5" in run(*line, "o").stderr
    Path("names.txt").write_text("b\na\nc\nd\ne\n")
    result = run(*line, "named", "--features", "names.txt")
    assert (
        results("named")["AUC descending", "epsilon"]
        != results("table")["AUC descending", "epsilon"]
    )
    Path("rows.csv").write_text("a,b,c,d,e\n1,2,3,4,\n")
    result = run(*line, "o")
    assert "rows.csv, column 'e': the value is missing" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_columns_of_several_inputs(run):
    """As the same network of one matrix, of which they are joined."""
    onnx.save(tabular.several(), "several.onnx")
    onnx.save(tabular.matrix(), "matrix.onnx")
    whole = normal(COUNT, 4).round(3) + np.array([0, 0, 40, 10])
    whole[:, 2] = whole[:, 2].round()
    lines = ["pay,u,v,age", *(f"{row[3]},{row[0]},{row[1]},{row[2]:.0f}" for row in whole)]
    Path("rows.csv").write_text("\n".join(lines))
    Path("names.txt").write_text("u\nv\nage\npay\n")
    flags = [
        "--data",
        "rows.csv",
        "--composite",
        "epsilon",
        "--randomise",
        2,
        "--replace",
        "0",
        "-o",
    ]
    result = run("evaluate", "several.onnx", *flags, "several")
    assert result.exit_code == 0, result.output
    result = run("evaluate", "matrix.onnx", *flags, "matrix", "--features", "names.txt")
    assert result.exit_code == 0, result.output
    found, wanted = results("several"), results("matrix")
    for measure in ("AUC descending", "AUC ascending", "share of score", "sparseness"):
        assert found[measure, "epsilon"] == pytest.approx(wanted[measure, "epsilon"], rel=1e-4)
    wrong = run("evaluate", "several.onnx", *flags, "o", "--input", "pay")
    assert "judged together, and u, v, age would get no relevance" in wrong.stderr


def test_signals_with_channels_and_without(run):
    np.save("two.npy", normal(COUNT, 2, 12))
    network = linear("two.onnx", 2, 12)
    flags = ["--composite", "epsilon", "--region", 3, "-o"]
    result = run("evaluate", network, "--data", "two.npy", "--replace", "linear", *flags, "out")
    assert "Signals: 6; moments become: linear." in result.stdout
    assert json.loads(Path("out/journal.jsonl").read_text().splitlines()[1])["flips"] == 4
    np.save("one.npy", normal(COUNT, 300))
    network = linear("one.onnx", 300)
    np.save("map.npy", normal(COUNT, 300))
    line = ["evaluate", network, "--data", "one.npy", "--as", "signals", "--maps", "m=map.npy"]
    assert run(*line, "-o", "long").exit_code == 0
    # At most a hundred windows.
    assert json.loads(Path("long/journal.jsonl").read_text().splitlines()[1])["flips"] == 100
    assert "a signal of this model has 1 axes" in run(*line, "-o", "o", "--axis", 1).stderr
    assert "replaced by mean, zero, linear" in run(*line, "-o", "o", "--replace", "mask").stderr
    wrong = run(
        "evaluate", "two.onnx", "--data", "two.npy", "--as", "tables", *flags[:2], "-o", "o"
    )
    assert "float32 [N, 2, 12]: a table is [N, F]" in wrong.stderr
