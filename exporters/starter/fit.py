"""The training loop both starter checkpoints share: AdamW, linear warm-up and decay, the best epoch on dev kept."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from exporters.starter.batches import in_order, shuffled

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Logits of a batch and the batch's row numbers to a scalar."""
Advance = Callable[[int, int, str], None]
"""Told after every step: steps done, steps in all, a line on how it goes."""


@dataclass(frozen=True)
class Recipe:
    """How one checkpoint is trained; `max_steps` cuts a smoke run short."""

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
    """Token rows with their label numbers (n,) and the label distribution to learn from (n, 2)."""

    ids: Sequence[Sequence[int]]
    labels: torch.Tensor
    shares: torch.Tensor


@dataclass(frozen=True)
class Fitted:
    """What a fit came to: accuracy on dev after each epoch, and which epoch (from 0) was kept."""

    dev_accuracy_by_epoch: tuple[float, ...]
    kept_epoch: int

    @property
    def dev_accuracy(self) -> float:
        """Accuracy on dev of the kept epoch."""
        return self.dev_accuracy_by_epoch[self.kept_epoch]


@torch.inference_mode()
def logits_of(model: nn.Module, ids: Sequence[Sequence[int]], size: int = 32) -> torch.Tensor:
    """Logits in fp32 for every row, in row order."""
    model.eval()
    out = torch.empty(len(ids), 2)
    for batch in in_order(ids, size):
        out[batch.rows] = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits.float()
    return out


def accuracy(model: nn.Module, rows: Rows) -> float:
    """Share of rows whose larger logit is at the row's label."""
    return (logits_of(model, rows.ids).argmax(1) == rows.labels).float().mean().item()


def fit(
    model: nn.Module, ids: Sequence[Sequence[int]], loss: Loss, dev: Rows, recipe: Recipe, advance: Advance
) -> Fitted:
    """Train in place under bf16 autocast and leave the model at the epoch that dev liked best (the first, on a tie)."""
    torch.manual_seed(recipe.seed)
    rng = random.Random(recipe.seed)
    steps = steps_of(len(ids), recipe)
    optimizer = torch.optim.AdamW(_groups(model, recipe), lr=recipe.learning_rate)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _slope(step, steps, recipe.warmup_ratio))
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
            value = loss(logits.float(), batch.rows)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            done += 1
            advance(done, steps, f"epoch {epoch + 1}/{recipe.epochs} loss {value.item():.3f}")
        scores.append(accuracy(model, dev))
        if scores[-1] > max(scores[:-1], default=-1.0):
            best = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        if done == steps:
            break
    model.load_state_dict(best)
    return Fitted(tuple(scores), scores.index(max(scores)))


def steps_of(rows: int, recipe: Recipe) -> int:
    """How many optimiser steps a fit takes."""
    steps = recipe.epochs * -(-rows // recipe.batch_size)
    return steps if recipe.max_steps is None else min(steps, recipe.max_steps)


def _slope(step: int, steps: int, warmup_ratio: float) -> float:
    warmup = max(1, int(steps * warmup_ratio))
    return min((step + 1) / warmup, max(0.0, (steps - step) / max(1, steps - warmup)))


def _groups(model: nn.Module, recipe: Recipe) -> list[dict[str, object]]:
    """Weights decay; biases and layer norms do not."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
