"""What docs/tables.md shows is run as it stands there."""

import csv
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import onnxlrp
from onnxlrp.cli import main

PAGE = (Path(__file__).parents[1] / "docs" / "tables.md").read_text("utf-8")
(TRAINING,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
COMMANDS = re.findall(r"^    onnxlrp (.*)$", PAGE, re.M)
NUMBER = re.compile(r"[-+]?\d+\.\d+")


def numbers_aside(text: str) -> tuple[str, list[float]]:
    """Part a text from its numbers, which another machine's arithmetic changes a little."""
    return NUMBER.sub("~", text), [float(one) for one in NUMBER.findall(text)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("tables")


def test_the_example_says_what_the_page_says(folder: Path, monkeypatch):
    monkeypatch.chdir(folder)
    trained: dict = {}
    exec(TRAINING, trained)
    assert (trained["logits"].argmax(axis=1) == trained["repaid"]).mean() > 0.8
    for text, file in re.findall(r"^    printf '(.*)' > (\S+)$", PAGE, re.M):
        Path(file).write_text(text.replace("\\n", "\n"))
    assert [command.split()[0] for command in COMMANDS[:2]] == ["convert", "explain"]
    results = [CliRunner().invoke(main, shlex.split(command)) for command in COMMANDS[:2]]
    assert [result.exit_code for result in results] == [0, 0], results[-1].output
    shown = re.findall(r"^    (applicants\.csv:6: .*)\n    (  for: .*)$", PAGE, re.M)
    lines = results[1].stdout.splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("applicants.csv:6:"))
    for said, found in zip(*shown, lines[place : place + 2], strict=True):
        words, numbers = numbers_aside(found)
        assert numbers_aside(said)[0] == words
        assert numbers_aside(said)[1] == pytest.approx(numbers, rel=0.02)
    header, first = re.findall(r"^    (item,.*)\n    (applicants/01,.*)$", PAGE, re.M)[0]
    with open("why/relevance.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == header.split(",")
    assert rows[1][:3] == first.split(",")[:3]
    found, wanted = (np.array(row[3:], float) for row in (rows[1], first.split(",")))
    np.testing.assert_allclose(found, wanted, rtol=0.02)
    assert len(rows) == 31
    assert Path("why/applicants/06.sheet.png").is_file()
    # In Python it is the same.
    explanation = onnxlrp.Explainer("explainer.onnx")(trained["table"][:3].astype(np.float32))
    np.testing.assert_allclose(
        explanation.relevance[0], np.array(rows[1][5:], float), rtol=1e-4, atol=1e-5
    )
    assert explanation.plot(1).width > 700


@pytest.mark.parametrize("command", COMMANDS[2:])
def test_the_other_commands_have_such_options(command: str):
    name, *words = shlex.split(command)
    known = {option for one in main.get_command(None, name).params for option in one.opts}
    assert {word for word in words if word.startswith("--")} <= known
