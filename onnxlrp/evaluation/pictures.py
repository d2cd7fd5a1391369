"""Pictures, whose pixels are flipped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from onnxlrp.errors import InputError
from onnxlrp.evaluation.flipping import Flipping, Size
from onnxlrp.evaluation.inpainting import inpainted
from onnxlrp.evaluation.measures import summed
from onnxlrp.evaluation.medium import Feeds, Replacing, Sample
from onnxlrp.inputs.preprocessing import Preprocessing

Replacement = Literal["uniform", "mean", "blur", "inpainting"]


@dataclass(frozen=True)
class Pictures:
    """Pictures as the model sees them, before scaling: content `pixels`, uint8 [H, W, C].

    Attributes
    ----------
    input : name of the model's input
    preprocessing : how pixels become what the model reads
    replacement : `uniform`, random values of 0..255; `mean`, the picture's mean colour; `blur`,
        the picture blurred by a Gaussian whose deviation is an eighth of its shorter side;
        `inpainting`, what the pixels that are left suggest (`inpainted`)

    Raises
    ------
    InputError
        The replacement is none of these.

    """

    input: str
    preprocessing: Preprocessing
    replacement: str = "uniform"
    samples: ClassVar[str] = "pictures"
    places: ClassVar[str] = "pixels"
    even: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.replacement not in get_args(Replacement):
            raise InputError(
                f"pixels are replaced by {', '.join(get_args(Replacement))}, not {self.replacement}"
            )

    @property
    def settings(self) -> Mapping[str, Any]:
        """What results depend on besides the picture."""
        return {"replacement": self.replacement, "preprocessing": self.preprocessing.to_json()}

    def feeds(self, sample: Sample) -> Feeds:
        """Return what the model reads of a picture, [1, ...]."""
        return {self.input: self.preprocessing.values(sample.content["pixels"])[None]}

    def size(self, sample: Sample) -> Size:
        """Return height and width."""
        height, width = sample.content["pixels"].shape[:2]
        return height, width

    def spared(self, sample: Sample) -> int:
        """Return 0: a picture without any of its pixels is one, too."""
        return 0

    def of_places(self, array: NDArray[Any], sample: Sample) -> NDArray[np.float64]:
        """Return the relevance of each pixel, summed over channels, [H, W]."""
        return summed(array, self.size(sample))

    def replacing(self, sample: Sample, flipping: Flipping) -> Replacing:
        """Return a function from which pixels are gone, [B, H, W], to what the model then reads.

        Preprocessing acts on each pixel alone and is linear, so that pixels can be replaced after
        it as well as before.
        """
        pixels = sample.content["pixels"]
        first = self.preprocessing.layout == "NCHW"
        before = self.preprocessing.values(pixels)
        if self.replacement == "inpainting":
            whole = np.moveaxis(before, 0, -1) if first else before

            def fill(gone: NDArray[np.bool_]) -> Iterator[Feeds]:
                filled = np.stack([inpainted(whole, one) for one in gone])
                yield {
                    self.input: np.ascontiguousarray(np.moveaxis(filled, -1, 1))
                    if first
                    else filled
                }

            return fill
        after = self.preprocessing.values(self.replaced(pixels, flipping.random(sample.number)))

        def exchange(gone: NDArray[np.bool_]) -> Iterator[Feeds]:
            yield {self.input: np.where(np.expand_dims(gone, 1 if first else -1), after, before)}

        return exchange

    def replaced(self, pixels: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
        """Return what pixels become when they are flipped, uint8 [H, W, C].

        Not for `inpainting`, where that depends on the pixels that are left.
        """
        if self.replacement == "uniform":
            return random.integers(0, 256, pixels.shape, dtype=np.uint8)
        if self.replacement == "mean":
            mean = np.rint(pixels.mean(axis=(0, 1))).astype(np.uint8)
            return np.broadcast_to(mean, pixels.shape).copy()
        grey = pixels.shape[2] == 1
        picture = Image.fromarray(pixels[..., 0] if grey else pixels)
        blurred = picture.filter(ImageFilter.GaussianBlur(min(pixels.shape[:2]) / 8))
        return np.asarray(blurred).reshape(pixels.shape)
