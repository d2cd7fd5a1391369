"""Models with faults in their fields or bytes: an explainer that runs as its model, or one line."""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from fuzz.corpus import CORPUS, case
from fuzz.mutations import mutated_model
from fuzz.properties import converts_or_says_why


@pytest.mark.parametrize("name", CORPUS)
def test_what_was_found(name, tmp_path):
    converts_or_says_why(case(name), tmp_path)


@pytest.mark.parametrize("start", range(0, 200, 50))
def test_some_mutations(start, tmp_path):
    said = [
        converts_or_says_why(mutated_model(seed), tmp_path) for seed in range(start, start + 50)
    ]
    assert "converted" in said
    assert len(set(said)) > 10


def _range(start: int, end: int) -> list[str]:
    """Try a range of seeds in a process of its own; return what did not hold."""
    wrong = []
    for seed in range(start, end):
        with TemporaryDirectory() as folder:
            try:
                converts_or_says_why(mutated_model(seed), Path(folder))
            # Whatever it is, it is what this looks for.
            except BaseException as error:
                wrong.append(f"seed {seed}: {type(error).__name__}: {error}")
    return wrong


@pytest.mark.slow
def test_twenty_thousand_mutations():
    size = 500
    starts = range(10_000, 30_000, size)
    with ProcessPoolExecutor(2, max_tasks_per_child=4) as pool:
        found = pool.map(_range, starts, [start + size for start in starts])
        wrong = [line for lines in found for line in lines]
    assert not wrong, "\n".join(wrong)
