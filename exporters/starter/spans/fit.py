"""How the span head is trained: adapters and a fresh head over MiniLM, the best evaluation on dev kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import BertForQuestionAnswering

from exporters.starter.adapter.low_rank import adapt, adapted_names, trained_parameters
from exporters.starter.command import Tick
from exporters.starter.fitting import Run
from exporters.starter.spans.material import Rows
from exporters.starter.training import Batch, block, decayed, in_order, repeated


@dataclass(frozen=True)
class Recipe:
    """The training settings. The head learns faster than the adapters.

    The learning rate rises over `warmup_steps`, then falls to nothing. `first_layer` is the lowest with adapters.
    """

    steps: int = 480
    warmup_steps: int = 48
    learning_rate: float = 8e-4
    head_learning_rate: float = 3e-3
    batch_size: int = 16
    weight_decay: float = 0.01
    rank: int = 32
    alpha: int = 64
    first_layer: int = 0
    max_tokens: int = 224
    score_every: int = 80
    seed: int = 20140601

    def share(self, step: int) -> float:
        """The share of the learning rate at a step."""
        return min((step + 1) / self.warmup_steps, max(0.0, (self.steps - step) / (self.steps - self.warmup_steps)))


@dataclass(frozen=True)
class Fitted:
    """The result of a fit: the best tensors in fp32, the share of right spans on dev by evaluation, and the seconds."""

    tensors: dict[str, torch.Tensor]
    dev_same: tuple[float, ...]
    kept: int
    wall_s: float


def model_from(base: Path, recipe: Recipe) -> BertForQuestionAnswering:
    """The base with a fresh head and adapters that do nothing yet."""
    torch.manual_seed(recipe.seed)
    model: BertForQuestionAnswering = BertForQuestionAnswering.from_pretrained(
        base, dtype=torch.float32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    layers = range(recipe.first_layer, model.config.num_hidden_layers)
    adapt(model, adapted_names("bert", layers), recipe.rank, recipe.alpha)
    return model


def fit(model: BertForQuestionAnswering, train: Rows, dev: Rows, recipe: Recipe, state: Path, advance: Tick) -> Fitted:
    """Trains the adapters and the head; `state` is the file from which an interrupted fit resumes."""
    run = Run(model, _groups(model, recipe), recipe.share, recipe.steps, recipe.seed, repr(recipe))

    def loss_of(batch: Batch) -> torch.Tensor:
        model.train()
        wanted = torch.tensor([train.answers[at] for at in batch.rows.tolist()])
        logits = logits_of(model, train, batch)
        sides = (functional.cross_entropy(logits[:, :, side], wanted[:, side]) for side in (0, 1))
        return torch.stack([*sides]).mean()

    run.resume(state)
    for loss in run.through(repeated(train.ids, recipe.batch_size, recipe.seed), loss_of):
        if run.every(recipe.score_every):
            run.score(same(model, dev))
            run.save(state)
        scores = ", ".join(f"{one:.3f}" for one in run.scores.values())
        advance(run.done, run.steps, f"loss {loss:.3f}, right spans on dev {scores or 'unknown'}")
    return Fitted(run.best, tuple(run.scores.values()), [*run.scores].index(run.kept), run.wall_s)


def logits_of(model: BertForQuestionAnswering, rows: Rows, batch: Batch) -> torch.Tensor:
    """Logits of shape (rows, tokens, 2); those that are neither of the context nor the first token's are very low."""
    types = block([rows.types[at] for at in batch.rows.tolist()])
    found = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, token_type_ids=types)
    logits = torch.stack([found.start_logits, found.end_logits], dim=2)
    outside = types == 0
    outside[:, 0] = False
    return logits.masked_fill(outside[:, :, None], -1e4)


def _groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    named = trained_parameters(model)
    head = [tensor for name, tensor in named.items() if ".qa_outputs." in name]
    rest = [tensor for name, tensor in named.items() if ".qa_outputs." not in name]
    return [
        *decayed(rest, recipe.weight_decay, lr=recipe.learning_rate),
        *decayed(head, recipe.weight_decay, lr=recipe.head_learning_rate),
    ]


@torch.inference_mode()
def same(model: BertForQuestionAnswering, rows: Rows) -> float:
    """The share of rows of which both ends of the answer are found."""
    model.eval()
    right = 0
    for batch in in_order(rows.ids, 32):
        best = logits_of(model, rows, batch).argmax(1).tolist()
        right += sum(tuple(one) == tuple(rows.answers[at]) for one, at in zip(best, batch.rows.tolist(), strict=True))
    return right / len(rows.ids)
