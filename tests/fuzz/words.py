"""Texts and command lines with something wrong in them, drawn from a seed."""

from __future__ import annotations

import json

import numpy as np
from fuzz.mutations import any_of


def mutated_text(text: str, seed: int) -> str:
    """Swap, drop and repeat lines and words of a text, or put something odd in a place."""
    random = np.random.default_rng(seed)
    odd = ["nan", "-1", "1e999", "[]", '""', "{}", "9" * 5000, "\u2028", "[[[[", "true", "²"]
    lines = text.splitlines()
    for _ in range(int(random.integers(1, 5))):
        at = int(random.integers(len(lines)))
        kind = int(random.integers(4))
        if kind == 0:
            lines[at] = lines[at].partition("=")[0] + "= " + any_of(random, odd)
        elif kind == 1:
            lines.insert(at, any_of(random, lines))
        elif kind == 2 and len(lines) > 1:
            del lines[at]
        else:
            lines[at] = lines[at][: int(random.integers(len(lines[at]) + 1))] + any_of(random, odd)
    return "\n".join(lines)


def command_line(seed: int) -> list[str]:
    """Draw a command with options and values, most of which make no sense."""
    random = np.random.default_rng(seed)
    files = [
        "model.onnx",
        "explainer.onnx",
        "photo.png",
        "set.npy",
        "none",
        "folder",
        "my.toml",
        ".",
    ]
    numbers = ["0", "1", "-1", "--5", "²", "9" * 30, "nan", "3x3", "top", "top:3", "0,0", ""]
    numbers += ["1-0", "0-9", "2-2", "weights", "others", "softmax", "all", "1:,:2"]
    texts = [
        "default",
        "epsilon",
        "epsilon; LRN: identity",
        ";",
        "Conv: flat",
        ":",
        "*: zero",
        "a=b",
    ]
    options = {
        "inspect": ["--nodes", "--json", "--composite", "--rule", "--set", "--output", "--target"],
        "convert": ["--composite", "--set", "--mask", "--intermediate", "--dynamic-batch",
                    "--fold-weights", "--preprocess", "--resize", "--mean", "--input", "--target",
                    "--contrast", "--at", "--class-axis"],
        "check": ["--random", "--target", "--inputs", "--layers", "--json"],
        "explain": ["--target", "--format", "--labels", "--batch", "--threads", "--colours", "-o"],
        "compare": ["--data", "--plot", "--tolerance", "--target", "--preprocess"],
        "sheet": ["-o", "--preprocess", "--composite", "--target", "--labels"],
        "composites": ["--json"],
    }  # fmt: skip
    command = any_of(random, options)
    words = [command]
    for _ in range(int(random.integers(0, 3))):
        words.append(any_of(random, files))
    for _ in range(int(random.integers(0, 4))):
        words.append(any_of(random, options[command]))
        if random.integers(4):
            words.append(any_of(random, [*files, *numbers, *texts]))
    return words


def mutated_json(settings: object, seed: int) -> str:
    """Change the text of some JSON."""
    return mutated_text(json.dumps(settings, indent=1).replace(":", " ="), seed).replace(" =", ":")
