"""How the adapter is trained: in one pass, resumed where it was interrupted.

The frozen linear layers are kept in bf16: they are never updated, and on a processor with bf16 products a step takes
half the time. The layers below the first adapter run without dropout, since nothing in them is learnt.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from transformers import MPNetForSequenceClassification

from exporters.starter.adapter.low_rank import adapt, adapted_names, trained_parameters, trained_tensors
from exporters.starter.command import Tick
from exporters.starter.data import LABELS
from exporters.starter.fitting import Epochs, Run
from exporters.starter.sentiment.fit import Rows, accuracy
from exporters.starter.training import Batch, repeated

SAVE_EVERY = 20
"""Steps between two saved states, so that an interruption loses a minute or two."""


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


def model_from(base: Path, recipe: Recipe) -> MPNetForSequenceClassification:
    """The base with a fresh two-label head and adapters that do nothing yet."""
    torch.manual_seed(recipe.seed)
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    model: MPNetForSequenceClassification = MPNetForSequenceClassification.from_pretrained(
        base, dtype=torch.float32, **names
    )
    adapt(model, adapted_names("mpnet", layers_of(model, recipe)), recipe.rank, recipe.alpha)
    return model


def layers_of(model: MPNetForSequenceClassification, recipe: Recipe) -> range:
    """The layers that get adapters."""
    return range(recipe.first_layer, model.config.num_hidden_layers)


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
    plan = Epochs(len(train.ids), recipe.epochs, recipe.batch_size, recipe.max_steps)
    trained = list(trained_parameters(model).values())
    groups = [{"params": trained, "lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}]
    run = Run(model, groups, lambda step: plan.share(step, recipe.warmup_ratio), plan.steps, recipe.seed, repr(recipe))

    def loss_of(batch: Batch) -> torch.Tensor:
        train_mode(model, recipe.first_layer)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        return functional.cross_entropy(
            logits.float(), train.labels[batch.rows], label_smoothing=recipe.label_smoothing
        )

    run.resume(state)
    for loss in run.through(repeated(train.ids, recipe.batch_size, recipe.seed, pad_of(model)), loss_of):
        if run.every(plan.steps_each):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                run.score(accuracy(model, dev, pad_of(model)))
        if run.every(SAVE_EVERY):
            run.save(state)
        advance(run.done, run.steps, f"loss {loss:.3f}")
    return Fitted(trained_tensors(model), tuple(run.scores.values()), run.wall_s)


def train_mode(model: MPNetForSequenceClassification, first_layer: int) -> None:
    """Turns dropout on from the first layer with adapters on."""
    model.train()
    model.mpnet.embeddings.eval()
    for layer in model.mpnet.encoder.layer[:first_layer]:
        layer.eval()


def pad_of(model: MPNetForSequenceClassification) -> int:
    """The id that MPNet pads with, from which its positions are counted."""
    return int(model.config.pad_token_id or 0)
