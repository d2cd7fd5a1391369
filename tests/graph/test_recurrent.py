"""LSTM, GRU and RNN in one spelling: time first, and h of every step named."""

import numpy as np
import pytest
from onnx import helper
from support import model, normal

from onnxlrp.graph.loading import load

T, N, F, H = 4, 2, 3, 5


def loaded(op, outputs, layout=0):
    """Load a model of one such node alone."""
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    attributes = {"layout": 1} if layout else {}
    cell = helper.make_node(op, ["x", "w", "r"], outputs, "cell", hidden_size=H, **attributes)
    weights = {"w": normal(1, gates * H, F), "r": normal(1, gates * H, H)}
    shape = [N, T, F] if layout else [T, N, F]
    return load(model([cell], {"x": shape}, [o for o in outputs if o], weights)).model.graph


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_h_of_every_step_is_named_though_nobody_reads_it(op):
    (cell,) = loaded(op, ["", "last"])
    assert [value.name for value in cell.outputs[:2]] == ["cell/hidden", "last"]
    assert list(cell.outputs[0].shape) == [T, 1, N, H]


def test_so_is_what_lies_between():
    (cell,) = loaded("LSTM", ["", "", "c"])
    assert [value.name for value in cell.outputs] == ["cell/hidden", "cell/last_h", "c"]
    assert list(cell.outputs[1].shape) == [1, N, H]


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_samples_first_become_time_first(op):
    graph = loaded(op, ["y", "last"], layout=1)
    assert [node.op_type for node in graph] == ["Transpose", op, "Transpose", "Transpose"]
    shapes = {value.name: list(value.shape) for value in graph.outputs}
    assert shapes == {"y": [N, T, 1, H], "last": [N, 1, H]}
    cell = next(node for node in graph if node.op_type == op)
    assert "layout" not in cell.attributes
    order = [node.attributes["perm"].value for node in graph if node.op_type == "Transpose"]
    assert np.argsort(order[1]).tolist() == [1, 2, 0, 3]
