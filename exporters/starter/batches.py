"""Token rows into padded batches of like lengths, so that little of a batch is padding."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer

PAD_ID = 0
POOL = 50
"""Batches sorted by length together: large enough for little padding, small enough that batches stay mixed."""


@dataclass(frozen=True)
class Batch:
    """Rows of the data set by index, with their ids and mask of shape (rows, longest row)."""

    rows: torch.Tensor
    input_ids: torch.Tensor
    attention_mask: torch.Tensor


def encode(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    """Token ids of each text, special tokens included, cut at `max_tokens`."""
    tokenizer.enable_truncation(max_tokens)
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]


def in_order(ids: Sequence[Sequence[int]], size: int) -> Iterator[Batch]:
    """Every row once, shortest first: the fastest order to score in."""
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    for start in range(0, len(order), size):
        yield padded(ids, order[start : start + size])


def shuffled(ids: Sequence[Sequence[int]], size: int, rng: random.Random) -> Iterator[Batch]:
    """Every row once, in random batches of like lengths; the same `rng` state gives the same batches."""
    order = list(range(len(ids)))
    rng.shuffle(order)
    groups: list[list[int]] = []
    for start in range(0, len(order), size * POOL):
        pool = sorted(order[start : start + size * POOL], key=lambda i: len(ids[i]))
        groups += [pool[at : at + size] for at in range(0, len(pool), size)]
    rng.shuffle(groups)
    for group in groups:
        yield padded(ids, group)


def padded(ids: Sequence[Sequence[int]], rows: Sequence[int]) -> Batch:
    """The named rows, padded to the longest of them."""
    longest = max(len(ids[i]) for i in rows)
    input_ids = torch.tensor([[*ids[i], *([PAD_ID] * (longest - len(ids[i])))] for i in rows])
    return Batch(torch.tensor(rows), input_ids, (input_ids != PAD_ID).long())
