"""The site of the documentation: built without a warning, read without a network."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT

import onnxlrp

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("material")
    made = tmp_path_factory.mktemp("site")
    config = ROOT / "docs" / "site" / "mkdocs.yml"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", config, "-d", made]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return made


def test_pages_load_nothing_from_elsewhere(site):
    # 404.html alone is for a server, which shows it at any address.
    pages = [page for page in site.rglob("*.html") if page.name != "404.html"]
    assert len(pages) > 30
    for page in pages:
        loaded = re.findall(
            r"<(?:script|img|iframe|link(?=[^>]*rel=.?stylesheet))\b[^>]*?\b(?:src|href)=.?([^\s\">]+)",
            page.read_text("utf-8"),
        )
        assert len(loaded) > 3
        for address in loaded:
            assert not re.match(r"\w+:|//", address), f"{page.name} loads {address}"
            assert (page.parent / address.partition("?")[0]).exists(), f"{page.name}: {address}"


def test_the_reference_tells_all_that_is_public(site):
    told = (site / "reference" / "python.html").read_text("utf-8")
    for name in onnxlrp.__all__:
        assert re.search(rf'id="onnxlrp\.(?:errors\.)?{name}"', told), name
    commands = (site / "reference" / "command-line.html").read_text("utf-8")
    assert "--composite NAME|FILE" in commands
    assert "Cut texts after so many tokens." in commands


def test_search_finds_rules_in_pages_that_are_read_as_files(site, chromium):
    asked, said = [], []
    page = chromium().new_page(viewport={"width": 1280, "height": 900})
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append((message.type, message.text)))
    page.goto((site / "index.html").as_uri())
    page.fill("input.md-search__input", "z-box")
    page.wait_for_selector("a.md-search-result__link")
    found = page.eval_on_selector_all(
        "a.md-search-result__link", "links => links.map(link => link.href)"
    )
    page.set_viewport_size({"width": 420, "height": 900})
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert any(re.search(r"/rules\.html.*#z-box$", link) for link in found), found
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:", "about:"))] == []
    assert [text for kind, text in said if kind == "error"] == []
    assert wide <= 420
