"""How the filler is trained: low-rank adapters on every layer and a head, resumed where it was interrupted.

Logits are computed at masks alone. The state that is best on dev is kept, so that a run may be cut.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.nn import functional
from transformers import BertForMaskedLM

from exporters.starter.adapter.low_rank import adapt, adapted_names, trained_parameters
from exporters.starter.command import Tick
from exporters.starter.fillers.masking import Masked, Words, draw, masked
from exporters.starter.fitting import Run
from exporters.starter.training import grouped, within

POOL = 16_384
"""Rows that are sorted by length together: enough for little padding."""

IDENTITY = 0.1
"""The head's dense layer begins as this share of the identity, where its GELU is nearly linear."""


@dataclass(frozen=True)
class Recipe:
    """The training settings. `batch_tokens` is the most tokens of a batch, with padding.

    The learning rate rises over `warmup_steps`, stays, and falls over the last `decay_share` of the steps: a run may be
    lengthened or cut before it falls.
    """

    steps: int = 2200
    learning_rate: float = 1.5e-3
    batch_tokens: int = 1024
    masked_share: float = 0.3
    warmup_steps: int = 40
    decay_share: float = 0.3
    weight_decay: float = 0.01
    rank: int = 16
    alpha: int = 32
    score_every: int = 60
    seed: int = 20140601

    def rate(self, step: int) -> float:
        """The share of the learning rate at a step."""
        left = (self.steps - step) / max(1.0, self.decay_share * self.steps)
        return max(0.0, min(1.0, (step + 1) / self.warmup_steps, left))


@dataclass(frozen=True)
class Fitted:
    """The result of a fit: the best trained tensors in fp32, the share of dev words right by step, and the seconds."""

    tensors: dict[str, torch.Tensor]
    dev_right_by_step: dict[int, float]
    kept_step: int
    steps: int
    tokens: int
    wall_s: float


def model_from(base: Path, counts: torch.Tensor, recipe: Recipe) -> BertForMaskedLM:
    """The base with adapters that do nothing yet and a head that begins as the identity, biased by how often words are.

    `counts` has how often each piece stands in the training texts.
    """
    torch.manual_seed(recipe.seed)
    model: BertForMaskedLM = BertForMaskedLM.from_pretrained(base, dtype=torch.float32, attn_implementation="sdpa")
    head = model.cls.predictions
    with torch.no_grad():
        head.transform.dense.weight.copy_(IDENTITY * torch.eye(model.config.hidden_size))
        head.transform.dense.bias.zero_()
        shares = (counts.float() + 0.1) / (counts.float() + 0.1).sum()
        head.bias.copy_(shares.log() + math.log(len(counts)))
    adapt(model, adapted_names("bert", range(model.config.num_hidden_layers)), recipe.rank, recipe.alpha)
    return model


def logits_of(model: BertForMaskedLM, batch: Masked) -> torch.Tensor:
    """The logits (masks, vocabulary) of a batch's masks."""
    hidden = model.bert(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
    logits: torch.Tensor = model.cls(hidden[batch.rows, batch.places])
    return logits


def fit(
    model: BertForMaskedLM,
    rows: Sequence[Sequence[int]],
    dev: Sequence[Masked],
    words: Words,
    recipe: Recipe,
    state: Path,
    advance: Tick,
) -> Fitted:
    """Trains the adapters and the head; `state` is the file from which an interrupted fit resumes."""
    groups = batches(rows, recipe)[: recipe.steps]
    cut, of = replace(recipe, steps=len(groups)), replace(recipe, steps=0)  # a longer fit continues a shorter one
    trained = list(trained_parameters(model).values())
    settings = [{"params": trained, "lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}]
    run = Run(model, settings, cut.rate, cut.steps, recipe.seed, repr(of))

    def loss_of(step_and_group: tuple[int, list[int]]) -> torch.Tensor:
        step, group = step_and_group
        batch = masks_of([rows[at] for at in group], words, recipe, step)
        model.eval()  # without dropout: each text is seen once or twice
        return functional.cross_entropy(logits_of(model, batch), batch.words)

    run.resume(state)
    for loss in run.through(enumerate(groups), loss_of):
        if run.every(recipe.score_every):
            run.score(right(model, dev))
            run.save(state)
        advance(run.done, run.steps, f"loss {loss:.3f} dev {max(run.scores.values(), default=0.0):.1%}")
    tokens = sum(len(rows[at]) for group in groups for at in group)
    return Fitted(run.best, run.scores, run.kept, run.steps, tokens, run.wall_s)


def masks_of(rows: Sequence[Sequence[int]], words: Words, recipe: Recipe, step: int) -> Masked:
    """The rows of a step with the words masked that its number draws."""
    chance = random.Random(f"{recipe.seed} {step}")
    return masked(rows, [draw(row, words, recipe.masked_share, chance) for row in rows], words.mask_id)


def batches(rows: Sequence[Sequence[int]], recipe: Recipe) -> list[list[int]]:
    """Every row once by its index, in random batches of like lengths; equal recipes give equal batches."""

    def length(at: int) -> int:
        return len(rows[at])

    return grouped(len(rows), POOL, length, within(recipe.batch_tokens, length), random.Random(recipe.seed))


@torch.inference_mode()
def right(model: BertForMaskedLM, batches: Sequence[Masked]) -> float:
    """The share of masked words that the model has first."""
    model.eval()
    hits = [(logits_of(model, batch).argmax(1) == batch.words).float().sum().item() for batch in batches]
    return sum(hits) / max(1, sum(len(batch.words) for batch in batches))
