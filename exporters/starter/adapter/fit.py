"""The training loop of the adapter: one pass, resumed where it was interrupted.

The frozen linear layers are kept in bf16: they are never updated, and on a processor with bf16 products a step takes
half the time. The layers below the first adapter run without dropout, since nothing in them is learnt.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import MPNetForSequenceClassification

from exporters.starter.adapter.low_rank import adapt, load_trained, trained_parameters, trained_tensors
from exporters.starter.command import Tick
from exporters.starter.data import LABELS
from exporters.starter.sentiment.fit import Rows, logits_of, shuffled, slope
from exporters.starter.training import Batch

SAVE_EVERY = 20
"""Steps between two saved states, so that an interruption loses a minute or two."""

ADAPTED = ("attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o")
FED = ("intermediate.dense", "output.dense")


@dataclass(frozen=True)
class Recipe:
    """The training settings; `max_steps` limits a smoke run. `first_layer` is the lowest layer with adapters."""

    epochs: int = 1
    learning_rate: float = 3e-4
    batch_size: int = 32
    warmup_ratio: float = 0.1
    weight_decay: float = 0.01
    label_smoothing: float = 0.05
    rank: int = 16
    alpha: int = 32
    first_layer: int = 6
    max_tokens: int = 128
    seed: int = 20140601
    max_steps: int | None = None


@dataclass(frozen=True)
class Fitted:
    """The result of a fit: the trained tensors in fp32, accuracy on dev after each epoch, and the seconds it took."""

    tensors: dict[str, torch.Tensor]
    dev_accuracy_by_epoch: tuple[float, ...]
    wall_s: float


def adapted_names(layers: int, first: int) -> list[str]:
    """The linear layers that get an adapter: attention and feed-forward of every layer from `first` on."""
    names = (*ADAPTED, *FED)
    return [f"mpnet.encoder.layer.{layer}.{name}" for layer in range(first, layers) for name in names]


def model_from(base: Path, recipe: Recipe) -> MPNetForSequenceClassification:
    """The base with a fresh two-label head and adapters that do nothing yet."""
    torch.manual_seed(recipe.seed)
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    model: MPNetForSequenceClassification = MPNetForSequenceClassification.from_pretrained(
        base, dtype=torch.float32, **names
    )
    adapt(model, adapted_names(model.config.num_hidden_layers, recipe.first_layer), recipe.rank, recipe.alpha)
    return model


def halve_frozen(model: nn.Module) -> None:
    """Keeps the frozen linear layers in bf16."""
    for module in model.modules():
        if isinstance(module, nn.Linear) and not module.weight.requires_grad:
            module.to(torch.bfloat16)


def fit(
    model: MPNetForSequenceClassification, train: Rows, dev: Rows, recipe: Recipe, state: Path, advance: Tick
) -> Fitted:
    """Trains the adapters and the head in place; `state` is the file from which an interrupted fit resumes."""
    halve_frozen(model)
    run = Run(model, recipe, steps_of(train, recipe))
    run.resume(state)
    for at, batch in enumerate(batches(train.ids, recipe, pad_of(model))):
        if at < run.done:
            continue
        if at == run.steps:
            break
        loss = run.step(batch, train.labels)
        if run.ends_epoch(len(train.ids)):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                run.scores.append(accuracy(model, dev))
        if run.done % SAVE_EVERY == 0 or run.done == run.steps:
            run.save(state)
        advance(run.done, run.steps, f"loss {loss:.3f}")
    return Fitted(trained_tensors(model), tuple(run.scores), run.wall_s)


class Run:
    """A fit under way: model, optimiser, schedule, steps done, dev accuracy by epoch, seconds."""

    def __init__(self, model: MPNetForSequenceClassification, recipe: Recipe, steps: int) -> None:
        self.model, self.recipe, self.steps = model, recipe, steps
        self.parameters = list(trained_parameters(model).values())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: slope(step, steps, recipe.warmup_ratio)
        )
        self.done, self.wall_s, self.scores = 0, 0.0, list[float]()
        torch.manual_seed(recipe.seed)

    def step(self, batch: Batch, labels: torch.Tensor) -> float:
        """Takes one optimiser step and returns the loss."""
        started = time.monotonic()
        train_mode(self.model, self.recipe.first_layer)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = self.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        loss = functional.cross_entropy(logits.float(), labels[batch.rows], label_smoothing=self.recipe.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.scheduler.step()
        self.done += 1
        self.wall_s += time.monotonic() - started
        return loss.item()

    def ends_epoch(self, rows: int) -> bool:
        """True after the last step of an epoch or of the fit."""
        return self.done == self.steps or self.done % -(-rows // self.recipe.batch_size) == 0

    def save(self, state: Path) -> None:
        """Writes everything from which the fit resumes, atomically."""
        content = {
            "recipe": repr(self.recipe),
            "tensors": trained_tensors(self.model),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "chance": torch.get_rng_state(),
            "done": self.done,
            "wall_s": self.wall_s,
            "scores": self.scores,
        }
        beside = state.with_suffix(".partial")
        torch.save(content, beside)
        os.replace(beside, state)

    def resume(self, state: Path) -> None:
        """Continues from a saved state of the same recipe, if there is one."""
        if not state.exists():
            return
        content: dict[str, Any] = torch.load(state, weights_only=True)
        if content["recipe"] != repr(self.recipe):
            return
        load_trained(self.model, content["tensors"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.scheduler.load_state_dict(content["scheduler"])
        torch.set_rng_state(content["chance"])
        self.done, self.wall_s, self.scores = content["done"], content["wall_s"], content["scores"]


def train_mode(model: MPNetForSequenceClassification, first_layer: int) -> None:
    """Turns dropout on from the first layer with adapters on."""
    model.train()
    model.mpnet.embeddings.eval()
    for layer in model.mpnet.encoder.layer[:first_layer]:
        layer.eval()


def batches(ids: Sequence[Sequence[int]], recipe: Recipe, pad_id: int) -> Iterator[Batch]:
    """The batches of all epochs; equal recipes give equal batches."""
    rng = random.Random(recipe.seed)
    for _ in range(recipe.epochs):
        yield from shuffled(ids, recipe.batch_size, rng, pad_id)


def steps_of(rows: Rows, recipe: Recipe) -> int:
    """The number of optimiser steps of a fit."""
    steps = recipe.epochs * -(-len(rows.ids) // recipe.batch_size)
    return steps if recipe.max_steps is None else min(steps, recipe.max_steps)


def pad_of(model: MPNetForSequenceClassification) -> int:
    """The id that MPNet pads with, from which its positions are counted."""
    return int(model.config.pad_token_id or 0)


def accuracy(model: MPNetForSequenceClassification, rows: Rows) -> float:
    """The share of rows classified correctly."""
    logits = logits_of(model, rows.ids, pad_id=pad_of(model))
    return (logits.argmax(1) == rows.labels).float().mean().item()
