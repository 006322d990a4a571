"""Makes questions of sentences with spaCy's parses: `python questions.py MODEL TEXTS QUESTIONS`.

Of each clause a part is asked for: its subject, object, time, place, number or reason. The clause becomes a question by
the usual rules of English. Runs as a program of its own, in an environment that has spaCy; it imports nothing of the
project.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import spacy
from spacy.lang.en.stop_words import STOP_WORDS
from spacy.tokens import Doc, Span, Token

SEED = 20140601
AT_ONCE = 128
SAY_EVERY = 500
SUBJECTS = ("nsubj", "nsubjpass")
OBJECTS = ("dobj", "attr", "oprd")
ASIDE = ("punct", "cc", "conj", "mark", "preconj", "parataxis", "dep", "intj", "meta", "relcl", "ccomp")
"""Children of a verb that its question leaves out."""

TRIMMED = ("relcl", "appos", "acl", "punct", "conj", "cc", "advcl")
"""What the parts of a question lose: they are long, and the answer is not among them."""

LONGEST_PART, LONGEST_ANSWER = 9, 12
MOST_WORDS = 28
DROPPED = 0.4
"""The chance that a part of the clause that is not needed is left out of its question."""

KINDS = {
    "PERSON": ("who", "who", "which person"),
    "NORP": ("who", "which group", "what people"),
    "ORG": ("what", "who", "which organization", "what group"),
    "GPE": ("what", "which country", "which place", "what"),
    "LOC": ("what", "which place", "what region"),
    "FAC": ("what", "what place", "which building"),
    "EVENT": ("what", "what event"),
    "MONEY": ("how much", "how much money"),
    "PERCENT": ("what percentage", "how much", "what share"),
    "DATE": ("when", "when", "what year", "what date"),
    "LANGUAGE": ("what language",),
}
"""Words that ask for an entity, by its type."""

TIMES = ("DATE", "TIME")
PLACES = ("GPE", "LOC", "FAC")
PEOPLE = frozenset(
    (
        *("president", "king", "queen", "leader", "minister", "author", "man", "woman", "people", "general", "emperor"),
        *("prince", "director", "founder", "artist", "writer", "scientist", "student", "researcher", "critic", "voter"),
        *("citizen", "official", "settler", "explorer", "worker", "user", "developer"),
    )
)
"""Nouns that `who` asks for."""
REASONS = ("because", "since", "as")


class Asker:
    """Makes the questions of one sentence."""

    def __init__(self, doc: Doc, chance: random.Random) -> None:
        self._doc, self._chance = doc, chance
        self._chunks = {token.i: chunk for chunk in doc.noun_chunks for token in chunk if token == chunk.root}
        self._entities = {token.i: entity for entity in doc.ents for token in entity}

    def questions(self) -> Iterator[tuple[str, int, int]]:
        """Each question with the first character of its answer and the one after the last."""
        for verb in self._doc:
            if verb.pos_ in ("VERB", "AUX") and verb.dep_ in ("ROOT", "conj", "ccomp", "advcl", "relcl"):
                for words, answer in self._of_clause(verb):
                    if answer is not None and 0 < len(answer) <= LONGEST_ANSWER and _tells(words):
                        yield _written(words), answer.start_char, answer.end_char
        yield from self._named()

    def _of_clause(self, verb: Token) -> Iterator[tuple[list[str], Span | None]]:
        subject = self._subject(verb)
        if subject is None:
            return
        parts = [one for one in verb.children if one.dep_ not in (*ASIDE, *SUBJECTS, "aux", "auxpass", "neg")]
        helpers = [one for one in verb.children if one.dep_ in ("aux", "auxpass") and one.i < verb.i]
        no = [one.text for one in verb.children if one.dep_ == "neg"]
        plain = subject.pos_ != "PRON"
        if plain and self._type(subject) not in TIMES:
            told = [*(one.text for one in helpers), *no, verb.text, *self._rest(parts)]
            yield [self._wh(subject), *told], self._answer(subject)
            yield from self._counted(subject, lambda noun: [*noun, *told])
        for part in parts:
            others = [one for one in parts if one is not part]
            asked = self._inverted(verb, subject, helpers, no) if plain else None
            if asked is not None:
                yield from self._of_part(part, asked, others)

    def _of_part(self, part: Token, asked: list[str], others: list[Token]) -> Iterator[tuple[list[str], Span | None]]:
        if part.dep_ in OBJECTS and part.pos_ != "PRON":
            yield [self._wh(part), *asked, *self._rest(others)], self._answer(part)
            yield from self._counted(part, lambda noun: [*noun, *asked, *self._rest(others)])
        elif part.dep_ in ("prep", "agent"):
            for noun in part.children:
                if noun.dep_ == "pobj" and noun.pos_ != "PRON":
                    yield self._of_preposition(part, noun, asked, others), self._answer(noun)
        elif part.dep_ == "npadvmod" and self._type(part) in TIMES:
            yield ["when", *asked, *self._rest(others)], self._answer(part)
        elif part.dep_ == "advcl" and any(one.lower_ in REASONS and one.dep_ == "mark" for one in part.children):
            yield ["why", *asked, *self._rest(others)], self._doc[part.left_edge.i : part.right_edge.i + 1]
        elif part.dep_ in ("xcomp", "advcl") and any(one.lower_ == "to" for one in part.lefts):
            word = "what" if part.dep_ == "xcomp" else "why"
            doing = ["do"] if word == "what" else []
            whole = self._doc[part.left_edge.i : part.right_edge.i + 1]
            yield [word, *asked, *doing, *self._rest(others)], whole

    def _of_preposition(self, part: Token, noun: Token, asked: list[str], others: list[Token]) -> list[str]:
        kind, rest = self._type(noun), self._rest(others)
        if kind in TIMES:
            how = self._chance.choice((["when"], ["when"], ["in", "what", "year"], ["what", "year"]))
            return [*how, *asked, *rest]
        if kind in PLACES and part.lower_ in ("in", "at", "from", "to", "near", "on"):
            how = self._chance.choice((["where"], ["where"], [part.lower_, self._wh(noun)]))
            return [*how, *asked, *rest]
        if part.lower_ in ("because", "due"):
            return ["why", *asked, *rest]
        if self._chance.random() < 0.5:
            return [part.lower_, self._wh(noun), *asked, *rest]
        return [self._wh(noun), *asked, *rest, part.lower_]

    def _named(self) -> Iterator[tuple[str, int, int]]:
        """Questions of appositions: who or what someone or something is."""
        for token in self._doc:
            if token.dep_ == "appos" and token.head.pos_ in ("PROPN", "NOUN") and token.pos_ in ("PROPN", "NOUN"):
                one, other = self._answer(token.head), self._answer(token)
                about = self._phrase(token)
                if one is not None and other is not None and 1 <= len(about) <= LONGEST_PART:
                    yield _written([self._wh(token.head), "is", *about]), one.start_char, one.end_char
                    what = "who" if self._type(token.head) == "PERSON" else "what"
                    yield _written([what, "is", *self._phrase(token.head)]), other.start_char, other.end_char

    def _counted(self, noun: Token, ask: object) -> Iterator[tuple[list[str], Span | None]]:
        """Asks for the number of a noun, and for what stands before it."""
        assert callable(ask)
        for child in noun.children:
            if child.dep_ == "nummod":
                answer = self._doc[child.left_edge.i : child.i + 1]
                yield ask(["how", "many", *self._bare(noun)]), answer
            elif child.dep_ in ("amod", "compound") and child.i + 1 == noun.i and self._chance.random() < 0.3:
                first = self._chance.choice((["what", "kind", "of"], ["what", "type", "of"], ["what"], ["which"]))
                yield ask([*first, noun.text]), self._doc[child.left_edge.i : child.i + 1]

    def _bare(self, noun: Token) -> list[str]:
        return [one.text for one in noun.lefts if one.dep_ in ("amod", "compound")] + [noun.text]

    def _subject(self, verb: Token) -> Token | None:
        for one in (verb, verb.head if verb.dep_ == "conj" else verb):
            for child in one.children:
                if child.dep_ in SUBJECTS and child.tag_ not in ("WDT", "WP", "EX"):
                    return child
        return verb.head if verb.dep_ == "relcl" and self._relative(verb) else None

    def _relative(self, verb: Token) -> bool:
        return any(one.dep_ in SUBJECTS and one.tag_ in ("WDT", "WP") for one in verb.children)

    def _inverted(self, verb: Token, subject: Token, helpers: list[Token], no: list[str]) -> list[str] | None:
        """The verb and its subject in the order of a question."""
        who = self._phrase(subject)
        if not who or len(who) > LONGEST_PART:
            return None
        if helpers:
            return [helpers[0].text, *who, *no, *(one.text for one in helpers[1:]), verb.text]
        if verb.lemma_ == "be":
            return [verb.text, *who, *no]
        helper = {"VBD": "did", "VBZ": "does", "VBP": "do"}.get(verb.tag_, "did")
        return [helper, *who, *no, verb.lemma_]

    def _rest(self, parts: list[Token]) -> list[str]:
        """Parts of a clause, the ones before the verb last, each shortened or left out."""
        order = [one for one in parts if one.i > one.head.i] + [one for one in parts if one.i < one.head.i]
        found: list[str] = []
        for one in order:
            needed = one.dep_ in ("prt", *OBJECTS, "acomp", "xcomp")
            words = self._phrase(one)
            if len(words) <= LONGEST_PART and (self._chance.random() > (0.1 if needed else DROPPED)):
                found += words
        return found

    def _phrase(self, head: Token) -> list[str]:
        """The words of a phrase without clauses and asides."""
        out: list[Token] = []

        def walk(token: Token) -> None:
            for child in token.lefts:
                if child.dep_ not in TRIMMED or child.text in ("-", "'"):
                    walk(child)
            out.append(token)
            for child in token.rights:
                if child.dep_ not in TRIMMED or child.text in ("-", "'"):
                    walk(child)

        walk(head)
        return [one.text if one.pos_ == "PROPN" or one.ent_type_ else one.text.lower() for one in out]

    def _type(self, noun: Token) -> str:
        entity = self._entities.get(noun.i)
        return entity.label_ if entity is not None else ""

    def _wh(self, noun: Token) -> str:
        kind = self._type(noun)
        if kind in KINDS:
            return self._chance.choice(KINDS[kind])
        return "who" if noun.lemma_.lower() in PEOPLE else "what"

    def _answer(self, noun: Token) -> Span | None:
        """The entity or the noun chunk round a word, without an article; sometimes with what follows `of`."""
        found = self._entities.get(noun.i) or self._chunks.get(noun.i)
        if found is None:
            return None
        start, end = found.start, found.end
        while start < end and (self._doc[start].dep_ == "det" or self._doc[start].is_punct):
            start += 1
        while end > start and (self._doc[end - 1].is_punct or self._doc[end - 1].text in ("'s", "’s")):
            end -= 1
        of = self._doc[end] if end < len(self._doc) else None
        if of is not None and of.lower_ == "of" and of.head == noun and self._chance.random() < 0.5:
            longer = [one.i for one in of.subtree]
            end = max(longer) + 1 if len(longer) <= 5 else end
        return self._doc[start:end] if start < end else None


def _tells(words: list[str]) -> bool:
    """True if a question is not too long, and says enough to have one answer."""
    return len(words) <= MOST_WORDS and sum(len(one) > 2 and one.lower() not in STOP_WORDS for one in words) >= 3


def _written(words: list[str]) -> str:
    text = " ".join(words)
    for before, after in ((" 's", "'s"), (" ’s", "’s"), (" ,", ","), (" - ", "-"), ("$ ", "$"), (" %", "%")):
        text = text.replace(before, after)
    return text[:1].upper() + text[1:] + "?"


def ask(model: Path, texts: Path, questions: Path) -> None:
    """Writes for each text, a JSON string a line, its `[question, start, end]`; prints how many are done."""
    nlp = spacy.load(model)
    lines = [json.loads(line) for line in texts.read_text(encoding="utf-8").splitlines()]
    with questions.open("w", encoding="utf-8") as out:
        for done, doc in enumerate(nlp.pipe(lines, batch_size=AT_ONCE), start=1):
            found = Asker(doc, random.Random(f"{SEED} {doc.text}")).questions()
            out.write(json.dumps(list(dict.fromkeys(found))) + "\n")
            if done % SAY_EVERY == 0 or done == len(lines):
                print(done, len(lines), flush=True)


if __name__ == "__main__":
    ask(*map(Path, sys.argv[1:4]))
