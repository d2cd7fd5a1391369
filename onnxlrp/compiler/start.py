"""Where relevance starts: the score of a class, a difference, weights, a contrast."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import onnx_ir as ir

from onnxlrp.compiler.naming import target_input, weights_input
from onnxlrp.errors import InputError, ModelError
from onnxlrp.graph.canonical import Network
from onnxlrp.graph.place import Place
from onnxlrp.graph.shapes import Dim, dims_of
from onnxlrp.inputs.targets import TOP, Difference, read_difference
from onnxlrp.propagation import layout
from onnxlrp.propagation.expression import Emitter, Sign, Tensor
from onnxlrp.propagation.registry import Relevance

MOST_CLASSES = 1 << 24
"""Classes up to which an explainer is written: it holds their numbers."""

_END = (1 << 63) - 1

Contrast = Literal["others", "softmax"]


@dataclass(frozen=True)
class Start:
    """What relevance starts from, as a caller wants it.

    With the scores f [N, classes], logits where there are any, R_c = f_c for the class c, and R = 0
    for all others (`target`: a number, "top", or the input of that name). Besides:

    - a difference of the classes c and d, "c-d": R_c = f_c and R_d = -f_d. The map adds up to
      f_c - f_d: why c, and not d;
    - a contrast to all `others`: R_c = f_c, and R_j = -f_c / (classes - 1) for every other j (CLRP,
      Gu et al. 2018, arXiv:1812.02100, with their first dual concept, as Iwana et al. 2019 write
      it);
    - a contrast by `softmax`, y = softmax(f): R_c = y_c (1 - y_c), and R_j = -y_c y_j for every
      other j, which is the gradient of y_c (SGLRP, Iwana et al. 2019, arXiv:1908.04351);
    - weights w, an input [N, classes] or [1, classes]: R = w f. The map adds up to the sum of w f;
      with a unit vector for w, and an embedding for f, to the part of it along w.

    Logits are looked for behind an output of probabilities, or their logarithms, however a softmax
    or sigmoid is written, clipped, smoothed or scaled: f is what it is given, a temperature
    included. Where one logit z makes two columns, as 1 - sigmoid(z) and sigmoid(z), the scores are
    -z and z. A mean or product of several probabilities has none, and relevance starts from
    itself, with a warning; a value inside the model can be named in its place (`output`).

    A composite that yields a gradient starts from the derivatives of what is explained by the
    scores: 1 in the place of f_c in all of this, and w in that of w f.

    A contrast adds up to 0, so no share of a score is told of it. Iwana et al.'s code scales the
    map of the others to the sum of the class's at the input, and can leave out what is negative;
    here the map is what the rules make of R.

    Of a dense output (`at`) the same holds at each of the places that count, and the score of a
    class is its sum over them; which one is the best is a matter of these sums.

    Attributes
    ----------
    target : class or difference written in, or "top"; None where an input chooses
    weights : whether that input takes weights, [N, classes], in place of a class
    contrast : to what, None for none
    slope : whether it is the derivative of what is explained by the scores

    """

    target: int | Literal["top"] | Difference | None = None
    weights: bool = False
    contrast: Contrast | None = None
    slope: bool = False

    def __str__(self) -> str:
        """Write what is written in, "" where an input chooses."""
        return "" if self.target is None else str(self.target)


def read_start(target: object, contrast: str | None = None, slope: bool = False) -> Start:
    """Read what a caller wants explained; numpy's whole numbers are as good as Python's.

    Raises
    ------
    InputError
        If the target is neither a whole number, "top", a difference such as "3-5", "weights" nor
        None; or the contrast is none, or not to one class.

    """
    if contrast is not None and contrast not in get_args(Contrast):
        raise InputError(f"contrast {contrast!r} is neither 'others' nor 'softmax'")
    chosen: Contrast | None = contrast  # type: ignore[assignment]
    found: int | Literal["top"] | Difference | None = None
    if target == "top":
        found = "top"
    elif isinstance(target, Difference):
        found = target
    elif isinstance(target, str) and target != "weights":
        found = read_difference(target)
    if found is None and target is not None and target != "weights":
        try:
            found = operator.index(target)  # type: ignore[arg-type]
        except TypeError:
            raise InputError(
                f"target {target!r} is neither the number of a class nor 'top', nor a difference "
                "such as '3-5', nor 'weights', nor None"
            ) from None
    start = Start(found, target == "weights", chosen, slope)
    if chosen and (start.weights or isinstance(found, Difference)):
        raise InputError(f"a contrast is of one class to all others, not of target {target!r}")
    return start


def count_classes(start: Start, network: Network) -> int:
    """Return how many classes a score has.

    Raises
    ------
    InputError
        If a class that is written in is none of them, or there are too few for a contrast.
    ModelError
        If there is none, or more than `MOST_CLASSES`.

    """
    score = network.score
    assert score.shape is not None
    sizes = dims_of(score.shape)
    axis = _axis(network)
    classes = len(network.signs) or (1 if axis is None else sizes[axis])
    if not isinstance(classes, int) or not 0 < classes <= MOST_CLASSES:
        raise ModelError(
            f"'{score.name}' has {classes} classes; 1 to {MOST_CLASSES} can be explained"
        )
    target = start.target
    asked = [target] if isinstance(target, int) else []
    if isinstance(target, Difference):
        asked = [number for number in (target.plus, target.minus) if number != TOP]
    for number in asked:
        if not 0 <= number < classes:
            raise InputError(
                f"target {number} is not a class; '{score.name}' has classes 0 to {classes - 1}; "
                "use 'top' for the best scoring"
            )
    if start.contrast and (classes < 2 or network.signs):
        raise InputError(
            f"a contrast needs scores of several classes, and '{score.name}' holds one"
        )
    return classes


@dataclass(frozen=True)
class Beginning:
    """The relevance of the score, as it was written.

    Attributes
    ----------
    relevance : in the score's shape
    scores : those of the classes, [N, classes], where no output of the model is they
    root : those scores at the reference, [1, classes] or [N, classes]; None without one
    input : what chooses: `target` or `weights`; None where the class is written in

    """

    relevance: Relevance
    scores: Tensor | None
    root: Tensor | None
    input: ir.Value | None


def start_relevance(
    emitter: Emitter,
    network: Network,
    start: Start,
    root: Tensor | None = None,
    several: bool = False,
) -> Beginning:
    """Write the relevance of the scores, or of their difference from those at a reference.

    Where `several`, that of one sample has a row for each class, or weights, that is asked for.
    """
    classes = count_classes(start, network)
    emitter.explain(network.score.name or "score", "start", {})
    scores = emitter.tensor(network.score)
    place, axis = network.place or Place(_axis(network), {}), _axis(network)
    cut, begins, ends = _cut(scores, place)
    part = _parted(cut, network)
    axis = 1 if axis is None else axis
    before = None if root is None else _parted(_cut(root, place)[0], network)
    own = part if before is None else part - before
    if start.slope:
        own = _parted(layout.expand(emitter.scalar(1.0, cut), cut), network)
    along = [number for number in range(1, part.rank) if number != axis]
    over = along if network.place else []
    total = layout.reduce_sum(part, over)
    chooser = None
    if start.weights:
        chooser = weights_input(network.graph, classes, scores.dtype)
        weights = emitter.tensor(chooser)
        if part.rank > 2:
            spread = [classes if number == axis else 1 for number in range(1, part.rank)]
            weights = layout.reshape(weights, (None, *spread))
        relevance = own * weights
        if not several:
            # More rows than there are samples are an error here.
            relevance = _reshaped(relevance, layout.sizes(part), part)
    elif isinstance(start.target, Difference):
        one, other = (
            _only(own, _index(total, "top" if number == TOP else number, axis), axis)
            for number in (start.target.plus, start.target.minus)
        )
        relevance = one - other
    else:
        chooser = target_input(network.graph) if start.target is None else None
        index = _index(total, chooser or start.target, axis)
        if several:
            part, own = (layout.alongside(scored, index) for scored in (part, own))
        relevance = _of_class(part, own, index, axis, start.contrast)
    if network.signs:
        relevance = layout.reduce_sum(relevance, [1])
    relevance = layout.reshape(relevance, cut.shape, cut)
    if place.bounds:
        relevance = layout.pad(relevance, begins, ends, scores.shape)
        # A place that lies outside at run time leaves another number of elements: an error here.
        relevance = _exactly(relevance, scores)
    # Else nothing that the model gives out says what the relevance is to add up to.
    told = network.place or network.signs or network.score not in network.graph.outputs
    rows = (scores.shape[0], classes)
    flat = emitter.node("Flatten", total, shape=rows, dtype=total.dtype, axis=1) if told else None
    if before is not None:
        before = layout.reshape(layout.reduce_sum(before, over), (before.shape[0], classes))
    # A contrast gives relevance to classes whose score is 0.
    grounded = start.contrast is None and not start.slope
    return Beginning(Relevance(relevance, grounded), flat, before, chooser)


def _axis(network: Network) -> int | None:
    """Return where the score has its classes; None where it has one and no axis for it."""
    if network.place is not None:
        return network.place.axis
    assert network.score.shape is not None
    return 1 if len(network.score.shape) > 1 else None


def _cut(scores: Tensor, place: Place) -> tuple[Tensor, list[int | Tensor], list[int | Tensor]]:
    """Cut out the places that count; also return what lies before and behind them on each axis."""
    begins: list[int | Tensor] = [0] * scores.rank
    ends: list[int | Tensor] = [0] * scores.rank
    starts, stops = [], []
    sizes: list[Dim] = []
    for axis, (start, stop) in place.bounds.items():
        size = layout.size(scores, axis)
        begins[axis] = start if start >= 0 else size + start
        ends[axis] = 0 if stop is None else -stop if stop < 0 else size - stop
        starts.append(start)
        stops.append(_END if stop is None else stop)
        first, last = begins[axis], ends[axis]
        if isinstance(first, int) and isinstance(last, int) and isinstance(size, int):
            sizes.append(size - first - last)
        else:
            end = 0 if stop is None else stop
            sizes.append(end - start if (start < 0) == (end < 0 or stop is None) else None)
    if not place.bounds:
        return scores, begins, ends
    return layout.slice(scores, starts, stops, [*place.bounds], sizes=sizes), begins, ends


def _parted(cut: Tensor, network: Network) -> Tensor:
    """Give scores an axis of classes, each class its own, where one logit stands for all."""
    part = layout.unsqueeze(cut, [1]) if _axis(network) is None else cut
    if not network.signs:
        return part
    column = layout.reshape(part, (part.shape[0], 1))
    return column * part.emitter.constant(np.array([network.signs], part.dtype.numpy()))


def _exactly(tensor: Tensor, like: Tensor) -> Tensor:
    """Reshape to the shape that another tensor has, where that is known only at run time."""
    if all(isinstance(size, int) for size in like.shape[1:]):
        return tensor
    return _reshaped(tensor, layout.sizes(like, rows=0), like)


def _reshaped(tensor: Tensor, target: Tensor, like: Tensor) -> Tensor:
    return tensor.emitter.node("Reshape", tensor, target, shape=like.shape, dtype=tensor.dtype)


def _index(total: Tensor, number: int | Literal["top"] | ir.Value | None, axis: int) -> Tensor:
    """Return a class's number, int64 [N or 1, 1, ...]: known, the best one's, or an input's."""
    emitter, int64 = total.emitter, ir.DataType.INT64
    one = (1,) * (total.rank - 1)

    def constant(known: int) -> Tensor:
        return emitter.constant(np.full((1, *one), known, np.int64))

    if isinstance(number, int):
        return constant(number)
    top = emitter.node(
        "ArgMax",
        total,
        shape=(total.shape[0], *one),
        dtype=int64,
        axis=axis,
        keepdims=1,
        select_last_index=0,
    )
    if not isinstance(number, ir.Value):
        return top
    asked = layout.reshape(emitter.tensor(number), (None, *one))
    # GatherElements counts negative indices from the end; none but -1 means anything here.
    classes = total.shape[axis]
    assert isinstance(classes, int)
    below = emitter.compare("Less", asked, constant(-1))
    best = emitter.where(below, constant(classes), top, Sign.UNKNOWN)
    return emitter.where(emitter.compare("Less", asked, constant(0)), best, asked, Sign.UNKNOWN)


def _chosen(part: Tensor, index: Tensor, axis: int) -> Tensor:
    """Tell along the class axis which one an index means."""
    emitter, dtype, classes = part.emitter, part.dtype, part.shape[axis]
    assert isinstance(classes, int)
    shape = [-1 if number == axis else 1 for number in range(part.rank)]
    numbers = emitter.constant(np.arange(classes, dtype=dtype.numpy()).reshape(shape))
    # Not by Equal: onnxruntime has no CUDA kernel of that from opset 19 on.
    offset = numbers - layout.cast(index, dtype, Sign.UNKNOWN)
    distance = emitter.elementwise("Abs", offset, sign=Sign.NON_NEGATIVE)
    return emitter.compare("Less", distance, emitter.scalar(0.5, distance))


def _only(part: Tensor, index: Tensor, axis: int) -> Tensor:
    """Return one class's scores in their places, 0 for all others."""
    chosen = _chosen(part, index, axis)
    return part.emitter.where(chosen, part, part.emitter.scalar(0.0, part), Sign.UNKNOWN)


def _picked(part: Tensor, index: Tensor, axis: int) -> Tensor:
    """Return one class's values, the class axis kept.

    By GatherElements, so that a class that does not exist is a run-time error.
    """
    like = layout.slice(part, [0], [1], [axis])
    if index.shape != like.shape:
        index = layout.expand(index, like)
    return part.emitter.node(
        "GatherElements", part, index, shape=like.shape, dtype=part.dtype, axis=axis
    )


def _of_class(
    part: Tensor, own: Tensor, index: Tensor, axis: int, contrast: Contrast | None
) -> Tensor:
    """Relevance of all classes for one, contrasted to the others or not: see `Start`."""
    emitter, zero = part.emitter, part.emitter.scalar(0.0, part)
    chosen = _chosen(part, index, axis)
    if contrast == "softmax":
        y = emitter.node("Softmax", part, shape=part.shape, dtype=part.dtype, axis=axis)
        others = emitter.where(chosen, zero, y, Sign.NON_NEGATIVE)
        # 1 - y_c as a sum, for near 1 a difference would be rounding.
        return _picked(y, index, axis) * emitter.where(
            chosen, layout.reduce_sum(others, [axis]), -others, Sign.UNKNOWN
        )
    picked = _picked(own, index, axis)
    rest = zero
    if contrast == "others":
        classes = part.shape[axis]
        assert isinstance(classes, int)
        rest = picked * (-1 / (classes - 1))
    return emitter.where(chosen, picked, rest, Sign.UNKNOWN)
