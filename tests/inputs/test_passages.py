import io
from pathlib import Path

import pytest

from onnxlrp.errors import InputError
from onnxlrp.inputs.passages import collect_texts


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)


def listed(*arguments, **options):
    return [(one.name, one.source, one.text) for one in collect_texts(*arguments, **options)]


def test_a_text_a_line_numbered_as_editors_do():
    Path("reviews.txt").write_bytes("good\r\nbad \u2028 sign\n漢字".encode())
    assert listed(["reviews.txt"]) == [
        ("reviews/1", "reviews.txt:1", "good"),
        ("reviews/2", "reviews.txt:2", "bad \u2028 sign"),
        ("reviews/3", "reviews.txt:3", "漢字"),
    ]


def test_blank_lines_are_left_out_and_counted():
    Path("reviews.txt").write_text("good\n\n \t\nbad\n")
    with pytest.warns(UserWarning, match="2 blank texts were left out"):
        found = listed(["reviews.txt"])
    assert [source for _, source, _ in found] == ["reviews.txt:1", "reviews.txt:4"]


@pytest.mark.parametrize(("name", "separator"), [("r.csv", ","), ("r.tsv", "\t")])
def test_a_column_of_a_table(name: str, separator: str):
    rows = [["id", "review"], ["7", '"two\nlines, ""quoted"""'], ["8", "short"], ["9"]]
    Path(name).write_text("".join(separator.join(row) + "\n" for row in rows))
    with pytest.warns(UserWarning, match="1 blank"):
        found = listed([name], column="review")
    assert found == [
        ("r/1", f"{name}:1", 'two\nlines, "quoted"'),
        ("r/2", f"{name}:2", "short"),
    ]
    with pytest.raises(InputError, match=r"say which column .* id, review"):
        listed([name])
    with pytest.raises(InputError, match=r"not one column 'text': .* id, review"):
        listed([name], column="text")


def test_a_table_with_one_column_needs_no_name():
    Path("r.csv").write_text("review\ngood\n")
    assert listed(["r.csv"]) == [("r", "r.csv", "good")]


def test_sentences_and_standard_input(monkeypatch: pytest.MonkeyPatch):
    assert listed([], ["a film"]) == [("text", "--text", "a film")]
    given = io.TextIOWrapper(io.BytesIO(b"good\nbad\n"))
    monkeypatch.setattr("sys.stdin", given)
    assert listed(["-"], ["one", "two"]) == [
        ("text/1", "--text:1", "one"),
        ("text/2", "--text:2", "two"),
        ("stdin/1", "stdin:1", "good"),
        ("stdin/2", "stdin:2", "bad"),
    ]


def test_a_folder_and_files_of_one_name():
    Path("a").mkdir()
    Path("a", "r.txt").write_text("good")
    Path("a", "r.csv").write_text("review\nbad\n")
    Path("a", "photo.png").touch()
    assert {(name, text) for name, _, text in listed(["a"])} == {
        ("r.txt", "good"),
        ("r.csv", "bad"),
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "blank"), (b"\n \n", "blank"), (b"\xff\xfe\xff", "is no text"), (b"\x80abc", "no text")],
)
def test_files_without_texts(content: bytes, said: str):
    Path("r.txt").write_bytes(content)
    with pytest.raises(InputError, match=said):
        collect_texts(["r.txt"])


def test_a_sentence_in_the_place_of_a_file():
    with pytest.raises(InputError, match=r"what a film: no such file; .* --text"):
        collect_texts(["what a film"])


def test_two_texts_of_one_name():
    Path("text.txt").write_text("good")
    with pytest.raises(InputError, match="would be called text"):
        collect_texts(["text.txt"], ["bad"])


def test_the_digest_is_the_text_s():
    one, other, same = collect_texts([], ["good", "bad", "good"])
    assert one.digest == same.digest != other.digest


@pytest.mark.parametrize("row", ['"never closed,1', '"closed" too early,1'])
def test_a_stray_quote_swallows_no_rows(row: str):
    Path("r.csv").write_text(f"review,label\ngood,1\n{row}\nbad,0\n")
    with pytest.raises(InputError, match=r"r\.csv is no table: .*, at line [34]; quotes inside"):
        listed(["r.csv"], column="review")


def test_quotes_of_an_unquoted_table_are_text():
    Path("r.tsv").write_text('review\tlabel\n" a " film\t1\nbad\t0\n')
    found = [text for *_, text in listed(["r.tsv"], column="review")]
    assert found == ['" a " film', "bad"]


def test_texts_in_parquet():
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {"review": ["good", None, "bad"], "title": list("abc"), "stars": [5, 3, 1]}
    parquet.write_table(arrow.table(columns), "set.parquet")
    with pytest.warns(UserWarning, match="1 blank texts were left out"):
        found = listed(["set.parquet"], column="review")
    assert found == [("set/1", "set.parquet:1", "good"), ("set/3", "set.parquet:3", "bad")]
    for column in (None, "stars"):
        with pytest.raises(InputError, match=r"say which column holds the text.*: review, title$"):
            listed(["set.parquet"], column=column)
    Path("set.parquet").write_bytes(b"no table")
    with pytest.raises(InputError, match=r"set\.parquet is no Parquet file"):
        listed(["set.parquet"])
