from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
from witness.ledger import LEDGER, Ledger

PEERS = ("torch", "zennit", "captum", "corelay", "quantus", "lxt", "transformers")
OWN = {
    "test_tables.py": (
        *("sklearn", "skl2onnx", "onnxmltools", "lightgbm", "xgboost", "catboost", "shap"),
    ),
    "test_triton.py": ("tritonclient",),
}
"""Peers of a module that needs none of the others'."""


def missing(peers: Sequence[str]) -> list[str]:
    return [peer for peer in peers if importlib.util.find_spec(peer) is None]


MISSING = missing(PEERS)
REQUIRED = (*PEERS, "tritonclient")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("witness")
    group.addoption(
        "--write-agreement", action="store_true", help="write docs/agreement.md from this run"
    )
    group.addoption(
        "--peers-required", action="store_true", help="fail where a peer is not installed"
    )


def pytest_configure(config: pytest.Config) -> None:
    # Options of a conftest.py are known only where its folder is named on the command line.
    if missing(REQUIRED) and config.getoption("--peers-required", False):
        raise pytest.UsageError(f"not installed: {', '.join(missing(REQUIRED))}")
    if config.getoption("--peers-required", False) and config.getoption("numprocesses", 0):
        raise pytest.UsageError("what was compared is counted in one process: give -n 0")
    if not MISSING:
        stand_in_for_torchvision()


class _Skipped(pytest.Module):
    def collect(self) -> list[pytest.Item]:
        pytest.skip(f"not installed: {', '.join(missing(OWN.get(self.path.name, PEERS)))}")


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> _Skipped | None:
    peers = OWN.get(module_path.name, PEERS)
    return _Skipped.from_parent(parent, path=module_path) if missing(peers) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "witness":
            item.add_marker("witness")
    # What was compared is only known at the end.
    items.sort(key=lambda item: item.path.name == "test_agreement.py")


@pytest.fixture(scope="session")
def ledger() -> Ledger:
    """What was compared so far."""
    return LEDGER


def stand_in_for_torchvision() -> None:
    """Import zennit without torchvision, of which it needs the names of three classes.

    torchvision's wheels from PyPI do not load beside a CPU build of torch. Others who ask whether
    torchvision is there are not told so.
    """
    try:
        importlib.import_module("torchvision")
    except Exception:
        classes = {
            "torchvision": (),
            "torchvision.ops": ("FrozenBatchNorm2d",),
            "torchvision.models": (),
            "torchvision.models.resnet": ("Bottleneck", "BasicBlock"),
        }
        for path, names in classes.items():
            module = ModuleType(path)
            for name in names:
                setattr(module, name, type(name, (), {}))
            sys.modules[path] = module
            parent, _, child = path.rpartition(".")
            if parent:
                setattr(sys.modules[parent], child, module)
        for name in ("attribution", "canonizers", "composites", "rules", "torchvision"):
            importlib.import_module(f"zennit.{name}")
        for path in classes:
            del sys.modules[path]
