"""Files of rows: how they are cut, and that they are not held in memory."""

import math
import tracemalloc
from pathlib import Path

import pytest

from onnxlrp.errors import InputError
from onnxlrp.inputs.rows import Row, Table, collect_tables, number


def table(tmp_path: Path, content: str | bytes, name: str = "t.csv") -> Table:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Table(path, "t")


def rows(found: Table) -> list[list[str]]:
    return [found.cells(row) for row in range(len(found))]


@pytest.mark.parametrize(
    ("cell", "value"),
    [(" 1.5", 1.5), ("-1e3", -1000), ("True", 1), ("false", 0), ("+.5", 0.5), ("007", 7)],
)
def test_numbers(cell: str, value: float):
    assert number(cell) == value


@pytest.mark.parametrize("cell", ["", " ", "NaN", "NA", "n/a", "null", "None", "?"])
def test_what_is_missing(cell: str):
    assert math.isnan(number(cell) or 0)


@pytest.mark.parametrize(
    "cell", ["male", "1,5", "1_000", "inf", "1e999", "0x10", "12 km", "--", "\x002"]
)
def test_what_is_no_number(cell: str):
    assert number(cell) is None


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters_are_told_by_what_they_cut(tmp_path: Path, delimiter: str):
    lines = [["a b", "c", "d,e;f"], ["1", "2", "3"], ["", "5", "6"]]
    text = "\n".join(delimiter.join(f'"{cell}"' for cell in line) for line in lines)
    found = table(tmp_path, text)
    assert found.header == ("a b", "c", "d,e;f")
    assert rows(found) == lines[1:]


def test_a_decimal_comma_is_no_delimiter_where_semicolons_cut(tmp_path: Path):
    assert rows(table(tmp_path, "1,5;2,5\n3,5;4\n")) == [["1,5", "2,5"], ["3,5", "4"]]


def test_quotes_ends_of_lines_marks_and_empty_lines(tmp_path: Path):
    text = '\ufeffname,x\r\n"two\r\nlines ""here""",1\r\n\r\nlast,2'
    found = table(tmp_path, text)
    assert found.header == ("name", "x")
    assert rows(found) == [['two\r\nlines "here"', "1"], ["last", "2"]]
    assert [Row(found, row).name for row in (0, 1)] == ["t/1", "t/2"]
    assert Row(found, 1).source == f"{tmp_path / 't.csv'}:2"


def test_without_names_the_first_line_is_a_row(tmp_path: Path):
    found = table(tmp_path, "5.1,x\n4.9,y\n")
    assert found.header is None
    assert rows(found) == [["5.1", "x"], ["4.9", "y"]]
    found.name_columns()
    assert found.header == ("5.1", "x")
    assert rows(found) == [["4.9", "y"]]


def test_utf16_as_spreadsheets_write_it(tmp_path: Path):
    found = table(tmp_path, "größe\tx\n1\t2\n3\t4\n".encode("utf-16"), "t.txt")
    assert found.header == ("größe", "x")
    assert rows(found) == [["1", "2"], ["3", "4"]]


def test_a_digest_is_of_its_row_alone(tmp_path: Path):
    before = [Row(table(tmp_path, "a\n1\n2\n"), row).digest for row in (0, 1)]
    after = [Row(table(tmp_path, "a\n1\n3\n"), row).digest for row in (0, 1)]
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_a_large_file_stays_on_disk(tmp_path: Path):
    path = tmp_path / "large.csv"
    line = ",".join(f"0.{place:012}" for place in range(100))
    path.write_text(",".join(f"c{n}" for n in range(100)) + "\n" + f"{line}\n" * 3000)
    size = path.stat().st_size
    assert size > 4e6
    tracemalloc.start()
    found = Table(path, "large")
    last = found.cells(2999)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == 3000
    assert last == line.split(",")
    assert most < size / 10


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "t.csv is empty"),
        (b"\n\n", "t.csv is empty"),
        (b"a,b\n", "holds a line of names, and no rows below it"),
        (b"a,b\n1,2\n\xff\xff3,4\n", "t.csv is no text: save it as UTF-8"),
        (b"a,b\r1,2\r", "t.csv ends its lines by carriage returns alone"),
        (b'a,b\n1,"2\n3,4\n', "t.csv is no table: unexpected end of data"),
    ],
)
def test_what_is_no_table(tmp_path: Path, content: bytes, said: str):
    with pytest.raises(InputError, match=said):
        rows(table(tmp_path, content))


def test_tables_in_folders_but_not_among_results(tmp_path: Path):
    for name in ("b.csv", "deep/a.tsv", "out/results.csv", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x\n1\n")
    found = collect_tables([str(tmp_path), str(tmp_path / "b.csv")], tmp_path / "out")
    assert [one.name for one in found] == ["b", "deep/a"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no tables"):
        collect_tables([str(tmp_path / "empty")])
    with pytest.raises(FileNotFoundError):
        collect_tables([str(tmp_path / "none.csv")])
