"""How both classifiers are trained: AdamW, linear warm-up and decay, the best epoch on dev kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from exporters.starter.adapter.low_rank import load_trained
from exporters.starter.command import Tick
from exporters.starter.fitting import Epochs, Run
from exporters.starter.training import PAD_ID, Batch, decayed, in_order, repeated

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Maps the logits of a batch and its row indices to a scalar loss."""


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


def accuracy(model: nn.Module, rows: Rows, pad_id: int = PAD_ID) -> float:
    """The share of rows classified correctly."""
    return (logits_of(model, rows.ids, pad_id=pad_id).argmax(1) == rows.labels).float().mean().item()


def fit(model: nn.Module, ids: Sequence[Sequence[int]], loss: Loss, dev: Rows, recipe: Recipe, advance: Tick) -> Fitted:
    """Trains in place under bf16 autocast and keeps the best epoch on dev (the first, on a tie)."""
    plan = Epochs(len(ids), recipe.epochs, recipe.batch_size, recipe.max_steps)
    groups = decayed(model.parameters(), recipe.weight_decay, lr=recipe.learning_rate)
    run = Run(model, groups, lambda step: plan.share(step, recipe.warmup_ratio), plan.steps, recipe.seed)

    def loss_of(batch: Batch) -> torch.Tensor:
        model.train()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        return loss(logits.float(), batch.rows)

    for value in run.through(repeated(ids, recipe.batch_size, recipe.seed), loss_of):
        advance(run.done, run.steps, f"epoch {len(run.scores) + 1}/{recipe.epochs} loss {value:.3f}")
        if run.every(plan.steps_each):
            run.score(accuracy(model, dev))
    load_trained(model, run.best)
    return Fitted(tuple(run.scores.values()), [*run.scores].index(run.kept))
