"""Compile an ONNX classifier into an ONNX explainer: Layer-wise Relevance Propagation.

>>> import onnxlrp
>>> onnxlrp.convert("model.onnx").save("explainer.onnx")                      # doctest: +SKIP
>>> onnxlrp.Explainer("explainer.onnx")(images, target=-1).relevance          # doctest: +SKIP
"""

from onnxlrp.composite import Composite
from onnxlrp.conversion import Conversion, convert
from onnxlrp.errors import (
    CompositeError,
    DeviceError,
    InputError,
    ModelError,
    OnnxlrpError,
    UnsupportedError,
)
from onnxlrp.explainer import Explainer, Explanation
from onnxlrp.preprocessing import Preprocessing

__all__ = [
    "Composite",
    "CompositeError",
    "Conversion",
    "DeviceError",
    "Explainer",
    "Explanation",
    "InputError",
    "ModelError",
    "OnnxlrpError",
    "Preprocessing",
    "UnsupportedError",
    "convert",
]
