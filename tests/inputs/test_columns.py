"""Which columns of a table a model reads."""

from pathlib import Path

import numpy as np
import pytest

from onnxlrp.errors import InputError
from onnxlrp.inputs.columns import Columns, arranged, mean_row, named_features
from onnxlrp.inputs.rows import Row, Table

MATRIX = {"x": ("float32", ("N", 3))}
SEVERAL = {
    "age": ("int64", ("N", 1)),
    "pay_per_hour": ("float32", ("N", 1)),
    "rest": ("float64", (None, 2)),
    "male": ("bool", ("N",)),
}


def tables(tmp_path: Path, *contents: str) -> list[Table]:
    found = []
    for number, content in enumerate(contents):
        path = tmp_path / f"{number}.csv"
        path.write_text(content)
        found.append(Table(path, str(number)))
    return found


def columns(found: list[Table], inputs=MATRIX, features=None, ignored=()) -> Columns:
    return arranged(found, inputs, [*inputs], features or {}, ignored)


def feeds(made: Columns, table: Table) -> dict[str, np.ndarray]:
    return made.feeds(np.stack([made.read(Row(table, row)) for row in range(len(table))]))


def test_columns_of_a_matrix_are_read_in_their_order(tmp_path: Path):
    (table,) = tables(tmp_path, "a,b,id,c\n1,2,77,3\n4,5,78,6\n")
    made = columns([table], ignored=["id"])
    assert made.names == ("a", "b", "c")
    assert made.unread == ("id",)
    (read,) = feeds(made, table).values()
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, [[1, 2, 3], [4, 5, 6]])
    assert made.in_words() == "read by 3 columns; not read: id"


def test_names_of_features_find_their_columns_wherever_they_are(tmp_path: Path):
    (table,) = tables(tmp_path, "label,c,a,B (cm)\nx,3,1,2\n")
    made = columns([table], features={"x": ("a", "b_cm", "c")})
    # In the order of the table, for people; in the model's for the model.
    assert made.names == ("c", "a", "B (cm)")
    np.testing.assert_array_equal(feeds(made, table)["x"], [[1, 2, 3]])
    np.testing.assert_array_equal(made.joined(np.array([[10, 20, 30]]), 0), [30, 10, 20])


def test_names_that_are_numbers_are_known_by_the_features(tmp_path: Path):
    (table,) = tables(tmp_path, "0,1,2\n5,6,7\n")
    made = columns([table], features={"x": ("0", "1", "2")})
    assert len(table) == 1
    np.testing.assert_array_equal(feeds(made, table)["x"], [[5, 6, 7]])


def test_inputs_of_one_column_are_found_by_their_names(tmp_path: Path):
    (table,) = tables(tmp_path, "u,Pay per hour,male,age,v\n0.1,2.5,True,40,7\n0.2,3.5,0,50,8\n")
    made = columns([table], SEVERAL)
    assert made.names == ("u", "Pay per hour", "male", "age", "v")
    read = feeds(made, table)
    assert {name: str(array.dtype) for name, array in read.items()} == {
        name: dtype for name, (dtype, _) in SEVERAL.items()
    }
    np.testing.assert_array_equal(read["age"], [[40], [50]])
    np.testing.assert_array_equal(read["rest"], [[0.1, 7], [0.2, 8]])
    np.testing.assert_array_equal(read["male"], [True, False])
    maps = {
        "age": np.array([[1.0], [10]]),
        "pay_per_hour": np.array([[2.0], [20]]),
        "rest": np.array([[3.0, 4], [30, 40]]),
    }
    some = arranged([table], SEVERAL, [*maps], {})
    assert some.features == ("u", "Pay per hour", "age", "v")
    np.testing.assert_array_equal(some.joined(maps, 1), [30, 20, 10, 40])


def test_without_names_columns_are_the_models_in_its_order(tmp_path: Path):
    (table,) = tables(tmp_path, "40,2.5,0.1,7,1\n")
    made = columns([table], SEVERAL)
    assert made.names == ("age", "pay_per_hour", "rest 0", "rest 1", "male")
    np.testing.assert_array_equal(feeds(made, table)["rest"], [[0.1, 7]])
    (plain,) = tables(tmp_path, "1,2,3\n")
    assert columns([plain]).names == ("feature 0", "feature 1", "feature 2")
    assert "which no line names" in columns([plain]).in_words()


def test_later_tables_follow_the_names_of_the_first(tmp_path: Path):
    first, second, third = found = tables(
        tmp_path, "a,b,c\n1,2,3\n", "id,c,b,a\n9,30,20,10\n", "100,200,300\n"
    )
    made = columns(found)
    for table, factor in ((first, 1), (second, 10), (third, 100)):
        np.testing.assert_array_equal(feeds(made, table)["x"], [[factor, 2 * factor, 3 * factor]])


def test_an_input_of_any_width_takes_what_is_left(tmp_path: Path):
    (table,) = tables(tmp_path, "a,b,age,c\n1,2,40,3\n")
    inputs = {"x": ("float32", ("N", "F")), "age": ("int64", ("N", 1))}
    np.testing.assert_array_equal(feeds(columns([table], inputs), table)["x"], [[1, 2, 3]])


@pytest.mark.parametrize(
    ("content", "inputs", "options", "said"),
    [
        ("a,b\n1,2\n", MATRIX, {}, r"0.csv has 2 columns \(a, b\) where the model reads 3: say"),
        (
            "a,b,c,d\n1,2,3,4\n",
            MATRIX,
            {},
            "or to explain and evaluate which not, as in --ignore 'a'",
        ),
        ("1,2\n", MATRIX, {}, "has 2 columns without names, and the model reads 3"),
        ("a,a,c\n1,2,3\n", MATRIX, {}, "has several columns 'a': give each a name"),
        ("a,b,c\n1,2,3\n", MATRIX, {"ignored": ["d"]}, "no column 'd' to ignore: they are a, b, c"),
        ("1,2,3\n", MATRIX, {"ignored": ["d"]}, "no line of names, and so no column 'd'"),
        ("a,b,d\n1,2,3\n", MATRIX, {"features": {"x": "abc"}}, "has no column 'c', which"),
        ("a,b,c,c\n1,2,3,3\n", MATRIX, {"features": {"x": "abc"}}, "several columns 'c', which"),
        ("age,u,v,male\n1,2,3,1\n", SEVERAL, {}, "no column 'pay_per_hour', which the model reads"),
        (
            "a,b\n1,2\n",
            {"x": ("float32", ("N", None)), "y": ("float32", ("N", "F"))},
            {},
            "inputs 'x' and 'y' take any number of columns: convert with --features",
        ),
    ],
)
def test_columns_that_do_not_fit(tmp_path: Path, content, inputs, options, said):
    with pytest.raises(InputError, match=said):
        columns(tables(tmp_path, content), inputs, **options)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("old,1,2,3,0", "0.csv, column 'age': 'old' is no finite number"),
        ("40.5,1,2,3,0", r"the model reads whole numbers \(int64\), not 40.5"),
        ("1e17,1,2,3,0", r"the model reads whole numbers \(int64\), not 1e17"),
        ("40,,2,3,0", "column 'pay_per_hour': the value is missing, and the model does not"),
        ("40,1,2,3,5", "column 'male': the model reads true or false, not 5"),
        ("40,1,2,3", "0.csv has 4 cells, and the first line 5"),
        ("40,1,2,3,0,6", "0.csv has 6 cells, and the first line 5"),
    ],
)
def test_rows_that_the_model_cannot_read(tmp_path: Path, row: str, said: str):
    (table,) = tables(tmp_path, f"age,pay_per_hour,u,v,male\n{row}\n")
    made = columns([table], SEVERAL)
    with pytest.raises(InputError, match=said):
        made.read(Row(table, 0))


def test_a_missing_value_is_nan_where_the_model_fills_it_in(tmp_path: Path):
    (table,) = tables(tmp_path, "a,b,c\n1,NA,\n")
    made = arranged([table], MATRIX, ["x"], {}, missing=["x"])
    np.testing.assert_array_equal(made.read(Row(table, 0)), [1, np.nan, np.nan])


def test_texts_are_read_as_they_are_and_get_no_relevance(tmp_path: Path):
    (table,) = tables(tmp_path, "sex,x,y,age,z\n fem,1,2,40,3\n,4,5,50,6\n")
    inputs = {"sex": ("string", ("N", 1)), "age": ("int64", ("N", 1)), **MATRIX}
    made = arranged([table], inputs, ["age", "x"], {})
    read = feeds(made, table)
    np.testing.assert_array_equal(read["sex"], [[" fem"], [""]])
    np.testing.assert_array_equal(read["x"], [[1, 2, 3], [4, 5, 6]])
    assert read["age"].dtype == np.int64
    assert made.features == ("x", "y", "age", "z")
    assert made.in_words() == "read by 5 columns; without relevance: sex"


def test_names_are_parted_among_the_inputs_that_need_them():
    assert named_features(["a", "b", "c"], MATRIX) == {"x": ("a", "b", "c")}
    assert named_features(["u", "v"], SEVERAL) == {"rest": ("u", "v")}
    assert named_features(["only"], {"x": ("float32", ("N", 1))}) == {"x": ("only",)}
    wide = {"x": ("float32", ("N", "F")), "y": ("float32", ("N", 2))}
    assert named_features([*"abcde"], wide) == {"x": ("a", "b", "c"), "y": ("d", "e")}
    for names, said in (
        (["a", "b"], r"2 names of features are given, and the model reads 3 as x \[N, 3\]"),
        (["a", "b", "a"], "two features are called 'a'"),
    ):
        with pytest.raises(InputError, match=said):
            named_features(names, MATRIX)
    with pytest.raises(InputError, match="x, y do not say how many features"):
        named_features(["a"], {"x": ("float32", ("N", "F")), "y": ("float32", ("N", None))})
    with pytest.raises(InputError, match="the model reads 0 as image"):
        named_features(["a"], {"image": ("float32", ("N", 3, 8, 8))})


def test_the_mean_row_by_input(tmp_path: Path):
    (table,) = tables(tmp_path, "u,pay_per_hour,v,age,male\n1,,3,40,1\n2,10,5,41,0\n6,20,,41,0\n")
    found = mean_row(table.path, SEVERAL, ["age", "pay_per_hour", "rest"], {})
    assert set(found) == {"age", "pay_per_hour", "rest"}
    np.testing.assert_allclose(found["rest"], [3, 4])
    np.testing.assert_allclose(found["pay_per_hour"], [15])
    np.testing.assert_allclose(found["age"], [41])
    (empty,) = tables(tmp_path, "a,b,c\n1,,3\n4,,6\n")
    with pytest.raises(InputError, match="has no values in its column 'b'"):
        mean_row(empty.path, MATRIX, ["x"], {})
