"""The training loop of both classifiers: AdamW, linear warm-up and decay, the best epoch on dev kept.

Batches hold rows of like lengths, to limit padding.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from exporters.starter.command import Tick
from exporters.starter.training import PAD_ID, Batch, decayed, in_order, padded, take_step

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Maps the logits of a batch and its row indices to a scalar loss."""

POOL = 50
"""Batches per pool sorted by length: large enough for little padding, small enough to keep batches random."""


def shuffled(ids: Sequence[Sequence[int]], size: int, rng: random.Random, pad_id: int = PAD_ID) -> Iterator[Batch]:
    """Every row once, in random batches of like lengths; equal `rng` states give equal batches."""
    order = list(range(len(ids)))
    rng.shuffle(order)
    groups: list[list[int]] = []
    for start in range(0, len(order), size * POOL):
        pool = sorted(order[start : start + size * POOL], key=lambda i: len(ids[i]))
        groups += [pool[at : at + size] for at in range(0, len(pool), size)]
    rng.shuffle(groups)
    for group in groups:
        yield padded(ids, group, pad_id)


@dataclass(frozen=True)
class Recipe:
    """The training settings of one checkpoint; `max_steps` limits a smoke run."""

    epochs: int
    learning_rate: float = 5e-5
    batch_size: int = 32
    warmup_ratio: float = 0.06
    weight_decay: float = 0.01
    max_tokens: int = 128
    seed: int = 20140601
    max_steps: int | None = None


@dataclass(frozen=True)
class Rows:
    """Token rows with their labels (n,) and target distributions (n, 2)."""

    ids: Sequence[Sequence[int]]
    labels: torch.Tensor
    shares: torch.Tensor


@dataclass(frozen=True)
class Fitted:
    """The result of a fit: accuracy on dev after each epoch, and the epoch kept (from 0)."""

    dev_accuracy_by_epoch: tuple[float, ...]
    kept_epoch: int


@torch.inference_mode()
def logits_of(model: nn.Module, ids: Sequence[Sequence[int]], size: int = 32, pad_id: int = PAD_ID) -> torch.Tensor:
    """Logits in fp32 for every row, in row order."""
    model.eval()
    out = torch.empty(len(ids), 2)
    for batch in in_order(ids, size, pad_id):
        out[batch.rows] = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits.float()
    return out


def accuracy(model: nn.Module, rows: Rows) -> float:
    """The share of rows classified correctly."""
    return (logits_of(model, rows.ids).argmax(1) == rows.labels).float().mean().item()


def fit(model: nn.Module, ids: Sequence[Sequence[int]], loss: Loss, dev: Rows, recipe: Recipe, advance: Tick) -> Fitted:
    """Trains in place under bf16 autocast and keeps the best epoch on dev (the first, on a tie)."""
    torch.manual_seed(recipe.seed)
    rng = random.Random(recipe.seed)
    steps = steps_of(len(ids), recipe)
    optimizer = torch.optim.AdamW(decayed(model.parameters(), recipe.weight_decay), lr=recipe.learning_rate)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: slope(step, steps, recipe.warmup_ratio))
    scores: list[float] = []
    best: dict[str, torch.Tensor] = {}
    done = 0
    for epoch in range(recipe.epochs):
        model.train()
        for batch in shuffled(ids, recipe.batch_size, rng):
            if done == steps:
                break
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
            value = take_step(loss(logits.float(), batch.rows), model, optimizer)
            scheduler.step()
            done += 1
            advance(done, steps, f"epoch {epoch + 1}/{recipe.epochs} loss {value:.3f}")
        scores.append(accuracy(model, dev))
        if scores[-1] > max(scores[:-1], default=-1.0):
            best = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        if done == steps:
            break
    model.load_state_dict(best)
    return Fitted(tuple(scores), scores.index(max(scores)))


def steps_of(rows: int, recipe: Recipe) -> int:
    """The number of optimiser steps of a fit."""
    steps = recipe.epochs * -(-rows // recipe.batch_size)
    return steps if recipe.max_steps is None else min(steps, recipe.max_steps)


def slope(step: int, steps: int, warmup_ratio: float) -> float:
    """The share of the learning rate at a step: linear warm-up, then linear decay to nothing."""
    warmup = max(1, int(steps * warmup_ratio))
    return min((step + 1) / warmup, max(0.0, (steps - step) / max(1, steps - warmup)))
