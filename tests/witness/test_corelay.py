"""CoRelAy, Spectral Relevance Analysis, reads what `onnxlrp explain` writes."""

import h5py
import numpy as np
import onnx
from click.testing import CliRunner
from corelay.pipeline.spectral import SpectralClustering
from corelay.processor.clustering import KMeans
from corelay.processor.embedding import EigenDecomposition
from corelay.processor.flow import Parallel
from support import model, node, normal

import onnxlrp
from onnxlrp.cli import main


def test_it_tells_apart_two_reasons_for_one_class(tmp_path, monkeypatch):
    """Half of the samples are called class 0 for their upper left corner, half for the lower right.

    Both kinds score alike, only their relevance differs; the clusters must be the two halves.
    """
    monkeypatch.chdir(tmp_path)
    body = [
        node("Conv", ["x", "w"], "c", pads=[1] * 4),
        node("Relu", ["c"], "r"),
        node("GlobalAveragePool", ["r"], "g"),
        node("Flatten", ["g"], "f"),
        node("Gemm", ["f", "v"], "logits"),
    ]
    weights = {"w": np.abs(normal(4, 1, 3, 3)), "v": np.abs(normal(4, 2, seed=1)) * [2, 1]}
    weights["v"] = weights["v"].astype(np.float32)
    onnx.save(model(body, {"x": ["N", 1, 12, 12]}, ["logits"], weights), "model.onnx")
    onnxlrp.convert("model.onnx", "epsilon_plus").save("explainer.onnx")
    reasons = np.arange(40) % 2
    images = np.abs(normal(40, 1, 12, 12, seed=2)) * 0.05
    for image, reason in zip(images, reasons, strict=True):
        corner = slice(1, 5) if reason == 0 else slice(7, 11)
        image[0, corner, corner] += 1
    np.save("images.npy", images.astype(np.float32))
    arguments = ["explain", "explainer.onnx", "images.npy", "-o", "out", "--format", "hdf5"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output

    with h5py.File("out/attribution.h5") as file:
        attribution, prediction = file["attribution"][:], file["prediction"][:]
        label = file["label"][:]
    assert attribution.shape == (40, 1, 12, 12)
    assert (prediction.argmax(axis=1) == label).all()
    assert set(label) == {0}
    pipeline = SpectralClustering(
        preprocessing=lambda data: data.reshape(len(data), -1),
        embedding=EigenDecomposition(n_eigval=2, is_output=True),
        clustering=Parallel([KMeans(n_clusters=2, is_output=True)], broadcast=True, is_output=True),
    )
    _, (clusters,) = pipeline(attribution)
    assert (clusters == reasons).all() or (clusters == 1 - reasons).all()
