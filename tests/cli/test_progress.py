"""What a long run shows of itself, on a terminal and in a log."""

import os
import re
import subprocess
import sys

import pytest

from onnxlrp.cli import progress

CODE = """
import sys, time
from onnxlrp.cli.progress import progress, shown
from onnxlrp.cli.terminal import echo
from onnxlrp.telling import counted, tell
with progress(200, "items", 120) as advance:
    for number in range(80):
        advance()
        if number == 40:
            echo("Error: one item", err=True)
with shown():
    tell("reading")
    for layer in counted(range(3), "layers"):
        time.sleep(0.12)
    tell("a name of which not all letters have room beside a bar")
    sys.stdout.write("result\\n")
    {end}
"""


def on_terminal(end: str = "", **environment: str) -> tuple[str, str, int]:
    """What stderr shows on a terminal of 80 columns, what a pipe gets of stdout, exit status."""
    master, slave = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", CODE.format(end=end)],
        stdout=subprocess.PIPE,
        stderr=slave,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80", **environment},
        text=True,
    )
    os.close(slave)
    shown = b""
    try:
        while part := os.read(master, 4096):
            shown += part
    # So Linux says that nobody writes any more.
    except OSError:
        pass
    os.close(master)
    out, _ = process.communicate()
    return shown.decode(), out, process.returncode


def left(shown: str) -> list[str]:
    """The lines that stay on the screen, by the few commands that a bar gives it."""
    lines, row = [""], 0
    for part in re.findall(r"\x1b\[[?\d;]*[a-zA-Z]|\r|\n|[^\x1b\r\n]+", shown):
        if part == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part == "\x1b[1A":
            row -= 1
        elif part[0] not in "\x1b\r":
            lines[row] += part
    return [line.rstrip() for line in lines if line.strip()]


@pytest.mark.skipif(os.name == "nt", reason="terminals of POSIX")
@pytest.mark.parametrize(
    ("end", "said", "status"),
    [("", [], 0), ("raise KeyboardInterrupt", None, -2)],
)
def test_a_bar_leaves_nothing_behind(end: str, said: list[str] | None, status: int):
    shown, out, code = on_terminal(end)
    assert out == "result\n"
    assert code == status
    text = re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", shown)
    assert re.search(r"items ━+.* 1\d\d/200", text)
    assert re.search(r"[23]/3, \S+ a second, 0:00:00 left", text)
    assert "a name of which not all l... ━" in text
    assert max(map(len, re.split(r"[\r\n]", text))) <= 80
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    staying = left(shown)
    assert staying[0] == "Error: one item"
    if said is not None:
        assert staying[1:] == said


@pytest.mark.skipif(os.name == "nt", reason="terminals of POSIX")
def test_terminals_that_have_no_colours_or_cannot_go_back():
    shown, _, _ = on_terminal(NO_COLOR="1")
    assert not re.search(r"\x1b\[[\d;]*3\d", shown)
    assert on_terminal(TERM="dumb")[0] == "Error: one item\r\n"


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys):
    now = iter(range(0, 1000, 10))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(now)))
    with progress.progress(8, "items", 2) as advance:
        for _ in range(6):
            advance()
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "4 of 8 items, 0.1 a second, 0:00:40 left",
        "7 of 8 items, 0.1 a second, 0:00:10 left",
    ]
