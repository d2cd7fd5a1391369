import json

import pytest

from onnxlrp.errors import InputError
from onnxlrp.running.journal import Journal


def test_a_second_run_finds_what_the_first_recorded(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, {"target": (1, 2)}, ()) as first:
        first.append({"item": "a"})
    with Journal(path, {"target": [1, 2]}, ()) as second:
        assert second.records == [{"item": "a"}]
        second.append({"item": "b"})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"settings": {"target": [1, 2]}}, {"item": "a"}, {"item": "b"}]


@pytest.mark.parametrize("torn", ['{"item": "b', '{"item": "b"}'])
def test_a_line_without_its_end_is_cut_off(tmp_path, torn):
    path = tmp_path / "journal.jsonl"
    with Journal(path, {}, ()) as first:
        first.append({"item": "a"})
    with path.open("a") as file:
        file.write(torn)
    with Journal(path, {}, ()) as second:
        second.append({"item": "c"})
    with Journal(path, {}, ()) as third:
        assert third.records == [{"item": "a"}, {"item": "c"}]


def test_a_journal_killed_before_its_first_line_was_whole(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"settings": {"ta')
    with Journal(path, {"target": 1}, ()) as journal:
        assert journal.records == []
    assert path.read_text() == '{"settings": {"target": 1}}\n'


def test_other_settings_are_named(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, {"target": 1, "batch": 2}, ()) as first:
        first.append({"item": "a"})
    with pytest.raises(InputError, match=r"made with other settings \(target\): .* --overwrite"):
        Journal(path, {"target": 7, "batch": 2}, ())
    with Journal(path, {"target": 7}, (), overwrite=True) as anew:
        assert anew.records == []


def test_another_file_in_its_place(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text("hello\n")
    with pytest.raises(InputError, match="not a journal"):
        Journal(path, {}, ())
    assert path.read_text() == "hello\n"


def test_one_run_at_a_time(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, {}, ()) as first:
        first.append({"item": "a"})
        for overwrite in (False, True):
            with pytest.raises(InputError, match="another run is writing to"):
                Journal(path, {}, (), overwrite=overwrite)
    with Journal(path, {}, ()) as second:
        assert second.records == [{"item": "a"}]


@pytest.mark.parametrize(
    "line", ['{"other": 1}', "[]", "3", '{"item": ' + "9" * 5000 + "}", "[" * 100_000, "{}"]
)
def test_a_damaged_record_is_told_in_one_line(tmp_path, line):
    path = tmp_path / "journal.jsonl"
    with Journal(path, {}, ("item",)) as journal:
        journal.append({"item": "a"})
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InputError, match="not a journal of results, or a damaged one"):
        Journal(path, {}, ("item",))
    with Journal(path, {}, ("item",), overwrite=True) as anew:
        assert anew.records == []
