"""Builds the classifiers: fetch, split, prune, train the teacher, distil, measure, publish."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification

from deployments.replica.variant import file_sha256
from exporters.sources.texts import Sentence
from exporters.starter.cards import Provenance, minilm
from exporters.starter.command import THREADS, Ticker
from exporters.starter.data import LABELS, MIN_RATING, NOTICE, SOURCES, SPLIT_RULE, Split, heldout_rows
from exporters.starter.packages import MINILM, VADER
from exporters.starter.publishing import TRAINED_WITH, seal, versions, write_lines, write_weights
from exporters.starter.sentiment.card import LIMITS, METHODS, Data, Manifest, Score, Scores, Training, card
from exporters.starter.sentiment.fit import logits_of
from exporters.starter.sentiment.lessons import (
    LABEL_WEIGHT,
    POLISHED,
    STUDENT,
    TEMPERATURE,
    Learned,
    learn,
)
from exporters.starter.sentiment.material import RATING_SLOPE, Material, prepare
from exporters.starter.training import encode
from exporters.starter.vocabulary import MAX_TOKENS, write_tokenizer

SMOKE_SENTENCES = 40
TIERS = {POLISHED: "balanced", STUDENT: "realtime"}
SETTINGS: dict[str, float | str] = {
    "rating_slope": RATING_SLOPE,
    "label_weight": LABEL_WEIGHT,
    "temperature": TEMPERATURE,
    "optimizer": "AdamW",
    "autocast": "bfloat16",
}


def build(out: Path, cache: Path, ticker: Ticker, smoke: bool = False) -> list[Manifest]:
    """Writes `heldout.jsonl`, its notice and `checkpoints/` under `out`; a smoke run trains for a few steps.

    Training keeps its state in `out/work`, from which an interrupted build resumes; a finished one removes it.
    """
    return build_from(prepare(cache, SMOKE_SENTENCES if smoke else None), out, ticker, smoke)


def build_from(material: Material, out: Path, ticker: Ticker, smoke: bool) -> list[Manifest]:
    """Builds from fetched material, without network access."""
    out.mkdir(parents=True, exist_ok=True)
    heldout = out / "heldout.jsonl"
    write_lines(heldout_rows(material.sentences[Split.HELDOUT]), heldout)
    (out / NOTICE.name).write_text(NOTICE.read_text(encoding="utf-8"), encoding="utf-8")
    work = out / "work"
    learned = learn(material, work, ticker, smoke)
    checkpoints = out / "checkpoints"
    manifests = [publish(learned[i], learned[:i], material, heldout, checkpoints) for i in (2, 1)]
    shutil.rmtree(work)
    return manifests


def publish(learned: Learned, before: list[Learned], material: Material, heldout: Path, out: Path) -> Manifest:
    """Writes one checkpoint's folder under `out` and returns its manifest; `before` are the runs that it builds on."""
    folder = out / learned.lesson.name
    write_weights(learned.model, folder)
    student = learned.lesson.name == STUDENT
    inputs = ["input_ids", "attention_mask"] if student else ["input_ids", "token_type_ids", "attention_mask"]
    write_tokenizer(material.tokenizer, folder, "DistilBertTokenizer" if student else "BertTokenizer", inputs)
    manifest = describe(learned, before, material, heldout, folder)
    return seal(folder, manifest, card(manifest))


def describe(learned: Learned, before: list[Learned], material: Material, heldout: Path, folder: Path) -> Manifest:
    """The manifest of the written files, with scores measured on them; without digests."""
    name, config = learned.lesson.name, learned.model.config
    is_student = name == STUDENT
    sides = material.sentences
    said = answers(folder, sides[Split.HELDOUT])
    return Manifest(
        name=name,
        task="classify",
        tier=TIERS[name],
        family="DistilBERT" if is_student else "BERT",
        architecture=type(learned.model).__name__,
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        parameters=sum(p.numel() for p in learned.model.parameters()),
        vocabulary=len(material.vocabulary.tokens),
        labels=LABELS,
        stored_precision="float16",
        base=minilm(),
        data=data_of(
            heldout,
            {
                **{split.value: len(side) for split, side in sides.items()},
                "lukewarm": len(material.lukewarm),
                "lexicon": len(material.lexicon),
            },
            "the lukewarm rest is learnt from on the train side and never scored",
        ),
        scores=Scores(
            heldout=score(sides[Split.HELDOUT], said),
            heldout_by_source=by_source(sides[Split.HELDOUT], said),
            dev=score(sides[Split.DEV], answers(folder, sides[Split.DEV])),
        ),
        training=_training(learned, before),
        licences={"weights": MINILM.licence, "data": VADER.licence},
        limits=LIMITS,
        files={},
    )


def data_of(heldout: Path, sentences: dict[str, int], rest: str) -> Data:
    """The record of the sentences; `rest` says what became of those without a clear rating."""
    return Data(
        origin=Provenance.of(VADER, "VADER ground truth (hutto_ICWSM_2014)", "C.J. Hutto and Eric Gilbert, ICWSM 2014"),
        kept=f"|mean rating| >= {MIN_RATING}; {rest}",
        split_rule=SPLIT_RULE,
        sentences=sentences,
        heldout_sha256=file_sha256(heldout),
    )


def _training(learned: Learned, before: list[Learned]) -> Training:
    lesson = learned.lesson
    return Training(
        method=METHODS[lesson.name],
        teachers=tuple(b.lesson.name for b in before),
        settings={**asdict(lesson.recipe), **SETTINGS},
        dev_accuracy_by_epoch=tuple(round(a, 4) for a in lesson.fitted.dev_accuracy_by_epoch),
        kept_epoch=lesson.fitted.kept_epoch + 1,
        wall_s=round(lesson.wall_s, 1),
        build_wall_s=round(lesson.wall_s + sum(b.lesson.wall_s for b in before), 1),
        threads=THREADS,
        libraries=versions(*TRAINED_WITH),
    )


def answers(folder: Path, sentences: Sequence[Sentence]) -> list[str]:
    """The label that a saved checkpoint gives each sentence, in fp32."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    logits = logits_of(model, encode(tokenizer, [s.text for s in sentences], MAX_TOKENS))
    return [LABELS[i] for i in logits.argmax(1).tolist()]


def score(sentences: Sequence[Sentence], given: Sequence[str]) -> Score:
    """Accuracy with its 95 % Wilson interval. Raises `ValueError` for no sentences."""
    n = len(sentences)
    if n == 0:
        raise ValueError("no sentences to score")
    right = sum(s.label == answer for s, answer in zip(sentences, given, strict=True))
    low, high = wilson(right, n)
    return Score(sentences=n, accuracy=round(right / n, 4), low=round(low, 4), high=round(high, 4))


def by_source(sentences: Sequence[Sentence], given: Sequence[str]) -> dict[str, Score]:
    """The score on each data set with sentences, in the fixed order of the data sets."""
    scores = {}
    for source in SOURCES.values():
        pairs = [(s, a) for s, a in zip(sentences, given, strict=True) if s.source == source]
        if pairs:
            scores[source] = score([s for s, _ in pairs], [a for _, a in pairs])
    return scores


def wilson(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % confidence interval of a share (Wilson, 1927)."""
    share = right / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return centre - half, centre + half
