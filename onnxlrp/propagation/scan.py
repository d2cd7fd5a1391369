"""The one place that writes a Scan: what goes step by step along axis 0, and cannot go at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir

from onnxlrp.graph.shapes import Dim
from onnxlrp.propagation.expression import Emitter, Tensor

Factor = Tensor | float
"""What differs between steps, or elements, or is one number throughout."""

Step = Callable[[Sequence[Tensor], Sequence[Factor]], tuple[Sequence[Tensor], Sequence[Tensor]]]
"""States, and what is read at this step, become states, and what is written."""


def scan(
    step: Step,
    states: Sequence[Tensor],
    sequences: Sequence[Factor],
    clock: Tensor,
    *,
    backwards: bool = False,
) -> tuple[list[Tensor], list[Tensor]]:
    """Go along axis 0 of some sequences, and carry states from step to step.

    Parameters
    ----------
    step : writes one step, with tensors of its own; those of outside stand on the right of them
    states : at the start; none may be known to be zero, for a zero has no shape
    sequences : of one length along axis 0; numbers, and what is known to be zero, are handed
        through, and what the step does not use is not read
    clock : a sequence that says how many steps there are, read where no other is
    backwards : from the last element to the first

    Returns
    -------
    the states at the end, and the sequences written

    """
    emitter = clock.emitter
    inside = emitter.inner()
    given = [_formal(inside, state, state.shape) for state in states]
    read = [_element(inside, sequence) for sequence in sequences]
    after, written = step(given, read)
    results: list[ir.Value] = []
    for tensor in (*after, *written):
        own = _value(tensor).producer() in inside.nodes and _value(tensor) not in results
        results.append(_value(tensor) if own else _handed(inside, tensor))
    pairs = [
        (sequence, element)
        for sequence, element in zip(sequences, read, strict=True)
        if isinstance(sequence, Tensor)
        and isinstance(element, Tensor)
        and element.value is not None
        and element.value.uses()
    ] or [(clock, _formal(inside, clock, clock.shape[1:]))]
    graph = ir.Graph(
        [_value(tensor) for tensor in (*given, *(element for _, element in pairs))],
        results,
        nodes=inside.nodes,
        name="step",
    )
    outputs = [
        *(ir.Value(shape=ir.Shape(list(s.shape)), type=ir.TensorType(s.dtype)) for s in states),
        *(
            ir.Value(shape=ir.Shape([clock.shape[0], *t.shape]), type=ir.TensorType(t.dtype))
            for t in written
        ),
    ]
    direction = [int(backwards)]
    attributes: dict[str, Any] = {
        "body": graph,
        "num_scan_inputs": len(pairs),
        "scan_input_directions": direction * len(pairs),
        "scan_output_directions": direction * len(written),
    }
    inputs = [_value(tensor) for tensor in (*states, *(sequence for sequence, _ in pairs))]
    emitter.append(ir.node("Scan", inputs, attributes, outputs=outputs))
    made = [Tensor(emitter, value) for value in outputs]
    return made[: len(states)], made[len(states) :]


def _element(inside: Emitter, sequence: Factor) -> Factor:
    """Return what stands for a sequence inside a step."""
    if not isinstance(sequence, Tensor) or sequence.is_zero:
        return sequence
    return _formal(inside, sequence, sequence.shape[1:])


def _formal(inside: Emitter, tensor: Tensor, shape: Sequence[Dim]) -> Tensor:
    # Relevance may have more rows than a value, with whose it would share the name.
    known = [size if isinstance(size, int) else None for size in shape]
    return Tensor(inside, ir.Value(shape=ir.Shape(known), type=ir.TensorType(tensor.dtype)))


def _handed(inside: Emitter, tensor: Tensor) -> ir.Value:
    """Return a value as one that the step computes, and hands out once."""
    node = ir.node("Identity", [_value(tensor)])
    node.outputs[0].shape, node.outputs[0].type = _value(tensor).shape, _value(tensor).type
    inside.append(node)
    return node.outputs[0]


def _value(tensor: Tensor) -> ir.Value:
    assert tensor.value is not None, "a zero has no shape"
    return tensor.value
