"""Models with faults in their fields or bytes: an explainer that runs as its model, or one line."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
from fuzz.corpus import CORPUS, case
from fuzz.mutations import mutated_model
from fuzz.properties import converts_or_says_why, wrong_among


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


@pytest.mark.slow
def test_twenty_thousand_mutations():
    size = 500
    starts = range(10_000, 30_000, size)
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        found = pool.map(wrong_among, starts, [start + size for start in starts])
        wrong = [line for lines in found for line in lines]
    assert not wrong, "\n".join(wrong)
