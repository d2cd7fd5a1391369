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
    from onnxlrp.compiler.composite import Composite
    from onnxlrp.compiler.conversion import Conversion, convert
    from onnxlrp.inputs.preprocessing import Preprocessing
    from onnxlrp.running.explainer import Explainer
    from onnxlrp.running.explanation import Explanation

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
    "Composite": "compiler.composite",
    "Conversion": "compiler.conversion",
    "Explainer": "running.explainer",
    "Explanation": "running.explanation",
    "Preprocessing": "inputs.preprocessing",
    "convert": "compiler.conversion",
}


# Running an explainer needs no compiler, and `onnxlrp --help` neither: each loads when used.
def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
