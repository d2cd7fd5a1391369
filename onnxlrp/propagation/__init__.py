"""How relevance crosses one operator."""

# Importing a family registers its operators.
from onnxlrp.propagation import (  # noqa: F401
    convolution,
    dense,
    elementwise,
    normalization,
    pooling,
    structural,
    sums,
)
