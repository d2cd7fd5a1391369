"""Is a heatmap any good: perturbation curves, and numbers that judge a map alone."""

from onnxlrp.evaluation.flipping import Flipping
from onnxlrp.evaluation.medium import Sample
from onnxlrp.evaluation.pictures import Pictures
from onnxlrp.evaluation.scored import ScoredModel
from onnxlrp.evaluation.sentences import Sentences
from onnxlrp.evaluation.signals import Signals
from onnxlrp.evaluation.study import Judge, Study
from onnxlrp.evaluation.tables import Tables

__all__ = [
    "Flipping",
    "Judge",
    "Pictures",
    "Sample",
    "ScoredModel",
    "Sentences",
    "Signals",
    "Study",
    "Tables",
]
