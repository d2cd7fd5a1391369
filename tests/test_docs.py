"""The documents that are built from the code say what the code does."""

import runpy
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).parents[1] / "docs"


def test_rules_are_described_as_they_are_computed():
    """If this fails, run `python docs/make_rules.py` and look at what changed."""
    written = (DOCS / "rules.md").read_text("utf-8")
    script = runpy.run_path(str(DOCS / "make_rules.py"))
    assert script["text"]() == written
    for name, (_, _, line) in script["rules"]().items():
        assert not line or (DOCS / "rules" / f"{name.replace(' ', '_')}.png").is_file()


def test_a_picture_of_the_same_pixels_is_left_alone(tmp_path):
    keep = runpy.run_path(str(DOCS / "make_rules.py"))["keep"]
    path = tmp_path / "rule.png"
    red, blue = (Image.new("RGB", (3, 2), colour) for colour in ("red", "blue"))
    red.save(path, compress_level=0)
    before = path.read_bytes()
    keep(red.quantize(64), path)
    assert path.read_bytes() == before
    keep(blue.quantize(64), path)
    assert Image.open(path).convert("RGB").getpixel((0, 0)) == (0, 0, 255)
