import json

import pytest

from onnxlrp.errors import InputError
from onnxlrp.running.journal import Journal


def test_a_second_run_finds_what_the_first_recorded(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, {"target": (1, 2)}) as first:
        first.append({"item": "a"})
    with Journal(path, {"target": [1, 2]}) as second:
        assert second.records == [{"item": "a"}]
        second.append({"item": "b"})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"settings": {"target": [1, 2]}}, {"item": "a"}, {"item": "b"}]


@pytest.mark.parametrize("torn", ['{"item": "b', '{"item": "b"}'])
def test_a_line_without_its_end_is_cut_off(tmp_path, torn):
    path = tmp_path / "journal.jsonl"
    with Journal(path, {}) as first:
        first.append({"item": "a"})
    with path.open("a") as file:
        file.write(torn)
    with Journal(path, {}) as second:
        second.append({"item": "c"})
    with Journal(path, {}) as third:
        assert third.records == [{"item": "a"}, {"item": "c"}]


def test_a_journal_killed_before_its_first_line_was_whole(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"settings": {"ta')
    with Journal(path, {"target": 1}) as journal:
        assert journal.records == []
    assert path.read_text() == '{"settings": {"target": 1}}\n'


def test_other_settings_are_named(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, {"target": 1, "batch": 2}) as first:
        first.append({"item": "a"})
    with pytest.raises(InputError, match=r"made with other settings \(target\): .* --overwrite"):
        Journal(path, {"target": 7, "batch": 2})
    with Journal(path, {"target": 7}, overwrite=True) as anew:
        assert anew.records == []


def test_another_file_in_its_place(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text("hello\n")
    with pytest.raises(InputError, match="not a journal"):
        Journal(path, {})
    assert path.read_text() == "hello\n"
