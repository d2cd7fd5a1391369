"""Names from files are shown, and do nothing."""

import onnx
import pytest
from click.testing import CliRunner
from support import model, node, normal

from onnxlrp.cli import main
from onnxlrp.cli.terminal import clean

EVIL = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e"


def test_commands_are_written_out_and_lines_kept():
    assert clean("a\x1b[2Jb\x9b1m\rc\u202ed") == r"a\x1b[2Jb\x9b1m\rc\u202ed"
    assert clean("Bäume 木\n\tand lines") == "Bäume 木\n\tand lines"


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A model whose node, value, file and output have such names."""
    monkeypatch.chdir(tmp_path)
    name = f"score{EVIL}"
    proto = model([node("MatMul", ["x", "w"], name)], {"x": ["N", 6]}, [name], {"w": normal(6, 3)})
    path = f"model{EVIL}.onnx"
    onnx.save(proto, path)
    return path


@pytest.mark.parametrize(
    "arguments",
    [
        ("convert", "MODEL", "e.onnx"),
        ("convert", "MODEL", "e.onnx", "--json"),
        ("convert", "MODEL", "e.onnx", "--verify"),
        ("convert", "MODEL", "e.onnx", "--output", f"none{EVIL}"),
        ("convert", "MODEL", "e.onnx", "--rule", f"*{EVIL}: epsilon"),
        ("convert", f"no model{EVIL}", "e.onnx"),
        ("convert", "MODEL", "e.onnx", f"--none{EVIL}"),
        ("inspect", "MODEL", "--nodes"),
    ],
)
def test_no_command_reaches_the_terminal(evil, arguments):
    result = CliRunner().invoke(main, [evil if word == "MODEL" else word for word in arguments])
    told = result.stdout + result.stderr
    assert told
    assert not set(told) & set(EVIL[0] + "\x07\x9b\u202e")
    assert result.exception is None or isinstance(result.exception, SystemExit)
