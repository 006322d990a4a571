"""A tokenizer of single bytes with ChatML's marks, a manifest and a scribe over it, for tests of what writes on."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from by_hand import manifest_of
from fake_engines import Saying
from fakes import FakeClock, cell
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from deployments.engines.base import Decoder, Logits, Pending, TokenIds
from deployments.replica.generate.prompts import Prompts
from deployments.replica.generate.writing import Scribe
from gateway.model.manifest import GoldenSummary
from gateway.model.profile import ProfileDocument
from gateway.tasks.generate import CausalManifest, NextTokenVerification, WritingRules

BEGIN, END = "<|im_start|>", "<|im_end|>"
TEMPLATE = (
    "{% for one in messages %}{% if one.role == 'system' and not loop.first %}{{ raise_exception('late') }}{% endif %}"
    "<|im_start|>{{ one.role }}\n{{ one.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML, which takes a system message as the first only."""

_BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
EOS = len(_BYTES) + 1
WINDOW = 64
OUTPUT_TOKENS = 12.0


def tokenizer() -> Tokenizer:
    """Return a tokenizer with a token for each byte, and two special ones."""
    made = Tokenizer(models.BPE({letter: at for at, letter in enumerate(_BYTES)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(name, special=True) for name in (BEGIN, END)])
    return made


def prompts(folder: Path, template: str | None = TEMPLATE) -> Prompts:
    """Return the prompts of a checkpoint whose tokenizer is written into the folder."""
    file = folder / "tokenizer.json"
    tokenizer().save(str(file))
    return Prompts(file, template, (EOS,))


def tokens_of(text: str) -> list[int]:
    """Return the tokens of a text, one a byte."""
    ids: list[int] = tokenizer().encode(text).ids
    return ids


def says_text(text: str) -> Saying:
    """Return a saying that writes this text after any prompt, then ends."""
    said = tokens_of(text)
    return lambda prompt, written: said[len(written)] if len(written) < len(said) else EOS


def manifest(**rules: int | float | bool) -> CausalManifest:
    """Return a manifest: 20 ms to read with the first token, 10 ms for each later one, at most 40 tokens."""
    given = {"eos_token_ids": (EOS,), "max_new_tokens": 40, **rules}

    def profile(seconds: float) -> ProfileDocument:
        cells = tuple(cell(rows, tokens, seconds * (1 + rows) / 2) for rows in (1, 2, 4, 8) for tokens in (8, WINDOW))
        return ProfileDocument(threads=1, measured_on="a desk", cells=cells)

    return manifest_of(
        CausalManifest,
        "scribbler",
        "generate",
        family="GPT-2",
        max_tokens=WINDOW,
        files={"tokenizer.json": "0" * 64},
        profile=profile(0.02),
        step_profile=profile(0.01),
        generation=WritingRules.model_validate_json(json.dumps(given)),
        output_tokens=OUTPUT_TOKENS,
        chat_template=True,
        verification=NextTokenVerification(
            texts=1,
            tokens=9,
            data_set="none",
            agreement=1.0,
            agreement_floor=0.9,
            nats=2.0,
            source_nats=2.0,
            nats_ceiling=0.1,
        ),
        self_test=(GoldenSummary(text="a", token_ids=(1,), written=(2,)),),
    )


@dataclass
class Scribbler:
    """A `Seq2SeqEngine` that follows a saying: a prompt takes `encode_s` with its first token, each later one `step_s`.

    `read` has the prompts it was given, without their last tokens, `steps` the number of tokens that it wrote, and
    `companies` how many stepped together each time.
    """

    clock: FakeClock
    saying: Saying
    encode_s: float = 0.02
    step_s: float = 0.01
    read: list[tuple[int, ...]] = field(default_factory=list)
    steps: int = 0
    companies: list[int] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        """Leave the gate open, before which a prompt waits to be read."""
        self.gate.set()

    def encode(self, token_ids: TokenIds) -> _Line:
        """Read a prompt."""
        self.gate.wait(60)
        self.read.append(tuple(token_ids.tolist()))
        self.clock.advance(self.encode_s)
        return _Line(self, [*self.read[-1]])

    def step_together(self, decoders: Sequence[Decoder], pending: Sequence[Pending]) -> list[Logits]:
        """Let each go on; a step of two takes half as long again as one of one, and so on."""
        lines = [one for one in decoders if isinstance(one, _Line)]
        self.companies.append(len(lines))
        self.clock.advance(self.step_s * (1 + len(lines)) / 2)
        tokens = [int(ids[0]) for ids, _ in pending]
        said = [one.said(token) for one, token in zip(lines, tokens, strict=True)]
        for one, token in zip(lines, tokens, strict=True):
            one.go_on(token)
        return said

    def score(self, token_ids: TokenIds) -> Logits:
        """No test asks for it."""
        raise NotImplementedError


@dataclass
class _Line:
    engine: Scribbler
    tokens: list[int]
    prompt: tuple[int, ...] = ()

    def step(self, tokens: TokenIds, origins: TokenIds) -> Logits:
        """Return logits that favour the saying's next token by far."""
        if self.prompt:
            self.engine.clock.advance(self.engine.step_s)
        said = self.said(int(tokens[0]))
        self.go_on(int(tokens[0]))
        return said

    def said(self, token: int) -> Logits:
        """Return what follows the next token, and stay where it is."""
        tokens = [*self.tokens, token]
        prompt = self.prompt or tuple(tokens)
        logits = np.zeros((1, EOS + 1), dtype=np.float32)
        logits[0, self.engine.saying(prompt, tuple(tokens[len(prompt) :]))] = 8
        return logits

    def go_on(self, token: int) -> None:
        """Take the next token."""
        self.engine.steps += 1
        self.tokens.append(token)
        self.prompt = self.prompt or tuple(self.tokens)


def scribe(folder: Path, engine: Scribbler, **rules: int | float | bool) -> Scribe:
    """Return a scribe over an engine."""
    return Scribe(manifest(**rules), engine, prompts(folder))
