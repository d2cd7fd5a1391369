"""The reference: Layer-wise Relevance Propagation on its definition, in float64, slow and plain.

It judges the compiler and shares no code with it. ``evaluate`` runs the operators of a model,
``propagate`` takes relevance back across one node, and ``explain`` across a whole network.
"""

from onnxlrp.reference.activation_map import activation_map
from onnxlrp.reference.beginning import start
from onnxlrp.reference.contributions import gathered, probed
from onnxlrp.reference.crossing import Propagated, propagate
from onnxlrp.reference.network import explain, live_names
from onnxlrp.reference.operators import evaluate, forward
from onnxlrp.reference.rules import stab

__all__ = [
    "Propagated",
    "activation_map",
    "evaluate",
    "explain",
    "forward",
    "gathered",
    "live_names",
    "probed",
    "propagate",
    "stab",
    "start",
]
