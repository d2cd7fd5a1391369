"""What changes in folders, look by look."""

import os
from pathlib import Path

import pytest

from onnxlrp.running import watching
from onnxlrp.running.watching import Change, changes


@pytest.fixture
def looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs one step before each look but the first; returns what was seen of all."""

    def run(*steps, folder: Path = tmp_path) -> list[Change]:
        rest = iter(steps)

        def sleep(_: float) -> None:
            try:
                next(rest)()
            except StopIteration:
                raise KeyboardInterrupt from None

        monkeypatch.setattr(watching.time, "sleep", sleep)
        seen = []
        with pytest.raises(KeyboardInterrupt):
            seen.extend(seen.append(one) for one in changes([folder], folder / "out"))
        return [one for one in seen if one is not None]

    return run


def nothing() -> None:
    """Let time pass."""


def test_a_file_counts_once_it_is_still(looks, tmp_path: Path):
    path = tmp_path / "a.png"
    grow = [lambda n=n: path.write_bytes(b"x" * n) for n in (1, 2, 3)]
    assert looks(*grow, nothing) == []
    assert looks(nothing, *grow, nothing) == []
    assert looks(nothing, grow[0], nothing, nothing) == [Change({path}, set())]
    assert looks(nothing, nothing, *grow, nothing, nothing) == [Change({path}, set())] * 2


def test_a_file_of_another_time_or_gone(looks, tmp_path: Path):
    path = tmp_path / "a.png"
    path.touch()
    later = [lambda: os.utime(path, (1, 1)), nothing, nothing]
    found = looks(nothing, nothing, *later, path.unlink, nothing)
    assert found == [Change({path}, set())] * 2 + [Change(set(), {path})]


def test_hidden_files_and_results_are_nothing_new(looks, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere")
    found = tmp_path / "deep" / "deeper" / "z.txt"
    for path in (tmp_path / "out" / "b.csv", tmp_path / ".c.png", found):
        path.touch()
    assert looks(nothing, nothing, nothing) == [Change({found}, set())]


def test_a_folder_that_is_away_for_a_while(looks, tmp_path: Path):
    folder, away = tmp_path / "share", tmp_path / "away"
    folder.mkdir()
    (folder / "a.png").touch()
    steps = [lambda: folder.rename(away), nothing, lambda: away.rename(folder), nothing]
    assert looks(nothing, nothing, *steps, folder=folder) == [Change({folder / "a.png"}, set())]
