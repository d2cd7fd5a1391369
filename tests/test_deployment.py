"""What docs/deployment.md shows is run as it stands there."""

import concurrent.futures
import http.server
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import onnxlrp
from onnxlrp.demo import MODEL, PREPROCESSING
from onnxlrp.running import triton

PAGE = (Path(__file__).parents[1] / "docs" / "deployment.md").read_text("utf-8")
PLAIN, BINDING, BATCHES = re.findall(r"```python\n(.*?)```", PAGE, re.S)
(SERVICE,) = re.findall(r"```python title=\"service.py\"\n(.*?)```", PAGE, re.S)
(CLIENT,) = re.findall(r"```python title=\"client.py\"\n(.*?)```", PAGE, re.S)
(NODE,) = re.findall(r"```js title=\"explain.mjs\"\n(.*?)```", PAGE, re.S)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where `explainer.onnx` is."""
    made = tmp_path_factory.mktemp("deployed")
    with as_file(files("onnxlrp.bundled") / MODEL) as path:
        onnxlrp.convert(path, preprocessing=PREPROCESSING).save(made / "explainer.onnx")
    return made


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (11, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def expected(folder, pixels) -> np.ndarray:
    """The relevance of each picture, run alone."""
    images = PREPROCESSING.values(pixels)
    with onnxlrp.Explainer(folder / "explainer.onnx") as run:
        return np.concatenate([run(image[None]).relevance for image in images])


@pytest.mark.parametrize("block", [PLAIN, BINDING, BATCHES], ids=["plain", "binding", "batches"])
def test_blocks_of_python(folder, pixels, expected, block, monkeypatch):
    monkeypatch.chdir(folder)
    assert "onnxlrp" not in block
    names: dict = {"images": PREPROCESSING.values(pixels)}
    exec(block, names)
    assert names["relevance"].shape == expected.shape
    scale = np.abs(expected).max()
    np.testing.assert_allclose(names["relevance"], expected, atol=1e-5 * scale)


def test_a_fixed_batch_is_filled_up(tmp_path, pixels, expected, monkeypatch):
    """The same block on a model that takes four at a time."""
    import onnx

    proto = onnx.load_model_from_string((files("onnxlrp.bundled") / MODEL).read_bytes())
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    onnxlrp.convert(proto).save(tmp_path / "explainer.onnx")
    monkeypatch.chdir(tmp_path)
    names: dict = {"images": PREPROCESSING.values(pixels)}
    exec(BATCHES, names)
    np.testing.assert_allclose(names["relevance"], expected, atol=1e-5 * np.abs(expected).max())


@pytest.fixture
def service(folder, tmp_path):
    """Address of the service, in a process of its own."""
    (tmp_path / "service.py").write_text(SERVICE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "service:app", "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--log-level", "warning"],
        cwd=tmp_path,
        env=os.environ | {"EXPLAINER": str(folder / "explainer.onnx")},
    )
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/explain"
    finally:
        process.terminate()
        process.wait(10)


def post(address: str, body: bytes) -> dict:
    with urllib.request.urlopen(urllib.request.Request(address, body), timeout=60) as answer:
        return json.load(answer)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def test_the_service_answers_many_at_once(service, pixels, expected, folder):
    """Three hundred requests from 16 threads, each answer that of its own picture."""
    assert len([line for line in SERVICE.splitlines() if line]) <= 36
    bodies = [png(one) for one in pixels]
    order = [index % len(bodies) for index in range(300)]
    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda index: post(service, bodies[index]), order))
    summed = expected.sum(axis=1)
    for index, answer in zip(order, answers, strict=True):
        atol = 1e-5 * np.abs(summed).max()
        np.testing.assert_allclose(answer["relevance"], summed[index], atol=atol)
    with onnxlrp.Explainer(folder / "explainer.onnx") as run:
        explained = run(PREPROCESSING.values(pixels[:1]), target=5)
    answer = post(f"{service}?target=5", bodies[0])
    assert answer["class"] == 5
    assert answer["score"] == pytest.approx(float(explained.score[0]), rel=1e-5)


def test_the_service_survives_bad_requests(service, pixels):
    for address, body, status in [
        (service, b"no picture", 415),
        (service, png(pixels[0])[:60], 415),
        (f"{service}?target=10", png(pixels[0]), 422),
        (f"{service}?target=cat", png(pixels[0]), 422),
    ]:
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(address, body)
        assert refused.value.code == status
    assert post(service, png(pixels[0]))["class"] in range(10)


class _Server(http.server.BaseHTTPRequestHandler):
    """Answers as Triton does, by the protocol that it shares with KServe."""

    def do_POST(self) -> None:
        assert self.path == f"/v2/models/{self.server.home.name}/infer"
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        feeds = {
            tensor["name"]: np.array(
                tensor["data"], {"FP32": np.float32, "INT64": np.int64}[tensor["datatype"]]
            ).reshape(tensor["shape"])
            for tensor in request["inputs"]
        }
        feeds["target"] = feeds["target"].reshape(len(feeds["image"]))
        session = onnxruntime.InferenceSession(self.server.home / "1" / "model.onnx")
        names = [output["name"] for output in request["outputs"]]
        outputs = [
            {"name": name, "shape": array.shape, "data": array.ravel().tolist()}
            for name, array in zip(names, session.run(names, feeds), strict=True)
        ]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"outputs": outputs}).encode())

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def test_the_client_of_a_triton_server(tmp_path, pixels, expected):
    with as_file(files("onnxlrp.bundled") / MODEL) as model:
        home = triton.explainer_path(tmp_path, model).parents[1]
        triton.save(onnxlrp.convert(model), home / "1" / "model.onnx")
    with http.server.HTTPServer(("127.0.0.1", 0), _Server) as server:
        server.home = home
        threading.Thread(target=server.handle_request, daemon=True).start()
        names: dict = {
            "images": PREPROCESSING.values(pixels),
            "address": f"http://127.0.0.1:{server.server_port}",
        }
        exec(CLIENT, names)
    np.testing.assert_allclose(names["relevance"], expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.slow
def test_onnxruntime_node(folder, tmp_path, pixels, expected):
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed")
    installed = subprocess.run(
        [npm, "install", "--silent", "--no-audit", "--no-fund", "onnxruntime-node"],
        cwd=tmp_path,
        env=os.environ | {"ONNXRUNTIME_NODE_INSTALL_CUDA": "skip"},
        capture_output=True,
        text=True,
    )
    if installed.returncode:
        pytest.skip(f"npm cannot install onnxruntime-node: {installed.stderr[-300:]}")
    (tmp_path / "explain.mjs").write_text(NODE)
    PREPROCESSING.values(pixels).tofile(tmp_path / "images")
    command = ["node", "explain.mjs", str(folder / "explainer.onnx"), "images", "relevance"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=120)
    relevance = np.fromfile(tmp_path / "relevance", np.float32).reshape(expected.shape)
    np.testing.assert_allclose(relevance, expected, atol=1e-5 * np.abs(expected).max())
