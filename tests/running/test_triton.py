"""What a model repository holds; `tests/witness/test_triton.py` reads it by Triton's schema."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from support import model, node, normal

import onnxlrp
from onnxlrp.cli import main
from onnxlrp.running import triton

BODY = [node("MatMul", ["x", "w"], "logits")]


def linear(batch: int | str = "N", dtype: int = onnx.TensorProto.FLOAT) -> onnx.ModelProto:
    weight = normal(6, 3).astype(onnx.helper.tensor_dtype_to_np_dtype(dtype))
    return model(BODY, {"x": [batch, 6]}, {"logits": [batch, 3]}, {"w": weight}, dtype=dtype)


@pytest.fixture
def convert(tmp_path, monkeypatch):
    """Converts a model into `repository`, as the command does."""
    monkeypatch.chdir(tmp_path)

    def run(proto: onnx.ModelProto, *options: str):
        onnx.save(proto, "net.onnx")
        return CliRunner().invoke(main, ["convert", "net.onnx", *options])

    return run


def found(folder: str) -> list[str]:
    return sorted(str(path) for path in Path(folder).rglob("*") if path.is_file())


def test_a_model_repository(convert):
    """`target` of [N] is [N, 1] to Triton, which knows no sample without axes."""
    assert convert(linear(), "--triton", "deep/repository").exit_code == 0
    home = Path("deep/repository/net_explainer")
    assert found("deep") == [str(home / "1/model.onnx"), str(home / "config.pbtxt")]
    assert (home / "config.pbtxt").read_text() == (
        """name: "net_explainer"
backend: "onnxruntime"
max_batch_size: 8
input [
  { name: "x" data_type: TYPE_FP32 dims: [ 6 ] },
  { name: "target" data_type: TYPE_INT64 dims: [ 1 ] reshape { shape: [ ] } }
]
output [
  { name: "logits" data_type: TYPE_FP32 dims: [ 3 ] },
  { name: "relevance" data_type: TYPE_FP32 dims: [ 6 ] }
]
dynamic_batching { }
instance_group [ { count: 1 kind: KIND_AUTO } ]
parameters { key: "enable_mem_pattern" value { string_value: "0" } }
"""
    )
    x = normal(2, 6)
    with onnxlrp.Explainer(home / "1/model.onnx") as run:
        expected = x * normal(6, 3)[:, 1]
        np.testing.assert_allclose(run(x, target=1).relevance, expected, rtol=1e-4)


def test_weights_may_lie_beside_it(convert):
    result = convert(linear(), "--triton", "repository", "--external-data", "--set", "epsilon=0.1")
    assert result.exit_code == 0, result.output
    assert "repository/net_explainer/1/model.onnx.data" in found("repository")
    with onnxlrp.Explainer("repository/net_explainer/1/model.onnx") as run:
        assert run(normal(1, 6)).relevance.shape == (1, 6)


def test_converted_again_it_is_replaced_but_never_an_edited_config(convert):
    assert convert(linear(), "--triton", "repository").exit_code == 0
    before = Path("repository/net_explainer/1/model.onnx").read_bytes()
    assert convert(linear(), "--triton", "repository", "--set", "epsilon=0.1").exit_code == 0
    explainer = Path("repository/net_explainer/1/model.onnx")
    assert explainer.read_bytes() != before
    before = explainer.read_bytes()
    config = Path("repository/net_explainer/config.pbtxt")
    config.write_text(config.read_text().replace("KIND_AUTO", "KIND_GPU"))
    result = convert(linear(), "--triton", "repository")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "config.pbtxt is there and says something else: move it away" in result.stderr
    assert explainer.read_bytes() == before
    assert len(found("repository")) == 2


def test_why_requests_run_alone_is_told(convert):
    result = convert(linear(4), "--triton", "repository")
    assert result.exit_code == 0, result.output
    assert "max_batch_size is 0, so Triton runs each request alone: 'x' is [4, 6]" in result.stderr
    assert convert(linear(4), "--triton", "freed", "--dynamic-batch").stderr == ""


def test_what_the_backend_does_not_take_is_refused_and_nothing_is_left(convert):
    result = convert(linear(dtype=onnx.TensorProto.BFLOAT16), "--triton", "a/b", "--no-load-check")
    assert result.exit_code == 1
    assert "'x' is of bfloat16, which Triton's onnxruntime backend does not take" in result.stderr
    assert not Path("a").exists()


def test_either_a_file_or_a_repository(convert):
    for options in ([], ["explainer.onnx", "--triton", "repository"]):
        result = convert(linear(), *options)
        assert result.exit_code == 2
        assert "give either EXPLAINER, a file, or --triton DIR" in result.output
    assert found(".") == ["net.onnx"]


def test_names_may_hold_anything(tmp_path):
    assert triton._quoted('a "b" \\ ü\n') == '"a \\"b\\" \\\\ ü\\n"'
