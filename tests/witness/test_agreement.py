import os
from importlib.metadata import version

import onnxruntime
import pytest
from witness.ledger import DOCUMENT, LAYERS, ON_REQUEST, Ledger, lacking, listed

SHARED = DOCUMENT.parents[2] / "shared"


def test_every_listed_comparison_was_made(ledger, request):
    made = ledger.counts()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        pytest.skip("what was compared is counted in one process: pytest tests/witness -n 0")
    if not made and not request.config.getoption("--peers-required", False):
        pytest.skip("nothing was compared")
    if request.config.getoption("--write-agreement", False):
        assert not request.session.testsfailed
        peers = ("torch", "zennit", "captum", "lxt", "transformers")
        versions = {peer: version(peer).partition("+")[0] for peer in peers}
        versions["onnxruntime"] = onnxruntime.__version__
        DOCUMENT.write_text(ledger.document(versions), "utf-8")
    wanted = listed(DOCUMENT.read_text("utf-8"))
    if not SHARED.is_dir():
        wanted = {cell: n for cell, n in wanted.items() if cell[1] != ON_REQUEST}
    assert not lacking(made, wanted)
    assert not lacking(wanted, made), "run pytest tests/witness -n 0 --write-agreement"


def test_a_lost_comparison_and_a_wide_one_are_seen():
    """The negative control of the suite."""
    ledger, cell = Ledger(), (LAYERS, "Linear", "epsilon")
    for distance in (1e-7, 3e-7):
        ledger.compare(cell, distance, 1e-5)
    ledger.differ("a case", [1, 2], [0, 3])
    wanted = listed(ledger.document({"peer": "1"}))
    assert wanted == ledger.counts()
    assert ledger.text(cell) == "3e-07 (2)"
    assert lacking({**wanted, cell: 1}, wanted) == [cell]
    with pytest.raises(AssertionError, match=r"2\.00e-05 exceeds 1\.00e-05"):
        ledger.compare(cell, 2e-5, 1e-5)
