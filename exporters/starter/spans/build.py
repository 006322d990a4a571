"""Builds the span head: make questions, train the adapter, write it, merge it, score it, write its card."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import BertForQuestionAnswering

from exporters.sources.adapters import fetch_base, merge
from exporters.starter.adapter.folder import peft_config, trained_count, write_adapter
from exporters.starter.cards import Provenance, minilm
from exporters.starter.command import THREADS, Ticker
from exporters.starter.entities.labels import TEACHER
from exporters.starter.packages import ACLSUM, MINILM, MINILM_BASE, VADER
from exporters.starter.publishing import TRAINED_WITH, emptied, seal, versions
from exporters.starter.spans.card import Score, SpansCard, Training, card
from exporters.starter.spans.fit import Fitted, Recipe, fit, model_from
from exporters.starter.spans.material import Rows, prepare, rows_of
from exporters.starter.spans.score import measure
from exporters.starter.spans.texts import FACTBOOK

NAME = "minilm-spans"
DEV = 400
"""Made questions that are scored while training."""

SMOKE_TEXTS, SMOKE_STEPS, SMOKE_QUESTIONS = 120, 3, 20
QUESTIONS = 1_000
"""Questions of Disfl-QA that are asked, as of the sentences' embedders; those with an answer are scored."""

COURSE = "In one piece, by the recipe."
PEFT = {
    "task_type": "QUESTION_ANS",
    "base_model_name_or_path": "sentence-transformers/all-MiniLM-L6-v2",
    "modules_to_save": ["qa_outputs"],
}
LIMITS = (
    "Most of its answers are not the marked words. Ask for `top_k` answers, or take the sentence round the answer.",
    "English. Its questions were made by rule, not asked by people: it is weak where a question has other words than "
    "the text, and at why and how.",
    "That a context has no answer it has learnt from contexts that lack the sentence, not from questions that mislead.",
)


def build(out: Path, cache: Path, ticker: Ticker, smoke: bool = False) -> SpansCard:
    """Writes `checkpoints/minilm-spans/` under `out`; a smoke run trains for a few steps.

    Training keeps its state in `out/work`, from which an interrupted build resumes; a finished one removes it.
    Raises NotFetched, CannotBuild.
    """
    torch.set_num_threads(THREADS)
    work, folder = out / "work", out / "checkpoints" / NAME
    work.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(steps=SMOKE_STEPS) if smoke else Recipe()
    material = prepare(cache, ticker, SMOKE_TEXTS if smoke else None)
    some = (material.train, material.dev[:DEV])
    train, dev = (rows_of(examples, material.tokenizer, recipe.max_tokens) for examples in some)
    fitted = fit(model_from(material.base, recipe), train, dev, recipe, work / f"{NAME}.pt", ticker(NAME))
    model, settings = model_from(material.base, recipe), peft_config("bert", recipe.rank, recipe.alpha, **PEFT)
    write_adapter(fitted.tensors, model, settings, MINILM_BASE, emptied(folder))
    fetch_base(MINILM_BASE, NAME, cache, emptied(work / "base"), lambda share: None)
    merge(folder, work / "base", emptied(work / "merged"), NAME)
    scores = measure(work / "merged", NAME, cache, SMOKE_QUESTIONS if smoke else QUESTIONS)
    manifest = describe(fitted, recipe, (train, dev), work / "merged", folder, scores)
    shutil.rmtree(work)
    return seal(folder, manifest, card(manifest))


def describe(
    fitted: Fitted,
    recipe: Recipe,
    rows: tuple[Rows, Rows],
    whole: Path,
    folder: Path,
    scores: tuple[int, dict[str, Score]],
) -> SpansCard:
    """The manifest of the written files; without digests."""
    shape = BertForQuestionAnswering.from_pretrained(whole, dtype=torch.float32)
    return SpansCard(
        name=NAME,
        task="answer",
        tier="quality",
        family="BERT",
        architecture=type(shape).__name__,
        parameters=sum(p.numel() for p in shape.parameters()),
        trained_parameters=trained_count(folder),
        window=shape.config.max_position_embeddings,
        stored_precision="float16",
        base_size_bytes=MINILM_BASE.size_bytes,
        base=minilm(),
        teacher=Provenance.of(TEACHER, "spaCy's small English model (`en_core_web_sm` 3.8.0)", "Explosion"),
        data=(
            Provenance.of(FACTBOOK, "Countries of the World Factbook", "the CIA and Ryan Parks"),
            Provenance.of(VADER, "Editorials of the VADER ground truth", "C.J. Hutto"),
            Provenance.of(ACLSUM, "Papers of ACLSum, from 2016 on", "Sotaro Takeshita and others"),
        ),
        questions=scores[0],
        scores=scores[1],
        training=Training(
            course=COURSE,
            rows=len(rows[0].ids),
            dev_rows=len(rows[1].ids),
            settings={**asdict(recipe), "optimizer": "AdamW"},
            dev_same=tuple(round(one, 4) for one in fitted.dev_same),
            kept=fitted.kept,
            wall_s=round(fitted.wall_s, 1),
            threads=THREADS,
            libraries=versions(*TRAINED_WITH),
        ),
        licences={"weights": MINILM.licence},
        limits=LIMITS,
        files={},
    )
