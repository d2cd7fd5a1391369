"""Draws docs/recurrent_voice.png: what a voice detector heard in a spoken and a silent second.

    python benchmarks/voice.py silero_vad_16k_sequence.onnx docs/recurrent_voice.png

The model is Silero VAD in its form for sequences, 16 kHz: frames of 512 samples behind 64 of the
frame before. The sound is two words that espeak-ng (a program of that name) says, and faint noise.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import wave
from pathlib import Path

import matplotlib
import numpy as np
import onnxruntime
from numpy.typing import NDArray

import onnxlrp
from onnxlrp.audit import check

matplotlib.use("Agg")
import matplotlib.pyplot as plt

RATE, FRAME, BEFORE = 16_000, 512, 64
WORDS, STARTS, NOISE = "good morning", 0.05, 1e-3
LOGITS, MAGNITUDES = "/output/Conv_output_0", "/stft/Sqrt_output_0"

Array = NDArray[np.float32]


def spoken(words: str) -> Array:
    """Let espeak-ng say something, at 16 kHz; the loudest sample is 0.3."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "words.wav"
        subprocess.run(["espeak-ng", "-v", "en", "-s", "150", "-w", path, words], check=True)
        with wave.open(str(path)) as file:
            rate = file.getframerate()
            sound = np.frombuffer(file.readframes(file.getnframes()), np.int16) / 32768
    taps = np.arange(-64, 65)
    low_pass = np.sinc(taps * RATE / rate) * RATE / rate * np.hanning(len(taps))
    times = np.arange(int(len(sound) * RATE / rate)) * rate / RATE
    found = np.interp(times, np.arange(len(sound)), np.convolve(sound, low_pass, "same"))
    return (0.3 * found / np.abs(found).max()).astype(np.float32)


def recording() -> Array:
    """Two seconds of faint noise, the words in the first."""
    sound = np.random.default_rng(0).normal(size=2 * RATE).astype(np.float32) * NOISE
    voice, first = spoken(WORDS), int(STARTS * RATE)
    voice = voice[: RATE - first]
    sound[first : first + len(voice)] += voice
    return sound[: len(sound) // FRAME * FRAME]


def framed(sound: Array) -> Array:
    """Cut into frames, [frames, 576]."""
    padded = np.concatenate([np.zeros(BEFORE, np.float32), sound])
    starts = range(0, len(sound), FRAME)
    return np.stack([padded[start : start + BEFORE + FRAME] for start in starts])


def along(relevance: Array) -> Array:
    """Add the relevance of frames up where they overlap."""
    total = np.zeros(BEFORE + len(relevance) * FRAME, np.float32)
    for k, frame in enumerate(relevance):
        total[k * FRAME : k * FRAME + BEFORE + FRAME] += frame
    return total[BEFORE:]


def main(model: str, picture: str) -> None:
    """Explain, audit, and draw."""
    sound = recording()
    state = np.zeros((1, 1, 128), np.float32)
    feeds = {"input": framed(sound), "h": state, "c": state}
    explainer = onnxlrp.convert(
        model,
        inputs=["input"],
        output=LOGITS,
        at="all",
        class_axis=1,
        target=0,
        intermediates=[MAGNITUDES],
    ).to_proto()
    audit = check(model, explainer, feeds)
    print(f"score {audit.score:.2f}, relevance {audit.heatmap:.2f}, passed: {audit.passed}")
    session = onnxruntime.InferenceSession(explainer.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(None, feeds), strict=True))
    heard, relevance = found["speech_probs"], along(found["relevance"])
    # [frames, bins, 4]: four spectra a frame.
    spectra = found[f"onnxlrp/relevance/{MAGNITUDES}"].transpose(1, 0, 2)
    spectra = spectra.reshape(len(spectra), -1)
    half = len(sound) // 2
    for name, part in (("spoken", slice(0, half)), ("silent", slice(half, None))):
        print(f"{name} second: relevance {relevance[part].sum():.2f}")
    figure, axes = plt.subplots(3, 1, figsize=(9, 6.2), sharex=True, layout="constrained")
    end = len(sound) / RATE
    times = (np.arange(len(heard)) + 0.5) * FRAME / RATE
    axes[0].step(times, heard, where="mid", color="black")
    axes[0].set(ylabel="speech", ylim=(-0.05, 1.05))
    bins = relevance.reshape(-1, 128).sum(axis=1)
    for axis, map_, top in ((axes[1], bins[None], 1.0), (axes[2], spectra, RATE / 2000)):
        full = np.percentile(np.abs(map_), 99)
        low = -1.0 if axis is axes[1] else 0.0
        axis.imshow(
            map_,
            cmap="seismic",
            vmin=-full,
            vmax=full,
            aspect="auto",
            origin="lower",
            interpolation="nearest",
            extent=(0, end, low, top),
        )
    axes[1].plot(np.arange(len(sound)) / RATE, sound / 0.35, color="black", linewidth=0.4)
    axes[1].set(ylabel="relevance of the sound")
    axes[2].set(ylabel="of its spectrum (kHz)", xlabel="seconds")
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:])
