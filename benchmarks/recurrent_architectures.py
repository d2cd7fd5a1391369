"""Recurrent networks for `coverage.py`: signals and tokens, random weights, read by torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Recurrent(nn.Module):
    """A recurrent layer, and a classifier of what `read` takes from its outputs."""

    def __init__(self, layer: nn.RNNBase, read: Callable[[Tensor, Any], Tensor], wide: int) -> None:
        super().__init__()
        self.layer, self.read, self.head = layer, read, nn.Linear(wide, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Read [N, T, features], or [T, N, features]."""
        every, last = self.layer(x)
        score: Tensor = self.head(self.read(every, last))
        return score


def _last(every: Tensor, last: Any) -> Tensor:
    return every[:, -1]


def _mean(every: Tensor, last: Any) -> Tensor:
    return every.mean(1)


def _most(every: Tensor, last: Any) -> Tensor:
    return every.max(1).values


def _state(every: Tensor, last: Any) -> Tensor:
    hidden = last[0] if isinstance(last, tuple) else last
    return hidden[-1]


def _states(every: Tensor, last: Any) -> Tensor:
    hidden = last[0] if isinstance(last, tuple) else last
    return torch.cat([hidden[-2], hidden[-1]], 1)


def _cell(every: Tensor, last: Any) -> Tensor:
    return last[1][-1]


def _time_first(every: Tensor, last: Any) -> Tensor:
    return every[-1]


class Text(nn.Module):
    """Tokens, their embeddings, a recurrent layer in both directions, attention over both."""

    def __init__(self, layer: nn.RNNBase, attend: bool) -> None:
        super().__init__()
        self.embed, self.layer = nn.Embedding(50, 6), layer
        self.weigh, self.head = nn.Linear(16, 1), nn.Linear(16, 5)
        self.attend = attend

    def forward(self, ids: Tensor) -> Tensor:
        """Read [N, T]."""
        every, _ = self.layer(self.embed(ids))
        weights = self.weigh(every.tanh()).softmax(1) if self.attend else 1 / every.shape[1]
        score: Tensor = self.head((every * weights).sum(1))
        return score


class Convolved(nn.Module):
    """Convolutions over a signal or a picture's columns, then a recurrent layer."""

    def __init__(self, picture: bool) -> None:
        super().__init__()
        convolution = nn.Conv2d if picture else nn.Conv1d
        normalise = nn.BatchNorm2d if picture else nn.BatchNorm1d
        pool = nn.MaxPool2d if picture else nn.MaxPool1d
        self.before = nn.Sequential(convolution(3, 8, 3), normalise(8), nn.ReLU(), pool(2))
        self.layer = nn.GRU(8, 8, batch_first=True, bidirectional=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Read [N, 3, T], or [N, 3, height, T]."""
        x = self.before(x)
        x = x.mean(2) if x.dim() == 4 else x
        score: Tensor = self.head(self.layer(x.transpose(1, 2))[0].mean(1))
        return score


class Cells(nn.Module):
    """A cell that is called step by step: written out in the export."""

    def __init__(self, cell: nn.RNNCellBase) -> None:
        super().__init__()
        self.cell, self.head = cell, nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Read [N, T, 6]."""
        state = None
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
        hidden = state[0] if isinstance(state, tuple) else state
        score: Tensor = self.head(hidden)
        return score


Built = tuple[nn.Module, dict[str, Tensor]]
"""A network and two samples of what it reads, by name."""


def _networks() -> dict[str, Callable[[], Built]]:
    signal = {"signal": torch.randn(2, 10, 6)}
    first = {"batch_first": True}
    both = {"batch_first": True, "bidirectional": True}

    def over(layer: nn.RNNBase, read: Callable[[Tensor, Any], Tensor], wide: int = 8) -> Built:
        return Recurrent(layer, read, wide), signal

    ids = {"ids": torch.randint(1, 50, (2, 12))}
    return {
        "lstm": lambda: over(nn.LSTM(6, 8, **first), _last),
        "lstm_mean": lambda: over(nn.LSTM(6, 8, **first), _mean),
        "lstm_cell_state": lambda: over(nn.LSTM(6, 8, **first), _cell),
        "lstm_no_bias": lambda: over(nn.LSTM(6, 8, bias=False, **first), _state),
        "lstm_3_layers": lambda: over(nn.LSTM(6, 8, 3, **first), _state),
        "bilstm_2_layers": lambda: over(nn.LSTM(6, 8, 2, **both), _states, 16),
        "bilstm_max": lambda: over(nn.LSTM(6, 8, **both), _most, 16),
        "gru": lambda: over(nn.GRU(6, 8, **first), _last),
        "gru_2_layers": lambda: over(nn.GRU(6, 8, 2, **first), _state),
        "bigru_states": lambda: over(nn.GRU(6, 8, **both), _states, 16),
        "rnn_tanh": lambda: over(nn.RNN(6, 8, **first), _last),
        "rnn_relu": lambda: over(nn.RNN(6, 8, nonlinearity="relu", **first), _mean),
        "birnn": lambda: over(nn.RNN(6, 8, **both), _states, 16),
        "text_bilstm": lambda: (Text(nn.LSTM(6, 8, **both), False), ids),
        "text_bilstm_attention": lambda: (Text(nn.LSTM(6, 8, **both), True), ids),
        "text_bigru_attention": lambda: (Text(nn.GRU(6, 8, **both), True), ids),
        "conv_gru": lambda: (Convolved(False), {"signal": torch.randn(2, 3, 20)}),
        "crnn": lambda: (Convolved(True), {"image": torch.randn(2, 3, 12, 20)}),
        "lstm_cells": lambda: (Cells(nn.LSTMCell(6, 8)), signal),
        "gru_cells": lambda: (Cells(nn.GRUCell(6, 8)), signal),
    }


NAMES = sorted(_networks())


def build(name: str) -> Built:
    """Build one of `NAMES`."""
    return _networks()[name]()
