"""A tagger for tests: its catalog and manifest, and one open over an engine that knows words, without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from by_hand import SELF_TEST, bert_tokenizer, entry_of, manifest_of
from fakes import FakeClock, latency_profile, profile_document
from tokenizers import Tokenizer

from deployments.engines.base import Logits, TokenIds
from deployments.replica.tagging.entities import Tagger
from deployments.replica.tagging.reading import TextReader
from deployments.replica.tagging.replica import OpenTagger, TaggerReplica
from gateway.catalogs.catalog import Catalog, Defaults
from gateway.model.messages import Answer, InputReport, ReplicaTimings, Work
from gateway.model.tier import Tier
from gateway.tasks.tokens import Aggregation, Entity, TaggerManifest, TaggingVerification

NAME, DOMAIN = "finder", "places"
LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "ann", "lee", "new", "york", "and", "##nie", "@", ".", "-")
TAGS = {"ann": "B-PER", "lee": "I-PER", "##nie": "B-PER", "new": "B-LOC", "york": "I-LOC", "[UNK]": "O"}
"""The label that the engine gives each piece; it says `O` of all others."""

WINDOW = 8


def catalog(default: str | None = None, others: tuple[str, ...] = ()) -> Catalog:
    """Return one tagger, made for a domain; `default` is the domain of requests that name none.

    `others` are better taggers, each made for the domain that it is named by.
    """
    entries = tuple(
        entry_of(name, "tokens", Tier.BALANCED, 80.0 + at, "F1", domain=name) for at, name in enumerate(others, start=1)
    )
    one = entry_of(NAME, "tokens", Tier.BALANCED, 80.0, "F1", domain=DOMAIN)
    defaults = Defaults(domain={"tokens": default} if default else {})
    return Catalog(name="tags", defaults=defaults, checkpoints=(one, *entries))


def manifest(aggregation: Aggregation = "simple") -> TaggerManifest:
    """Return the manifest of the tagger, with a small window."""
    verification = TaggingVerification(
        texts=1,
        tokens=1,
        data_set="by hand",
        label_agreement=1,
        label_agreement_floor=1,
        tagged_tokens=0,
        tagged_agreement_floor=1,
        logit_error=0,
        logit_error_ceiling=0,
        largest_logit_difference=0,
    )
    return manifest_of(
        TaggerManifest,
        NAME,
        "tokens",
        max_tokens=WINDOW,
        labels=LABELS,
        aggregation_strategy=aggregation,
        special_tokens=2,
        unknown_token_id=1,
        verification=verification,
        self_test=SELF_TEST,
        profile=profile_document(0.002),
    )


def manifests(others: tuple[str, ...] = ()) -> dict[str, TaggerManifest]:
    """Return the manifests of the catalog's checkpoints."""
    return {NAME: manifest()} | {name: manifest().model_copy(update={"checkpoint": name}) for name in others}


def answered(checkpoint: str, work: Work) -> Answer:
    """Answer each text with one entity, its first three characters, in one window."""
    entity = Entity(entity_group="PER", score=0.9, word="ann", start=0, end=3)
    report = InputReport(4, 4, False, len(work.inputs))
    return Answer(tuple([entity] for _ in work.inputs), report, ReplicaTimings(0.001, 0.002, 0.003, 1))


@dataclass
class KnowingEngine:
    """An `Engine` that labels each piece by itself, surer the nearer it is to the middle of its row; keeps its rows."""

    rows: list[list[int]] = field(default_factory=list)

    def run(self, token_ids: TokenIds, attention_mask: TokenIds, token_types: TokenIds | None = None) -> Logits:
        """Compute logits (batch, tokens, labels)."""
        batch, tokens = token_ids.shape
        found: Logits = np.zeros((batch, tokens, len(LABELS)), dtype=np.float32)
        for at, row in enumerate(token_ids.tolist()):
            length = int(attention_mask[at].sum())
            self.rows.append(row[:length])
            for place, token in enumerate(row):
                label = LABELS.index(TAGS.get(WORDS[token], "O"))
                found[at, place, label] = 1 + min(place, length - 1 - place)
        return found


def replica(folder: Path, engine: KnowingEngine, aggregation: Aggregation = "simple") -> TaggerReplica:
    """Return the replica of the tagger over an engine; it is not started."""
    made, file = manifest(aggregation), folder / "tokenizer.json"
    bert_tokenizer(WORDS).save(str(file))
    reader, tagger = TextReader.open(file, WINDOW), Tagger(Tokenizer.from_file(str(file)), LABELS, 1)
    variant = OpenTagger(made, engine, reader, tagger, latency_profile(0.01))
    return TaggerReplica(catalog().checkpoints[0], variant, 999, FakeClock())
