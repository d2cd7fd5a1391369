"""Model repositories, read by Triton's own schema, and served as its config says."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from click.testing import CliRunner
from google.protobuf import text_format
from support import Array, model, node, normal

from onnxlrp.cli import main

ONNX_TYPES = {
    "TYPE_BOOL": "bool",
    "TYPE_FP16": "float16",
    "TYPE_FP32": "float",
    "TYPE_FP64": "double",
    "TYPE_STRING": "string",
    "TYPE_INT64": "int64",
    "TYPE_INT32": "int32",
    "TYPE_UINT8": "uint8",
}
"""As docs/user_guide/model_configuration.md of Triton pairs them."""


@pytest.fixture(scope="module")
def schema() -> ModuleType:
    """model_config.proto, as tritonclient ships it; its package would import gRPC."""
    package = importlib.util.find_spec("tritonclient")
    assert package is not None
    assert package.submodule_search_locations
    path = Path(package.submodule_search_locations[0], "grpc", "model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def pictures(batch: int | str = "N", dtype: int = onnx.TensorProto.FLOAT) -> onnx.ModelProto:
    body = [
        node("Cast", ["image"], "real", to=onnx.TensorProto.FLOAT),
        node("Conv", ["real", "k"], "edges"),
        node("Relu", ["edges"], "active"),
        node("GlobalAveragePool", ["active"], "mean"),
        node("Flatten", ["mean"], "flat"),
        node("Gemm", ["flat", "w"], "logits"),
    ]
    weights = {"k": normal(4, 3, 3, 3), "w": normal(4, 3, seed=1)}
    inputs, outputs = {"image": [batch, 3, 8, 8]}, {"logits": [batch, 3]}
    made = model(body, inputs, outputs, weights)
    made.graph.input[0].type.tensor_type.elem_type = dtype
    del made.graph.value_info[:]
    return made


def two_inputs() -> onnx.ModelProto:
    body = [
        node("MatMul", ["a", "v"], "c"),
        node("MatMul", ['b "quoted" \\ ü', "w"], "d"),
        node("Add", ["c", "d"], "logits"),
    ]
    inputs = {"a": ["N", 5], 'b "quoted" \\ ü': ["N", 7]}
    return model(body, inputs, {"logits": ["N", 3]}, {"v": normal(5, 3), "w": normal(7, 3, seed=1)})


def categories() -> onnx.ModelProto:
    """Texts choose a column; a label goes out beside the scores."""
    return onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18, "ai.onnx.ml" : 3]>
        g (string[N, 1] kind, float[N, 3] x) => (float[N, 2] logits, string[N] label)
        <float[5, 2] w = {1, -2, 3, 4, -5, 6, 7, 8, 9, 1}> {
            column = ai.onnx.ml.OneHotEncoder<cats_strings = ["a", "b"], zeros = 1>(kind)
            shape = Constant<value_ints = [-1, 2]>()
            flat = Reshape(column, shape)
            all = Concat<axis = 1>(flat, x)
            logits = MatMul(all, w)
            best = ArgMax<axis = 1, keepdims = 0>(logits)
            label = ai.onnx.ml.LabelEncoder<keys_int64s = [0, 1],
                values_strings = ["no", "yes"]>(best)
        }"""
    )


def written(schema: ModuleType, folder: Path, proto: onnx.ModelProto, *options: str) -> Any:
    """Convert as the command does; return the parsed config and the path of the explainer."""
    onnx.save(proto, folder / "net.onnx")
    arguments = ["convert", str(folder / "net.onnx"), "--triton", str(folder / "repository")]
    result = CliRunner().invoke(main, [*arguments, *options])
    assert result.exit_code == 0, result.output
    home = folder / "repository" / "net_explainer"
    text = (home / "config.pbtxt").read_text("utf-8")
    config = text_format.Parse(text, schema.ModelConfig())
    assert config.name == home.name
    assert config.backend == "onnxruntime"
    assert bool(config.max_batch_size) == config.HasField("dynamic_batching")
    return config, home / "1" / "model.onnx"


def served(config: Any, path: Path, requests: Sequence[Mapping[str, Array]]) -> list[list[Array]]:
    """Run requests at once, by what the config says alone, as Triton's backend does.

    Inputs are checked against `dims`, laid one behind the other, and reshaped; outputs are cut.
    """
    for request in requests:
        for tensor in config.input:
            shape = request[tensor.name].shape[bool(config.max_batch_size) :]
            assert len(shape) == len(tensor.dims)
            assert all(
                wanted in (-1, size) for wanted, size in zip(tensor.dims, shape, strict=True)
            )
    feeds = {}
    for tensor in config.input:
        whole = np.concatenate([request[tensor.name] for request in requests])
        reshaped = tensor.HasField("reshape")
        feeds[tensor.name] = whole.reshape(len(whole), *tensor.reshape.shape) if reshaped else whole
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = session.run([tensor.name for tensor in config.output], feeds)
    ends = np.cumsum([len(request[config.input[0].name]) for request in requests])
    return [np.split(output, ends[:-1]) if len(ends) > 1 else [output] for output in outputs]


MODELS = {
    "pictures": (pictures(), ()),
    "bytes": (pictures(dtype=onnx.TensorProto.UINT8), ("--layout", "NCHW")),
    "a class of its own": (pictures(), ("--target", "top")),
    "weights": (pictures(), ("--target", "weights")),
    "a reference": (pictures(), ("--reference", "input")),
    "two inputs": (two_inputs(), ()),
    "texts": (categories(), ("--input", "x")),
    "a mask": (pictures(), ("--mask", "active")),
}


@pytest.mark.parametrize(("proto", "options"), MODELS.values(), ids=MODELS)
def test_the_config_says_what_onnxruntime_says(schema, tmp_path, proto, options):
    config, path = written(schema, tmp_path, proto, *options)
    assert config.max_batch_size > 1
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    for told, found in (
        (config.input, session.get_inputs()),
        (config.output, session.get_outputs()),
    ):
        assert [tensor.name for tensor in told] == [value.name for value in found]
        for tensor, value in zip(told, found, strict=True):
            name = schema.DataType.Name(tensor.data_type)
            assert value.type == f"tensor({ONNX_TYPES[name]})"
            batch, *sizes = [size if isinstance(size, int) else -1 for size in value.shape]
            assert batch == -1
            dims = tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims
            assert list(dims) == sizes


def drawn(tensor: Any, schema: ModuleType, samples: int, seed: int) -> Array:
    random = np.random.default_rng(seed)
    shape = [samples, *(size if size > 0 else 1 for size in tensor.dims)]
    kind = schema.DataType.Name(tensor.data_type)
    if tensor.name == "target":
        return random.integers(-1, 2, shape)
    if kind == "TYPE_STRING":
        return random.choice(np.array(["a", "b"], object), shape)
    if kind == "TYPE_UINT8":
        return random.integers(0, 256, shape, np.uint8)
    return random.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("proto", "options"), MODELS.values(), ids=MODELS)
def test_requests_that_the_server_gathers_get_what_each_gets_alone(
    schema, tmp_path, proto, options
):
    config, path = written(schema, tmp_path, proto, *options)
    requests = [
        {
            tensor.name: drawn(tensor, schema, samples, 10 * samples + at)
            for at, tensor in enumerate(config.input)
        }
        for samples in (1, 3, 2)
    ]
    together = served(config, path, requests)
    for number, request in enumerate(requests):
        for both, (alone,) in zip(together, served(config, path, [request]), strict=True):
            assert both[number].shape == alone.shape
            if alone.dtype.kind == "f":
                np.testing.assert_allclose(both[number], alone, atol=1e-5 * np.abs(alone).max())
            else:
                assert both[number].tolist() == alone.tolist()


def test_a_fixed_batch_is_no_batch_of_the_server(schema, tmp_path):
    """`dims` hold all axes; `target` is one class for all, or one for each."""
    config, path = written(schema, tmp_path, pictures(4))
    assert config.max_batch_size == 0
    dims = {tensor.name: list(tensor.dims) for tensor in (*config.input, *config.output)}
    assert dims == {
        "image": [4, 3, 8, 8],
        "target": [-1],
        "logits": [4, 3],
        "relevance": [4, 3, 8, 8],
    }
    image = normal(4, 3, 8, 8)
    one = served(config, path, [{"image": image, "target": np.array([2])}])
    each = served(config, path, [{"image": image, "target": np.full(4, 2)}])
    np.testing.assert_array_equal(one[1][0], each[1][0])


@pytest.mark.parametrize("second", [{"axis": 0}, {"keepdims": 0}], ids=["mixed", "one for all"])
def test_an_output_that_is_not_one_a_sample_forbids_batches(schema, tmp_path, second):
    """Beside the scores something is computed over the batch, which a server would cut in parts."""
    operator = "Softmax" if "axis" in second else "ReduceSum"
    body = [node("MatMul", ["x", "w"], "logits"), node(operator, ["logits"], "all", **second)]
    outputs = {"logits": ["N", 3], "all": ["N", 3] if "axis" in second else []}
    proto = model(body, {"x": ["N", 6]}, outputs, {"w": normal(6, 3)})
    config, path = written(schema, tmp_path, proto, "--output", "logits")
    assert config.max_batch_size == 0
    assert [list(tensor.dims) for tensor in config.input] == [[-1, 6], [-1]]
    assert list(config.output[1].dims) == ([-1, 3] if "axis" in second else [1])
    request = {"x": normal(2, 6), "target": np.array([0, 1])}
    assert served(config, path, [request])[0][0].shape == (2, 3)


def test_what_the_documents_say_to_set_is_in_the_schema(schema):
    page = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text("utf-8")
    settings = re.findall(
        r"`((?:optimization|instance_group|dynamic_batching|parameters) [{\[].*?)`", page
    )
    assert len(settings) >= 6
    for text in settings:
        text_format.Parse(text, schema.ModelConfig())
