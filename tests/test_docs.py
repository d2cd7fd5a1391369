"""The documents that are built from the code say what the code does."""

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_rules_are_described_as_they_are_computed():
    """If this fails, run `python docs/make_rules.py` and look at what changed."""
    written = (DOCS / "rules.md").read_text("utf-8")
    script = runpy.run_path(str(DOCS / "make_rules.py"))
    assert script["text"]() == written
    for name in script["rules"]():
        assert (DOCS / "rules" / f"{name.replace(' ', '_')}.png").is_file()
