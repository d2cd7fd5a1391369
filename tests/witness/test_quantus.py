"""Quantus takes what `onnxlrp explain` writes as precomputed attributions, and finds what we do."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import quantus
import torch
from click.testing import CliRunner
from support import model, node, normal

import onnxlrp
from onnxlrp.cli import main
from onnxlrp.evaluation import Flipping, Judge, Pictures, Sample, ScoredModel
from onnxlrp.evaluation.measures import complexity, mass_accuracy, rank_accuracy, sparseness
from onnxlrp.inputs.preprocessing import Preprocessing

COUNT, SIDE, MEAN = 6, 8, 125
QUIET = {"disable_warnings": True, "normalise": False}


class Network(torch.nn.Module):
    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(1, 4, 3, padding=1)
        self.dense = torch.nn.Linear(4, 3, bias=False)
        with torch.no_grad():
            self.convolution.weight.copy_(torch.from_numpy(weights["w"]))
            self.convolution.bias.copy_(torch.from_numpy(weights["b"]))
            self.dense.weight.copy_(torch.from_numpy(weights["v"].T))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.dense(self.convolution(values / 255).relu().mean(dim=(2, 3)))


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    return {"w": normal(4, 1, 3, 3), "b": normal(4, seed=3) / 4, "v": normal(4, 3, seed=1)}


@pytest.fixture
def network(weights) -> torch.nn.Module:
    return Network(weights).eval()


@pytest.fixture
def path(weights, tmp_path) -> Path:
    body = [
        node("Mul", ["x", "unit"], "scaled"),
        node("Conv", ["scaled", "w", "b"], "c", pads=[1] * 4),
        node("Relu", ["c"], "r"),
        node("GlobalAveragePool", ["r"], "g"),
        node("Flatten", ["g"], "f"),
        node("Gemm", ["f", "v"], "logits"),
    ]
    weights = weights | {"unit": np.array(1 / 255, np.float32)}
    onnx.save(
        model(body, {"x": ["N", 1, SIDE, SIDE]}, ["logits"], weights), tmp_path / "model.onnx"
    )
    return tmp_path / "model.onnx"


@pytest.fixture
def pictures() -> np.ndarray:
    """Grey pictures, uint8 [N, H, W, 1], of one mean."""
    drawn = np.random.default_rng(0).integers(60, 190, (COUNT, SIDE, SIDE, 1))
    for one in drawn:
        each, rest = divmod(MEAN * one.size - one.sum(), one.size)
        one += each
        one.flat[:rest] += 1
    assert (drawn.mean(axis=(1, 2, 3)) == MEAN).all()
    return drawn.astype(np.uint8)


@pytest.fixture
def images(pictures) -> np.ndarray:
    """What the model reads of them, float32 [N, 1, H, W]."""
    return pictures.transpose(0, 3, 1, 2).astype(np.float32)


@pytest.fixture
def attributions(path, images) -> np.ndarray:
    onnxlrp.convert(path, "epsilon_plus").save(path.with_name("explainer.onnx"))
    np.save(path.with_name("images.npy"), images)
    folder = path.with_name("out")
    arguments = [
        "explain",
        str(path.with_name("explainer.onnx")),
        str(path.with_name("images.npy")),
    ]
    result = CliRunner().invoke(main, [*arguments, "-o", str(folder), "--format", "npy"])
    assert result.exit_code == 0, result.output
    return np.stack([np.load(file) for file in sorted(folder.rglob("*.relevance.npy"))])


def test_measures_of_a_map(network, images, attributions):
    classes = network(torch.from_numpy(images)).argmax(dim=1).numpy()
    masks = np.zeros((COUNT, 1, SIDE, SIDE), dtype=bool)
    masks[:, :, 2:6, 1:5] = True
    arguments = {"model": network, "x_batch": images, "y_batch": classes, "a_batch": attributions}
    maps = attributions[:, 0]
    strong = np.abs(maps)

    found = quantus.Sparseness(abs=True, **QUIET)(**arguments)
    # Quantus adds 1e-7 to every size.
    np.testing.assert_allclose(found, [sparseness(one) for one in maps], rtol=2e-5)
    found = quantus.Complexity(abs=True, **QUIET)(**arguments)
    np.testing.assert_allclose(found, [complexity(one) for one in maps], atol=1e-6)
    found = quantus.RelevanceMassAccuracy(abs=True, **QUIET)(**arguments, s_batch=masks)
    expected = [mass_accuracy(one, mask[0]) for one, mask in zip(strong, masks, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    found = quantus.RelevanceRankAccuracy(abs=True, **QUIET)(**arguments, s_batch=masks)
    expected = [rank_accuracy(one, mask[0]) for one, mask in zip(strong, masks, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_pixel_flipping(network, path, pictures, images, attributions):
    """Quantus' curve lacks the untouched picture, and its "mean" is that of what is left of it."""
    classes = network(torch.from_numpy(images)).argmax(dim=1).numpy()
    metric = quantus.PixelFlipping(
        features_in_step=1, perturb_baseline=MEAN, abs=False, return_auc_per_sample=False, **QUIET
    )
    found = metric(network, images, classes, attributions, softmax=False)
    raw = Preprocessing(resize=SIDE, crop=(SIDE, SIDE), channels="grey")
    medium = Pictures("x", raw, "mean")
    judge = Judge(ScoredModel(path), {}, Flipping(), medium, orders=("descending",))
    for number, curve in enumerate(found):
        row = judge(
            Sample(
                str(number), number, {"pixels": pictures[number]}, {"ours": attributions[number]}
            )
        )
        assert row["class"] == classes[number]
        ours = row["methods"]["ours"]["curves"]["descending"]
        np.testing.assert_allclose(ours[1:], curve, atol=2e-5)
