"""What every training run does alike: texts to token rows, rows to padded blocks, and one step of the optimiser."""

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
    """The rows side by side, each filled up to the longest."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *([filler] * (longest - len(row)))] for row in rows])


@dataclass(frozen=True)
class Batch:
    """Rows of the data set by index, with their ids and mask of shape (rows, longest row)."""

    rows: torch.Tensor
    input_ids: torch.Tensor
    attention_mask: torch.Tensor


def padded(ids: Sequence[Sequence[int]], rows: Sequence[int]) -> Batch:
    """The named rows, padded to the longest of them."""
    input_ids = block([ids[i] for i in rows])
    return Batch(torch.tensor(rows), input_ids, (input_ids != PAD_ID).long())


def in_order(ids: Sequence[Sequence[int]], size: int) -> Iterator[Batch]:
    """Every row once, shortest first: the fastest order to answer in."""
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    for start in range(0, len(order), size):
        yield padded(ids, order[start : start + size])


def decayed(parameters: Iterable[nn.Parameter], weight_decay: float, **settings: float) -> list[dict[str, Any]]:
    """Groups for an optimiser: matrices decay; biases and layer norms do not."""
    every = list(parameters)
    return [
        {"params": [p for p in every if p.ndim > 1], "weight_decay": weight_decay, **settings},
        {"params": [p for p in every if p.ndim <= 1], "weight_decay": 0.0, **settings},
    ]


def take_step(loss: torch.Tensor, model: nn.Module, optimizer: torch.optim.Optimizer, clip: float = 1.0) -> float:
    """One step down a batch's loss, which is returned; `clip` is the largest norm of its gradients."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return loss.item()
