"""Where the windows of convolutions and pools lie, from the text of the ONNX operators."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Attributes = Mapping[str, Any]


@dataclass(frozen=True)
class Windows:
    """Where the windows of a convolution or a pool lie, one entry per spatial axis.

    Output position o sees, at kernel offset k, the input position
    ``o * strides + k * dilations - begin``. For a transposed convolution input and output change
    places.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def extent(self) -> tuple[int, ...]:
        """What one window spans, dilation included."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))


def _halves(total: Iterable[int], more_at_end: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    total = tuple(total)
    small, large = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    return (small, large) if more_at_end else (large, small)


def windows(a: Attributes, size: Sequence[int], kernel: Sequence[int]) -> Windows:
    """Resolve pads, auto_pad and ceil_mode for an input of this spatial size."""
    rank = len(size)
    kernel = tuple(kernel)
    strides = tuple(a.get("strides", [1] * rank))
    dilations = tuple(a.get("dilations", [1] * rank))
    pads = a.get("pads", [0] * 2 * rank)
    begin, end = tuple(pads[:rank]), tuple(pads[rank:])
    auto_pad = a.get("auto_pad", "NOTSET")
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    if auto_pad.startswith("SAME"):
        outputs = [-(-n // s) for n, s in zip(size, strides, strict=True)]
        needed = [(o - 1) * s + e for o, s, e in zip(outputs, strides, extent, strict=True)]
        total = [max(m - n, 0) for m, n in zip(needed, size, strict=True)]
        begin, end = _halves(total, auto_pad == "SAME_UPPER")
        return Windows(kernel, strides, dilations, begin, end, tuple(outputs))
    if auto_pad == "VALID":
        begin, end = (0,) * rank, (0,) * rank
    outputs = []
    for n, b, e, s, x in zip(size, begin, end, strides, extent, strict=True):
        slack = n + b + e - x
        count = slack // s + 1
        # ceil_mode adds a window for the rest, unless it would start in the padding at the end.
        if a.get("ceil_mode", 0):
            count = -(-slack // s) + 1
            count -= (count - 1) * s >= n + b
        outputs.append(count)
    return Windows(kernel, strides, dilations, begin, end, tuple(outputs))


def transposed_windows(a: Attributes, size: Sequence[int], kernel: Sequence[int]) -> Windows:
    """Resolve output_shape, output_padding, pads and auto_pad of a transposed convolution."""
    rank = len(size)
    kernel = tuple(kernel)
    strides = tuple(a.get("strides", [1] * rank))
    dilations = tuple(a.get("dilations", [1] * rank))
    extra = a.get("output_padding", [0] * rank)
    auto_pad = a.get("auto_pad", "NOTSET")
    natural = [
        s * (n - 1) + p + (k - 1) * d + 1
        for s, n, p, k, d in zip(strides, size, extra, kernel, dilations, strict=True)
    ]
    wanted = a.get("output_shape")
    if wanted is None and auto_pad.startswith("SAME"):
        wanted = [n * s for n, s in zip(size, strides, strict=True)]
    if wanted is not None:
        total = [m - o for m, o in zip(natural, wanted, strict=True)]
        begin, end = _halves(total, auto_pad == "SAME_UPPER")
    else:
        pads = a.get("pads", [0] * 2 * rank) if auto_pad == "NOTSET" else [0] * 2 * rank
        begin, end = tuple(pads[:rank]), tuple(pads[rank:])
        wanted = [m - b - e for m, b, e in zip(natural, begin, end, strict=True)]
    return Windows(kernel, strides, dilations, begin, end, tuple(wanted))
