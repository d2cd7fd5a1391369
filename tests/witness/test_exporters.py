"""One network, however it was exported and whoever explained it, has one explanation."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn
from zennit.attribution import Gradient
from zennit.composites import EpsilonPlusFlat

from onnxlrp.cli import main


class Net(nn.Module):
    """Small, with padding, strides, pooling and a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.third = nn.Conv2d(8, 12, 3, stride=2)
        self.pool = nn.MaxPool2d(2)
        self.relu = nn.ReLU()
        self.head = nn.Linear(12 * 3 * 3, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.first(x))
        x = self.relu(self.second(x))
        x = self.relu(self.third(self.pool(x)))
        return self.head(x.flatten(1))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def compare(*arguments: object) -> dict:
    result = CliRunner().invoke(main, ["compare", *map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    (pair,) = json.loads(result.stdout)
    return pair


def worst(pair: dict) -> float:
    return max(item["relative max"] for item in pair["items"].values())


def test_both_of_torchs_exporters(net, tmp_path):
    example = torch.zeros(2, 3, 14, 14)
    torch.onnx.export(net, (example,), tmp_path / "script.onnx", dynamo=False, opset_version=17)
    torch.onnx.export(net, (example,), tmp_path / "dynamo.onnx", dynamo=True)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(6, 3, 14, 14)).astype("f"))
    pair = compare(tmp_path / "script.onnx", tmp_path / "dynamo.onnx", "--data", tmp_path / "x.npy")
    assert len(pair["items"]) == 6
    assert worst(pair) < 1e-5


def test_zennits_saved_maps(net, tmp_path):
    """Ours against what zennit leaves in .npy and in HDF5, in the layout of its example."""
    inputs = torch.from_numpy(np.random.default_rng(1).normal(size=(4, 3, 14, 14))).float()
    with torch.no_grad():
        prediction = net(inputs)
    wanted = torch.eye(5)[prediction.argmax(dim=1)] * prediction
    with Gradient(model=net, composite=EpsilonPlusFlat()) as attributor:
        _, relevance = attributor(inputs, wanted)
    np.save(tmp_path / "zennit.npy", relevance.numpy())
    with h5py.File(tmp_path / "zennit.h5", "w") as file:
        file["attribution"] = relevance.numpy()
        file["prediction"] = prediction.numpy()
        file["label"] = prediction.argmax(dim=1).numpy()
    torch.onnx.export(net, (inputs,), tmp_path / "net.onnx", dynamo=False, opset_version=17)
    np.save(tmp_path / "x.npy", inputs.numpy())
    ours = (tmp_path / "net.onnx", "--data", tmp_path / "x.npy", "--composite")
    for saved in ("zennit.npy", "zennit.h5"):
        assert worst(compare(tmp_path / saved, *ours, "epsilon_plus_flat")) < 1e-5
    assert worst(compare(tmp_path / "zennit.npy", *ours, "epsilon_plus")) > 0.1


TENSORFLOW = """
import sys
import numpy as np, tensorflow as tf, tf2onnx

weights = np.load(sys.argv[1])
w = {name: weights[name] for name in weights.files}
# numpy: what is a tensor already becomes an input of the export.
kernels = {k: v.transpose(2, 3, 1, 0) for k, v in w.items() if v.ndim == 4}


@tf.function(input_signature=[tf.TensorSpec([None, 14, 14, 3], tf.float32, name="x")])
def forward(x):
    x = tf.nn.relu(tf.nn.conv2d(x, kernels["first.weight"], 1, "SAME") + w["first.bias"])
    x = tf.nn.relu(tf.nn.conv2d(x, kernels["second.weight"], 1, "SAME") + w["second.bias"])
    x = tf.nn.max_pool2d(x, 2, 2, "VALID")
    x = tf.nn.relu(tf.nn.conv2d(x, kernels["third.weight"], 2, "VALID") + w["third.bias"])
    # torch flattens channels first.
    x = tf.reshape(tf.transpose(x, [0, 3, 1, 2]), [-1, 108])
    return x @ tf.constant(w["head.weight"].T) + w["head.bias"]


tf2onnx.convert.from_function(
    forward, input_signature=forward.input_signature, opset=17, output_path=sys.argv[2]
)
"""


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None or importlib.util.find_spec("tf2onnx") is None,
    reason="tensorflow and tf2onnx are not installed",
)
def test_tensorflows_exporter(net, tmp_path):
    """The same weights in TensorFlow, which reads pictures [N, H, W, C]."""
    np.savez(tmp_path / "weights.npz", **{k: v.numpy() for k, v in net.state_dict().items()})
    script = tmp_path / "export.py"
    script.write_text(TENSORFLOW)
    command = [sys.executable, str(script), str(tmp_path / "weights.npz")]
    subprocess.run([*command, str(tmp_path / "tensorflow.onnx")], check=True, timeout=300)
    example = torch.zeros(2, 3, 14, 14)
    torch.onnx.export(net, (example,), Path(tmp_path / "torch.onnx"), dynamo=False)
    pair = compare(tmp_path / "torch.onnx", tmp_path / "tensorflow.onnx", "--random", 6)
    assert pair["notes"] == ["compared after a transpose to [C, H, W]"]
    assert worst(pair) < 1e-5
