"""Preprocessing by name or from a file, and what a model's own file says about its pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from onnxlrp.errors import InputError
from onnxlrp.files import read_text
from onnxlrp.inputs.preprocessing import Preprocessing

Dim = int | str | None

PRESETS: Mapping[str, Preprocessing] = {
    # torchvision's and timm's.
    "imagenet": Preprocessing(
        resize=256,
        crop=(224, 224),
        scale=1 / 255,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    ),
    # BVLC's reference networks.
    "imagenet-caffe": Preprocessing(
        resize=(256, 256), crop=(224, 224), mean=(104.0, 117.0, 123.0), channels="BGR"
    ),
    "cifar10": Preprocessing(
        resize=32,
        crop=(32, 32),
        scale=1 / 255,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
    ),
    # keras.applications' mode "tf"; the crop is the 87.5 % of TensorFlow's evaluation.
    "tf": Preprocessing(resize=256, crop=(224, 224), scale=1 / 127.5, mean=(1.0,), layout="NHWC"),
    "raw": Preprocessing(),
}


def load_preprocessing(name: str) -> Preprocessing:
    """Return the preset of that name, or what a JSON file of `Preprocessing.to_json` says.

    Raises
    ------
    InputError
        There is neither such a preset nor such a file, or the file says something else.

    """
    if name in PRESETS:
        return PRESETS[name]
    path = Path(name)
    if not path.is_file():
        raise InputError(
            f"unknown preprocessing '{name}': it is a JSON file, or one of {', '.join(PRESETS)}"
        )
    try:
        return Preprocessing.from_json(read_text(path))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


_PIXELS = {"Rgb8": "RGB", "Bgr8": "BGR", "Gray8": "grey"}
_RANGES = {
    "NominalRange_0_255": (0.0, 255.0),
    "NominalRange_16_235": (16.0, 235.0),
    "Normalized_0_1": (0.0, 1.0),
    "Normalized_1_1": (-1.0, 1.0),
}


OTHERWISE = "change --preprocess, --resize, --crop or --layout"
"""What is to be done where pictures are made of another shape than the model reads."""


def misfits(
    shapes: Iterable[Sequence[Dim]], chosen: Preprocessing | None, *, whole: bool = False
) -> list[str]:
    """Say where a preprocessing makes of pictures what a model's inputs do not take.

    Parameters
    ----------
    shapes : of the explained inputs; sizes that are not numbers fit any
    chosen : what is about to be stored
    whole : whether the inputs are whole numbers

    """
    said = []
    changes = chosen and (chosen.scale != 1 or any(chosen.mean) or set(chosen.std) != {1})
    if whole and changes:
        said.append(
            "the model reads whole numbers, and the preprocessing makes others: drop --scale, "
            "--mean and --std"
        )
    for shape in shapes if chosen is not None else ():
        assert chosen is not None
        channels = 1 if chosen.channels == "grey" else 3
        height, width = chosen.crop or (None, None)
        made: tuple[Dim, ...] = (channels, height, width)
        if chosen.layout == "NHWC":
            made = (height, width, channels)
        wanted = tuple(shape)[1:]
        fits = len(wanted) == 3 and all(
            a == b or not (isinstance(a, int) and isinstance(b, int))
            for a, b in zip(made, wanted, strict=True)
        )
        if not fits:
            said.append(
                f"the preprocessing makes {_written(made)} of a picture, the model reads "
                f"{_written(wanted)}: see --layout, --crop, --resize and --channels"
            )
    return said


def _written(shape: Sequence[Dim]) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def doubts(metadata: Mapping[str, str], chosen: Preprocessing | None) -> list[str]:
    """Say where a preprocessing departs from what the model's file says about its pictures.

    Parameters
    ----------
    metadata : the model's `metadata_props`; ONNX's image metadata are looked at
        (`Image.BitmapPixelFormat`, `Image.NominalPixelRange`; onnx, docs/MetadataProps.md)
    chosen : what is about to be stored

    Returns
    -------
    one sentence for each doubt

    """
    said = []
    channels = _PIXELS.get(metadata.get("Image.BitmapPixelFormat", ""))
    named = metadata.get("Image.NominalPixelRange", "")
    bounds = _RANGES.get(named)
    if chosen is None:
        if channels or bounds:
            told = " and ".join(filter(None, [channels, named]))
            said.append(
                f"the model's file says its pictures are {told}; no preprocessing was given, so "
                "the explainer will not know how pictures are made"
            )
        return said
    if channels and channels != chosen.channels:
        said.append(
            f"the model's file says its pictures are {channels}, the preprocessing makes them "
            f"{chosen.channels}"
        )
    if bounds:
        low, high = min(chosen.bounds[0]), max(chosen.bounds[1])
        span = bounds[1] - bounds[0]
        # Mean and deviation are seldom told, so only another order of magnitude is a contradiction.
        if not 0.2 < (high - low) / span < 5:
            said.append(
                f"the model's file says its values span {span:g} ({named}), those of the "
                f"preprocessing {high - low:.3g}"
            )
    return said
