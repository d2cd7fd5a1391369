"""A Scan as it is written, against the loop that it stands for."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from support import close, normal, run

from onnxlrp.propagation.expression import Emitter, Tensor
from onnxlrp.propagation.scan import scan

T, N = 4, 3


def computed(step, state, sequences, **options):
    """Write a Scan over inputs of a graph, and run it."""
    emitter = Emitter()

    def given(name, shape):
        return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))

    first = given("state", state.shape)
    values = {
        f"s{k}": given(f"s{k}", s.shape)
        for k, s in enumerate(sequences)
        if isinstance(s, np.ndarray)
    }
    handed = [
        Tensor(emitter, values[f"s{k}"]) if f"s{k}" in values else s
        for k, s in enumerate(sequences)
    ]
    clock = Tensor(emitter, values["s0"])
    (last,), written = scan(step, [Tensor(emitter, first)], handed, clock, **options)
    outputs = [last.value, *(tensor.value for tensor in written)]
    names = iter(f"n{k}" for k in range(99))
    for node in emitter.nodes:
        for graph in [a.value for a in node.attributes.values() if a.name == "body"]:
            for value in (*graph.inputs, *(v for n in graph for v in n.outputs)):
                value.name = next(names)
    for k, value in enumerate(outputs):
        value.name = f"out{k}"
    graph = ir.Graph(
        [first, *values.values()],
        outputs,
        nodes=emitter.nodes,
        initializers=emitter.initializers,
        opset_imports={"": 18},
        name="test",
    )
    proto = ir.to_proto(ir.Model(graph, ir_version=10))
    onnx.checker.check_model(proto, full_check=True)
    arrays = {f"s{k}": s for k, s in enumerate(sequences) if f"s{k}" in values}
    return proto, list(run(proto, {"state": state, **arrays}).values())


@pytest.mark.parametrize("backwards", [False, True])
def test_states_are_carried_and_steps_are_written(backwards):
    def step(states, read):
        (s,), (x, factor, number) = states, read
        s = s * factor + x * number
        return [s], [s, s + x]

    state, x, factor = normal(N), normal(T, N, seed=1), normal(T, N, seed=2)
    _, (last, first, second) = computed(step, state, [x, factor, 0.5], backwards=backwards)
    for t in range(T)[:: -1 if backwards else 1]:
        state = state * factor[t] + x[t] * 0.5
        close(first[t], state, 1e-6)
        close(second[t], state + x[t], 1e-6)
    close(last, state, 1e-6)


def test_what_is_not_used_is_not_read():
    def step(states, read):
        (s,), (_, y) = states, read
        return [s + y], []

    x, y = normal(T, N, seed=1), normal(T, N, seed=2)
    proto, (last,) = computed(step, normal(N), [x, y])
    close(last, normal(N) + y.sum(0), 1e-6)
    (node,) = proto.graph.node
    assert list(node.input) == ["state", "s1"]


def test_a_step_that_reads_no_sequence_is_told_how_many_there_are():
    def step(states, read):
        (s,), (_, zero) = states, read
        return [s * 2.0 + zero], []

    _, (last,) = computed(step, normal(N), [normal(T, N), Emitter().zero])
    close(last, normal(N) * 2**T, 1e-6)
