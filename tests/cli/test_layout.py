import os
import subprocess
import sys

import pytest

from onnxlrp.cli.layout import lines, table
from onnxlrp.cli.terminal import wide, wrapped

RULES = table(
    "node operator nodes> rule",
    [
        ("conv1", "Conv", "12", "z-plus stabiliser=1e-06 bias=exclude"),
        ("relu1", "Relu", "3", ""),
    ],
)


def test_columns_are_as_wide_as_their_cells():
    assert lines(RULES, 80) == [
        "node   operator  nodes  rule",
        "────────────────────────────────────────────────────────────",
        "conv1  Conv         12  z-plus stabiliser=1e-06 bias=exclude",
        "relu1  Relu          3  -",
    ]


def test_a_pipe_gets_a_line_for_each_row():
    """However long it is; the cells of each are apart by two blanks or more."""
    long = table("node rule", [("a" * 200, "epsilon epsilon=1e-06"), ("b", "pass\non")])
    assert lines(long, None) == [
        "node" + " " * 198 + "rule",
        "a" * 200 + "  epsilon epsilon=1e-06",
        "b" + " " * 201 + r"pass\non",
    ]


def test_prose_is_wrapped_between_words():
    assert lines(RULES, 48) == [
        "node   operator  nodes  rule",
        "────────────────────────────────────────────────",
        "conv1  Conv         12  z-plus stabiliser=1e-06",
        "                        bias=exclude",
        "relu1  Relu          3  -",
    ]


def test_a_long_name_has_a_line_of_its_own():
    rows = [("conv1", "Conv", "even"), ("/a/long/name/of/a/node", "Relu", "passes on")]
    assert lines(table("node operator rule", rows), 30) == [
        "node   operator  rule",
        "──────────────────────────",
        "conv1  Conv      even",
        "/a/long/name/of/a/node",
        "       Relu      passes on",
    ]


def test_cells_stand_below_each_other_where_columns_do_not_fit():
    assert lines(RULES, 30) == [
        "node      conv1",
        "operator  Conv",
        "nodes     12",
        "rule      z-plus",
        "          stabiliser=1e-06",
        "          bias=exclude",
        "",
        "node      relu1",
        "operator  Relu",
        "nodes     3",
        "rule      -",
    ]


def test_names_of_columns_are_wrapped_and_numbers_are_not():
    numbers = table("node off_by_so_much>", [("a", "0.1 [0, 1]")])
    assert lines(numbers, 16) == [
        "node   off by so",
        "            much",
        "────────────────",
        "a     0.1 [0, 1]",
    ]


def test_characters_of_two_cells_are_counted_as_two():
    wide_names = table("class score>", [("木の葉", "1.5"), ("leaf", "22.5")])
    assert lines(wide_names, 80)[2:] == ["木の葉    1.5", "leaf     22.5"]
    assert wrapped("木の葉 木の葉", 12) == ["木の葉", "木の葉"]


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_no_word_is_lost(width):
    """Hundreds of rows of names up to 200 characters: each stands there whole, once."""
    names = [f"node_{index}" + "/layer" * (index % 33) for index in range(300)]
    rows = [
        (name, "Conv", f"{index} [-1, 1]", "z-plus bias=exclude")
        for index, name in enumerate(names)
    ]
    found = lines(table("node operator share> rule", rows), width)
    words = " ".join(found).split()
    assert [word for word in words if word.startswith("node_")] == names
    for word, count in {"Conv": 300, "bias=exclude": 300, "[-1,": 300, "z-plus": 300}.items():
        assert words.count(word) == count
    assert all(line == line.rstrip() for line in found)
    assert all(wide(line) <= width or len(line.split()) <= 2 for line in found)


def on_a_terminal(columns: int, *command: str) -> str:
    """What a terminal so many characters wide is sent; it ends lines by a carriage return, too."""
    import fcntl
    import pty
    import struct
    import termios

    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    known = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    code = "from onnxlrp.cli import main; main()"
    run = subprocess.Popen(
        [sys.executable, "-P", "-c", code, *command], stdout=end, stderr=end, env=known
    )
    os.close(end)
    sent = b""
    while part := _read(terminal):
        sent += part
    run.wait()
    os.close(terminal)
    return sent.decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    # Linux ends a terminal by an error.
    except OSError:
        return b""


@pytest.mark.skipif(os.name == "nt", reason="terminals")
def test_a_terminal_gets_what_fits_it_and_no_command():
    told = on_a_terminal(50, "composites")
    assert max(map(len, told.splitlines())) <= 50
    assert "\x1b" not in told
    assert "\nhires_cam\n      comparison;       Draelos and Carin 2020,\n" in told
