"""What can go wrong, each as one exception whose text tells the user what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class OnnxlrpError(Exception):
    """Base of all errors that are the input's fault; the text is one readable line."""


class ModelError(OnnxlrpError):
    """The file is not a model that can be explained (unreadable, no input, no class output)."""


class CompositeError(OnnxlrpError):
    """A composite is unknown, malformed, or leaves an operator without a rule."""


class InputError(OnnxlrpError):
    """An image, array, target or option does not fit the explainer."""


class DeviceError(OnnxlrpError):
    """onnxruntime is missing or did not take the device that was asked for."""


@dataclass(frozen=True)
class Obstacle:
    """One node that stands in the way of a conversion.

    Attributes
    ----------
    node, operator, domain : the node's name and what it computes
    opset : version of the domain's operator set that the model imports
    reason : what is the matter with it
    advice : what the user can do

    """

    node: str
    operator: str
    domain: str
    opset: int
    reason: str
    advice: str

    def __str__(self) -> str:
        domain = self.domain or "ai.onnx"
        return f"{self.node} ({self.operator}, {domain} {self.opset}): {self.reason}; {self.advice}"


class UnsupportedError(OnnxlrpError):
    """Some nodes between the explained input and the score cannot be propagated through.

    Attributes
    ----------
    obstacles : every node concerned, in the model's order
    summary : how many they are

    """

    def __init__(self, obstacles: Sequence[Obstacle]) -> None:
        self.obstacles = tuple(obstacles)
        count = len(self.obstacles)
        self.summary = f"{count} node{'s' * (count != 1)} cannot be explained:"
        super().__init__("\n  ".join([self.summary, *map(str, self.obstacles)]))
