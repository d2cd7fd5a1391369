"""Compile an ONNX classifier into an ONNX explainer: Layer-wise Relevance Propagation.

>>> import onnxlrp
>>> onnxlrp.convert("model.onnx").save("explainer.onnx")                      # doctest: +SKIP
>>> onnxlrp.Explainer("explainer.onnx")(images, target=-1).relevance          # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from onnxlrp.errors import (
    CompositeError,
    DeviceError,
    InputError,
    ModelError,
    OnnxlrpError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from onnxlrp.composite import Composite
    from onnxlrp.conversion import Conversion, convert
    from onnxlrp.explainer import Explainer
    from onnxlrp.explanation import Explanation
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

_HOMES = {
    "Composite": "composite",
    "Conversion": "conversion",
    "Explainer": "explainer",
    "Explanation": "explanation",
    "Preprocessing": "preprocessing",
    "convert": "conversion",
}


# Running an explainer needs no compiler, and `onnxlrp --help` neither: each loads when used.
def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
