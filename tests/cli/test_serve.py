"""`onnxlrp serve`: what is answered, and what a browser makes of it."""

import base64
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import warnings
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import PIL
import pytest
from PIL import Image, ImageDraw, ImageFont
from support import model as model_of
from support import node, normal

import onnxlrp
from onnxlrp.audit import limits
from onnxlrp.cli.serve import server
from onnxlrp.inputs.items import as_picture
from onnxlrp.inputs.preprocessing import Preprocessing
from onnxlrp.inputs.presets import PRESETS


@contextmanager
def serving(*files: Path):
    """The page's port."""
    running = server(files)
    thread = threading.Thread(target=running.serve_forever, args=(0.02,))
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
        assert answer(port, "/tokenizers/tokenizers.min.mjs")[0] == 200


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


def test_the_tokenizer_beside_an_explainer_is_served(explainer: Path):
    beside = explainer.with_name("explainer.tokenizer.json")
    beside.write_text("{}")
    with serving(explainer) as port:
        names = [one["name"] for one in json.loads(answer(port, "/given.json")[2])]
        assert names == ["explainer.onnx", "explainer.tokenizer.json"]


def test_files_that_cannot_be_served(run, model: Path, explainer: Path, tmp_path: Path):
    onnxlrp.convert(model).save(tmp_path / "apart.onnx", external_data=True)
    (tmp_path / "notes.md").write_text("# Notes")
    (tmp_path / "text.onnx").write_text("no model")
    for file, said in {
        "missing.onnx": "missing.onnx: no such file",
        "model.onnx": "model.onnx is a plain model: make an explainer of it with `onnxlrp convert",
        "apart.onnx": "apart.onnx keeps its weights in another file, which a page cannot read",
        "text.onnx": "text.onnx is not an ONNX file, or it is cut short",
        "notes.md": "notes.md is nothing that the page reads: give explainers (.onnx)",
        ".": ". is a folder: give explainers",
    }.items():
        result = run("serve", "--no-browser", file)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"Error: {said}")
        assert result.stderr.count("\n") == 1


def test_explainers_that_the_page_does_not_compare(run, explainer: Path, classifier):
    onnxlrp.convert(classifier(softmax=True)).save("other.onnx")
    for files in ([explainer, "other.onnx"], [explainer] * 2 + ["other.onnx"]):
        result = run("serve", "--no-browser", *files)
        named = ", ".join(map(str, dict.fromkeys(files)))
        said = f"Error: the page compares two explainers of one model, not {named}\n"
        assert (result.exit_code, result.stderr) == (1, said)


def test_a_file_that_is_gone_is_not_answered(explainer: Path, photo: Path, capfd):
    with serving(explainer, photo) as port:
        photo.unlink()
        assert answer(port, "/given/1")[0] == 404
        assert answer(port, f"/given/{'1' * 5000}")[0] == 404
    assert capfd.readouterr().err == ""


def test_a_port_that_is_taken(run):
    with serving() as port:
        result = run("serve", "--no-browser", "--port", port)
    assert (result.exit_code, result.stderr) == (
        1,
        f"Error: port {port} is taken: give another, or none for one free\n",
    )


@pytest.mark.skipif(os.name == "nt", reason="there Ctrl-C is no signal that a test can send")
def test_ctrl_c_ends_it_well(explainer: Path):
    # Where tests run in the background, Ctrl-C is ignored from the start.
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from onnxlrp.cli import main; main()"
    )
    command = [sys.executable, "-c", script, "serve", "--no-browser", str(explainer)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    address = process.stdout.readline()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/ \(Ctrl-C ends it\)\n", address)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 0


def test_a_browser_that_goes_leaves_the_terminal_alone(explainer: Path, capfd):
    with serving(explainer) as port:
        for _ in range(3):
            with closing(socket.create_connection(("127.0.0.1", port))) as gone:
                path = b"/ort/ort-wasm-simd-threaded.asyncify.wasm"
                gone.sendall(b"GET " + path + b" HTTP/1.0\r\nHost: localhost\r\n\r\n")
                # Closing at once resets the connection that is being written to.
                gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert answer(port, "/")[0] == 200
    assert capfd.readouterr() == ("", "")


@pytest.fixture(scope="module")
def browser(chromium):
    """Runs WebAssembly alone."""
    return chromium()


def opened(browser, port: int, query: str = ""):
    """Open the page in a window of its own, and wait for what it was given."""
    page = browser.new_page()
    page.set_default_timeout(120_000)
    page.goto(f"http://127.0.0.1:{port}/{query}")
    page.wait_for_function("globalThis.onnxlrp")
    page.evaluate("onnxlrp.settled()")
    return page


def put(page, place: str, *files: Path) -> None:
    """Choose files where the page asks for them."""
    page.set_input_files(f"#{place}", list(files))
    page.evaluate("onnxlrp.settled()")


def typed(page, text: str) -> None:
    page.fill("#typed", text)
    page.click("#typing button")
    page.evaluate("onnxlrp.settled()")


def message(page) -> str:
    return page.inner_text("#message")


def shown(page) -> list[tuple[dict, list]]:
    """Relevance by input, and scores, of each explainer that is open."""
    read = """onnxlrp.state.shown.map(({ found }) => [Object.fromEntries(Object.entries(
      found.relevance).map(([name, { data }]) => [name, [...data]])), [...found.scores]])"""
    return page.evaluate(read)


def close(found: list, expected: np.ndarray) -> None:
    """Compare to 1e-4 of the largest relevance."""
    most = np.abs(expected).max()
    found = np.reshape(found, expected.shape)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * most)


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
        page = opened(browser, port)
        assert message(page) == ""
        for target in ("", "2"):
            if target:
                page.select_option("#class", target)
                page.evaluate("onnxlrp.settled()")
            for path, (relevance, scores) in zip(paths, shown(page), strict=True):
                with onnxlrp.Explainer(path) as alone:
                    expected = alone(values, int(target) if target else "top")
                close(*relevance.values(), expected.relevance)
                np.testing.assert_allclose(scores, expected.scores[0], rtol=1e-4, atol=1e-5)
        page.hover("canvas")
        row, column = map(int, re.findall(r"\d+", page.inner_text("#hover"))[:2])
        pixel = expected.relevance[0, :, row, column].sum()
        assert float(page.inner_text("#hover").split()[-1]) == pytest.approx(pixel, rel=1e-3)


SHARED = Path(__file__).parents[3] / "shared"
BUNDLED = Path(__file__).parents[2] / "models"
CAFFE = PRESETS["imagenet-caffe"]
CIFAR = Preprocessing(resize=(32, 32))
TORCH = PRESETS["imagenet"]
VOICE = {"inputs": ["input"], "output": "/output/Conv_output_0", "at": "all", "class_axis": 1}
NETWORKS = {
    "cifar10_lrn": CIFAR,
    "cifar10_without_lrn": CIFAR,
    "cifar10_vit": CIFAR,
    "cifar10_resnet20_bn": Preprocessing(resize=32, scale=1 / 255, mean=TORCH.mean, std=TORCH.std),
    "googlenet_bvlc": CAFFE,
    "squeezenet_winml_fp32": CAFFE,
    "efficientnet_lite0": Preprocessing(resize=(224, 224), mean=(127,), std=(128,)),
    "mobilenet_v1_0.5_160_quant_f32": Preprocessing(resize=(160, 160), mean=(127.5,), std=(127.5,)),
    "ch_ppocr_mobile_v2.0_cls_infer": Preprocessing(resize=(48, 192), mean=(127.5,), std=(127.5,)),
}
"""The bundled and shared networks of pictures, and how these are made."""


def at_hand(name: str) -> Path:
    """A bundled or shared network."""
    path = BUNDLED / f"{name}.onnx"
    if not path.exists():
        path = SHARED / "models" / path.name
    if not path.exists():
        pytest.skip("needs the trained networks of the development machine")
    return path


def one_node(
    operator: str, *shapes, outputs: int = 1, dtype: str = "float32", **attributes
) -> bytes:
    """Build a model of one node, which reads inputs of these shapes, then weights."""
    names = [f"x{place}" for place in range(len(shapes))]
    weights = attributes.pop("weights", {})
    made = [f"y{place}" for place in range(outputs)]
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(operator, [*names, *weights], made, **attributes)],
        "one",
        [
            onnx.helper.make_tensor_value_info(name, kind, shape)
            for name, shape in zip(names, shapes, strict=True)
        ],
        [onnx.helper.make_empty_tensor_value_info(name) for name in made],
        [
            onnx.numpy_helper.from_array(array, name)
            for name, array in weights.items()
            if array is not None
        ],
    )
    opset = [onnx.helper.make_opsetid("", 18)]
    proto = onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)
    return onnx.shape_inference.infer_shapes(proto).SerializeToString()


def resized(**attributes) -> bytes:
    scales = {"": None, "scales": np.array([1, 1, 0.5, 0.5], np.float32)}
    return one_node("Resize", [1, 2, 8, 8], weights=scales, mode="linear", **attributes)


def arithmetic(operator: str) -> tuple[bytes, bytes]:
    return tuple(one_node(operator, [2], [2], dtype=kind) for kind in ("float64", "float32"))


POOL = {"kernel_shape": [2, 2], "strides": [2, 2]}
VOLUME = [1, 4, 5, 5, 5]
ONE_NODE = {
    ("Split", "outputs>7"): (
        one_node("Split", [2, 20], outputs=20, axis=1, num_outputs=20),
        one_node("Split", [2, 7], outputs=7, axis=1, num_outputs=7),
    ),
    ("MaxPool", "outputs>1"): (
        one_node("MaxPool", [1, 2, 8, 8], outputs=2, **POOL),
        one_node("MaxPool", [1, 2, 9, 9], ceil_mode=1, **POOL),
    ),
    ("Conv", "rank>4 group>1"): (
        one_node("Conv", VOLUME, weights={"w": normal(4, 2, 3, 3, 3)}, group=2),
        one_node("Conv", VOLUME, weights={"w": normal(4, 4, 3, 3, 3)}),
    ),
    ("Conv", "rank<5 group=1 channels>3 channels%3=0 channels%4>0 maps%4=0 product=0"): (
        one_node("Conv", [1, 9, 5, 6], weights={"w": normal(8, 9, 3, 3)}),
        one_node("Conv", [1, 9, 5, 6], weights={"w": normal(8, 9, 1, 1)}),
    ),
    ("ConvTranspose", "rank>4"): (
        one_node("ConvTranspose", VOLUME, weights={"w": normal(4, 2, 3, 3, 3)}),
        one_node("ConvTranspose", [1, 4, 5, 5], weights={"w": normal(4, 2, 3, 3)}),
    ),
    ("Resize", "antialias=1"): (resized(antialias=1), resized()),
    ("*", "T=f16"): (one_node("Relu", [2], dtype="float16"), one_node("Relu", [2])),
    **{(operator, "T=f64"): arithmetic(operator) for operator in ("Add", "Sub", "Mul", "Div")},
    ("Cast", "T=f64"): (one_node("Cast", [2], to=11), one_node("Cast", [2], to=6)),
}
"""By what the table of limits names, a model beyond the limit and one within."""

TRY = """async ([model, executionProviders]) => {
  const ort = (globalThis.ort ??= await import("/ort/ort.webgpu.min.mjs"));
  ort.env.wasm.wasmPaths = location.origin + "/ort/";
  const bytes = Uint8Array.from(atob(model), (sign) => sign.charCodeAt(0));
  try {
    const session = await ort.InferenceSession.create(
      bytes, { executionProviders, logSeverityLevel: 4 });
    const feeds = Object.fromEntries(session.inputMetadata.map(({ name, type, shape }) => {
      const Numbers = { float16: Float16Array, float32: Float32Array, float64: Float64Array }[type];
      const length = shape.reduce((a, b) => a * b, 1);
      return [name, new ort.Tensor(type, Numbers.from({ length }, (_, k) => (k % 7) - 3), shape)];
    }));
    return Array.from(await Object.values(await session.run(feeds))[0].getData(), Number);
  } catch (error) {
    return String(error);
  }
}"""


@pytest.fixture(scope="module")
def window(browser):
    """The page without files, opened once."""
    with serving() as port:
        yield opened(browser, port, "?wasm")


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_of_pictures(window, name: str, tmp_path: Path):
    path, how = tmp_path / f"{name}.onnx", NETWORKS[name]
    # By default the texts' network is so ill-conditioned that onnxruntime differs by 1e-3 from
    # itself without its graph optimizations.
    composite = "epsilon_plus_even" if "ocr" in name else "default"
    onnxlrp.convert(at_hand(name), composite, preprocessing=how).save(path)
    photo = tmp_path / "photo.png"
    if "ocr" in name:
        line = Image.new("RGB", (192, 48), "white")
        ImageDraw.Draw(line).text((8, 6), "Hello 2745", font=ImageFont.load_default(30), fill=0)
        line.save(photo)
    else:
        shutil.copy(BUNDLED / "demo.png", photo)
    put(window, "first", path)
    put(window, "item", photo)
    assert message(window) == ""
    [(relevance, scores)] = shown(window)
    with onnxlrp.Explainer(path) as alone, Image.open(photo) as picture:
        expected = alone(how(picture)[None])
    close(*relevance.values(), expected.relevance)
    np.testing.assert_allclose(scores, expected.scores[0], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_pixels_of_an_array_are_pictures(window, model: Path, tmp_path: Path):
    path = tmp_path / "explainer.onnx"
    how = Preprocessing(resize=(8, 8), scale=1 / 255)
    onnxlrp.convert(model, preprocessing=how).save(path)
    put(window, "first", path)
    random = np.random.default_rng(6)
    with onnxlrp.Explainer(path) as alone:
        for shape in ((3, 21, 17, 3), (12, 10, 4), (12, 10), (12, 10, 1)):
            pixels, file = random.integers(0, 256, shape, np.uint8), tmp_path / f"{shape}.npz"
            np.savez(file, images=pixels, y=np.zeros(len(pixels)))
            put(window, "item", file)
            if len(shape) == 4:
                window.fill("#sample", "2")
                window.dispatch_event("#sample", "change")
                window.evaluate("onnxlrp.settled()")
                pixels = pixels[1]
            assert message(window) == ""
            expected = alone(how(as_picture(pixels))[None])
            close(shown(window)[0][0]["image"], expected.relevance)
    for array, said in (
        (np.zeros((4, 4, 5), np.uint8), "5.npy: uint8 [4, 4, 5] is no picture: those are uint8"),
        (np.zeros((0, 4, 4, 3), np.uint8), "0.npy: uint8 [0, 4, 4, 3] is no picture"),
        (np.zeros((0, 3, 8, 8), np.float32), "none.npy holds no numbers"),
    ):
        file = tmp_path / re.match(r"\w+\.npy", said)[0]
        np.save(file, array)
        put(window, "item", file)
        assert message(window).startswith(said)


@pytest.mark.slow
def test_a_file_that_was_written_anew_is_chosen_again(window, model: Path, tmp_path: Path):
    path, photo = tmp_path / "explainer.onnx", tmp_path / "photo.png"
    onnxlrp.convert(model, preprocessing=Preprocessing(resize=(8, 8))).save(path)
    put(window, "first", path)
    found = []
    for colour in ("teal", "orange"):
        Image.new("RGB", (8, 8), colour).save(photo)
        with window.expect_file_chooser() as chooser:
            window.click("#item")
        chooser.value.set_files(photo)
        window.evaluate("onnxlrp.settled()")
        found.append(shown(window)[0][1])
    assert found[0] != found[1]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_to_mend(window, accessible, model: Path, tmp_path: Path, scheme: str):
    paths = [tmp_path / "one.onnx", tmp_path / "other.onnx"]
    for path in paths:
        onnxlrp.convert(model, preprocessing=Preprocessing(resize=(8, 8))).save(path)
    for place, path in zip(
        ("first", "second", "item"), (*paths, BUNDLED / "demo.png"), strict=True
    ):
        put(window, place, path)
    window.emulate_media(color_scheme=scheme)
    assert window.locator("figure").count() == 2
    wrong, passed = accessible(window)
    assert wrong == []
    assert passed > 20


@pytest.mark.slow
def test_texts(window, tmp_path: Path):
    path, tokenizer = tmp_path / "reviews.onnx", BUNDLED / "reviews.tokenizer.json"
    onnxlrp.convert(BUNDLED / "reviews.onnx").save(path)
    put(window, "first", path)
    assert message(window) == "reviews.onnx is open: now its tokenizer.json"
    put(window, "tokenizer", tokenizer)
    assert message(window) == "reviews.onnx is open: now a text: type it"
    texts = (
        "A gripping, beautifully acted film that never quite drags.",
        "Café-owner's naïve TÊTE-À-TÊTE... 3.5 stars, 日本 & “quotes”!",
        # 128 tokens at most are read.
        "not good " * 80,
    )
    with onnxlrp.Explainer(path, tokenizer=tokenizer) as alone:
        for text in texts:
            typed(window, text)
            assert message(window).startswith("the text is longer") == (len(text) > 500)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected = alone([text])
            close(shown(window)[0][0]["input_ids"], expected.relevance)
            pieces = window.evaluate("onnxlrp.state.shown[0].how.text.pieces")
            assert pieces == list(expected.texts[0].pieces)
    np.save(tmp_path / "ids.npy", alone.reader(texts[0]).ids)
    put(window, "item", tmp_path / "ids.npy")
    assert message(window) == ""


@pytest.mark.slow
def test_rows_typed_in_a_table_and_as_arrays(window, tmp_path: Path):
    x, features = normal(3, 4), ["long", "wide", "old", "far"]
    dense = model_of(
        [node("Gemm", ["x", "w"], "h"), node("Relu", ["h"], "a"), node("Gemm", ["a", "v"], "y")],
        {"x": ["N", 4]}, ["y"], {"w": normal(4, 16, seed=1), "v": normal(16, 3, seed=2)},
    )  # fmt: skip
    path = tmp_path / "table.onnx"
    onnxlrp.convert(dense, features=features).save(path)
    with onnxlrp.Explainer(path) as alone:
        expected = alone(x).relevance
    put(window, "first", path)
    typed(window, ", ".join(map(str, x[0])))
    close(shown(window)[0][0]["x"], expected[0])
    assert set(window.locator("tbody th").all_inner_texts()) == set(features)
    typed(window, "1, 2, 3")
    assert message(window) == "it has 3 columns, and the model reads 4"
    assert not window.is_visible("#result")

    rows = [f"{far};no;{long};{wide};{old}" for long, wide, old, far in x]
    (tmp_path / "rows.csv").write_text("\n".join(['far;"so\nld";long;wide;old', *rows]))
    for file in ("rows.csv", "rows.npy", "rows.npz"):
        np.save(tmp_path / "rows.npy", x)
        np.savez_compressed(tmp_path / "rows.npz", x=x, y=np.zeros(3))
        put(window, "item", tmp_path / file)
        close(shown(window)[0][0]["x"], expected[0])
        window.fill("#sample", "3")
        window.press("#sample", "Tab")
        window.evaluate("onnxlrp.settled()")
        close(shown(window)[0][0]["x"], expected[2])
    np.save(tmp_path / "rows.npy", x[:, :3])
    put(window, "item", tmp_path / "rows.npy")
    assert message(window) == "rows.npy is [3, 3], and 'x' of table.onnx reads [?, 4]"


@pytest.mark.slow
def test_a_voice_detector(window, tmp_path: Path):
    path = tmp_path / "voice.onnx"
    onnxlrp.convert(at_hand("silero_vad_16k_sequence"), **VOICE).save(path)
    sound = {"input": normal(20, 576, scale=0.05)} | dict.fromkeys("hc", np.zeros((1, 1, 128), "f"))
    np.savez(tmp_path / "sound.npz", **sound)
    put(window, "first", path)
    put(window, "item", tmp_path / "sound.npz")
    assert message(window) == ""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    [expected] = session.run(["relevance"], {**sound, "target": np.array([-1])})
    close(shown(window)[0][0]["input"], expected)
    assert "the 8 most relevant of 20 channels" in window.inner_text("#maps")


@pytest.fixture(scope="module")
def webgpu(chromium):
    """The page in a browser that has WebGPU, by software."""
    with serving() as port:
        yield opened(chromium("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"), port)


def split(parts: int) -> onnx.ModelProto:
    """Each part of a picture's row goes through a Relu of its own, and all into three classes."""
    names = [f"s{k}" for k in range(parts)]
    body = [
        node("Flatten", ["x"], "flat"),
        onnx.helper.make_node("Split", ["flat"], names, name="split", axis=1, num_outputs=parts),
        *(node("Relu", [name], f"a_{name}") for name in names),
    ]
    total = "a_s0"
    for name in names[1:]:
        body.append(node("Add", [total, f"a_{name}"], f"sum_{name}"))
        total = f"sum_{name}"
    body.append(node("Gemm", [total, "w"], "logits"))
    return model_of(body, {"x": ["N", 3, 4, parts]}, ["logits"], {"w": normal(12, 3)})


@pytest.mark.slow
def test_webgpu_is_held_against_webassembly(webgpu, tmp_path: Path):
    """WebGPU runs what it computes alike; WebAssembly what it refuses, and the page says why."""
    networks = {
        "bundled": (BUNDLED / "cifar10_lrn.onnx", CIFAR),
        # An adapter's storage buffers, 8 to 16, are fewer than a Split into 20 needs.
        "split": (split(20), Preprocessing(resize=(4, 20), scale=1 / 255)),
    }
    for name, (model, how) in networks.items():
        path = tmp_path / f"{name}.onnx"
        onnxlrp.convert(model, preprocessing=how).save(path)
        put(webgpu, "first", path)
        put(webgpu, "item", BUNDLED / "demo.png")
        with onnxlrp.Explainer(path) as alone, Image.open(BUNDLED / "demo.png") as picture:
            expected = alone(how(picture)[None], 1)
        # The first map is WebAssembly's, the next WebGPU's.
        webgpu.select_option("#class", "1")
        webgpu.evaluate("onnxlrp.settled()")
        close(*shown(webgpu)[0][0].values(), expected.relevance)
        told = webgpu.inner_text("figcaption .facts")
        if name == "bundled":
            assert "by WebGPU (WebGPU agrees with WebAssembly to" in told
        else:
            assert "by WebAssembly (not by WebGPU: " in told


@pytest.mark.slow
@pytest.mark.parametrize("row", limits._table(), ids=lambda row: " ".join(row.values()))
def test_the_table_of_limits_is_true(webgpu, row):
    """What the page's own onnxruntime-web is said to fail on it does, and not on less."""
    if row["package"] == "onnxruntime-web":
        pytest.skip("the page ships another build of it")

    def tried(model: bytes, *providers: str) -> str | list[float]:
        """What comes out first, or what is said where nothing does."""
        return webgpu.evaluate(TRY, [base64.b64encode(model).decode(), providers])

    beyond, within = ONE_NODE[row["operator"], row["condition"]]
    found = tried(beyond, "webgpu", "wasm")
    if row["outcome"] == "wrong":
        assert found != pytest.approx(tried(beyond, "wasm"), rel=0.1)
    else:
        assert isinstance(found, str)
    assert tried(within, "webgpu", "wasm") == pytest.approx(tried(within, "wasm"), rel=1e-3)


def pictures() -> dict[str, bytes]:
    """One photograph in every kind of file, some of it transparent, turned or moving."""
    with Image.open(BUNDLED / "demo.png") as demo:
        photo = demo.convert("RGB").resize((157, 121), Image.Resampling.BICUBIC)
    clear = photo.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(photo.size))
    other = Image.new("RGB", photo.size, "teal")
    turned = Image.Exif()
    turned[274] = 6
    made = {
        "rgb.png": (photo, {}),
        "grey.png": (photo.convert("L"), {}),
        "clear.png": (clear, {}),
        "palette.png": (photo.quantize(32), {"transparency": 3}),
        "turned.png": (photo, {"exif": turned}),
        "photo.jpg": (photo, {"quality": 85}),
        "turned.jpg": (photo, {"exif": turned}),
        "progressive.jpg": (photo, {"progressive": True}),
        "cmyk.jpg": (photo.convert("CMYK"), {}),
        "lossless.webp": (clear, {"lossless": True}),
        "lossy.webp": (photo, {"quality": 80}),
        "moving.gif": (photo.quantize(64), {"save_all": True, "append_images": [other]}),
        "photo.bmp": (photo, {}),
    }
    files = {}
    for name, (picture, options) in made.items():
        file = io.BytesIO()
        picture.save(file, {"jpg": "JPEG"}.get(name[-3:], name.rpartition(".")[2]), **options)
        files[name] = file.getvalue()
    return files


@pytest.mark.slow
def test_pictures_are_made_as_python_makes_them(window):
    """Pixel by pixel; where a format loses something, decoders may be a level or two apart."""
    hows = [
        *PRESETS.values(),
        Preprocessing(resize=(50, 70)),
        Preprocessing(resize=(110, 60), channels="BGR", layout="NHWC", mean=(1, 2, 3)),
        Preprocessing(resize=200, crop=(181, 190), scale=1 / 255),
        Preprocessing(resize=(28, 28), channels="grey", scale=-1 / 255, mean=(0.13,), std=(0.3,)),
        Preprocessing(crop=(21, 34)),
    ]
    read = """async ([data, hows]) => {
      const { decoded, prepared } = await import("/picture.js");
      const bytes = Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0));
      const pixels = await decoded(new File([bytes], "photo"));
      return hows.map((how) => {
        const { values, seen } = prepared(pixels, JSON.parse(how));
        return [values, seen.data].map((array) => {
          const raw = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
          return raw.reduce((all, byte) => all + String.fromCharCode(byte), "");
        });
      });
    }"""
    for name, content in pictures().items():
        given = [base64.b64encode(content).decode(), [how.to_json() for how in hows]]
        for how, found in zip(hows, window.evaluate(read, given), strict=True):
            with Image.open(io.BytesIO(content)) as picture:
                pixels = how.pixels(picture)
            values, seen = (text.encode("latin-1") for text in found)
            seen = np.frombuffer(seen, np.uint8).reshape(pixels.shape)
            off = np.abs(seen.astype(int) - pixels)
            # Before 13.0 Pillow resized along the axes in another order.
            lossy = name.endswith(("jpg", "lossy.webp")) or int(PIL.__version__.split(".")[0]) < 13
            assert off.max() <= 2 * lossy, (name, how)
            expected = how.values(seen)
            values = np.frombuffer(values, np.float32).reshape(expected.shape)
            most = np.abs(expected).max()
            np.testing.assert_allclose(values, expected, rtol=0, atol=1e-6 * most)


@pytest.mark.slow
def test_nothing_leaves_the_machine(browser, explainer: Path, photo: Path):
    asked, refused = [], []
    with serving(explainer, photo) as port:
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda said: refused.append(said.text))
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_function("globalThis.onnxlrp")
        page.evaluate("onnxlrp.settled()")
        assert len(shown(page)) == 1
        home = (f"http://127.0.0.1:{port}/", f"blob:http://127.0.0.1:{port}/", "data:")
        assert asked
        assert [url for url in asked if not url.startswith(home)] == []
        # What a fault in the page might do, the page's own policy forbids.
        refused.clear()
        send = "fetch('http://localhost:9/').then(() => 'sent', () => 'not sent')"
        assert page.evaluate(send) == "not sent"
        assert "Content Security Policy" in refused[0]


@pytest.mark.slow
def test_the_keyboard_alone_reads_a_map_and_changes_the_class(
    browser, explainer: Path, photo: Path
):
    with serving(explainer, photo) as port:
        page = opened(browser, port)
        page.focus("#class")
        page.keyboard.press("ArrowDown")
        page.evaluate("onnxlrp.settled()")
        second = int(np.argsort(shown(page)[0][1])[-2])
        assert page.input_value("#class") == str(second)
        assert f"class {second}" in page.inner_text("figcaption")
        assert page.evaluate("document.activeElement.id") == "class"
        for _ in range(9):
            if page.evaluate("document.activeElement.tagName") == "CANVAS":
                break
            page.keyboard.press("Tab")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        told = page.inner_text("#hover")
        pixels = np.reshape(shown(page)[0][0]["image"], (3, 8, 8)).sum(axis=0)
        assert told.startswith("row 2, column 1: ")
        assert float(told.split()[-1]) == pytest.approx(pixels[2, 1], rel=1e-3)


@pytest.mark.slow
def test_a_file_that_cannot_be_explained_gets_one_line(window, model: Path, tmp_path: Path):
    cut, text, photo = tmp_path / "cut.onnx", tmp_path / "text.onnx", tmp_path / "photo.png"
    cut.write_bytes(model.read_bytes()[:-9])
    text.write_text("no model at all, only words")
    photo.write_text("no picture")
    onnxlrp.convert(model).save(tmp_path / "apart.onnx", external_data=True)
    onnxlrp.convert(model, target="weights").save(tmp_path / "weights.onnx")
    onnxlrp.convert(model).save(tmp_path / "unsaid.onnx")
    for file, said in {
        model: "this is a plain model: make an explainer of it with",
        cut: "the file is cut short",
        text: "the file is no ONNX model",
        tmp_path / "apart.onnx": "it keeps its weights in another file, which a page cannot read",
        tmp_path / "weights.onnx": "it takes weights when it runs, which this page does not give",
    }.items():
        put(window, "first", file)
        assert message(window).startswith(f"{file.name}: {said}")
    put(window, "item", photo)
    assert message(window) == "photo.png is no picture that this browser reads"
    Image.new("I;16", (8, 8)).save(tmp_path / "deep.png")
    put(window, "item", tmp_path / "deep.png")
    assert message(window) == "deep.png: it is grey in 16 bits: save it as 8-bit first"
    put(window, "first", tmp_path / "unsaid.onnx")
    Image.new("RGB", (8, 8)).save(photo)
    window.set_input_files("#item", [])
    put(window, "item", photo)
    assert "does not say how its pictures are made: convert with --preprocess" in message(window)
