"""Shared steps of training: texts to token rows, rows to padded tensors, and one optimiser step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn

PAD_ID = 0


def encode(tokenizer: Tokenizer, texts: Iterable[str], max_tokens: int) -> list[list[int]]:
    """Token ids of each text, special tokens included, cut at `max_tokens`."""
    tokenizer.enable_truncation(max_tokens)
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]


def block(rows: Sequence[Sequence[int]], filler: int = PAD_ID) -> torch.Tensor:
    """A tensor of the rows, padded to the longest with `filler`."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *([filler] * (longest - len(row)))] for row in rows])


@dataclass(frozen=True)
class Batch:
    """Rows of the data set by index, with ids and mask of shape (rows, longest row)."""

    rows: torch.Tensor
    input_ids: torch.Tensor
    attention_mask: torch.Tensor


def padded(ids: Sequence[Sequence[int]], rows: Sequence[int], pad_id: int = PAD_ID) -> Batch:
    """The rows of these indices, padded to the longest."""
    input_ids = block([ids[i] for i in rows], pad_id)
    return Batch(torch.tensor(rows), input_ids, (input_ids != pad_id).long())


def in_order(ids: Sequence[Sequence[int]], size: int, pad_id: int = PAD_ID) -> Iterator[Batch]:
    """Every row once in batches, shortest first, which is fastest."""
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    for start in range(0, len(order), size):
        yield padded(ids, order[start : start + size], pad_id)


def decayed(parameters: Iterable[nn.Parameter], weight_decay: float, **settings: float) -> list[dict[str, Any]]:
    """Parameter groups of an optimiser: matrices with weight decay; biases and layer norms without."""
    every = list(parameters)
    return [
        {"params": [p for p in every if p.ndim > 1], "weight_decay": weight_decay, **settings},
        {"params": [p for p in every if p.ndim <= 1], "weight_decay": 0.0, **settings},
    ]


def take_step(loss: torch.Tensor, model: nn.Module, optimizer: torch.optim.Optimizer, clip: float = 1.0) -> float:
    """Takes one optimiser step and returns the loss; `clip` is the largest gradient norm."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return loss.item()
