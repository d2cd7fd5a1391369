import errno
import os
import subprocess
import sys
import warnings

import click
import pytest
from click.testing import CliRunner

from onnxlrp.cli.group import OneLineErrors
from onnxlrp.errors import InputError


def ending(error: BaseException):
    """How a command that raises `error` ends."""

    @click.command()
    def fail() -> None:
        raise error

    return CliRunner().invoke(OneLineErrors("group", commands=[fail]), ["fail"])


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("no such class"), "Error: no such class\n"),
        (OSError(errno.ENOSPC, "No space left on device"), "Error: No space left on device\n"),
        (
            PermissionError(errno.EACCES, "Permission denied", "out"),
            "Error: out: Permission denied\n",
        ),
    ],
)
def test_foreseen_errors_are_one_line_on_stderr(error, line):
    result = ending(error)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", line)


def test_an_interrupt_is_not_an_error():
    result = ending(KeyboardInterrupt())
    assert (result.exit_code, result.stderr) == (130, "Interrupted\n")


def test_a_defect_keeps_its_traceback():
    assert isinstance(ending(ZeroDivisionError()).exception, ZeroDivisionError)


def test_a_pipe_whose_reader_has_gone_ends_quietly():
    result = ending(OSError(errno.EPIPE, "Broken pipe"))
    assert (result.exit_code, result.stderr) == (1, "")


def test_help_is_fast_because_it_imports_nothing_heavy():
    heavy = "{'onnx', 'onnx_ir', 'onnxruntime', 'numpy', 'PIL', 'rich', 'matplotlib'}"
    code = (
        "import sys\n"
        "from onnxlrp.cli import main\n"
        "try: main(['--help'])\n"
        f"finally: print('heavy:', sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "heavy: []" in done.stdout
    assert "convert" in done.stdout


def test_versions_are_told_as_a_report_of_a_fault_needs_them():
    import platform
    from importlib.metadata import version

    from onnxlrp.cli import main

    lines = CliRunner().invoke(main, ["--version"]).output.splitlines()
    assert lines[0] == f"onnxlrp {version('onnxlrp')}"
    assert f"onnx {version('onnx')}" in lines
    assert f"Python {platform.python_version()}" in lines
    assert "CPUExecutionProvider" in lines[-1]


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_ends_the_process_with_130():
    code = (
        "import click, os, signal\n"
        # A run in the background is started with the signal ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from onnxlrp.cli.group import OneLineErrors\n"
        "@click.command()\n"
        "def wait(): os.kill(os.getpid(), signal.SIGINT)\n"
        "OneLineErrors('group', commands=[wait])(['wait'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "Interrupted\n")


def test_warnings_are_lines_without_a_place_in_the_code():
    @click.group(cls=OneLineErrors)
    def main():
        pass

    @main.command()
    def doubt():
        warnings.warn("is that so?", stacklevel=1)

    result = CliRunner().invoke(main, ["doubt"])
    assert result.exit_code == 0
    assert result.stderr == "Warning: is that so?\n"
