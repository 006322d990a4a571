"""The three training runs of the classifiers: a teacher, its student, and the teacher distilled from both.

The teacher is MiniLM's six layers over the pruned vocabulary, fine-tuned to classify sentiment. The student is a
DistilBERT of every other layer, distilled from the teacher (Sanh et al., 2019: half the layers, no token types, a loss
that mixes the true labels with the teacher's softened distribution). Each run saves its weights and a record in the
work folder; a run with a record of the same recipe is skipped, so an interrupted build resumes.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedModel,
)

from exporters.starter.command import THREADS, Tick, Ticker
from exporters.starter.data import LABELS
from exporters.starter.sentiment.fit import Fitted, Loss, Recipe, fit, logits_of
from exporters.starter.sentiment.material import Material
from exporters.starter.vocabulary import Vocabulary

TEACHER, STUDENT, POLISHED = "minilm-teacher", "distilbert-sentiment", "minilm-sentiment"
RECIPES = {
    TEACHER: Recipe(epochs=3),
    STUDENT: Recipe(epochs=3, learning_rate=1e-4),
    POLISHED: Recipe(epochs=2, learning_rate=1e-4),
}
WORDS = "embeddings.word_embeddings.weight"
LAYERS = (0, 2, 4)
LABEL_WEIGHT = 0.3
TEMPERATURE = 2.0
MIN_WORDS = 3
MASKED = 0.1
SMOKE_STEPS = 3

Run = Callable[[Material, Recipe, Tick], Fitted]


@dataclass(frozen=True)
class Lesson:
    """One finished training run: its recipe, its result on dev and its duration."""

    name: str
    recipe: Recipe
    fitted: Fitted
    wall_s: float


@dataclass(frozen=True)
class Learned:
    """A trained model in fp32, with the record of its training."""

    model: PreTrainedModel
    lesson: Lesson


def learn(material: Material, work: Path, ticker: Ticker, smoke: bool = False) -> list[Learned]:
    """Trains the teacher, its student, and the teacher again from both; a smoke run takes three steps of each."""
    torch.set_num_threads(THREADS)
    work.mkdir(parents=True, exist_ok=True)

    def once(name: str, model: PreTrainedModel, run: Run) -> Learned:
        recipe = replace(RECIPES[name], max_steps=SMOKE_STEPS) if smoke else RECIPES[name]
        return _once(name, model, work, lambda: run(material, recipe, ticker(name)), recipe)

    teacher = teacher_from(material.base, material.vocabulary)
    first = once(TEACHER, teacher, partial(train_teacher, teacher))
    student = student_from(teacher)
    second = once(STUDENT, student, partial(distil, [teacher], student))
    return [first, second, once(POLISHED, teacher, partial(distil, [teacher, student], teacher))]


def _once(name: str, model: PreTrainedModel, work: Path, run: Callable[[], Fitted], recipe: Recipe) -> Learned:
    """The result of a run, from its record if there is one."""
    weights, record, adapter = work / f"{name}.safetensors", work / f"{name}.json", TypeAdapter(Lesson)
    if record.exists() and (found := adapter.validate_json(record.read_bytes())).recipe == recipe:
        model.load_state_dict(load_file(weights))
        return Learned(model, found)
    started = time.monotonic()
    lesson = Lesson(name, recipe, run(), time.monotonic() - started)
    save_file(model.state_dict(), weights)
    record.write_bytes(adapter.dump_json(lesson, indent=2))
    return Learned(model, lesson)


def teacher_from(base: Path, vocabulary: Vocabulary) -> BertForSequenceClassification:
    """MiniLM with the kept rows of its word embeddings and a new two-label head.

    Raises `ValueError` if the base weights lack a tensor of the architecture.
    """
    config = BertConfig.from_pretrained(base)
    config.update({"vocab_size": len(vocabulary.tokens), "pad_token_id": 0, "architectures": None})
    config.id2label = dict(enumerate(LABELS))
    config.label2id = {label: i for i, label in enumerate(LABELS)}
    torch.manual_seed(RECIPES[TEACHER].seed)
    model = BertForSequenceClassification(config)
    weights = load_file(base / "model.safetensors")
    weights[WORDS] = weights[WORDS][list(vocabulary.base_ids)]
    weights.pop("embeddings.position_ids", None)
    found = model.load_state_dict({f"bert.{name}": t for name, t in weights.items()}, strict=False)
    if found.unexpected_keys or set(found.missing_keys) != {"classifier.weight", "classifier.bias"}:
        raise ValueError(f"base weights do not fit: {found}")
    return model


def cross_entropy(shares: torch.Tensor) -> Loss:
    """Cross-entropy with the soft labels given by the ratings, so that a weak opinion is learnt as weak."""
    return lambda logits, rows: functional.cross_entropy(logits, shares[rows])


def train_teacher(model: BertForSequenceClassification, material: Material, recipe: Recipe, advance: Tick) -> Fitted:
    """Fine-tunes the teacher in place."""
    train, dev = material.train_rows(recipe.max_tokens), material.dev_rows(recipe.max_tokens)
    return fit(model, train.ids, cross_entropy(train.shares), dev, recipe, advance)


def student_from(teacher: BertForSequenceClassification) -> DistilBertForSequenceClassification:
    """A three-layer DistilBERT with the teacher's weights wherever the architectures agree.

    BERT adds the same token-type embedding to every token of a single sentence; DistilBERT has none, so it is added to
    the position embeddings.
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
    torch.manual_seed(RECIPES[STUDENT].seed)
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
    """0.3 cross-entropy with the soft labels + 0.7 KL divergence from the teacher at T = 2 (times T squared)."""
    soft = functional.log_softmax(taught / TEMPERATURE, dim=-1)

    def loss(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        rated = functional.cross_entropy(logits, shares[rows])
        said = functional.log_softmax(logits / TEMPERATURE, dim=-1)
        apart = functional.kl_div(said, soft[rows], log_target=True, reduction="batchmean") * TEMPERATURE**2
        return LABEL_WEIGHT * rated + (1 - LABEL_WEIGHT) * apart

    return loss


def fragments(texts: Sequence[str], rng: random.Random) -> list[str]:
    """Random fragments of the texts, partly masked, as unlabelled data for the teacher (Tang et al., 2019)."""
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
    teachers: Sequence[PreTrainedModel], student: PreTrainedModel, material: Material, recipe: Recipe, advance: Tick
) -> Fitted:
    """Distils the student in place; the teachers' logits are computed once, without dropout, and averaged.

    Fragments have no ratings, so the teachers' own answers are their labels. The student may be one of the teachers:
    its answers are computed before training.
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
