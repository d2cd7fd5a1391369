"""Quantised and half-precision networks for `coverage.py`: torch's, by onnxruntime's tools."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NETWORKS = ("net/mlp", "net/conv1d", "net/transformer_encoder", "tv/resnet18", "tv/mobilenet_v2",
            "tv/squeezenet1_1", "hf/bert", "hf/vit")  # fmt: skip
FORMS = ("qdq", "qdq_channels", "qoperator", "dynamic", "half", "nibbles")
_MULTIPLYING = ("net/transformer_encoder", "hf/bert", "hf/vit")
"""Networks with MatMul, which alone is written with four bits."""

_PAIRS = {
    f"quant/{network.split('/')[1]}_{form}": (network, form)
    for network, form in itertools.product(NETWORKS, FORMS)
    if form != "nibbles" or network in _MULTIPLYING
}
NAMES = list(_PAIRS)


def export(name: str, path: Path) -> dict[str, Any]:
    """Write a network as ONNX, in another precision; return its inputs as arrays."""
    from coverage import export as export_float

    network, form = _PAIRS[name]
    whole = path.with_name("float.onnx")
    feeds = export_float(network, "torchscript", whole)
    if form == "half":
        import onnx
        from onnxruntime.transformers.float16 import convert_float_to_float16

        halved = convert_float_to_float16(onnx.load(whole), keep_io_types=True)
        onnx.save(halved, path)
        return feeds
    if form == "nibbles":
        import onnx
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        quantiser = MatMulNBitsQuantizer(onnx.load(whole), block_size=16)
        quantiser.process()
        onnx.save(quantiser.model.model, path)
        return feeds
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    ready = path.with_name("ready.onnx")
    quant_pre_process(str(whole), str(ready), skip_symbolic_shape=True)
    if form == "dynamic":
        quantization.quantize_dynamic(str(ready), str(path))
        return feeds
    kind = "QOperator" if form == "qoperator" else "QDQ"
    quantization.quantize_static(
        str(ready), str(path), _Samples(feeds), per_channel=form == "qdq_channels",
        quant_format=quantization.QuantFormat[kind],
    )  # fmt: skip
    return feeds


class _Samples:
    """What a network is calibrated on: what it is explained on."""

    def __init__(self, feeds: dict[str, Any]) -> None:
        self._left: Iterator[dict[str, Any]] = iter([feeds])

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch."""
        return next(self._left, None)
