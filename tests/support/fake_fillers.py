"""A filler for tests: its catalog and manifest, and one open over an engine that knows words, without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from by_hand import SELF_TEST, bert_tokenizer, entry_of, manifest_of
from fakes import FakeClock, latency_profile, profile_document
from tokenizers import Tokenizer, decoders

from deployments.engines.base import Logits, TokenIds
from deployments.replica.filling import FillerReplica, MaskReader, OpenFiller
from gateway.catalogs.catalog import Catalog
from gateway.model.messages import Answer, InputReport, ReplicaTimings, Work
from gateway.model.tier import Tier
from gateway.tasks.fill import MASK, FilledMask, FillerManifest, FillVerification

NAME = "guesser"
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ann", "lee", "said", "and", "##nie", ".")
MASK_ID = WORDS.index("[MASK]")
WINDOW = 12


def catalog() -> Catalog:
    """Return one filler."""
    return Catalog(name="masks", checkpoints=(entry_of(NAME, "fill", Tier.BALANCED, 50.0),))


def manifest() -> FillerManifest:
    """Return the manifest of the filler, with a small window."""
    verification = FillVerification(
        texts=1,
        data_set="by hand",
        same_word=1,
        same_word_floor=1,
        logit_error=0,
        logit_error_ceiling=0,
        largest_logit_difference=0,
    )
    return manifest_of(
        FillerManifest,
        NAME,
        "fill",
        max_tokens=WINDOW,
        mask_token="[MASK]",
        cleans_spaces=True,
        verification=verification,
        self_test=SELF_TEST,
        profile=profile_document(0.002),
    )


def manifests() -> dict[str, FillerManifest]:
    """Return the manifests of the catalog's checkpoints."""
    return {NAME: manifest()}


def answered(checkpoint: str, work: Work) -> Answer:
    """Answer each mask of each text with as many words as are asked for."""
    words = [FilledMask(1 / (2 + nth), 5, "ann", "ann said") for nth in range(work.parameters.top_k)]
    outputs = tuple([words for _ in MASK.findall(text)] for text in work.inputs)
    return Answer(outputs, InputReport(4, 4, False), ReplicaTimings(0.001, 0.002, 0.003, 1))


def tokenizer() -> Tokenizer:
    """Return a tokenizer of BERT's kind over a few pieces, uncased."""
    made = bert_tokenizer(WORDS)
    made.decoder = decoders.WordPiece(cleanup=False)
    return made


@dataclass
class CopyingEngine:
    """An `Engine` for which each mask is likely the token before it; keeps its rows."""

    rows: list[list[int]] = field(default_factory=list)

    def run(self, token_ids: TokenIds, attention_mask: TokenIds, token_types: TokenIds | None = None) -> Logits:
        """Compute logits (batch, masks, vocabulary)."""
        places = [np.flatnonzero(row == MASK_ID).tolist() for row in token_ids]
        found: Logits = np.zeros((len(token_ids), max(1, *map(len, places), 1), len(WORDS)), dtype=np.float32)
        for at, row in enumerate(token_ids.tolist()):
            self.rows.append(row[: int(attention_mask[at].sum())])
            for nth, place in enumerate(places[at]):
                found[at, nth, row[place - 1]] = 5
        return found


def replica(folder: Path, engine: CopyingEngine) -> FillerReplica:
    """Return the replica of the filler over an engine; it is not started."""
    made, file = manifest(), folder / "tokenizer.json"
    tokenizer().save(str(file))
    reader = MaskReader(file, WINDOW, made.mask_token, made.pad_token_id, cleans=made.cleans_spaces)
    variant = OpenFiller(made, engine, reader, latency_profile(0.01))
    return FillerReplica(catalog().checkpoints[0], variant, 999, FakeClock())
