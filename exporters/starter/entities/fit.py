"""How the tagger is trained: adapters and a fresh head over MiniLM, the best evaluation on dev kept.

Gradients go to the adapters and the head alone, which takes a third of the work of full training away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import BertForTokenClassification

from exporters.starter.adapter.low_rank import adapt, adapted_names, trained_parameters
from exporters.starter.command import Tick
from exporters.starter.entities.material import IGNORED, LABELS, OUTSIDE
from exporters.starter.fitting import Run
from exporters.starter.training import Batch, block, decayed, in_order, repeated


@dataclass(frozen=True)
class Recipe:
    """The training settings. The head learns faster than the adapters.

    The learning rate rises over `warmup_steps`, stays, and falls to nothing over the last `decay_steps`.
    """

    steps: int = 430
    warmup_steps: int = 40
    decay_steps: int = 120
    learning_rate: float = 6e-4
    head_learning_rate: float = 2e-3
    batch_size: int = 16
    weight_decay: float = 0.01
    label_smoothing: float = 0.05
    rank: int = 32
    alpha: int = 64
    max_tokens: int = 96
    score_every: int = 200
    seed: int = 20140601

    def share(self, step: int) -> float:
        """The share of the learning rate at a step."""
        return min(1.0, (step + 1) / self.warmup_steps, max(0.0, (self.steps - step) / self.decay_steps))


@dataclass(frozen=True)
class Rows:
    """Token rows with the labels of their tokens."""

    ids: Sequence[Sequence[int]]
    labels: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Fitted:
    """The result of a fit: the best tensors in fp32, F1 on dev at each evaluation, the one kept, and the seconds."""

    tensors: dict[str, torch.Tensor]
    dev_f1: tuple[float, ...]
    kept: int
    wall_s: float


def model_from(base: Path, recipe: Recipe) -> BertForTokenClassification:
    """The base with a fresh head and adapters that do nothing yet."""
    torch.manual_seed(recipe.seed)
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    model: BertForTokenClassification = BertForTokenClassification.from_pretrained(base, dtype=torch.float32, **names)
    adapt(model, adapted_names("bert", range(model.config.num_hidden_layers)), recipe.rank, recipe.alpha)
    return model


def fit(
    model: BertForTokenClassification, train: Rows, dev: Rows, recipe: Recipe, state: Path, advance: Tick
) -> Fitted:
    """Trains the adapters and the head; `state` is the file from which an interrupted fit resumes."""
    run = Run(model, _groups(model, recipe), recipe.share, recipe.steps, recipe.seed, repr(recipe))

    def loss_of(batch: Batch) -> torch.Tensor:
        model.train()
        wanted = block([train.labels[at] for at in batch.rows.tolist()], IGNORED)
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        return functional.cross_entropy(
            logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, label_smoothing=recipe.label_smoothing
        )

    run.resume(state)
    for loss in run.through(repeated(train.ids, recipe.batch_size, recipe.seed), loss_of):
        if run.every(recipe.score_every):
            run.score(f1(model, dev))
            run.save(state)
        scores = ", ".join(f"{one:.3f}" for one in run.scores.values())
        advance(run.done, run.steps, f"loss {loss:.3f}, dev F1 {scores or 'unknown'}")
    return Fitted(run.best, tuple(run.scores.values()), [*run.scores].index(run.kept), run.wall_s)


def _groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    named = trained_parameters(model)
    head = [tensor for name, tensor in named.items() if ".classifier." in name]
    rest = [tensor for name, tensor in named.items() if ".classifier." not in name]
    return [
        *decayed(rest, recipe.weight_decay, lr=recipe.learning_rate),
        *decayed(head, recipe.weight_decay, lr=recipe.head_learning_rate),
    ]


@torch.inference_mode()
def f1(model: BertForTokenClassification, rows: Rows) -> float:
    """F1 of entities, of pieces: those of the right kind from the first piece to the last."""
    model.eval()
    right = given = wanted = 0
    for batch in in_order(rows.ids, 64):
        best = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits.argmax(2)
        for at, row in enumerate(batch.rows.tolist()):
            meant = rows.labels[row]
            said = [OUTSIDE if m == IGNORED else s for m, s in zip(meant, best[at].tolist(), strict=False)]
            one, other = entities(meant), entities(said)
            right, given, wanted = right + len(one & other), given + len(other), wanted + len(one)
    return 2 * right / max(given + wanted, 1)


def entities(labels: Sequence[int]) -> set[tuple[int, int, str]]:
    """The entities of a row of labels: the first token, the one after the last, and the kind."""
    found: set[tuple[int, int, str]] = set()
    start, kind = 0, ""
    for at, label in enumerate([*labels, OUTSIDE]):
        part, _, own = LABELS[max(label, OUTSIDE)].partition("-")
        if kind and (part != "I" or own != kind):
            found.add((start, at, kind))
            kind = ""
        if own and not kind:
            start, kind = at, own
    return found
