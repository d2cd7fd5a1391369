"""What every operator guarantees, whatever it is given: one table that all who ask read."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Flag, auto
from functools import cache
from types import MappingProxyType

import onnx_ir as ir


class Fact(Flag):
    """A guarantee; an operator that is not in the table gives none.

    Attributes
    ----------
    NON_NEGATIVE : no element of its results is ever below 0
    CARRIES_SIGN : so it is where its first input's never are
    JOINS_SIGN : so it is where none of its inputs' ever are
    ZERO : f(0) = 0: where its first input is 0 its result is
    KEEPS : f(z) = z wherever f(z) is not 0
    MOVES : its elements are elements of its inputs, or 0: nothing is computed
    BOUNDED : its results lie between two numbers, whatever it is given
    CARRIES_BOUNDS : so they do where its first input's do
    JOINS_BOUNDS : so they do where all its inputs' do
    ROUNDS : its products or long sums have to be rounded
    CHANNELS_SECOND : its bias, [channels], belongs to axis 1
    SHAPED : its result has the type and shape of its first input, which onnx cannot tell
    UNREAD : no value of its inputs matters to its results: their shapes, sizes, or chance do

    """

    NON_NEGATIVE = auto()
    CARRIES_SIGN = auto()
    JOINS_SIGN = auto()
    ZERO = auto()
    KEEPS = auto()
    MOVES = auto()
    BOUNDED = auto()
    CARRIES_BOUNDS = auto()
    JOINS_BOUNDS = auto()
    ROUNDS = auto()
    CHANNELS_SECOND = auto()
    SHAPED = auto()
    UNREAD = auto()


_ACTIVATION = Fact.CARRIES_SIGN | Fact.ZERO
_MOVES = Fact.CARRIES_SIGN | Fact.CARRIES_BOUNDS | Fact.MOVES
_MEAN = Fact.CARRIES_SIGN | Fact.CARRIES_BOUNDS | Fact.ROUNDS
_LAYER = Fact.ROUNDS

# Resize (cubic makes negatives of none), Clip, Cast, Max, Pad and LRN depend on more than their
# name: those are asked about in `analysis`.
FACTS: Mapping[str, Fact] = MappingProxyType(
    {
        "Relu": Fact.NON_NEGATIVE | Fact.ZERO | Fact.KEEPS,
        "Abs": Fact.NON_NEGATIVE | Fact.ZERO,
        "Sqrt": Fact.NON_NEGATIVE | Fact.ZERO,
        "Sigmoid": Fact.NON_NEGATIVE | Fact.BOUNDED,
        "HardSigmoid": Fact.NON_NEGATIVE | Fact.BOUNDED,
        "Softmax": Fact.NON_NEGATIVE | Fact.BOUNDED | Fact.ROUNDS,
        "Softplus": Fact.NON_NEGATIVE,
        "Exp": Fact.NON_NEGATIVE,
        "LeakyRelu": _ACTIVATION,
        "PRelu": Fact.ZERO,
        "Elu": _ACTIVATION,
        "Celu": Fact.ZERO,
        "Selu": Fact.ZERO,
        "Tanh": _ACTIVATION | Fact.BOUNDED,
        "Erf": _ACTIVATION | Fact.BOUNDED,
        "Gelu": Fact.ZERO,
        "HardSwish": _ACTIVATION,
        "Swish": Fact.ZERO,
        "Mish": Fact.ZERO,
        "Softsign": _ACTIVATION | Fact.BOUNDED,
        "Sin": Fact.ZERO | Fact.BOUNDED,
        "Cos": Fact.BOUNDED,
        "Tan": Fact.ZERO,
        "Asin": _ACTIVATION | Fact.BOUNDED,
        "Acos": Fact.NON_NEGATIVE | Fact.BOUNDED,
        "Atan": _ACTIVATION | Fact.BOUNDED,
        "Sinh": _ACTIVATION,
        "Cosh": Fact.NON_NEGATIVE,
        "Asinh": _ACTIVATION,
        "Acosh": Fact.NON_NEGATIVE,
        "Atanh": _ACTIVATION,
        "Sign": _ACTIVATION | Fact.BOUNDED,
        "Floor": _ACTIVATION | Fact.CARRIES_BOUNDS,
        "Ceil": _ACTIVATION | Fact.CARRIES_BOUNDS,
        "Round": _ACTIVATION | Fact.CARRIES_BOUNDS,
        "Hardmax": Fact.NON_NEGATIVE | Fact.BOUNDED,
        "ThresholdedRelu": Fact.ZERO,
        # A Cast to an integer type may turn 0.5 into 0, never 0 into something else.
        "Cast": Fact.ZERO | Fact.CARRIES_BOUNDS,
        "Identity": _MOVES | Fact.ZERO,
        "Dropout": _MOVES | Fact.ZERO,
        "Reshape": _MOVES,
        "Flatten": _MOVES,
        "Squeeze": _MOVES,
        "Unsqueeze": _MOVES,
        "Transpose": _MOVES,
        "Slice": _MOVES,
        "Split": _MOVES,
        "Gather": _MOVES,
        "GatherElements": _MOVES,
        "GatherND": _MOVES,
        "TopK": _MOVES,
        "Expand": _MOVES,
        "Tile": _MOVES,
        "MaxPool": _MOVES,
        "GlobalMaxPool": _MOVES,
        "ReduceMax": _MOVES,
        "ReduceMin": _MOVES,
        "ReduceProd": Fact.CARRIES_SIGN | Fact.ROUNDS,
        "ReverseSequence": _MOVES,
        "DepthToSpace": _MOVES,
        "SpaceToDepth": _MOVES,
        "Trilu": Fact.CARRIES_SIGN | Fact.CARRIES_BOUNDS,
        "Concat": Fact.JOINS_SIGN | Fact.JOINS_BOUNDS | Fact.MOVES,
        "Min": Fact.JOINS_SIGN | Fact.JOINS_BOUNDS | Fact.MOVES,
        "Where": Fact.JOINS_BOUNDS | Fact.MOVES,
        "Pow": Fact.CARRIES_SIGN,
        "AveragePool": _MEAN,
        "Col2Im": _MEAN,
        "GlobalAveragePool": _MEAN,
        "ReduceMean": _MEAN,
        "ReduceSum": _MEAN,
        "CumSum": Fact.CARRIES_SIGN | Fact.ROUNDS,
        "Resize": Fact.CARRIES_BOUNDS | Fact.ROUNDS,
        "Add": Fact.JOINS_SIGN | Fact.JOINS_BOUNDS,
        "Sub": Fact.JOINS_BOUNDS,
        "Neg": Fact.ZERO | Fact.CARRIES_BOUNDS,
        "Sum": Fact.JOINS_SIGN | Fact.JOINS_BOUNDS,
        "Mean": Fact.JOINS_SIGN | Fact.JOINS_BOUNDS,
        "Mul": Fact.JOINS_SIGN | Fact.JOINS_BOUNDS | Fact.ROUNDS,
        "Div": Fact.JOINS_SIGN | Fact.ROUNDS,
        "Conv": _LAYER | Fact.CHANNELS_SECOND,
        "ConvTranspose": _LAYER | Fact.CHANNELS_SECOND,
        "Gemm": _LAYER,
        "MatMul": _LAYER,
        "BatchNormalization": _LAYER | Fact.CHANNELS_SECOND,
        "LRN": Fact.ROUNDS,
        "LayerNormalization": _LAYER,
        "RMSNormalization": _LAYER,
        "InstanceNormalization": _LAYER,
        "GroupNormalization": _LAYER | Fact.SHAPED,
        "MeanVarianceNormalization": _LAYER | Fact.SHAPED,
        "LpNormalization": _LAYER,
        "MatrixProduct": Fact.ROUNDS,
        "Mixture": Fact.ROUNDS,
        "LogSoftmax": Fact.ROUNDS,
        "ScatterSum": Fact.ROUNDS,
        "LSTM": Fact.ROUNDS,
        "GRU": Fact.ROUNDS,
        "RNN": Fact.ROUNDS,
        "Shape": Fact.UNREAD,
        "Size": Fact.UNREAD,
        "EyeLike": Fact.UNREAD,
        "ConstantOfShape": Fact.UNREAD,
        "Range": Fact.UNREAD,
        "RandomNormal": Fact.UNREAD,
        "RandomNormalLike": Fact.UNREAD,
        "RandomUniform": Fact.UNREAD,
        "RandomUniformLike": Fact.UNREAD,
        "HannWindow": Fact.UNREAD,
        "HammingWindow": Fact.UNREAD,
        "BlackmanWindow": Fact.UNREAD,
        "MelWeightMatrix": Fact.UNREAD,
        "com.microsoft::Range": Fact.UNREAD,
        # Of a table that is a weight.
        "com.microsoft::RelativePositionBias": Fact.UNREAD,
    }
)
"""By ONNX operator type; `domain::Type` outside ai.onnx."""


def operator_of(node: ir.Node) -> str:
    """Return a node's ONNX operator type; `domain::Type` outside ai.onnx."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"


@cache
def has(operator: str, fact: Fact) -> bool:
    """Tell whether an operator guarantees something."""
    return bool(FACTS.get(operator, Fact(0)) & fact)
