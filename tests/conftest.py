import shutil

import pytest


@pytest.fixture
def accessible():
    """Lets axe judge what a page draws: what is wrong, by its rule and a place; how many hold."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is missing")
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

    def judge(page) -> tuple[list[tuple[str, str]], int]:
        found = axe.Axe().run(page, options={"runOnly": tags}).response
        wrong = [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]]
        return wrong, len(found["passes"])

    return judge


@pytest.fixture(scope="module")
def chromium():
    """Starts Chromium, driven by playwright, of which a thread takes one at a time."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("chromium is not installed")
    with api.sync_playwright() as started:
        running = []

        def start(*arguments: str):
            arguments = ["--no-sandbox", *arguments]
            running.append(started.chromium.launch(executable_path=found, args=arguments))
            return running[-1]

        yield start
        for browser in running:
            browser.close()
