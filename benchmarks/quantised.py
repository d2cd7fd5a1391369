"""How maps of quantised networks differ from those of the float network they were made of.

Quantises a classifier with onnxruntime's own tools, in each form, explains the class that scores
best in the float network, and compares maps summed over the channels: cosine, and Spearman's
correlation of ranks. `docs/quantised.md` has what it printed.

    python benchmarks/quantised.py MODEL PICTURES.npy --calibrate 100
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process
from scipy.stats import spearmanr

import onnxlrp

Array = np.ndarray[Any, Any]

FORMS = {
    "QDQ": (quantization.QuantFormat.QDQ, False, quantization.QuantType.QUInt8),
    "QDQ, per channel": (quantization.QuantFormat.QDQ, True, quantization.QuantType.QUInt8),
    "QDQ, int8, per channel": (quantization.QuantFormat.QDQ, True, quantization.QuantType.QInt8),
    "QOperator": (quantization.QuantFormat.QOperator, False, quantization.QuantType.QUInt8),
    "dynamic": None,
}
BATCH = 20


class Batches(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Pictures, some at a time, under the name of the input."""

    def __init__(self, name: str, pictures: Array) -> None:
        self.left = iter([{name: part} for part in batches(pictures)])

    def get_next(self) -> dict[str, Array] | None:
        return next(self.left, None)


def batches(array: Array) -> Iterator[Array]:
    """Cut pictures into batches."""
    for start in range(0, len(array), BATCH):
        yield array[start : start + BATCH]


def quantised(prepared: Path, form: str, name: str, pictures: Array, path: Path) -> None:
    """Write a model in one of the forms; weights in 7 bits, which no processor saturates at."""
    chosen = FORMS[form]
    if chosen is None:
        quantization.quantize_dynamic(prepared, path, weight_type=quantization.QuantType.QUInt8)
        return
    kind, per_channel, activations = chosen
    quantization.quantize_static(
        prepared, path, Batches(name, pictures), quant_format=kind, per_channel=per_channel,
        activation_type=activations, weight_type=quantization.QuantType.QInt8, reduce_range=True,
    )  # fmt: skip


def explained(
    path: Path, composite: str, pictures: Array, classes: Array | None
) -> tuple[Array, Array, bool]:
    """Maps [N, H, W], scores, and whether those are the model's own, bit for bit."""
    run = ort.InferenceSession(onnxlrp.convert(path, composite).to_proto().SerializeToString())
    alone = ort.InferenceSession(str(path))
    name = alone.get_inputs()[0].name
    maps, scores, same = [], [], True
    for number, part in enumerate(batches(pictures)):
        own = alone.run(None, {name: part})[0]
        at = slice(number * BATCH, number * BATCH + len(part))
        target = own.argmax(1) if classes is None else classes[at]
        outputs = dict(
            zip(
                [value.name for value in run.get_outputs()],
                run.run(None, {name: part, "target": target}),
                strict=True,
            )
        )
        same &= np.array_equal(own, outputs[alone.get_outputs()[0].name])
        maps.append(outputs["relevance"].sum(1))
        scores.append(own)
    return np.concatenate(maps), np.concatenate(scores), same


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("pictures", type=Path, help=".npy, [N, C, H, W], as the model takes them")
    parser.add_argument("--calibrate", type=int, default=100, help="that many, the last ones")
    parser.add_argument("--maps", type=Path, help="write all maps to this .npz")
    args = parser.parse_args()
    pictures = np.load(args.pictures)
    judged, calibrating = pictures[: -args.calibrate], pictures[-args.calibrate :]
    print("| form | composite | cosine | rank | 5 % | same class | outputs |")
    print("|---|---|---:|---:|---:|---:|---|")
    kept: dict[str, Array] = {}
    with tempfile.TemporaryDirectory() as folder:
        prepared, path = Path(folder) / "prepared.onnx", Path(folder) / "quantised.onnx"
        quant_pre_process(args.model, prepared, skip_symbolic_shape=True)
        name = ort.InferenceSession(str(prepared)).get_inputs()[0].name
        composites = ("epsilon_plus_flat", "epsilon")
        wanted = {c: explained(prepared, c, judged, None) for c in composites}
        for form in FORMS:
            quantised(prepared, form, name, calibrating, path)
            for composite, (maps, scores, _) in wanted.items():
                classes = scores.argmax(1)
                found, own, same = explained(path, composite, judged, classes)
                a, b = (m.reshape(len(m), -1).astype(float) for m in (maps, found))
                cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
                rank = [spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
                agree = (own.argmax(1) == classes).mean()
                print(
                    f"| {form} | {composite} | {np.median(cosine):.4f} | {np.median(rank):.3f} | "
                    f"{np.quantile(cosine, 0.05):.3f} | {agree:.0%} | "
                    f"{'bit for bit' if same else 'differ'} |"
                )
                kept |= {f"{form} {composite}": found, f"float {composite}": maps}
    if args.maps:
        np.savez(args.maps, **kept)


if __name__ == "__main__":
    main()
