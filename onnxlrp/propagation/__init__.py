"""How relevance crosses one operator."""

# Importing a family registers its operators.
from onnxlrp.propagation import (  # noqa: F401
    axes,
    blocks,
    convolution,
    copying,
    dense,
    elementwise,
    kernels,
    moments,
    normalization,
    pooling,
    products,
    recurrent,
    structural,
    sums,
    trees,
)
