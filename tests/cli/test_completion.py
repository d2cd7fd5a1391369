"""What a shell offers on Tab: click's own protocol, in a process of its own."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("onnxlrp comp", {"plain,compare", "plain,composites"}),
        ("onnxlrp convert m.onnx e.onnx --composite epsilon_gamma",
         {"plain,epsilon_gamma_box", "plain,epsilon_gamma_even"}),
        ("onnxlrp convert m.onnx e.onnx --composite mine.to", {"file,mine.to"}),
        ("onnxlrp convert mod", {"file,mod"}),
    ],
)  # fmt: skip
def test_completion(tmp_path, typed, offered):
    words = typed.split()
    asked = {
        "_ONNXLRP_COMPLETE": "bash_complete",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(words) - 1),
    }
    code = "from onnxlrp.cli import main; main(prog_name='onnxlrp')"
    told = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env=os.environ | asked,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert set(told.stdout.split("\n")) - {""} == offered, told.stderr
