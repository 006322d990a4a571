"""The training loop of the summariser, with a higher learning rate for new weights than for MiniLM's.

Batches hold pairs of like lengths, up to a number of tokens.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional
from transformers import BartForConditionalGeneration, MarianMTModel

from exporters.starter.command import Tick
from exporters.starter.software.descriptions import Pair
from exporters.starter.training import PAD_ID, block, decayed, encode, grouped, take_step, within

Written: TypeAlias = BartForConditionalGeneration | MarianMTModel
"""What is trained: an encoder-decoder with a head of its own."""

IGNORED = -100
"""The label of padding, ignored by the loss."""
POOL = 100
"""Batches per pool sorted by length: little padding, but still random batches."""


@dataclass(frozen=True)
class Row:
    """One pair's token ids: text and summary, each in `[CLS] ... [SEP]`."""

    text: list[int]
    summary: list[int]


@dataclass(frozen=True)
class Batch:
    """Padded rows: texts with their mask, decoder inputs, and labels."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    decoder_input_ids: torch.Tensor
    labels: torch.Tensor


def rows_of(tokenizer: Tokenizer, pairs: Sequence[Pair], text_tokens: int, summary_tokens: int) -> list[Row]:
    """Each pair's token ids, cut at these lengths."""
    texts = encode(tokenizer, (pair.text for pair in pairs), text_tokens)
    summaries = encode(tokenizer, (pair.summary for pair in pairs), summary_tokens)
    tokenizer.no_truncation()
    return [Row(text, summary) for text, summary in zip(texts, summaries, strict=True)]


def plan(rows: Sequence[Row], tokens: int, rng: random.Random) -> list[list[int]]:
    """Every row index once, in random batches of like lengths of at most `tokens` text tokens, padding included.

    A longer text has a batch of its own. Equal states of `rng` give equal batches.
    """
    typical = max(1, tokens // max(1, sum(len(row.text) for row in rows) // max(1, len(rows))))

    def lengths(at: int) -> tuple[int, int]:
        return len(rows[at].text), len(rows[at].summary)

    return grouped(len(rows), typical * POOL, lengths, within(tokens, lambda at: len(rows[at].text)), rng)


def padded(rows: Sequence[Row]) -> Batch:
    """Pads the rows to the longest."""
    texts = block([row.text for row in rows], PAD_ID)
    return Batch(
        input_ids=texts,
        attention_mask=(texts != PAD_ID).long(),
        decoder_input_ids=block([row.summary[:-1] for row in rows], PAD_ID),
        labels=block([row.summary[1:] for row in rows], IGNORED),
    )


@dataclass(frozen=True)
class Recipe:
    """The training settings of the checkpoint.

    Learning rates decay to 0 by the last step or by `limit_s`, whichever comes first, so a slow or busy host takes
    fewer steps but completes the schedule. `max_steps` limits a smoke run.
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
    """The result of a fit: its optimiser steps, their duration, and the final loss (mean of 100 steps)."""

    steps: int
    wall_s: float
    loss: float


def fit(model: Written, rows: Sequence[Row], recipe: Recipe, advance: Tick) -> Fitted:
    """Trains in place under bf16 autocast."""
    started = time.monotonic()
    torch.manual_seed(recipe.seed)
    batches = epochs(rows, recipe)
    optimizer = optimizer_for(model, recipe)
    rates = [group["lr"] for group in optimizer.param_groups]
    losses: list[float] = []
    model.set_attn_implementation("eager")  # on a CPU in bf16, training with the fused one takes a third longer
    model.train()
    while (gone := progress(len(losses), len(batches), time.monotonic() - started, recipe)) < 1:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * slope(gone, recipe.warmup_ratio)
        losses.append(step(model, padded([rows[i] for i in batches[len(losses)]]), recipe, optimizer))
        advance(len(losses), len(batches), f"loss {_recent(losses):.3f}")
    return Fitted(len(losses), round(time.monotonic() - started, 1), round(_recent(losses), 4))


def progress(done: int, steps: int, elapsed_s: float, recipe: Recipe) -> float:
    """The progress of the fit from 0 to 1, by steps or by time, whichever is more."""
    by_time = 0.0 if recipe.limit_s is None else elapsed_s / recipe.limit_s
    return min(1.0, max(done / steps, by_time))


def slope(gone: float, warmup_ratio: float) -> float:
    """The factor of the learning rate at a progress of the fit: linear warm-up, then linear decay to 0."""
    return min((gone + 1e-3) / warmup_ratio, (1 - gone) / (1 - warmup_ratio))


def epochs(rows: Sequence[Row], recipe: Recipe) -> list[list[int]]:
    """The row indices of every batch of the fit, in order."""
    rng = random.Random(recipe.seed)
    batches = [batch for _ in range(recipe.epochs) for batch in plan(rows, recipe.batch_tokens, rng)]
    return batches[: recipe.max_steps]


def step(model: Written, batch: Batch, recipe: Recipe, optimizer: torch.optim.Optimizer) -> float:
    """Takes one optimiser step; returns its loss."""
    return take_step(loss(model, batch, recipe.label_smoothing), model, optimizer, recipe.clip)


def loss(model: Written, batch: Batch, smoothing: float) -> torch.Tensor:
    """The label-smoothed cross-entropy of the summaries' tokens, without padding."""
    wanted = batch.labels != IGNORED
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states = model.model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            decoder_input_ids=batch.decoder_input_ids,
            use_cache=False,
        ).last_hidden_state
        logits = model.lm_head(states[wanted])  # drop padding before the largest matrix product
    return functional.cross_entropy(logits.float(), batch.labels[wanted], label_smoothing=smoothing)


def optimizer_for(model: Written, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW with two learning rates: one for the encoder and embeddings (from MiniLM), one for the decoder."""
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
