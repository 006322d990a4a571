"""The training loop of the summariser: what is new learns fast, what MiniLM knew learns slowly."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from transformers import BartForConditionalGeneration

from exporters.starter.fit import Advance
from exporters.starter.software.rows import IGNORED, Batch, Row, padded, plan

Keep = Callable[[int], None]
"""Told now and then how many steps are done, so that it can save the model as it is."""


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
    keep_every_s: float = 480.0
    limit_s: float | None = 3240.0
    max_steps: int | None = None


@dataclass(frozen=True)
class Fitted:
    """What a fit came to: its optimiser steps, how long they took, and the loss at its end (mean of 100 steps)."""

    steps: int
    wall_s: float
    loss: float


def fit(
    model: BartForConditionalGeneration, rows: Sequence[Row], recipe: Recipe, advance: Advance, keep: Keep
) -> Fitted:
    """Train in place under bf16 autocast; `keep` is called about every `keep_every_s` seconds."""
    started = kept = time.monotonic()
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
        if time.monotonic() - kept >= recipe.keep_every_s:
            kept = time.monotonic()
            keep(len(losses))
            model.train()
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
    value = loss(model, batch, recipe.label_smoothing)
    optimizer.zero_grad(set_to_none=True)
    value.backward()
    nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    optimizer.step()
    return value.item()


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
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for name, rate in (("decoder", recipe.learning_rate), ("rest", recipe.encoder_learning_rate))
        for parameters, decay in _by_decay(_of(model, name == "decoder"), recipe.weight_decay)
    ]
    return torch.optim.AdamW(groups, fused=True)


def _recent(losses: Sequence[float]) -> float:
    return sum(losses[-100:]) / len(losses[-100:])


def _of(model: nn.Module, decoder: bool) -> Iterator[nn.Parameter]:
    for name, parameter in model.named_parameters():
        if name.startswith("model.decoder.") == decoder:
            yield parameter


def _by_decay(parameters: Iterator[nn.Parameter], decay: float) -> list[tuple[list[nn.Parameter], float]]:
    """Matrices decay; biases and layer norms do not."""
    every = list(parameters)
    return [([p for p in every if p.ndim > 1], decay), ([p for p in every if p.ndim <= 1], 0.0)]
