"""What depends on no input is computed once."""

import numpy as np
from support import close, explain, lines, model, node, normal

from onnxlrp.graph.constants import fold
from onnxlrp.graph.loading import load

X = normal(2, 3, 5, 5, seed=1)
KERNEL = normal(1, 4, 27, seed=2)


def classifier(*body, **weights):
    return model(
        [
            *body,
            node("Conv", ["x", "w"], "z"),
            node("GlobalAveragePool", ["z"], "p"),
            node("Flatten", ["p"], "f"),
            node("Gemm", ["f", "readout"], "logits"),
        ],
        {"x": ["N", 3, 5, 5]},
        ["logits"],
        {"readout": normal(4, 3, seed=3), **weights},
    )


def test_weights_that_are_standardised_whenever_the_network_runs():
    """A BatchNormalization in training mode, of the weights."""
    ones, zeros = np.ones(4, np.float32), np.zeros(4, np.float32)
    standardised = onnx_node_of_three_outputs()
    proto = classifier(
        standardised,
        node("Reshape", ["flat", "shape"], "w"),
        kernel=KERNEL, one=ones, zero=zeros, shape=np.array([4, 3, 3, 3]),
    )  # fmt: skip
    centred = KERNEL - KERNEL.mean(2, keepdims=True)
    weights = centred / np.sqrt((centred**2).mean(2, keepdims=True) + 1e-5)
    plain = classifier(w=weights.reshape(4, 3, 3, 3))
    composite = lines("Conv: z-plus", "*: epsilon")
    maps = [explain(p, composite, {"x": X}).values["relevance"] for p in (proto, plain)]
    close(*maps)


def onnx_node_of_three_outputs():
    made = node(
        "BatchNormalization", ["kernel", "one", "zero", "zero", "one"], "flat", training_mode=1
    )
    made.output.extend(["mean", "variance"])
    return made


def test_all_outputs_of_a_node_are_folded_and_what_reads_them():
    made = node("Split", ["kernel"], "a", axis=1, num_outputs=2)
    made.output.append("b")
    proto = classifier(
        made,
        node("Concat", ["b", "a"], "turned", axis=1),
        node("Reshape", ["turned", "shape"], "w"),
        kernel=KERNEL, shape=np.array([4, 3, 3, 3]),
    )  # fmt: skip
    loaded = load(proto).model
    fold(loaded)
    assert next(n.op_type for n in loaded.graph) == "Conv"
    weights = loaded.graph.node(0).inputs[1].const_value.numpy()
    np.testing.assert_array_equal(weights.reshape(4, 27), KERNEL[0, [2, 3, 0, 1]])
