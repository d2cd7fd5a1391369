"""onnxruntime, and what may be wrong with it."""

from pathlib import Path

import pytest

from onnxlrp import runtime

BUNDLED = Path(__file__).parents[1] / "models/cifar10_lrn.onnx"


def test_no_plan_of_memory_is_made():
    """It would keep up to twice what a run needs."""
    session = runtime.open_session(BUNDLED, "the network", "cpu")
    assert not session.get_session_options().enable_mem_pattern


@pytest.mark.parametrize("installed", [{"onnxruntime"}, {"onnxruntime-gpu"}])
def test_one_package_of_onnxruntime_is_well(monkeypatch, recwarn, installed):
    monkeypatch.setattr(runtime, "_installed", lambda name: name in installed)
    runtime._warn_of_two.__wrapped__()
    assert not recwarn


def test_two_packages_of_onnxruntime_are_told_with_the_cure(monkeypatch):
    monkeypatch.setattr(runtime, "_installed", lambda name: True)
    with pytest.warns(UserWarning, match="both installed.*uninstall both, then pip install"):
        runtime._warn_of_two.__wrapped__()
