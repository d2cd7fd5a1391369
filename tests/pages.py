"""The blocks of the documentation's pages, and how they are run.

A block is run where it stands, one after the other, in one folder a page:

- `python` in one namespace; `bash` line by line, commands of onnxlrp in this process;
- `pip install` is not typed: what it names must be installed;
- a block with `title="FILE"` is saved under that name;
- `text` behind one of these is what it prints: each of its lines stands in the output, in this
  order, numbers within two parts of a hundred; `...` stands for anything;
- a block of no kind is a sketch, and holds no command;
- behind `<!-- not run: REASON -->` it is not run, but must be spelt right.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import onnxlrp
from onnxlrp.cli import main

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("models/*.md"))
)
KINDS = ("python", "bash", "text", "toml", "json", "yaml", "js", "")
_OPEN = re.compile(r"( *)```+ *(\w*)(?: (.*))?")
_TITLE = re.compile(r'title="([^"]+)"')
_EXCUSE = re.compile(r"<!-- not run: (.+) -->")
_LIST = re.compile(r"([-*]|\d+\.|:::) ")
_COMMAND = re.compile(r"(\$|onnxlrp|python3?|pip|git|printf|npm|docker|conda|uvicorn)\b")
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it is, what it is, and why it is not run, if it is not."""

    page: str
    line: int
    kind: str
    title: str
    text: str
    excuse: str = ""
    section: str = ""

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str) -> list[Block]:
    """Return the page's blocks; one that is indented, and so says not of what kind, is an error."""
    found: list[Block] = []
    inside: tuple[int, str, str, str] | None = None
    body: list[str] = []
    excuse = section = before = ""
    for number, line in enumerate((ROOT / page).read_text("utf-8").splitlines(), 1):
        fence = _OPEN.fullmatch(line)
        if inside is not None and line.strip().startswith("```"):
            found.append(
                Block(
                    page, *inside[:3], textwrap.dedent("\n".join(body)) + "\n", inside[3], section
                )
            )
            inside, body, excuse = None, [], ""
        elif inside is not None:
            body.append(line)
        elif fence:
            title = _TITLE.search(fence[3] or "")
            inside = number, fence[2], title[1] if title else "", excuse
        elif line.startswith("## "):
            section, excuse = line[3:], ""
        elif excused := _EXCUSE.fullmatch(line.strip()):
            excuse = excused[1]
        else:
            # Below a list, or `:::`, it belongs to that; what docstrings indent are formulas.
            indented = line.startswith("    ") and not _LIST.match(before)
            assert not indented or page == "docs/rules.md", f"{page}:{number}: fence it"
            before = before if line[:1].isspace() or not line else line
            excuse = excuse if not line.strip() else ""
    return found


class Reader:
    """A user who types what a page says, in the working directory."""

    def __init__(self, **names: Any) -> None:
        self.names = names
        self.printed: str | None = None

    def follow(self, block: Block) -> None:
        """Do what a block says."""
        if block.excuse:
            check(block)
            self.printed = None
        elif block.title:
            check(block)
            Path(block.title).parent.mkdir(parents=True, exist_ok=True)
            Path(block.title).write_text(block.text, "utf-8")
        elif block.kind == "python":
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(compile(block.text, block.place, "exec"), self.names)
            self.printed = printed.getvalue()
        elif block.kind == "bash":
            self.printed = "".join(self._type(line, block.place) for line in commands(block.text))
        elif block.kind == "text":
            assert self.printed is not None, f"{block.place}: nothing printed this"
            _compare(block, self.printed)
        else:
            check(block)

    def _type(self, line: str, place: str) -> str:
        words = shlex.split(line, comments=True)
        if not words:
            return ""
        if words[:2] == ["pip", "install"]:
            for name in words[2:]:
                _installed(name)
            return ""
        if words[0] == "onnxlrp" and not {"|", ">", "&&", ";", "<"} & set(words):
            result = CliRunner().invoke(main, words[1:])
            if isinstance(result.exception, Exception):
                raise result.exception
            assert result.exit_code == 0, f"{place}: {line}\n{result.output}"
            return result.output
        found = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line],
            env=os.environ | {"PATH": found},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{place}: {line}\n{done.stderr}"
        return done.stdout


def _installed(name: str) -> None:
    """Fail unless what `pip install NAME` names is installed, or an extra of onnxlrp."""
    extra = re.fullmatch(r"\.(?:\[(\w+)\])?", name)
    found = metadata.distribution("onnxlrp" if extra else name)
    if extra and extra[1]:
        assert extra[1] in found.metadata.get_all("Provides-Extra", []), name


def commands(text: str) -> list[str]:
    """Return the lines of a block, continued ones in one."""
    return [line for line in re.sub(r"\\\n *", " ", text).splitlines() if line.strip()]


def check(block: Block) -> None:
    """Fail where a block cannot be what it says it is."""
    if block.kind == "python":
        compile(block.text, block.place, "exec")
    elif block.kind == "toml":
        if "[[rules]]" in block.text:
            Path("composite.toml").write_text(block.text, "utf-8")
            onnxlrp.Composite.load("composite.toml")
        tomllib.loads(block.text)
    elif block.kind == "json":
        json.loads(block.text)
    elif block.kind == "yaml":
        pytest.importorskip("yaml").safe_load(block.text)
    elif not block.kind:
        assert not any(map(_COMMAND.match, block.text.splitlines())), f"{block.place}: say bash"
    elif block.kind == "bash":
        done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True)
        assert not done.stderr, f"{block.place}: {done.stderr}"
        for line in commands(block.text):
            for part in re.split(r" (?:&&|\|) ", line):
                if (words := shlex.split(part, comments=True))[:1] == ["onnxlrp"]:
                    _spelt(words[1:], block.place)


def _spelt(words: list[str], place: str) -> None:
    """Hold a command against its own options and choices, without running it."""
    assert words[0] in main.commands, f"{place}: onnxlrp {words[0]} is no command"
    command = main.commands[words[0]]
    context = click.Context(command)
    try:
        values, _, order = command.make_parser(context).parse_args(list(words[1:]))
        for parameter in order:
            if not isinstance(parameter.type, click.Path):
                parameter.type_cast_value(context, values.get(parameter.name))
    except click.UsageError as error:
        pytest.fail(f"{place}: {' '.join(words)}: {error.message}")


def _compare(block: Block, printed: str) -> None:
    lines = iter(printed.splitlines())
    for wanted in block.text.splitlines():
        if wanted.strip() in ("", "..."):
            continue
        assert any(_alike(wanted, line) for line in lines), (
            f"{block.place}: {wanted!r} is not printed, or not here:\n{printed}"
        )


def _alike(wanted: str, line: str) -> bool:
    """Tell whether a line is what a page shows, up to spaces and another machine's arithmetic."""
    wanted, line = " ".join(wanted.split()), " ".join(line.split())
    pieces = [re.escape(_NUMBER.sub("\0", piece)) for piece in wanted.split("...")]
    if not re.fullmatch(".*".join(pieces), _NUMBER.sub("\0", line), re.S):
        return False
    if "..." in wanted:
        return True
    pairs = zip(_NUMBER.findall(wanted), _NUMBER.findall(line), strict=True)
    return all(float(a) == pytest.approx(float(b), rel=0.02, abs=0.006) for a, b in pairs)
