"""Builds the general tagger: label, train the adapter, write it, merge it, measure the result, publish."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import BertForTokenClassification

from exporters.kinds.tagger import PIPELINE
from exporters.sources.adapters import fetch_base, merge
from exporters.sources.texts import ENTITIES
from exporters.starter.adapter.folder import peft_config, trained_count, write_adapter
from exporters.starter.cards import Provenance, minilm
from exporters.starter.command import THREADS, Tick, Ticker
from exporters.starter.entities.card import EntitiesCard, Training, card
from exporters.starter.entities.fit import Fitted, Recipe, Rows, fit, model_from
from exporters.starter.entities.labels import TEACHER, Labels, ask
from exporters.starter.entities.material import LABELS, Material, labelled, prepare
from exporters.starter.entities.names import COMPANIES, GEONAMES
from exporters.starter.entities.score import AGGREGATION, NAME, measure
from exporters.starter.packages import ACLSUM, CHITCHAT, MINILM, MINILM_BASE, VADER
from exporters.starter.publishing import TRAINED_WITH, emptied, seal, versions, write_json
from exporters.starter.taggers.score import Marked, read_marked

DOMAIN = "entities"
WINDOW = 128
"""Tokens: it is trained on one or two sentences at a time, of 96 tokens at most."""

SMOKE_SENTENCES, SMOKE_STEPS = 400, 3
PEFT = {
    "task_type": "TOKEN_CLS",
    "base_model_name_or_path": "sentence-transformers/all-MiniLM-L6-v2",
    "modules_to_save": ["classifier"],
}
TOKENIZER_CONFIG = {
    "cls_token": "[CLS]",
    "do_lower_case": True,
    "mask_token": "[MASK]",
    "model_max_length": WINDOW,
    "pad_token": "[PAD]",
    "sep_token": "[SEP]",
    "strip_accents": None,
    "tokenize_chinese_chars": True,
    "tokenizer_class": "BertTokenizer",
    "unk_token": "[UNK]",
}
"""The base's, with another window."""

MEANINGS = {
    "PER": "people, without titles",
    "LOC": "countries, cities, regions, waters, buildings and streets",
    "ORG": "companies, institutions, parties, teams, and bodies of a government",
    "MISC": "nationalities and faiths, languages, events, products, works of art, laws",
}
LIMITS = (
    "It learnt from another model's labels, mistakes included. It misses names, most of all rare ones of several words "
    "and those of works of art, and confuses their kinds. For personal data there is `rampart`; do not rest a legal "
    "duty on either alone.",
    "English. It does not tell small from capital letters: it reads chats as well as news, and takes some common words "
    "for names that are spelt alike.",
    "On news it is behind its teacher. On the other marked texts it is ahead, which are of the kinds that it was also "
    "taught by written sentences: on texts of other authors it may do less well.",
    "No dates, sums or quantities.",
)


def build(out: Path, cache: Path, ticker: Ticker, smoke: bool = False) -> EntitiesCard:
    """Writes `checkpoints/minilm-entities/` under `out`; a smoke run trains for a few steps.

    Training keeps its state in `out/work`, from which an interrupted build resumes; a finished one removes it.
    Raises NotFetched, CannotBuild.
    """
    torch.set_num_threads(THREADS)
    work, folder = out / "work", out / "checkpoints" / NAME
    work.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(steps=SMOKE_STEPS) if smoke else Recipe()
    material = prepare(cache, ticker, SMOKE_SENTENCES if smoke else None)
    model = model_from(material.base, recipe)
    train, dev = (rows_of(some, material.tokenizer, recipe.max_tokens) for some in (material.train, material.dev))
    fitted = fit(model, train, dev, recipe, work / f"{NAME}.pt", ticker(NAME))
    settings = peft_config("bert", recipe.rank, recipe.alpha, **PEFT)
    served = {PIPELINE: {"aggregation_strategy": AGGREGATION}}
    write_adapter(fitted.tensors, model, settings, MINILM_BASE, emptied(folder), task_specific_params=served)
    write_json(TOKENIZER_CONFIG, folder / "tokenizer_config.json")
    labels = ask([one.text for one in read_marked(ENTITIES)], cache, ticker("teacher, marked by hand"))
    fetch_base(MINILM_BASE, NAME, cache, emptied(work / "base"), lambda share: None)
    merge(folder, work / "base", emptied(work / "merged"), NAME)
    manifest = describe(fitted, recipe, material, work / "merged", folder, labels, ticker("scoring"))
    shutil.rmtree(work)
    return seal(folder, manifest, card(manifest))


def rows_of(some: Sequence[Marked], tokenizer: Tokenizer, most: int) -> Rows:
    """The encoded rows with the labels of their tokens, cut at `most` tokens."""
    tokenizer.enable_truncation(most)
    encodings = tokenizer.encode_batch([one.text for one in some])
    pairs = zip(encodings, some, strict=True)
    return Rows([one.ids for one in encodings], [labelled(encoding, one) for encoding, one in pairs])


def describe(
    fitted: Fitted, recipe: Recipe, material: Material, whole: Path, folder: Path, labels: Labels, tick: Tick
) -> EntitiesCard:
    """The manifest of the written files; without digests."""
    shape = BertForTokenClassification.from_pretrained(whole, dtype=torch.float32)
    return EntitiesCard(
        name=NAME,
        task="tokens",
        tier="balanced",
        domain=DOMAIN,
        family="BERT",
        architecture=type(shape).__name__,
        layers=shape.config.num_hidden_layers,
        width=shape.config.hidden_size,
        parameters=sum(p.numel() for p in shape.parameters()),
        trained_parameters=trained_count(folder),
        window=WINDOW,
        aggregation=AGGREGATION,
        labels=LABELS,
        stored_precision="float16",
        base_size_bytes=MINILM_BASE.size_bytes,
        base=minilm(),
        teacher=Provenance.of(TEACHER, "spaCy's small English model (`en_core_web_sm` 3.8.0)", "Explosion"),
        data=(
            Provenance.of(VADER, "Films, editorials and tweets of the VADER ground truth", "C.J. Hutto"),
            Provenance.of(ACLSUM, "Papers of ACLSum, from 2016 on", "Sotaro Takeshita and others"),
            Provenance.of(CHITCHAT, "Conversations of the Chit-Chat challenge", "the BYU PCC Lab"),
            Provenance.of(GEONAMES, "Places of GeoNames", "GeoNames and Ramiro Gómez"),
            Provenance.of(COMPANIES, "Companies of stock indices", "the PyTickerSymbols authors"),
        ),
        kinds=MEANINGS,
        scores=measure(whole, material.heldout, labels, tick),
        training=Training(
            rows=len(material.train),
            dev_rows=len(material.dev),
            settings={**asdict(recipe), "optimizer": "AdamW"},
            dev_f1=tuple(round(one, 4) for one in fitted.dev_f1),
            kept=fitted.kept,
            wall_s=round(fitted.wall_s, 1),
            threads=THREADS,
            libraries=versions(*TRAINED_WITH),
        ),
        licences={"weights": MINILM.licence, "marked": "Apache-2.0, as this repository"},
        limits=LIMITS,
        files={},
    )
