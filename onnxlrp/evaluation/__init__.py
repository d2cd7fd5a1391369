"""Is a heatmap any good: perturbation curves, and numbers that judge a map alone."""

from onnxlrp.evaluation.flipping import Flipping
from onnxlrp.evaluation.study import Judge, Picture, Study

__all__ = ["Flipping", "Judge", "Picture", "Study"]
