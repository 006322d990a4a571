"""The inputs of training: made questions, each with a part of a text round its answer, and the tokens of that answer.

A part of the questions gets a context without the answer: the same text without the answer's sentence, or another text.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import msgspec
from tokenizers import Encoding, Tokenizer

from exporters.sources.registry import fetch
from exporters.starter.command import Tick, Ticker
from exporters.starter.data import Split
from exporters.starter.embedders.vectors import vectors_of
from exporters.starter.entities.labels import TEACHER, environment, unpacked
from exporters.starter.packages import CannotBuild, fetch_minilm
from exporters.starter.spans.slips import slipped
from exporters.starter.spans.synonyms import Synonyms
from exporters.starter.spans.texts import Document, read_documents
from exporters.starter.vocabulary import full_tokenizer

PROGRAM = Path(__file__).with_name("questions.py")
OF_SENTENCE = {"countries": 4, "editorials": 2, "papers": 1, "software": 1}
"""Most questions of one sentence, by source: those of an encyclopedia are most like what is asked."""

NAMED = re.compile(r"[A-Z0-9]")

WORDS = (30, 90)
"""The fewest and the most words of a context; the answer's sentence is whole, whatever its length."""

UNANSWERED = 0.12
"""The share of questions whose context has no answer."""

FOREIGN = 0.25
"""The share of contexts with sentences of another text of the same source after or before."""

LOST_WORDS = 0.05
"""The share of words that a question loses."""

SLIPS = 0.35
"""The share of questions with a slip of the tongue."""

NEAR = 3
"""Sentences before and after that a slip's wrong names are from."""

SEED = 20140601


@dataclass(frozen=True)
class Example:
    """A question, a context, and where its answer is in characters; None if it has none."""

    question: str
    context: str
    answer: tuple[int, int] | None


@dataclass(frozen=True)
class Material:
    """Examples for training and for dev, and the base."""

    train: Sequence[Example]
    dev: Sequence[Example]
    base: Path
    tokenizer: Tokenizer


@dataclass(frozen=True)
class Made:
    """A made question with its text, the sentence of the answer, and the answer's characters in that sentence."""

    text: str
    of: Document
    sentence: int
    answer: tuple[int, int]


def prepare(cache: Path, ticker: Ticker, limit: int | None = None) -> Material:
    """Fetches the texts and makes the questions; `limit` thins the texts to about that many (smoke run).

    Raises NotFetched, CannotBuild.
    """
    base, documents = fetch_minilm(cache), read_documents(cache)
    documents = documents[:: max(1, len(documents) // limit)] if limit else documents
    made = made_of(documents, ask([text for one in documents for text in one.sentences], cache, ticker("questions")))
    synonyms = Synonyms.of((one.text for one in made), vectors_of("all-minilm-l6", cache))
    sides = {side: [one for one in made if one.of.side is side] for side in Split}
    examples = {side: [*examples_of(some, synonyms, random.Random(SEED))] for side, some in sides.items()}
    return Material(examples[Split.TRAIN], examples[Split.DEV], base, full_tokenizer(base))


Asked = tuple[str, int, int]


def ask(sentences: Sequence[str], cache: Path, tick: Tick) -> list[list[Asked]]:
    """The questions that the program makes of each sentence, made once. Raises CannotBuild, NotFetched."""
    home = cache / "teacher"
    content = "".join(json.dumps(text) + "\n" for text in sentences).encode()
    name = sha256(PROGRAM.read_bytes() + content).hexdigest()[:12]
    texts, questions = home / f"{name}.texts", home / f"{name}.questions"
    if not questions.exists():
        home.mkdir(parents=True, exist_ok=True)
        texts.write_bytes(content)
        model, python = unpacked(fetch(TEACHER, cache), home), environment(home / "environment")
        partial = questions.with_suffix(".partial")
        with subprocess.Popen(
            [str(python), str(PROGRAM), str(model), str(texts), str(partial)], stdout=subprocess.PIPE, text=True
        ) as run:
            assert run.stdout is not None
            for line in run.stdout:
                done, total = map(int, line.split())
                tick(done, total, "questions are made")
        if run.returncode:
            raise CannotBuild(f"the questions' program stopped with status {run.returncode}: see what it printed")
        os.replace(partial, questions)
    rows = questions.read_text(encoding="utf-8").splitlines()
    return msgspec.json.decode(f"[{','.join(rows)}]", type=list[list[Asked]])


def made_of(documents: Sequence[Document], asked: Sequence[list[Asked]]) -> list[Made]:
    """The questions of all sentences, at most `OF_SENTENCE` of each, drawn by chance.

    Answers with a name or a number are drawn first: of others, many are not what anybody would ask for.
    """
    rng, rows = random.Random(SEED), iter(asked)
    found = []
    for document in documents:
        for place, questions in zip(range(len(document.sentences)), rows, strict=False):
            rng.shuffle(questions)
            sentence, most = document.sentences[place], OF_SENTENCE[document.source]
            some = sorted(questions, key=lambda one: NAMED.search(sentence[one[1] : one[2]]) is None)[:most]
            found += [Made(text, document, place, (start, end)) for text, start, end in some]
    return found


def examples_of(made: Sequence[Made], synonyms: Synonyms, rng: random.Random) -> Iterator[Example]:
    """Each question with a context, in random order."""
    by_source: dict[str, list[Document]] = {}
    beside: dict[tuple[str, str], list[str]] = {}
    for one in made:
        by_source.setdefault(one.of.source, []).append(one.of)
        beside.setdefault((one.of.source, one.of.name), []).append(one.text)
    for one in rng.sample(list(made), len(made)):
        others = by_source[one.of.source]
        text = _worn(synonyms.exchanged(one.text, rng), rng)
        if rng.random() < SLIPS:
            other = rng.choice(beside[one.of.source, one.of.name])
            text = slipped(
                text, other, " ".join(one.of.sentences[max(0, one.sentence - NEAR) : one.sentence + NEAR]), rng
            )
        question = replace(one, text=text)
        drawn = rng.random()
        if drawn < UNANSWERED / 3:
            foreign = rng.choice(others)
            sentences, _ = _round(foreign, rng.randrange(len(foreign.sentences)), rng)
            yield Example(question.text, " ".join(sentences), None)
        elif drawn < UNANSWERED:
            yield _without(question, rng)
        else:
            yield _answered(question, rng.choice(others), rng)


def _worn(question: str, rng: random.Random) -> str:
    """A question with some words lost; the first, which asks, is kept."""
    first, *rest = question.split(" ")
    return " ".join([first, *(one for one in rest if rng.random() > LOST_WORDS)])


def _round(of: Document, place: int, rng: random.Random) -> tuple[list[str], int]:
    """Neighbouring sentences of a text that hold the one at `place`, and where it is among them."""
    most = rng.randint(*WORDS)
    first = last = place
    words = len(of.sentences[place].split())
    while words < most and (first > 0 or last + 1 < len(of.sentences)):
        back = first > 0 and (last + 1 == len(of.sentences) or rng.random() < 0.5)
        first, last = (first - 1, last) if back else (first, last + 1)
        words += len(of.sentences[first if back else last].split())
    return list(of.sentences[first : last + 1]), place - first


def _answered(one: Made, other: Document, rng: random.Random) -> Example:
    sentences, place = _round(one.of, one.sentence, rng)
    if rng.random() < FOREIGN and other is not one.of:
        at = rng.randrange(len(other.sentences))
        foreign = list(other.sentences[at : at + rng.randint(1, 4)])
        if rng.random() < 0.5:
            sentences, place = [*foreign, *sentences], place + len(foreign)
        else:
            sentences = [*sentences, *foreign]
    before = len(" ".join([*sentences[:place], ""]))
    return Example(one.text, " ".join(sentences), (before + one.answer[0], before + one.answer[1]))


def _without(one: Made, rng: random.Random) -> Example:
    sentences, place = _round(one.of, one.sentence, rng)
    rest = [*sentences[:place], *sentences[place + 1 :]]
    return Example(one.text, " ".join(rest or list(one.of.sentences[: one.sentence])), None)


@dataclass(frozen=True)
class Rows:
    """Token rows of question and context, the first and last token of each answer, and where contexts begin.

    An answer that is not there has the place of the first token, 0.
    """

    ids: Sequence[Sequence[int]]
    types: Sequence[Sequence[int]]
    answers: Sequence[tuple[int, int]]


def rows_of(examples: Sequence[Example], tokenizer: Tokenizer, most: int) -> Rows:
    """The encoded examples, of which contexts are cut; one whose answer is cut off is left out."""
    tokenizer.enable_truncation(most, strategy="only_second")
    encodings = tokenizer.encode_batch([(one.question, one.context) for one in examples])
    kept = [
        (encoding, place)
        for encoding, one in zip(encodings, examples, strict=True)
        if (place := _tokens_of(encoding, one.answer)) is not None
    ]
    return Rows([one.ids for one, _ in kept], [one.type_ids for one, _ in kept], [place for _, place in kept])


def _tokens_of(encoding: Encoding, answer: tuple[int, int] | None) -> tuple[int, int] | None:
    """The first and last token of an answer; None if the row does not hold it."""
    if answer is None:
        return 0, 0
    within = [
        at
        for at, ((start, end), kind) in enumerate(zip(encoding.offsets, encoding.type_ids, strict=True))
        if kind == 1 and start < answer[1] and end > answer[0]
    ]
    whole = within and encoding.offsets[within[0]][0] <= answer[0] and encoding.offsets[within[-1]][1] >= answer[1]
    return (within[0], within[-1]) if whole else None
