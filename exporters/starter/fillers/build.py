"""Builds the filler: fetch, split, train the adapter and the head, write them, merge, measure the result, publish."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import BertForMaskedLM

from deployments.replica.variant import file_sha256
from exporters.sources.adapters import Base, merge
from exporters.starter.adapter.folder import peft_config, trained_count, write_adapter
from exporters.starter.cards import Provenance, minilm
from exporters.starter.command import THREADS, Ticker
from exporters.starter.data import Split
from exporters.starter.fillers.card import LIMITS, METHOD, Compared, Data, FillerCard, Training, card
from exporters.starter.fillers.fit import Fitted, Recipe, fit, model_from
from exporters.starter.fillers.masking import Words, in_batches, one_each
from exporters.starter.fillers.material import (
    KINDS,
    SEED,
    SPLIT_RULE,
    Text,
    Texts,
    learnable,
    read_texts,
    sentences,
)
from exporters.starter.fillers.score import AT_ONCE, MOST_TOKENS, Cloze, Counts, by_model, clozes, read_everyday, scored
from exporters.starter.packages import ACLSUM, CHITCHAT, MINILM, MINILM_BASE, VADER, fetch_minilm
from exporters.starter.publishing import TRAINED_WITH, seal, versions
from exporters.starter.training import encode
from exporters.starter.vocabulary import full_tokenizer

NAME = "minilm-mask"
EVERYDAY = Path(__file__).with_name("everyday.jsonl")
SCORED, CHOSEN_BY = 400, 250
"""The most sentences of a kind that are scored, and by which the best state is chosen."""

PEFT = {
    "task_type": None,
    "base_model_name_or_path": "sentence-transformers/all-MiniLM-L6-v2",
    "modules_to_save": ["cls"],
}
SMOKE_TEXTS = 40
SMOKE_STEPS = 3


@dataclass(frozen=True)
class Material:
    """The texts, the folder of the base, its tokenizer, the token ids to learn from, the file of everyday sentences."""

    texts: Texts
    base: Path
    tokenizer: Tokenizer
    rows: dict[str, list[list[int]]]
    everyday: Path

    @classmethod
    def of(cls, texts: Texts, base: Path, everyday: Path = EVERYDAY) -> Material:
        """The texts as tokens of the base."""
        tokenizer = full_tokenizer(base)
        return cls(texts, base, tokenizer, learnable(texts.sides[Split.TRAIN], tokenizer), everyday)

    @property
    def every_row(self) -> list[list[int]]:
        """The token ids of all kinds."""
        return [row for rows in self.rows.values() for row in rows]

    def clozes(self, side: Split, most: int) -> list[Cloze]:
        """Up to `most` sentences of each kind of a side, each with one word to mask."""
        return asked_of(sentences(self.texts.sides[side], most), self.tokenizer)


def build(out: Path, cache: Path, ticker: Ticker, smoke: bool = False) -> FillerCard:
    """Writes `checkpoints/minilm-mask/` under `out`; a smoke run trains for a few steps.

    Training keeps its state in `out/work`, from which an interrupted build resumes; a finished one removes it.
    """
    texts = read_texts(cache, SMOKE_TEXTS if smoke else None)
    recipe = Recipe(steps=SMOKE_STEPS) if smoke else Recipe()
    return build_from(Material.of(texts, fetch_minilm(cache)), MINILM_BASE, recipe, out, ticker)


def build_from(material: Material, base: Base, recipe: Recipe, out: Path, ticker: Ticker) -> FillerCard:
    """Builds from fetched material, without network access."""
    torch.set_num_threads(THREADS)
    work, folder = out / "work", out / "checkpoints" / NAME
    work.mkdir(parents=True, exist_ok=True)
    words, rows = Words.of(material.tokenizer), material.every_row
    chosen_by = sorted(material.clozes(Split.DEV, CHOSEN_BY), key=lambda one: len(one.row))
    dev = in_batches([one.row for one in chosen_by], [[one.place] for one in chosen_by], words.mask_id, AT_ONCE)
    model = model_from(material.base, frequencies(rows, words), recipe)
    fitted = fit(model, rows, dev, words, recipe, work / f"{NAME}.pt", ticker(NAME))
    write_adapter(fitted.tensors, model, peft_config("bert", recipe.rank, recipe.alpha, **PEFT), base, folder)
    merge(folder, material.base, work, NAME)
    manifest = describe(fitted, recipe, base, material, work, folder)
    shutil.rmtree(work)
    return seal(folder, manifest, card(manifest))


def frequencies(rows: Sequence[Sequence[int]], words: Words) -> torch.Tensor:
    """How often each piece of the vocabulary stands in the rows as a whole word."""
    found = torch.tensor([row[at] for row in rows for at in words.places(row)])
    return torch.bincount(found, minlength=len(words.is_word))


def asked_of(texts: Sequence[Text], tokenizer: Tokenizer) -> list[Cloze]:
    """One cloze for each sentence that has a whole word of one piece, drawn by a fixed seed."""
    rows = encode(tokenizer, [text.text for text in texts], MOST_TOKENS)
    return clozes([text.kind for text in texts], rows, one_each(rows, Words.of(tokenizer), SEED))


def describe(fitted: Fitted, recipe: Recipe, base: Base, material: Material, merged: Path, folder: Path) -> FillerCard:
    """The manifest of the written files, with what was measured of the merged checkpoint; without digests."""
    model = BertForMaskedLM.from_pretrained(merged, dtype=torch.float32)
    heldout, dev = (material.clozes(side, SCORED) for side in (Split.HELDOUT, Split.DEV))
    compare = Comparer(model, Words.of(material.tokenizer), material.every_row)
    return FillerCard(
        name=NAME,
        task="fill",
        tier="balanced",
        family="BERT",
        architecture=BertForMaskedLM.__name__,
        layers=model.config.num_hidden_layers,
        width=model.config.hidden_size,
        parameters=sum(p.numel() for p in model.parameters()),
        trained_parameters=trained_count(folder),
        vocabulary=model.config.vocab_size,
        stored_precision="float16",
        base_size_bytes=base.size_bytes,
        base=minilm(),
        data=data_of(material),
        scores={kind: compare(asked) for kind in KINDS if (asked := [one for one in heldout if one.kind == kind])},
        heldout=compare(heldout),
        dev=compare(dev),
        everyday=compare(read_everyday(material.everyday, material.tokenizer)),
        training=_training(fitted, recipe),
        licences={"weights": MINILM.licence},
        limits=LIMITS,
        files={},
    )


class Comparer:
    """Scores a filler beside counts of the words that it learnt from."""

    def __init__(self, model: BertForMaskedLM, words: Words, rows: Sequence[Sequence[int]]) -> None:
        self._guess, self._counts = by_model(model, words), Counts(rows, words)

    def __call__(self, asked: Sequence[Cloze]) -> Compared:
        """The scores of all three guessers."""
        counts = self._counts
        guessers = {"checkpoint": self._guess, "pairs": counts.by_pairs, "frequency": counts.by_frequency}
        return Compared(**{name: scored(guess, asked) for name, guess in guessers.items()})


def data_of(material: Material) -> Data:
    """The record of the texts."""
    by = {VADER: "C.J. Hutto and Eric Gilbert, 2014", ACLSUM: "S. Takeshita et al., NAACL 2024, papers CC BY 4.0"}
    by[CHITCHAT] = "W. Myers et al., BYU Perception, Control and Cognition Lab, 2020"
    what = {VADER: "VADER ground truth: reviews and editorials", ACLSUM: "ACLSum: papers", CHITCHAT: "chitchat: chat"}
    return Data(
        origins=tuple(Provenance.of(package, what[package], by[package]) for package in (CHITCHAT, VADER, ACLSUM)),
        releases=material.texts.releases,
        split_rule=SPLIT_RULE,
        texts={kind: len(rows) for kind, rows in material.rows.items()},
        tokens={kind: sum(map(len, rows)) for kind, rows in material.rows.items()},
        everyday_sha256=file_sha256(material.everyday),
    )


def _training(fitted: Fitted, recipe: Recipe) -> Training:
    return Training(
        method=METHOD,
        settings={**asdict(recipe), "optimizer": "AdamW"},
        steps=fitted.steps,
        kept_step=fitted.kept_step,
        tokens=fitted.tokens,
        dev_right_by_step={step: round(share, 4) for step, share in fitted.dev_right_by_step.items()},
        wall_s=round(fitted.wall_s, 1),
        threads=THREADS,
        libraries=versions(*TRAINED_WITH),
    )
