"""Keras' architectures for `coverage.py`, random weights, exported by Keras (which calls tf2onnx).

Data are NHWC: channels last, Transposes between the layers, biases behind them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

APPLICATIONS = {
    "convnext_tiny": "ConvNeXtTiny",
    "densenet121": "DenseNet121",
    "efficientnet_b0": "EfficientNetB0",
    "efficientnet_v2_b0": "EfficientNetV2B0",
    "mobilenet_v2": "MobileNetV2",
    "mobilenet_v3_small": "MobileNetV3Small",
    "nasnet_mobile": "NASNetMobile",
    "resnet50": "ResNet50",
    "xception": "Xception",
}
RECURRENT = ("lstm", "gru", "simple_rnn", "bidirectional")
NAMES = [f"keras/{name}" for name in (*APPLICATIONS, "signal", *RECURRENT)]


def export(name: str, path: Path) -> dict[str, Any]:
    """Write a network as ONNX; return its input as an array of two samples.

    BatchNormalization gets random scales, and the statistics of random inputs.
    """
    import keras
    import onnx

    keras.utils.set_random_seed(0)
    name = name.removeprefix("keras/")
    if name == "signal":
        model = _signal(keras)
    elif name in RECURRENT:
        model = _recurrent(keras, name)
    else:
        create = getattr(keras.applications, APPLICATIONS[name])
        model = create(input_shape=(96, 96, 3), weights=None, classes=10)
    random = np.random.default_rng(0)
    x = random.uniform(-1, 1, (2, *model.input_shape[1:])).astype(np.float32)
    if any(isinstance(layer, keras.layers.Rescaling) for layer in model.layers):
        x = 127.5 * (x + 1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
            for weight, centre in ((layer.gamma, 1.0), (layer.beta, 0.0)):
                if weight is not None:
                    weight.assign(random.normal(centre, 0.3, weight.shape))
    model(x, training=True)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            # A tensor would become an input of the export.
            layer.mean, layer.variance = np.asarray(layer.mean), np.asarray(layer.variance)
    model.export(str(path), format="onnx", opset_version=17, verbose=False)
    return {onnx.load(path).graph.input[0].name: x}


def _signal(keras: Any) -> Any:
    """Convolutions over [T, channels] with BatchNormalization, one of them depthwise."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((64, 4)),
            layers.Conv1D(8, 5, strides=2, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.DepthwiseConv1D(3, padding="same"),
            layers.BatchNormalization(),
            layers.Activation("swish"),
            layers.MaxPooling1D(2),
            layers.Conv1D(8, 3, activation="relu"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(5, activation="softmax"),
        ]
    )


def _recurrent(keras: Any, name: str) -> Any:
    layers = keras.layers
    recurrent = {
        "lstm": lambda: layers.LSTM(8),
        "gru": lambda: layers.GRU(8),
        "simple_rnn": lambda: layers.SimpleRNN(8),
        "bidirectional": lambda: layers.Bidirectional(layers.LSTM(8)),
    }[name]()
    head = layers.Dense(5, activation="softmax")
    return keras.Sequential([keras.Input((10, 6)), recurrent, head])
