"""The bundled networks explain a bundled photograph, and a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from onnxlrp.compiler.composite import Composite
from onnxlrp.compiler.conversion import Conversion, convert
from onnxlrp.compiler.default_composite import DEFAULT_COMPOSITE
from onnxlrp.drawing.heatmap import heatmap, overlay
from onnxlrp.drawing.panels import seen
from onnxlrp.inputs.preprocessing import Preprocessing
from onnxlrp.inputs.targets import TOP
from onnxlrp.running.explainer import Explainer
from onnxlrp.running.explanation import Explanation

if TYPE_CHECKING:
    from numpy.typing import NDArray

MODEL = "cifar10_lrn.onnx"
PHOTOGRAPH = "demo.png"
CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
REVIEWS = "reviews.onnx"
TOKENIZER = "reviews.tokenizer.json"
REVIEW = "A beautiful and moving film with a tired, predictable plot."
OPINIONS = ("negative", "positive")
PREPROCESSING = Preprocessing(resize=32, crop=(32, 32), mean=(125.3, 123.0, 113.9))
"""As the network was trained, see its card."""


@dataclass(frozen=True)
class Demo:
    """What the demo shows.

    Attributes
    ----------
    conversion : of the bundled network
    explanation : of the bundled photograph
    relevance : float32 [3, 32, 32]
    heatmap, overlay : the relevance, drawn alone and over the photograph

    """

    conversion: Conversion
    explanation: Explanation
    relevance: NDArray[np.float32]
    heatmap: Image.Image
    overlay: Image.Image

    @property
    def label(self) -> str:
        """The class explained, in words."""
        return CLASSES[int(self.explanation.target[0])]


def demo(target: int = TOP, composite: Composite | str = DEFAULT_COMPOSITE) -> Demo:
    """Convert the bundled network and explain the bundled photograph with it.

    Parameters
    ----------
    target : class of CIFAR-10, 0 to 9, or -1 for the top one
    composite : which rule each node gets

    Raises
    ------
    CompositeError
        The composite is unknown, or leaves one of the network's operators without a rule.
    InputError
        `target` is not a class.
    DeviceError
        onnxruntime is missing.

    """
    bundled = files("onnxlrp.bundled")
    with as_file(bundled / MODEL) as path:
        conversion = convert(path, composite, preprocessing=PREPROCESSING)
    with (bundled / PHOTOGRAPH).open("rb") as file:
        photograph = Image.open(file)
        photograph.load()
    run = Explainer(conversion.to_proto().SerializeToString())
    explanation = run(PREPROCESSING(photograph)[None], target)
    relevance = np.asarray(explanation.relevance)[0]
    over = overlay(relevance, seen(PREPROCESSING, photograph))
    return Demo(conversion, explanation, relevance, heatmap(relevance), over)


@dataclass(frozen=True)
class TextDemo:
    """What the demo of text shows.

    Attributes
    ----------
    conversion : of the bundled network
    explanation : of one text
    tokenizer : the content of the network's `tokenizer.json`

    """

    conversion: Conversion
    explanation: Explanation
    tokenizer: bytes

    @property
    def label(self) -> str:
        """The class explained, in words."""
        return OPINIONS[int(self.explanation.target[0])]


def demo_text(
    text: str = REVIEW, target: int = TOP, composite: Composite | str = DEFAULT_COMPOSITE
) -> TextDemo:
    """Convert the bundled network of film reviews and explain a text with it.

    Parameters
    ----------
    text : in English, about a film
    target : 0, negative, 1, positive, or -1 for what the network thinks it is
    composite : which rule each node gets

    Raises
    ------
    CompositeError, InputError, DeviceError
        As `demo`; or the library `tokenizers` is not installed.

    """
    bundled = files("onnxlrp.bundled")
    with as_file(bundled / REVIEWS) as path:
        conversion = convert(path, composite)
    with as_file(bundled / TOKENIZER) as path:
        run = Explainer(conversion.to_proto().SerializeToString(), tokenizer=path)
        return TextDemo(conversion, run([text], target), path.read_bytes())
