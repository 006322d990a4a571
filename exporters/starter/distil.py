"""The student: a DistilBERT made of every other layer of the teacher, then taught by the teacher's own answers.

The same lesson serves to teach the teacher again: by itself and its student together.

The recipe is DistilBERT's (Sanh et al., 2019): half the layers, no token types, a loss that mixes the true labels with
the teacher's softened distribution.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional
from transformers import (
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedModel,
)

from exporters.starter.fit import Advance, Fitted, Loss, Recipe, fit, logits_of
from exporters.starter.material import Material

NAME = "distilbert-sentiment"
RECIPE = Recipe(epochs=3, learning_rate=1e-4)
POLISHED_NAME = "minilm-sentiment"
POLISHED_RECIPE = Recipe(epochs=2, learning_rate=1e-4)
LAYERS = (0, 2, 4)
LABEL_WEIGHT = 0.3
TEMPERATURE = 2.0
MIN_WORDS = 3
MASKED = 0.1


def student_from(teacher: BertForSequenceClassification) -> DistilBertForSequenceClassification:
    """A three-layer DistilBERT with the teacher's weights in every place the two architectures share.

    BERT adds a token-type embedding that is the same for every token of a single sentence; DistilBERT has none, so it
    is folded into the positions.
    """
    source = teacher.config
    config = DistilBertConfig(
        vocab_size=source.vocab_size,
        max_position_embeddings=source.max_position_embeddings,
        n_layers=len(LAYERS),
        n_heads=source.num_attention_heads,
        dim=source.hidden_size,
        hidden_dim=source.intermediate_size,
        pad_token_id=0,
        seq_classif_dropout=0.1,
        id2label=source.id2label,
        label2id=source.label2id,
    )
    torch.manual_seed(RECIPE.seed)
    student = DistilBertForSequenceClassification(config)
    there, here = teacher.bert.embeddings, student.distilbert.embeddings
    _copy(there.word_embeddings, here.word_embeddings)
    _copy(there.LayerNorm, here.LayerNorm)
    with torch.no_grad():
        here.position_embeddings.weight.copy_(there.position_embeddings.weight + there.token_type_embeddings.weight[0])
    for at, layer in enumerate(LAYERS):
        _copy_layer(teacher.bert.encoder.layer[layer], student.distilbert.transformer.layer[at])
    return student


def distillation(shares: torch.Tensor, taught: torch.Tensor) -> Loss:
    """0.3 cross-entropy with the label shares + 0.7 KL divergence from the teacher at T = 2 (times T squared)."""
    soft = functional.log_softmax(taught / TEMPERATURE, dim=-1)

    def loss(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        rated = functional.cross_entropy(logits, shares[rows])
        said = functional.log_softmax(logits / TEMPERATURE, dim=-1)
        apart = functional.kl_div(said, soft[rows], log_target=True, reduction="batchmean") * TEMPERATURE**2
        return LABEL_WEIGHT * rated + (1 - LABEL_WEIGHT) * apart

    return loss


def fragments(texts: Sequence[str], rng: random.Random) -> list[str]:
    """A random run of words of each text that has a few, some masked: more to ask the teacher (Tang et al., 2019)."""
    cut = []
    for words in (text.split() for text in texts):
        if len(words) < MIN_WORDS:
            continue
        length = rng.randint(MIN_WORDS, len(words))
        start = rng.randint(0, len(words) - length)
        kept = words[start : start + length]
        cut.append(" ".join("[MASK]" if rng.random() < MASKED else word for word in kept))
    return cut


def distil(
    teachers: Sequence[PreTrainedModel], student: PreTrainedModel, material: Material, recipe: Recipe, advance: Advance
) -> Fitted:
    """Teach the student in place; the teachers answer each text once, without dropout, and their logits are averaged.

    Nobody rated the fragments, so there the teachers' own answer stands in for a rating. The student may be one of the
    teachers: it is asked before it learns.
    """
    train, dev = material.train_rows(recipe.max_tokens), material.dev_rows(recipe.max_tokens)
    cut = fragments([s.text for s in material.learnable()], random.Random(recipe.seed))
    extra = material.encode(cut, recipe.max_tokens)
    ids = [*train.ids, *extra]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        taught = torch.stack([logits_of(teacher, ids) for teacher in teachers]).mean(0)
    shares = torch.cat((train.shares, taught[len(train.ids) :].softmax(dim=-1)))
    return fit(student, ids, distillation(shares, taught), dev, recipe, advance)


def _copy_layer(bert: nn.Module, distil: nn.Module) -> None:
    attention = bert.get_submodule("attention")
    for there, here in (
        ("self.query", "q_lin"),
        ("self.key", "k_lin"),
        ("self.value", "v_lin"),
        ("output.dense", "out_lin"),
    ):
        _copy(attention.get_submodule(there), distil.get_submodule(f"attention.{here}"))
    _copy(attention.get_submodule("output.LayerNorm"), distil.get_submodule("sa_layer_norm"))
    _copy(bert.get_submodule("intermediate.dense"), distil.get_submodule("ffn.lin1"))
    _copy(bert.get_submodule("output.dense"), distil.get_submodule("ffn.lin2"))
    _copy(bert.get_submodule("output.LayerNorm"), distil.get_submodule("output_layer_norm"))


def _copy(there: nn.Module, here: nn.Module) -> None:
    here.load_state_dict(there.state_dict())
