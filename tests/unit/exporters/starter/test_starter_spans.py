"""Laws of the span head's recipe: what is made of a text, which tokens answer, and how answers are scored."""

from __future__ import annotations

import json
import random
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from small_masks import make_base
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from exporters.starter.answers.material import Asked
from exporters.starter.data import Split
from exporters.starter.embedders.vectors import UnitVectors
from exporters.starter.spans import material
from exporters.starter.spans.fit import Recipe, fit, model_from
from exporters.starter.spans.material import Example, Made, Rows, examples_of, made_of, rows_of
from exporters.starter.spans.score import context_of, f1, score, sentence_at
from exporters.starter.spans.slips import CORRECTIONS, slipped
from exporters.starter.spans.synonyms import LEAST_OFTEN, Synonyms
from exporters.starter.spans.texts import Document, countries

TOWERS = Document("countries", "aa", [f"Ann{at} built tower number {at} in town." for at in range(30)])
SHIPS = Document("countries", "bb", [f"Bob{at} sank ship {at} far out." for at in range(30)])


def answer_of(one: Example) -> str | None:
    """The text of an example's answer."""
    return None if one.answer is None else one.context[slice(*one.answer)]


def test_a_context_holds_the_answer_or_lacks_its_sentence() -> None:
    """The answer is where the example says; a question without one has a context without the answer's sentence."""
    made = [Made(f"Who built tower number {at}?", TOWERS, at, (0, len(f"Ann{at}"))) for at in range(30)] * 20
    made += [Made(f"Who sank ship {at}?", SHIPS, at, (0, len(f"Bob{at}"))) for at in range(30)]
    found = [*examples_of(made, Synonyms({}), random.Random(1))]
    assert len(found) == len(made)
    answered = [one for one in found if one.answer is not None]
    assert 0.8 < len(answered) / len(found) < 0.95
    for one in answered:
        said = answer_of(one) or ""
        sentence = next(each for each in (*TOWERS.sentences, *SHIPS.sentences) if each.startswith(f"{said} "))
        assert said[:3] in ("Ann", "Bob") and sentence in one.context
    assert all("built" in one.context or "sank" in one.context for one in found)


def test_names_and_numbers_are_asked_for_first() -> None:
    """Of a sentence with many questions those stay whose answers have a name or a number, up to the source's most."""
    of = Document("papers", "p", ["the cat saw Ann"])
    asked = [[("What saw Ann?", 4, 7), ("Who did the cat see?", 12, 15)]]
    assert [one.text for one in made_of([of], asked)] == ["Who did the cat see?"]


def test_a_slip_leaves_the_question_after_its_correction() -> None:
    """What is asked stays, word for word; what is said first and corrected stands before it."""
    question, rng = "Who built the tower of Pisa in 1173?", random.Random(3)
    for _ in range(200):
        said = slipped(question, "When did Bob sink the ship?", "Bob met Eve in Rome.", rng)
        left = iter(said.lower().split())
        assert all(word in left for word in question.lower().split()) and said != question
    assert len({*CORRECTIONS}) == len(CORRECTIONS)


def test_words_are_exchanged_for_near_ones_alone() -> None:
    """A word is exchanged for one with a near vector that is met often enough, and for nothing else."""
    of = {"began": (1.0, 0.0), "started": (0.8, 0.6), "ended": (0.0, 1.0)}

    def vectors(words: Sequence[str]) -> UnitVectors:
        return np.asarray([of[word] for word in words])

    found = Synonyms.of(["What began?", "What started?", "What ended?"] * LEAST_OFTEN, vectors)
    rng = random.Random(1)
    said = {found.exchanged("What began?", rng) for _ in range(200)}
    assert said == {"What began?", "What started?"}
    assert {found.exchanged("What did Ann?", rng) for _ in range(20)} == {"What did Ann?"}


def small_tokenizer() -> Tokenizer:
    """A tokenizer of a few pieces that joins a pair of texts as BERT's does."""
    pieces = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "who", "an", "##na", "built", "it", ".", "?"]
    tokenizer = Tokenizer(models.WordPiece({one: at for at, one in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return tokenizer


def test_answers_are_whole_tokens_of_the_context() -> None:
    """An answer has its first and last token; none has the first of the row; one that is cut off has no row."""
    examples = [
        Example("Who built it?", "Anna built it.", (0, 4)),
        Example("Who built it?", "It built it.", None),
        Example("Who built it?", "It built it. It built it. Anna built it.", (26, 30)),
    ]
    rows = rows_of(examples, small_tokenizer(), 13)
    assert rows.answers == [(6, 7), (0, 0)] and rows.types[0][:6] == [0] * 6 and rows.types[0][6] == 1


def test_words_are_scored_as_squad_scores_them() -> None:
    """Articles, capitals and punctuation do not count; words in common do; a sentence is right if it has the answer."""
    assert f1("the Start Point.", "start point") == 1 and f1("Start", "start point") == pytest.approx(2 / 3)
    assert f1("Ann", "Bob") == 0
    asked = [Asked("Who?", ["It is.", "Ann did."], frozenset({1}), "Ann")] * 2
    found = score(asked, ["ann", "It is."], [1, 0])
    assert (found.f1, found.exact, found.sentence) == (0.5, 0.5, 0.5)


def test_an_answer_lies_in_the_sentence_of_its_first_character() -> None:
    """Every character of a context belongs to the sentence that it was joined from."""
    sentences = ["It is.", "Ann did.", "So what?"]
    context = context_of(sentences)
    assert [sentence_at(sentences, context.index(one)) for one in sentences] == [0, 1, 2]
    assert sentence_at(sentences, len(context) - 1) == 2


def test_countries_are_read_without_markup(tmp_path: Path) -> None:
    """The background of each country is its text, by sentences and without tags; a country without one has none."""
    about = "<p>Ann &amp; Bob ruled it. <br><br>It was free in 1836. It is small.</p>"
    with zipfile.ZipFile(tmp_path / "made.whl", "w") as archive:
        archive.writestr("data/aa.json", json.dumps({"Introduction": {"Background": {"text": about}}}))
        archive.writestr("data/bb.json", "{}")
    first, second = countries(tmp_path / "made.whl")
    assert first.sentences == ["Ann & Bob ruled it.", "It was free in 1836.", "It is small."] and not second.sentences
    assert first.side in Split


@pytest.mark.export
def test_an_interrupted_fit_ends_as_one_in_a_piece(tmp_path: Path) -> None:
    """A fit that was killed and started again gives the tensors and scores of an uninterrupted one, to the bit."""
    base, rng = make_base(tmp_path / "base"), random.Random(1)
    ids = [[2, *(rng.randrange(5, 30) for _ in range(rng.randrange(4, 9))), 3] for _ in range(12)]
    rows = Rows(ids, [[0, 0, 0, *[1] * (len(row) - 3)] for row in ids], [(3, 4) for _ in ids])
    recipe = Recipe(steps=6, warmup_steps=2, batch_size=4, rank=2, alpha=4, score_every=2)

    def killed(done: int, steps: int, line: str) -> None:
        if done == 3:
            raise KeyboardInterrupt

    whole = fit(model_from(base, recipe), rows, rows, recipe, tmp_path / "whole.pt", lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        fit(model_from(base, recipe), rows, rows, recipe, tmp_path / "state.pt", killed)
    resumed = fit(model_from(base, recipe), rows, rows, recipe, tmp_path / "state.pt", lambda *_: None)
    assert (whole.dev_same, whole.kept) == (resumed.dev_same, resumed.kept) and len(whole.dev_same) == 3
    assert all(torch.equal(tensor, resumed.tensors[name]) for name, tensor in whole.tensors.items())


def test_the_parser_stays_outside() -> None:
    """Nothing of the recipe imports spaCy: the program that makes questions runs in an environment of its own."""
    others = [path for path in Path(material.__file__).parent.glob("*.py") if path.name != material.PROGRAM.name]
    assert len(others) > 5 and not any("import spacy" in path.read_text() for path in others)
