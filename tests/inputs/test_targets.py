import json

import numpy as np
import pytest

from onnxlrp.errors import InputError
from onnxlrp.inputs.targets import Difference, class_number, load_labels, read_targets

LABELS = ["tench, Tinca tinca", "goldfish", "crane", "crane"]


def test_a_number_a_name_or_a_synonym():
    assert class_number("2", LABELS, 4) == 2
    assert class_number("Goldfish", LABELS, 4) == 1
    assert class_number("tinca tinca", LABELS, 4) == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("4", "4 is not a class: they are 0 to 3"),
        ("-3", "-3 is not a class"),
        ("goldfsh", "no class is called 'goldfsh'; did you mean goldfish"),
        ("crane", r"names several classes: 2 \(crane\), 3 \(crane\)"),
    ],
)
def test_what_is_no_class(text, said):
    with pytest.raises(InputError, match=said):
        class_number(text, LABELS, 4)


def test_names_need_labels():
    with pytest.raises(InputError, match="needs --labels"):
        class_number("goldfish", None, 4)


def test_the_best_and_the_best_few():
    best = read_targets("top", ["a"], None, 4)
    assert (best.best, best.of("a")) == (1, -1)
    assert read_targets("-1", ["a"], None, 4) == best
    assert read_targets("top:3", ["a"], None, 4).best == 3
    for wrong in ("top:0", "top:5", "top:x"):
        with pytest.raises(InputError, match="write top:5"):
            read_targets(wrong, ["a"], None, 4)


def test_files_by_item_or_in_order(tmp_path):
    by_item = tmp_path / "by_item.csv"
    by_item.write_text("item,class\nb,goldfish\na,0\n")
    in_order = tmp_path / "in_order.txt"
    in_order.write_text("0\ngoldfish\n")
    np.save(tmp_path / "in_order.npy", np.array([0, 1], np.uint8))
    np.savez(tmp_path / "in_order.npz", x=np.ones(2), y=np.array([0, 1]))
    for path in (by_item, in_order, tmp_path / "in_order.npy", tmp_path / "in_order.npz"):
        targets = read_targets(str(path), ["a", "b"], LABELS, 4)
        assert [targets.of(name) for name in "ab"] == [0, 1]
    with pytest.raises(InputError, match="no class for it"):
        targets.of("c")
    with pytest.raises(InputError, match="2 classes for 3 items"):
        read_targets(str(in_order), ["a", "b", "c"], LABELS, 4)


def test_files_of_other_things(tmp_path):
    np.save(tmp_path / "x.npy", np.ones(3))
    with pytest.raises(InputError, match=r"float64 \[3\], not classes"):
        read_targets(str(tmp_path / "x.npy"), ["a"], None, 4)
    (tmp_path / "x.csv").write_text("a,9\n")
    with pytest.raises(InputError, match=r"x\.csv: a: 9 is not a class"):
        read_targets(str(tmp_path / "x.csv"), ["a"], None, 4)


def test_labels_as_lines_and_as_json(tmp_path):
    lines = tmp_path / "labels.txt"
    lines.write_text("cat\n\ndog\n")
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps(["cat", "dog"]))
    keyed = tmp_path / "keyed.json"
    keyed.write_text(json.dumps({"1": ["n2", "dog"], "0": ["n1", "cat"]}))
    for path in (lines, listed, keyed):
        assert load_labels(path) == ["cat", "dog"]
    keyed.write_text(json.dumps({"2": "cat"}))
    with pytest.raises(InputError, match="numbered from 0"):
        load_labels(keyed)


@pytest.mark.parametrize("text", ["²", "--5", "top:²", "9" * 5000, "-" * 3, "٣"])
def test_what_only_looks_like_a_number_is_none(text):
    with pytest.raises(InputError):
        read_targets(text, ["a"], None, 10)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_table_of_classes_in_any_unicode(tmp_path, encoding):
    file = tmp_path / "classes.csv"
    file.write_text("item,class\nä,1\nb,2\n", encoding)
    assert read_targets(str(file), ["ä", "b"], None, 10).each == {"ä": 1, "b": 2}


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\x80abc", b'a,"' + b"x" * 200_000])
def test_a_table_that_is_no_text_is_told_in_one_line(tmp_path, content):
    file = tmp_path / "classes.csv"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"classes\.csv"):
        read_targets(str(file), ["a"], None, 10)


@pytest.mark.parametrize("text", ["[" * 100_000, "[" + "9" * 5000 + "]", '{"0": 1'])
def test_labels_that_are_no_names(tmp_path, text):
    file = tmp_path / "labels.json"
    file.write_text(text)
    with pytest.raises(InputError, match="is not a list of names"):
        load_labels(file)


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("3-0", (3, 0)),
        ("top-2", (-1, 2)),
        ("goldfish-top", (1, -1)),
        ("goldfish - tinca tinca", (1, 0)),
        ("T-shirt-goldfish", (4, 1)),
    ],
)
def test_the_difference_of_two_classes(text, pair):
    assert read_targets(text, ["a"], [*LABELS, "T-shirt"], 5).of("a") == Difference(*pair)


def test_a_class_whose_name_holds_a_minus_is_that_class():
    assert read_targets("T-shirt", ["a"], ["T", "shirt", "T-shirt"], 3).of("a") == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("3-99", "99 is not a class: they are 0 to 4"),
        ("2-2", "does not differ from itself"),
        ("goldfish-cat", "no class is called 'goldfish-cat'"),
        ("a-b-c", "can be read as several differences"),
    ],
)
def test_what_is_no_difference(text, said):
    with pytest.raises(InputError, match=said):
        read_targets(text, ["a"], ["a", "b-c", "a-b", "c", "goldfish"], 5)


def test_differences_in_a_file(tmp_path):
    path = tmp_path / "asked.csv"
    path.write_text("b,goldfish-0\na,2\n")
    targets = read_targets(str(path), ["a", "b"], LABELS, 4)
    assert [targets.of(name) for name in "ab"] == [2, Difference(1, 0)]


def test_weights_in_a_file(tmp_path):
    np.save(tmp_path / "one.npy", np.array([1.0, 0, -1, 0.5]))
    np.savez(tmp_path / "each.npz", weights=np.eye(2, 4))
    one = read_targets(str(tmp_path / "one.npy"), ["a", "b"], None, 4)
    assert one.of("a") == one.of("b") == (1, 0, -1, 0.5)
    each = read_targets(str(tmp_path / "each.npz"), ["a", "b"], None, 4)
    assert [each.of(name) for name in "ab"] == [(1, 0, 0, 0), (0, 1, 0, 0)]
    with pytest.raises(InputError, match=r"nor weights: \[4\], or a row of 4 for each of 3 items"):
        read_targets(str(tmp_path / "each.npz"), ["a", "b", "c"], None, 4)
    np.save(tmp_path / "bad.npy", np.array([1.0, np.nan, 0, 0]))
    with pytest.raises(InputError, match="NaN or infinity"):
        read_targets(str(tmp_path / "bad.npy"), ["a"], None, 4)
