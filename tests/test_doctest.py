"""Examples in docstrings say what happens."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("module", ["compiler.composite", "running.explanation"])
def test_examples(module):
    found = doctest.testmod(importlib.import_module(f"onnxlrp.{module}"))
    assert found.attempted > 0
    assert found.failed == 0
