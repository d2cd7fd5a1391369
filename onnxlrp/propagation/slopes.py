"""The derivative of every function of one live value, one line each.

At a kink it is the slope on its left, so that of a ReLU at 0 is 0, as in torch. Where y is known,
it is used: a derivative then costs one node or two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from onnxlrp.graph.score import FLOATS
from onnxlrp.propagation.expression import Sign, Tensor
from onnxlrp.propagation.registry import Crossing


def slope(crossing: Crossing) -> Tensor | float:
    """Return the derivative of an operation by its live input, at that input."""
    (value,) = crossing.live_inputs
    return SLOPES[crossing.operation.operator](crossing.tensor(value), crossing.output(), crossing)


def _of(function: str, x: Tensor, sign: Sign = Sign.UNKNOWN) -> Tensor:
    return x.emitter.elementwise(function, x, sign=sign)


def where_above(
    bound: Tensor | float, x: Tensor, yes: Tensor | float, no: Tensor | float
) -> Tensor:
    """Return `yes` where x is above a bound, else `no`."""
    emitter = x.emitter
    low, above, below = (
        n if isinstance(n, Tensor) else emitter.scalar(n, x) for n in (bound, yes, no)
    )
    return emitter.where(emitter.compare("Less", low, x), above, below, Sign.UNKNOWN)


def _clip(x: Tensor, y: Tensor, at: Crossing) -> Tensor | float:
    low, high = at.operation.input(1), at.operation.input(2)
    inside: Tensor | float = 1.0
    if high is not None:
        inside = where_above(at.tensor(high), x, 0.0, inside)
    return inside if low is None else where_above(at.tensor(low), x, inside, 0.0)


def _extremum(x: Tensor, y: Tensor, at: Crossing) -> Tensor | float:
    """1 where x is the largest, or smallest; the other operands are constants."""
    largest = at.operation.operator == "Max"
    inside: Tensor | float = 1.0
    for value in at.operation.inputs:
        if value is not None and id(value) not in at.live:
            bound = at.tensor(value)
            inside = where_above(bound, x, *((inside, 0.0) if largest else (0.0, inside)))
    return inside


def _gelu(x: Tensor, y: Tensor, at: Crossing) -> Tensor:
    if at.operation.attributes.get("approximate", "none") == "tanh":
        root = math.sqrt(2 / math.pi)
        t = _of("Tanh", (x + x**2 * x * 0.044715) * root)
        return (t + 1.0) * 0.5 + x * (1.0 - t**2) * (x**2 * (3 * 0.044715) + 1.0) * (root / 2)
    below = (_of("Erf", x * math.sqrt(0.5)) + 1.0) * 0.5
    return below + x * _of("Exp", x**2 * -0.5) * (1 / math.sqrt(2 * math.pi))


def _swish(x: Tensor, y: Tensor, at: Crossing) -> Tensor:
    alpha = at.attribute("alpha", 1.0)
    s = _of("Sigmoid", x * alpha, Sign.NON_NEGATIVE)
    return s + x * alpha * s * (1.0 - s)


def _mish(x: Tensor, y: Tensor, at: Crossing) -> Tensor:
    t = _of("Tanh", _of("Softplus", x))
    return t + x * (1.0 - t**2) * _of("Sigmoid", x)


def _selu(x: Tensor, y: Tensor, at: Crossing) -> Tensor:
    alpha, gamma = at.attribute("alpha", 1.6732632423543772), at.attribute("gamma", 1.05070098)
    return where_above(0.0, x, gamma, y + alpha * gamma)


def _hard_sigmoid(x: Tensor, y: Tensor, at: Crossing) -> Tensor:
    alpha = at.attribute("alpha", 0.2)
    line = x * alpha + at.attribute("beta", 0.5)
    return where_above(0.0, line, where_above(1.0, line, 0.0, alpha), 0.0)


def _pow(x: Tensor, y: Tensor, at: Crossing) -> Tensor:
    base, exponent = at.input(0), at.input(1)
    if at.live_inputs[0] is at.operation.inputs[1]:
        return y * _of("Log", base)
    return exponent * at.emitter.elementwise("Pow", base, exponent - 1.0)


def _cast(x: Tensor, y: Tensor, at: Crossing) -> float:
    """Whole numbers of real ones are constant but where they jump."""
    made, (given,) = at.operation.outputs[0].dtype, at.live_inputs
    return float(made in FLOATS or given.dtype not in FLOATS)


SLOPES: Mapping[str, Callable[[Tensor, Tensor, Crossing], Tensor | float]] = {
    "ai.onnx.ml::Binarizer": lambda x, y, at: 0.0,
    "ai.onnx.ml::LabelEncoder": lambda x, y, at: 0.0,
    "Abs": lambda x, y, at: _of("Sign", x),
    "Acos": lambda x, y, at: -((1.0 - x**2) ** -0.5),
    "Acosh": lambda x, y, at: (x**2 - 1.0) ** -0.5,
    "Asin": lambda x, y, at: (1.0 - x**2) ** -0.5,
    "Asinh": lambda x, y, at: (x**2 + 1.0) ** -0.5,
    "Atan": lambda x, y, at: (x**2 + 1.0) ** -1,
    "Atanh": lambda x, y, at: (1.0 - x**2) ** -1,
    "Cast": _cast,
    "Ceil": lambda x, y, at: 0.0,
    "Celu": lambda x, y, at: where_above(0.0, x, 1.0, y * (1 / at.attribute("alpha", 1.0)) + 1.0),
    "Clip": _clip,
    "Cos": lambda x, y, at: -_of("Sin", x),
    "Cosh": lambda x, y, at: _of("Sinh", x),
    "Dropout": lambda x, y, at: 1.0,
    "Elu": lambda x, y, at: where_above(0.0, x, 1.0, y + at.attribute("alpha", 1.0)),
    "Erf": lambda x, y, at: _of("Exp", -(x**2)) * (2 / math.sqrt(math.pi)),
    "Exp": lambda x, y, at: y,
    "Floor": lambda x, y, at: 0.0,
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda x, y, at: where_above(
        3.0, x, 1.0, where_above(-3.0, x, x * (1 / 3) + 0.5, 0.0)
    ),
    "Hardmax": lambda x, y, at: 0.0,
    "Identity": lambda x, y, at: 1.0,
    "LeakyRelu": lambda x, y, at: where_above(0.0, x, 1.0, at.attribute("alpha", 0.01)),
    "Log": lambda x, y, at: x**-1,
    "Max": _extremum,
    "Min": _extremum,
    "Mish": _mish,
    # c mod x is c - n x.
    "Mod": lambda x, y, at: (
        1.0 if at.live_inputs[0] is at.operation.inputs[0] else (y - at.input(0)) / x
    ),
    "PRelu": lambda x, y, at: where_above(0.0, x, 1.0, at.input(1)),
    "Pow": _pow,
    "Reciprocal": lambda x, y, at: -(y / x),
    "Relu": lambda x, y, at: where_above(0.0, y, 1.0, 0.0),
    "Round": lambda x, y, at: 0.0,
    "Selu": _selu,
    "Shrink": lambda x, y, at: where_above(at.attribute("lambd", 0.5), _of("Abs", x), 1.0, 0.0),
    "Sigmoid": lambda x, y, at: y * (1.0 - y),
    "Sign": lambda x, y, at: 0.0,
    "Sin": lambda x, y, at: _of("Cos", x),
    "Sinh": lambda x, y, at: _of("Cosh", x),
    "Softplus": lambda x, y, at: _of("Sigmoid", x, Sign.NON_NEGATIVE),
    "Softsign": lambda x, y, at: (_of("Abs", x) + 1.0) ** -2,
    "Sqrt": lambda x, y, at: y**-1 * 0.5,
    "Swish": _swish,
    "Tan": lambda x, y, at: y**2 + 1.0,
    "Tanh": lambda x, y, at: 1.0 - y**2,
    "ThresholdedRelu": lambda x, y, at: where_above(at.attribute("alpha", 1.0), x, 1.0, 0.0),
}
"""By ONNX operator type, of x and y = f(x), and the operation for what else it says."""
