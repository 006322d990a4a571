"""Shared steps of training: texts to token rows, rows to batches of like lengths, and one optimiser step."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn

PAD_ID = 0
POOL = 50
"""Batches per pool sorted by length: large enough for little padding, small enough to keep batches random."""


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


def repeated(ids: Sequence[Sequence[int]], size: int, seed: int, pad_id: int = PAD_ID) -> Iterator[Batch]:
    """Every row once in random batches of like lengths, over and over; equal seeds give equal batches."""
    rng = random.Random(seed)

    def cut(pool: list[int]) -> Iterator[list[int]]:
        return (pool[at : at + size] for at in range(0, len(pool), size))

    while True:
        for group in grouped(len(ids), size * POOL, lambda at: len(ids[at]), cut, rng):
            yield padded(ids, group, pad_id)


def grouped(
    rows: int,
    pool: int,
    length: Callable[[int], Any],
    cut: Callable[[list[int]], Iterable[list[int]]],
    rng: random.Random,
) -> list[list[int]]:
    """Every row's index once, in random groups of like lengths; equal states of `rng` give equal groups.

    Random pools of rows are sorted by `length`, and each is `cut` into groups.
    """
    order = list(range(rows))
    rng.shuffle(order)
    groups: list[list[int]] = []
    for start in range(0, rows, pool):
        groups += cut(sorted(order[start : start + pool], key=length))
    rng.shuffle(groups)
    return groups


def within(tokens: int, length: Callable[[int], int]) -> Callable[[list[int]], Iterator[list[int]]]:
    """Cuts rows, the shortest first, into groups of at most so many tokens, padding included.

    A longer row has a group of its own.
    """

    def cut(pool: list[int]) -> Iterator[list[int]]:
        group: list[int] = []
        for at in pool:
            if group and (len(group) + 1) * length(at) > tokens:
                yield group
                group = []
            group.append(at)
        if group:
            yield group

    return cut


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
