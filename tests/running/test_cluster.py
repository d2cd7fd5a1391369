"""Pieces of work on Ray: each is done once, what kills its worker is left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from pieces import Square

from onnxlrp.errors import InputError
from onnxlrp.running.cluster import spread

pytestmark = pytest.mark.slow
HERE = {"cores": 1, "cuda": False, "address": None}


@pytest.fixture(scope="module")
def ray():
    """A cluster of two cores, as a user who works with Ray has one already."""
    ray = pytest.importorskip("ray", reason="the extra [ray] is not installed")
    with pytest.MonkeyPatch.context() as patch:
        # Where workers find `pieces`.
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=2**28)
        yield ray
        ray.shutdown()


def test_pieces_are_done_once_and_what_kills_its_worker_is_left_out(ray, tmp_path: Path):
    found = dict(spread(Square(), range(12), tmp_path, workers=2, **HERE))
    assert sorted(found) == list(range(12))
    assert found.pop(3) is None
    assert {number: square for number, (_, square) in found.items()} == {
        number: number**2 for number in range(12) if number != 3
    }
    assert list(tmp_path.iterdir()) == []


def test_what_is_wrong_ends_it_with_the_workers_own_words(ray, tmp_path: Path):
    with pytest.raises(InputError, match=r"^99 is no number$"):
        list(spread(Square(), [1, 99, 2], tmp_path, workers=1, **HERE))


def test_more_workers_than_the_cluster_has_cores_for(ray, tmp_path: Path):
    with pytest.raises(InputError, match="has 2 CPUs, and 3 workers need 3: give fewer --workers"):
        list(spread(Square(), [1], tmp_path, workers=3, **HERE))


def test_no_cluster_at_an_address(tmp_path: Path):
    ray = pytest.importorskip("ray", reason="the extra [ray] is not installed")
    ray.shutdown()
    where = HERE | {"address": "127.0.0.1:9"}
    with pytest.raises(
        InputError, match=r"the Ray cluster at 127.0.0.1:9 cannot be reached: .*refused"
    ):
        list(spread(Square(), [1], tmp_path, workers=1, **where))
