"""Embedders for tests: their catalog and manifests, and one that is open over an engine of sums, without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from by_hand import SELF_TEST, entry_of, manifest_of
from fakes import FakeClock, latency_profile, profile_document
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from deployments.engines.base import Logits, TokenIds
from deployments.replica.embedding import EmbedderReplica, OpenEmbedder, TextReader
from gateway.catalogs.catalog import Catalog, CatalogEntry, Defaults
from gateway.model.messages import Answer, InputReport, ReplicaTimings, Work
from gateway.model.tier import Tier
from gateway.tasks.answer import FoundAnswer
from gateway.tasks.classify import LabelScore
from gateway.tasks.embed import EmbedderManifest, EmbeddingVerification

QUICK, FINE = "quick", "fine"
MEDIANS_S = {QUICK: 0.002, FINE: 0.050}
"""Service time of one short text in seconds, by checkpoint."""

WORDS = ("<pad>", "<s>", "</s>", "<unk>", "cat", "dog", "sun", "query:", "red", "sea")
WINDOW = 8
DIMENSIONS = 4
PROMPTS = {"query": "query: "}


def catalog(default: str | None = None, also: tuple[str, ...] = ("similarity",)) -> Catalog:
    """Return two embedders that serve `embed` and `also`: quick (realtime), and fine (quality), slower and better."""
    return Catalog(
        name="vectors",
        defaults=Defaults(checkpoint={"embed": default} if default else {}),
        checkpoints=(entry(QUICK, Tier.REALTIME, 80.0, also), entry(FINE, Tier.QUALITY, 90.0, also)),
    )


def entry(name: str, tier: Tier, value: float, also: tuple[str, ...] = ("similarity",)) -> CatalogEntry:
    """Return the entry of an embedder with this quality, in points."""
    return entry_of(name, "embed", tier, value, "mean reciprocal rank", also=also)


def manifest(name: str, *, normalized: bool = True, prompts: dict[str, str] | None = None) -> EmbedderManifest:
    """Return the manifest of an embedder with a small window."""
    verification = EmbeddingVerification(
        texts=1,
        data_set="by hand",
        mean_cosine=1,
        least_cosine=1,
        least_cosine_floor=1,
        neighbours=1,
        neighbours_floor=1,
        reciprocal_rank_drop_ceiling=0,
        moved=0,
        moved_ceiling=0,
    )
    return manifest_of(
        EmbedderManifest,
        name,
        "embed",
        max_tokens=WINDOW,
        dimensions=DIMENSIONS,
        pooling=("mean",),
        normalized=normalized,
        prompts=prompts or {},
        verification=verification,
        self_test=SELF_TEST,
        profile=profile_document(MEDIANS_S.get(name, 0.01)),
    )


def manifests() -> dict[str, EmbedderManifest]:
    """Return the manifests of the catalog's checkpoints."""
    return {name: manifest(name) for name in MEDIANS_S}


def by_task(checkpoint: str, work: Work) -> Answer:
    """Answer `/embed` with vectors that tell the checkpoint, `/similarity` with scores, `/zero-shot` with labels.

    `/answer` gets as many answers as are asked for, each a character of the context.
    """
    timings = ReplicaTimings(0.001, 0.002, 0.003, 1)
    report = InputReport(4, 4, False)
    if work.task == "embed":
        return Answer(tuple([float(len(checkpoint)), *[0.5] * (DIMENSIONS - 1)] for _ in work.inputs), report, timings)
    if work.task == "answer":
        asked = zip(work.inputs, work.parameters.second_at, strict=True)
        found = tuple(
            [FoundAnswer(text[at + nth], 1 / (2 + nth), nth, nth + 1) for nth in range(work.parameters.top_k)]
            for text, at in asked
        )
        return Answer(found, InputReport(4, 4, False, len(found)), timings)
    if work.task == "zero-shot":
        labels = work.parameters.labels
        scored = tuple(LabelScore(label, 1 / (1 + at)) for at, label in enumerate(labels))
        return Answer(tuple(scored for _ in work.inputs[: len(work.inputs) - len(labels)]), report, timings)
    return Answer(tuple(0.5 for _ in work.inputs[1:]), report, timings)


def write_tokenizer(file: Path) -> None:
    """Write a tokenizer of whole words between `<s>` and `</s>`."""
    made = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    made.save(str(file))


@dataclass
class SummingEngine:
    """An `Engine` that gives the mean of a fixed vector for each token that the mask lets through; keeps its shapes."""

    shapes: list[tuple[int, ...]] = field(default_factory=list)

    def run(self, token_ids: TokenIds, attention_mask: TokenIds, token_types: TokenIds | None = None) -> Logits:
        """Compute vectors (batch, `DIMENSIONS`)."""
        self.shapes.append(token_ids.shape)
        table = np.random.default_rng(3).normal(size=(len(WORDS), DIMENSIONS)).astype(np.float32)
        mask = attention_mask[:, :, None].astype(np.float32)
        means: Logits = (table[token_ids] * mask).sum(axis=1) / mask.sum(axis=1)
        return means


def replica(
    folder: Path, engine: SummingEngine, *, normalized: bool = True, prompts: dict[str, str] | None = None
) -> EmbedderReplica:
    """Return the replica of an embedder over an engine; it is not started."""
    write_tokenizer(folder / "tokenizer.json")
    made = manifest(FINE, normalized=normalized, prompts=prompts)
    reader = TextReader.open(folder / "tokenizer.json", WINDOW, made.prompts, made.default_prompt)
    return EmbedderReplica(
        catalog(also=("similarity", "zero-shot", "answer")).checkpoints[1],
        OpenEmbedder(made, engine, reader, latency_profile(0.01)),
        999,
        FakeClock(),
    )
