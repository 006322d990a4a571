"""Tiny translators of the real architectures: random weights, tokenizers of the real kinds, equal at every call.

What they write means nothing. Their tokenizers are trained on a handful of words, and lie in the checkpoint as the
Hub's do: Marian's and M2M-100's as files of SentencePiece's beside a table of ids, without a fast form.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from small_seq2seq import LONGEST_OUTPUT, SIZES, WINDOW, WORDS, make_seq2seq_checkpoint, redraw
from transformers import (
    GenerationConfig,
    M2M100Config,
    M2M100ForConditionalGeneration,
    M2M100Tokenizer,
    MarianConfig,
    MarianMTModel,
    MBart50Tokenizer,
    MBartConfig,
    MBartForConditionalGeneration,
    MBartTokenizer,
    NllbTokenizer,
    PreTrainedModel,
)

OTHER = (
    "der ein von und zu im war sagte für auf mit bei aus Fluss Brücke Rat Wasser Winter Hafen Markt Zug Schule Arzt "
    "Polizei Bericht früh spät Norden Süden geöffnet geschlossen bewegt gehoben gefunden verloren drei sieben hundert"
)
OTHER_WORDS = tuple(OTHER.split())
T5_PAIRS = {
    "translation_en_to_de": {"prefix": "translate English to German: ", "max_length": LONGEST_OUTPUT, "num_beams": 4},
    "translation_en_to_fr": {"prefix": "translate English to French: ", "max_length": LONGEST_OUTPUT, "num_beams": 4},
}


def sentences(count: int = 12, seed: int = 3, words: tuple[str, ...] = WORDS) -> list[str]:
    """Return sentences of 3 to 8 words, equal at every call."""
    chance = random.Random(seed)
    return [" ".join(chance.choices(words, k=chance.randint(3, 8))).capitalize() + "." for _ in range(count)]


def _pieces(file: Path, words: tuple[str, ...], kind: str) -> None:
    """Train a file of SentencePiece's on sentences of these words."""
    lines: Iterator[str] = iter(sentences(400, seed=5, words=words))
    SentencePieceTrainer.train(
        sentence_iterator=lines,
        model_prefix=str(file.with_suffix("")),
        vocab_size=110,
        model_type=kind,
        hard_vocab_limit=kind == "bpe",
        minloglevel=2,
    )
    file.with_suffix(".model").rename(file)
    file.with_suffix(".vocab").unlink()


def marian(folder: Path, *, many: bool = False) -> PreTrainedModel:
    """Write a Marian's tokenizer, of one target or of `many`, and return its model."""
    for name, words in (("source.spm", WORDS), ("target.spm", OTHER_WORDS)):
        _pieces(folder / name, words, "unigram")
    known = [SentencePieceProcessor(model_file=str(folder / name)) for name in ("source.spm", "target.spm")]
    names = [one.id_to_piece(at) for one in known for at in range(3, one.get_piece_size())]
    table = dict.fromkeys(["</s>", "<unk>", *names, *([">>deu<<", ">>fra<<"] if many else []), "<pad>"])
    ids = {piece: at for at, piece in enumerate(table)}
    (folder / "vocab.json").write_text(json.dumps(ids))
    told = {"source_lang": "en", "target_lang": "gem" if many else "de", "tokenizer_class": "MarianTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(told | {"model_max_length": WINDOW}))
    config = MarianConfig(
        vocab_size=len(ids),
        pad_token_id=ids["<pad>"],
        eos_token_id=0,
        decoder_start_token_id=ids["<pad>"],
        forced_eos_token_id=0,
        scale_embedding=True,
        **SIZES,
    )
    return MarianMTModel(config)


def _marked(folder: Path, tokenizer: Any, config: type[Any], model: type[Any], languages: int = 0) -> PreTrainedModel:
    """Write a tokenizer that marks texts with their language, and return a model for it.

    It has `languages` that the tokenizer's length leaves out.
    """
    tokenizer.save_pretrained(folder)
    made: PreTrainedModel = model(
        config(
            vocab_size=len(tokenizer) + languages,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.eos_token_id,
            forced_eos_token_id=tokenizer.eos_token_id,
            scale_embedding=True,
            **SIZES,
        )
    )
    return made


def mbart(folder: Path, tokenizer: type[Any] = MBartTokenizer) -> PreTrainedModel:
    """Write an mBART's tokenizer and return its model; of 25 languages the token stands behind a text."""
    file = folder / "sentencepiece.bpe.model"
    _pieces(file, WORDS, "unigram")
    made = tokenizer(vocab_file=str(file), src_lang="en_XX", tgt_lang="de_DE", model_max_length=WINDOW)
    return _marked(folder, made, MBartConfig, MBartForConditionalGeneration)


def mbart_50(folder: Path) -> PreTrainedModel:
    """Write an mBART-50's tokenizer and return its model; the token of the language stands before a text."""
    return mbart(folder, MBart50Tokenizer)


def nllb(folder: Path) -> PreTrainedModel:
    """Write an NLLB's tokenizer and return its model."""
    file = folder / "sentencepiece.bpe.model"
    _pieces(file, WORDS, "bpe")
    made = NllbTokenizer(vocab_file=str(file), model_max_length=WINDOW)
    return _marked(folder, made, M2M100Config, M2M100ForConditionalGeneration)


def m2m_100(folder: Path) -> PreTrainedModel:
    """Write an M2M-100's tokenizer and return its model."""
    file = folder / "sentencepiece.bpe.model"
    _pieces(file, WORDS, "bpe")
    known = SentencePieceProcessor(model_file=str(file))
    names = ["<s>", "<pad>", "</s>", "<unk>", *(known.id_to_piece(at) for at in range(3, known.get_piece_size()))]
    (folder / "vocab.json").write_text(json.dumps({piece: at for at, piece in enumerate(names)}))
    made = M2M100Tokenizer(
        vocab_file=str(folder / "vocab.json"), spm_file=str(file), src_lang="en", model_max_length=WINDOW
    )
    return _marked(folder, made, M2M100Config, M2M100ForConditionalGeneration, len(made.lang_code_to_id))


def marian_many(folder: Path) -> PreTrainedModel:
    """Write the tokenizer of a Marian with several targets and return its model."""
    return marian(folder, many=True)


TRANSLATORS: dict[str, Callable[[Path], PreTrainedModel]] = {
    "marian": marian,
    "marian-many": marian_many,
    "mbart": mbart,
    "mbart-50": mbart_50,
    "nllb": nllb,
    "m2m-100": m2m_100,
}
"""The makers of a tokenizer and a model, by family; `t5` is made as for summaries."""


SEEDS = {"marian": 9}
"""Seeds of models that write something of every verification text; 7 where a family is absent."""


def make_translator_checkpoint(folder: Path, family: str) -> Path:
    """Write a checkpoint of the family with verification texts of its own, laid out as the Hub's translators are."""
    seed = SEEDS.get(family, 7)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    if family == "t5":
        make_seq2seq_checkpoint(folder, "t5", seed)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"task_specific_params": T5_PAIRS}))
    else:
        model = TRANSLATORS[family](folder)
        redraw(model)
        model.generation_config = _generation(model)
        model.eval().save_pretrained(folder, safe_serialization=True)
    lines = [json.dumps({"text": one}) for one in sentences()]
    (folder / "verification.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def _generation(model: PreTrainedModel) -> GenerationConfig:
    """Return the generation config as Marian's checkpoints have it: padding is banned, and scores are made anew."""
    config: Any = model.config
    banned = {"bad_words_ids": [[config.pad_token_id]], "renormalize_logits": True}
    return GenerationConfig(
        decoder_start_token_id=config.decoder_start_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        forced_eos_token_id=config.eos_token_id,
        max_length=LONGEST_OUTPUT,
        num_beams=4,
        **(banned if config.model_type == "marian" else {}),
    )
