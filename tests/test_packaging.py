"""What packages the project says the same thing everywhere, and holds all that it needs."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
CONDA = {"matplotlib": "matplotlib-base", "onnx-ir": "onnx_ir"}
"""Names on conda-forge that differ from PyPI's."""


def test_conda_asks_for_what_pip_asks_for():
    """But one onnxruntime, of which conda-forge has a build for every platform."""
    recipe = (ROOT / "docs/packaging/meta.yaml").read_text("utf-8")
    run = recipe[recipe.index("  run:") : recipe.index("\ntest:")]
    asked = dict(re.findall(r"^    - (\S+) (\S+)$", run, re.M))
    wanted = {"python": PROJECT["requires-python"]}
    for line in PROJECT["dependencies"]:
        name, bounds = re.fullmatch(r"([\w-]+)([^;]*?)(?:;.*)?", line).groups()
        if name != "onnxruntime-gpu":
            wanted[CONDA.get(name, name)] = bounds
    assert asked == wanted


def test_one_version_everywhere():
    version = re.escape(PROJECT["version"])
    assert re.search(
        f'^  version: "{version}"$', (ROOT / "docs/packaging/meta.yaml").read_text(), re.M
    )
    assert re.search(f"^version: {version}$", (ROOT / "CITATION.cff").read_text("utf-8"), re.M)
    assert re.search(f"^## {version}", (ROOT / "docs/CHANGELOG.md").read_text("utf-8"), re.M)
    assert {PROJECT["license"]} == {
        *re.findall(r"^ *license: (\S+)$", (ROOT / "docs/packaging/meta.yaml").read_text(), re.M),
        *re.findall(r"^license: (\S+)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.M),
    }


def test_the_source_distribution_holds_every_folder_of_the_project():
    """A wheel is built from it, and its tests run in it."""
    grafted = set(re.findall(r"^graft (\S+)$", (ROOT / "MANIFEST.in").read_text("utf-8"), re.M))
    assert {"tests", "docs", "rules", "models", "benchmarks", ".ci"} <= grafted
    for name in grafted:
        assert (ROOT / name).is_dir()
