"""Pairs as token rows, and those in padded batches of alike lengths under a budget of tokens."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer

from exporters.starter.software.descriptions import Pair

PAD_ID = 0
IGNORED = -100
"""The label of padding, which no loss counts."""
POOL = 100
"""Batches' worth of rows sorted by length together: little padding, and still mixed."""


@dataclass(frozen=True)
class Row:
    """One pair's token ids: the text in `[CLS] ... [SEP]`, and the summary likewise."""

    text: list[int]
    summary: list[int]


@dataclass(frozen=True)
class Batch:
    """Padded rows: texts with their mask, what the decoder has said so far, and what it should say next."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    decoder_input_ids: torch.Tensor
    labels: torch.Tensor


def rows_of(tokenizer: Tokenizer, pairs: Sequence[Pair], text_tokens: int, summary_tokens: int) -> list[Row]:
    """Each pair's token ids, cut at so many tokens."""
    tokenizer.enable_truncation(text_tokens)
    texts = [encoding.ids for encoding in tokenizer.encode_batch([pair.text for pair in pairs])]
    tokenizer.enable_truncation(summary_tokens)
    summaries = [encoding.ids for encoding in tokenizer.encode_batch([pair.summary for pair in pairs])]
    tokenizer.no_truncation()
    return [Row(text, summary) for text, summary in zip(texts, summaries, strict=True)]


def plan(rows: Sequence[Row], tokens: int, rng: random.Random) -> list[list[int]]:
    """Every row's number once, in random batches of alike lengths whose texts fill at most `tokens`, padding included.

    A text longer than that has a batch of its own. The same state of `rng` gives the same batches.
    """
    order = list(range(len(rows)))
    rng.shuffle(order)
    typical = max(1, tokens // max(1, sum(len(row.text) for row in rows) // max(1, len(rows))))
    batches: list[list[int]] = []
    for start in range(0, len(order), typical * POOL):
        pool = sorted(order[start : start + typical * POOL], key=lambda i: (len(rows[i].text), len(rows[i].summary)))
        batches += _filled(pool, rows, tokens)
    rng.shuffle(batches)
    return batches


def _filled(pool: Sequence[int], rows: Sequence[Row], tokens: int) -> Iterator[list[int]]:
    """Runs of the pool, which is sorted by length: the last of a run is its longest."""
    batch: list[int] = []
    for at in pool:
        if batch and (len(batch) + 1) * len(rows[at].text) > tokens:
            yield batch
            batch = []
        batch.append(at)
    if batch:
        yield batch


def padded(rows: Sequence[Row]) -> Batch:
    """The rows side by side, each padded to the longest."""
    texts = _block([row.text for row in rows], PAD_ID)
    return Batch(
        input_ids=texts,
        attention_mask=(texts != PAD_ID).long(),
        decoder_input_ids=_block([row.summary[:-1] for row in rows], PAD_ID),
        labels=_block([row.summary[1:] for row in rows], IGNORED),
    )


def _block(ids: Sequence[list[int]], filler: int) -> torch.Tensor:
    longest = max(len(row) for row in ids)
    return torch.tensor([[*row, *([filler] * (longest - len(row)))] for row in ids])
