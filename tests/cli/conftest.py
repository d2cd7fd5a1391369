from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import onnxlrp
from onnxlrp.cli import main
from onnxlrp.inputs.preprocessing import Preprocessing


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Calls the command in an empty folder, where its tables have room."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


def build(softmax: bool = False, operator: str = "Relu", domain: str = "") -> onnx.ModelProto:
    """Build Conv, an activation, GlobalAveragePool, Flatten, Gemm: 3 classes of 3 x 8 x 8."""
    random = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["edges"], name="conv", pads=[1] * 4),
        helper.make_node(operator, ["edges"], ["active"], name="activation", domain=domain),
        helper.make_node("GlobalAveragePool", ["active"], ["mean"], name="pool"),
        helper.make_node("Flatten", ["mean"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "matrix"], ["logits"], name="classify"),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], ["probability"], name="softmax"))
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, ["N", 3])],
        [weight("kernel", 4, 3, 3, 3), weight("matrix", 4, 3)],
        # No tool can infer what another domain's operator returns.
        value_info=[helper.make_tensor_value_info("active", TensorProto.FLOAT, ["N", 4, 8, 8])],
    )
    opsets = [helper.make_opsetid("", 18)]
    if domain:
        opsets.append(helper.make_opsetid(domain, 1))
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@pytest.fixture
def classifier():
    """Builds a small network: `classifier(softmax=False, operator="Relu", domain="")`."""
    return build


@pytest.fixture
def preprocessing() -> Preprocessing:
    """What the explainer says about its pictures."""
    return Preprocessing(resize=(8, 8), scale=1 / 255)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(build(), path)
    return path


@pytest.fixture
def explainer(tmp_path: Path, model: Path, preprocessing: Preprocessing) -> Path:
    """The model's explainer, which knows how its pictures are made."""
    path = tmp_path / "explainer.onnx"
    onnxlrp.convert(model, preprocessing=preprocessing).save(path)
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path
