"""The training loop of the filler: low-rank adapters on every layer and a head, resumed where it was interrupted.

Logits are computed at masks alone. The state that is best on dev is kept, so that a run may be cut.
"""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import BertForMaskedLM

from exporters.starter.adapter.low_rank import adapt, load_trained, trained_parameters, trained_tensors
from exporters.starter.command import Tick
from exporters.starter.fillers.masking import Masked, Words, draw, masked

POOL = 16_384
"""Rows that are sorted by length together: enough for little padding."""

IDENTITY = 0.1
"""The head's dense layer begins as this share of the identity, where its GELU is nearly linear."""

ADAPTED = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
FED = ("intermediate.dense", "output.dense")


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


def adapted_names(layers: int) -> list[str]:
    """The linear layers that get an adapter: attention and feed-forward of every layer."""
    return [f"bert.encoder.layer.{layer}.{name}" for layer in range(layers) for name in (*ADAPTED, *FED)]


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
    adapt(model, adapted_names(model.config.num_hidden_layers), recipe.rank, recipe.alpha)
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
    run = Run(model, replace(recipe, steps=len(groups)))
    run.resume(state)
    for group in groups[run.done :]:
        loss = run.step(masks_of([rows[at] for at in group], words, recipe, run.done))
        if run.done % recipe.score_every == 0 or run.done == run.steps:
            run.score(right(model, dev))
            run.save(state)
        advance(run.done, run.steps, f"loss {loss:.3f} dev {max(run.scores.values(), default=0.0):.1%}")
    return Fitted(run.best, run.scores, max(run.scores, key=run.scores.__getitem__), run.steps, run.tokens, run.wall_s)


def masks_of(rows: Sequence[Sequence[int]], words: Words, recipe: Recipe, step: int) -> Masked:
    """The rows of a step with the words masked that its number draws."""
    chance = random.Random(f"{recipe.seed} {step}")
    return masked(rows, [draw(row, words, recipe.masked_share, chance) for row in rows], words.mask_id)


class Run:
    """A fit under way: model, optimiser, schedule, what is done, and the best so far."""

    def __init__(self, model: BertForMaskedLM, recipe: Recipe) -> None:
        self.model, self.steps, self.recipe = model, recipe.steps, recipe
        self.parameters = list(trained_parameters(model).values())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, recipe.rate)
        self.done, self.tokens, self.wall_s = 0, 0, 0.0
        self.scores: dict[int, float] = {}
        self.best: dict[str, torch.Tensor] = {}

    def step(self, batch: Masked) -> float:
        """Takes one optimiser step and returns the loss, in nats a word."""
        started = time.monotonic()
        self.model.eval()  # without dropout: each text is seen once or twice
        loss = functional.cross_entropy(logits_of(self.model, batch), batch.words)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.scheduler.step()
        self.done += 1
        self.tokens += int(batch.attention_mask.sum())
        self.wall_s += time.monotonic() - started
        return loss.item()

    def score(self, share: float) -> None:
        """Notes a share of dev words right, and keeps the tensors if it is the best yet."""
        if share > max(self.scores.values(), default=-1.0):
            self.best = trained_tensors(self.model)
        self.scores[self.done] = share

    def save(self, state: Path) -> None:
        """Writes everything from which the fit resumes, atomically."""
        content = {
            "recipe": repr(replace(self.recipe, steps=0)),
            "tensors": trained_tensors(self.model),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "done": self.done,
            "tokens": self.tokens,
            "wall_s": self.wall_s,
            "scores": self.scores,
        }
        beside = state.with_suffix(".partial")
        torch.save(content, beside)
        os.replace(beside, state)

    def resume(self, state: Path) -> None:
        """Continues from a saved state of the same recipe, whatever its number of steps, if there is one."""
        if not state.exists():
            return
        content: dict[str, Any] = torch.load(state, weights_only=True)
        if content["recipe"] != repr(replace(self.recipe, steps=0)):
            return
        load_trained(self.model, content["tensors"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.scheduler.load_state_dict(content["scheduler"])
        self.best, self.scores = content["best"], content["scores"]
        self.done, self.tokens, self.wall_s = content["done"], content["tokens"], content["wall_s"]


def batches(rows: Sequence[Sequence[int]], recipe: Recipe) -> list[list[int]]:
    """Every row once by its index, in random batches of like lengths; equal recipes give equal batches."""
    chance = random.Random(recipe.seed)
    order = list(range(len(rows)))
    chance.shuffle(order)
    groups = []
    for start in range(0, len(order), POOL):
        pool = sorted(order[start : start + POOL], key=lambda at: len(rows[at]))
        groups += list(_filled(pool, rows, recipe.batch_tokens))
    chance.shuffle(groups)
    return groups


def _filled(pool: Sequence[int], rows: Sequence[Sequence[int]], most: int) -> Iterator[list[int]]:
    """The pool, shortest row first, in groups of up to `most` tokens with padding."""
    group: list[int] = []
    for at in pool:
        if group and (len(group) + 1) * len(rows[at]) > most:
            yield group
            group = []
        group.append(at)
    if group:
        yield group


@torch.inference_mode()
def right(model: BertForMaskedLM, batches: Sequence[Masked]) -> float:
    """The share of masked words that the model has first."""
    model.eval()
    hits = [(logits_of(model, batch).argmax(1) == batch.words).float().sum().item() for batch in batches]
    return sum(hits) / max(1, sum(len(batch.words) for batch in batches))
