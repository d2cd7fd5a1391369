"""onnxruntime, and what may be wrong with it."""

import builtins
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from onnxlrp import runtime
from onnxlrp.errors import DeviceError

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


def test_an_onnxruntime_too_old_is_told_with_the_cure(monkeypatch):
    """pip leaves one that was there before, where dependencies are not looked at."""
    monkeypatch.setattr(runtime, "_installed", lambda name: name == "onnxruntime")
    with pytest.warns(UserWarning, match=r"1\.9\.0 is older than .*--upgrade onnxruntime$"):
        runtime._warn_of_old.__wrapped__("1.9.0")


@pytest.mark.parametrize("version", [runtime.OLDEST, "1.100.0", "1.30.0.dev20260101", "2.0"])
def test_an_onnxruntime_new_enough_is_well(recwarn, version):
    runtime._warn_of_old.__wrapped__(version)
    assert not recwarn


def test_none_and_a_damaged_one_are_told_with_the_cure(monkeypatch):
    found = builtins.__import__

    def without(name, *arguments, **keywords):
        if name == "onnxruntime":
            raise ImportError("No module named 'onnxruntime'")
        return found(name, *arguments, **keywords)

    with monkeypatch.context() as patched:
        patched.setattr(builtins, "__import__", without)
        with pytest.raises(DeviceError, match=r"needs onnxruntime .*pip install onnxruntime-gpu"):
            runtime.open_session(BUNDLED, "the network", "cpu")
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace())
    with pytest.raises(DeviceError, match="damaged: uninstall onnxruntime and onnxruntime-gpu"):
        runtime.open_session(BUNDLED, "the network", "cpu")


def test_the_oldest_is_what_is_declared():
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8")
    declared = tomllib.loads(project)["project"]["dependencies"]
    bounds = [line.partition(";")[0] for line in declared if line.startswith("onnxruntime")]
    assert bounds == [f"{name}>={runtime.OLDEST}" for name in ("onnxruntime-gpu", "onnxruntime")]
