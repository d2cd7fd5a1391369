"""Operators that relevance cannot cross, or that carry none: why, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

import onnx

from onnxlrp.graph.bodies import MICROSOFT
from onnxlrp.graph.operators import Fact, has

_EXPORT = "replace it in the model, or say how relevance crosses it in a --plugin"
_ORIGINAL = "give the original model, not one optimised or quantised by onnxruntime"
_LESS_OPTIMISED = "give the original model, or one optimised up to ORT_ENABLE_EXTENDED, not ALL"
_NO_CACHE = "export the model without a cache, for a whole sequence at once"
_TENSORS = "export the model with tensors in their place"
_INFERENCE = "export the model for inference"

# Reason, advice, operators; of those that have a body, why a use of them may have none.
_GROUPS: tuple[tuple[str, str, str], ...] = (
    (
        "how many steps it takes is known only when the model runs, or it is more than 20000 nodes",
        "export the model for one length of its input, or fix it: "
        "`python -m onnxruntime.tools.make_dynamic_shape_fixed --help`",
        "Loop Scan",
    ),
    (
        "its condition is known only when the model runs, and its branches make tensors of "
        "different sizes, or one may fail where the other is taken",
        "export the model for one case, in which it takes one branch",
        "If",
    ),
    (
        "what its list holds, or what is read of it, is known only when the model runs",
        _TENSORS,
        "SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SplitToSequence "
        "ConcatFromSequence SequenceMap SequenceLength Optional OptionalGetElement "
        "OptionalHasElement",
    ),
    (
        "it reads what bits stand for as another type, which is no function of the value",
        "export the model without it",
        "BitCast",
    ),
    (
        "it is a recurrent layer in a form that has no rule",
        _EXPORT,
        "com.microsoft::AttnLSTM com.microsoft::DynamicQuantizeLSTM",
    ),
    (
        "it is a quantised layer in a form that has no rule",
        "give the model before it was quantised",
        " ".join(
            f"{MICROSOFT}::{name}"
            for name in (
                *("QAttention", "QLinearReduceMean", "QEmbedLayerNormalization", "QMoE"),
                *("QOrderedAttention", "QOrderedGelu", "QOrderedLayerNormalization"),
                *("QOrderedLongformerAttention", "QOrderedMatMul", "QuantizeWithOrder"),
                *("DequantizeWithOrder", "MatMulInteger16", "MatMulNBits", "MatMulBnb4"),
                *("MatMulFpQ4", "GemmFloat8", "GatherBlockQuantized", "MulInteger"),
                "ReduceSumInteger",
            )
        ),
    ),
    (
        "it takes a diagonal of a size that is not known, or more than eight operands",
        "write it out in the model",
        "Einsum",
    ),
    (
        "it is of a matrix larger than 4 x 4, or of a size that is not known",
        "write out the decomposition that it stands for",
        "Det",
    ),
    (
        "its window rounds up, or is dilated below opset 19",
        "export it with the padding that it needs, at opset 19 or later",
        "LpPool",
    ),
    (
        "it is a recurrence of its own, of opset 27, which nothing runs yet",
        "write it as a Scan",
        "LinearAttention",
    ),
    (
        "its sizes, or its steps, are not known",
        "export the model with fixed sizes, and with constants",
        "MaxUnpool TensorScatter DFT STFT CumProd GridSample DeformConv AffineGrid "
        "CausalConvWithState",
    ),
    (
        "it is a transform along several axes, or of half a spectrum",
        "write it with ONNX's own DFT",
        "com.microsoft::Rfft com.microsoft::Irfft",
    ),
    (
        "it gives out its scores, is told lengths, or looks through a window",
        "export it as plain attention with a mask",
        "Attention",
    ),
    (
        "it reads a cache of earlier tokens, or looks through a window",
        _NO_CACHE,
        "com.microsoft::Attention com.microsoft::MultiHeadAttention "
        "com.microsoft::GroupQueryAttention com.microsoft::DecoderAttention "
        "com.microsoft::DecoderMaskedMultiHeadAttention com.microsoft::DecoderMaskedSelfAttention "
        "com.microsoft::PagedAttention com.microsoft::SparseAttention",
    ),
    (
        "it attends to parts of the sequence that its kernel chooses",
        "export the model with plain attention",
        "com.microsoft::LongformerAttention",
    ),
    (
        "it packs the tokens of all samples into one row, for one kind of device",
        "give the model before it was packed",
        "com.microsoft::PackedAttention com.microsoft::PackedMultiHeadAttention "
        "com.microsoft::RemovePadding com.microsoft::RestorePadding",
    ),
    (
        "its scale depends on the explained input",
        "give the model before it was quantised",
        "DequantizeLinear",
    ),
    (
        "it draws by chance, as often as its input says",
        "take the probabilities in its place",
        "Bernoulli",
    ),
    (
        "it searches whole texts by running a network within",
        "give that network alone: it classifies the next token",
        "com.microsoft::BeamSearch com.microsoft::GreedySearch com.microsoft::Sampling "
        "com.microsoft::WhisperBeamSearch",
    ),
    (
        "it forbids words by what was written before, which no score is a share of",
        "start from the scores in front of it",
        "com.microsoft::NGramRepeatBlock com.microsoft::BifurcationDetector",
    ),
    (
        "it reads text",
        "cut the model behind it: give it the numbers of the tokens",
        "com.microsoft::Tokenizer com.microsoft::MurmurHash3",
    ),
    (
        "its weights are laid out for one kind of device",
        _LESS_OPTIMISED,
        "com.microsoft::NhwcConv",
    ),
    (
        "it lays channels out for the processor that onnxruntime optimised the model for",
        _LESS_OPTIMISED,
        " ".join(
            f"com.microsoft.nchwc::{name}"
            for name in (
                *("AveragePool", "Conv", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"),
                *("ReorderInput", "ReorderOutput", "Upsample"),
            )
        ),
    ),
    (
        "it is a step of training",
        _INFERENCE,
        " ".join(
            f"ai.onnx.preview.training::{name}"
            for name in ("Adagrad", "Adam", "Gradient", "Momentum")
        ),
    ),
    (
        "it reads or makes a dictionary, not a tensor",
        _TENSORS,
        "ai.onnx.ml::CastMap ai.onnx.ml::DictVectorizer ai.onnx.ml::ZipMap",
    ),
    (
        "its scores cannot be told from what it makes of them: PROBIT, SOFTMAX_ZERO, or classes of "
        "which not every leaf says something",
        "export it with raw scores",
        "ai.onnx.ml::LinearClassifier ai.onnx.ml::LinearRegressor "
        "ai.onnx.ml::TreeEnsembleClassifier",
    ),
    (
        "its probabilities, of an iteration, are computed with, or it has no support vectors",
        "export it with raw scores",
        "ai.onnx.ml::SVMClassifier",
    ),
    (
        "it counts what stands together, which no score is a share of",
        "cut the model behind it: its counts are the features",
        "TfIdfVectorizer",
    ),
    (
        "it takes the largest of corners that are weighted, or as many points as a region is large",
        "export it with mode 'avg' and a sampling_ratio",
        "RoiAlign",
    ),
    (
        "its windows are what another input says, rounded to pixels",
        "export it as a RoiAlign",
        "MaxRoiPool",
    ),
    (
        "it makes a vector of a number that depends on the explained input",
        "look it up in a table, with a Gather",
        "OneHot",
    ),
    (
        "how much it keeps depends on what it is given",
        _EXPORT,
        "Unique com.microsoft::Unique",
    ),
    (
        "nothing of it is defined but what one program computes",
        _EXPORT,
        " ".join(
            f"{MICROSOFT}::{name}"
            for name in (
                *("CropAndResize", "DynamicTimeWarping", "SampleOp", "UnfoldTensor"),
                *("WordConvEmbedding", "SparseToDenseMatMul", "MaxpoolWithMask", "Inverse"),
                *("ConvTransposeWithDynamicPads", "CDist", "GatedRelativePositionBias", "MoE"),
            )
        ),
    ),
)

REFUSED: Mapping[str, tuple[str, str]] = MappingProxyType(
    {name: (reason, advice) for reason, advice, names in _GROUPS for name in names.split()}
)
"""By operator, `domain::Type` outside ai.onnx: why, and what to do about it.

Of an operator that is written out that is said of the uses for which it cannot be.
"""

_DOMAINS: Mapping[str, str] = MappingProxyType(
    {
        MICROSOFT: _ORIGINAL,
        "com.microsoft.nchwc": _LESS_OPTIMISED,
        "com.ms.internal.nhwc": _LESS_OPTIMISED,
    }
)


def why(operator: str) -> tuple[str, str]:
    """Say why an operator, or a use of it, is refused, and what to do: two parts of a sentence."""
    domain = operator.rpartition("::")[0]
    if operator in REFUSED:
        return REFUSED[operator]
    return "no rule is known for this operator", _DOMAINS.get(domain, _EXPORT)


@cache
def carries_none(operator: str) -> str:
    """Say why nothing that relevance could follow passes through an operator; "" where it may.

    `graph.analysis` finds the same by the types of what stands in a model.
    """
    if has(operator, Fact.UNREAD):
        return "reads a shape or a size, or draws by chance"
    domain, _, name = operator.rpartition("::")
    if not onnx.defs.has(name, domain):
        return ""
    schema = onnx.defs.get_schema(name, domain=domain)
    made = {kind for output in schema.outputs for kind in output.types}
    real = any(name in kind for kind in made for name in ("float", "double", "seq", "optional"))
    return "" if real or not made else "tells a place, a count, a truth or a text"
