import json
import re

from onnxlrp.reporting import page


def test_a_page_asks_nobody_and_holds_what_it_shows():
    hostile = '</script><img src="http://x/"> $style$'
    text = page(hostile, [{"label": hostile}], [], [("a.png", "cut short")], "orange-blue", {})
    assert "<title>&lt;/script&gt;&lt;img" in text
    (held,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    shades = json.loads(held).pop("shades")
    # Of the strongest against, of none, of the strongest for.
    assert [shades[at] for at in (0, 100, 200)] == [
        ["#004c7a", "#ffffff"],
        ["#f7f6f7", "#000000"],
        ["#8f3c00", "#ffffff"],
    ]
    assert {**json.loads(held), "shades": None} == {
        "entries": [{"label": hostile}],
        "cards": [],
        "failures": [{"source": "a.png", "reason": "cut short"}],
        "made": {},
        "shades": None,
    }
    outside = text.replace(held, "")
    assert not re.findall(r"""(?:src|href)=["'](?!#|\$)""", outside)
    assert "connect-src" not in text
    assert "default-src 'none'" in text
