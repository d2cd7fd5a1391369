"""`onnxlrp serve`: what is answered, and what a browser makes of it."""

import http.client
import json
import re
import shutil
import threading
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import onnxlrp
from onnxlrp.cli.serve import server
from onnxlrp.errors import InputError
from onnxlrp.inputs.preprocessing import Preprocessing


@contextmanager
def serving(*files: Path):
    """The page's port."""
    running = server(files)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    try:
        yield running.server_port
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


def answer(port: int, path: str, host: str | None = None) -> tuple[int, dict[str, str], bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("GET", path, headers={"Host": host} if host else {})
        found = connection.getresponse()
        return found.status, dict(found.getheaders()), found.read()


def test_the_page_and_the_files_given(explainer: Path):
    with serving(explainer) as port:
        status, headers, body = answer(port, "/")
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert b'src="page.js"' in body
        assert json.loads(answer(port, "/given.json")[2]) == [
            {"name": "explainer.onnx", "address": "given/0"}
        ]
        assert answer(port, "/given/0")[2] == explainer.read_bytes()
        _, headers, _ = answer(port, "/ort/ort-wasm-simd-threaded.asyncify.wasm")
        assert headers["Content-Encoding"] == "gzip"
        assert headers["Content-Type"] == "application/wasm"
        assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"


@pytest.mark.parametrize(
    "path",
    ["/../cli/serve.py", "/ort/../__init__.py", "/%2e%2e/errors.py", "/given/1", "/given/-1",
     "/given/x", "/.hidden", "/ort/", "//etc/passwd", "/etc/passwd"],
)  # fmt: skip
def test_nothing_else_is_answered(explainer: Path, path: str):
    with serving(explainer) as port:
        assert answer(port, path)[0] == 404


@pytest.mark.parametrize(("host", "status"), [("localhost:1", 200), ("evil.example:80", 403)])
def test_a_page_elsewhere_reads_nothing(host: str, status: int):
    with serving() as port:
        assert answer(port, "/given.json", host)[0] == status


def test_files_that_cannot_be_served(explainer: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"missing\.onnx: no such file"):
        server((tmp_path / "missing.onnx",))
    explainer.with_name("explainer.onnx.data").write_bytes(b"")
    with pytest.raises(InputError, match="keeps its weights in another file"):
        server((explainer,))


@pytest.fixture
def browser():
    """Chromium, driven by playwright."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed")
    with api.sync_playwright() as started:
        running = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield running
        running.close()


def settled(page, port: int) -> str:
    """Open the page and wait for what it was given; return its message."""
    page.goto(f"http://127.0.0.1:{port}/")
    page.wait_for_function("globalThis.onnxlrp")
    page.evaluate("onnxlrp.settled()")
    # What is given begins with an answer of the server.
    page.wait_for_function("onnxlrp.state.shown.length || message.classList.contains('wrong')")
    page.evaluate("onnxlrp.settled()")
    return page.inner_text("#message")


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        Preprocessing(resize=(8, 8), scale=1 / 255),
        Preprocessing(resize=9, crop=(8, 8), mean=(104, 117, 123), channels="BGR"),
    ],
)
def test_maps_equal_those_of_onnxruntime(browser, model: Path, tmp_path: Path, how):
    paths = []
    for name in ("epsilon_plus", "epsilon"):
        paths.append(tmp_path / f"{name}.onnx")
        onnxlrp.convert(model, name, preprocessing=how).save(paths[-1])
    random = np.random.default_rng(5)
    photo = tmp_path / "photo.png"
    # Transparent in places, larger than the input, and not square.
    Image.fromarray(random.integers(0, 256, (31, 23, 4), np.uint8)).save(photo)
    with Image.open(photo) as picture:
        values = how(picture)[None]
    with serving(*paths, photo) as port:
        page = browser.new_page()
        assert settled(page, port) == ""
        read = "onnxlrp.state.shown.map((one) => [[...one.found.relevance], [...one.found.scores]])"
        for target in ("", "2"):
            if target:
                page.select_option("#class", target)
                page.evaluate("onnxlrp.settled()")
            for path, (relevance, scores) in zip(paths, page.evaluate(read), strict=True):
                with onnxlrp.Explainer(path) as alone:
                    expected = alone(values, int(target) if target else "top")
                most = np.abs(expected.relevance).max()
                found = np.reshape(relevance, expected.relevance.shape)
                np.testing.assert_allclose(found, expected.relevance, rtol=0, atol=1e-4 * most)
                np.testing.assert_allclose(scores, expected.scores[0], rtol=1e-4, atol=1e-5)
        page.hover("canvas")
        row, column = map(int, re.findall(r"\d+", page.inner_text("#hover"))[:2])
        pixel = expected.relevance[0, :, row, column].sum()
        assert float(page.inner_text("#hover").split()[-1]) == pytest.approx(pixel, rel=1e-3)


@pytest.mark.slow
def test_a_file_that_is_no_explainer_gets_one_line(browser, model: Path, tmp_path: Path):
    (tmp_path / "cut.onnx").write_bytes(model.read_bytes()[:-9])
    for file, said in (
        (model, "model.onnx: this is a plain model: make an explainer of it with"),
        (tmp_path / "cut.onnx", "cut.onnx: the file is cut short"),
    ):
        with serving(file) as port:
            assert settled(browser.new_page(), port).startswith(said)
