"""The teacher: MiniLM's six layers over the pruned vocabulary, fine-tuned to tell negative from positive."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.nn import functional
from transformers import BertConfig, BertForSequenceClassification

from exporters.starter.data import LABELS
from exporters.starter.fit import Advance, Fitted, Loss, Recipe, fit
from exporters.starter.material import Material
from exporters.starter.vocabulary import Vocabulary

NAME = "minilm-teacher"
RECIPE = Recipe(epochs=3)
WORDS = "embeddings.word_embeddings.weight"


def teacher_from(base: Path, vocabulary: Vocabulary) -> BertForSequenceClassification:
    """MiniLM with the kept rows of its word embeddings and a fresh two-way head.

    Raises `ValueError` when the base weights lack a tensor that the architecture needs.
    """
    config = BertConfig.from_pretrained(base)
    config.update({"vocab_size": len(vocabulary.tokens), "pad_token_id": 0, "architectures": None})
    config.id2label = dict(enumerate(LABELS))
    config.label2id = {label: i for i, label in enumerate(LABELS)}
    torch.manual_seed(RECIPE.seed)
    model = BertForSequenceClassification(config)
    weights = load_file(base / "model.safetensors")
    weights[WORDS] = weights[WORDS][list(vocabulary.base_ids)]
    weights.pop("embeddings.position_ids", None)
    found = model.load_state_dict({f"bert.{name}": t for name, t in weights.items()}, strict=False)
    if found.unexpected_keys or set(found.missing_keys) != {"classifier.weight", "classifier.bias"}:
        raise ValueError(f"base weights do not fit: {found}")
    return model


def cross_entropy(shares: torch.Tensor) -> Loss:
    """Cross-entropy against the label shares that people's ratings stand for, so a faint opinion is learnt as faint."""
    return lambda logits, rows: functional.cross_entropy(logits, shares[rows])


def train_teacher(model: BertForSequenceClassification, material: Material, recipe: Recipe, advance: Advance) -> Fitted:
    """Fine-tune the teacher in place."""
    train, dev = material.train_rows(recipe.max_tokens), material.dev_rows(recipe.max_tokens)
    return fit(model, train.ids, cross_entropy(train.shares), dev, recipe, advance)
