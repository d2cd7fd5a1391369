"""`onnxlrp report`: what is in the page, and what a browser makes of it."""

import hashlib
import json
import os
import re
import shutil
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from support import model as network
from support import node

import onnxlrp

REVIEWS = Path(__file__).parents[2] / "models" / "reviews.onnx"


def held(path: Path) -> dict:
    (data,) = re.findall(r'id="data">(.*?)</script>', path.read_text("utf-8"))
    return json.loads(data)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures, and a file that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(3)
    for name in ("a", "b", "c"):
        Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{name}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def other(tmp_path: Path, model: Path, preprocessing) -> Path:
    path = tmp_path / "other.onnx"
    onnxlrp.convert(model, "epsilon", preprocessing=preprocessing).save(path)
    return path


def test_two_explainers_beside_each_other(
    run, explainer: Path, other: Path, model: Path, photos: Path, preprocessing
):
    arguments = ("--beside", other, "--model", model, "-o", "report.html")
    result = run("report", explainer, photos, *arguments)
    # One item fails, and only it.
    assert result.exit_code == 1
    assert "1 could not be explained" in result.stderr
    data = held(Path("report.html"))
    assert [one["name"] for one in data["entries"]] == ["a", "b", "c"]
    assert [one["source"] for one in data["failures"]] == [str(photos / "broken.png")]
    for file, place in ((explainer, 0), (other, 1)):
        with onnxlrp.Explainer(file) as alone:
            for one in data["entries"]:
                with Image.open(one["source"]) as picture:
                    found = alone(preprocessing(picture)[None])
                assert one["score"] == pytest.approx(found.score[0], rel=1e-5)
                total = pytest.approx(found.relevance.sum(), rel=1e-4)
                assert one["maps"][place]["relevance"] == total
    first, second = data["cards"]
    assert (first["name"], second["name"]) == ("explainer.onnx", "other.onnx")
    assert ["Conv", "epsilon epsilon=1e-06 bias=absorb power=1", 1] in second["rules"]
    assert second["audit"][-1] == "PASSED"


def test_explainers_of_two_models_do_not_go_together(
    run, explainer: Path, photos: Path, classifier, tmp_path: Path
):
    onnx.save(classifier(operator="Tanh"), tmp_path / "second.onnx")
    onnxlrp.convert(tmp_path / "second.onnx").save(tmp_path / "foreign.onnx")
    result = run("report", explainer, photos, "--beside", tmp_path / "foreign.onnx", "-o", "r.html")
    assert result.exit_code == 1
    assert "foreign.onnx explains another model than" in result.stderr
    assert not Path("r.html").exists()


def test_what_is_true_is_read_from_folders(run, explainer: Path, photos: Path, tmp_path: Path):
    (photos / "broken.png").unlink()
    labels = tmp_path / "labels.txt"
    labels.write_text("cat\nphotos\nowl\n")
    arguments = ("--truth", "folders", "--labels", labels, "-o", "report.html")
    assert run("report", explainer, photos, *arguments).exit_code == 0
    for one in held(Path("report.html"))["entries"]:
        assert one["truth"] == "photos"
        assert one["right"] == (one["next"][0]["label"] == "photos")


def test_a_name_that_is_no_text_spoils_no_page(run, explainer: Path, photos: Path):
    (photos / "broken.png").unlink()
    name = os.fsdecode(b"\xff <script>\n\xe2\x80\xae.png")
    shutil.copy(photos / "a.png", photos / name)
    result = run("report", explainer, photos, "-o", "report.html")
    assert result.exit_code == 0, result.output
    assert "? <script>\n\u202e" in [one["name"] for one in held(Path("report.html"))["entries"]]


def test_what_is_in_the_cards(run, explainer: Path, model: Path, photos: Path):
    run("report", explainer, photos, "-o", "report.html")
    data = held(Path("report.html"))
    (card,) = data["cards"]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (explainer, model)]
    assert [card["facts"][name] for name in ("explainer, SHA-256", "SHA-256")] == digests
    assert [node for node, _, _ in card["nodes"]] == [
        "conv",
        "activation",
        "pool",
        "flatten",
        "classify",
    ]
    assert data["made"]["items"].startswith("resized to 8x8")
    assert data["made"]["by"].startswith("onnxlrp 0.")


@pytest.fixture(scope="module")
def browser(chromium):
    return chromium()


@contextmanager
def opened(browser, path: Path, **options):
    """A report, which asks for nothing but itself and complains of nothing."""
    tab = browser.new_page(**options)
    asked, said = [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(path.resolve().as_uri())
    yield tab
    assert [url for url in asked if not url.startswith("data:")] == [path.resolve().as_uri()]
    assert said == []
    tab.close()


NAMES = "all => all.map(one => one.textContent)"


@pytest.mark.slow
def test_a_browser_sorts_and_filters(browser, run, explainer: Path, other: Path, photos: Path):
    truth = Path("truth.csv")
    truth.write_text("a,0\nb,1\nc,2\nbroken,0\n")
    run("report", explainer, photos, "--beside", other, "--truth", truth, "-o", "report.html")
    entries = {one["name"]: one for one in held(Path("report.html"))["entries"]}

    def ranked(key):
        return sorted(entries, key=lambda name: key(entries[name]), reverse=True)

    orders = {
        "given": ["a", "b", "c"],
        "name": ["a", "b", "c"],
        "high": ranked(lambda one: one["score"]),
        "low": ranked(lambda one: -one["score"]),
        "share": ranked(lambda one: -one["maps"][0]["share"]),
        "doubt": ranked(lambda one: one["astray"]),
        "margin": ranked(lambda one: -one["margin"]),
        "disagreement": ranked(lambda one: one["disagreement"]),
    }
    with opened(browser, Path("report.html")) as tab:

        def shown() -> list[str]:
            return tab.eval_on_selector_all("article h3 bdi:first-child", NAMES)

        choices = tab.eval_on_selector_all("#sort option", "all => all.map(one => one.value)")
        assert choices == [*orders]
        for order, names in orders.items():
            tab.select_option("#sort", order)
            assert shown() == names, order
        tab.select_option("#sort", "given")
        for only, right in (("right", True), ("wrong", False)):
            tab.select_option("#only", only)
            assert shown() == [name for name, one in entries.items() if one["right"] is right]
        tab.select_option("#only", "")
        label = entries["b"]["label"]
        tab.select_option("#class", label)
        assert shown() == [name for name, one in entries.items() if one["label"] == label]
        tab.fill("#find", "B.PNG")
        assert shown() == ["b"]
        assert tab.inner_text("#shown") == "1 matching items, 3 in all"
        tab.fill("#find", "nowhere")
        assert shown() == []
        tab.click("text=Show all items")
        tab.wait_for_selector("article")
        assert shown() == ["a", "b", "c"]
        assert "broken.png" in tab.inner_text("#failures li")


@pytest.mark.slow
def test_a_browser_shows_many_items_page_by_page(browser, run, explainer: Path, tmp_path: Path):
    pictures = np.random.default_rng(5).integers(0, 256, (130, 8, 8, 3), np.uint8)
    np.save(tmp_path / "set.npy", pictures)
    run("report", explainer, tmp_path / "set.npy", "-o", "report.html")
    first = "article h3 bdi:first-child"
    with opened(browser, Path("report.html")) as tab:

        def turned(button: str, page: str) -> None:
            # Chromium may answer that it was clicked before it was.
            tab.click(button)
            shown = "page => document.querySelector('#page').textContent === page"
            tab.wait_for_function(shown, arg=page)

        seen = [tab.eval_on_selector_all(first, NAMES)]
        for page in ("page 2 of 3", "page 3 of 3"):
            turned("#after", page)
            seen.append(tab.eval_on_selector_all(first, NAMES))
        assert tab.is_disabled("#after")
        assert [len(names) for names in seen] == [60, 60, 10]
        assert [*chain(*seen)] == [f"set/{number:03}" for number in range(130)]
        assert tab.inner_text("#shown") == "121 to 130 of 130 items"
        turned("#before", "page 2 of 3")
        tab.fill("#find", "set/00")
        assert tab.eval_on_selector_all(first, NAMES) == seen[0][:10]
        assert tab.is_hidden("#pages")


@pytest.mark.slow
def test_names_are_shown_and_never_obeyed(browser, run, explainer: Path, photos: Path):
    hostile = '<img src="http://x.test"> <script>alert(1)</script>'
    Path("labels.txt").write_text("\n".join([hostile] * 3))
    shutil.copy(photos / "a.png", photos / "<b onclick=alert(1)>.png")
    named = ("--labels", Path("labels.txt"), "--target", "1", "--title", hostile)
    run("report", explainer, photos, *named, "-o", "report.html")
    with opened(browser, Path("report.html")) as tab:
        assert tab.inner_text("h1") == hostile
        assert tab.inner_text("article h3 >> nth=0") == f"<b onclick=alert(1)>: {hostile}"
        assert tab.locator("b[onclick], img:not([src^=data]), h1 script").count() == 0


@pytest.mark.slow
def test_a_report_by_keyboard_and_by_finger(browser, run, explainer: Path, photos: Path):
    run("report", explainer, photos, "-o", "report.html")
    cut = "getComputedStyle(document.querySelector('.over')).clipPath"
    with opened(browser, Path("report.html"), has_touch=True) as tab:
        reached = []
        for _ in range(11):
            tab.keyboard.press("Tab")
            reached.append(tab.evaluate("document.activeElement.id || document.activeElement.type"))
            # What has the focus shows it.
            assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
        assert reached[4:9] == ["find", "class", "only", "sort", "regions"]
        assert reached[9] == "range"
        tab.focus("article input")
        assert tab.evaluate(cut) == "inset(0px 0px 0px 0%)"
        for _ in range(3):
            tab.keyboard.press("ArrowRight")
        assert tab.evaluate(cut) == "inset(0px 0px 0px 3%)"
        box = tab.locator(".stage").first.bounding_box()
        tab.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + 9)
        assert tab.input_value("article input >> nth=0") == "50"
        tab.press("#regions", "Space")
        assert tab.locator(".region").first.is_visible()


@pytest.mark.slow
def test_a_browser_draws_rows_and_signals(browser, run):
    weights = np.array([[1.0], [2.0], [-3.0]], np.float32)
    rows = network([node("MatMul", ["x", "w"], "y")], {"x": ["N", 3]}, ["y"], {"w": weights})
    onnxlrp.convert(rows, "gradient_x_input").save("rows.onnx")
    Path("data.csv").write_text("a,b,c\n4,1,1\n")
    run("report", "rows.onnx", "data.csv", "-o", "rows.html")
    with opened(browser, Path("rows.html")) as tab:
        names = tab.eval_on_selector_all(".bars th", NAMES)
        numbers = tab.eval_on_selector_all(".bars .number", NAMES)
        assert names == ["a = 4", "c = 1", "b = 1"]
        assert numbers == ["+4", "−3", "+2"]
        bars = [one.bounding_box() for one in tab.locator(".bar i").all()]
        widths = np.array([bar["width"] for bar in bars])
        assert widths / widths[0] == pytest.approx([1, 0.75, 0.5], rel=0.02)
        # What speaks against ends where the others start.
        assert bars[1]["x"] + bars[1]["width"] == pytest.approx(bars[0]["x"], abs=1)
        assert bars[2]["x"] == pytest.approx(bars[0]["x"], abs=1)

    kernel = {"k": np.ones((1, 1, 1), np.float32)}
    body = [node("Conv", ["x", "k"], "c"), node("ReduceSum", ["c", "axis"], "y", keepdims=0)]
    axis = {"axis": np.array([2])}
    signals = network(body, {"x": ["N", 1, 32]}, ["y"], kernel | axis)
    onnxlrp.convert(signals, "gradient_x_input").save("signals.onnx")
    signal = np.zeros((1, 1, 32), np.float32)
    signal[0, 0, 5], signal[0, 0, 20] = 4.0, -2.0
    np.save("signal.npy", signal)
    run("report", "signals.onnx", "signal.npy", "-o", "signals.html")
    with opened(browser, Path("signals.html")) as tab:
        assert "for class 0: 4–5 +4" in tab.inner_text("figcaption")
        assert "against class 0: 19–20 −2" in tab.inner_text("figcaption")
        # Columns are two units wide: from the first one's middle to the last one's.
        box = tab.locator("path.halo").evaluate(
            "one => [one.getBBox().x, one.getBBox().width, "
            "one.ownerSVGElement.viewBox.baseVal.width]"
        )
        assert box == [1, 62, 64]
        stripes, svg = (tab.locator(f".signal {tag}").bounding_box() for tag in ("img", "svg"))
        assert stripes == svg


@pytest.mark.slow
def test_axe_finds_nothing_to_mend(
    browser, accessible, run, explainer: Path, other: Path, photos: Path
):
    run("report", explainer, photos, "--beside", other, "-o", "report.html")
    run("convert", REVIEWS, "reviews.onnx")
    sentences = ("--text", "a dull and joyless film", "--text", "funny, smart and warm")
    run("report", "reviews.onnx", *sentences, "-o", "texts.html")
    for name, scheme in (
        ("report.html", "light"),
        ("report.html", "dark"),
        ("texts.html", "light"),
    ):
        with opened(browser, Path(name), color_scheme=scheme) as tab:
            # It judges only what is drawn.
            tab.evaluate(
                "document.querySelectorAll('details').forEach(one => { one.open = true });"
                "document.querySelectorAll('article').forEach(one => "
                "{ one.style.contentVisibility = 'visible' })"
            )
            wrong, passed = accessible(tab)
            assert wrong == [], f"{name}, {scheme}"
            assert passed > 30
            if name == "texts.html":
                tab.fill("#find", "JOYLESS")
                assert tab.locator("article").count() == 1
