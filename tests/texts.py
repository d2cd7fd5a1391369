"""A tokenizer and a classifier of tokens, small enough to know by heart what they compute."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support import Array, node, normal

pytest.importorskip("tokenizers")

VOCABULARY = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "what", "a", "film", "wonder", "##ful", "dull", "!"),
    *("cafe", "漢", "好", "ש", "<", "script", ">"),
]
TABLE = normal(len(VOCABULARY), 6, seed=1)
POSITIONS = normal(64, 6, seed=2)
TYPES = normal(2, 6, seed=3)
READOUT = normal(6, 3, seed=4)
ALL = ("input_ids", "attention_mask", "token_type_ids", "position_ids")


def write_tokenizer(path: Path, **truncation: int) -> Path:
    """Write a BERT-like tokenizer of `VOCABULARY`, lower-casing, without accents."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = {word: number for number, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=None, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    if truncation:
        tokenizer.enable_truncation(**truncation)
    tokenizer.save(str(path))
    return path


def write_bytes_tokenizer(path: Path) -> Path:
    """Write a GPT-2-like tokenizer: a token for each byte, blanks at the start of words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: n for n, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(path))
    return path


def classifier(
    inputs: Sequence[str] = ALL, length: int | str = "T", batch: int | str = "N", mask: int = 7
) -> onnx.ModelProto:
    """Build sum over tokens of mask * (TABLE[ids] + TYPES[types] + POSITIONS[places]) @ READOUT.

    Relevance of a token is `TABLE[id] @ READOUT[:, target]` by any rule that is exact for sums.
    `mask` is the mask's element type.
    """
    nodes = [node("Gather", ["table", "input_ids"], "words")]
    inside = "words"
    for name, table in (("token_type_ids", "types"), ("position_ids", "positions")):
        if name in inputs:
            nodes.append(node("Gather", [table, name], f"of_{table}"))
            nodes.append(node("Add", [inside, f"of_{table}"], f"with_{table}"))
            inside = f"with_{table}"
    if "attention_mask" in inputs:
        nodes += [
            node("Cast", ["attention_mask"], "float_mask", to=TensorProto.FLOAT),
            node("Unsqueeze", ["float_mask", "last"], "column"),
            node("Mul", [inside, "column"], "seen"),
        ]
        inside = "seen"
    nodes += [
        node("ReduceSum", [inside, "middle"], "total", keepdims=0),
        node("Gemm", ["total", "readout"], "logits"),
    ]
    weights = {
        "table": TABLE,
        "types": TYPES,
        "positions": POSITIONS,
        "readout": READOUT,
        "last": np.array([-1], np.int64),
        "middle": np.array([1], np.int64),
    }
    used = {name for one in nodes for name in one.input}
    kinds = {name: mask if name == "attention_mask" else TensorProto.INT64 for name in inputs}
    graph = helper.make_graph(
        nodes,
        "texts",
        [helper.make_tensor_value_info(n, kinds[n], [batch, length]) for n in inputs],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 3])],
        [numpy_helper.from_array(value, name) for name, value in weights.items() if name in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def expected(ids: Array, target: int) -> Array:
    """Relevance of tokens, by the definition."""
    relevance: Array = TABLE[ids].astype(np.float64) @ READOUT[:, target]
    return relevance
