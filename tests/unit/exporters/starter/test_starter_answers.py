"""Laws of the measure of answers by sentences: what it counts, what it fits, and which questions it takes."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from deployments.replica.variant import file_sha256
from exporters.sources.registry import Package
from exporters.starter.answers.__main__ import (
    by_chance,
    first_right,
    near,
    right_of,
    sigmoid_of_best,
    told_apart,
)
from exporters.starter.answers.material import CONTEXTS, TASK, TOGETHER, Asked, questions, synopses
from exporters.starter.zero_shot import material
from exporters.starter.zero_shot.fit import Cosines, off
from exporters.starter.zero_shot.material import SECTIONS

ASKED = [
    Asked("aa", ["aa", "b", "c"], frozenset({0})),
    Asked("b", ["aa", "b"], frozenset({0, 1})),
    Asked("c", ["c", "aa", "b"], frozenset({2})),
]


def by_letter(texts: Sequence[str]) -> Cosines:
    """Vectors of texts by their first letter."""
    return np.eye(3)[["abc".index(text[0]) for text in texts]]


def test_the_nearest_sentence_answers() -> None:
    """A question counts if a sentence with its answer is the nearest, or among as many as are looked at."""
    cosines = near(ASKED, by_letter)
    assert cosines.shape == (3, 3) and cosines[1, 2] == -np.inf
    assert first_right(ASKED, cosines) == pytest.approx(2 / 3) and first_right(ASKED, cosines, 3) == 1
    assert by_chance(ASKED) == pytest.approx((1 / 3 + 1 + 1 / 3) / 3) and right_of(ASKED, cosines) == [0, 1, 2]
    assert 0 <= off(cosines, right_of(ASKED, cosines), 0.1) <= 1


def test_the_sigmoid_lies_between_contexts_with_an_answer_and_without() -> None:
    """Where sentences that answer are near and the others far, a half lies between; without them nothing is near."""
    chance = np.random.default_rng(5)
    asked = [Asked("q", ["a", "b"], frozenset({0}))] * 2000
    cosines = np.stack([chance.normal(0.6, 0.1, 2000), chance.normal(0.2, 0.1, 2000)], axis=1)
    found = sigmoid_of_best(asked, [cosines])
    assert found.middle == pytest.approx(0.4, abs=0.02) and found.slope > 20


def test_questions_are_told_apart_by_their_nearest_sentence() -> None:
    """Every pair of a question with an answer and one without counts, an equal one by half."""
    assert told_apart(np.asarray([[0.5, 0.1], [0.3, 0.2]]), np.asarray([[0.4], [0.3]])) == pytest.approx(2.5 / 4)


def test_synopses_ask_for_the_first_sentence_of_their_package(tmp_path: Path) -> None:
    """Each context has first sentences of packages of one section, of which no two have one source."""
    stanzas: list[str] = []
    described: list[str] = []
    long = "It is described at such length that nobody could call it short, " + "and then at more length still, " * 3
    for section in (*SECTIONS, "libs"):
        for at in range(TOGETHER * CONTEXTS + 1):
            name = f"{section}{at}"
            stanzas.append(f"Package: {name}\nSource: {name}\nSection: {section}\n")
            described.append(f"Package: {name}\nDescription-en: a {name} of sorts\n Number {at} in {section}. {long}\n")
    (tmp_path / "deb_dists_made_Packages").write_text("\n".join(stanzas))
    (tmp_path / "deb_dists_made_Translation-en").write_text("\n".join(described))
    found = synopses(tmp_path)
    assert len(found) == len(SECTIONS) * TOGETHER * CONTEXTS == len({one.question for one in found})
    for one in found:
        (right,) = one.right
        name = one.question.removeprefix("a ").removesuffix(" of sorts")
        section = name.rstrip("0123456789")
        assert one.sentences[right] == f"Number {name.removeprefix(section)} in {section}."
        assert len(one.sentences) == TOGETHER and all(f" in {section}." in sentence for sentence in one.sentences)


def test_questions_are_read_from_the_package_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question is taken with the sentences that hold its answer as whole words, or none if it has no answer."""
    context = "Ann built it . Bob did not . The year was 1836 . ANN was glad . "
    examples = [
        {"input": f"Who no by whom ?  \ncontext: {context}", "target": "Ann"},
        {"input": f"Why ?  \ncontext: {context}", "target": "unknown"},
        {"input": f"When ?  \ncontext: {context}", "target": "83"},
        {"input": "Who ?  \ncontext: Ann built it . Bob did not .", "target": "Ann"},
    ]
    content = json.dumps({"examples": examples}).encode()
    with tarfile.open(tmp_path / "made.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo(f"made-1.0/{TASK}")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    package = Package("made", "1.0", "made.tar.gz", file_sha256(tmp_path / "made.tar.gz"), "none", binary=False)
    monkeypatch.setattr(material, "BIGBENCH", package)
    first, second = questions(tmp_path, 9)
    assert (first.question, first.right) == ("Who no by whom ?", frozenset({0, 3})) and len(first.sentences) == 4
    assert (second.question, second.right) == ("Why ?", frozenset())
    assert questions(tmp_path, 1) == [first]
