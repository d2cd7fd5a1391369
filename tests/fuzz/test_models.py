"""Models with faults in their fields or bytes: an explainer that runs as its model, or one line."""

import pytest
from fuzz.corpus import CORPUS, case
from fuzz.isolation import faults
from fuzz.mutations import mutated_model, options
from fuzz.properties import attempt, converts_or_says_why, surroundings


@pytest.mark.parametrize("name", CORPUS)
@pytest.mark.parametrize("folded", [False, True])
def test_what_was_found(name, folded, tmp_path):
    converts_or_says_why(case(name), tmp_path, fold_weights=folded)


@pytest.mark.parametrize("start", range(0, 200, 100))
def test_some_mutations(start, tmp_path):
    surroundings(tmp_path)
    said = [
        converts_or_says_why(mutated_model(seed), tmp_path, **options(seed))
        for seed in range(start, start + 100)
    ]
    assert "converted" in said
    assert len(set(said)) > 10


@pytest.mark.parametrize("seed", [10353, 25426, 29801])
def test_what_cannot_be_written_is_refused_in_a_line(seed, tmp_path):
    surroundings(tmp_path)
    assert converts_or_says_why(mutated_model(seed), tmp_path, **options(seed)) != "converted"


@pytest.mark.slow
def test_twenty_thousand_mutations():
    wrong = faults(attempt, range(10_000, 30_000))
    assert not wrong, "\n".join(wrong)
