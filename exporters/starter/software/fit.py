"""The training loop of the summariser: what is new learns fast, what MiniLM knew learns slowly.

Pairs go through as token rows, in padded batches of alike lengths under a budget of tokens.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional
from transformers import BartForConditionalGeneration

from exporters.starter.command import Tick
from exporters.starter.software.descriptions import Pair
from exporters.starter.training import PAD_ID, block, decayed, encode, take_step

IGNORED = -100
"""The label of padding, which no loss counts."""
POOL = 100
"""Batches' worth of rows sorted by length together: little padding, and still mixed."""


@dataclass(frozen=True)
class Row:
    """One pair's token ids: the text in `[CLS] ... [SEP]`, and the summary in the same form."""

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
    """Each pair's token ids, cut at the numbers of tokens."""
    texts = encode(tokenizer, (pair.text for pair in pairs), text_tokens)
    summaries = encode(tokenizer, (pair.summary for pair in pairs), summary_tokens)
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
    texts = block([row.text for row in rows], PAD_ID)
    return Batch(
        input_ids=texts,
        attention_mask=(texts != PAD_ID).long(),
        decoder_input_ids=block([row.summary[:-1] for row in rows], PAD_ID),
        labels=block([row.summary[1:] for row in rows], IGNORED),
    )


@dataclass(frozen=True)
class Recipe:
    """How the checkpoint is trained.

    The rates fall to nothing by the last step or by `limit_s`, whichever comes first: a slow or busy host takes fewer
    steps and still ends well. `max_steps` cuts a smoke run short.
    """

    epochs: int = 3
    learning_rate: float = 5e-4
    encoder_learning_rate: float = 1.5e-4
    batch_tokens: int = 2560
    text_tokens: int = 128
    summary_tokens: int = 40
    warmup_ratio: float = 0.06
    weight_decay: float = 0.01
    label_smoothing: float = 0.1
    clip: float = 1.0
    seed: int = 20230610
    limit_s: float | None = 3240.0
    max_steps: int | None = None


@dataclass(frozen=True)
class Fitted:
    """What a fit came to: its optimiser steps, how long they took, and the loss at its end (mean of 100 steps)."""

    steps: int
    wall_s: float
    loss: float


def fit(model: BartForConditionalGeneration, rows: Sequence[Row], recipe: Recipe, advance: Tick) -> Fitted:
    """Train in place under bf16 autocast."""
    started = time.monotonic()
    torch.manual_seed(recipe.seed)
    batches = epochs(rows, recipe)
    optimizer = optimizer_for(model, recipe)
    rates = [group["lr"] for group in optimizer.param_groups]
    losses: list[float] = []
    model.set_attn_implementation("eager")  # on a CPU in bf16, the fused one takes a third longer to learn through
    model.train()
    while (gone := progress(len(losses), len(batches), time.monotonic() - started, recipe)) < 1:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * slope(gone, recipe.warmup_ratio)
        losses.append(step(model, padded([rows[i] for i in batches[len(losses)]]), recipe, optimizer))
        advance(len(losses), len(batches), f"loss {_recent(losses):.3f}")
    return Fitted(len(losses), round(time.monotonic() - started, 1), round(_recent(losses), 4))


def progress(done: int, steps: int, elapsed_s: float, recipe: Recipe) -> float:
    """How much of the fit is behind it, by steps or by time, whichever is more; 1 at its end."""
    by_time = 0.0 if recipe.limit_s is None else elapsed_s / recipe.limit_s
    return min(1.0, max(done / steps, by_time))


def slope(gone: float, warmup_ratio: float) -> float:
    """The share of its rate that a step has after so much of the fit: linearly up, then linearly down to nothing."""
    return min((gone + 1e-3) / warmup_ratio, (1 - gone) / (1 - warmup_ratio))


def epochs(rows: Sequence[Row], recipe: Recipe) -> list[list[int]]:
    """The row numbers of every batch of the fit, in order."""
    rng = random.Random(recipe.seed)
    batches = [batch for _ in range(recipe.epochs) for batch in plan(rows, recipe.batch_tokens, rng)]
    return batches[: recipe.max_steps]


def step(model: BartForConditionalGeneration, batch: Batch, recipe: Recipe, optimizer: torch.optim.Optimizer) -> float:
    """One optimiser step; the loss it was taken on."""
    return take_step(loss(model, batch, recipe.label_smoothing), model, optimizer, recipe.clip)


def loss(model: BartForConditionalGeneration, batch: Batch, smoothing: float) -> torch.Tensor:
    """Cross-entropy of the summaries' pieces, smoothed, over those that are no padding."""
    wanted = batch.labels != IGNORED
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states = model.model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            decoder_input_ids=batch.decoder_input_ids,
            use_cache=False,
        ).last_hidden_state
        logits = model.lm_head(states[wanted])  # padding is left out before the widest product of all
    return functional.cross_entropy(logits.float(), batch.labels[wanted], label_smoothing=smoothing)


def optimizer_for(model: BartForConditionalGeneration, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW with two rates: the encoder's and the words', which MiniLM brought, and the decoder's."""
    groups = [
        *decayed(_of(model, decoder=True), recipe.weight_decay, lr=recipe.learning_rate),
        *decayed(_of(model, decoder=False), recipe.weight_decay, lr=recipe.encoder_learning_rate),
    ]
    return torch.optim.AdamW(groups, fused=True)


def _recent(losses: Sequence[float]) -> float:
    return sum(losses[-100:]) / len(losses[-100:])


def _of(model: nn.Module, decoder: bool) -> Iterator[nn.Parameter]:
    for name, parameter in model.named_parameters():
        if name.startswith("model.decoder.") == decoder:
            yield parameter
