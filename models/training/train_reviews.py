"""Train a small BERT on film-review sentences and write it as an ONNX file with its tokenizer.

The data is a table with the columns `label` (0 negative, 1 positive) and `text`. Its last tenth
is held out, and takes no part in the training of the network or of the tokenizer.
"""

import argparse
import csv
import time
from pathlib import Path

import onnxruntime
import torch
from exporting import export
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES, LONGEST = 3500, 128
SHAPE = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "type_vocab_size": 1,
    "max_position_embeddings": LONGEST,
}
DROPOUT, BATCH, LEARNING_RATE, WEIGHT_DECAY, RISE = 0.3, 32, 1e-3, 0.1, 0.1
# Of a training sentence, the part that becomes [MASK] is this times the square of a uniform draw.
MASKED = 0.8


class Net(nn.Module):
    """transformers' BERT with a classifier; logits [n, 2] of tokens [n, t] and their mask."""

    def __init__(self, pieces: int) -> None:
        super().__init__()
        config = BertConfig(
            vocab_size=pieces,
            # The graph without the guards of fused attention.
            attn_implementation="eager",
            hidden_dropout_prob=DROPOUT,
            attention_probs_dropout_prob=DROPOUT,
            **SHAPE,
        )
        self.bert = BertForSequenceClassification(config)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.bert(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def read(path: Path) -> tuple[list[str], Tensor]:
    """Return the sentences and their classes, int64 [n]."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [row["text"] for row in rows], torch.tensor([int(row["label"]) for row in rows])


def make_tokenizer(texts: list[str]) -> Tokenizer:
    """Return a WordPiece tokenizer of lower-case pieces learnt from the sentences."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=PIECES, special_tokens=SPECIAL)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    tokenizer.enable_truncation(LONGEST)
    tokenizer.enable_padding()
    return tokenizer


def encode(tokenizer: Tokenizer, texts: list[str]) -> tuple[Tensor, Tensor]:
    """Return token ids and their mask, int64 [n, t], padded to the longest sentence."""
    encoded = tokenizer.encode_batch(texts)
    ids = torch.tensor([e.ids for e in encoded])
    return ids, torch.tensor([e.attention_mask for e in encoded])


def hide(ids: Tensor, mask_id: int) -> Tensor:
    """Replace a random part of every sentence's tokens, all but the special ones, by [MASK]."""
    part = MASKED * torch.rand(len(ids), 1) ** 2
    hidden = (torch.rand(ids.shape) < part) & (ids >= len(SPECIAL))
    return torch.where(hidden, mask_id, ids)


def train(net: Net, tokenizer: Tokenizer, texts: list[str], y: Tensor, epochs: int) -> None:
    """Train by AdamW with one cycle of the learning rate."""
    optimiser = torch.optim.AdamW(net.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps, mask_id = len(texts) // BATCH, tokenizer.token_to_id("[MASK]")
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LEARNING_RATE, epochs * steps, pct_start=RISE
    )
    net.train()
    all_ids, all_masks = encode(tokenizer, texts)
    lengths = all_masks.sum(1)
    start = time.process_time()
    for epoch in range(epochs):
        total = 0.0
        order = torch.randperm(len(texts))[: steps * BATCH]
        # Sentences of about the same length go together, for less padding.
        batches = order[lengths[order].argsort(stable=True)].view(steps, BATCH)
        for index in batches[torch.randperm(steps)]:
            longest = int(lengths[index].max())
            ids, mask = all_ids[index, :longest], all_masks[index, :longest]
            loss = nn.functional.cross_entropy(net(hide(ids, mask_id), mask), y[index])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            total += loss.item()
        spent = f"{time.process_time() - start:.0f} s of CPU"
        print("epoch", epoch + 1, f"loss {total / steps:.4f}", spent, flush=True)
    net.eval()


def write(net: Net, tokenizer: Tokenizer, path: Path) -> None:
    """Write the network, for batches and sentences of any length, and the tokenizer."""
    ids, mask = encode(tokenizer, ["a fine film .", "dull"])
    inputs = {"input_ids": ids, "attention_mask": mask}
    export(net, inputs, path, {0: "batch", 1: "tokens"})
    tokenizer.save(str(path.with_suffix(".tokenizer.json")))


@torch.no_grad()
def report(net: Net, tokenizer: Tokenizer, path: Path, texts: list[str], y: Tensor) -> None:
    """Print the file's accuracy, and how near torch is to it."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    right, apart = [], 0.0
    for part in torch.arange(len(texts)).split(100):
        ids, mask = encode(tokenizer, [texts[i] for i in part])
        fed = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
        logits = torch.from_numpy(session.run(None, fed)[0])
        apart = max(apart, float((logits - net(ids, mask)).abs().max()))
        right.append(logits.argmax(1) == y[part])
    found = torch.cat(right).float()
    print(f"held-out accuracy {found.mean():.4f} of {len(texts)} sentences (onnxruntime)")
    print("by class", *(f"{found[y == k].mean():.4f}" for k in (0, 1)))
    print(f"logits of torch and onnxruntime differ by at most {apart:.2e}")
    print("parameters", sum(p.numel() for p in net.parameters()), "bytes", path.stat().st_size)


def main() -> None:
    """Train, write and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="TSV")
    parser.add_argument("--out", type=Path, required=True, metavar="ONNX")
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    texts, y = read(args.data)
    kept = len(texts) - len(texts) // 10
    tokenizer = make_tokenizer(texts[:kept])
    net = Net(tokenizer.get_vocab_size())
    train(net, tokenizer, texts[:kept], y[:kept], args.epochs)
    write(net, tokenizer, args.out)
    report(net, tokenizer, args.out, texts[kept:], y[kept:])


if __name__ == "__main__":
    main()
