import shutil

import pytest


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
