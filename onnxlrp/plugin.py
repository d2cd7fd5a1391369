"""Rules and operators of your own, in a Python file named with `--plugin`.

A rule is a formula over the layer's contributions; every linear operator then takes it:

    from onnxlrp.plugin import rule

    @rule("half")
    def half(layer, x, relevance, share, part=0.5):
        return x * layer.adjoint(share(part * relevance, layer(x), layer.bias))

An operator says how relevance crosses it:

    from onnxlrp.plugin import Relevance, operator

    @operator("com.example::Squash")
    def squash(crossing):
        return [(crossing.operation.inputs[0], crossing.incoming)]
"""

from __future__ import annotations

import runpy
from os import PathLike

from onnxlrp.errors import InputError
from onnxlrp.propagation.expression import Operands, Sign, Tensor, negative, positive
from onnxlrp.propagation.formulas import Layer, Share, UniformLayer, rule
from onnxlrp.propagation.registry import Crossing, ObstacleError, Relevance, layer, operator

__all__ = [
    "Crossing",
    "Layer",
    "ObstacleError",
    "Operands",
    "Relevance",
    "Share",
    "Sign",
    "Tensor",
    "UniformLayer",
    "layer",
    "load",
    "negative",
    "operator",
    "positive",
    "rule",
]


def load(path: str | PathLike[str]) -> None:
    """Run a Python file that registers rules or operators.

    Raises
    ------
    InputError
        If it cannot be read or fails; the message says where.

    """
    try:
        runpy.run_path(str(path), run_name="onnxlrp_plugin")
    except OSError as error:
        raise InputError(f"plugin {path} cannot be read: {error.strerror}") from None
    # Whatever the user's own code raises is the plugin's fault.
    except Exception as error:
        raise InputError(f"plugin {path} failed: {type(error).__name__}: {error}") from error
